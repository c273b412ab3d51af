-- Versions that are made of the objects of a bucket.

-- Where the bucket is, unless at Amazon; what opens it; and whether the objects were left
-- where they are, so that only their list is stored.
alter table datastore_version add column endpoint text;
alter table datastore_version add column credential text;
alter table datastore_version add column is_index bigint not null default 0;
