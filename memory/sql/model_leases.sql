-- name: take
insert into model_leases (key, owner, lease_until)
values ($1, $2, clock_timestamp() + make_interval(secs => $3))
on conflict (key) do update set owner = excluded.owner, lease_until = excluded.lease_until
where model_leases.lease_until < clock_timestamp() or model_leases.owner = excluded.owner

-- name: left
select greatest(extract(epoch from lease_until - clock_timestamp()), 0)::float8 from model_leases where key = $1

-- name: renew
update model_leases m set lease_until = clock_timestamp() + make_interval(secs => $3)
from unnest($1::text[], $2::text[]) as mine (key, owner) where mine.key = m.key and mine.owner = m.owner

-- name: release
delete from model_leases where key = $1 and owner = $2

-- name: sweep
delete from model_leases where lease_until < clock_timestamp() - interval '1 hour'
