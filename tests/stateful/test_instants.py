"""Stories in which much falls in one instant: what is paid at once or due with the completion or the closing, held, and taken back."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from random import Random

import grpc
import pytest

from tests.oracle.facts import (
    DAY_NS,
    ClosePeriod,
    Complete,
    Enroll,
    GrantRole,
    LiftHold,
    Line,
    Order,
    PlaceHold,
    PublishPlan,
    Refund,
    RefundLine,
    ReleaseDue,
    Write,
)
from tests.oracle.oracle import Oracle
from tests.stateful.drawing import CURRENCY, START
from tests.stateful.grpc_driver import GrpcDriver
from tests.stateful.stories import compare_answer

PEOPLE = "ABC"
AT_ONCE: dict[str, object] = {"on": "at_once"}
RELEASES = [AT_ONCE, AT_ONCE, *({"on": "completion", "days": days} for days in (0, 1)), {"on": "period_close", "days": 0}]
BRACKETS = [{"from_minor": 0, "rate": "1%"}, {"from_minor": 9000, "rate": "3%"}]
BY_ORDER: list[dict[str, object]] = [
    {"kind": "self", "rate": "2%"},
    {"kind": "generation", "generation": 1, "rate": "3%"},
    {"kind": "triggered", "on": "invite", "to": {"buyer": 50, "referrer": 100}},
    {"kind": "pool", "role": "partner", "split": "seats", "rate": "3%"},
]
BY_PERIOD: list[dict[str, object]] = [
    {"kind": "volume", "brackets": BRACKETS},
    {"kind": "rank", "board": "own", "places_minor": [70, 50, 20]},
]


def day(number: int) -> int:
    return START + number * DAY_NS


def plan(generator: Random) -> PublishPlan:
    """Two to four rules; those by period are released days after the closing, or at once."""
    rules = []
    for number in range(generator.randint(2, 4)):
        rule = generator.choice([*BY_ORDER, *BY_PERIOD])
        releases = RELEASES[:-1] if rule in BY_PERIOD else RELEASES
        rules.append({"id": f"r{number}", "release": generator.choice(releases), **rule})
    return PublishPlan(json.dumps({"plan": "p", "version": 1, "currency": CURRENCY, "period": "day", "rules": rules}), day(-1))


def story(generator: Random) -> Iterator[Write]:
    """Orders of three people below one another, and what may follow on them, mostly on the day of the fact before."""
    yield from (Enroll("A", "", START), Enroll("B", "A", START), Enroll("C", "B", START), plan(generator))
    yield from (GrantRole(f"G{who}", who, "partner", "", 1, day(0), day(0)) for who in "AB")
    paid, remaining = dict[str, int](), dict[str, dict[int, tuple[int, int]]]()
    today, holds = 1, dict[str, str]()
    for number in range(generator.randint(10, 26)):
        today += generator.random() < 0.35
        order_id = generator.choice([*paid]) if paid else ""
        match generator.choice("oooccrrrrrrhhllpps"):
            case "o":
                amounts = [generator.choice([1000, 3333, 5001, 10_000]) for _ in range(generator.randint(1, 2))]
                lines = tuple(Line(line_no, amount) for line_no, amount in enumerate(amounts, 1))
                paid[f"O{number}"], remaining[f"O{number}"] = today, {line.line_no: (line.base_minor, line.quantity) for line in lines}
                yield Order(f"O{number}", generator.choice(PEOPLE), day(today), CURRENCY, lines)
            case "c" if order_id:
                yield Complete(order_id, day(paid[order_id] if generator.random() < 0.7 else today))
            case "r" if order_id:
                line_no = generator.choice([*remaining[order_id]])
                base, quantity = remaining[order_id][line_no]
                back = base if generator.random() < 0.3 else generator.randint(min(1, base), base)
                units = quantity if back == base else 0
                remaining[order_id][line_no] = base - back, quantity - units
                yield Refund(f"R{number}", order_id, day(today), (RefundLine(line_no, units, back),))
            case "h":
                who = generator.choice(PEOPLE)
                holds[f"H{number}"] = who
                yield PlaceHold(f"H{number}", who, "", day(today))
            case "l" if holds:
                hold_id = generator.choice([*holds])
                del holds[hold_id]
                yield LiftHold(hold_id, day(today))
            case "p":
                today += 1
                yield ClosePeriod(f"2026-01-{generator.randint(2, today):02}", day(today))
            case "s":
                yield ReleaseDue(day(today))


def check(channel: grpc.Channel, program_id: str, randomness: int) -> None:
    """Every answer and all money of a story are the oracle's."""
    books, oracle, told = GrpcDriver(channel, program_id, CURRENCY), Oracle(CURRENCY), list[Write]()
    for fact in story(Random(randomness)):
        told.append(fact)
        try:
            compare_answer(books, oracle, fact)
        except AssertionError as error:
            lines = "\n".join(f"    {one}," for one in told)
            raise AssertionError(f"{error}\n  at the end of story {randomness}:\n{lines}") from error


@pytest.mark.parametrize("block", range(0, 60, 20))
def test_a_story_of_instants(channel: grpc.Channel, fresh_program_id: Callable[[], str], block: int) -> None:
    for randomness in range(block, block + 20):
        check(channel, fresh_program_id(), randomness)


@pytest.mark.long
@pytest.mark.parametrize("block", range(1000, 2500, 300))
def test_many_stories_of_instants(channel: grpc.Channel, fresh_program_id: Callable[[], str], block: int) -> None:
    for randomness in range(block, block + 300):
        check(channel, fresh_program_id(), randomness)
