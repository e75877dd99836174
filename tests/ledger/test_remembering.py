"""What a server remembers from batch to batch: plans and sums, by the entries they come from; people and roles, as many as fit; that orders
are new."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

import grpc
import psycopg
import pytest
from fenrun.ledger.v1 import ledger_pb2
from psycopg import sql
from psycopg.conninfo import make_conninfo

from services.composition import MIGRATIONS
from services.kernel.decider import Draft
from services.ledger import application, codec
from services.ledger.application import Ledger
from services.ledger.domain.books import Books, Member
from services.ledger.domain.facts import (
    Account,
    LineKind,
    LineShares,
    OrderLine,
    OrderPaid,
    OrderPaidDecision,
    Person,
    PlanDecision,
    PlanPublished,
    Posting,
    Share,
)
from services.ledger.domain.plan import canonical, content_hash
from services.ledger.past import TrialBalances
from services.referral.application import Referral
from services.runtime import eventlog
from services.runtime.as_of import AsOf
from services.runtime.eventlog import Connection
from services.runtime.migrations import migrate
from services.runtime.stored import Stored
from services.statistics.projection import Statistics
from tests.given import Client, line, reason


def published(tier: str, rule_id: str = "first") -> Draft:
    rules = [{"id": rule_id, "kind": "generation", "generation": 1, "rate": "10%"}]
    document = canonical({"plan": "main", "version": 1, "currency": "GBP", "tiers": [tier], "rules": rules})
    return Draft("plan/main", PlanPublished("main", 1, document, 0, None), PlanDecision(content_hash(document)), 0)


def paid(share_minor: int, order_id: str = "o1") -> Draft:
    """An order of Bob's that the first rule of the plan at position 2 gives Ann something of."""
    line = OrderLine(1, 10_000, 1, "", "", LineKind.GOODS)
    people = (Person("bob", "", 0, 0), Person("ann", "", 0, 0))
    shares = (LineShares(1, (Share(0, 2, share_minor),)),)
    postings = (Posting(Account.COMMISSION, "", -share_minor, "GBP"), Posting(Account.PENDING, "ann", share_minor, "GBP"))
    decision = OrderPaidDecision(1, 2, None, people, shares, postings)
    return Draft(f"order/{order_id}", OrderPaid(order_id, "bob", "GBP", (line,)), decision, 0)


@contextlib.asynccontextmanager
async def database(dsn: str, name: str, drafts: Sequence[Draft]) -> AsyncIterator[tuple[str, Connection]]:
    """A new one of that name, whose program's log holds these entries after its first."""
    with psycopg.connect(dsn, autocommit=True) as owner:
        owner.execute(sql.SQL("drop database if exists {}").format(sql.Identifier(name)))
        owner.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
    own = make_conninfo(dsn, dbname=name)
    migrate(own, MIGRATIONS)
    async with await psycopg.AsyncConnection.connect(own, autocommit=True) as connection:
        first = eventlog.store(eventlog.beginning("p", "GBP"), Draft("program/p", None, None, 0), 1, ("t", b"", b""), "", 1)
        await eventlog.create_program(connection, first, "GBP")
        for draft in drafts:
            head = await eventlog.head(connection, "p")
            await eventlog.append(connection, head, [eventlog.store(head, draft, 1, codec.write(draft), "", 1)], [])
        yield own, connection


async def tiers(connection: Connection, ledger: Ledger, referral: Referral) -> list[tuple[str, ...]]:
    """Those of the program's one plan, as each service and whoever asks reads them."""
    head = await eventlog.head(connection, "p")
    [loaded] = (await ledger.load(connection, head, [], set(), None)).plans
    [listed] = await ledger.plans(connection, "p")
    [seen] = (await referral.load(connection, head, [], set(), None)).plans
    return [loaded.plan.tiers, listed.plan.tiers, seen.tiers]


# A server was at work before and after a failover that lost the end of the log: two databases, other entries in the same places.


def test_a_plan_published_at_the_position_of_one_that_was_lost_counts(dsn: str) -> None:
    async def story() -> list[list[tuple[str, ...]]]:
        ledger, referral, found = Ledger(), Referral(), []
        for tier in ("silver", "gold"):
            async with database(dsn, "remembering", [published(tier)]) as (_, connection):
                found.append(await tiers(connection, ledger, referral))
        return found

    assert asyncio.run(story()) == [[("silver",)] * 3, [("gold",)] * 3]


def test_income_counts_under_the_rule_that_is_there_and_not_under_one_that_was_lost(dsn: str) -> None:
    async def story() -> list[tuple[str, int]]:
        statistics, found = Statistics(), []
        for rule_id in ("first", "other"):
            async with database(dsn, "remembering", [published("gold", rule_id), paid(1000)]) as (_, connection):
                # The order alone, as a batch of its own: its plan came in one before.
                await statistics.fold(connection, {"p": await eventlog.at(connection, "p", [3])})
                cursor = await connection.execute("select rule_id, amount from statistics.income where month = '1970-01'")
                found += await cursor.fetchall()
        return found

    assert asyncio.run(story()) == [("first", 1000), ("other", 1000)]


def test_a_trial_balance_is_that_of_the_entries_that_are_there(dsn: str) -> None:
    async def story() -> list[tuple[int, int]]:
        balances, found = TrialBalances(make_conninfo(dsn, dbname="remembering")), []
        for share_minor in (1000, 700):
            async with database(dsn, "remembering", [published("gold"), paid(share_minor), paid(share_minor, "o2")]):
                now = {Account.PENDING: 2 * share_minor, Account.COMMISSION: -2 * share_minor}
                # Twice: folded back from the head, then remembered.
                for _ in range(2):
                    sums = await balances.at("p", "GBP", AsOf(3), 4, now)
                    found.append((sums[Account.PENDING], sums[Account.COMMISSION]))
        return found

    assert asyncio.run(story()) == [(1000, -1000)] * 2 + [(700, -700)] * 2


def test_who_stands_above_others_is_remembered_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of them go: first those below, those met first before others; then those above, likewise."""
    monkeypatch.setattr(application, "MEMBERS_KEPT", 5)
    line = {"top": Member(), "b": Member(referrer_id="top"), "nobody": None, "c": Member(referrer_id="b"), "d": Member(referrer_id="top")}
    books = Books(complete=False, members={**line})
    assert Ledger().keep(books) == 5
    books.members["e"] = Member(referrer_id="c")
    assert Ledger().keep(books) == 3
    assert list(books.members) == ["top", "b", "c"]
    books.members |= {"f": Member(referrer_id="x"), "x": Member(referrer_id="y"), "y": Member(referrer_id="z")}
    assert Ledger().keep(books) == 3
    assert list(books.members) == ["b", "x", "y"]


def test_places_of_roles_take_room_as_members_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Orders may name a new place each time, and nobody need hold a role there."""
    monkeypatch.setattr(application, "MEMBERS_KEPT", 3)
    books = Books(complete=False, members={"ann": Member()}, roles={("store", f"S{number}"): [] for number in range(2)})
    assert Ledger().keep(books) == 3
    books.roles["store", "S2"] = []
    assert Ledger().keep(books) == 2
    assert list(books.roles) == [("store", "S2")]


def test_an_order_that_was_thought_to_be_new_is_answered_with_its_first_receipt(client: Client) -> None:
    """From the second batch on new orders are not looked for. One of them is there: alone, among others, and where it would be refused."""
    client.publish()
    client.enroll("mei")
    client.enroll("bo", "mei")
    client.open_group("g1", "bo")
    joined = client.order("O1", "bo", line(1, 10_000), group="g1")
    client.order("O2", "bo", line(1, 20_000))
    client.order("O3", "bo", line(1, 30_000))
    again = client.order("O1", "bo", line(1, 10_000), group="g1")
    assert again.receipt.already_recorded and again.receipt.position == joined.receipt.position
    client.form_group("g1")
    client.order("O4", "bo", line(1, 40_000))
    client.order("O5", "bo", line(1, 50_000))
    # As a new order it would be refused, for its group is closed.
    again = client.order("O1", "bo", line(1, 10_000), group="g1")
    assert again.receipt.already_recorded and again.earnings == joined.earnings
    client.order("O6", "bo", line(1, 60_000))
    client.order("O7", "bo", line(1, 70_000))
    orders = [
        client.told_order(name, "bo", line(1, base)) for name, base in (("O8", 80_000), ("O7", 70_000), ("O9", 90_000), ("O9", 90_000))
    ]
    results = client.ledger.RecordOrders(ledger_pb2.RecordOrdersRequest(program_id=client.program_id, orders=orders)).results
    assert [one.recorded.receipt.already_recorded for one in results] == [False, True, False, True]
    with pytest.raises(grpc.RpcError) as caught:
        client.order("O9", "bo", line(1, 90_001))
    assert reason(caught.value)[1] == "ID_REUSED"
    assert client.balance("mei")["pending"] == 45_000
    assert client.differences() == []


@pytest.mark.parametrize("refused", [False, True])
def test_new_orders_are_looked_for_after_a_batch_that_had_a_known_or_a_refused_one(
    client: Client, monkeypatch: pytest.MonkeyPatch, refused: bool
) -> None:
    looked: list[list[str]] = []

    async def streams(connection: Connection, program_id: str, names: Sequence[str]) -> list[Stored]:
        looked.append(sorted(names))
        return await streams_of(connection, program_id, names)

    streams_of = eventlog.streams
    client.publish()
    client.enroll("mei")
    client.order("O1", "mei", line(1, 10_000))
    monkeypatch.setattr(eventlog, "streams", streams)
    client.order("O2", "mei", line(1, 10_000))
    assert looked == []
    if refused:
        with pytest.raises(grpc.RpcError):
            client.order("O3", "nobody", line(1, 10_000))
    else:
        client.order("O1", "mei", line(1, 10_000))
    client.order("O4", "mei", line(1, 10_000))
    client.order("O5", "mei", line(1, 10_000))
    first = ["order/O3"] if refused else ["order/O1"]
    assert looked == [first, ["order/O4"]]
