"""The laws are held against the postings and bindings themselves: they find what they forbid whatever an engine might decide."""

from collections.abc import Callable
from typing import Any

import pytest
from fenrun.log.v1 import log_pb2 as pb
from google.protobuf.message import Message

from services.auditor.verifying.laws import Laws
from services.auditor.verifying.report import Bad
from tests.auditor.logs import changed, golden, read

STORY = golden("v2")
Change = Callable[[Any, Any], object]


def checked(log: list[pb.Entry]) -> Laws:
    """Laws that took in a whole log."""

    def stream(name: str, before: int) -> list[pb.Entry]:
        return [entry for entry in log if entry.stream == name and entry.position < before]

    laws = Laws(stream)
    for entry in log:
        laws.add(entry)
    return laws


def forge(kind: str, fact: type[Message], decision: type[Message] | None, change: Change, nth: int = 0) -> list[pb.Entry]:
    """The story, with the fact and the decision of an entry of a type changed."""
    entry = [entry for entry in STORY if entry.type == kind][nth]
    told: Any = fact.FromString(entry.fact)
    decided: Any = decision.FromString(entry.decision) if decision else None
    change(told, decided)

    def put(copy: pb.Entry) -> None:
        copy.fact = told.SerializeToString()
        copy.decision = decided.SerializeToString() if decided is not None else b""

    return [changed(one, put) if one is entry else one for one in STORY]


def bad(log: list[pb.Entry], kind: str, nth: int = 0) -> tuple[str, str]:
    """(check, problem) of the law that an entry of a type breaks."""
    with pytest.raises(Bad) as found:
        checked(log)
    entry = [entry for entry in STORY if entry.type == kind][nth]
    assert found.value.finding.position == entry.position
    return found.value.finding.check, found.value.finding.problem


def test_a_story_that_holds_is_folded_to_balances_that_the_books_have() -> None:
    from services.ledger.domain import books

    state = books.Books()
    for entry in read(STORY):
        books.evolve(state, entry)
    laws = checked(STORY)
    accounts = (pb.ACCOUNT_PENDING, pb.ACCOUNT_AVAILABLE, pb.ACCOUNT_RESERVED, pb.ACCOUNT_PAID, pb.ACCOUNT_DEBT)
    for (member_id, asset), balance in state.balances.items():
        assert tuple(laws.balances.get((member_id, asset, account), 0) for account in accounts) == tuple(balance[:5])
    assert laws.members == len(state.members)


def test_postings_sum_to_zero_in_every_asset() -> None:
    def more(_: Any, decision: Any) -> None:
        decision.postings[0].amount_minor += 1

    log = forge("order.paid.v1", pb.OrderPaid, pb.OrderPaidDecision, more, 1)
    assert bad(log, "order.paid.v1", 1) == ("balances", "the postings in GBP do not sum to zero")


def test_a_posting_moves_no_money_between_assets() -> None:
    def other(_: Any, decision: Any) -> None:
        decision.postings[0].asset = "USD"

    log = forge("order.paid.v1", pb.OrderPaid, pb.OrderPaidDecision, other, 1)
    assert bad(log, "order.paid.v1", 1)[0] == "balances"


def test_accounts_of_a_member_are_never_below_nothing() -> None:
    def too_much(_: Any, decision: Any) -> None:
        for posting, sign in zip(decision.postings, (-1, 1), strict=False):
            posting.amount_minor = sign * 10**9

    log = forge("order.released.v1", pb.OrderReleased, pb.OrderReleasedDecision, too_much)
    check, problem = bad(log, "order.released.v1")
    assert check == "balances"
    assert problem.startswith("pending of ")


@pytest.mark.parametrize(("account", "member_id"), [(pb.ACCOUNT_PENDING, ""), (pb.ACCOUNT_BREAKAGE, "ada"), (pb.ACCOUNT_PENDING, "nobody")])
def test_a_posting_names_who_holds_the_account(account: pb.Account, member_id: str) -> None:
    def to(_: Any, decision: Any) -> None:
        decision.postings[1].account = account
        decision.postings[1].member_id = member_id

    log = forge("order.paid.v1", pb.OrderPaid, pb.OrderPaidDecision, to, 1)
    assert bad(log, "order.paid.v1", 1) == ("balances", "a posting names no such holder")


def test_a_payout_takes_no_more_than_is_available() -> None:
    def greedy(fact: Any, decision: Any) -> None:
        fact.amount_minor += 10**6
        decision.postings[0].amount_minor -= 10**6
        decision.postings[1].amount_minor += 10**6

    log = forge("payout.requested.v1", pb.PayoutRequested, pb.MovementDecision, greedy)
    assert bad(log, "payout.requested.v1")[0] == "payouts"


@pytest.mark.parametrize("kind", ["payout.paid.v1", "payout.failed.v1"])
def test_a_payout_is_closed_with_what_was_reserved(kind: str) -> None:
    def less(_: Any, decision: Any) -> None:
        decision.postings[0].amount_minor += 1
        decision.postings[1].amount_minor -= 1

    assert bad(forge(kind, pb.PayoutPaid, pb.MovementDecision, less), kind)[0] == "payouts"


@pytest.mark.parametrize("field", ["base_minor", "quantity"])
def test_a_refund_takes_back_no_more_than_was_paid(field: str) -> None:
    def much(fact: Any, _: Any) -> None:
        setattr(fact.lines[0], field, 10**9)

    log = forge("order.refunded.v1", pb.OrderRefunded, pb.OrderRefundedDecision, much)
    assert bad(log, "order.refunded.v1")[0] == "refunds"


def test_a_refund_never_adds_to_an_order() -> None:
    def negative(fact: Any, _: Any) -> None:
        fact.lines[0].base_minor = -5

    log = forge("order.refunded.v1", pb.OrderRefunded, pb.OrderRefundedDecision, negative)
    assert bad(log, "order.refunded.v1")[0] == "refunds"


def test_a_lock_that_has_fallen_stays() -> None:
    """An order of somebody who is locked already says that their lock falls, to another."""
    orders = [entry for entry in STORY if entry.type == "order.paid.v1"]
    nth = next(n for n, one in enumerate(orders) if not pb.OrderPaidDecision.FromString(one.decision).HasField("binding_locked"))

    def again(fact: Any, decision: Any) -> None:
        decision.binding_locked.member_id = fact.member_id
        decision.binding_locked.referrer_id = "ada"

    log = forge("order.paid.v1", pb.OrderPaid, pb.OrderPaidDecision, again, nth)
    assert bad(log, "order.paid.v1", nth)[0] == "locks"


def test_the_first_order_lets_the_lock_fall() -> None:
    def open_still(_: Any, decision: Any) -> None:
        decision.ClearField("binding_locked")

    log = forge("order.paid.v1", pb.OrderPaid, pb.OrderPaidDecision, open_still)
    assert bad(log, "order.paid.v1")[0] == "locks"


def test_who_earns_stands_above_the_buyer() -> None:
    nth, entry = next(
        (nth, entry)
        for nth, entry in enumerate(entry for entry in STORY if entry.type == "order.paid.v1")
        if len([person for person in pb.OrderPaidDecision.FromString(entry.decision).people if not person.role]) > 1
    )
    buyer = pb.OrderPaid.FromString(entry.fact).member_id
    other = next(
        pb.MemberEnrolled.FromString(one.fact).member_id
        for one in STORY
        if one.type == "member.enrolled.v1" and pb.MemberEnrolled.FromString(one.fact).member_id not in (buyer, above(entry))
    )

    def elsewhere(_: Any, decision: Any) -> None:
        decision.people[1].member_id = other

    log = forge("order.paid.v1", pb.OrderPaid, pb.OrderPaidDecision, elsewhere, nth)
    assert bad(log, "order.paid.v1", nth) == ("locks", "who earns stands above the buyer by locked bindings")


def above(entry: pb.Entry) -> str:
    return pb.OrderPaidDecision.FromString(entry.decision).people[1].member_id


def test_only_a_correction_by_two_people_moves_a_locked_binding() -> None:
    def alone(fact: Any, _: Any) -> None:
        fact.approved_by = fact.requested_by

    log = forge("member.binding_corrected.v1", pb.BindingCorrected, pb.BindingCorrectedDecision, alone)
    assert bad(log, "member.binding_corrected.v1") == ("locks", "a correction needs a second person")


def test_a_correction_starts_from_the_binding_that_stands() -> None:
    def from_elsewhere(_: Any, decision: Any) -> None:
        decision.previous_referrer_id = "zoe"

    log = forge("member.binding_corrected.v1", pb.BindingCorrected, pb.BindingCorrectedDecision, from_elsewhere)
    assert bad(log, "member.binding_corrected.v1")[0] == "locks"


def test_a_touch_never_moves_a_locked_binding() -> None:
    enrolled = next(
        entry for entry in STORY if entry.type == "member.touched.v1" and not pb.MemberTouchedDecision.FromString(entry.decision).counts
    )

    def counts(copy: pb.Entry) -> None:
        copy.decision = pb.MemberTouchedDecision(counts=True).SerializeToString()

    log = [changed(one, counts) if one is enrolled else one for one in STORY]
    with pytest.raises(Bad) as found:
        checked(log)
    assert (found.value.finding.check, found.value.finding.position) == ("locks", enrolled.position)


def sealed(change: Callable[[Any, Any], object]) -> tuple[str, str, str, str]:
    """(check, problem, expected, found) of a history whose second seal was changed."""
    log = golden("v3")
    at = [index for index, entry in enumerate(log) if entry.type == "books.sealed.v1"][1]
    told, decided = pb.BooksSealed.FromString(log[at].fact), pb.BooksSealedDecision.FromString(log[at].decision)
    change(told, decided)

    def put(copy: pb.Entry) -> None:
        copy.fact, copy.decision = told.SerializeToString(), decided.SerializeToString()

    with pytest.raises(Bad) as caught:
        checked([*log[:at], changed(log[at], put), *log[at + 1 :]])
    finding = caught.value.finding
    assert finding.position == log[at].position
    return finding.check, finding.problem, finding.expected, finding.found


def test_a_seal_says_what_the_log_before_it_comes_to() -> None:
    checked(golden("v3"))

    def richer(_: Any, decided: Any) -> None:
        decided.totals[0].amount_minor += 1

    def shorter(_: Any, decided: Any) -> None:
        del decided.totals[-1]

    def counted(_: Any, decided: Any) -> None:
        decided.entries -= 1

    def further(told: Any, _: Any) -> None:
        told.through.seconds -= 40 * 86_400

    check, problem, expected, found = sealed(richer)
    assert (check, problem.startswith("what was sealed: "), int(found) - int(expected)) == ("balances", True, 1)
    assert sealed(shorter)[3] == "0"
    check, problem, expected, found = sealed(counted)
    assert (problem, int(expected) - int(found)) == ("what was sealed: entries", 1)
    assert sealed(further)[1] == "a seal goes further than the last, to a quarter of an hour"
