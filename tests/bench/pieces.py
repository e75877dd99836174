"""Where the microseconds of an order go: what the server does with a batch, piece by piece, in one process and on one connection, while
nobody else is at work. All of it is rolled back."""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

import psycopg
from fenrun.ledger.v1 import ledger_pb2

from services.audit.projection import Tree
from services.kernel.decider import Draft, Entry, Repeated
from services.ledger import transport
from services.ledger.application import Ledger
from services.ledger.domain.books import Books
from services.ledger.domain.commands import Command
from services.referral.application import Referral
from services.runtime import eventlog
from services.runtime.eventlog import Connection, Fold, Head
from services.runtime.serving import validate
from services.runtime.stored import Stored, entry_of
from services.runtime.writer import Outcome
from services.statistics.projection import Statistics
from tests.bench import shop
from tests.bench.report import spread, table

ORDERS = 500
ACTOR = "bench"
LOG = "append: the log"
P = ParamSpec("P")
Result = TypeVar("Result")


@dataclass
class Pieces:
    """{piece: microseconds an order, one of each round}. Of PostgreSQL it is what was waited for, the way there and back included."""

    python_us: dict[str, list[float]] = field(default_factory=dict)
    postgres_us: dict[str, list[float]] = field(default_factory=dict)

    def took(self, piece: str, work: Callable[P, Result], *values: P.args, **named: P.kwargs) -> Result:
        with _Timer() as timer:
            found = work(*values, **named)
        self.python_us.setdefault(piece, []).append(timer.python_us)
        return found

    def waited(self, piece: str, timer: "_Timer") -> None:
        self.python_us.setdefault(piece, []).append(timer.python_us)
        self.postgres_us.setdefault(piece, []).append(timer.waited_us)


class _Timer:
    """Of a block: this process's time of a processor, and how much longer it took, in microseconds an order."""

    def __enter__(self) -> "_Timer":
        self._wall_ns, self._processor_ns = time.perf_counter_ns(), time.process_time_ns()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.python_us = (time.process_time_ns() - self._processor_ns) / 1000 / ORDERS
        self.waited_us = (time.perf_counter_ns() - self._wall_ns) / 1000 / ORDERS - self.python_us


def run(dsn: str, one: shop.Shop, rounds: int) -> Pieces:
    """Of a program that is open and at rest. A round before the first warms up, and meets everybody who buys."""
    return asyncio.run(_run(dsn, one, rounds))


async def _run(dsn: str, one: shop.Shop, rounds: int) -> Pieces:
    ledger, referral = Ledger(), Referral()
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        head = await eventlog.head(connection, one.program)
        pieces, everybody = Pieces(), shop.Orders("pieces", one)
        commands = [transport.record_order(everybody.of(one.program, buyer)) for buyer in one.buyers]
        # Remembered from batch to batch, as the writer does it.
        books = await ledger.load(connection, head, commands, set(), None)
        ledger.keep(books)
        for number in range(rounds + 1):
            if number == 1:
                pieces = Pieces()
            orders = shop.Orders(f"pieces-{number}", one).some(one.program, ORDERS)
            raw = ledger_pb2.RecordOrdersRequest(program_id=one.program, orders=orders).SerializeToString()
            books = await _batch(connection, ledger, referral, pieces, head, raw, books)
            ledger.keep(books)
    return pieces


async def _batch(connection: Connection, ledger: Ledger, referral: Referral, pieces: Pieces, head: Head, raw: bytes, kept: Books) -> Books:
    request = pieces.took("take the message apart", ledger_pb2.RecordOrdersRequest.FromString, raw)
    pieces.took("check it by the contract's rules", _each, validate, request.orders)
    commands = pieces.took("... and read it", _each, transport.record_order, request.orders)
    with _Timer() as timer:
        books = await ledger.load(connection, head, commands, set(), kept)
    pieces.waited("load what is not remembered", timer)
    drafts = pieces.took("decide", _decided, ledger, books, commands)
    written = pieces.took("encode", _each, ledger.write, drafts)
    stored = pieces.took("number, date and hash", _chained, head, drafts, written)
    entries = [entry_of(one, draft.fact, draft.decision) for one, draft in zip(stored, drafts, strict=True)]
    folds = pieces.took("take into state and views", _taken_in, ledger, referral, books, stored, entries)
    # The log without views, and what each view adds to it.
    alone: dict[str, list[Fold]] = {LOG: [], **{f"append: {fold.function.partition('fold_')[2]}": [fold] for fold in folds}}
    for piece, some in alone.items():
        async with connection.transaction(force_rollback=True):
            with _Timer() as timer:
                await eventlog.append(connection, head, stored, some)
        log_us = pieces.postgres_us[LOG][-1] if piece != LOG else 0.0
        pieces.postgres_us.setdefault(piece, []).append(timer.waited_us - log_us)
    async with connection.transaction(force_rollback=True):
        with _Timer() as timer:
            await eventlog.append(connection, head, stored, folds)
        pieces.waited("append, in all", timer)
        for piece, projection in (("follow: statistics", Statistics()), ("follow: tree", Tree())):
            with _Timer() as timer:
                await projection.fold(connection, {head.program_id: stored})
            pieces.waited(piece, timer)
    outcomes = [Outcome(head.program_id, (entry,), False, entry.position) for entry in entries]
    pieces.took("answer", _answered, outcomes)
    return books


def _each(work: Callable[[Any], Result], items: Iterable[Any]) -> list[Result]:
    return [work(item) for item in items]


def _decided(ledger: Ledger, books: Books, commands: Sequence[Command]) -> list[Draft]:
    drafts: list[Draft] = []
    for command in commands:
        answer = ledger.decide(books, command)
        assert not isinstance(answer, Repeated), "every order is new"
        drafts += answer
    return drafts


def _chained(head: Head, drafts: Sequence[Draft], written: Sequence[tuple[str, bytes, bytes]]) -> list[Stored]:
    found = []
    for draft, bytes_ in zip(drafts, written, strict=True):
        stored = eventlog.store(head, draft, 1, bytes_, ACTOR, head.recorded_us)
        head = eventlog.after(head, stored)
        found.append(stored)
    return found


def _taken_in(ledger: Ledger, referral: Referral, books: Books, stored: Sequence[Stored], entries: Sequence[Entry]) -> list[Fold]:
    """What is to be folded into views."""
    changes, others = ledger.changes(), referral.changes()
    for one, entry in zip(stored, entries, strict=True):
        changes.add(entry)
        ledger.evolve(books, entry)
        other = referral.read(one)
        if other.fact is not None:
            others.add(other)
    return [*changes.folds(), *others.folds()]


def _answered(outcomes: Sequence[Outcome]) -> bytes:
    results: list[Any] = [{"recorded": transport.recorded_order(outcome)} for outcome in outcomes]
    return ledger_pb2.RecordOrdersResponse(results=results).SerializeToString()


def told(pieces: Pieces) -> list[str]:
    """The table; nothing where nothing was measured."""
    names = dict.fromkeys((*pieces.python_us, *pieces.postgres_us))
    # "append, in all" after its parts.
    ordered = sorted(names, key=lambda name: (name == "answer", name.startswith("follow"), name == "append, in all", ":" in name))

    def cell(of: dict[str, list[float]], name: str) -> str:
        return spread(of[name], 1) if name in of else ""

    rows = [(name, cell(pieces.python_us, name), cell(pieces.postgres_us, name)) for name in ordered]
    return table(("µs an order", "Python", "PostgreSQL, waited for"), rows) if rows else []
