-- An append raises FR001 unless it finds the program's head row, and updates it. Asking for that row again with every entry, as a foreign key
-- does, took a third of the time of an append.
alter table fenrun.entries drop constraint entries_program_id_fkey;

-- What else the foreign key did: a head, once there, stays there, under its name.
create function fenrun.refuse_loss() returns trigger language plpgsql as $$
begin
  raise exception 'the log is append-only: % on fenrun.programs is refused', tg_op using errcode = 'restrict_violation';
end $$;
create trigger programs_are_for_ever before delete or update of program_id on fenrun.programs for each row execute function fenrun.refuse_loss();
create trigger programs_are_never_truncated before truncate on fenrun.programs for each statement execute function fenrun.refuse_loss();
