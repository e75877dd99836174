-- Roles, seats, and tiers that an order gave or took.

create table referral.roles (
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
create index roles_by_name on referral.roles (program_id, role, scope, position);
create index roles_of_member on referral.roles (program_id, member_id, role, scope, position);

-- Seats granted by hand, until another tier comes.
create table referral.seats (
  program_id    text collate "C" not null,
  member_id     text collate "C" not null,
  tier          text collate "C" not null,
  until_us      bigint,
  position      bigint not null,
  previous_tier text collate "C" not null,
  previous_tier_position bigint not null,
  primary key (program_id, member_id)
);
create index seats_of_tier on referral.seats (program_id, tier);

-- Tiers that earn nothing, since the entry that froze them.
create table referral.frozen_tiers (
  program_id text collate "C" not null,
  member_id  text collate "C" not null,
  position   bigint not null,
  primary key (program_id, member_id)
);

create function referral.fold_roles(
  p_base bigint, p_program text, p_grant text[], p_member text[], p_role text[], p_scope text[], p_weight bigint[], p_from_us bigint[],
  p_until_us bigint[], p_position bigint[], p_ended text[], p_ended_us bigint[]
) returns void language sql as $$
  insert into referral.roles
  select p_program, g.* from unnest(p_grant, p_member, p_role, p_scope, p_weight, p_from_us, p_until_us, p_position) as g;
  update referral.roles r set until_us = least(r.until_us, e.ended_us)
    from unnest(p_ended, p_ended_us) as e(grant_id, ended_us)
   where r.program_id = p_program and r.grant_id = e.grant_id;
$$;

-- What became of each member's seat; without a tier it is gone.
create function referral.fold_seats(
  p_base bigint, p_program text, p_member text[], p_tier text[], p_until_us bigint[], p_position bigint[], p_previous text[],
  p_previous_position bigint[]
) returns void language sql as $$
  delete from referral.seats where program_id = p_program and member_id = any (p_member);
  insert into referral.seats
  select p_program, s.member_id, s.tier, s.until_us, s.position, s.previous, s.previous_position
    from unnest(p_member, p_tier, p_until_us, p_position, p_previous, p_previous_position)
         as s(member_id, tier, until_us, position, previous, previous_position)
   where s.tier is not null;
$$;

-- Since which entry each tier is frozen; without one it is not.
create function referral.fold_frozen_tiers(p_base bigint, p_program text, p_member text[], p_position bigint[])
returns void language sql as $$
  delete from referral.frozen_tiers where program_id = p_program and member_id = any (p_member);
  insert into referral.frozen_tiers
  select p_program, f.member_id, f.position from unnest(p_member, p_position) as f(member_id, position) where f.position is not null;
$$;
