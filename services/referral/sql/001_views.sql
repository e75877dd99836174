-- Referral's inline views: changed in the same transaction as the log, so never behind it. Every one can be dropped and folded again.
create schema referral;

create table referral.members (
  program_id       text collate "C" not null,
  member_id        text collate "C" not null,
  enrolled_us      bigint not null,
  tier             text collate "C" not null,
  tier_position    bigint not null,
  locked           boolean not null,
  referrer_id      text collate "C" not null,
  binding_position bigint not null,
  touch_position   bigint not null,
  primary key (program_id, member_id)
) with (fillfactor = 80);
create index members_below on referral.members (program_id, referrer_id, member_id) where locked and referrer_id <> '';

-- Which entries ever touched a member's binding or tier.
create table referral.binding_events (
  program_id text collate "C" not null,
  member_id  text collate "C" not null,
  position   bigint not null,
  primary key (program_id, member_id, position)
);

-- A null means: this column stays as it is.
create function referral.fold_members(
  p_base bigint, p_program text, p_member text[], p_enrolled_us bigint[], p_tier text[], p_tier_position bigint[], p_locked boolean[],
  p_referrer text[], p_binding_position bigint[], p_touch_position bigint[]
) returns void language sql as $$
  insert into referral.members as m
  select p_program, c.member_id, coalesce(c.enrolled_us, o.enrolled_us, 0), coalesce(c.tier, o.tier, ''),
         coalesce(c.tier_position, o.tier_position, 0), coalesce(c.locked, o.locked, false), coalesce(c.referrer, o.referrer_id, ''),
         coalesce(c.binding_position, o.binding_position, 0), coalesce(c.touch_position, o.touch_position, 0)
    from unnest(p_member, p_enrolled_us, p_tier, p_tier_position, p_locked, p_referrer, p_binding_position, p_touch_position)
         as c(member_id, enrolled_us, tier, tier_position, locked, referrer, binding_position, touch_position)
    left join referral.members o on o.program_id = p_program and o.member_id = c.member_id
  on conflict (program_id, member_id) do update
     set enrolled_us = excluded.enrolled_us, tier = excluded.tier, tier_position = excluded.tier_position, locked = excluded.locked,
         referrer_id = excluded.referrer_id, binding_position = excluded.binding_position, touch_position = excluded.touch_position
$$;

create function referral.fold_binding_events(p_base bigint, p_program text, p_member text[], p_position bigint[])
returns void language sql as $$
  insert into referral.binding_events select p_program, e.member_id, e.position from unnest(p_member, p_position) as e(member_id, position)
$$;
