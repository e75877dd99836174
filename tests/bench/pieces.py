"""Where the microseconds of an order go: what the server does with a batch, piece by piece, in one process and on one connection, while
nobody else is at work. All of it is rolled back. And those of an entry that is replayed, in the same way."""

import asyncio
import gc
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any, NamedTuple, ParamSpec, TypeVar

import psycopg
from fenrun.ledger.v1 import ledger_pb2

from services.audit.projection import Tree
from services.composition import REGISTERED
from services.kernel.decider import Draft, Entry, Repeated
from services.ledger import transport
from services.ledger.application import Ledger
from services.ledger.domain.books import Books
from services.ledger.domain.commands import Command
from services.ops.projections import Chain, first_of
from services.referral.application import Referral
from services.runtime import eventlog, replaying
from services.runtime.eventlog import Append, Connection, Fold, Head
from services.runtime.following import Followed
from services.runtime.process import settle_memory
from services.runtime.serving import validate
from services.runtime.stored import Stored, entry_of
from services.runtime.writer import Outcome
from services.statistics.projection import Statistics
from tests.bench import shop
from tests.bench.report import spread, table

ORDERS = 500
# What waits together of so many callers with one order each.
CALLERS = 64
# Entries that are replayed before it is measured, and then measured, where a program has so many.
REPLAYED_BEFORE, REPLAYED = 20_000, 20_000
ACTOR = "bench"
LOG = "append: the log"
P = ParamSpec("P")
Result = TypeVar("Result")


@dataclass
class Pieces:
    """{piece: microseconds for each of so many things, one of each round}. Of PostgreSQL it is what was waited for, the way there and back
    included."""

    things: int
    thing: str = "order"
    python_us: dict[str, list[float]] = field(default_factory=dict)
    postgres_us: dict[str, list[float]] = field(default_factory=dict)

    def took(self, piece: str, work: Callable[P, Result], *values: P.args, **named: P.kwargs) -> Result:
        with _Timer(self.things) as timer:
            found = work(*values, **named)
        self.python_us.setdefault(piece, []).append(timer.python_us)
        return found

    def waited(self, piece: str, timer: "_Timer") -> None:
        self.python_us.setdefault(piece, []).append(timer.python_us)
        self.postgres_us.setdefault(piece, []).append(timer.waited_us)


class _Timer:
    """Of a block: this process's time of a processor, and how much longer it took, in microseconds for each of so many things."""

    def __init__(self, things: int) -> None:
        self._things = things

    def __enter__(self) -> "_Timer":
        self._wall_ns, self._processor_ns = time.perf_counter_ns(), time.process_time_ns()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.python_us = (time.process_time_ns() - self._processor_ns) / 1000 / self._things
        self.waited_us = (time.perf_counter_ns() - self._wall_ns) / 1000 / self._things - self.python_us


def run(dsn: str, one: shop.Shop, rounds: int, orders: int = ORDERS, programs: int = 1) -> Pieces:
    """Of so many orders at once, to so many programs of a shop, as many to each; they are open and at rest. A round before the first warms
    up, and meets everybody who buys."""
    assert orders % programs == 0, f"{orders} orders cannot be told to {programs} programs alike"
    thresholds = gc.get_threshold()
    # As the server does, whose collector does not look at what the bench holds besides.
    settle_memory()
    try:
        return asyncio.run(_run(dsn, one, rounds, orders, one.programs[:programs]))
    finally:
        gc.unfreeze()
        gc.set_threshold(*thresholds)


def replay(dsn: str, program: str, rounds: int) -> Pieces:
    """Of the entries of a program that is at rest, folded by `ops.projections` as VerifyProjections does it: so many at a time, and by one
    service after the other.

    To make rows of what was folded and to compare them is done once for a whole program, and not in it.
    """
    with psycopg.connect(dsn) as connection:
        head = replaying.head_position(connection, program)
        before = min(REPLAYED_BEFORE, head // 2)
        pieces = Pieces(min(REPLAYED, head - before), "entry")
        # As in the process that a log of this size is verified in.
        gc.disable()
        try:
            for _ in range(rounds):
                _replayed(connection, program, before, pieces)
        finally:
            gc.enable()
    return pieces


def _replayed(connection: replaying.Sync, program: str, before: int, pieces: Pieces) -> None:
    """One round: `before` entries first, which are not measured."""
    chain = Chain()
    services = {one.views[0].name.partition(".")[0]: (one, one.folding(first_of(connection, program, one, ()))) for one in REGISTERED}
    for some in replaying.chunks(connection, program, before):
        _each(chain.add, some)
        for one, folding in services.values():
            _each(folding.add, _each(one.read, some))
    round_ = Pieces(pieces.things)
    chunks = replaying.chunks(connection, program, before + pieces.things, after=before)
    while True:
        with _Timer(pieces.things) as timer:
            some = next(chunks, [])
        round_.waited("read from PostgreSQL", timer)
        if not some:
            break
        round_.took("check number, time and hash", _each, chain.add, some)
        for name, (one, folding) in services.items():
            entries = round_.took(f"{name}: read", _each, one.read, some)
            round_.took(f"{name}: fold", _each, folding.add, entries)
    assert chain.position == before + pieces.things and not chain.faults, chain.faults
    for found, of_round in ((pieces.python_us, round_.python_us), (pieces.postgres_us, round_.postgres_us)):
        for piece, some_us in of_round.items():
            found.setdefault(piece, []).append(sum(some_us))


class _Part(NamedTuple):
    """What is told to a program at once, and what is remembered of it."""

    head: Head
    raw: bytes
    books: Books


async def _run(dsn: str, one: shop.Shop, rounds: int, orders: int, programs: Sequence[str]) -> Pieces:
    ledger, referral = Ledger(), Referral()
    followed: dict[str, Followed] = {"follow: statistics": Statistics(), "follow: tree": Tree()}
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        pieces, heads, kept = Pieces(orders), {name: await eventlog.head(connection, name) for name in programs}, dict[str, Books]()
        for name, head in heads.items():
            everybody = shop.Orders("pieces", one)
            commands = [transport.record_order(everybody.of(name, buyer)) for buyer in one.buyers]
            # Remembered from batch to batch, as the writer does it.
            kept[name] = await ledger.load(connection, head, commands, set(), None)
            ledger.keep(kept[name])
        for number in range(rounds + 1):
            if number == 1:
                pieces = Pieces(orders)
            new, parts = shop.Orders(f"pieces-{number}", one), []
            for name, head in heads.items():
                request = ledger_pb2.RecordOrdersRequest(program_id=name, orders=new.some(name, orders // len(programs)))
                parts.append(_Part(head, request.SerializeToString(), kept[name]))
            kept = dict(zip(heads, await _batch(connection, ledger, referral, followed, pieces, parts), strict=True))
            for books in kept.values():
                ledger.keep(books)
    return pieces


async def _batch(
    connection: Connection, ledger: Ledger, referral: Referral, followed: Mapping[str, Followed], pieces: Pieces, parts: Sequence[_Part]
) -> list[Books]:
    heads = [part.head for part in parts]
    requests = pieces.took("take the message apart", _each, ledger_pb2.RecordOrdersRequest.FromString, [part.raw for part in parts])
    pieces.took("check it by the contract's rules", _each, validate, [order for request in requests for order in request.orders])
    told = pieces.took("... and read it", _each, lambda request: _each(transport.record_order, request.orders), requests)
    with _Timer(pieces.things) as timer:
        # One after the other: what is remembered of each needs no look-up.
        books = [await ledger.load(connection, part.head, commands, set(), part.books) for part, commands in zip(parts, told, strict=True)]
    pieces.waited("load what is not remembered", timer)
    drafts = pieces.took("decide", _for_each, partial(_decided, ledger), books, told)
    written = pieces.took("encode", _each, lambda some: _each(ledger.write, some), drafts)
    stored = pieces.took("number, date and hash", _for_each, _chained, heads, drafts, written)
    entries = [
        [entry_of(one, draft.fact, draft.decision) for one, draft in zip(some, drafted, strict=True)]
        for some, drafted in zip(stored, drafts, strict=True)
    ]
    folds = pieces.took("take into state and views", _for_each, partial(_taken_in, ledger, referral), books, stored, entries)
    # The log without views, and what each view adds to it.
    functions = [fold.function for fold in folds[0]]
    alone = {LOG: slice(0), **{f"append: {name.partition('fold_')[2]}": slice(n, n + 1) for n, name in enumerate(functions)}}
    appends = [Append(*one) for one in zip(heads, stored, folds, strict=True)]
    for piece, some in alone.items():
        async with connection.transaction(force_rollback=True):
            with _Timer(pieces.things) as timer:
                await _append(connection, [one._replace(folds=one.folds[some]) for one in appends])
        log_us = pieces.postgres_us[LOG][-1] if piece != LOG else 0.0
        pieces.postgres_us.setdefault(piece, []).append(timer.waited_us - log_us)
    async with connection.transaction(force_rollback=True):
        with _Timer(pieces.things) as timer:
            await _append(connection, appends)
        pieces.waited("append, in all", timer)
        for piece, projection in followed.items():
            with _Timer(pieces.things) as timer:
                await projection.fold(connection, {head.program_id: some for head, some in zip(heads, stored, strict=True)})
            pieces.waited(piece, timer)
    outcomes = [
        Outcome(one.program_id, (entry,), False, entry.position) for one, some in zip(heads, entries, strict=True) for entry in some
    ]
    pieces.took("answer", _answered, outcomes)
    return books


async def _append(connection: Connection, appends: Sequence[Append]) -> None:
    """As the writer does it: of one program by itself, of several together."""
    if len(appends) == 1:
        await eventlog.append(connection, *appends[0])
    else:
        appended = await eventlog.append_together(connection, appends)
        assert len(appended) == len(appends), f"{len(appends)} programs at rest, appended to {len(appended)}"


def _for_each(work: Callable[..., Result], *columns: Sequence[Any]) -> list[Result]:
    return [work(*values) for values in zip(*columns, strict=True)]


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
    return table((f"µs an {pieces.thing}", "Python", "PostgreSQL, waited for"), rows) if rows else []
