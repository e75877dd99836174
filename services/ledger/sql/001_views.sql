-- The ledger's inline views: changed in the same transaction as the log, so never behind it. Every one can be dropped and folded again.
create schema ledger;

-- Who stands where, as far as money cares.
create table ledger.members (
  program_id       text collate "C" not null,
  member_id        text collate "C" not null,
  tier             text collate "C" not null,
  tier_position    bigint not null,
  locked           boolean not null,
  referrer_id      text collate "C" not null,
  binding_position bigint not null,
  touch_position   bigint not null,
  primary key (program_id, member_id)
) with (fillfactor = 80);

-- A row for each entry that moved a member's money: the balances right after it. The newest row is the balance now.
create table ledger.balances (
  program_id text collate "C" not null,
  member_id  text collate "C" not null,
  asset      text collate "C" not null,
  position   bigint not null,
  pending    bigint not null,
  available  bigint not null,
  reserved   bigint not null,
  paid       bigint not null,
  debt       bigint not null,
  accrued    bigint not null,
  reversed   bigint not null,
  adjusted   bigint not null,
  primary key (program_id, member_id, asset, position),
  constraint no_account_on_the_wrong_side check (pending >= 0 and available >= 0 and reserved >= 0 and paid >= 0 and debt <= 0),
  constraint earned_equals_held check (accrued - reversed + adjusted = pending + available + reserved + paid + debt)
);

create table ledger.company (
  program_id text collate "C" not null,
  asset      text collate "C" not null,
  account    bigint not null,
  balance    bigint not null,
  primary key (program_id, asset, account)
) with (fillfactor = 50);

-- What falls due when. An amount that reaches zero is gone.
create table ledger.due (
  program_id   text collate "C" not null,
  due_us       bigint not null,
  order_id     text collate "C" not null,
  member_id    text collate "C" not null,
  amount_minor bigint not null check (amount_minor > 0),
  primary key (program_id, due_us, order_id, member_id)
);

-- Holds in force: on a member, or on an order.
create table ledger.holds (
  program_id text collate "C" not null,
  hold_id    text collate "C" not null,
  member_id  text collate "C" not null,
  order_id   text collate "C" not null,
  primary key (program_id, hold_id)
);
create index holds_member on ledger.holds (program_id, member_id) where member_id <> '';
create index holds_order on ledger.holds (program_id, order_id) where order_id <> '';

-- A null means: this column stays as it is.
create function ledger.fold_members(
  p_base bigint, p_program text, p_member text[], p_tier text[], p_tier_position bigint[], p_locked boolean[], p_referrer text[],
  p_binding_position bigint[], p_touch_position bigint[]
) returns void language sql as $$
  insert into ledger.members as m
  select p_program, c.member_id, coalesce(c.tier, o.tier, ''), coalesce(c.tier_position, o.tier_position, 0),
         coalesce(c.locked, o.locked, false), coalesce(c.referrer, o.referrer_id, ''), coalesce(c.binding_position, o.binding_position, 0),
         coalesce(c.touch_position, o.touch_position, 0)
    from unnest(p_member, p_tier, p_tier_position, p_locked, p_referrer, p_binding_position, p_touch_position)
         as c(member_id, tier, tier_position, locked, referrer, binding_position, touch_position)
    left join ledger.members o on o.program_id = p_program and o.member_id = c.member_id
  on conflict (program_id, member_id) do update
     set tier = excluded.tier, tier_position = excluded.tier_position, locked = excluded.locked, referrer_id = excluded.referrer_id,
         binding_position = excluded.binding_position, touch_position = excluded.touch_position
$$;

-- Adds changes to the balances. An array may be shorter than p_member; what it lacks is 0. p_base, here and below, is not used: it comes
-- from fenrun.append and makes sure that the fold runs after it.
create function ledger.fold_balances(
  p_base bigint, p_program text, p_position bigint[], p_member text[], p_asset text[], p_pending bigint[], p_available bigint[],
  p_reserved bigint[], p_paid bigint[], p_debt bigint[], p_accrued bigint[], p_reversed bigint[], p_adjusted bigint[]
) returns void language sql as $$
  with change as (
    select c.position, c.member_id, c.asset, coalesce(c.pending, 0) as pending, coalesce(c.available, 0) as available,
           coalesce(c.reserved, 0) as reserved, coalesce(c.paid, 0) as paid, coalesce(c.debt, 0) as debt,
           coalesce(c.accrued, 0) as accrued, coalesce(c.reversed, 0) as reversed, coalesce(c.adjusted, 0) as adjusted
      from unnest(p_position, p_member, p_asset, p_pending, p_available, p_reserved, p_paid, p_debt, p_accrued, p_reversed, p_adjusted)
           as c(position, member_id, asset, pending, available, reserved, paid, debt, accrued, reversed, adjusted)
  ), before as (
    select k.member_id, k.asset, coalesce(b.pending, 0) as pending, coalesce(b.available, 0) as available,
           coalesce(b.reserved, 0) as reserved, coalesce(b.paid, 0) as paid, coalesce(b.debt, 0) as debt,
           coalesce(b.accrued, 0) as accrued, coalesce(b.reversed, 0) as reversed, coalesce(b.adjusted, 0) as adjusted
      from (select distinct member_id, asset from change) k
      left join lateral (
        select * from ledger.balances l
         where l.program_id = p_program and l.member_id = k.member_id and l.asset = k.asset
         order by l.position desc limit 1
      ) b on true
  )
  insert into ledger.balances
  select p_program, c.member_id, c.asset, c.position,
         b.pending + (sum(c.pending) over w)::bigint, b.available + (sum(c.available) over w)::bigint,
         b.reserved + (sum(c.reserved) over w)::bigint, b.paid + (sum(c.paid) over w)::bigint, b.debt + (sum(c.debt) over w)::bigint,
         b.accrued + (sum(c.accrued) over w)::bigint, b.reversed + (sum(c.reversed) over w)::bigint,
         b.adjusted + (sum(c.adjusted) over w)::bigint
    from change c join before b using (member_id, asset)
  window w as (partition by c.member_id, c.asset order by c.position)
$$;

create function ledger.fold_company(p_base bigint, p_program text, p_asset text[], p_account bigint[], p_change bigint[])
returns void language sql as $$
  insert into ledger.company as c
  select p_program, asset, account, change from unnest(p_asset, p_account, p_change) as x(asset, account, change)
  on conflict (program_id, asset, account) do update set balance = c.balance + excluded.balance
$$;

-- One change for each key, never zero.
create function ledger.fold_due(p_base bigint, p_program text, p_due_us bigint[], p_order text[], p_member text[], p_change bigint[])
returns void language sql as $$
  delete from ledger.due d
   using unnest(p_due_us, p_order, p_member, p_change) as c(due_us, order_id, member_id, change)
   where d.program_id = p_program and d.due_us = c.due_us and d.order_id = c.order_id and d.member_id = c.member_id
     and d.amount_minor + c.change = 0;
  update ledger.due d set amount_minor = d.amount_minor + c.change
    from unnest(p_due_us, p_order, p_member, p_change) as c(due_us, order_id, member_id, change)
   where d.program_id = p_program and d.due_us = c.due_us and d.order_id = c.order_id and d.member_id = c.member_id;
  insert into ledger.due
  select p_program, c.due_us, c.order_id, c.member_id, c.change
    from unnest(p_due_us, p_order, p_member, p_change) as c(due_us, order_id, member_id, change)
   where c.change > 0
  on conflict do nothing;
$$;

create function ledger.fold_holds(p_base bigint, p_program text, p_hold text[], p_member text[], p_order text[], p_lifted text[])
returns void language sql as $$
  insert into ledger.holds select p_program, h.hold_id, h.member_id, h.order_id from unnest(p_hold, p_member, p_order) as h(hold_id, member_id, order_id);
  delete from ledger.holds where program_id = p_program and hold_id = any (p_lifted);
$$;
