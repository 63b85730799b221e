-- name: emit
-- The head's row lock is held until commit, so a reader never sees seq n + 1 before n.
with head as (
    insert into heads (run_id, seq) values ($1, 1)
    on conflict (run_id) do update set seq = heads.seq + 1
    returning seq
)
insert into events (run_id, seq, kind, data) select $1, head.seq, $2, $3 from head returning seq

-- name: read
select run_id, seq, kind, data, at from events where run_id = $1 and seq > $2 order by seq limit $3

-- name: generation
select nextval('generations')

-- name: delta
-- An older attempt of the same model call is refused once a newer one has spoken, any once the reply is recorded.
insert into deltas (run_id, step_no, generation, n, text)
select $1, $2, $3, $4, $5
where not exists (select from deltas where run_id = $1 and step_no = $2 and generation > $3)
  and not exists (select from requests where run_id = $1 and step_no = $2)

-- name: deltas
select step_no, generation, n, text from deltas
where run_id = $1 and (step_no, generation) = (
    select step_no, generation from deltas where run_id = $1 order by step_no desc, generation desc limit 1
)
order by n

-- name: drop_deltas
delete from deltas where run_id = $1 and step_no = $2
