-- A member's balances now are a row of their own, and what they were after each entry is history.
--
-- History is indexed by era (2^20 positions) before member: new rows go to the era's own pages of the index, however long the history is.
-- Indexed by member first, each row of a large program went to a page of its own, which PostgreSQL then wrote in full.
alter table ledger.balances rename to balance_history;
alter table ledger.balance_history drop constraint balances_pkey;
create unique index balance_history_by_era on ledger.balance_history (program_id, (position >> 20), member_id, asset, position);

create table ledger.balances (
  like ledger.balance_history including constraints,
  primary key (program_id, member_id, asset)
) with (fillfactor = 70);  -- updated in place: leave room for the new version on the same page
insert into ledger.balances
select distinct on (program_id, member_id, asset) * from ledger.balance_history order by program_id, member_id, asset, position desc;

-- What it takes is as before. The window adds up what came before in the same append.
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
      from total t
     where b.program_id = p_program and b.member_id = t.member_id and b.asset = t.asset
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

-- A member's balances in an asset right after the entry at a position; no row before anything moved them. One look-up while nothing has
-- moved them since, else one for each era back to the last entry that did.
create function ledger.balance_at(p_program text, p_member text, p_asset text, p_position bigint) returns setof ledger.balance_history
language plpgsql stable rows 1 set plan_cache_mode = force_generic_plan set enable_seqscan = off as $$
declare
  newest ledger.balance_history;
begin
  select * into newest from ledger.balances b where b.program_id = p_program and b.member_id = p_member and b.asset = p_asset;
  if newest is null then
    return;
  elsif newest.position <= p_position then
    return next newest;
    return;
  end if;
  for era in reverse p_position >> 20 .. 0 loop
    return query
      select * from ledger.balance_history h
       where h.program_id = p_program and h.position >> 20 = era and h.member_id = p_member and h.asset = p_asset and h.position <= p_position
       order by h.position desc limit 1;
    exit when found;
  end loop;
end $$;

-- The rows of a member's history in an asset after a position and up to another, in order, as many as asked for (null: all).
create function ledger.balances_between(p_program text, p_member text, p_asset text, p_after bigint, p_last bigint, p_limit bigint)
returns setof ledger.balance_history
language plpgsql stable rows 100 set plan_cache_mode = force_generic_plan set enable_seqscan = off as $$
declare
  last bigint;
  missing bigint := p_limit;
  given bigint;
begin
  select least(p_last, b.position) into last
    from ledger.balances b where b.program_id = p_program and b.member_id = p_member and b.asset = p_asset;
  if last is null then
    return;
  end if;
  for era in p_after >> 20 .. last >> 20 loop
    return query
      select * from ledger.balance_history h
       where h.program_id = p_program and h.position >> 20 = era and h.member_id = p_member and h.asset = p_asset
         and h.position > p_after and h.position <= last
       order by h.position limit missing;
    get diagnostics given = row_count;
    missing := missing - given;
    exit when missing = 0;
  end loop;
end $$;

create or replace function ledger.balances_now(p_program text[], p_member text[], p_asset text[]) returns table (
  number bigint, head_position bigint, currency text, enrolled boolean,
  pending bigint, available bigint, reserved bigint, paid bigint, debt bigint, accrued bigint, reversed bigint, adjusted bigint,
  balance_position bigint, deposit bigint, margin bigint
) language sql stable set plan_cache_mode = force_generic_plan set enable_seqscan = off as $$
  select a.number, p.head_position, p.currency, m.member_id is not null,
         b.pending, b.available, b.reserved, b.paid, b.debt, b.accrued, b.reversed, b.adjusted, b.position, d.balance, g.balance
    from unnest(p_program, p_member, p_asset) with ordinality a(program_id, member_id, asset, number)
    join fenrun.programs p on p.program_id = a.program_id
    left join ledger.members m on m.program_id = a.program_id and m.member_id = a.member_id
    left join ledger.balances b
      on b.program_id = a.program_id and b.member_id = a.member_id and b.asset = coalesce(nullif(a.asset, ''), p.currency)
    left join ledger.apart d
      on d.program_id = a.program_id and d.member_id = a.member_id and d.asset = coalesce(nullif(a.asset, ''), p.currency) and d.account = 10
    left join ledger.apart g
      on g.program_id = a.program_id and g.member_id = a.member_id and g.asset = coalesce(nullif(a.asset, ''), p.currency) and g.account = 11
$$;
