"""A batch decided while the one before it is appended: the same log as one after the other, and nobody is answered before it is true."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, LiteralString, NamedTuple

import psycopg
import pytest
import yaml
from psycopg.conninfo import make_conninfo

from services.composition import MIGRATIONS
from services.kernel.decider import Answer, Draft, Entry
from services.kernel.refusals import Malformed, PayoutExceedsAvailable, Refusal, Unavailable
from services.ledger import application
from services.ledger import codec as ledger_codec
from services.ledger.application import Ledger
from services.ledger.domain.books import Books
from services.ledger.domain.commands import PublishPlan, RecordOrder, ReleaseDue
from services.ledger.domain.facts import LineKind, OrderLine, OrderPaid, PlanPublished
from services.ledger.domain.plan import canonical
from services.referral import codec as referral_codec
from services.referral.application import Referral
from services.referral.domain import decide as referral_decide
from services.referral.domain import facts as referral_facts
from services.runtime import eventlog, writer
from services.runtime.eventlog import Connection, Head
from services.runtime.migrations import migrate
from services.runtime.writer import Connect, Outcome, Writer
from tests.auditor.logs import FIRST_DAY
from tests.given import TWO_LEVEL
from tests.golden.test_golden import HISTORIES, TELLERS, command_of, stored_entries
from tests.runtime.test_appending import TERMINATE, Tell, Telling, borrowing, logged, own, rows, until, waiting_for_locks

__all__ = ["own"]

PROGRAM = "p0"
BATCH = 20
FACTS = [f"f{number:03}" for number in range(5 * BATCH)]
REFUSED = "refused"


@pytest.fixture(autouse=True)
def few_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "AHEAD", BATCH)


class Saying(Telling):
    """Says what it has decided, and refuses what it is told to."""

    def __init__(self) -> None:
        self.decided: list[str] = []

    def decide(self, state: dict[str, Entry], command: Tell) -> Answer:
        self.decided.append(command.fact_id)
        if command.fact_id == REFUSED:
            raise PayoutExceedsAvailable("bo", 0, 1)
        return super().decide(state, command)


class Reading(Saying):
    """Keeps nothing, so it reads everything for each batch; says how far the log reached and how far it should."""

    def __init__(self) -> None:
        super().__init__()
        self.read_to: list[tuple[int, int]] = []

    def keep(self, state: dict[str, Entry]) -> int:
        return 0

    async def load(
        self, connection: Connection, head: Head, commands: Sequence[Tell], people: Collection[str], kept: dict[str, Entry] | None
    ) -> dict[str, Entry]:
        there = await eventlog.read(connection, head.program_id, 0, 999)
        self.read_to.append((there[-1].position, head.position))
        return {one.stream: self.read(one) for one in there}


def writer_of(connect: Connect, telling: Telling) -> Writer:
    return Writer(connect, [telling], lambda: 0, BATCH, 30)


async def tell(one: Writer, fact_ids: Sequence[str]) -> list[Any]:
    return await one.submit_all(PROGRAM, [Tell(fact_id) for fact_id in fact_ids], "ann")


def places(answers: Sequence[Any]) -> list[tuple[str, str, int]]:
    assert all(isinstance(answer, Outcome) for answer in answers), answers
    return [(PROGRAM, entry.stream.removeprefix("s/"), entry.position) for answer in answers for entry in answer.entries]


class Held(NamedTuple):
    """A writer that has told one fact, in a database where nothing more is appended until `let_go`."""

    telling: Saying
    one: Writer
    let_go: Callable[[], Awaitable[None]]
    connect: Connect

    async def decides(self, fact_ids: Sequence[str]) -> None:
        """While the first append is held up, these are decided, and nothing more."""
        await asyncio.wait_for(until(self._has_decided(len(fact_ids) + 1)), 10)
        await asyncio.sleep(0.05)
        assert self.telling.decided == ["before", *fact_ids]

    def _has_decided(self, count: int) -> Callable[[], Awaitable[bool]]:
        async def has() -> bool:
            return len(self.telling.decided) >= count

        return has


@asynccontextmanager
async def held(own: str) -> AsyncIterator[Held]:
    async with borrowing(own) as connect, await psycopg.AsyncConnection.connect(own) as holder:
        telling = Saying()
        one = writer_of(connect, telling)
        await tell(one, ["before"])
        await holder.execute("lock table fenrun.entries in share mode")
        yield Held(telling, one, holder.rollback, connect)
        await one.close(1)


def test_the_next_batch_is_decided_meanwhile_and_nobody_is_answered_before_it_is_committed(own: str) -> None:
    async def story() -> None:
        async with held(own) as all_held:
            answers = [asyncio.create_task(all_held.one.submit(PROGRAM, Tell(fact_id), "ann")) for fact_id in FACTS]
            # The batch after the one that is held up, and no more: what comes after that is not decided from what may never be.
            await all_held.decides(FACTS[: 2 * BATCH])
            assert not any(answer.done() for answer in answers)
            await all_held.let_go()
            found = await asyncio.gather(*answers)
            assert all_held.telling.decided == ["before", *FACTS]
            assert places(found) == [(PROGRAM, fact_id, 3 + number) for number, fact_id in enumerate(FACTS)]
            assert (await logged(own))[1:] == places(found)

    asyncio.run(story())


def test_what_was_said_before_in_a_batch_that_is_not_committed_yet_waits_for_that(own: str) -> None:
    """Repeated and refused: they add nothing of their own to the log, but rest on what is being added."""

    async def story() -> None:
        async with held(own) as all_held:
            again = [*FACTS[: BATCH - 1], REFUSED]
            answers = asyncio.create_task(tell(all_held.one, [*FACTS[:BATCH], *again]))
            await all_held.decides([*FACTS[:BATCH], *again])
            assert not answers.done()
            await all_held.let_go()
            found = await answers
            assert isinstance(found.pop(), PayoutExceedsAvailable)
            assert [answer.repeated for answer in found] == [False] * BATCH + [True] * (BATCH - 1)
            assert (await logged(own))[1:] == places(found[:BATCH])
            assert places(found[BATCH:]) == places(found[: BATCH - 1])

    asyncio.run(story())


def test_what_must_be_read_is_read_after_what_it_rests_on_is_there(own: str) -> None:
    async def story() -> None:
        async with borrowing(own) as connect:
            reading = Reading()
            one = writer_of(connect, reading)
            found = await tell(one, FACTS)
            assert await logged(own) == places(found)
            assert reading.read_to == [(position, position) for position in range(1, len(FACTS), BATCH)]
            await one.close(1)

    asyncio.run(story())


def test_where_a_batch_is_taken_one_by_one_those_behind_it_wait_for_all_of_it(own: str) -> None:
    """One of them cannot be stored: it alone hears of it, and the order in the log is that in which they came."""

    async def story() -> None:
        async with borrowing(own) as connect:
            one = writer_of(connect, Saying())
            await tell(one, ["before"])
            told = [*FACTS[:5], "NUL\x00", *FACTS[5:]]
            found = await tell(one, told)
            assert isinstance(found.pop(5), Malformed)
            assert places(found) == [(PROGRAM, fact_id, 3 + number) for number, fact_id in enumerate(FACTS)]
            assert (await logged(own))[1:] == places(found)
            await one.close(1)

    asyncio.run(story())


def test_facts_count_once_while_connections_break_in_the_middle_of_long_queues(own: str) -> None:
    async def story() -> None:
        async with borrowing(own) as connect:
            telling = Saying()
            one = writer_of(connect, telling)
            all_told = asyncio.gather(*(tell(one, [f"{caller}-{fact_id}" for fact_id in FACTS]) for caller in range(20)))
            while not all_told.done():
                await rows(own, TERMINATE)
                await asyncio.sleep(0.003)
            found = [place for answers in await all_told for place in places(answers)]
            assert sorted(found) == sorted(await logged(own))
            assert len(found) == 20 * len(FACTS)
            # Of each caller in the order told.
            for caller in range(20):
                mine = [position for _, fact_id, position in found if fact_id.startswith(f"{caller}-")]
                assert mine == sorted(mine)
            await one.close(1)

    asyncio.run(story())


def test_two_servers_with_long_queues_make_one_log(own: str) -> None:
    async def story() -> None:
        async with borrowing(own) as connect, borrowing(own) as connect_other:
            first, second = writer_of(connect, Saying()), writer_of(connect_other, Saying())
            answers = await asyncio.gather(
                *(tell(first, FACTS[number:]) for number in range(3)), *(tell(second, FACTS[::-1][number:]) for number in range(3))
            )
            log = await logged(own)
            assert len(log) == len(FACTS)
            assert {place for some in answers for place in places(some)} == set(log)
            await first.close(1)
            await second.close(1)

    asyncio.run(story())


def test_a_writer_that_closes_answers_those_who_were_decided_ahead(own: str) -> None:
    async def story() -> None:
        async with held(own) as all_held:
            own_tasks = asyncio.all_tasks()
            answers = [asyncio.create_task(all_held.one.submit(PROGRAM, Tell(fact_id), "ann")) for fact_id in FACTS[: 2 * BATCH]]
            await all_held.decides(FACTS[: 2 * BATCH])
            await all_held.one.close(0)
            assert [type(error) for error in await asyncio.gather(*answers, return_exceptions=True)] == [Unavailable] * 2 * BATCH
            assert asyncio.all_tasks() <= own_tasks
            await all_held.let_go()
            again = writer_of(all_held.connect, Saying())
            assert len(places(await tell(again, FACTS))) == len(FACTS)
            assert len(await logged(own)) == len(FACTS) + 1
            await again.close(1)

    asyncio.run(story())


# With both services, and a history that has every type of entry.

TABLES: LiteralString = (
    "select n.nspname || '.' || c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.relkind = 'r'"
    " and (n.nspname in ('ledger', 'referral') or n.nspname = 'fenrun' and c.relname in ('programs', 'entries')) order by 1"
)


def told(history: Path) -> list[Any]:
    """The commands of a kept history."""
    found: list[Any] = []
    for stored in stored_entries(history)[1:]:
        entry = referral_codec.read(stored)
        teller = TELLERS.get(type(entry.fact))
        command = teller(entry.fact, entry.occurred_us) if teller else command_of(ledger_codec.read(stored))
        # A release takes all that is due at a time.
        if command is not None and not (found and isinstance(command, ReleaseDue) and command == found[-1]):
            found.append(command)
    return found


async def created(dsn: str) -> str:
    """A database of its own with a program whose log has one entry."""
    with psycopg.connect(dsn, autocommit=True) as owner:
        owner.execute("drop database if exists decided_ahead with (force)")
        owner.execute("create database decided_ahead")
    conninfo = make_conninfo(dsn, dbname="decided_ahead")
    migrate(conninfo, MIGRATIONS)
    async with borrowing(conninfo) as connect:
        first = eventlog.store(
            eventlog.beginning("golden", "GBP"), Draft("program/golden", None, None, 0), 1, ("program.created.v1", b"", b""), "", 1
        )
        async with connect() as connection:
            await eventlog.create_program(connection, first, "GBP")
    return conninfo


async def recorded(dsn: str, commands: Sequence[Any], batch: int) -> tuple[list[Any], dict[str, list[Any]]]:
    """What each command is answered, told all at once by two callers, in a database of its own; and every row of its tables."""
    conninfo = await created(dsn)
    async with borrowing(conninfo) as connect:
        one = Writer(connect, (Ledger(), Referral()), lambda: 0, batch, 30)
        answers = await asyncio.gather(*(one.submit_all("golden", commands, "ann") for _ in range(2)))
        await one.close(5)
    return [answer for some in answers for answer in some], await tables_of(conninfo)


async def tables_of(conninfo: str) -> dict[str, list[Any]]:
    """Every row."""
    return {name: sorted(await rows(conninfo, f"select * from {name}"), key=repr) for (name,) in await rows(conninfo, TABLES)}


@pytest.mark.parametrize("history", HISTORIES, ids=lambda path: path.name)
@pytest.mark.parametrize(("batch", "ahead"), [(1, 1), (2, 1), (7, 7)])
@pytest.mark.parametrize("kept", [3, 1000], ids=["hardly-anybody-is-remembered", "everybody-is"])
def test_what_is_decided_ahead_is_what_is_decided_one_after_the_other(
    dsn: str, monkeypatch: pytest.MonkeyPatch, history: Path, batch: int, ahead: int, kept: int
) -> None:
    """To the last hash, and the last row of every view."""
    monkeypatch.setattr(application, "MEMBERS_KEPT", kept)
    commands = told(history)
    monkeypatch.setattr(writer, "AHEAD", 10**9)
    expected = asyncio.run(recorded(dsn, commands, 1))
    assert len(expected[1]["fenrun.entries"]) > len(commands) / 2
    monkeypatch.setattr(writer, "AHEAD", ahead)
    answers, tables = asyncio.run(recorded(dsn, commands, batch))
    assert answers == expected[0]
    for name, there in expected[1].items():
        assert tables[name] == there, name


class Deciding(Ledger):
    """Says whose orders it has decided."""

    def __init__(self) -> None:
        super().__init__()
        self.buyers: list[str] = []

    def decide(self, state: Books, command: Any) -> Answer:
        self.buyers.append(command.fact.member_id)
        return super().decide(state, command)

    def all_of(self, count: int) -> Callable[[], Awaitable[bool]]:
        async def decided() -> bool:
            return len(self.buyers) >= count

        return decided


def order(order_id: str, buyer: str) -> RecordOrder:
    return RecordOrder(OrderPaid(order_id, buyer, "GBP", (OrderLine(1, 10_000, 1, "", "", LineKind.GOODS),)), FIRST_DAY)


ENROLLED = [
    referral_decide.EnrollMember(referral_facts.MemberEnrolled(name, "ann" if name != "ann" else ""), FIRST_DAY)
    for name in ("ann", "bo", "cy", "di")
]


def published(document: str) -> PublishPlan:
    return PublishPlan(PlanPublished(yaml.safe_load(document)["plan"], 1, canonical(yaml.safe_load(document)), FIRST_DAY, None), FIRST_DAY)


async def told_while_held(
    conninfo: str, first: Sequence[Sequence[Any]], told: Sequence[Any], ahead: bool = True
) -> list[Outcome | Refusal]:
    """What is told, two batches, is answered, once all its orders were decided while nothing could be appended; if not `ahead`, once they
    could have been. What is `first` was told before, batch by batch: the last of them to the same writer."""
    async with borrowing(conninfo) as connect, await psycopg.AsyncConnection.connect(conninfo) as holder:
        before = Writer(connect, (Ledger(), Referral()), lambda: 0, 500, 30)
        deciding = Deciding()
        one = Writer(connect, (deciding, Referral()), lambda: 0, BATCH, 30)
        for commands in first:
            same = one if commands is first[-1] else before
            assert all(isinstance(answer, Outcome) for answer in await same.submit_all("golden", commands, "ann"))
        already, orders = len(deciding.buyers), [command for command in told if isinstance(command, RecordOrder)]
        await holder.execute("lock table fenrun.entries in share mode")
        answers = asyncio.create_task(one.submit_all("golden", told, "ann"))
        await until(lambda: waiting_for_locks(conninfo))
        if ahead:
            await asyncio.wait_for(until(deciding.all_of(already + len(orders))), 10)
            assert deciding.buyers[already:] == [command.fact.member_id for command in orders]
        else:
            await asyncio.sleep(0.5)
        assert not answers.done()
        await holder.rollback()
        found = await answers
        await one.close(1)
    return found


def test_people_are_looked_up_while_what_leaves_them_alone_is_appended(dsn: str) -> None:
    """Orders after the first: they move nobody, so who stands where need not wait for them."""
    told = [
        *(order(f"bo-{number}", "bo") for number in range(BATCH)),
        *(order(f"others-{number}", ("cy", "di")[number % 2]) for number in range(BATCH)),
    ]

    async def story() -> None:
        first: list[list[Any]] = [
            [published(TWO_LEVEL)],
            ENROLLED,
            [order(f"first-{name}", name) for name in ("bo", "cy", "di")],
            [order("O1", "bo")],
        ]
        answers = await told_while_held(await created(dsn), first, told)
        assert all(isinstance(answer, Outcome) for answer in answers)

    asyncio.run(story())


# What is told below reaches these with the second batch: a counter, days, and a cap.
COUNTING = """
plan: counting
version: 1
currency: GBP
tiers: [member, manager]
granted: [member, manager]
effective: {from: "2000-01-01T00:00:00Z"}
release: {days: 7}
rules:
  - {id: first, kind: generation, generation: 1, rate: 10%, cap_minor: {period: 30500}}
promotions:
  - {tier: member, all: [{metric: orders, at_least: 28}]}
  - {tier: manager, all: [{metric: own_volume, at_least: 250000, days: 30}]}
"""
BOS = [order(f"bo-{number}", "bo") for number in range(2 * BATCH + 2)]
NEWCOMERS = [referral_decide.EnrollMember(referral_facts.MemberEnrolled(f"new-{n}", "ann"), FIRST_DAY) for n in range(BATCH)]


@pytest.mark.parametrize(
    ("last", "told", "ahead"),
    [(BOS[:2], BOS[2:], True), (BOS[:BATCH], [*NEWCOMERS, *BOS[BATCH : 2 * BATCH]], False)],
    ids=["behind-orders", "behind-others-that-come-behind-orders"],
)
def test_what_is_counted_ahead_has_counted_what_is_being_appended_once(dsn: str, last: list[Any], told: list[Any], ahead: bool) -> None:
    first: list[list[Any]] = [[published(COUNTING)], ENROLLED, [order("O1", "cy")], last]

    async def story() -> None:
        conninfo = await created(dsn)
        answers = await told_while_held(conninfo, first, told, ahead)
        tables = await tables_of(conninfo)
        expected, one_by_one = await recorded(dsn, [command for commands in first for command in commands] + told, 1)
        assert answers == expected[len(expected) // 2 - len(told) : len(expected) // 2]
        assert one_by_one == tables
        tiers = {row[1]: row[2] for row in tables["ledger.members"]}
        assert tiers["bo"] == "manager"

    asyncio.run(story())
