-- The log: one gapless, hash-chained sequence of entries per program. docs/log.md describes it for people.
-- Texts are collated "C" so that order and ranges mean the same on every server.

create table fenrun.programs (
  program_id       text collate "C" primary key,
  currency         text collate "C" not null,
  head_position    bigint not null,
  head_hash        bytea not null,
  head_recorded_us bigint not null
) with (fillfactor = 50);  -- updated once per append: leave room for the new version on the same page

create table fenrun.entries (
  program_id     text collate "C" not null references fenrun.programs,
  position       bigint not null,
  stream         text collate "C" not null,
  stream_version bigint not null,
  type           text collate "C" not null,
  fact_id        text collate "C",
  occurred_us    bigint not null,
  recorded_us    bigint not null,
  actor          text not null,
  fact           bytea not null,
  decision       bytea not null,
  hash           bytea not null,
  primary key (program_id, position)
);
create unique index entries_stream on fenrun.entries (program_id, stream, stream_version);
create unique index entries_fact_id on fenrun.entries (program_id, fact_id) where fact_id is not null;

-- The second barrier, behind the privileges: not even the owner changes an entry without first taking this away in public.
create function fenrun.refuse_change() returns trigger language plpgsql as $$
begin
  raise exception 'the log is append-only: % on fenrun.entries is refused', tg_op using errcode = 'restrict_violation';
end $$;
create trigger entries_are_for_ever before update or delete on fenrun.entries for each row execute function fenrun.refuse_change();
create trigger entries_are_never_truncated before truncate on fenrun.entries for each statement execute function fenrun.refuse_change();

-- Appends entries at p_expected + 1, …, if the head still stands at p_expected; raises FR001 if it does not. Returns p_expected, which the
-- folds of the inline views take as an argument, so that they can only run after it.
create function fenrun.append(
  p_program text, p_expected bigint, p_head_hash bytea, p_head_recorded_us bigint,
  p_stream text[], p_stream_version bigint[], p_type text[], p_fact_id text[], p_occurred_us bigint[], p_recorded_us bigint[],
  p_actor text[], p_fact bytea[], p_decision bytea[], p_hash bytea[]
) returns bigint language plpgsql as $$
begin
  update fenrun.programs
     set head_position = p_expected + cardinality(p_stream), head_hash = p_head_hash, head_recorded_us = p_head_recorded_us
   where program_id = p_program and head_position = p_expected;
  if not found then
    raise exception 'the head of % is not at % any more', p_program, p_expected using errcode = 'FR001';
  end if;
  insert into fenrun.entries (program_id, position, stream, stream_version, type, fact_id, occurred_us, recorded_us, actor, fact, decision, hash)
  select p_program, p_expected + e.n, e.stream, e.stream_version, e.type, nullif(e.fact_id, ''), e.occurred_us, e.recorded_us, e.actor,
         e.fact, e.decision, e.hash
    from unnest(p_stream, p_stream_version, p_type, p_fact_id, p_occurred_us, p_recorded_us, p_actor, p_fact, p_decision, p_hash)
         with ordinality as e(stream, stream_version, type, fact_id, occurred_us, recorded_us, actor, fact, decision, hash, n);
  return p_expected;
end $$;

-- The last position recorded at or before a time: recorded_us grows with position, so halving finds it without an index of its own.
create function fenrun.position_at(p_program text, p_recorded_us bigint) returns bigint language plpgsql stable as $$
declare
  low bigint := 0;
  high bigint;
  middle bigint;
  found_us bigint;
begin
  select head_position into high from fenrun.programs where program_id = p_program;
  while low < high loop
    middle := (low + high + 1) / 2;
    select recorded_us into found_us from fenrun.entries where program_id = p_program and position = middle;
    if found_us <= p_recorded_us then low := middle; else high := middle - 1; end if;
  end loop;
  return low;
end $$;

-- Rows that a rebuild took out of a live view, kept so that it can be undone.
create table fenrun.replaced_rows (
  program_id  text collate "C" not null,
  projection  text collate "C" not null,
  position    bigint not null,
  replaced_at timestamptz not null default now(),
  row_data    jsonb not null
);

-- For people at a psql prompt.
create view fenrun.readable_entries as
select program_id, position, stream, stream_version, type, to_timestamp(occurred_us / 1000000.0) as occurred_at,
       to_timestamp(recorded_us / 1000000.0) as recorded_at, actor, encode(hash, 'hex') as hash
  from fenrun.entries;
