-- How far each plugin that listens has heard each run. `lease_until` keeps two workers from telling it the same at a time.

create table listeners (
    plugin text primary key,
    since  timestamptz not null default clock_timestamp()  -- runs that had ended by then are not told
);

create table heard (
    plugin      text not null references listeners (plugin),
    run_id      uuid not null,
    seq         bigint not null default 0,
    lease_until timestamptz not null default clock_timestamp(),
    primary key (plugin, run_id)
);
