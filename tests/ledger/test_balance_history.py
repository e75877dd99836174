"""The history of balances: found in every era, and made from the rows of an earlier version."""

from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import grpc
import psycopg
import pytest
from fenrun.ledger.v1 import ledger_pb2 as lp

from services import composition
from services.ledger.application import SQL
from services.runtime.embedded import EmbeddedPostgres
from services.runtime.settings import Settings
from tests.given import Client, line

Owner = psycopg.Connection[tuple[Any, ...]]
ERA = 2**20
NEW = [
    *("ledger/006_newest_balances.sql", "ledger/007_moved_once.sql", "ledger/008_by_key.sql", "ledger/009_found_by_key.sql"),
    *("ledger/010_read_by_key.sql", "ledger/011_fold_together.sql", "ledger/012_smaller_history.sql"),
]


@pytest.fixture(scope="module")
def history(dsn: str, channel: grpc.Channel, fresh_program_id: Callable[[], str]) -> Iterator[tuple[Owner, str, list[int]]]:
    """A connection whose work is undone, a program, and the positions in it of the rows of somebody across six eras, two without any."""
    program_id = fresh_program_id()
    random = Random(11)
    at = sorted({era * ERA + offset for era in (0, 1, 4, 5) for offset in (0, ERA - 1, *(random.randrange(ERA) for _ in range(5)))} - {0})
    with psycopg.connect(dsn) as connection:
        for number, position in enumerate(at, 1):
            for member_id, asset in (("somebody", "GBP"), ("somebody", "POINTS"), ("another", "GBP")):
                row = [program_id, member_id, asset, position, number, number]
                connection.execute("insert into ledger.balance_history values (%s, %s, %s, %s, %s, 0, 0, 0, 0, %s, 0, 0)", row)
        connection.execute(
            "insert into ledger.balances select distinct on (member_id, asset) * from ledger.balance_history where program_id = %s"
            " order by member_id, asset, position desc",
            [program_id],
        )
        yield connection, program_id, at
        connection.rollback()


def test_the_balance_at_a_position_is_found_in_whatever_era_it_was_moved_last(
    history: tuple[Owner, str, list[int]],
) -> None:
    connection, program_id, at = history
    asked = {position + by for position in at for by in (-1, 0, 1)} | {era * ERA + by for era in range(8) for by in (0, 1)} | {2**62}
    for position in sorted(asked):
        rows = connection.execute(
            "select member_id, asset, position, pending from ledger.balance_at(%s, 'somebody', 'GBP', %s)", [program_id, position]
        ).fetchall()
        before = [number for number, moved in enumerate(at, 1) if moved <= position]
        assert rows == ([("somebody", "GBP", at[before[-1] - 1], before[-1])] if before else []), position
    assert connection.execute("select from ledger.balance_at(%s, 'nobody', 'GBP', 5)", [program_id]).fetchall() == []


def test_history_between_positions_goes_on_from_era_to_era(history: tuple[Owner, str, list[int]]) -> None:
    connection, program_id, at = history
    random = Random(12)
    for _ in range(300):
        after, last = random.choice(at) + random.randrange(-1, 2), random.choice([*at, 2**62]) + random.randrange(-1, 2)
        limit = random.choice([None, 1, 2, 7, 100])
        rows = connection.execute(
            "select position from ledger.balances_between(%s, 'somebody', 'GBP', %s, %s, %s)", [program_id, after, last, limit]
        ).fetchall()
        assert [position for (position,) in rows] == [position for position in at if after < position <= last][:limit], (after, last, limit)
    assert connection.execute("select from ledger.balances_between(%s, 'nobody', 'GBP', 0, 9, null)", [program_id]).fetchall() == []


def test_history_is_read_by_its_index_alone(history: tuple[Owner, str, list[int]]) -> None:
    """However many others the era has moved, and however often the member: no row is read but those that are answered."""
    connection, program_id, at = history
    crowd = "select %s, 'm' || mod(n, 50), 'GBP', n, 1, 0, 0, 0, 0, 1, 0, 0 from generate_series(1, 5000) n"
    connection.execute(f"insert into ledger.balance_history {crowd}".encode(), [program_id])
    reads = "select sum(coalesce(idx_tup_fetch, 0) + coalesce(seq_tup_read, 0)) from pg_stat_xact_user_tables where relname like 'balance%'"

    def read(query: str, *values: object) -> int:
        [[before]] = connection.execute(reads.encode()).fetchall()
        connection.execute(query.encode(), [program_id, *values])
        [[after]] = connection.execute(reads.encode()).fetchall()
        return int(after - before)

    assert read("select from ledger.balance_at(%s, 'somebody', 'GBP', %s)", at[3]) == 2
    assert read("select from ledger.balances_between(%s, 'somebody', 'GBP', %s, %s, 2)", at[1], at[-1]) == 3


def test_the_history_of_an_earlier_version_is_taken_over(tmp_path: Path, fresh_program_id: Callable[[], str]) -> None:
    with EmbeddedPostgres(tmp_path / "data", durable=False) as database:
        program_id = fresh_program_id()
        with composition.start(Settings(dsn=database.dsn)) as server, grpc.insecure_channel(server.address) as channel:
            shop = Client.of_new_program(channel, program_id)
            shop.publish()
            for member, referrer in (("A", ""), ("B", "A"), ("C", "B")):
                shop.enroll(member, referrer)
            for number in range(5):
                shop.order(f"o-{number}", "C", line(1, 1000 * (number + 1)))
            shop.refund("part", "o-1", (1, 0, 400))
            head = shop.order("last", "B", line(1, 700)).receipt.position
            before = balances(shop, head)
        with psycopg.connect(database.dsn) as owner:
            as_it_was(owner)
        with composition.start(Settings(dsn=database.dsn)) as server, grpc.insecure_channel(server.address) as channel:
            again = Client.of(channel, program_id)
            assert again.differences() == []
            assert balances(again, head) == before
            again.order("after", "C", line(1, 900))
            assert again.differences() == []


def balances(shop: Client, head: int) -> list[lp.GetBalanceResponse]:
    """Of everybody, after each entry from the last enrolment on."""
    asked = [
        lp.GetBalanceRequest(program_id=shop.program_id, member_id=member, position=at) for member in "ABC" for at in range(5, head + 1)
    ]
    return [shop.ledger.GetBalance(request) for request in asked]


def as_it_was(owner: Owner) -> None:
    """Puts the balances back to the one table they had."""
    functions = owner.execute(
        "select oid::regprocedure::text from pg_proc where pronamespace = 'ledger'::regnamespace"
        " and proname in ('fold_balances', 'fold_balances_once', 'fold_balances_together', 'fold_company_together', 'balance_at',"
        " 'balances_between')"
    ).fetchall()
    for (function,) in functions:
        owner.execute(f"drop function {function}".encode())
    owner.execute("drop table ledger.balances; drop index ledger.balance_history_in_era")
    owner.execute("alter table ledger.balance_history rename to balances")
    owner.execute("alter table ledger.balances add primary key (program_id, member_id, asset, position)")
    owner.execute("drop aggregate ledger.added(bigint)")
    owner.execute((SQL / "003_balances.sql").read_bytes())
    assert owner.execute("delete from fenrun.migrations where name = any(%s)", [NEW]).rowcount == len(NEW)
