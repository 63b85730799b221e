#!/bin/sh
# Creates the database of Holdfast and the role that owns it, which is not a superuser; workers and clients log in as it.
# It may run at every start, and gives the role what an older stack created as the superuser. PG* variables name the server.
set -eu

psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --set=password="$OWNER_PASSWORD" --dbname=postgres <<'SQL'
select 'create role holdfast_owner' where not exists (select from pg_roles where rolname = 'holdfast_owner') \gexec
alter role holdfast_owner login nosuperuser nocreatedb nocreaterole noreplication password :'password';
select 'create database holdfast' where not exists (select from pg_database where datname = 'holdfast') \gexec
alter database holdfast owner to holdfast_owner;
\connect holdfast
select format('alter schema %s owner to holdfast_owner', nspname) from pg_namespace where nspname = 'holdfast' \gexec
select format('alter table %s owner to holdfast_owner', c.oid::regclass)
from pg_class c where c.relnamespace = to_regnamespace('holdfast') and (c.relkind in ('r', 'p', 'v', 'm')
  or c.relkind = 'S' and not exists (select from pg_depend d where d.objid = c.oid and d.deptype in ('a', 'i'))) \gexec
select format('alter routine %s owner to holdfast_owner', oid::regprocedure)
from pg_proc where pronamespace = to_regnamespace('holdfast') \gexec
SQL
