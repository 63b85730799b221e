-- Thread context, runs, the effect ledger and the record of what happened.
-- Ids that appear in many rows are bigint; a text that can be long is stored once, in messages or blobs.

create table threads (
    id             bigint generated always as identity primary key,
    tenant         text not null,
    thread         text not null,
    agent          text,                      -- who answers here; set by the first run
    writer         text,                      -- first_execution_run_id of the workflow chain that may append
    writer_started timestamptz,
    last_seq       bigint not null default 0,
    next_order     bigint not null default 1,
    window_from    bigint not null default 1, -- the model is sent messages from here on (set by compaction)
    parent_thread  bigint references threads (id),
    parent_seq     bigint,
    created_at     timestamptz not null default clock_timestamp(),
    unique (tenant, thread)
);

create table definitions (
    hash       text primary key,
    body       json not null,
    created_at timestamptz not null default clock_timestamp()
);

-- What the workers at work have loaded: the current definition of each agent.
create table agents (
    name       text primary key,
    definition text not null references definitions (hash),
    updated_at timestamptz not null default clock_timestamp()
);

-- seq is null until the message takes its place in the thread; body is null while a slot waits for its tool.
-- body is json, not jsonb: it is sent to the model as the very text that was stored.
create table messages (
    id         bigint generated always as identity primary key,
    thread_id  bigint not null references threads (id),
    seq        bigint,
    run_id     uuid not null,
    step_no    int,
    role       text not null,
    call_id    text,
    body       json,
    tokens     int,
    blob       text,                          -- the whole of a tool result that was passed on trimmed
    created_at timestamptz not null default clock_timestamp(),
    unique (thread_id, seq)
);
create index messages_run on messages (run_id) where role <> 'assistant';

create table blobs (
    id         text primary key,
    tenant     text not null,
    bytes      bigint not null,
    body       bytea not null,
    created_at timestamptz not null default clock_timestamp()
);

create table runs (
    run_id      uuid primary key,
    thread_id   bigint not null references threads (id),
    message_id  text not null,
    message     bigint references messages (id),
    accept_no   bigint,                       -- order of acceptance in the thread
    agent       text not null,
    definition  text references definitions (hash),
    mode        text not null,
    state       text not null,
    merged_into uuid,
    notify      text,
    scope       text,                         -- effect scope of the chain that works on it
    base        json,                         -- where it began under that scope: step number, and what was used before
    answer_seq  bigint,
    error       text,
    rounds      int not null default 0,
    steps       int not null default 0,
    tokens_in   bigint not null default 0,
    tokens_out  bigint not null default 0,
    cost_usd    numeric(18, 9) not null default 0,
    created_at  timestamptz not null default clock_timestamp(),
    started_at  timestamptz,
    ended_at    timestamptz,
    unique (thread_id, message_id)
);
create index runs_open on runs (thread_id, accept_no) where state in ('queued', 'running', 'waiting');
create index runs_created on runs (created_at desc);

create table heads (
    run_id uuid primary key,
    seq    bigint not null
);

create table events (
    run_id uuid not null,
    seq    bigint not null,
    kind   text not null,
    data   json not null,
    at     timestamptz not null default clock_timestamp(),
    primary key (run_id, seq)
);

-- Tokens of a model call under way; removed when its reply is committed.
create table deltas (
    run_id     uuid not null,
    step_no    int not null,
    generation bigint not null,
    n          int not null,
    text       text not null,
    at         timestamptz not null default clock_timestamp(),
    primary key (run_id, step_no, generation, n)
);
create sequence generations;

create table effects (
    key         text primary key,
    run_id      uuid not null,
    scope       text not null,
    step_no     int not null,
    epoch       int not null default 0,
    tool        text not null,
    class       text not null,
    args_hash   text not null,
    state       text not null check (state in ('in_flight', 'done', 'failed', 'in_doubt', 'retry_ok', 'abandoned')),
    fence       int not null default 1,
    owner       text,
    lease_until timestamptz,
    sent_at     timestamptz,
    deadline    timestamptz,
    settle      interval not null default '0',
    sends       int not null default 0,
    result      json,                         -- outcome as the workflow gets it: ids, counts, a preview
    error       text,
    created_at  timestamptz not null default clock_timestamp(),
    ended_at    timestamptz
);
create index effects_run on effects (run_id, step_no);
create index effects_open on effects (state) where state in ('in_flight', 'in_doubt');

create table late_outcomes (
    id      bigint generated always as identity primary key,
    key     text not null,
    fence   int not null,
    owner   text,
    outcome json not null,
    tokens  bigint not null default 0,
    cost_usd numeric(18, 9) not null default 0,
    at      timestamptz not null default clock_timestamp()
);
create index late_outcomes_key on late_outcomes (key);

create table approvals (
    run_id      uuid not null,
    step_no     int not null,
    call_id     text not null,
    tool        text not null,
    args_hash   text not null,
    policy      text not null,               -- hash of the definition it was asked under
    state       text not null check (state in ('pending', 'approved', 'rejected', 'void')),
    args        json,                        -- edited arguments, if a person changed them
    decision_id text,
    asked_at    timestamptz not null default clock_timestamp(),
    decided_at  timestamptz,
    primary key (run_id, step_no)
);
create index approvals_pending on approvals (run_id) where state = 'pending';

create table audit (
    id          bigint generated always as identity primary key,
    decision_id text not null unique,
    run_id      uuid,
    step_no     int,
    action      text not null,
    actor       text,
    verified    boolean not null default false,
    accepted    boolean not null,
    detail      json not null,
    at          timestamptz not null default clock_timestamp()
);
create index audit_run on audit (run_id);

-- The request of a model call is rebuilt byte for byte from this and the thread.
create table requests (
    run_id     uuid not null,
    step_no    int not null,
    definition text not null,
    ranges     int8multirange not null,
    recall     int,
    params     json not null,
    hash       text not null,
    primary key (run_id, step_no)
);

create table recalls (
    run_id  uuid not null,
    step_no int not null,
    hits    json not null,
    primary key (run_id, step_no)
);

create table outbox (
    id         bigint generated always as identity primary key,
    tenant     text not null,
    source_key text not null unique,
    run_id     uuid not null,
    thread     text not null,
    kind       text not null,
    text       text not null,
    created_at timestamptz not null default clock_timestamp()
);
