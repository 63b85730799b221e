-- A step has one key; a person's word on a call never made a second one.
alter table effects drop column epoch;

-- When the remote was first sent this key, and how often a look-up failed since the last send: tries are counted here,
-- not by Temporal, whose count has outages in it.
alter table effects add column first_sent_at timestamptz,
                    add column looks         int not null default 0;
