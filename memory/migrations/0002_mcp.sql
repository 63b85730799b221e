-- MCP servers, and their tools as a person first saw or since accepted them.

create table mcp_servers (
    server     text primary key,
    said       json not null,                 -- what it says of itself: name, version, protocol
    revision   bigint not null default 1,     -- goes up whenever what agents are given may change
    first_seen timestamptz not null default clock_timestamp(),
    last_seen  timestamptz not null default clock_timestamp()
);

-- pinned is what agents are given, offered what the server said last; both {description, schema}. They differ, or pinned
-- is null, while the tool is suspended. json, not jsonb: the model is sent the very text.
create table mcp_tools (
    server       text not null references mcp_servers (server),
    tool         text not null,
    pinned       json,
    pinned_hash  text,
    pinned_at    timestamptz,
    offered      json not null,
    offered_hash text not null,
    offered_at   timestamptz not null default clock_timestamp(),
    annotations  json not null,               -- the server's own hints: shown, never trusted
    present      boolean not null default true,
    primary key (server, tool)
);
