-- What the running service may do: append and read, never change what is recorded. Applied by the migrations, as the owner, each time
-- they run; safe to repeat. A database administrator grants fenrun_service to the login role that the service connects as:
--
--   create role fenrun_app login; grant fenrun_service to fenrun_app;
--
-- An owner without the right to create roles needs a database administrator to create fenrun_service and grant it to them first.
do $$
begin
  if not exists (select from pg_roles where rolname = 'fenrun_service') then
    create role fenrun_service nologin;
    -- An owner who is no superuser must be able to act as it; from PostgreSQL 16 on, creating a role does not give that.
    execute format('grant fenrun_service to %I', current_user);
  end if;
exception
  -- Roles belong to the cluster: another database of it is being migrated too and was first.
  when duplicate_object or unique_violation then null;
end $$;

grant usage on schema fenrun, ledger, referral, statistics, audit to fenrun_service;
grant select, insert on fenrun.entries, fenrun.replaced_rows to fenrun_service;
grant select, insert on fenrun.programs to fenrun_service;
grant update (head_position, head_hash, head_recorded_us, rebuilt) on fenrun.programs to fenrun_service;
grant select on fenrun.migrations, fenrun.readable_entries to fenrun_service;
grant select, insert, update, delete on fenrun.followed, fenrun.quarantined to fenrun_service;
-- Views are rebuilt from the log at will; only the log is for ever.
grant select, insert, update, delete on all tables in schema ledger, referral, statistics to fenrun_service;
grant select, insert, update, delete on audit.nodes, audit.refusals to fenrun_service;
-- Like the log, and unlike views, checkpoints are only ever added.
grant select, insert on audit.checkpoints to fenrun_service;
revoke update, delete, truncate on audit.checkpoints from fenrun_service;
grant execute on all functions in schema fenrun, ledger, referral, statistics, audit to fenrun_service;
revoke update, delete, truncate on fenrun.entries from fenrun_service;
