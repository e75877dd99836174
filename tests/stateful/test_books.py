"""The server on a real PostgreSQL against the oracle: random stories told to both, one fact at a time and in batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import TypeVar

import grpc
import pytest
from hypothesis import HealthCheck, currently_in_test_context, given, note, settings
from hypothesis import strategies as st

from tests.oracle.facts import Complete, Enroll, Order, Outcome, Refund, Touch, Upgrade, Write
from tests.oracle.oracle import Oracle
from tests.stateful.drawing import CURRENCY, Drawing, RandomDrawing
from tests.stateful.driver import agree, tell
from tests.stateful.grpc_driver import Bulk, GrpcDriver
from tests.stateful.machine import compare_everything, compare_money, run_stories
from tests.stateful.stories import check_story

B = TypeVar("B", bound=Bulk)

ANY_BULK: tuple[type[Bulk], ...] = (Order, Refund, Complete, Order, Refund, Upgrade, Touch, Enroll)

# A step is a round trip to a database: time says nothing, and what a story needs is not rare but slow.
ANY_PACE = settings(deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)


@pytest.fixture(scope="session")
def open_books(channel: grpc.Channel, fresh_program_id: Callable[[], str]) -> Callable[[], GrpcDriver]:
    """Opens the books of a program of its own."""
    return lambda: GrpcDriver(channel, fresh_program_id(), CURRENCY)


def test_any_story_gives_the_oracles_answers_and_balances(open_books: Callable[[], GrpcDriver]) -> None:
    """Facts of every kind, in any order, repeated, reused, refused: each answer and all money are the oracle's after each of them."""
    run_stories(open_books, settings(ANY_PACE, max_examples=40, stateful_step_count=20))


@pytest.mark.long
def test_many_long_stories_give_the_oracles_answers_and_balances(open_books: Callable[[], GrpcDriver]) -> None:
    """The same for many and longer stories."""
    run_stories(open_books, settings(ANY_PACE, max_examples=300, stateful_step_count=50))


@pytest.mark.parametrize("randomness", range(51))
def test_a_random_story_gives_the_oracles_answers_and_balances(open_books: Callable[[], GrpcDriver], randomness: int) -> None:
    """The same from a plain generator, which reaches more in the same time."""
    check_story(open_books, randomness, length=40)


@pytest.mark.long
@pytest.mark.parametrize("block", range(1000, 1300, 30))
def test_many_random_stories_give_the_oracles_answers_and_balances(open_books: Callable[[], GrpcDriver], block: int) -> None:
    """The same for many and longer stories."""
    for randomness in range(block, block + 30):
        check_story(open_books, randomness, length=80)


@settings(ANY_PACE, max_examples=50)
@given(data=st.data())
def test_a_batch_is_its_facts_one_by_one(open_books: Callable[[], GrpcDriver], data: st.DataObject) -> None:
    """RecordFacts, RecordOrders, FollowUpOrders and the streams answer each fact for itself, refused and repeated ones among them."""
    tell_in_batches(open_books(), data, batches=4, size=8)


@pytest.mark.long
@settings(ANY_PACE, max_examples=300)
@given(data=st.data())
def test_many_big_batches_are_their_facts_one_by_one(open_books: Callable[[], GrpcDriver], data: st.DataObject) -> None:
    """The same for many and bigger batches."""
    tell_in_batches(open_books(), data, batches=8, size=25)


@pytest.mark.parametrize("randomness", range(12))
def test_facts_told_at_once_count_in_some_order(open_books: Callable[[], GrpcDriver], randomness: int) -> None:
    """Callers that race (for one balance, one binding, one id) get the answers of the order in which the log took them."""
    tell_at_once(open_books(), Random(randomness), rounds=3)


@pytest.mark.long
@pytest.mark.parametrize("block", range(100, 200, 10))
def test_many_facts_told_at_once_count_in_some_order(open_books: Callable[[], GrpcDriver], block: int) -> None:
    """The same for many and longer races."""
    for randomness in range(block, block + 10):
        tell_at_once(open_books(), Random(randomness), rounds=6)


def tell_at_once(books: GrpcDriver, generator: Random, *, rounds: int) -> None:
    """Trades a little, then tells a dozen facts from as many threads, and looks for an order in which the oracle answers the same."""
    oracle = Oracle(CURRENCY)
    draw = RandomDrawing(generator, oracle)
    for fact in draw.opening():
        compare([fact], [tell(oracle, fact)], [tell(books, fact)])
    for _ in range(rounds):
        for _ in range(6):
            fact = draw.trade()
            compare([fact], [tell(oracle, fact)], [tell(books, fact)])
        facts = draw.at_once(12)
        with ThreadPoolExecutor(len(facts)) as callers:
            answers = list(callers.map(lambda fact: tell(books, fact), facts))
        told = list(zip(facts, answers, strict=True))
        moments = [oracle.fork()]
        for fact, answer in sorted(told, key=lambda one: one[1].position):
            if answer.kind == "accepted":
                compare([fact], [tell(oracle, fact)], [answer])
                moments.append(oracle.fork())
        for fact, answer in told:
            possible = [answer] if answer.kind == "accepted" else [tell(moment.fork(), fact) for moment in moments]
            assert any(agree(fact, one, answer) for one in possible), f"{fact}: got {answer}, expected one of {possible}"
        compare_money(books, oracle)
    compare_everything(books, oracle)


def tell_in_batches(books: GrpcDriver, data: st.DataObject, *, batches: int, size: int) -> None:
    """Opens a shop, then sends orders and what follows them in batches, and compares every answer and at the end everything."""
    oracle = Oracle(CURRENCY)
    draw = Drawing(data.draw, oracle)
    for fact in draw.opening():
        compare([fact], [tell(oracle, fact)], [tell(books, fact)])
    told: list[Bulk] = []
    for _ in range(batches):
        match draw.one_of(("facts", "stream_facts", "orders", "stream_orders", "follow_ups", "release")):
            case "facts":
                facts, expected = tell_oracle(draw, told, size, ANY_BULK)
                compare(facts, expected, books.facts(facts))
            case "stream_facts":
                facts, expected = tell_oracle(draw, told, size, ANY_BULK)
                compare(facts, expected, in_two_parts(draw, facts, books.stream_facts))
            case "orders":
                facts, expected = tell_oracle(draw, told, size, (Order,))
                compare(facts, expected, books.orders([fact for fact in facts if isinstance(fact, Order)]))
            case "stream_orders":
                facts, expected = tell_oracle(draw, told, size, (Order,))
                compare(facts, expected, in_two_parts(draw, [fact for fact in facts if isinstance(fact, Order)], books.stream_orders))
            case "follow_ups":
                facts, expected = tell_oracle(draw, told, size, (Refund, Complete))
                compare(facts, expected, books.follow_ups([fact for fact in facts if isinstance(fact, Refund | Complete)]))
            case _:
                release = draw.release_due()
                compare([release], [tell(oracle, release)], [tell(books, release)])
    compare_everything(books, oracle)


def in_two_parts(draw: Drawing, facts: Sequence[B], stream: Callable[[Sequence[Sequence[B]]], list[list[Outcome]]]) -> list[Outcome]:
    """Sends facts as two messages of one stream."""
    cut = draw.number(1, len(facts))
    parts = [part for part in (facts[:cut], facts[cut:]) if part]
    answers = stream(parts)
    assert [len(answer) for answer in answers] == [len(part) for part in parts]
    return [outcome for answer in answers for outcome in answer]


def tell_oracle(draw: Drawing, told: list[Bulk], size: int, kinds: tuple[type[Bulk], ...]) -> tuple[list[Bulk], list[Outcome]]:
    """Draws a batch of these kinds, each fact knowing what the ones before it did, and gives the oracle's answers to them one by one."""
    sensible: dict[type[Bulk], Callable[[], Bulk]] = {
        Order: draw.order,
        Refund: draw.refund,
        Complete: draw.complete,
        Enroll: draw.enroll,
        Touch: draw.touch,
        Upgrade: draw.upgrade,
    }
    facts: list[Bulk] = []
    expected: list[Outcome] = []
    for _ in range(draw.number(1, size)):
        fact: Write = sensible[draw.one_of(kinds)]()
        before = [known for known in told if isinstance(known, kinds)]
        recorded = [known for known in before if known in draw.oracle.log]
        if before and draw.rarely(6):
            fact = draw.one_of(before)
        elif recorded and draw.rarely(8):
            fact = draw.reused(draw.one_of(recorded))
        elif draw.rarely(10):
            fact = draw.one_of([wrong for wrong in draw.malformed_facts() if isinstance(wrong, kinds)])
        assert isinstance(fact, Enroll | Touch | Upgrade | Order | Complete | Refund)
        facts.append(fact)
        told.append(fact)
        expected.append(tell(draw.oracle, fact))
    return facts, expected


def compare(facts: Sequence[Write], expected: Sequence[Outcome], got: Sequence[Outcome]) -> None:
    """Every answer is the oracle's."""
    assert len(got) == len(expected)
    for fact, one, other in zip(facts, expected, got, strict=True):
        if currently_in_test_context():
            note(f"{fact}\n  -> {other}")
        assert agree(fact, one, other), f"{fact}: got {other}, expected {one}"
