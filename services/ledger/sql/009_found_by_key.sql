-- Every row that a fold or a read asks for by its key is found by its key, whatever the planner thinks of the table (008_by_key.sql).

-- A null means: this column stays as it is.
create or replace function ledger.fold_members(
  p_base bigint, p_program text, p_member text[], p_tier text[], p_tier_position bigint[], p_locked boolean[], p_referrer text[],
  p_binding_position bigint[], p_touch_position bigint[]
) returns void language sql set plan_cache_mode = force_generic_plan set enable_seqscan = off as $$
  insert into ledger.members as m
  select p_program, c.member_id, coalesce(c.tier, o.tier, ''), coalesce(c.tier_position, o.tier_position, 0),
         coalesce(c.locked, o.locked, false), coalesce(c.referrer, o.referrer_id, ''), coalesce(c.binding_position, o.binding_position, 0),
         coalesce(c.touch_position, o.touch_position, 0)
    from unnest(p_member, p_tier, p_tier_position, p_locked, p_referrer, p_binding_position, p_touch_position)
         as c(member_id, tier, tier_position, locked, referrer, binding_position, touch_position)
    left join lateral (select * from ledger.members where program_id = p_program and member_id = c.member_id offset 0) o on true
  on conflict (program_id, member_id) do update
     set tier = excluded.tier, tier_position = excluded.tier_position, locked = excluded.locked, referrer_id = excluded.referrer_id,
         binding_position = excluded.binding_position, touch_position = excluded.touch_position
$$;

-- One change for each key, never zero.
create or replace function ledger.fold_due(
  p_base bigint, p_program text, p_due_us bigint[], p_order text[], p_member text[], p_asset text[], p_change bigint[]
) returns void language sql set plan_cache_mode = force_generic_plan set enable_seqscan = off as $$
  delete from ledger.due d
   using unnest(p_due_us, p_order, p_member, p_asset, p_change) as c(due_us, order_id, member_id, asset, change)
   cross join lateral (
     select ctid from ledger.due
      where program_id = p_program and due_us = c.due_us and order_id = c.order_id and member_id = c.member_id and asset = c.asset offset 0) here
   where d.ctid = here.ctid and d.amount_minor + c.change = 0;
  update ledger.due d set amount_minor = d.amount_minor + c.change
    from unnest(p_due_us, p_order, p_member, p_asset, p_change) as c(due_us, order_id, member_id, asset, change)
   cross join lateral (
     select ctid from ledger.due
      where program_id = p_program and due_us = c.due_us and order_id = c.order_id and member_id = c.member_id and asset = c.asset offset 0) here
   where d.ctid = here.ctid;
  insert into ledger.due (program_id, due_us, order_id, member_id, asset, amount_minor)
  select p_program, c.due_us, c.order_id, c.member_id, c.asset, c.change
    from unnest(p_due_us, p_order, p_member, p_asset, p_change) as c(due_us, order_id, member_id, asset, change)
   where c.change > 0
  on conflict do nothing;
$$;

-- One change for each counter, never zero.
create or replace function ledger.fold_counters(
  p_base bigint, p_program text, p_counter text[], p_bucket text[], p_member text[], p_change bigint[]
) returns void language sql set plan_cache_mode = force_generic_plan set enable_seqscan = off as $$
  insert into ledger.counters as k
  select p_program, c.counter, c.bucket, c.member_id, c.change
    from unnest(p_counter, p_bucket, p_member, p_change) as c(counter, bucket, member_id, change)
  on conflict (program_id, counter, member_id, bucket) do update set amount = k.amount + excluded.amount;
  delete from ledger.counters k
   using unnest(p_counter, p_bucket, p_member) as c(counter, bucket, member_id)
   cross join lateral (
     select ctid from ledger.counters
      where program_id = p_program and counter = c.counter and bucket = c.bucket and member_id = c.member_id offset 0) here
   where k.ctid = here.ctid and k.amount = 0;
$$;

-- Members and who stands up to p_depth above each, locked or not, with what makes their tier count otherwise than it stands there.
create or replace function ledger.paths(p_program text, p_member text[], p_depth bigint) returns table (
  member_id text, tier text, tier_position bigint, locked boolean, referrer_id text, binding_position bigint, touch_position bigint,
  frozen boolean, seat_until_us bigint, fallback_tier text, fallback_position bigint
) language sql stable set plan_cache_mode = force_generic_plan set enable_seqscan = off as $$
  with recursive path as (
    select m.*, 0::bigint as depth from ledger.members m where m.program_id = p_program and m.member_id = any (p_member)
    union all
    select m.*, p.depth + 1 from path p cross join lateral (
      select * from ledger.members where program_id = p_program and member_id = p.referrer_id offset 0) m
     where p.depth < p_depth
  )
  select distinct p.member_id, p.tier, p.tier_position, p.locked, p.referrer_id, p.binding_position, p.touch_position,
         s.frozen, s.seat_until_us, s.fallback_tier, s.fallback_position
    from path p left join lateral (
      select * from ledger.standings where program_id = p_program and member_id = p.member_id offset 0) s on true
$$;

create or replace function ledger.balances_now(p_program text[], p_member text[], p_asset text[]) returns table (
  number bigint, head_position bigint, currency text, enrolled boolean,
  pending bigint, available bigint, reserved bigint, paid bigint, debt bigint, accrued bigint, reversed bigint, adjusted bigint,
  balance_position bigint, deposit bigint, margin bigint
) language sql stable set plan_cache_mode = force_generic_plan set enable_seqscan = off as $$
  select a.number, p.head_position, p.currency, m.member_id is not null,
         b.pending, b.available, b.reserved, b.paid, b.debt, b.accrued, b.reversed, b.adjusted, b.position, d.balance, g.balance
    from unnest(p_program, p_member, p_asset) with ordinality a(program_id, member_id, asset, number)
    join fenrun.programs p on p.program_id = a.program_id
    left join lateral (select * from ledger.members where program_id = a.program_id and member_id = a.member_id offset 0) m on true
    left join lateral (
      select * from ledger.balances
       where program_id = a.program_id and member_id = a.member_id and asset = coalesce(nullif(a.asset, ''), p.currency) offset 0) b on true
    left join lateral (
      select * from ledger.apart where program_id = a.program_id and member_id = a.member_id
         and asset = coalesce(nullif(a.asset, ''), p.currency) and account = 10 offset 0) d on true
    left join lateral (
      select * from ledger.apart where program_id = a.program_id and member_id = a.member_id
         and asset = coalesce(nullif(a.asset, ''), p.currency) and account = 11 offset 0) g on true
$$;
