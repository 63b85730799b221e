-- name: meet
-- Lock the server's row; two workers that meet a server at once come one after the other.
insert into mcp_servers (server, said) values ($1, $2)
on conflict (server) do update set said = excluded.said, last_seen = clock_timestamp()
returning (xmax = 0) as first

-- name: tools
select server, tool, pinned, pinned_hash, pinned_at, offered, offered_hash, offered_at, annotations, present
from mcp_tools where server = any ($1) order by server, tool

-- name: offer
insert into mcp_tools (server, tool, offered, offered_hash, annotations, pinned, pinned_hash, pinned_at)
values ($1, $2, $3, $4, $5, case when $6 then $3::json end, case when $6 then $4 end,
        case when $6 then clock_timestamp() end)
on conflict (server, tool) do update set offered = excluded.offered, offered_hash = excluded.offered_hash,
    annotations = excluded.annotations, present = true,
    offered_at = case when mcp_tools.offered_hash = excluded.offered_hash and mcp_tools.present
                      then mcp_tools.offered_at else clock_timestamp() end

-- name: gone
update mcp_tools set present = false, offered_at = clock_timestamp() where server = $1 and tool = $2

-- name: touch
update mcp_servers set revision = revision + 1 where server = $1

-- name: revisions
select server, revision from mcp_servers where server = any ($1)

-- name: pinned_hash
select pinned_hash from mcp_tools where server = $1 and tool = $2

-- name: servers
select server, said, first_seen, last_seen from mcp_servers order by server

-- name: lock
select server from mcp_servers where server = $1 for update

-- name: accept
update mcp_tools set pinned = offered, pinned_hash = offered_hash, pinned_at = clock_timestamp()
where server = $1 and tool = $2 and offered_hash = $3
