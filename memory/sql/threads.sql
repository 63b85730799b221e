-- name: ensure
insert into threads (tenant, thread) values ($1, $2) on conflict (tenant, thread) do nothing

-- name: lock
select id, agent, writer, writer_started, execution, task_queue, last_seq, next_order, window_from, scope
from threads where tenant = $1 and thread = $2 for update

-- name: claim
update threads set writer = $2, writer_started = $3, execution = $4, task_queue = $5 where id = $1

-- name: writer
select writer, execution,
       exists (select from runs r where r.thread_id = t.id and r.state in ('queued', 'running', 'waiting')
               and r.started_at is not null) as begun
from threads t where tenant = $1 and thread = $2

-- name: lock_while_written_by
select id from threads where id = $1 and writer = $2 for update

-- name: own
update threads set agent = $2 where id = $1

-- name: find
select id, agent, last_seq, window_from, task_queue from threads where tenant = $1 and thread = $2

-- name: queue_with_work
select task_queue from threads t where tenant = $1 and thread = $2
  and exists (select from runs r where r.thread_id = t.id and r.state in ('queued', 'running', 'waiting'))

-- name: hold_for_writer
-- A thread that another run asked for goes on under the same scope in a new chain: its slots are the same calls'.
select id, last_seq, window_from from threads
where tenant = $1 and thread = $2 and (writer = $3 or scope = $4) for share

-- name: lock_for_writer
select id, last_seq, window_from from threads where tenant = $1 and thread = $2 and writer = $3 for update

-- name: set_last_seq
update threads set last_seq = $2, execution = coalesce($3, execution) where id = $1

-- name: set_window
update threads set window_from = $2 where id = $1

-- name: take_order
update threads set next_order = next_order + 1 where id = $1 returning next_order - 1

-- name: append
insert into messages (thread_id, seq, run_id, step_no, role, call_id, body, tokens, blob)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9)

-- name: place
update messages set seq = $2 where id = $1 and seq is null

-- name: fill_slot
update messages set body = $3, tokens = $4, blob = $5 where thread_id = $1 and seq = $2 and body is null

-- name: open_slots
select seq, call_id, run_id from messages where thread_id = $1 and seq is not null and body is null order by seq

-- name: open_slots_of_run
select seq, call_id, run_id from messages
where thread_id = $1 and run_id = $2 and role = 'tool' and seq is not null and body is null order by seq

-- name: window
select seq, role, run_id, call_id, body, tokens from messages
where thread_id = $1 and seq >= $2 and ($3::bigint is null or seq <= $3) order by seq

-- name: count_of_run
select count(*) from messages where run_id = $1 and role = $2 and role <> 'assistant' and seq is not null

-- name: sizes
select seq, role, coalesce(tokens, 0) as tokens from messages
where thread_id = $1 and seq >= $2 and seq is not null order by seq

-- name: message_at
select seq, role, run_id, call_id, body, blob from messages where thread_id = $1 and seq = $2

-- name: at
select m.seq, m.role, m.body, m.blob from messages m where m.thread_id = $1 and m.seq = any ($2::bigint[]) order by m.seq

-- name: slot_of_step
select m.thread_id, m.seq, m.call_id from messages m join threads t on t.id = m.thread_id
where t.tenant = $1 and t.thread = $2 and m.run_id = $3 and m.step_no = $4 and m.role = 'tool' and m.body is null

-- name: recorded_result
select m.body, m.blob from effects e
join messages m on m.run_id = e.run_id and m.step_no = e.step_no and m.role = 'tool' and m.created_at <= e.created_at
where e.key = $1 and m.body is not null order by m.seq desc limit 1

-- name: asking
select body from messages where thread_id = $1 and seq < $2 and role = 'assistant' order by seq desc limit 1

-- name: page
select m.seq, m.role, m.run_id, m.step_no, m.call_id, m.body, m.blob, m.created_at
from messages m join threads t on t.id = m.thread_id
where t.tenant = $1 and t.thread = $2 and m.seq > $3 order by m.seq limit $4

-- name: put_blob
insert into blobs (id, tenant, bytes, body) values ($1, $2, $3, $4)
on conflict (id) do update set created_at = clock_timestamp()  -- it is wanted again: the collection shall not take it
where blobs.tenant = excluded.tenant and blobs.created_at < clock_timestamp() - interval '1 day'

-- name: get_blob
select body from blobs where id = $1 and tenant = $2

-- name: get_blobs
select id, body from blobs where id = any ($1::text[]) and tenant = $2

-- name: drop_blob
delete from blobs where id = $1 and tenant = $2
