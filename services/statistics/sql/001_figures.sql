-- Statistics: followed projections, kept after the log. Every one can be dropped and folded again. A month is 2026-03; '' is all months.
create schema statistics;

-- Everybody enrolled, and whom they are locked to now. standing_orders: orders of which anything is not refunded.
create table statistics.members (
  program_id      text collate "C" not null,
  member_id       text collate "C" not null,
  locked          boolean not null,
  referrer_id     text collate "C" not null,
  locked_month    text collate "C" not null,
  standing_orders bigint not null,
  primary key (program_id, member_id)
) with (fillfactor = 80);
create index members_brought on statistics.members (program_id, referrer_id) where locked and referrer_id <> '';

-- To whom a member was locked from which position on; '': to nobody. Volume climbs by this, as of the position of the order.
create table statistics.bindings (
  program_id  text collate "C" not null,
  member_id   text collate "C" not null,
  position    bigint not null,
  referrer_id text collate "C" not null,
  primary key (program_id, member_id, position)
);

-- Orders, tasks and periods by their stream: what a later refund or correction of them needs to know.
create table statistics.sources (
  program_id      text collate "C" not null,
  source          text collate "C" not null,
  position        bigint not null,
  buyer_id        text collate "C" not null,
  month           text collate "C" not null,
  remaining_minor bigint not null check (remaining_minor >= 0),
  primary key (program_id, source)
) with (fillfactor = 90);

-- No index by amount: it would have to be kept with every order for everybody above the buyer. A board reads its month as a whole.
create table statistics.volumes (
  program_id   text collate "C" not null,
  month        text collate "C" not null,
  member_id    text collate "C" not null,
  own_minor    bigint not null,
  direct_minor bigint not null,
  team_minor   bigint not null,
  primary key (program_id, month, member_id)
) with (fillfactor = 70);
create index volumes_of_member on statistics.volumes (program_id, member_id);

-- asset '': money of the program's currency.
create table statistics.income (
  program_id text collate "C" not null,
  asset      text collate "C" not null,
  month      text collate "C" not null,
  rule_id    text collate "C" not null,
  member_id  text collate "C" not null,
  amount     bigint not null,
  primary key (program_id, asset, month, rule_id, member_id)
) with (fillfactor = 80);
create index income_of_member on statistics.income (program_id, member_id);
