-- An order changed two rows of everybody's volume and income, one of its month and one of all months. Now a member has one row, with their
-- last month and all of them together; the months before that are apart, and only what comes late changes them.
alter table statistics.volumes rename to volumes_before;
alter table statistics.income rename to income_before;
alter index statistics.volumes_pkey rename to volumes_before_pkey;
alter index statistics.income_pkey rename to income_before_pkey;

create table statistics.volumes (
  program_id       text collate "C" not null,
  member_id        text collate "C" not null,
  month            text collate "C" not null,
  own_minor        bigint not null,
  direct_minor     bigint not null,
  team_minor       bigint not null,
  own_all_minor    bigint not null,
  direct_all_minor bigint not null,
  team_all_minor   bigint not null,
  primary key (program_id, member_id)
) with (fillfactor = 70);
create table statistics.earlier_volumes (
  program_id   text collate "C" not null,
  month        text collate "C" not null,
  member_id    text collate "C" not null,
  own_minor    bigint not null,
  direct_minor bigint not null,
  team_minor   bigint not null,
  primary key (program_id, month, member_id)
);
create index earlier_volumes_of_member on statistics.earlier_volumes (program_id, member_id);

-- asset '': money of the program's currency.
create table statistics.income (
  program_id text collate "C" not null,
  member_id  text collate "C" not null,
  asset      text collate "C" not null,
  rule_id    text collate "C" not null,
  month      text collate "C" not null,
  amount     bigint not null,
  amount_all bigint not null,
  primary key (program_id, member_id, asset, rule_id)
) with (fillfactor = 80);
create table statistics.earlier_income (
  program_id text collate "C" not null,
  month      text collate "C" not null,
  asset      text collate "C" not null,
  rule_id    text collate "C" not null,
  member_id  text collate "C" not null,
  amount     bigint not null,
  primary key (program_id, month, asset, rule_id, member_id)
);
create index earlier_income_of_member on statistics.earlier_income (program_id, member_id);

insert into statistics.volumes
select distinct on (b.program_id, b.member_id) b.program_id, b.member_id, b.month, b.own_minor, b.direct_minor, b.team_minor,
       i.own_minor, i.direct_minor, i.team_minor
  from statistics.volumes_before b
  join statistics.volumes_before i on i.program_id = b.program_id and i.member_id = b.member_id and i.month = ''
 where b.month <> ''
 order by b.program_id, b.member_id, b.month desc;
insert into statistics.earlier_volumes
select b.* from statistics.volumes_before b join statistics.volumes v on v.program_id = b.program_id and v.member_id = b.member_id
 where b.month <> '' and b.month < v.month;
insert into statistics.income
select distinct on (b.program_id, b.member_id, b.asset, b.rule_id) b.program_id, b.member_id, b.asset, b.rule_id, b.month, b.amount, i.amount
  from statistics.income_before b
  join statistics.income_before i
    on i.program_id = b.program_id and i.member_id = b.member_id and i.asset = b.asset and i.rule_id = b.rule_id and i.month = ''
 where b.month <> ''
 order by b.program_id, b.member_id, b.asset, b.rule_id, b.month desc;
insert into statistics.earlier_income
select b.program_id, b.month, b.asset, b.rule_id, b.member_id, b.amount
  from statistics.income_before b
  join statistics.income v
    on v.program_id = b.program_id and v.member_id = b.member_id and v.asset = b.asset and v.rule_id = b.rule_id
 where b.month <> '' and b.month < v.month;
drop table statistics.volumes_before, statistics.income_before;

-- Changes, one for each key: of a month, and of that and all before it. Where that is not the month of the row, what is of the earlier one
-- of the two goes to those before. Only who follows the program writes its rows, so where a row is does not change meanwhile.
create function statistics.fold_volumes(
  p_program text[], p_member text[], p_month text[], p_own bigint[], p_direct bigint[], p_team bigint[], p_own_all bigint[],
  p_direct_all bigint[], p_team_all bigint[]
) returns void language sql set plan_cache_mode = force_generic_plan set enable_seqscan = off as $$
  with change as materialized (
    select * from unnest(p_program, p_member, p_month, p_own, p_direct, p_team, p_own_all, p_direct_all, p_team_all)
      as c(program_id, member_id, month, own_minor, direct_minor, team_minor, own_all_minor, direct_all_minor, team_all_minor)
  ), moved as (
    update statistics.volumes v
       set month = greatest(v.month, c.month),
           own_minor = case when v.month < c.month then 0 else v.own_minor end + case when v.month > c.month then 0 else c.own_minor end,
           direct_minor =
             case when v.month < c.month then 0 else v.direct_minor end + case when v.month > c.month then 0 else c.direct_minor end,
           team_minor = case when v.month < c.month then 0 else v.team_minor end + case when v.month > c.month then 0 else c.team_minor end,
           own_all_minor = v.own_all_minor + c.own_all_minor, direct_all_minor = v.direct_all_minor + c.direct_all_minor,
           team_all_minor = v.team_all_minor + c.team_all_minor
      from change c cross join lateral (
        select ctid, month, own_minor, direct_minor, team_minor from statistics.volumes
         where program_id = c.program_id and member_id = c.member_id offset 0) was
     where v.ctid = was.ctid
    returning c.program_id, c.member_id, c.month, c.own_minor, c.direct_minor, c.team_minor,
              was.month as was_month, was.own_minor as was_own, was.direct_minor as was_direct, was.team_minor as was_team
  ), made as (
    insert into statistics.volumes
    select * from change c where not exists (select from moved m where m.program_id = c.program_id and m.member_id = c.member_id)
  )
  insert into statistics.earlier_volumes as e
  select program_id, least(month, was_month), member_id, case when month < was_month then own_minor else was_own end,
         case when month < was_month then direct_minor else was_direct end, case when month < was_month then team_minor else was_team end
    from moved where month <> was_month
  on conflict (program_id, month, member_id) do update set own_minor = e.own_minor + excluded.own_minor,
     direct_minor = e.direct_minor + excluded.direct_minor, team_minor = e.team_minor + excluded.team_minor
$$;

create function statistics.fold_income(
  p_program text[], p_member text[], p_asset text[], p_rule text[], p_month text[], p_amount bigint[], p_amount_all bigint[]
) returns void language sql set plan_cache_mode = force_generic_plan set enable_seqscan = off as $$
  with change as materialized (
    select * from unnest(p_program, p_member, p_asset, p_rule, p_month, p_amount, p_amount_all)
      as c(program_id, member_id, asset, rule_id, month, amount, amount_all)
  ), moved as (
    update statistics.income i
       set month = greatest(i.month, c.month),
           amount = case when i.month < c.month then 0 else i.amount end + case when i.month > c.month then 0 else c.amount end,
           amount_all = i.amount_all + c.amount_all
      from change c cross join lateral (
        select ctid, month, amount from statistics.income
         where program_id = c.program_id and member_id = c.member_id and asset = c.asset and rule_id = c.rule_id offset 0) was
     where i.ctid = was.ctid
    returning c.program_id, c.member_id, c.asset, c.rule_id, c.month, c.amount, was.month as was_month, was.amount as was_amount
  ), made as (
    insert into statistics.income
    select * from change c
     where not exists (
       select from moved m
        where m.program_id = c.program_id and m.member_id = c.member_id and m.asset = c.asset and m.rule_id = c.rule_id)
  )
  insert into statistics.earlier_income as e
  select program_id, least(month, was_month), asset, rule_id, member_id, case when month < was_month then amount else was_amount end
    from moved where month <> was_month
  on conflict (program_id, month, asset, rule_id, member_id) do update set amount = e.amount + excluded.amount
$$;

-- Changes of months that are nobody's last.
create function statistics.fold_earlier_volumes(
  p_program text[], p_month text[], p_member text[], p_own bigint[], p_direct bigint[], p_team bigint[]
) returns void language sql set plan_cache_mode = force_generic_plan as $$
  insert into statistics.earlier_volumes as e
  select * from unnest(p_program, p_month, p_member, p_own, p_direct, p_team)
  on conflict (program_id, month, member_id) do update set own_minor = e.own_minor + excluded.own_minor,
     direct_minor = e.direct_minor + excluded.direct_minor, team_minor = e.team_minor + excluded.team_minor
$$;

create function statistics.fold_earlier_income(
  p_program text[], p_month text[], p_asset text[], p_rule text[], p_member text[], p_amount bigint[]
) returns void language sql set plan_cache_mode = force_generic_plan as $$
  insert into statistics.earlier_income as e
  select * from unnest(p_program, p_month, p_asset, p_rule, p_member, p_amount)
  on conflict (program_id, month, asset, rule_id, member_id) do update set amount = e.amount + excluded.amount
$$;
