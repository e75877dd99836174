"""The ledger's deciders, given / when / then: a history, a command, the decision or the refusal. No database, no clock."""

from dataclasses import replace
from typing import Any

import pytest

from services.kernel.decider import Draft, Entry, NotLoaded, Repeated, altered
from services.kernel.money import Rate
from services.kernel.refusals import Malformed, PlanInvalid, Refusal
from services.kernel.times import DAY_US
from services.ledger import codec
from services.ledger.domain import commands as c
from services.ledger.domain import facts as f
from services.ledger.domain.books import Balance, Books, Evidence, evolve
from services.ledger.domain.decide import decide
from services.ledger.domain.plan import canonical, content_hash, parse

TWO_LEVEL: dict[str, Any] = {
    "plan": "two-level",
    "version": 1,
    "currency": "CNY",
    "tiers": ["member", "manager"],
    "release": {"days": 7},
    "rules": [
        {"id": "first", "kind": "generation", "generation": 1, "rate": "10%"},
        {"id": "second", "kind": "generation", "generation": 2, "rate": "5%"},
    ],
}


def published(document: dict[str, Any]) -> tuple[Any, Any]:
    plan, text = parse(document), canonical(document)
    return f.PlanPublished(plan.plan_id, plan.version, text, plan.effective_from_us or 0, plan.effective_until_us), f.PlanDecision(
        content_hash(text)
    )


class Story:
    """Given: facts told one after another. When: a command. A brought B, B brought C, and nobody is locked before an order."""

    def __init__(self, document: dict[str, Any] | None = None) -> None:
        self.books = Books()
        self.tell("program/p", f.ProgramCreated("CNY"))
        self.tell("plan/two-level", *published(document or TWO_LEVEL))
        for member, referrer in (("A", ""), ("B", "A"), ("C", "B")):
            self.tell(f"member/{member}", f.MemberEnrolled(member, referrer))

    def tell(self, stream: str, fact: Any, decision: Any = None, occurred_us: int = 0) -> Entry:
        version = len(self.books.streams.get(stream, ())) + 1
        position = self.books.position + 1
        entry = Entry(position, stream, version, occurred_us, position, bytes(32), fact, decision)
        evolve(self.books, entry)
        return entry

    def when(self, command: c.Command) -> list[Draft]:
        answer = decide(self.books, command)
        assert isinstance(answer, list)
        return answer

    def given(self, *commands: c.Command) -> "Story":
        for command in commands:
            for draft in self.when(command):
                self.tell(draft.stream, draft.fact, draft.decision, draft.occurred_us)
        return self

    def money(self, member: str) -> dict[str, int]:
        return {name: value for name, value in self.books.balance(member)._asdict().items() if value}


def order(order_id: str = "O1", member: str = "C", *bases: int, day: int = 1, currency: str = "CNY") -> c.RecordOrder:
    lines = tuple(f.OrderLine(number, base, 10, "", "", f.LineKind.GOODS) for number, base in enumerate(bases or (17903, 8996), start=1))
    return c.RecordOrder(f.OrderPaid(order_id, member, currency, lines), day * DAY_US)


def refund(refund_id: str, *lines: tuple[int, int, int], order_id: str = "O1", day: int = 30) -> c.RefundOrder:
    return c.RefundOrder(f.OrderRefunded(refund_id, order_id, tuple(f.RefundLine(*line) for line in lines)), day * DAY_US)


def complete(order_id: str = "O1", day: int = 2) -> c.CompleteOrder:
    return c.CompleteOrder(f.OrderCompleted(order_id), day * DAY_US)


def release(day: int = 20, limit: int = 500) -> c.ReleaseDue:
    return c.ReleaseDue(day * DAY_US, limit)


def payout(payout_id: str, member: str, amount: int, day: int = 21) -> c.RequestPayout:
    return c.RequestPayout(f.PayoutRequested(payout_id, member, amount, "CNY"), day * DAY_US)


def paid(payout_id: str, day: int = 22) -> c.ConfirmPayout:
    return c.ConfirmPayout(f.PayoutPaid(payout_id, ""), day * DAY_US)


def failed(payout_id: str, day: int = 22) -> c.FailPayout:
    return c.FailPayout(f.PayoutFailed(payout_id, "account closed"), day * DAY_US)


def adjustment(amount: int, kind: f.AdjustmentKind = f.AdjustmentKind.CORRECTION, member: str = "B", number: int = 1) -> c.PostAdjustment:
    return c.PostAdjustment(f.AdjustmentPosted(f"J{number}", member, kind, amount, "CNY", "why", "ann", "bob"), 40 * DAY_US)


def postings(drafts: list[Draft]) -> list[tuple[str, str, int]]:
    return [(p.account.name, p.member_id, p.amount_minor) for draft in drafts for p in draft.decision.postings]


# ---------------------------------------------------------------- orders


def test_an_order_pays_two_generations_and_says_so_at_once() -> None:
    """C buys 179.03 and 89.96: B earns 10 % of each line, A 5 %, each line rounded for itself."""
    [draft] = Story().given(c.RecordOrder(order("O0", "B", 0).fact, DAY_US)).when(order())
    assert postings([draft]) == [("COMMISSION", "", -4035), ("PENDING", "B", 2690), ("PENDING", "A", 1345)]
    assert [shares for _, shares in draft.decision.lines] == [
        (f.Share(0, 2, 1790), f.Share(1, 3, 895)),
        (f.Share(0, 2, 900), f.Share(1, 3, 450)),
    ]


def test_the_first_order_locks_its_buyer_to_the_last_touch_and_no_later_one_does() -> None:
    story = Story()
    [first] = story.when(order("O1"))
    assert first.decision.binding_locked == f.BindingLock("C", "B", 5)
    story.given(order("O1"))
    [second] = story.when(order("O2"))
    assert second.decision.binding_locked is None
    assert second.decision.people[0].binding_position == 6


def test_an_open_touch_above_pays_nobody() -> None:
    """B was brought by A but never bought: nothing binds B to A yet, so the second generation is breakage."""
    [draft] = Story().when(order("O1", "C", 10_000))
    assert postings([draft]) == [("COMMISSION", "", -1500), ("BREAKAGE", "", 500), ("PENDING", "B", 1000)]
    assert [person.member_id for person in draft.decision.people] == ["C", "B"]


def test_a_tier_without_a_rate_earns_nothing_and_its_share_is_breakage() -> None:
    """The pool of a rule is its top rate; what a lower tier does not earn of it stays with the platform."""
    rules = [{"id": "first", "kind": "generation", "generation": 1, "rates": {"member": "4%", "manager": "10%"}}]
    story = Story({**TWO_LEVEL, "rules": rules})
    assert postings(story.when(order("O1", "C", 1000))) == [("COMMISSION", "", -100), ("BREAKAGE", "", 100)]
    story.tell("member/B", f.MemberUpgraded("B", "member", None))
    assert postings(story.when(order("O1", "C", 1000))) == [("COMMISSION", "", -100), ("BREAKAGE", "", 60), ("PENDING", "B", 40)]


def test_a_rule_looks_only_at_lines_that_match() -> None:
    """Fees earn nothing unless a plan names them; a sku or category narrows further."""
    rules = [{"id": "own", "kind": "self", "rate": "10%", "when": {"skus": ["tea"]}}]
    tea = f.OrderLine(1, 1000, 1, "tea", "", f.LineKind.GOODS)
    lines = (tea, tea._replace(line_no=2, sku="pot"), tea._replace(line_no=3, kind=f.LineKind.FEE))
    [draft] = Story({**TWO_LEVEL, "rules": rules}).when(c.RecordOrder(f.OrderPaid("O1", "A", "CNY", lines), 0))
    assert [(line_no, len(shares)) for line_no, shares in draft.decision.lines] == [(1, 1), (2, 0), (3, 0)]


def test_the_plan_is_chosen_by_the_time_of_payment_and_frozen() -> None:
    """A version published later changes nothing already recorded: the refund of an old order uses the old rates."""
    story = Story().given(order("O1", "C", 10_000))
    rules = [{"id": "first", "kind": "generation", "generation": 1, "rate": "50%"}]
    newer = {**TWO_LEVEL, "version": 2, "rules": rules, "effective": {"from": "1970-01-03T00:00:00Z"}}
    story.tell("plan/two-level", *published(newer))
    assert postings(story.when(order("O2", "C", 10_000, day=1)))[-1] == ("PENDING", "B", 1000)
    assert postings(story.when(order("O3", "C", 10_000, day=2)))[-1] == ("PENDING", "B", 5000)
    assert ("PENDING", "B", -1000) in postings(story.when(refund("R", (1, 10, 10_000))))


def test_an_order_sees_an_upgrade_recorded_just_before_it() -> None:
    story = Story()
    upgrade = story.tell("member/B", f.MemberUpgraded("B", "manager", f.BindingLock("B", "A", 4)))
    [draft] = story.when(order())
    assert draft.decision.people[1] == f.Person("B", "manager", upgrade.position, upgrade.position)


# ---------------------------------------------------------------- refunds, releases, debt


def test_the_worked_case_two_levels_coupon_partial_refunds_debt() -> None:
    """Worked case: B 26.90, A 13.45; B is paid; Y comes back in three parts; B owes 9.00, A keeps 8.95; 12.00 clears it and leaves 3.00."""
    story = Story().given(order("O0", "B", 0), order(), complete(), release(), payout("P1", "B", 2690), paid("P1"))
    for number, base in enumerate((2999, 2999, 2998)):
        [draft] = story.when(refund(f"R{number}", (2, 1, base)))
        assert postings([draft]) == [("COMMISSION", "", 450), ("DEBT", "B", -300), ("AVAILABLE", "A", -150)]
        story.given(refund(f"R{number}", (2, 1, base)))
    assert story.money("B") == {"paid": 2690, "debt": -900, "accrued": 2690, "reversed": 900}
    assert story.money("A") == {"available": 895, "accrued": 1345, "reversed": 450}
    story.given(order("O2", "C", 12_000), complete("O2"), release(60))
    assert story.money("B") == {"available": 300, "paid": 2690, "accrued": 3890, "reversed": 900}


def test_the_rounding_trap() -> None:
    """33.35 at 10 % is 3.34; refunds of 11.12, 11.12 and 11.11 reverse 1.12, 1.11 and 1.11."""
    story = Story().given(order("O1", "C", 3335))
    assert story.money("B")["pending"] == 334
    reversed_ = []
    for number, base in enumerate((1112, 1112, 1111)):
        command = refund(f"R{number}", (1, 3, base))
        reversed_.append(-sum(amount for account, member, amount in postings(story.when(command)) if member == "B"))
        story.given(command)
    assert reversed_ == [112, 111, 111]
    assert story.money("B") == {"accrued": 334, "reversed": 334}


def test_a_refund_before_release_takes_from_pending_and_from_what_is_due() -> None:
    story = Story().given(order("O0", "B", 0), order(), complete())
    assert {member: amount for (_, _, member, _), amount in story.books.due.items()} == {"B": 2690, "A": 1345}
    story.given(refund("R1", (2, 10, 8996)))
    assert {member: amount for (_, _, member, _), amount in story.books.due.items()} == {"B": 1790, "A": 895}
    story.given(refund("R2", (1, 10, 17903)))
    assert story.books.due == {}
    assert story.when(release()) == []


def test_a_hold_stops_release_of_one_payee_but_never_accrual() -> None:
    hold = c.PlaceHold(f.HoldPlaced("H1", "B", "", "disputed"), 0)
    story = Story().given(order("O0", "B", 0), hold, order(), complete())
    story.given(release())
    assert story.money("B") == {"pending": 2690, "accrued": 2690}
    assert story.money("A") == {"available": 1345, "accrued": 1345}
    story.given(c.LiftHold(f.HoldLifted("H1", "settled"), 0), release())
    assert story.money("B") == {"available": 2690, "accrued": 2690}


def test_a_hold_on_an_order_stops_everybody() -> None:
    story = Story().given(order("O0", "B", 0), order(), complete(), c.PlaceHold(f.HoldPlaced("H1", "", "O1", "fraud?"), 0))
    assert story.when(release()) == []


def test_nothing_is_released_before_its_days_are_over() -> None:
    """Completed on day 2, seven days: due on day 9, not a microsecond earlier."""
    story = Story().given(order(), complete(day=2))
    assert story.when(c.ReleaseDue(9 * DAY_US - 1, 500)) == []
    assert len(story.when(c.ReleaseDue(9 * DAY_US, 500))) == 1


def test_a_full_refund_keeps_the_lock_unless_the_plan_releases_it() -> None:
    everything = refund("R", (1, 10, 17903), (2, 10, 8996))
    story = Story().given(order(), everything)
    assert story.books.member("C") is not None and story.books.members["C"].locked  # type: ignore[union-attr]
    story = Story({**TWO_LEVEL, "binding": {"on_full_refund": "release"}}).given(order(), everything)
    member = story.books.members["C"]
    assert member is not None and not member.locked and member.referrer_id == "B"


# ---------------------------------------------------------------- payouts and adjustments


def test_two_payouts_of_the_whole_balance_only_the_first_is_accepted() -> None:
    story = Story().given(order("O0", "B", 0), order(), complete(), release(), payout("P1", "B", 2690))
    assert refused(story, payout("P2", "B", 2690)) == ("PAYOUT_EXCEEDS_AVAILABLE", {"member_id": "B", "available": "0", "given": "2690"})


def test_a_failed_payout_comes_back_and_settles_debt_first() -> None:
    story = Story().given(order("O0", "B", 0), order(), complete(), release(), payout("P1", "B", 2690), refund("R", (2, 10, 8996)))
    assert story.money("B") == {"reserved": 2690, "debt": -900, "accrued": 2690, "reversed": 900}
    story.given(failed("P1"))
    assert story.money("B") == {"available": 1790, "accrued": 2690, "reversed": 900}


def test_a_correction_down_beyond_what_is_available_makes_debt_and_a_write_off_forgives_it() -> None:
    story = Story().given(adjustment(500), adjustment(-800, number=2))
    assert story.money("B") == {"debt": -300, "adjusted": -300}
    write_off = adjustment(301, f.AdjustmentKind.WRITE_OFF, number=3)
    assert refused(story, write_off) == ("WRITE_OFF_EXCEEDS_DEBT", {"member_id": "B", "debt": "300", "given": "301"})
    story.given(adjustment(300, f.AdjustmentKind.WRITE_OFF, number=4))
    assert story.money("B") == {}


# ---------------------------------------------------------------- idempotence and refusals


def refused(story: Story, command: c.Command) -> tuple[str, dict[str, str]]:
    with pytest.raises(Refusal) as caught:
        decide(story.books, command)
    return caught.value.reason, caught.value.metadata


def everything_once() -> Story:
    return Story().given(
        *(order("O0", "B", 0), order(), complete(), release(), payout("P1", "B", 100), paid("P1"), payout("P2", "B", 100), failed("P2")),
        *(
            refund("R1", (1, 1, 5)),
            adjustment(500),
            c.PlaceHold(f.HoldPlaced("H1", "B", "", "x"), 0),
            c.LiftHold(f.HoldLifted("H1", "y"), 0),
        ),
    )


AGAIN = [
    order(),
    complete(),
    payout("P1", "B", 100),
    paid("P1"),
    failed("P2"),
    refund("R1", (1, 1, 5)),
    adjustment(500),
    c.PlaceHold(f.HoldPlaced("H1", "B", "", "x"), 0),
    c.LiftHold(f.HoldLifted("H1", "y"), 0),
]


@pytest.mark.parametrize("command", AGAIN, ids=lambda command: type(command).__name__)
def test_the_same_fact_again_gives_the_first_entry(command: Any) -> None:
    answer = decide(everything_once().books, command)
    assert isinstance(answer, Repeated)
    assert answer.entry.fact == command.fact


@pytest.mark.parametrize("command", AGAIN, ids=lambda command: type(command).__name__)
def test_the_same_id_at_another_time_is_refused_and_the_time_named(command: Any) -> None:
    reason, metadata = refused(everything_once(), altered(command, occurred_us=command.occurred_us + 1))
    assert (reason, metadata["field"]) == ("ID_REUSED", "occurred_at")


def test_the_same_order_id_with_another_amount_is_refused_and_the_field_named() -> None:
    reason, metadata = refused(Story().given(order()), order("O1", "C", 17903, 8997))
    assert (reason, metadata["field"], metadata["recorded"], metadata["given"]) == ("ID_REUSED", "lines[1].base_minor", "8996", "8997")


REFUSALS = [
    (order("O9", "nobody"), "MEMBER_UNKNOWN"),
    (order("O9", "nobody", currency="USD"), "MEMBER_UNKNOWN"),
    (order("O9", "C", currency="USD"), "CURRENCY_MISMATCH"),
    (order("O9", "C", day=-1), "NO_PLAN_IN_FORCE"),
    (c.RecordOrder(f.OrderPaid("O9", "C", "CNY", (f.OrderLine(1, 1, 1, "", "", f.LineKind.GOODS),) * 2), 0), "MALFORMED"),
    (refund("R", (1, 1, 1), order_id="O9"), "ORDER_UNKNOWN"),
    (refund("R", (3, 1, 1)), "LINE_UNKNOWN"),
    (refund("R", (1, 1, 17904)), "REFUND_EXCEEDS_PAID"),
    (refund("R", (1, 11, 1)), "REFUND_EXCEEDS_PAID"),
    (refund("R", (1, 1, 9000), (1, 1, 9000)), "REFUND_EXCEEDS_PAID"),
    (refund("R", (1, 0, 0)), "MALFORMED"),
    (refund("R", (1, 1, 1), day=0), "DATED_TOO_EARLY"),
    (complete("O9"), "ORDER_UNKNOWN"),
    (complete("O1", day=0), "DATED_TOO_EARLY"),
    (payout("P", "nobody", 1), "MEMBER_UNKNOWN"),
    (payout("P", "B", 0), "MALFORMED"),
    (payout("P", "B", -5), "MALFORMED"),
    (paid("P"), "PAYOUT_UNKNOWN"),
    (failed("P"), "PAYOUT_UNKNOWN"),
    (adjustment(0), "MALFORMED"),
    (adjustment(-1, f.AdjustmentKind.WRITE_OFF), "MALFORMED"),
    (adjustment(1, member="nobody"), "MEMBER_UNKNOWN"),
    (c.PlaceHold(f.HoldPlaced("H", "nobody", "", "x"), 0), "MEMBER_UNKNOWN"),
    (c.PlaceHold(f.HoldPlaced("H", "", "O9", "x"), 0), "ORDER_UNKNOWN"),
    (c.LiftHold(f.HoldLifted("H", "x"), 0), "HOLD_UNKNOWN"),
    (c.PublishPlan(f.PlanPublished("two-level", 3, canonical({**TWO_LEVEL, "version": 3}), 0, None), 0), "PLAN_VERSION_OUT_OF_ORDER"),
    (c.PublishPlan(f.PlanPublished("x", 1, canonical({**TWO_LEVEL, "currency": "USD"}), 0, None), 0), "CURRENCY_MISMATCH"),
]


@pytest.mark.parametrize(("command", "reason"), REFUSALS, ids=[f"{number}-{reason}" for number, (_, reason) in enumerate(REFUSALS)])
def test_what_breaks_a_rule_is_refused_by_its_name(command: c.Command, reason: str) -> None:
    assert refused(Story().given(order()), command)[0] == reason


def test_a_payout_is_closed_once() -> None:
    story = everything_once()
    assert refused(story, failed("P1")) == ("PAYOUT_CLOSED", {"payout_id": "P1", "state": "paid"})
    assert refused(story, paid("P2")) == ("PAYOUT_CLOSED", {"payout_id": "P2", "state": "failed"})


def test_nothing_is_dated_before_what_it_follows() -> None:
    story = Story().given(order("O0", "B", 0), order(), complete(), release(), payout("P1", "B", 100), hold_at(5))
    assert refused(story, paid("P1", day=20))[0] == "DATED_TOO_EARLY"
    assert refused(story, failed("P1", day=20))[0] == "DATED_TOO_EARLY"
    assert refused(story, c.LiftHold(f.HoldLifted("H5", "x"), 4 * DAY_US))[0] == "DATED_TOO_EARLY"


def hold_at(day: int) -> c.PlaceHold:
    return c.PlaceHold(f.HoldPlaced(f"H{day}", "B", "", "x"), day * DAY_US)


def test_who_asks_for_an_adjustment_cannot_approve_it() -> None:
    command = adjustment(5)
    alone = replace(command, fact=replace(command.fact, approved_by="ann"))
    assert refused(Story(), alone)[0] == "APPROVER_IS_REQUESTER"


# ---------------------------------------------------------------- partial knowledge


@pytest.mark.parametrize("command", [order(), complete(), payout("P", "B", 1), adjustment(1), release()], ids=lambda c: type(c).__name__)
def test_what_was_not_loaded_is_never_taken_for_absent(command: c.Command) -> None:
    with pytest.raises(NotLoaded):
        decide(Books(complete=False, currency="CNY"), command)


def test_balances_add_up_field_by_field() -> None:
    assert Balance(pending=1, debt=-2) + Balance(pending=3, adjusted=4) == Balance(pending=4, debt=-2, adjusted=4)


def test_a_rate_is_exact() -> None:
    """2.5 % of 2999.00 is 74.975, rounded half up 74.98; a third of a percent stays what it is."""
    assert Rate.of_percent("2.5%").of(299_900) == 7498
    assert Rate.of_percent("2.5%").exactly_of(299_900) == "7497.5"
    assert Rate.of_percent("0.333333333%").decimal == "0.00333333333"


def test_tiers_that_rest_on_one_order_stand_in_one_order_however_the_state_came_about() -> None:
    """Folded from the log they come as the order gave them, loaded as the view keeps them; what is decided must not depend on it."""
    resting = [Evidence("zoe", "manager", "", 7), Evidence("ada", "manager", "", 7), Evidence("bob", "director", "", 5)]
    for order in (resting, resting[::-1]):
        found = Books(evidence={"O1": list(order)}).tiers_resting_on("O1")
        assert [one.member_id for one in found] == ["bob", "ada", "zoe"]


def test_a_plan_that_is_refused_for_itself_is_still_answered_where_it_was_published_before() -> None:
    """Limits and findings that were learned since take nothing back; a new version is refused for them."""
    refused = PlanInvalid("rules[0].when.days", "has 32 entries; at most 31 are allowed")
    story = Story(TWO_LEVEL)
    [entry] = story.books.stream("plan/two-level")
    assert decide(story.books, c.PublishPlan(entry.fact, 0, linted=True, refused=refused)) == Repeated(entry)
    fact, _ = published(TWO_LEVEL | {"version": 2})
    with pytest.raises(PlanInvalid) as caught:
        decide(story.books, c.PublishPlan(fact, 0, linted=True, refused=refused))
    assert caught.value is refused


def test_an_order_for_which_a_rule_comes_to_more_than_can_be_booked_is_refused_by_the_rule_and_the_limit() -> None:
    """10**12 for each of 10**7 units is more than 64 bits hold; for 9 * 10**6 it is not."""
    fixed = {"id": "each", "kind": "generation", "generation": 1, "fixed_minor": 10**12}
    story = Story(TWO_LEVEL | {"rules": [TWO_LEVEL["rules"][0], fixed]})

    def bought(quantity: int) -> c.RecordOrder:
        return c.RecordOrder(f.OrderPaid("O1", "C", "CNY", (f.OrderLine(1, 100, quantity, "", "", f.LineKind.GOODS),)), DAY_US)

    with pytest.raises(Malformed) as caught:
        story.when(bought(10**7))
    assert caught.value.field == "rules[1]"
    assert str(caught.value) == (
        f"rules[1] (each) of plan two-level version 1 comes to {10**19} for this order; the rules may come to at most {2**63 - 1} together"
    )
    [draft] = story.when(bought(9 * 10**6))
    assert codec.write(draft)
