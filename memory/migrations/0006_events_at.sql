-- Listeners are told by when events were written: `listeners.since` is now a time up to which a plugin has heard all.

create index events_at on events (at);
