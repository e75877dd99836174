-- Appends to several programs at once: number n of the first seven arrays is a program, numbers p_of of the others are its entries. Returns
-- the programs appended to, with the position before it. One whose head is not as expected any more, or is held by somebody else, is left
-- as it is and not returned: the others neither fail with it nor wait for it, and who never waits cannot be part of a deadlock.
--
-- `rows`: the same guess for every call lets the statement around it be planned once.
create function fenrun.append_together(
  p_program text[], p_expected bigint[], p_expected_hash bytea[], p_rebuilt bigint[], p_head bigint[], p_head_hash bytea[],
  p_head_recorded_us bigint[], p_of bigint[], p_position bigint[], p_stream text[], p_stream_version bigint[], p_type text[], p_fact_id text[],
  p_occurred_us bigint[], p_recorded_us bigint[], p_actor text[], p_fact bytea[], p_decision bytea[], p_hash bytea[]
) returns table (n bigint, program text, base bigint) language plpgsql rows 10
set plan_cache_mode = force_generic_plan set enable_seqscan = off as $$
declare
  held bigint[];
begin
  held := array(
    select a.n
      from unnest(p_program, p_expected, p_expected_hash, p_rebuilt) with ordinality as a(program, expected, hash, rebuilt, n)
      join fenrun.programs p on p.program_id = a.program and p.head_position = a.expected and p.head_hash = a.hash and p.rebuilt = a.rebuilt
       for no key update of p skip locked
  );
  update fenrun.programs p
     set head_position = a.head, head_hash = a.hash, head_recorded_us = a.recorded_us
    from unnest(p_program, p_head, p_head_hash, p_head_recorded_us) with ordinality as a(program, head, hash, recorded_us, n)
   where a.n = any (held) and p.program_id = a.program;
  insert into fenrun.entries (program_id, position, stream, stream_version, type, fact_id, occurred_us, recorded_us, actor, fact, decision, hash)
  select p_program[e.n], e.position, e.stream, e.stream_version, e.type, nullif(e.fact_id, ''), e.occurred_us, e.recorded_us, e.actor, e.fact,
         e.decision, e.hash
    from unnest(p_of, p_position, p_stream, p_stream_version, p_type, p_fact_id, p_occurred_us, p_recorded_us, p_actor, p_fact, p_decision, p_hash)
         as e(n, position, stream, stream_version, type, fact_id, occurred_us, recorded_us, actor, fact, decision, hash)
   where e.n = any (held);
  return query select h.n, p_program[h.n], p_expected[h.n] from unnest(held) as h(n);
end $$;
