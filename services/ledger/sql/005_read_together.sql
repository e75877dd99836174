-- Reads that callers ask for one by one and are answered together (services/runtime/together.py). Each row says which one it answers, counted
-- from 1, and where the log stood. Planned once, as the folds are.

-- Members' balances in one asset each, an empty one being the program's currency. Without figures: nothing has moved it yet. The accounts 10
-- and 11 are deposits and margins (docs/accounts.md).
create function ledger.balances_now(p_program text[], p_member text[], p_asset text[]) returns table (
  number bigint, head_position bigint, currency text, enrolled boolean,
  pending bigint, available bigint, reserved bigint, paid bigint, debt bigint, accrued bigint, reversed bigint, adjusted bigint,
  balance_position bigint, deposit bigint, margin bigint
) language sql stable set plan_cache_mode = force_generic_plan set enable_seqscan = off as $$
  select a.number, p.head_position, p.currency, m.member_id is not null,
         b.pending, b.available, b.reserved, b.paid, b.debt, b.accrued, b.reversed, b.adjusted, b.position, d.balance, g.balance
    from unnest(p_program, p_member, p_asset) with ordinality a(program_id, member_id, asset, number)
    join fenrun.programs p on p.program_id = a.program_id
    left join ledger.members m on m.program_id = a.program_id and m.member_id = a.member_id
    left join lateral (
      select * from ledger.balances b
       where b.program_id = a.program_id and b.member_id = a.member_id and b.asset = coalesce(nullif(a.asset, ''), p.currency)
       order by b.position desc limit 1
    ) b on true
    left join ledger.apart d
      on d.program_id = a.program_id and d.member_id = a.member_id and d.asset = coalesce(nullif(a.asset, ''), p.currency) and d.account = 10
    left join ledger.apart g
      on g.program_id = a.program_id and g.member_id = a.member_id and g.asset = coalesce(nullif(a.asset, ''), p.currency) and g.account = 11
$$;

-- The entries of streams, in no order; one row without an entry where a stream is empty.
create function ledger.streams_now(p_program text[], p_stream text[]) returns table (
  number bigint, head_position bigint, currency text,
  program_id text, "position" bigint, stream text, stream_version bigint, type text, fact_id text, occurred_us bigint, recorded_us bigint,
  actor text, fact bytea, decision bytea, hash bytea
) language sql stable set plan_cache_mode = force_generic_plan set enable_seqscan = off as $$
  select a.number, p.head_position, p.currency, e.program_id, e.position, e.stream, e.stream_version, e.type, e.fact_id, e.occurred_us,
         e.recorded_us, e.actor, e.fact, e.decision, e.hash
    from unnest(p_program, p_stream) with ordinality a(program_id, stream, number)
    join fenrun.programs p on p.program_id = a.program_id
    left join fenrun.entries e on e.program_id = a.program_id and e.stream = a.stream
$$;

-- Entries with what stands before them in their streams, in no order, each with the hash of the entry before the one asked for, and whether
-- the books of the program were ever sealed; one row without an entry where there is none at a position.
create function ledger.histories(p_program text[], p_position bigint[]) returns table (
  number bigint, currency text, previous_hash bytea, sealed boolean,
  program_id text, "position" bigint, stream text, stream_version bigint, type text, fact_id text, occurred_us bigint, recorded_us bigint,
  actor text, fact bytea, decision bytea, hash bytea
) language sql stable set plan_cache_mode = force_generic_plan set enable_seqscan = off as $$
  select a.number, p.currency, (select b.hash from fenrun.entries b where b.program_id = a.program_id and b.position = a.position - 1),
         exists (select from fenrun.entries s where s.program_id = a.program_id and s.stream >= 'books/' and s.stream < 'books0'),
         e.program_id, e.position, e.stream, e.stream_version, e.type, e.fact_id, e.occurred_us, e.recorded_us, e.actor, e.fact, e.decision,
         e.hash
    from unnest(p_program, p_position) with ordinality a(program_id, position, number)
    join fenrun.programs p on p.program_id = a.program_id
    left join fenrun.entries t on t.program_id = a.program_id and t.position = a.position
    left join fenrun.entries e on e.program_id = t.program_id and e.stream = t.stream and e.stream_version <= t.stream_version
$$;
