-- How many model calls of a run had no known price: cost_usd does not include them, so it is not shown as if it did.
alter table runs add column unpriced integer not null default 0;
alter table spent_below add column unpriced integer not null default 0;
