-- The same append, which compares the hash of the head as well. A position alone does not tell a log from one that was restored from a
-- backup and has grown to the same length since: a server that still knows the old head would chain to an entry that is not there.
--
-- And it compares how often views were rebuilt: a server remembers people between batches, as the views had them.
alter table fenrun.programs add column rebuilt bigint not null default 0;

drop function fenrun.append(text, bigint, bytea, bigint, text[], bigint[], text[], text[], bigint[], bigint[], text[], bytea[], bytea[], bytea[]);

create function fenrun.append(
  p_program text, p_expected bigint, p_expected_hash bytea, p_rebuilt bigint, p_head_hash bytea, p_head_recorded_us bigint,
  p_stream text[], p_stream_version bigint[], p_type text[], p_fact_id text[], p_occurred_us bigint[], p_recorded_us bigint[],
  p_actor text[], p_fact bytea[], p_decision bytea[], p_hash bytea[]
) returns bigint language plpgsql as $$
begin
  update fenrun.programs
     set head_position = p_expected + cardinality(p_stream), head_hash = p_head_hash, head_recorded_us = p_head_recorded_us
   where program_id = p_program and head_position = p_expected and head_hash = p_expected_hash and rebuilt = p_rebuilt;
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
