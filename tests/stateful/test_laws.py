"""Laws that hold whatever the plan: on the oracle itself, so that it can be trusted, and on the server, through its API alone.

Where a law is about the product, no figure of the oracle is used: only what the server answers, and what its log says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from random import Random

import grpc
import pytest

from tests.oracle.books import OrderBook
from tests.oracle.facts import DAY_NS, Balance, FailGroup, Order, PublishPlan, Refund, RefundLine, Write
from tests.oracle.oracle import Oracle
from tests.oracle.shares import shares_of
from tests.stateful.drawing import CURRENCY, START, RandomDrawing
from tests.stateful.driver import Driver, tell
from tests.stateful.grpc_driver import GrpcDriver


@pytest.fixture(scope="session")
def open_books(channel: grpc.Channel, fresh_program_id: Callable[[], str]) -> Callable[[], GrpcDriver]:
    """Opens the books of a program of its own."""
    return lambda: GrpcDriver(channel, fresh_program_id(), CURRENCY)


def story(randomness: int, length: int) -> tuple[RandomDrawing, list[Write]]:
    """A random story told to an oracle: what was accepted of it, and who goes on drawing."""
    oracle = Oracle(CURRENCY)
    draw = RandomDrawing(Random(randomness), oracle)
    told: list[Write] = []
    opening = draw.opening()
    while len(told) < length:
        fact = opening.pop(0) if opening else draw.anything(told)
        if tell(oracle, fact).kind == "accepted":
            told.append(fact)
    return draw, told


def refunds_of_everything(books: Driver, order_id: str, generator: Random) -> Iterator[Refund]:
    """Refunds of an order in random parts, in a random order of lines, until nothing is left."""
    left = {line_no: [base, quantity] for line_no, (base, quantity) in books.order_state(order_id).lines.items()}
    number = 0
    while any(base or quantity for base, quantity in left.values()):
        line_no = generator.choice([line_no for line_no, what in left.items() if any(what)])
        base, quantity = left[line_no]
        if number < 12:
            base, quantity = generator.choice((base, base // 3, 1, 0)), generator.choice((quantity, 0, quantity // 2))
            base, quantity = min(base, left[line_no][0]), min(quantity, left[line_no][1])
        if base or quantity:
            number += 1
            left[line_no] = [left[line_no][0] - base, left[line_no][1] - quantity]
            yield Refund(f"all-{order_id}-{number}"[:100], order_id, START + 500 * DAY_NS, (RefundLine(line_no, quantity, base),))


def refund_everything(books: Driver, randomness: int) -> None:
    """Refunds all orders in full, in parts, in any order."""
    generator = Random(randomness)
    order_ids = list(dict.fromkeys(stream.removeprefix("order/") for _, stream in books.entries() if stream.startswith("order/")))
    generator.shuffle(order_ids)
    for order_id in order_ids:
        for refund in refunds_of_everything(books, order_id, generator):
            assert tell(books, refund).kind == "accepted", refund


def check_nothing_is_left(books: Driver) -> None:
    """Every share on a line is back at zero, each role's and breakage's; what stays are shares of whole orders that cancel out."""
    owed: Counter[tuple[str, str]] = Counter()
    order_ids = list(dict.fromkeys(stream.removeprefix("order/") for _, stream in books.entries() if stream.startswith("order/")))
    for order_id in order_ids:
        for (line_no, rule_id, who), amount in books.order_state(order_id).entitlements.items():
            assert line_no == 0, f"line {line_no} of {order_id!r} still entitles {who!r} to {amount} by {rule_id}"
            owed[rule_id, who] += amount
    assert not any(owed.values()), f"counted rules still owe: {owed}"


def one_version(told: Sequence[Write]) -> list[Write]:
    """A story with one plan: rules that count over several orders owe nothing at the end only if their terms stay the same."""
    first = next((fact for fact in told if isinstance(fact, PublishPlan)), None)
    return [fact for fact in told if not isinstance(fact, PublishPlan) or fact is first]


# ---------------------------------------------------------------------------------------------------------- the oracle's own laws


@pytest.mark.parametrize("block", range(0, 60, 20))
def test_shares_never_exceed_a_pool_and_add_up_to_it(block: int) -> None:
    """For every rule on every line payees and breakage are never below nothing, and together all that the rule can give."""
    for randomness in range(block, block + 20):
        draw, _ = story(randomness, 30)
        for book in draw.oracle.books.orders.values():
            told = {line.line_no: (line.base_minor, line.quantity) for line in book.order.lines}
            pools: Counter[tuple[int, str]] = Counter()
            for share in shares_of(book.scene, told):
                assert share.amount > 0, f"{book.order}: {share}"
                pools[share.line_no, share.rule.rule_id] += share.amount
            for (line_no, rule_id), pool in pools.items():
                assert pool == pool_by_itself(book, line_no, rule_id), f"{book.order} line {line_no}, {rule_id}"


def pool_by_itself(book: OrderBook, line_no: int, rule_id: str) -> int:
    """The pool of a rule on a line with nobody above the buyer and nobody in a role: all of it is breakage, or the buyer's."""
    rule = next(rule for rule in book.plan.rules if rule.rule_id == rule_id)
    told = {line.line_no: (line.base_minor, line.quantity) for line in book.order.lines}
    alone = replace(book.scene, plan=replace(book.plan, rules=(rule,)), path=book.scene.path[:1])
    if rule.of or line_no == 0 or rule.on == "group_formed":  # these need what others earn, or who they are
        return sum(s.amount for s in shares_of(book.scene, told) if (s.line_no, s.rule.rule_id) == (line_no, rule_id))
    return sum(share.amount for share in shares_of(alone, told) if share.line_no == line_no)


@pytest.mark.parametrize("block", range(0, 60, 20))
def test_the_same_facts_give_the_oracle_the_same_books(block: int) -> None:
    """Books are a function of the log, and sum to zero for every asset."""
    for randomness in range(block, block + 20):
        story(randomness, 40)[0].oracle.check_itself()


def test_the_oracle_owes_nothing_once_everything_is_refunded() -> None:
    """Any split of a full refund, in any order, ends at exactly zero for every role."""
    for randomness in range(40):
        oracle = Oracle(CURRENCY)
        for fact in one_version(story(randomness, 30)[1]):
            tell(oracle, fact)
        refund_everything(oracle, randomness)
        check_nothing_is_left(oracle)


# ------------------------------------------------------------------------------------------------------------ the product's laws


@pytest.mark.parametrize("randomness", range(12))
def test_a_full_refund_in_any_split_and_order_ends_at_zero_for_every_role(open_books: Callable[[], GrpcDriver], randomness: int) -> None:
    """No line entitles anybody any more, and rules over several orders owe nothing."""
    books = open_books()
    for fact in one_version(story(randomness, 25)[1]):
        tell(books, fact)
    refund_everything(books, randomness)
    check_nothing_is_left(books)
    books.check_itself()


@pytest.mark.parametrize("randomness", range(100, 108))
def test_the_same_facts_told_twice_give_the_same_books(open_books: Callable[[], GrpcDriver], randomness: int) -> None:
    """The books are a function of what was told: entries, balances and orders of two programs told the same are the same."""
    told = story(randomness, 40)[1]
    one, other = open_books(), open_books()
    for fact in told:
        first, second = tell(one, fact), tell(other, fact)
        assert first == second, f"{fact}: got {first} and {second}"
    assert one.entries() == other.entries()
    assert one.balances() == other.balances()
    assert one.trial_balance() == other.trial_balance()


@pytest.mark.parametrize("randomness", range(200, 208))
def test_a_version_published_later_changes_nothing_recorded(open_books: Callable[[], GrpcDriver], randomness: int) -> None:
    """Balances and orders are as before, and a refund afterwards takes back what it would have taken back without it."""
    draw, told = story(randomness, 30)
    with_it, without = open_books(), open_books()
    for fact in told:
        tell(with_it, fact)
        tell(without, fact)
    later = [draw.plan(valid=True) for _ in range(2)]
    before = dict(with_it.balances())
    for version in later[:1]:
        tell(with_it, version)
    assert dict(with_it.balances()) == before
    for order in [fact for fact in told if isinstance(fact, Order)]:
        state, expected = with_it.order_state(order.order_id), without.order_state(order.order_id)
        assert state == expected, f"got {state}, expected {expected}"
    if not any(isinstance(fact, FailGroup) for fact in told):
        refund_everything(with_it, randomness)
        refund_everything(without, randomness)
        got, expected_balances = with_it.balances(), without.balances()
        for member_id in {*got, *expected_balances}:
            assert got.get(member_id, Balance()) == expected_balances.get(member_id, Balance()), f"balance of {member_id!r}"
