-- What the shell offers at Tab: a value, and a word about it.

-- name: agents
select distinct name as value, '' as about from agents where $1::text is not null order by name

-- name: runs
select left(r.run_id::text, 8) as value, r.agent || ', ' || r.state as about
from runs r join threads t on t.id = r.thread_id
where t.tenant = $1 order by r.created_at desc limit 50

-- name: threads
select t.thread as value, coalesce(t.agent, '') as about from threads t where t.tenant = $1 order by t.id desc limit 50
