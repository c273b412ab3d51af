-- A part of an upload may be a block of the list as it is: `first` is the path with which it
-- begins, `entries` how many it has, and `tail` what is left over of looking at them for
-- those that follow.  A part without them is cut anew when the upload is ended.
alter table datastore_page add column first text;
alter table datastore_page add column entries bigint;
alter table datastore_page add column tail text;
