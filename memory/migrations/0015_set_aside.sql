-- What will be refused however often it is tried is set aside, so that the rest goes on; a row says what, and why.

alter table outbox add column tries integer not null default 0;  -- at which it alone failed
alter table outbox add column refused_at timestamptz;
alter table outbox add column refusal text;
create index outbox_waiting on outbox (tries, id) where refused_at is null;

-- How long the model of a step has refused: `waited` counts from the first refusal, and leaves out what passed between
-- two refusals beyond the pause that was due (`pause`) and the call itself.
create table model_refusals (
    key        text primary key,
    waited     double precision not null default 0,
    pause      double precision not null,
    refused_at timestamptz not null default clock_timestamp()
);
create index model_refusals_at on model_refusals (refused_at);

-- Of the next event of this run: how often the plugin refused it, and since when. `pending`: the run is looked up by
-- this row until it was told to its end, so that the plugin's mark need not wait for it.
alter table heard add column tries integer not null default 0;
alter table heard add column refused_since timestamptz;
alter table heard add column pending boolean not null default false;
create index heard_pending on heard (plugin, lease_until) where pending;
alter table listeners add column took_at timestamptz;  -- when the plugin last took an event, to about a second

create table unheard (
    plugin text not null references listeners (plugin),
    run_id uuid not null,
    seq    bigint not null,
    error  text not null,
    at     timestamptz not null default clock_timestamp(),
    primary key (plugin, run_id, seq)
);
