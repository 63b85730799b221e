-- name: limits
-- How many connections each limit allows (-1: any number), and which of them are in use: leases are one of each worker.
-- The names of other roles' sessions are shown to everybody; background processes have no role.
with limits (name, most, database, role) as (values
    ('max_connections of the server, less what it reserves',
     current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
     - coalesce(current_setting('reserved_connections', true)::int, 0), null::name, null::oid),
    ('the connection limit of the database',
     (select datconnlimit from pg_database where datname = current_database()), current_database(), null),
    ('the connection limit of the role',
     (select rolconnlimit from pg_roles where rolname = session_user), null,
     (select oid from pg_roles where rolname = session_user))
)
select l.name, l.most,
       count(*) filter (where a.application_name ~ '^holdfast-agents-.*-leases$' and a.application_name <> $1) as agents,
       count(*) filter (where a.application_name ~ '^holdfast-memory-.*-leases$' and a.application_name <> $1) as memory,
       count(*) filter (where a.application_name !~ '^holdfast-(agents|memory)-') as others
from limits l
join pg_stat_activity a on a.usesysid is not null
     and a.datname = coalesce(l.database, a.datname) and a.usesysid = coalesce(l.role, a.usesysid)
where l.most >= 0
group by l.name, l.most
