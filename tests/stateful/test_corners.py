"""The smallest stories in which the server once did not do what docs/plan-format.md says."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import grpc
import pytest

from tests.oracle.facts import (
    DAY_NS,
    EVIDENCE_SEAT_GRANTED,
    Adjust,
    Attribution,
    ClosePeriod,
    Complete,
    Enroll,
    FailGroup,
    GrantRole,
    LiftHold,
    Line,
    OpenBalance,
    OpenGroup,
    Order,
    PlaceHold,
    PublishPlan,
    Refund,
    RefundLine,
    ReleaseDue,
    Upgrade,
    Write,
)
from tests.oracle.oracle import Oracle
from tests.stateful.drawing import CURRENCY, START
from tests.stateful.grpc_driver import GrpcDriver
from tests.stateful.stories import compare_answer

LINE = (Line(1, 10_000),)
ALL = (RefundLine(1, 1, 10_000),)
FIRST = {"id": "first", "kind": "generation", "generation": 1, "rates": {"manager": "10%", "director": "20%"}}
BY_ORDER = {"any": [{"metric": "orders", "at_least": 1}]}


def day(number: int) -> int:
    """A day of the story."""
    return START + number * DAY_NS


def plan(*rules: object, **more: object) -> PublishPlan:
    """A plan in force from before the story."""
    document = {"plan": "p", "version": 1, "currency": CURRENCY, "tiers": ["manager", "director"], "rules": list(rules), **more}
    return PublishPlan(json.dumps(document), day(-1))


def seat(upgrade_id: str, tier: str, until: int = 0, member_id: str = "A", at: int = 0) -> Upgrade:
    """A seat, for good or until a day."""
    return Upgrade(upgrade_id, member_id, tier, day(at), EVIDENCE_SEAT_GRANTED, expires_at=day(until) if until else 0)


PROMOTES_TO_DIRECTOR = plan(FIRST, promotions=[{"tier": "director", **BY_ORDER}], on_evidence_refunded="demote")
PROMOTES_TO_MANAGER = plan(FIRST, promotions=[{"tier": "manager", **BY_ORDER}], on_evidence_refunded="demote")
CAPPED_SEATS = {"id": "f", "kind": "pool", "role": "partner", "split": "seats", "rate": "10%", "cap_minor": {"order": 300}}
CAPPED_SPLIT = {
    "id": "c",
    "kind": "attributed",
    "role": "creator",
    "with_referrer": "split",
    "referrer_share": "50%",
    "rate": "10%",
    "cap_minor": {"order": 300},
}
BOUGHT_BY_B = Order("O", "B", day(9), CURRENCY, LINE)
# Two rules that pay the same member: one at once, one in the very instant that the order is completed, or the period closed.
AT_ONCE, THAT_INSTANT = {"on": "at_once"}, {"on": "completion", "days": 0}
OWN, BY_PERIOD = {"kind": "self", "rate": "1%"}, {"kind": "volume", "brackets": [{"from_minor": 0, "rate": "1%"}]}
ORDER_RULES = [{"id": "x", "release": AT_ONCE, **OWN}, {"id": "y", "release": THAT_INSTANT, **OWN}]
PERIOD_RULES = [{"id": "x", "release": AT_ONCE, **BY_PERIOD}, {"id": "y", "release": THAT_INSTANT, **BY_PERIOD}]
ORDER_THEN = (plan(*ORDER_RULES), Order("O", "B", day(1), CURRENCY, LINE), Complete("O", day(1)))
PERIOD_THEN = (plan(*PERIOD_RULES, period="day"), Order("O", "B", day(1), CURRENCY, LINE), ClosePeriod("2026-01-02", day(3)))
HOLD_B, LIFT = PlaceHold("H", "B", "", day(0)), LiftHold("H", day(5))
HALF, REST = Refund("R", "O", day(6), (RefundLine(1, 0, 5_000),)), Refund("S", "O", day(7), (RefundLine(1, 1, 5_000),))

RANK = {"id": "x", "kind": "rank", "board": "own", "places_minor": [7, 5]}
BEFORE_B = Refund("R", "O", day(5), (RefundLine(1, 0, 2_000),)), Refund("S", "P", day(6), (RefundLine(1, 0, 5_000),))

STORIES: dict[str, tuple[Write, ...]] = {
    "below a seat that expired stands another one that expired": (
        *(plan(FIRST), seat("U1", "manager", 5), seat("U2", "director", 3), BOUGHT_BY_B),
    ),
    "a seat that a demotion gave back still ends": (
        *(PROMOTES_TO_DIRECTOR, seat("U1", "manager", 5), Order("E", "A", day(1), CURRENCY, LINE)),
        *(Refund("R", "E", day(2), ALL), BOUGHT_BY_B),
    ),
    "a tier that is back because a seat expired still rests on its evidence": (
        *(PROMOTES_TO_MANAGER, Order("E", "A", day(1), CURRENCY, LINE), seat("U1", "director", 5, at=1)),
        *(Refund("R", "E", day(6), ALL), BOUGHT_BY_B),
    ),
    "a seat that is back because another one expired is in force": (
        *(plan(FIRST, seats={"manager": 1}), seat("U1", "manager"), seat("U2", "director", 3)),
        seat("U3", "manager", member_id="B", at=5),
    ),
    "a cap is of the payee who holds a role twice": (
        *(plan(CAPPED_SEATS), GrantRole("G1", "A", "partner", "", 1, day(0), day(0))),
        *(GrantRole("G2", "A", "partner", "", 1, day(0), day(0)), BOUGHT_BY_B),
    ),
    "a cap is of the payee who is creator and referrer": (
        *(plan(CAPPED_SPLIT), Order("O", "B", day(9), CURRENCY, LINE, (Attribution("creator", "A"),))),
    ),
    "a debt is carried over to somebody who has something": (
        *(plan(FIRST), Adjust("J", "A", 1, 100, CURRENCY, day(0)), OpenBalance("B", "A", CURRENCY, day(0), debt_minor=30)),
    ),
    "the touch that won is of the one who won": (
        *(plan(FIRST, binding={"touch": "order", "on_full_refund": "release"}), Enroll("C", "", day(0))),
        *(Order("O", "B", day(0), CURRENCY, LINE, referrer_id="C"), Refund("R", "O", day(0), ALL), seat("U", "manager", member_id="B")),
    ),
    **{
        f"{of} of which one share was paid at once and one is due in that instant{name}": (*before, *then, *after, HALF, REST)
        for of, then in (("an order", ORDER_THEN), ("a period", PERIOD_THEN))
        for name, before, after in (
            ("", (), ()),
            (", released since", (), (ReleaseDue(day(5)),)),
            (", held", (HOLD_B,), ()),
            (", held until then", (HOLD_B,), (LIFT,)),
            (", held and released since", (HOLD_B,), (LIFT, ReleaseDue(day(5)))),
            (", held since", (), (replace(HOLD_B, placed_at=day(4)),)),
        )
    },
    **{
        f"what somebody gains while held waits, and goes first: {release['on']}{name}": (
            *(plan({**RANK, "release": release}, period="day"), Order("O", "B", day(1), CURRENCY, LINE)),
            *(Order("P", "A", day(1), CURRENCY, (Line(1, 9_000),)), ClosePeriod("2026-01-02", day(3)), ReleaseDue(day(3))),
            *(PlaceHold("H", "A", "", day(4)), BEFORE_B[0], *after, BEFORE_B[1]),
        )
        for release in (AT_ONCE, THAT_INSTANT)
        for name, after in (("", ()), (", lifted", (LIFT,)), (", released", (LIFT, ReleaseDue(day(6)))))
    },
}


@pytest.mark.parametrize("name", STORIES)
def test_what_the_document_says(channel: grpc.Channel, fresh_program_id: Callable[[], str], name: str) -> None:
    """Every answer and all money are the oracle's."""
    books, oracle = GrpcDriver(channel, fresh_program_id(), CURRENCY), Oracle(CURRENCY)
    for fact in (Enroll("A", "", START), Enroll("B", "A", START), *STORIES[name]):
        compare_answer(books, oracle, fact)


def test_a_refund_after_the_group_failed_changes_nothing(channel: grpc.Channel, fresh_program_id: Callable[[], str]) -> None:
    """It is recorded, and takes nothing back that was taken back before."""
    books, oracle = GrpcDriver(channel, fresh_program_id(), CURRENCY), Oracle(CURRENCY)
    group = (OpenGroup("G", "A", START), Order("O", "B", START, CURRENCY, LINE, group_id="G"), FailGroup("G", START))
    for fact in (Enroll("A", "", START), Enroll("B", "A", START), plan(FIRST), *group, Refund("R", "O", START, ALL)):
        compare_answer(books, oracle, fact)
