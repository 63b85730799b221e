-- A step has one key; a person's word on a call never made a second one.

alter table effects drop column epoch;
