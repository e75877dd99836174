-- Both find a member's row by its key, whatever the planner thinks of the table. Of a plain join it thought, where most programs are small,
-- that reading all rows of the program is cheaper, and read ten thousand in a large one for each order. Where a row is does not change
-- meanwhile: whoever appends holds the program's head.
create or replace function ledger.fold_balances(
  p_base bigint, p_program text, p_position bigint[], p_member text[], p_asset text[], p_pending bigint[], p_available bigint[],
  p_reserved bigint[], p_paid bigint[], p_debt bigint[], p_accrued bigint[], p_reversed bigint[], p_adjusted bigint[]
) returns void language sql set plan_cache_mode = force_generic_plan set enable_seqscan = off as $$
  with change as materialized (
    select c.position, c.member_id, c.asset, coalesce(c.pending, 0) as pending, coalesce(c.available, 0) as available,
           coalesce(c.reserved, 0) as reserved, coalesce(c.paid, 0) as paid, coalesce(c.debt, 0) as debt,
           coalesce(c.accrued, 0) as accrued, coalesce(c.reversed, 0) as reversed, coalesce(c.adjusted, 0) as adjusted
      from unnest(p_position, p_member, p_asset, p_pending, p_available, p_reserved, p_paid, p_debt, p_accrued, p_reversed, p_adjusted)
           as c(position, member_id, asset, pending, available, reserved, paid, debt, accrued, reversed, adjusted)
  ), total as materialized (
    select member_id, asset, max(position) as position, ledger.added(pending) as pending, ledger.added(available) as available,
           ledger.added(reserved) as reserved, ledger.added(paid) as paid, ledger.added(debt) as debt, ledger.added(accrued) as accrued,
           ledger.added(reversed) as reversed, ledger.added(adjusted) as adjusted
      from change group by member_id, asset
  ), moved as (
    update ledger.balances b
       set position = t.position, pending = b.pending + t.pending, available = b.available + t.available, reserved = b.reserved + t.reserved,
           paid = b.paid + t.paid, debt = b.debt + t.debt, accrued = b.accrued + t.accrued, reversed = b.reversed + t.reversed,
           adjusted = b.adjusted + t.adjusted
      from total t cross join lateral (
        select ctid from ledger.balances where program_id = p_program and member_id = t.member_id and asset = t.asset offset 0) here
     where b.ctid = here.ctid
    returning b.member_id, b.asset, b.pending - t.pending as pending, b.available - t.available as available,
              b.reserved - t.reserved as reserved, b.paid - t.paid as paid, b.debt - t.debt as debt, b.accrued - t.accrued as accrued,
              b.reversed - t.reversed as reversed, b.adjusted - t.adjusted as adjusted
  ), made as (
    insert into ledger.balances
    select p_program, t.* from total t
     where not exists (select from moved m where m.member_id = t.member_id and m.asset = t.asset)
  )
  insert into ledger.balance_history
  select p_program, c.member_id, c.asset, c.position,
         coalesce(b.pending, 0) + ledger.added(c.pending) over w, coalesce(b.available, 0) + ledger.added(c.available) over w,
         coalesce(b.reserved, 0) + ledger.added(c.reserved) over w, coalesce(b.paid, 0) + ledger.added(c.paid) over w,
         coalesce(b.debt, 0) + ledger.added(c.debt) over w, coalesce(b.accrued, 0) + ledger.added(c.accrued) over w,
         coalesce(b.reversed, 0) + ledger.added(c.reversed) over w, coalesce(b.adjusted, 0) + ledger.added(c.adjusted) over w
    from change c left join moved b on b.member_id = c.member_id and b.asset = c.asset
  window w as (partition by c.member_id, c.asset order by c.position rows unbounded preceding)
$$;

create or replace function ledger.fold_balances_once(
  p_base bigint, p_program text, p_position bigint[], p_member text[], p_asset text[], p_pending bigint[], p_available bigint[],
  p_reserved bigint[], p_paid bigint[], p_debt bigint[], p_accrued bigint[], p_reversed bigint[], p_adjusted bigint[]
) returns void language sql set plan_cache_mode = force_generic_plan set enable_seqscan = off as $$
  with change as materialized (
    select p_program as program_id, c.member_id, c.asset, c.position, coalesce(c.pending, 0) as pending,
           coalesce(c.available, 0) as available, coalesce(c.reserved, 0) as reserved, coalesce(c.paid, 0) as paid,
           coalesce(c.debt, 0) as debt, coalesce(c.accrued, 0) as accrued, coalesce(c.reversed, 0) as reversed,
           coalesce(c.adjusted, 0) as adjusted
      from unnest(p_position, p_member, p_asset, p_pending, p_available, p_reserved, p_paid, p_debt, p_accrued, p_reversed, p_adjusted)
           as c(position, member_id, asset, pending, available, reserved, paid, debt, accrued, reversed, adjusted)
  ), moved as (
    update ledger.balances b
       set position = c.position, pending = b.pending + c.pending, available = b.available + c.available, reserved = b.reserved + c.reserved,
           paid = b.paid + c.paid, debt = b.debt + c.debt, accrued = b.accrued + c.accrued, reversed = b.reversed + c.reversed,
           adjusted = b.adjusted + c.adjusted
      from change c cross join lateral (
        select ctid from ledger.balances where program_id = p_program and member_id = c.member_id and asset = c.asset offset 0) here
     where b.ctid = here.ctid
    returning b.*
  ), made as (
    -- Not insert … on conflict: a change alone may be negative, which no row of the table may be.
    insert into ledger.balances
    select c.* from change c where not exists (select from moved m where m.member_id = c.member_id and m.asset = c.asset)
    returning *
  )
  insert into ledger.balance_history select * from moved union all select * from made
$$;
