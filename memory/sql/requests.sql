-- name: put
insert into requests (run_id, step_no, definition, ranges, recall, params, hash) values ($1, $2, $3, $4, $5, $6, $7)
on conflict (run_id, step_no) do nothing

-- name: get
select definition, ranges, recall, params, hash from requests where run_id = $1 and step_no = $2

-- name: pinned
select m.seq from runs r join messages m on m.id = r.message where r.run_id = $1
