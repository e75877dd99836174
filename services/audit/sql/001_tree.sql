-- The audit: a Merkle tree over each program's entry hashes, kept after the log, and the checkpoints signed of it.
create schema audit;

-- Roots of perfect subtrees (RFC 6962): of the leaves number << level up to (number + 1) << level. Written once, when their last leaf is
-- there. Can be dropped and folded again from the log.
create table audit.nodes (
  program_id text collate "C" not null,
  level      smallint not null,
  number     bigint not null,
  hash       bytea not null,
  primary key (program_id, level, number)
);

-- Checkpoints as they were signed. The tree follows from the log; these do not: they are what the log is held to.
create table audit.checkpoints (
  program_id text collate "C" not null,
  size       bigint not null,
  made_us    bigint not null,
  note       text not null,
  primary key (program_id, size)
);

create function audit.refuse_change() returns trigger language plpgsql as $$
begin
  raise exception 'checkpoints are append-only: % on audit.checkpoints is refused', tg_op using errcode = 'restrict_violation';
end $$;
create trigger checkpoints_are_for_ever before update or delete on audit.checkpoints for each row execute function audit.refuse_change();
create trigger checkpoints_are_never_truncated before truncate on audit.checkpoints
  for each statement execute function audit.refuse_change();

-- Programs whose next checkpoint was refused, and why; the row goes when one is made.
create table audit.refusals (
  program_id text collate "C" not null primary key,
  size       bigint not null,
  reason     text not null,
  refused_at timestamptz not null default now()
);
