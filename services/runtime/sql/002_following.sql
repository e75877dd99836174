-- Followed projections: kept after the log, not in the transaction of an append. services/runtime/following.py runs them.

-- How far each has come in each program, and who follows it until when. Position and rows change in one transaction.
create table fenrun.followed (
  program_id text collate "C" not null,
  projection text collate "C" not null,
  position   bigint not null,
  holder     text not null,
  held_until timestamptz not null,
  primary key (program_id, projection)
) with (fillfactor = 50);  -- updated once per batch

-- Entries that a projection could not fold and went past: to it they are not in the log.
create table fenrun.quarantined (
  program_id     text collate "C" not null,
  projection     text collate "C" not null,
  position       bigint not null,
  error          text not null,
  quarantined_at timestamptz not null default now(),
  primary key (program_id, projection, position)
);
