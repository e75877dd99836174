-- Fewer rows for an order: only what something was taken back of has a row, what it was before is in its entry; and a member has paid or not,
-- which changes with the first order and not with each.
alter table statistics.members alter column standing_orders type boolean using standing_orders > 0;
alter table statistics.members rename column standing_orders to paid;

create table statistics.kept_sources (
  program_id      text collate "C" not null,
  source          text collate "C" not null,
  remaining_minor bigint not null check (remaining_minor >= 0),
  constraint kept_sources_pkey primary key (program_id, source)
) with (fillfactor = 90);
insert into statistics.kept_sources
  select s.program_id, s.source, s.remaining_minor from statistics.sources s
   where exists (
     select from fenrun.entries e join fenrun.followed f on f.program_id = e.program_id and f.projection = 'statistics'
      where e.program_id = s.program_id and e.stream = s.source and e.position <= f.position
        and e.type in ('order.refunded.v1', 'order.voided.v1', 'period.corrected.v1')
        and not exists (select from fenrun.quarantined q
                         where q.program_id = e.program_id and q.projection = 'statistics' and q.position = e.position));
drop table statistics.sources;
alter table statistics.kept_sources rename to sources;
alter index statistics.kept_sources_pkey rename to sources_pkey;
