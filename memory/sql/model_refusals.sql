-- name: count
-- Since the last refusal there counts at most the pause that was due then, and this call, which took $2 seconds.
insert into model_refusals as r (key, pause) values ($1, 0)
on conflict (key) do update set
    waited = r.waited + least(greatest(extract(epoch from clock_timestamp() - r.refused_at), 0), r.pause + $2),
    refused_at = clock_timestamp()
returning waited

-- name: pause
update model_refusals set pause = $2 where key = $1

-- name: drop
delete from model_refusals where key = $1

-- name: sweep
delete from model_refusals where refused_at < clock_timestamp() - interval '1 day'
