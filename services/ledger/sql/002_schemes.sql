-- What schemes beyond people on a path need: points beside money, roles, counters, periods, tiers that count otherwise, accounts apart.

-- '' is the program's currency. What is due from anything but an order names its stream as order_id.
alter table ledger.due add column asset text collate "C" not null default '';
alter table ledger.due drop constraint due_pkey;
alter table ledger.due add primary key (program_id, due_us, order_id, member_id, asset);
alter table ledger.due alter column asset drop default;

-- Members whose tier does not count as it stands: frozen, or a seat that ends and then counts as the tier before.
create table ledger.standings (
  program_id    text collate "C" not null,
  member_id     text collate "C" not null,
  frozen        boolean not null,
  seat_until_us bigint,
  fallback_tier text collate "C" not null,
  -- The entry that gave it; 0: none.
  fallback_position bigint not null,
  primary key (program_id, member_id)
);

create table ledger.roles (
  program_id text collate "C" not null,
  grant_id   text collate "C" not null,
  member_id  text collate "C" not null,
  role       text collate "C" not null,
  scope      text collate "C" not null,
  weight     bigint not null,
  from_us    bigint not null,
  until_us   bigint,
  position   bigint not null,
  primary key (program_id, grant_id)
);
create index roles_held on ledger.roles (program_id, role, scope, position);

-- Tiers that rest on an order.
create table ledger.evidence (
  program_id    text collate "C" not null,
  order_id      text collate "C" not null,
  member_id     text collate "C" not null,
  position      bigint not null,
  tier          text collate "C" not null,
  previous_tier text collate "C" not null,
  -- The entry that gave the tier before.
  previous_position bigint not null,
  primary key (program_id, order_id, member_id, position)
);

-- docs/counters.md. A counter that comes back to nothing is gone.
create table ledger.counters (
  program_id text collate "C" not null,
  counter    text collate "C" not null,
  bucket     text collate "C" not null,
  member_id  text collate "C" not null,
  amount     bigint not null,
  primary key (program_id, counter, member_id, bucket)
) with (fillfactor = 70);
-- For closing a period: everything that rules counted in it. ';' is the character after ':'.
create index counters_of_period on ledger.counters (program_id, bucket) where counter >= 'rule:' and counter < 'rule;';

create table ledger.periods (
  program_id text collate "C" not null,
  period_id  text collate "C" not null,
  position   bigint not null,
  primary key (program_id, period_id)
);

-- Deposits and margins.
create table ledger.apart (
  program_id text collate "C" not null,
  member_id  text collate "C" not null,
  asset      text collate "C" not null,
  account    bigint not null,
  balance    bigint not null,
  primary key (program_id, member_id, asset, account)
);

drop function ledger.fold_due(bigint, text, bigint[], text[], text[], bigint[]);

-- One change for each key, never zero.
create function ledger.fold_due(
  p_base bigint, p_program text, p_due_us bigint[], p_order text[], p_member text[], p_asset text[], p_change bigint[]
) returns void language sql as $$
  delete from ledger.due d
   using unnest(p_due_us, p_order, p_member, p_asset, p_change) as c(due_us, order_id, member_id, asset, change)
   where d.program_id = p_program and d.due_us = c.due_us and d.order_id = c.order_id and d.member_id = c.member_id and d.asset = c.asset
     and d.amount_minor + c.change = 0;
  update ledger.due d set amount_minor = d.amount_minor + c.change
    from unnest(p_due_us, p_order, p_member, p_asset, p_change) as c(due_us, order_id, member_id, asset, change)
   where d.program_id = p_program and d.due_us = c.due_us and d.order_id = c.order_id and d.member_id = c.member_id and d.asset = c.asset;
  insert into ledger.due (program_id, due_us, order_id, member_id, asset, amount_minor)
  select p_program, c.due_us, c.order_id, c.member_id, c.asset, c.change
    from unnest(p_due_us, p_order, p_member, p_asset, p_change) as c(due_us, order_id, member_id, asset, change)
   where c.change > 0
  on conflict do nothing;
$$;

-- The newest standing of each member; one that is no exception is no row.
create function ledger.fold_standings(
  p_base bigint, p_program text, p_member text[], p_frozen boolean[], p_seat_until_us bigint[], p_fallback text[],
  p_fallback_position bigint[]
) returns void language sql as $$
  delete from ledger.standings where program_id = p_program and member_id = any (p_member);
  insert into ledger.standings
  select p_program, s.member_id, s.frozen, s.seat_until_us, s.fallback, s.fallback_position
    from unnest(p_member, p_frozen, p_seat_until_us, p_fallback, p_fallback_position)
         as s(member_id, frozen, seat_until_us, fallback, fallback_position)
   where s.frozen or s.seat_until_us is not null;
$$;

create function ledger.fold_roles(
  p_base bigint, p_program text, p_grant text[], p_member text[], p_role text[], p_scope text[], p_weight bigint[], p_from_us bigint[],
  p_until_us bigint[], p_position bigint[], p_ended text[], p_ended_us bigint[]
) returns void language sql as $$
  insert into ledger.roles
  select p_program, g.* from unnest(p_grant, p_member, p_role, p_scope, p_weight, p_from_us, p_until_us, p_position) as g;
  update ledger.roles r set until_us = least(r.until_us, e.ended_us)
    from unnest(p_ended, p_ended_us) as e(grant_id, ended_us)
   where r.program_id = p_program and r.grant_id = e.grant_id;
$$;

create function ledger.fold_evidence(
  p_base bigint, p_program text, p_order text[], p_member text[], p_position bigint[], p_tier text[], p_previous text[],
  p_previous_position bigint[]
) returns void language sql as $$
  insert into ledger.evidence
  select p_program, e.* from unnest(p_order, p_member, p_position, p_tier, p_previous, p_previous_position) as e;
$$;

-- One change for each counter, never zero.
create function ledger.fold_counters(
  p_base bigint, p_program text, p_counter text[], p_bucket text[], p_member text[], p_change bigint[]
) returns void language sql as $$
  insert into ledger.counters as k
  select p_program, c.counter, c.bucket, c.member_id, c.change
    from unnest(p_counter, p_bucket, p_member, p_change) as c(counter, bucket, member_id, change)
  on conflict (program_id, counter, member_id, bucket) do update set amount = k.amount + excluded.amount;
  delete from ledger.counters k
   using unnest(p_counter, p_bucket, p_member) as c(counter, bucket, member_id)
   where k.program_id = p_program and k.counter = c.counter and k.bucket = c.bucket and k.member_id = c.member_id and k.amount = 0;
$$;

create function ledger.fold_periods(p_base bigint, p_program text, p_period text[], p_position bigint[])
returns void language sql as $$
  insert into ledger.periods select p_program, p.* from unnest(p_period, p_position) as p;
$$;

create function ledger.fold_apart(p_base bigint, p_program text, p_member text[], p_asset text[], p_account bigint[], p_change bigint[])
returns void language sql as $$
  insert into ledger.apart as a
  select p_program, c.member_id, c.asset, c.account, c.change
    from unnest(p_member, p_asset, p_account, p_change) as c(member_id, asset, account, change)
  on conflict (program_id, member_id, asset, account) do update set balance = a.balance + excluded.balance;
$$;
