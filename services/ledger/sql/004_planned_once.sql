-- Folds and look-ups by key are planned once for each connection: planning took half of the database's time for an order alone. There is
-- nothing to choose, for each reads a handful of tables by their keys; without sequential scans that is so from the first row on, before
-- anything is known of a table.
do $$
declare
  fold regprocedure;
begin
  for fold in select oid::regprocedure from pg_proc where pronamespace = 'ledger'::regnamespace and proname like 'fold\_%' loop
    execute format('alter function %s set plan_cache_mode = force_generic_plan set enable_seqscan = off', fold);
  end loop;
end $$;

-- Members and who stands up to p_depth above each, locked or not, with what makes their tier count otherwise than it stands there.
create function ledger.paths(p_program text, p_member text[], p_depth bigint) returns table (
  member_id text, tier text, tier_position bigint, locked boolean, referrer_id text, binding_position bigint, touch_position bigint,
  frozen boolean, seat_until_us bigint, fallback_tier text, fallback_position bigint
) language sql stable set plan_cache_mode = force_generic_plan set enable_seqscan = off as $$
  with recursive path as (
    select m.*, 0::bigint as depth from ledger.members m where m.program_id = p_program and m.member_id = any (p_member)
    union all
    select m.*, p.depth + 1 from path p join ledger.members m on m.program_id = p_program and m.member_id = p.referrer_id where p.depth < p_depth
  )
  select distinct p.member_id, p.tier, p.tier_position, p.locked, p.referrer_id, p.binding_position, p.touch_position,
         s.frozen, s.seat_until_us, s.fallback_tier, s.fallback_position
    from path p left join ledger.standings s on s.program_id = p_program and s.member_id = p.member_id
$$;
