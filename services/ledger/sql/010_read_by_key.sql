-- As 009_found_by_key.sql, for what is read of the log. Of EXISTS the planner thought, once it knew of some ten thousand entries, that looking
-- through the whole log once for whoever sealed anything is cheaper than looking for a program's seals by key: an explanation cost the more the
-- longer all logs together were. OFFSET 0 leaves it no such choice.
create or replace function ledger.streams_now(p_program text[], p_stream text[]) returns table (
  number bigint, head_position bigint, currency text,
  program_id text, "position" bigint, stream text, stream_version bigint, type text, fact_id text, occurred_us bigint, recorded_us bigint,
  actor text, fact bytea, decision bytea, hash bytea
) language sql stable set plan_cache_mode = force_generic_plan set enable_seqscan = off as $$
  select a.number, p.head_position, p.currency, e.program_id, e.position, e.stream, e.stream_version, e.type, e.fact_id, e.occurred_us,
         e.recorded_us, e.actor, e.fact, e.decision, e.hash
    from unnest(p_program, p_stream) with ordinality a(program_id, stream, number)
    join fenrun.programs p on p.program_id = a.program_id
    left join lateral (
      select * from fenrun.entries where program_id = a.program_id and stream = a.stream offset 0) e on true
$$;

create or replace function ledger.histories(p_program text[], p_position bigint[]) returns table (
  number bigint, currency text, previous_hash bytea, sealed boolean,
  program_id text, "position" bigint, stream text, stream_version bigint, type text, fact_id text, occurred_us bigint, recorded_us bigint,
  actor text, fact bytea, decision bytea, hash bytea
) language sql stable set plan_cache_mode = force_generic_plan set enable_seqscan = off as $$
  select a.number, p.currency, (select b.hash from fenrun.entries b where b.program_id = a.program_id and b.position = a.position - 1),
         exists (select from fenrun.entries s where s.program_id = a.program_id and s.stream >= 'books/' and s.stream < 'books0' offset 0),
         e.program_id, e.position, e.stream, e.stream_version, e.type, e.fact_id, e.occurred_us, e.recorded_us, e.actor, e.fact, e.decision,
         e.hash
    from unnest(p_program, p_position) with ordinality a(program_id, position, number)
    join fenrun.programs p on p.program_id = a.program_id
    left join lateral (
      select stream, stream_version from fenrun.entries where program_id = a.program_id and position = a.position offset 0) t on true
    left join lateral (
      select * from fenrun.entries where program_id = a.program_id and stream = t.stream and stream_version <= t.stream_version offset 0) e on true
$$;
