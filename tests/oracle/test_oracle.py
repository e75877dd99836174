"""The oracle against figures worked out by hand: the worked cases, and the rules of the lifetime lock."""

from __future__ import annotations

from fractions import Fraction

import pytest

from tests.oracle.facts import (
    ADJUST_CORRECTION,
    ADJUST_WRITE_OFF,
    DAY_NS,
    EVIDENCE_PAID_ORDER,
    KIND_FEE,
    NS_PER_S,
    Adjust,
    Balance,
    Complete,
    ConfirmPayout,
    Correct,
    Enroll,
    FailPayout,
    LiftHold,
    Line,
    Lock,
    Order,
    Outcome,
    PlaceHold,
    PublishPlan,
    Refund,
    RefundLine,
    ReleaseDue,
    RequestPayout,
    Touch,
    Upgrade,
)
from tests.oracle.oracle import Oracle
from tests.oracle.shares import half_up

JAN_1 = 1_767_225_600 * NS_PER_S  # 2026-01-01T00:00:00Z
US = 1000  # the least that two times differ by

TWO_LEVEL = """
plan: two-level
version: 1
currency: CNY
tiers: [member, manager, director]
rules:
  - {id: first, kind: generation, generation: 1, rate: 10%}
  - {id: second, kind: generation, generation: 2, rate: 5%}
"""


def books(document: str = TWO_LEVEL, *, chain: str = "") -> Oracle:
    """Open books with one plan and a chain of members: "A B C" means A brought B, and B brought C."""
    oracle = Oracle("CNY")
    accepted(oracle.publish_plan(PublishPlan(document, JAN_1)))
    above = ""
    for member_id in chain.split():
        accepted(oracle.enroll(Enroll(member_id, above, JAN_1)))
        above = member_id
    return oracle


def accepted(outcome: Outcome) -> Outcome:
    """Fails when something that a test builds on was refused."""
    assert outcome.kind == "accepted", outcome
    return outcome


def lock_all(oracle: Oracle, tier: str = "member") -> None:
    """Locks everybody to the one who brought them."""
    for member_id in oracle.members():
        accepted(oracle.upgrade(Upgrade(f"seat-{member_id}", member_id, tier, JAN_1)))


def paid(oracle: Oracle, order_id: str, buyer: str, *bases: int, at: int = JAN_1) -> Outcome:
    """A paid order with one unit on each line."""
    lines = tuple(Line(number, base) for number, base in enumerate(bases, start=1))
    return oracle.order(Order(order_id, buyer, at, "CNY", lines))


def refunded(oracle: Oracle, refund_id: str, order_id: str, line_no: int, base: int, quantity: int = 0, at: int = JAN_1) -> Outcome:
    """A refund on one line."""
    return oracle.refund(Refund(refund_id, order_id, at, (RefundLine(line_no, quantity, base),)))


def released(oracle: Oracle, order_id: str) -> None:
    """Completes an order and releases it."""
    accepted(oracle.complete(Complete(order_id, JAN_1)))
    accepted(oracle.release_due(ReleaseDue(JAN_1)))


def test_two_levels_with_partial_refunds_and_debt() -> None:
    """A payee refunded after payout owes it, the other keeps the rest, and later earnings clear the debt first."""
    oracle = books(chain="A B C")
    lock_all(oracle)
    order = accepted(paid(oracle, "O1", "C", 17903, 8996))
    assert order.detail["earnings"] == {"B": 2690, "A": 1345}
    released(oracle, "O1")
    accepted(oracle.request_payout(RequestPayout("P1", "B", 2690, "CNY", JAN_1)))
    accepted(oracle.confirm_payout(ConfirmPayout("P1", JAN_1)))
    taken = [accepted(refunded(oracle, f"R{n}", "O1", 2, base)).detail["reversed"] for n, base in enumerate((2999, 2999, 2998))]
    assert taken == [{"B": 300, "A": 150}] * 3
    assert oracle.balance("B") == Balance(paid=2690, debt=900, accrued=2690, reversed=900)
    assert oracle.balance("A") == Balance(available=895, accrued=1345, reversed=450)
    accepted(paid(oracle, "O2", "C", 12000))
    released(oracle, "O2")
    assert oracle.balance("B") == Balance(available=300, paid=2690, accrued=3890, reversed=900)


def test_refunds_do_not_fall_into_the_rounding_trap() -> None:
    """Worked case: 10% of 33.35 is 3.34, and three refunds take back 1.12, 1.11 and 1.11, not thrice 1.11."""
    oracle = books(chain="A B")
    assert accepted(paid(oracle, "O1", "B", 3335)).detail["earnings"] == {"A": 334}
    taken = [accepted(refunded(oracle, f"R{n}", "O1", 1, base)).detail["reversed"] for n, base in enumerate((1112, 1112, 1111))]
    assert taken == [{"A": 112}, {"A": 111}, {"A": 111}]
    assert oracle.balance("A") == Balance(accrued=334, reversed=334)


AGENTS = """
plan: agents
version: 1
currency: CNY
tiers: [r1, r2, r4]
rules:
  - {id: sale, kind: generation, generation: 1, rate: 20%}
  - {id: market, kind: generation, generation: 1, rate: 5%}
  - {id: market-above, kind: generation, generation: 2, rate: 5%}
  - {id: peer-r4, kind: generation, generation: 3, rates: {r4: 5%}}
  - {id: peer-r2, kind: generation, generation: 4, rates: {r2: 2.5%}}
  - {id: region, kind: generation, generation: 5, rate: 2%}
"""


def agents(peer_tier: str) -> Oracle:
    """Q, R2, R4, P, S, each brought by the one before, and a buyer."""
    oracle = books(AGENTS, chain="Q R2 R4 P S buyer")
    for member_id, tier in (("Q", "r1"), ("R2", peer_tier), ("R4", "r4"), ("P", "r1"), ("S", "r1")):
        accepted(oracle.upgrade(Upgrade(f"seat-{member_id}", member_id, tier, JAN_1)))
    return oracle


def test_agents_with_peers_end_at_zero_after_a_full_refund_in_parts() -> None:
    """Six independent rates on one line, and three refunds that leave every payee at nothing."""
    oracle = agents("r2")
    order = accepted(paid(oracle, "O1", "buyer", 299900))
    assert order.detail["earnings"] == {"S": 59980 + 14995, "P": 14995, "R4": 14995, "R2": 7498, "Q": 5998}
    assert order.detail["breakage"] == 0
    sums = []
    for number, base in enumerate((100000, 33333, 166567)):
        before = sum(balance.pending for balance in oracle.balances().values())
        accepted(refunded(oracle, f"R{number}", "O1", 1, base))
        sums.append(before - sum(balance.pending for balance in oracle.balances().values()))
    assert sums == [39500, 13169, 65792]
    assert all(balance.pending == 0 and balance.accrued == balance.reversed for balance in oracle.balances().values())


def test_a_seat_without_the_rank_is_breakage() -> None:
    """Worked case: without a rank-2 peer the 74.98 stay with the platform, and those above are paid as before."""
    oracle = agents("r1")
    order = accepted(paid(oracle, "O1", "buyer", 299900))
    assert order.detail["breakage"] == 7498
    assert oracle.balance("R2") == Balance()
    assert oracle.balance("Q").pending == 5998
    assert (oracle.company().commission, oracle.company().breakage) == (-118461, 7498)


@pytest.mark.parametrize(("exact", "minor"), [("0.5", 1), ("1.5", 2), ("2.5", 3), ("2.4999999", 2), ("0", 0), ("-0.5", -1), ("-2.5", -3)])
def test_the_half_is_rounded_away_from_zero(exact: str, minor: int) -> None:
    """HALF_UP of docs/accounts.md, on both sides of zero."""
    assert half_up(Fraction(exact)) == minor


# ------------------------------------------------------------------------------------------------------------ the lifetime lock


def test_the_lock_falls_to_the_last_touch_before_the_first_order() -> None:
    """The last touch wins, the order that locks is paid along it already, and no later touch moves it."""
    oracle = books(chain="A B")
    for member_id in ("X", "C"):
        accepted(oracle.enroll(Enroll(member_id, "A" if member_id == "C" else "", JAN_1)))
    touch = accepted(oracle.touch(Touch("T1", "C", "B", JAN_1)))
    assert touch.detail == {"counts": True}
    order = accepted(paid(oracle, "O1", "C", 1000))
    assert order.detail["binding_locked"] == Lock("C", "B", touch.position)
    assert order.detail["earnings"] == {"B": 100}
    assert accepted(oracle.touch(Touch("T2", "C", "X", JAN_1))).detail == {"counts": False}
    assert oracle.upline("C") == ["B"]


def test_a_plan_may_keep_the_first_touch() -> None:
    """Under `touch: first` a later touch is history only; without a candidate it counts."""
    oracle = books(TWO_LEVEL + "binding: {touch: first}\n", chain="A B")
    accepted(oracle.enroll(Enroll("C", "", JAN_1)))
    assert accepted(oracle.touch(Touch("T1", "C", "A", JAN_1))).detail == {"counts": True}
    assert accepted(oracle.touch(Touch("T2", "C", "B", JAN_1))).detail == {"counts": False}
    assert oracle.member("C").referrer_id == "A"


def test_a_member_brought_by_nobody_is_locked_to_nobody_for_good() -> None:
    """The first upgrade locks too, and a touch after it never counts."""
    oracle = books(chain="A B")
    assert accepted(oracle.upgrade(Upgrade("U1", "A", "manager", JAN_1))).detail["binding_locked"] == Lock("A", "", 0)
    accepted(oracle.enroll(Enroll("X", "", JAN_1)))
    assert accepted(oracle.touch(Touch("T1", "A", "X", JAN_1))).detail == {"counts": False}
    assert (oracle.member("A").locked, oracle.member("A").referrer_id) == (True, "")


def test_an_open_member_has_nobody_above() -> None:
    """docs/plan-format.md: a touch pays nobody; the path above an open member ends with them."""
    oracle = books(chain="A B C")
    assert accepted(paid(oracle, "O1", "C", 1000)).detail["earnings"] == {"B": 100}
    assert oracle.upline("C") == ["B"]
    accepted(paid(oracle, "O2", "B", 1000))
    assert oracle.upline("C") == ["B", "A"]
    assert oracle.balance("A").pending == 100


@pytest.mark.parametrize("member_id", ["A", "B", "C"])
def test_nobody_is_brought_by_themselves_or_their_own_downline(member_id: str) -> None:
    """Oneself, and a cycle of any length through open and locked edges alike, are refused."""
    oracle = books(chain="A B C D")
    assert oracle.touch(Touch("T0", member_id, member_id, JAN_1)).reason == "SELF_BINDING"
    accepted(oracle.upgrade(Upgrade("U1", "C", "manager", JAN_1)))
    expected = "" if member_id == "C" else "BINDING_CYCLE"
    assert oracle.touch(Touch("T1", member_id, "D", JAN_1)).reason == expected
    lock_all(oracle)
    assert oracle.correct(Correct("K1", member_id, "D", JAN_1)).reason == "BINDING_CYCLE"


def test_a_correction_counts_for_later_orders_only() -> None:
    """An earlier order and its later refund stay with the old upline."""
    oracle = books(chain="A B")
    accepted(oracle.enroll(Enroll("X", "", JAN_1)))
    accepted(paid(oracle, "O1", "B", 1000))
    assert accepted(oracle.correct(Correct("K1", "B", "X", JAN_1))).detail == {"previous_referrer_id": "A"}
    accepted(paid(oracle, "O2", "B", 1000))
    accepted(refunded(oracle, "R1", "O1", 1, 400))
    assert (oracle.balance("A").pending, oracle.balance("X").pending) == (60, 100)


@pytest.mark.parametrize(
    ("correction", "reason"),
    [
        (Correct("K1", "nobody", "A", JAN_1), "MEMBER_UNKNOWN"),
        (Correct("K1", "B", "nobody", JAN_1), "MEMBER_UNKNOWN"),
        (Correct("K1", "C", "A", JAN_1), "BINDING_NOT_LOCKED"),
        (Correct("K1", "B", "A", JAN_1, requested_by="lin", approved_by="lin"), "APPROVER_IS_REQUESTER"),
        (Correct("K1", "B", "B", JAN_1), "SELF_BINDING"),
        (Correct("K1", "B", "C", JAN_1), "BINDING_CYCLE"),
        (Correct("K1", "B", "", JAN_1), ""),
    ],
)
def test_a_correction_needs_a_locked_binding_and_two_people(correction: Correct, reason: str) -> None:
    """Every way a correction is refused; to nobody is allowed."""
    oracle = books(chain="A B C")
    accepted(paid(oracle, "O1", "B", 1000))
    assert oracle.correct(correction).reason == reason


def test_a_full_refund_of_the_locking_order_releases_the_lock_if_the_plan_says_so() -> None:
    """The member is open again with the former referrer as candidate, and the next order locks anew."""
    oracle = books(TWO_LEVEL + "binding: {on_full_refund: release}\n", chain="A B")
    accepted(paid(oracle, "O1", "B", 1000))
    accepted(refunded(oracle, "R1", "O1", 1, 1000, quantity=0))
    assert oracle.member("B").locked, "a unit is still with the customer"
    accepted(refunded(oracle, "R2", "O1", 1, 0, quantity=1))
    assert (oracle.member("B").locked, oracle.member("B").referrer_id) == (False, "A")
    accepted(oracle.enroll(Enroll("X", "", JAN_1)))
    accepted(oracle.touch(Touch("T1", "B", "X", JAN_1)))
    assert accepted(paid(oracle, "O2", "B", 1000)).detail["earnings"] == {"X": 100}


def test_the_lock_stays_when_another_order_locked_or_a_correction_moved_it() -> None:
    """The lock is released only with the very order that let it fall, and never once it was corrected."""
    oracle = books(TWO_LEVEL + "binding: {on_full_refund: release}\n", chain="A B C")
    accepted(paid(oracle, "O1", "B", 1000))
    accepted(paid(oracle, "O2", "B", 1000))
    accepted(refunded(oracle, "R1", "O2", 1, 1000, quantity=1))
    assert oracle.member("B").locked
    accepted(paid(oracle, "O3", "C", 1000))
    accepted(oracle.correct(Correct("K1", "C", "A", JAN_1)))
    accepted(refunded(oracle, "R1", "O3", 1, 1000, quantity=1))
    assert (oracle.member("C").locked, oracle.member("C").referrer_id) == (True, "A")


def test_the_lock_is_kept_unless_the_plan_says_otherwise() -> None:
    """A full refund of the locking order keeps it."""
    oracle = books(chain="A B")
    accepted(paid(oracle, "O1", "B", 1000))
    accepted(refunded(oracle, "R1", "O1", 1, 1000, quantity=1))
    assert oracle.member("B").locked


# --------------------------------------------------------------------------------------------------------- plans, tiers, lines


def test_tiers_and_upline_are_frozen_with_the_order() -> None:
    """An upgrade between order and refund changes neither."""
    oracle = books(TWO_LEVEL.replace("rate: 10%", "rates: {manager: 10%, director: 20%}"), chain="A B")
    accepted(oracle.upgrade(Upgrade("U1", "A", "manager", JAN_1)))
    detail = accepted(paid(oracle, "O1", "B", 1000)).detail
    assert (detail["earnings"], detail["breakage"], detail["binding_locked"]) == ({"A": 100}, 100 + 50, Lock("B", "A", 4))
    accepted(oracle.upgrade(Upgrade("U2", "A", "director", JAN_1)))
    assert accepted(refunded(oracle, "R1", "O1", 1, 500)).detail["reversed"] == {"A": 50}
    assert accepted(paid(oracle, "O2", "B", 1000)).detail["earnings"] == {"A": 200}


def test_the_newest_published_version_in_force_at_the_time_of_payment_counts() -> None:
    """docs/plan-format.md: from is inclusive, until exclusive, and of two in force the one published last counts."""
    oracle = books('{"effective": {"until": "2026-01-03T00:00:00Z"},' + _json_plan(1, "10%"), chain="A B")
    accepted(oracle.publish_plan(PublishPlan('{"effective": {"from": "2026-01-02T00:00:00Z"},' + _json_plan(2, "20%"), JAN_1 + 9 * DAY_NS)))
    earned = {}
    for day, beside in ((0, -US), (0, 0), (1, -US), (1, 0), (9, 0)):
        at = JAN_1 + day * DAY_NS + beside
        outcome = paid(oracle, f"O{at}", "B", 1000, at=at)
        earned[day, beside] = outcome.reason or outcome.detail["earnings"]
    assert earned == {(0, -US): "NO_PLAN_IN_FORCE", (0, 0): {"A": 100}, (1, -US): {"A": 100}, (1, 0): {"A": 200}, (9, 0): {"A": 200}}


def _json_plan(version: int, rate: str) -> str:
    rule = f'{{"id": "first", "kind": "generation", "generation": 1, "rate": "{rate}"}}'
    return f'"plan": "dated", "version": {version}, "currency": "CNY", "tiers": ["member"], "rules": [{rule}]}}'


@pytest.mark.parametrize(
    ("line", "earns"),
    [
        (Line(1, 1000, sku="A1", category="tea"), True),
        (Line(1, 1000, sku="A3", category="tea"), False),
        (Line(1, 1000, sku="A1", category="coffee"), False),
        (Line(1, 1000, sku="A1", category="tea", kind=KIND_FEE), False),
        (Line(1, 1000, sku="A1", category="tea", kind=0), True),
    ],
)
def test_a_rule_earns_on_lines_that_match_all_its_conditions(line: Line, earns: bool) -> None:
    """docs/plan-format.md: what does not match is no breakage either; a kind left out is goods; fees earn only when named."""
    when = "when: {skus: [A1, A2], categories: [tea]}"
    oracle = books(
        f"plan: p\nversion: 1\ncurrency: CNY\ntiers: [member]\nrules:\n  - {{id: own, kind: self, rate: 1%, {when}}}\n", chain="A"
    )
    detail = accepted(oracle.order(Order("O1", "A", JAN_1, "CNY", (line,)))).detail
    assert (detail["earnings"], detail["breakage"]) == ({"A": 10} if earns else {}, 0)


@pytest.mark.parametrize(
    "document",
    [
        TWO_LEVEL.replace("currency:", "curency:"),
        TWO_LEVEL.replace("10%", "0.1"),
        TWO_LEVEL.replace("10%", "101%"),
        TWO_LEVEL.replace("10%", "1.0000000001%"),
        TWO_LEVEL.replace("rate: 10%", "rate: 10%, rates: {member: 1%}"),
        TWO_LEVEL.replace(", rate: 10%", ""),
        TWO_LEVEL.replace("rate: 10%", "rates: {captain: 1%}"),
        TWO_LEVEL.replace("id: second", "id: first"),
        TWO_LEVEL.replace("version: 1", "version: 0"),
        TWO_LEVEL + "release: {days: -1}\n",
        TWO_LEVEL + "binding: {touch: middle}\n",
        "rules: [",
        "[]",
    ],
)
def test_a_document_that_breaks_the_format_is_refused(document: str) -> None:
    """docs/plan-format.md: keys not known, rates that are not percentages, names that lead nowhere."""
    assert Oracle("CNY").publish_plan(PublishPlan(document, JAN_1)).reason == "PLAN_INVALID"


def test_versions_are_published_in_order_and_count_once() -> None:
    """docs/plan-format.md: 1, 2, 3 without gaps; formatting is no content, the time of publishing is."""
    oracle = books()
    assert oracle.publish_plan(PublishPlan("# again\n" + TWO_LEVEL, JAN_1)).kind == "repeated"
    assert oracle.publish_plan(PublishPlan(TWO_LEVEL, JAN_1 + US)).reason == "ID_REUSED"
    assert oracle.publish_plan(PublishPlan(TWO_LEVEL.replace("version: 1", "version: 3"), JAN_1)).reason == "PLAN_VERSION_OUT_OF_ORDER"
    assert oracle.publish_plan(PublishPlan(TWO_LEVEL.replace("version: 1", "version: 2"), JAN_1)).kind == "accepted"


@pytest.mark.parametrize(
    ("upgrade", "reason"),
    [
        (Upgrade("U1", "nobody", "manager", JAN_1), "MEMBER_UNKNOWN"),
        (Upgrade("U1", "A", "manager", JAN_1 - US), "NO_PLAN_IN_FORCE"),
        (Upgrade("U1", "A", "captain", JAN_1), "TIER_UNKNOWN"),
        (Upgrade("U1", "A", "manager", JAN_1, EVIDENCE_PAID_ORDER, "O9"), "ORDER_UNKNOWN"),
        (Upgrade("U1", "A", "manager", JAN_1, EVIDENCE_PAID_ORDER, ""), ""),
    ],
)
def test_a_tier_needs_a_plan_that_names_it_and_evidence_that_exists(upgrade: Upgrade, reason: str) -> None:
    """Every way an upgrade is refused; paid-order evidence without a number is allowed."""
    assert books(chain="A").upgrade(upgrade).reason == reason


# --------------------------------------------------------------------------------------------------- release, holds, payouts


def test_shares_are_released_in_parts_and_a_refund_takes_each_from_where_it_stands() -> None:
    """docs/accounts.md: rules differ in days, so one payee's pending and released shares of an order are refunded apart."""
    slow = "  - {id: slow, kind: generation, generation: 1, rate: 10%, release: {days: 7}}\n"
    oracle = books(TWO_LEVEL + slow, chain="A B")
    accepted(paid(oracle, "O1", "B", 1000))
    accepted(oracle.complete(Complete("O1", JAN_1)))
    assert accepted(oracle.release_due(ReleaseDue(JAN_1 + 7 * DAY_NS - US))).detail == {"orders_released": 1, "amount": 100, "more": False}
    accepted(refunded(oracle, "R1", "O1", 1, 400))
    assert oracle.balance("A") == Balance(pending=60, available=60, accrued=200, reversed=80)
    assert accepted(oracle.release_due(ReleaseDue(JAN_1 + 7 * DAY_NS))).detail["amount"] == 60
    assert oracle.balance("A") == Balance(available=120, accrued=200, reversed=80)


def test_an_order_completed_after_a_refund_has_only_the_remainder_due() -> None:
    """What was refunded before completion never becomes due."""
    oracle = books(chain="A B")
    accepted(paid(oracle, "O1", "B", 1000))
    accepted(refunded(oracle, "R1", "O1", 1, 250))
    released(oracle, "O1")
    assert oracle.balance("A") == Balance(available=75, accrued=100, reversed=25)


def test_a_hold_stops_one_payee_or_one_order_until_it_is_lifted() -> None:
    """It stops release, never accrual, and the others are released meanwhile."""
    oracle = books(chain="A B C")
    lock_all(oracle)
    accepted(paid(oracle, "O1", "C", 1000))
    accepted(paid(oracle, "O2", "C", 2000))
    accepted(oracle.place_hold(PlaceHold("H1", "B", "", JAN_1)))
    accepted(oracle.place_hold(PlaceHold("H2", "", "O2", JAN_1)))
    released(oracle, "O1")
    released(oracle, "O2")
    assert (oracle.balance("A").available, oracle.balance("B").available) == (50, 0)
    accepted(oracle.lift_hold(LiftHold("H2", JAN_1)))
    accepted(oracle.lift_hold(LiftHold("H1", JAN_1)))
    assert oracle.release_due(ReleaseDue(JAN_1, max_orders=1)).detail == {"orders_released": 1, "amount": 100, "more": True}
    assert oracle.release_due(ReleaseDue(JAN_1, max_orders=1)).detail == {"orders_released": 1, "amount": 300, "more": False}
    assert oracle.lift_hold(LiftHold("H1", JAN_1)).kind == "repeated"


def test_a_failed_payout_settles_debt_first() -> None:
    """docs/accounts.md: what is reserved is not touched by a refund; when it comes back, the debt is paid before the rest is available."""
    oracle = books(chain="A B")
    accepted(paid(oracle, "O1", "B", 1000))
    released(oracle, "O1")
    accepted(oracle.request_payout(RequestPayout("P1", "A", 100, "CNY", JAN_1)))
    accepted(refunded(oracle, "R1", "O1", 1, 300))
    assert oracle.balance("A") == Balance(reserved=100, debt=30, accrued=100, reversed=30)
    accepted(oracle.fail_payout(FailPayout("P1", JAN_1)))
    assert oracle.balance("A") == Balance(available=70, accrued=100, reversed=30)
    assert oracle.confirm_payout(ConfirmPayout("P1", JAN_1)).reason == "PAYOUT_CLOSED"


def test_a_second_payout_of_the_whole_balance_is_refused() -> None:
    """Of two payouts that together exceed what is available one is refused, and the first repeats safely."""
    oracle = books(chain="A")
    accepted(oracle.adjust(Adjust("J1", "A", ADJUST_CORRECTION, 500, "CNY", JAN_1)))
    first = RequestPayout("P1", "A", 500, "CNY", JAN_1)
    accepted(oracle.request_payout(first))
    assert oracle.request_payout(RequestPayout("P2", "A", 1, "CNY", JAN_1)).reason == "PAYOUT_EXCEEDS_AVAILABLE"
    assert oracle.request_payout(first).kind == "repeated"
    assert oracle.request_payout(RequestPayout("P1", "A", 501, "CNY", JAN_1)).reason == "ID_REUSED"


def test_adjustments_move_available_then_debt_and_write_offs_forgive_at_most_it() -> None:
    """Debt is an account; nothing is clamped away, and forgiving it is an entry of its own."""
    oracle = books(chain="A")
    accepted(oracle.adjust(Adjust("J1", "A", ADJUST_CORRECTION, -500, "CNY", JAN_1)))
    assert oracle.balance("A") == Balance(debt=500, adjusted=-500)
    assert oracle.adjust(Adjust("J2", "A", ADJUST_WRITE_OFF, 501, "CNY", JAN_1)).reason == "WRITE_OFF_EXCEEDS_DEBT"
    accepted(oracle.adjust(Adjust("J2", "A", ADJUST_WRITE_OFF, 200, "CNY", JAN_1)))
    accepted(oracle.adjust(Adjust("J3", "A", ADJUST_CORRECTION, 450, "CNY", JAN_1)))
    assert oracle.balance("A") == Balance(available=150, adjusted=150)
    assert (oracle.company().adjustment, oracle.company().write_off) == (50, -200)
