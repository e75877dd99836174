"""A large program among many small ones: whatever the planner knows of a table, no fold or read by key walks all rows of the large one."""

from typing import Any

import psycopg
import pytest

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
        before = one(owner, READS)
        owner.execute(f"select ledger.{function}({arguments})".encode())
        assert one(owner, READS) - before < 30
