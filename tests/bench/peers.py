"""Others who keep books in PostgreSQL, on the same orders: pgledger, and the recorder of the eventsourcing library.

pgledger is a file of SQL functions that we neither carry nor fetch; who has it says where. An order is four transfers in one call: the sale
from outside to the company, and three commissions from the company, whose account is in all of them. The eventsourcing library saves an
aggregate with five events, the order and its four entries; it keeps no balances, so no account is hot.
"""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.bench.database import Made, made, run_threads
from tests.bench.load import Case, Measured, Where, Window
from tests.bench.shop import MEMBERS, Lost

HISTORY = 10_000
# In pgledger's own repository these stand beside the file, which needs them.
NEEDED = ("vendor/scoville-pgsql-ulid/ulid-to-uuid.sql", "vendor/scoville-pgsql-ulid/uuid-to-ulid.sql")
TRANSFERS: LiteralString = "select count(*) from pgledger_create_transfers({})".replace(
    "{}", ", ".join(["(%s, %s, %s)::transfer_request"] * 4)
)
MADE = 4000


# ---------------------------------------------------------------- pgledger


def prepare_pgledger(dsn: str, file: Path) -> None:
    """Its schema in one of its own, an account for every member, and some history: plans made for empty tables would be slow ones."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("create schema pgledger")
    with psycopg.connect(_pgledger(dsn), autocommit=True) as connection:
        for part in (*(file.parent / name for name in NEEDED), file):
            if part.is_file():
                connection.execute(part.read_bytes())
        connection.execute("select count(*) from generate_series(0, %s) n, pgledger_create_account(n::text, 'GBP')", [MEMBERS])
        connection.execute("select count(*) from pgledger_create_account('outside', 'GBP')")
        connection.execute("analyze")
        call = _transfers(connection)
        for number in range(HISTORY):
            call()
            if number % 1000 == 0:
                connection.execute("analyze")
        connection.execute("vacuum analyze pgledger_accounts, pgledger_transfers, pgledger_entries")


def pgledger(case: Case, where: Where, _: str, warm_s: float, measure_s: float) -> Measured:
    """Orders one by one. Raises Lost when its tables do not say what was told."""
    dsn = _pgledger(where.dsn)
    with psycopg.connect(dsn, autocommit=True) as connection:
        before = _found(connection)
        told = itertools.count()
        connections = [psycopg.connect(dsn, autocommit=True) for _ in range(case.in_flight)]
        calls = [_counted(_transfers(one), told) for one in connections]
        window = Window(where, warm_s, measure_s)
        run_threads(window, 1, calls)
        for one in connections:
            one.close()
        orders, after = next(told), _found(connection)
        if after != (before[0] + 4 * orders, before[1] + 8 * orders, 0):
            raise Lost(f"{orders} orders were told to pgledger beside (transfers, entries, sum) {before}, found {after}")
    return window.measured()


def _pgledger(dsn: str) -> str:
    return make_conninfo(dsn, options="-c search_path=pgledger")


def _counted(call: Callable[[], None], told: "itertools.count[int]") -> Callable[[], None]:
    def counted() -> None:
        call()
        next(told)

    return counted


def _transfers(connection: psycopg.Connection[Any]) -> Callable[[], None]:
    ids = dict(connection.execute("select name, id from pgledger_accounts").fetchall())
    company, outside = ids["0"], ids["outside"]

    def parameters(order: Made) -> list[str]:
        *payees, _ = zip(order.accounts, order.amounts, strict=True)
        commissions = [text for payee, amount in payees for text in (company, ids[str(payee)], str(amount))]
        # The sale is that of which the first share is 3 %.
        return [outside, company, str(order.amounts[0] * 100 // 3), *commissions]

    endless = itertools.cycle([parameters(order) for order in made(MADE)])

    def call() -> None:
        assert connection.execute(TRANSFERS, next(endless), prepare=True).fetchone() == (4,)

    return call


def _found(connection: psycopg.Connection[Any]) -> tuple[int, ...]:
    row = connection.execute(
        "select (select count(*) from pgledger_transfers), (select count(*) from pgledger_entries),"
        " (select sum(balance) from pgledger_accounts)"
    ).fetchone()
    assert row is not None
    return tuple(map(int, row))


# ---------------------------------------------------------------- eventsourcing


class Order(Aggregate):
    """As a user of the library writes it."""

    @event("Placed")
    def __init__(self, document: str) -> None:
        self.document = document
        self.total_minor = 0

    @event("Entered")
    def enter(self, account: int, amount_minor: int) -> None:
        self.total_minor += amount_minor


def eventsourcing(case: Case, where: Where, _: str, warm_s: float, measure_s: float) -> Measured:
    """`Application.save` in threads that share one application. Raises Lost when its table does not hold what was saved."""
    with psycopg.connect(where.dsn, autocommit=True) as connection:
        connection.execute("create schema if not exists eventsourcing")
        known = conninfo_to_dict(where.dsn)
        told = {"DBNAME": known["dbname"], "HOST": known["host"], "PORT": known.get("port", "5432"), "USER": known["user"]}
        told |= {"PASSWORD": "none", "SCHEMA": "eventsourcing"}
        environment = {f"POSTGRES_{name}": str(value) for name, value in told.items()}
        application: Application[Any] = Application({"PERSISTENCE_MODULE": "eventsourcing.postgres", **environment})
        try:
            before, saved = _events(connection), itertools.count()
            calls = [_counted(_saves(application), saved) for _ in range(case.in_flight)]
            window = Window(where, warm_s, measure_s)
            run_threads(window, 1, calls)
            orders, after = next(saved), _events(connection)
        finally:
            application.close()
        if after != before + 5 * orders:
            raise Lost(f"{orders} orders of five events were saved beside {before} events, found {after}")
    return window.measured()


def _saves(application: Application[Any]) -> Callable[[], None]:
    endless = itertools.cycle([*made(MADE)])

    def call() -> None:
        document, accounts, amounts = next(endless)
        order = Order(document)
        for account, amount in zip(accounts, amounts, strict=True):
            order.enter(account, amount)
        assert order.total_minor == 0
        application.save(order)

    return call


def _events(connection: psycopg.Connection[Any]) -> int:
    row = connection.execute("select count(*) from eventsourcing.application_events").fetchone()
    assert row is not None
    return int(row[0])
