-- A folder that is kept though nothing is in it is a line among the files that are staged.
alter table staged_file add column is_folder bigint not null default 0;

-- What whoever sends a file notes beside it: an object of texts, in JSON.
alter table staged_file add column notes text not null default '{}';
alter table staged_upload add column notes text not null default '{}';
