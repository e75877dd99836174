"""A large program among many small ones: whatever the planner knows of a table, no fold or read by key walks all rows of the large one."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
import pytest

from services.ledger.application import Loading
from services.ledger.domain.books import Books
from services.ledger.domain.counting import Key, Window

# Rows of a table by program p and number n, and what is done to one of them in the large program.
CASES = {
    "fold_balances": (
        "balances",
        "'m' || n, 'GBP', 1, 0, 0, 0, 0, 0, 0, 0, 0",
        "4, 'large', '{5}', '{m7}', '{GBP}', '{9}', '{}', '{}', '{}', '{}', '{9}', '{}', '{}'",
    ),
    "fold_balances_once": (
        "balances",
        "'m' || n, 'GBP', 1, 0, 0, 0, 0, 0, 0, 0, 0",
        "4, 'large', '{5}', '{m7}', '{GBP}', '{9}', '{}', '{}', '{}', '{}', '{9}', '{}', '{}'",
    ),
    "fold_balances_together": (
        "balances",
        "'m' || n, 'GBP', 1, 0, 0, 0, 0, 0, 0, 0, 0",
        "'{1,2}', '{large,small-7}', '{1,2}', '{5,6}', '{m7,m1}', '{GBP,GBP}', '{9,9}', '{}', '{}', '{}', '{}', '{9,9}', '{}', '{}'",
    ),
    "fold_members": (
        "members",
        "'m' || n, '', 0, false, '', 0, 0",
        "4, 'large', '{m7}', '{gold}', '{5}', '{null}', '{null}', '{null}', '{null}'",
    ),
    "fold_due": ("due", "n, 'o' || n, 'm7', 100, ''", "4, 'large', '{7,8}', '{o7,o8}', '{m7,m7}', '{\"\",\"\"}', '{-100,-1}'"),
    "fold_counters": ("counters", "'c', 'b', 'm' || n, 5", "4, 'large', '{c,c}', '{b,b}', '{m7,m8}', '{-5,1}'"),
    "paths": ("members", "'m' || n, '', 0, true, 'm' || (n + 1), 0, 0", "'large', '{m7}', 2"),
    "balances_now": ("balances", "'m' || n, 'GBP', 1, 0, 0, 0, 0, 0, 0, 0, 0", "'{large}', '{m7}', '{GBP}'"),
}
SIZES = (
    "select 'small-' || p as p, n from generate_series(1, 500) p, generate_series(1, 3) n"
    " union all select 'large', generate_series(1, 5000)"
)
READS = "select sum(coalesce(idx_tup_fetch, 0) + coalesce(seq_tup_read, 0)) from pg_stat_xact_user_tables where schemaname = 'ledger'"


def one(connection: psycopg.Connection[Any], query: str) -> Any:
    row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return row[0]


@pytest.mark.usefixtures("channel")
@pytest.mark.parametrize("function", CASES)
def test_a_row_is_found_by_its_key(dsn: str, function: str) -> None:
    table, columns, arguments = CASES[function]
    with psycopg.connect(dsn, autocommit=True) as owner, owner.transaction(force_rollback=True):
        # Others of the same tables, so that no join has an empty side.
        others = {"standings": "'m' || n, false, null, '', 0", "apart": "'m' || n, 'GBP', 10, 5"}
        for name, filler in {table: columns, **others}.items():
            owner.execute(f"insert into ledger.{name} select p, {filler} from ({SIZES}) x".encode())
            owner.execute(f"analyze ledger.{name}".encode())
        # Reads know the program; whose heads they are does not matter.
        owner.execute("insert into fenrun.programs select distinct p, 'GBP', 1, '\\x00'::bytea, 1 from (" + SIZES + ") x")
        before = one(owner, READS)
        found = owner.execute(f"select ledger.{function}({arguments})".encode()).fetchall()
        assert len(found) == {"paths": 3}.get(function, 1)
        assert 0 < one(owner, READS) - before < 30


@pytest.mark.usefixtures("channel")
@pytest.mark.parametrize(
    ("reading", "rows"),
    [("ledger.histories('{large}', '{77}')", 1), ("ledger.streams_now('{large,small-7}', '{order/7,order/1}')", 2)],
)
def test_an_entry_is_found_by_its_key(dsn: str, reading: str, rows: int) -> None:
    """And whether anything is sealed is found without looking through the log: by pages, because it reads no rows."""
    with psycopg.connect(dsn, autocommit=True) as owner, owner.transaction(force_rollback=True):
        columns = "program_id, position, stream, stream_version, type, occurred_us, recorded_us, actor, fact, decision, hash"
        filler = "p, n, 'order/' || n, 1, 'order.paid.v1', n, n, 'somebody', '', '', ''"
        owner.execute(f"insert into fenrun.entries ({columns}) select {filler} from ({SIZES}) x".encode())
        owner.execute("insert into fenrun.programs select distinct p, 'GBP', 5000, '\\x00'::bytea, 1 from (" + SIZES + ") x")
        owner.execute("analyze fenrun.entries, fenrun.programs")
        # The first call plans.
        assert len(owner.execute(f"select from {reading}".encode()).fetchall()) == rows
        [told] = one(owner, f"explain (analyze, buffers, format json) select * from {reading}")
        # Of some sixty that the index has; a few for each step of the way.
        assert 0 < told["Plan"]["Shared Hit Blocks"] < 20


# What a server looks up before it decides, and where it finds that.
STEPS: dict[str, tuple[str, str, Callable[[Loading], Awaitable[object]]]] = {
    "balances": ("balances", "'m' || n, 'GBP', 1, 0, 0, 0, 0, 0, 0, 0, 0", lambda loading: loading._load_balances()),
    "counters": ("counters", "'c', 'b', 'm' || n, 5", lambda loading: loading._load_counters()),
    "windows": ("counters", "'c', '2026-01-0' || n % 9 + 1, 'm' || n, 5", lambda loading: loading._load_windows()),
    "grants": ("roles", "'g' || n, 'm' || n, 'store', 's' || n, 1, 0, null, 1", lambda loading: loading._load_grants([("store", "s7")])),
    "paths": (
        "members",
        "'m' || n, '', 0, true, case when n % 4 > 0 then 'm' || (n + 1) else '' end, 0, 0",
        lambda loading: loading._whole_paths(["m6"]),
    ),
}


@pytest.mark.usefixtures("channel")
@pytest.mark.parametrize("step", STEPS)
def test_what_is_looked_up_for_a_decision_is_found_by_its_key(dsn: str, step: str) -> None:
    """Also by a plan that is made for all programs, as PostgreSQL may choose to after a while."""
    table, columns, look_up = STEPS[step]

    async def story() -> int:
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection, connection.transaction(force_rollback=True):
            connection.prepare_threshold = 0
            await connection.execute("set local plan_cache_mode = force_generic_plan")
            for name, filler in {table: columns, "standings": "'m' || n, false, null, '', 0"}.items():
                await connection.execute(f"insert into ledger.{name} select p, {filler} from ({SIZES}) x".encode())
                await connection.execute(f"analyze ledger.{name}".encode())
            # Counters are read together with the head.
            await connection.execute("insert into fenrun.programs values ('large', 'GBP', 1, '\\x00'::bytea, 1)")
            loading = Loading(connection, "large", Books(currency="GBP"), set())
            loading._balances.add(("m7", "GBP"))
            loading._counters.add(Key("c", "b", "m7"))
            loading._windows.add(Window("c", "m7", "2026-01-01", "2026-01-09"))
            reads = []
            for work in (None, look_up):
                if work is not None:
                    await work(loading)
                row = await (await connection.execute(READS.encode())).fetchone()
                assert row is not None
                reads.append(int(row[0]))
            return reads[1] - reads[0]

    assert 0 < asyncio.run(story()) < 30
