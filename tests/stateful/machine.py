"""Random histories told to some books and to the oracle at once: every answer and all the money must be the same, after every step.

`run_stories(open_books, …)` runs the Hypothesis state machine; what it draws is in drawing.py, what it compares with in tests/oracle.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import cast

from hypothesis import note, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from tests.oracle.facts import DAY_NS, Balance, Complete, Outcome, PlaceHold, ReleaseDue, RequestPayout, Write
from tests.oracle.oracle import Oracle
from tests.stateful.drawing import CURRENCY, START, Drawing
from tests.stateful.driver import Driver, agree, tell


def compare_money(books: Driver, oracle: Oracle) -> None:
    """All balances and the trial balance of every asset are the oracle's; it sums to zero, and every member's identity holds."""
    for asset in oracle.assets():
        balances = books.balances(asset)
        expected = oracle.balances(asset)
        assert set(balances) <= set(expected), "a balance of somebody who is not a member"
        for member_id, balance in expected.items():
            got = balances.get(member_id, Balance())
            assert got == balance, f"balance of {member_id!r} in {asset}: got {got}, expected {balance}"
            assert got.accrued - got.reversed + got.adjusted == got.pending + got.available + got.reserved + got.paid - got.debt
        trial, expected_trial = books.trial_balance(asset), oracle.trial_balance(asset)
        assert trial == expected_trial, f"trial balance in {asset}: got {trial}, expected {expected_trial}"
        assert sum(trial.values()) == 0


def compare_member(books: Driver, oracle: Oracle, member_id: str) -> None:
    """A member's tier, binding and upline are the oracle's."""
    member, expected = books.member(member_id), oracle.member(member_id)
    assert member == expected, f"member: got {member}, expected {expected}"
    above, expected_above = books.upline(member_id), oracle.upline(member_id)
    assert above == expected_above, f"upline of {member_id!r}: got {above}, expected {expected_above}"


def compare_order(books: Driver, oracle: Oracle, order_id: str) -> None:
    """What remains of an order, and what that entitles to, is the oracle's; the people on it are the lowest of the oracle's path."""
    state, expected = books.order_state(order_id), oracle.order_state(order_id)
    assert state.people, f"order {order_id!r} knows nobody"
    lowest = replace(expected, people=expected.people[: len(state.people)])
    assert state == lowest, f"order {order_id!r}: got {state}, expected {lowest}"


def compare_everything(books: Driver, oracle: Oracle) -> None:
    """Money, the log, every member, order, group and period; and the books agree with themselves."""
    compare_money(books, oracle)
    entries, expected_entries = books.entries(), oracle.entries()
    assert entries == expected_entries, f"log: got {entries}, expected {expected_entries}"
    books.check_itself()
    oracle.check_itself()
    for member_id in oracle.members():
        compare_member(books, oracle, member_id)
        balance = books.balance(member_id)
        assert balance == oracle.balance(member_id), f"balance of {member_id!r}: got {balance}, expected {oracle.balance(member_id)}"
    for order_id in oracle.order_ids():
        compare_order(books, oracle, order_id)
    for group_id in oracle.group_ids():
        group, expected_group = books.group_state(group_id), oracle.group_state(group_id)
        assert group == expected_group, f"group {group_id!r}: got {group}, expected {expected_group}"
    for period_id in oracle.period_ids():
        period, expected_period = books.period_state(period_id), oracle.period_state(period_id)
        assert period == expected_period, f"period {period_id!r}: got {period}, expected {expected_period}"


class BooksMachine(RuleBasedStateMachine):
    """Tells both the same story."""

    def __init__(self, books: Driver) -> None:
        super().__init__()
        self.books = books
        self.oracle = Oracle(CURRENCY)
        self.told: list[Write] = []
        self.agreed = True

    def tell(self, fact: Write) -> Outcome:
        """Tells a fact to both and compares the answers."""
        self.agreed = False
        expected = tell(self.oracle, fact)
        got = tell(self.books, fact)
        note(f"{fact}\n  -> {got}")
        assert agree(fact, expected, got), f"{fact}: got {got}, expected {expected}"
        self.told.append(fact)
        self.agreed = True
        return expected

    # -------------------------------------------------------------------------------------------------------------------- rules

    @initialize(data=st.data())
    def open_shop(self, data: st.DataObject) -> None:
        """A few members in some tree, and mostly a plan."""
        for fact in Drawing(data.draw, self.oracle).opening():
            self.tell(fact)

    @rule(data=st.data())
    def publish_plan(self, data: st.DataObject) -> None:
        """Another version."""
        self.tell(Drawing(data.draw, self.oracle).publish_plan())

    @rule(data=st.data())
    def enroll(self, data: st.DataObject) -> None:
        """Another member."""
        self.tell(Drawing(data.draw, self.oracle).enroll())

    @rule(data=st.data())
    def touch(self, data: st.DataObject) -> None:
        """A touch."""
        self.tell(Drawing(data.draw, self.oracle).touch())

    @rule(data=st.data())
    def upgrade(self, data: st.DataObject) -> None:
        """An upgrade."""
        self.tell(Drawing(data.draw, self.oracle).upgrade())

    @rule(data=st.data())
    def correct(self, data: st.DataObject) -> None:
        """A correction of a binding."""
        self.tell(Drawing(data.draw, self.oracle).correct())

    @rule(data=st.data())
    def order(self, data: st.DataObject) -> None:
        """A paid order."""
        self.tell(Drawing(data.draw, self.oracle).order())

    @rule(data=st.data())
    def sell_and_release(self, data: st.DataObject) -> None:
        """An order all the way to available money."""
        order = Drawing(data.draw, self.oracle).order()
        self.tell(order)
        self.tell(Complete(order.order_id, order.paid_at))
        self.tell(ReleaseDue(START + 400 * DAY_NS))

    @rule(data=st.data())
    def day_of_trade(self, data: st.DataObject) -> None:
        """Several things that move money, one after another."""
        draw = Drawing(data.draw, self.oracle)
        for _ in range(draw.number(3, 8)):
            self.tell(draw.trade())

    @rule(data=st.data())
    def day_of_sales(self, data: st.DataObject) -> None:
        """Several orders, paid and completed, so that a release has more to do than it may."""
        draw = Drawing(data.draw, self.oracle)
        for _ in range(draw.number(2, 4)):
            order = draw.order()
            if self.tell(order).kind == "accepted" and draw.mostly(5):
                self.tell(Complete(order.order_id, order.paid_at))
        self.tell(draw.release_due())

    @rule(data=st.data())
    def complete(self, data: st.DataObject) -> None:
        """A completion."""
        self.tell(Drawing(data.draw, self.oracle).complete())

    @precondition(lambda self: self.oracle.order_ids())
    @rule(data=st.data())
    def refund(self, data: st.DataObject) -> None:
        """A refund of some order."""
        self.tell(Drawing(data.draw, self.oracle).refund())

    @precondition(lambda self: self.oracle.order_ids())
    @rule(data=st.data())
    def refund_in_parts(self, data: st.DataObject) -> None:
        """Several refunds of one order, one after another."""
        draw = Drawing(data.draw, self.oracle)
        order = draw.some_order()
        for _ in range(draw.number(1, 3)):
            self.tell(draw.refund(order))

    @rule(data=st.data())
    def release_due(self, data: st.DataObject) -> None:
        """A release."""
        self.tell(Drawing(data.draw, self.oracle).release_due())

    @rule(data=st.data())
    def place_hold(self, data: st.DataObject) -> None:
        """A hold."""
        self.tell(Drawing(data.draw, self.oracle).place_hold())

    @precondition(lambda self: any(isinstance(fact, PlaceHold) for fact in self.oracle.log))
    @rule(data=st.data())
    def lift_hold(self, data: st.DataObject) -> None:
        """The end of a hold."""
        self.tell(Drawing(data.draw, self.oracle).lift_hold())

    @rule(data=st.data())
    def request_payout(self, data: st.DataObject) -> None:
        """A payout requested, with something credited before if nobody has anything."""
        draw = Drawing(data.draw, self.oracle)
        if not any(balance.available for balance in self.oracle.balances().values()):
            self.tell(draw.credit())
        self.tell(draw.request_payout())

    @precondition(lambda self: any(isinstance(fact, RequestPayout) for fact in self.oracle.log))
    @rule(data=st.data())
    def close_payout(self, data: st.DataObject) -> None:
        """A payout paid or failed, and perhaps once more."""
        draw = Drawing(data.draw, self.oracle)
        for _ in range(draw.number(1, 3)):
            self.tell(draw.close_payout())

    @rule(data=st.data())
    def group_buy(self, data: st.DataObject) -> None:
        """A group opened, a few orders that may join, and it is formed or fails."""
        draw = Drawing(data.draw, self.oracle)
        self.tell(draw.open_group())
        for _ in range(draw.number(0, 3)):
            self.tell(draw.order())
        self.tell(draw.close_group())

    @rule(data=st.data())
    def task(self, data: st.DataObject) -> None:
        """A task done."""
        self.tell(Drawing(data.draw, self.oracle).record_task())

    @rule(data=st.data())
    def close_period(self, data: st.DataObject) -> None:
        """A period closed, and perhaps a refund after it."""
        draw = Drawing(data.draw, self.oracle)
        self.tell(draw.close_period())
        if draw.rarely(2):
            self.tell(draw.refund())

    @rule(data=st.data())
    def seal_books(self, data: st.DataObject) -> None:
        """The books sealed, and perhaps a fact of the sealed time after it."""
        draw = Drawing(data.draw, self.oracle)
        self.tell(draw.seal_books())
        if draw.rarely(2):
            self.tell(draw.order())

    @rule(data=st.data())
    def roles(self, data: st.DataObject) -> None:
        """A role granted, or ended."""
        draw = Drawing(data.draw, self.oracle)
        self.tell(draw.grant_role() if draw.mostly(3) else draw.end_role())

    @rule(data=st.data())
    def other_accounts(self, data: st.DataObject) -> None:
        """A deposit, stock sold on, or a balance carried over."""
        draw = Drawing(data.draw, self.oracle)
        kinds: list[Callable[[], Write]] = [draw.move_deposit, draw.transfer_stock, draw.open_balance]
        self.tell(draw.one_of(kinds)())

    @rule(data=st.data())
    def adjust(self, data: st.DataObject) -> None:
        """An adjustment."""
        self.tell(Drawing(data.draw, self.oracle).adjust())

    @precondition(lambda self: self.told)
    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        """Things told before, accepted or refused then, word for word."""
        draw = Drawing(data.draw, self.oracle)
        for _ in range(draw.number(1, 4)):
            self.tell(draw.any_kind(self.recorded() if draw.mostly() else self.told))

    @rule(data=st.data())
    def reuse(self, data: st.DataObject) -> None:
        """Ids of things recorded, with other content."""
        draw = Drawing(data.draw, self.oracle)
        for _ in range(draw.number(1, 4)):
            self.tell(draw.reused(draw.any_kind(self.recorded())))

    def recorded(self) -> list[Write]:
        """What was told and stands in the log."""
        return [fact for fact in self.told if fact in self.oracle.log]

    @rule(data=st.data())
    def malformed(self, data: st.DataObject) -> None:
        """Things the contract does not allow."""
        draw = Drawing(data.draw, self.oracle)
        for _ in range(draw.number(1, 3)):
            self.tell(draw.malformed())

    @rule(data=st.data())
    def look_back(self, data: st.DataObject) -> None:
        """The books as they were right after an earlier entry."""
        draw = Drawing(data.draw, self.oracle)
        position = draw.number(1, self.oracle.position())
        for member_id in self.oracle.members():
            self.agreed = False
            got, expected = (books.balance(member_id, position) for books in (self.books, self.oracle))
            assert got == expected, f"balance of {member_id!r} at {position}: got {got}, expected {expected}"
            self.agreed = True
        for asset in self.oracle.assets():
            self.agreed = False
            trial, expected_trial = (books.trial_balance(asset, position) for books in (self.books, self.oracle))
            assert trial == expected_trial, f"trial balance in {asset} at {position}: got {trial}, expected {expected_trial}"
            self.agreed = True

    @rule(data=st.data())
    def look_closely(self, data: st.DataObject) -> None:
        """One member and one order in full."""
        draw = Drawing(data.draw, self.oracle)
        self.agreed = False
        for member_id in self.oracle.members()[-1:]:
            compare_member(self.books, self.oracle, member_id)
        if self.oracle.order_ids():
            compare_order(self.books, self.oracle, draw.one_of(self.oracle.order_ids()))
        self.agreed = True

    # ------------------------------------------------------------------------------------------------------- after every step

    @invariant()
    def the_money_is_the_same(self) -> None:
        """After every step, accepted or refused."""
        self.agreed, was = False, self.agreed
        compare_money(self.books, self.oracle)
        self.agreed = was

    def teardown(self) -> None:
        """At the end of a story in which nothing differed so far: everything."""
        if self.agreed:
            compare_everything(self.books, self.oracle)


def run_stories(open_books: Callable[[], Driver], how: settings, *, randomness: int | None = None) -> None:
    """Runs the machine, with newly opened books for every example. `randomness` makes it draw the same stories every time."""

    def machine() -> BooksMachine:
        return BooksMachine(open_books())

    seeded = machine if randomness is None else seed(randomness)(machine)
    # Hypothesis takes any callable that gives a machine; its annotation only knows of classes.
    run_state_machine_as_test(cast(type[BooksMachine], seeded), settings=how)
