-- The key of each member who was named, wrapped in a master key that is not in the database. No view: it cannot be made from the log, and
-- that is its purpose. docs/erasure.md tells how to back it up.
create table referral.member_keys (
  program_id text collate "C" not null,
  member_id  text collate "C" not null,
  -- Which master key it is wrapped in.
  master_id  text collate "C" not null,
  wrapped    bytea not null,
  primary key (program_id, member_id)
);

-- In the transaction that records an erasure, so that there is never the one without the other.
create function referral.fold_erasures(p_base bigint, p_program text, p_member text[]) returns void language sql as $$
  delete from referral.member_keys where program_id = p_program and member_id = any (p_member);
$$;
