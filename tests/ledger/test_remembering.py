"""What the ledger remembers from batch to batch: plans, by what their entries are; people and roles, as many as there is room for."""

import asyncio

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from services.composition import MIGRATIONS
from services.kernel.decider import Draft
from services.ledger import application, codec
from services.ledger.application import Ledger
from services.ledger.domain.books import Books, Member
from services.ledger.domain.facts import PlanDecision, PlanPublished
from services.ledger.domain.plan import canonical, content_hash
from services.referral.application import Referral
from services.runtime import eventlog
from services.runtime.eventlog import Connection
from services.runtime.migrations import migrate


def published(tier: str) -> Draft:
    rules = [{"id": "first", "kind": "generation", "generation": 1, "rate": "10%"}]
    document = canonical({"plan": "main", "version": 1, "currency": "GBP", "tiers": [tier], "rules": rules})
    return Draft("plan/main", PlanPublished("main", 1, document, 0, None), PlanDecision(content_hash(document)), 0)


async def tiers(connection: Connection, ledger: Ledger, referral: Referral) -> list[tuple[str, ...]]:
    """Those of the program's one plan, as each service and whoever asks reads them."""
    head = await eventlog.head(connection, "p")
    [loaded] = (await ledger.load(connection, head, [], set(), None)).plans
    [listed] = await ledger.plans(connection, "p")
    [seen] = (await referral.load(connection, head, [], set(), None)).plans
    return [loaded.plan.tiers, listed.plan.tiers, seen.tiers]


def test_a_plan_published_at_the_position_of_one_that_was_lost_counts(dsn: str) -> None:
    """A server was at work before and after a failover that lost the end of the log: two databases, two plans in one place."""

    async def story() -> list[list[tuple[str, ...]]]:
        ledger, referral, found = Ledger(), Referral(), []
        for name, tier in (("plans_lost", "silver"), ("plans_there", "gold")):
            with psycopg.connect(dsn, autocommit=True) as owner:
                owner.execute(sql.SQL("drop database if exists {}").format(sql.Identifier(name)))
                owner.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
            own = make_conninfo(dsn, dbname=name)
            migrate(own, MIGRATIONS)
            async with await psycopg.AsyncConnection.connect(own, autocommit=True) as connection:
                first = eventlog.store(eventlog.beginning("p", "GBP"), Draft("program/p", None, None, 0), 1, ("t", b"", b""), "", 1)
                await eventlog.create_program(connection, first, "GBP")
                head, draft = await eventlog.head(connection, "p"), published(tier)
                await eventlog.append(connection, head, [eventlog.store(head, draft, 1, codec.write(draft), "", 1)], [])
                found.append(await tiers(connection, ledger, referral))
        return found

    assert asyncio.run(story()) == [[("silver",)] * 3, [("gold",)] * 3]


def test_places_of_roles_take_room_as_members_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Orders may name a new place each time, and nobody need hold a role there."""
    monkeypatch.setattr(application, "MEMBERS_KEPT", 3)
    books = Books(complete=False, members={"ann": Member()}, roles={("store", f"S{number}"): [] for number in range(2)})
    assert Ledger().keep(books) == 3
    books.roles["store", "S2"] = []
    assert Ledger().keep(books) == 0
