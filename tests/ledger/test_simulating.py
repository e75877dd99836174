"""Simulating a draft, without database and clock: a history, a draft, what would have been different."""

from collections import Counter
from collections.abc import Iterable
from copy import deepcopy
from random import Random
from typing import Any

import pytest

from services.kernel.decider import Entry, Repeated
from services.kernel.refusals import Refusal
from services.kernel.times import DAY_US
from services.ledger.domain import commands as c
from services.ledger.domain import facts as f
from services.ledger.domain.books import Balance, Books, evolve
from services.ledger.domain.decide import decide
from services.ledger.domain.plan import canonical, content_hash, parse
from services.ledger.domain.simulating import CAUSES, DERIVED, RETURNING, Report, Row, Simulation, Total

TWO_LEVEL: dict[str, Any] = {
    "plan": "shop",
    "version": 1,
    "currency": "CNY",
    "tiers": ["member", "manager", "director"],
    "rules": [
        {"id": "first", "kind": "generation", "generation": 1, "rate": "10%"},
        {"id": "second", "kind": "generation", "generation": 2, "rate": "5%"},
    ],
}
ONE_LEVEL = TWO_LEVEL | {"version": 7, "rules": [{"id": "first", "kind": "generation", "generation": 1, "rate": "12%"}]}
# A little of everything that a decision may look at.
RICH: dict[str, Any] = {
    "plan": "rich",
    "version": 1,
    "currency": "CNY",
    "tiers": ["member", "manager", "director"],
    "points": ["points"],
    "period": "day",
    "binding": {"on_full_refund": "release"},
    "on_evidence_refunded": "demote",
    "rules": [
        {"id": "self", "kind": "self", "rates": {"manager": "1%", "director": "2%"}},
        {"id": "first", "kind": "generation", "generation": 1, "rate": "10%", "cap_minor": {"order": 900, "period": 2000}},
        {"id": "ladder", "kind": "differential", "rates": {"member": "1%", "manager": "3%", "director": "6%"}, "depth": 5},
        {"id": "peer", "kind": "peer", "rates": {"manager": "0.5%"}, "of": "ladder", "release": {"on": "at_once"}},
        {"id": "creator", "kind": "attributed", "role": "creator", "rate": "4%", "with_referrer": "exclusive", "when": {"skus": ["A"]}},
        {"id": "fund", "kind": "pool", "role": "partner", "rate": "1%", "split": "shares"},
        {"id": "opener", "kind": "triggered", "on": "group_formed", "rate": "2%"},
        {"id": "invite", "kind": "triggered", "on": "invite", "to": {"buyer": 50, "referrer": 100}},
        {"id": "raised", "kind": "triggered", "on": "upgrade", "to": {"referrer": 70}},
        {"id": "share", "kind": "triggered", "on": "task", "task": "share", "to": {"member": 5}, "asset": "points", "most": 3},
        {"id": "three", "kind": "counted", "at": 2, "fixed_minor": 300, "repeat": True},
        {"id": "team", "kind": "volume", "brackets": [{"from_minor": 0, "rate": "1%"}, {"from_minor": 20000, "rate": "3%"}]},
        {"id": "partners", "kind": "pool", "per": "period", "role": "partner", "rate": "1%"},
        {"id": "board", "kind": "rank", "board": "own", "places_minor": [500, 200]},
    ],
    "promotions": [
        {"tier": "manager", "any": [{"metric": "orders", "at_least": 2}, {"metric": "qualified_directs", "at_least": 2}]},
        {"tier": "director", "all": [{"metric": "team_volume", "at_least": 40000, "depth": 3, "days": 10}]},
    ],
}
RICHER: dict[str, Any] = RICH | {
    "version": 2,
    "on_evidence_refunded": "keep",
    "rules": [
        {"id": "first", "kind": "generation", "generation": 1, "rate": "8%", "cap_minor": {"period": 1500}},
        {"id": "ladder", "kind": "differential", "rates": {"manager": "4%", "director": "7%"}, "depth": 3},
        {"id": "two", "kind": "counted", "at": 1, "fixed_minor": 90, "repeat": True, "most": 3},
        {"id": "share", "kind": "triggered", "on": "task", "task": "share", "to": {"member": 4, "referrer": 2}, "asset": "points"},
        {"id": "team", "kind": "volume", "brackets": [{"from_minor": 0, "rate": "2%"}]},
    ],
    "promotions": [{"tier": "manager", "all": [{"metric": "own_volume", "at_least": 9000}]}],
}


class Shop:
    """A log in memory: what is told is decided and kept, what is refused leaves no trace."""

    def __init__(self, *documents: dict[str, Any], at: Iterable[int] = (0,)) -> None:
        self.books, self.log = Books(), list[Entry]()
        self.commands: list[Any] = []
        self.tell("program/p", f.ProgramCreated("CNY"))
        for document, from_us in zip(documents, at, strict=False):
            self.publish(document, from_us)

    def publish(self, document: dict[str, Any], from_us: int = 0) -> None:
        plan, text = parse(document), canonical(document)
        fact = f.PlanPublished(plan.plan_id, plan.version, text, from_us, None)
        self.tell(f"plan/{plan.plan_id}", fact, f.PlanDecision(content_hash(text)))

    def tell(self, stream: str, fact: Any, decision: Any = None, at_us: int = 0) -> None:
        position = len(self.log) + 1
        # Complete books do not look at versions.
        entry = Entry(position, stream, 1, at_us, position, bytes(32), fact, decision)
        self.log.append(entry)
        evolve(self.books, entry)

    def do(self, command: c.Command) -> bool:
        try:
            answer = decide(self.books, command)
        except Refusal:
            return False
        if isinstance(answer, Repeated):
            return False
        self.commands.append(command)
        for draft in answer:
            self.tell(draft.stream, draft.fact, draft.decision, draft.occurred_us)
        return True

    def enroll(self, member_id: str, referrer_id: str = "") -> None:
        self.commands.append(f.MemberEnrolled(member_id, referrer_id))
        self.tell(f"member/{member_id}", f.MemberEnrolled(member_id, referrer_id))

    def touch(self, member_id: str, referrer_id: str) -> None:
        member = self.books.member(member_id)
        if member is not None and not member.locked and not self.books.stands_above(member_id, of=referrer_id):
            self.commands.append(f.MemberTouched(member_id, referrer_id))
            self.tell(f"member/{member_id}", f.MemberTouched(member_id, referrer_id))

    def upgrade(self, member_id: str, tier: str, order_id: str = "", at_us: int = 0) -> None:
        self.commands.append(("upgrade", member_id, tier, order_id, at_us))
        member = self.books.member(member_id)
        assert member is not None
        lock = None if member.locked else f.BindingLock(member_id, member.referrer_id, member.touch_position)
        self.tell(f"member/{member_id}", f.MemberUpgraded(member_id, tier, lock, member.tier, order_id), None, at_us)

    def grant(self, grant_id: str, member_id: str, role: str, scope: str = "", weight: int = 1) -> None:
        self.commands.append(f.RoleGranted(grant_id, member_id, role, scope, weight, 0, None))
        self.tell(f"role/{grant_id}", self.commands[-1])

    def order(self, order_id: str, member_id: str, *bases: int, day: int = 1, **more: Any) -> bool:
        lines = tuple(f.OrderLine(number, base, 2, "A", "", f.LineKind.GOODS) for number, base in enumerate(bases, 1))
        return self.do(c.RecordOrder(f.OrderPaid(order_id, member_id, "CNY", lines, **more), day * DAY_US))

    def refund(self, refund_id: str, order_id: str, *lines: tuple[int, int, int], day: int = 30) -> bool:
        return self.do(c.RefundOrder(f.OrderRefunded(refund_id, order_id, tuple(f.RefundLine(*line) for line in lines)), day * DAY_US))

    def again_under(self, document: dict[str, Any]) -> "Shop":
        """The same commands told to books that never knew another plan."""
        other = Shop(document)
        for command in self.commands:
            match command:
                case f.MemberEnrolled():
                    other.enroll(command.member_id, command.referrer_id)
                case f.MemberTouched():
                    other.touch(command.member_id, command.referrer_id)
                case f.RoleGranted():
                    other.grant(command.grant_id, command.member_id, command.role, command.scope, command.weight)
                case c.RecordOrder():
                    other.do(command)
                case tuple():
                    other.upgrade(*command[1:])
                case _:
                    other.do(command)
        return other

    def net(self) -> dict[tuple[str, str], int]:
        """{(member, asset): earned less what was taken back}, from the books' own gross figures."""
        found = {key: (held := Balance(*figures)).accrued - held.reversed for key, figures in self.books.balances.items()}
        return {key: amount for key, amount in found.items() if amount}

    def breakage(self, asset: str = "CNY") -> int:
        postings = (posting for entry in self.log for posting in getattr(entry.decision, "postings", ()))
        return sum(posting.amount_minor for posting in postings if posting.account is f.Account.BREAKAGE and posting.asset == asset)

    def simulate(self, draft: dict[str, Any], from_day: int | None = None, to_day: int | None = None, lean: bool = True) -> Report:
        from_us, to_us = (None if day is None else day * DAY_US for day in (from_day, to_day))
        returning = Counter(entry.stream for entry in self.log if isinstance(entry.fact, RETURNING)) if lean else None
        simulation = Simulation(parse(draft), from_us, to_us, returning)
        for entry in self.log:
            simulation.add(entry)
        return simulation.report()


def family(*documents: dict[str, Any], at: Iterable[int] = (0,)) -> Shop:
    """A brought B, B brought C, and all are locked."""
    shop = Shop(*documents, at=at)
    for member, referrer in (("A", ""), ("B", "A"), ("C", "B")):
        shop.enroll(member, referrer)
        shop.order(f"lock-{member}", member, 0, day=0)
    return shop


def random_shop(seed: int, *documents: dict[str, Any], at: Iterable[int] = (0,), steps: int = 60) -> Shop:
    """Everything a shop may tell, in random order, some of it wrong."""
    shop, dice = Shop(*documents, at=at), Random(seed)
    people = ["A", "B", "C", "D", "E", "F", "G"]
    for index, member in enumerate(people):
        shop.enroll(member, dice.choice(["", *people[:index][-2:]]) if index else "")
    for number, member in enumerate(dice.sample(people, 3)):
        shop.grant(f"g{number}", member, dice.choice(("partner", "creator")), dice.choice(("", "hall")), dice.choice((1, 3)))
    orders: list[tuple[str, int, list[int]]] = []
    groups = 0
    for step in range(steps):
        day = step // 5
        match dice.choice(("order",) * 8 + ("refund",) * 4 + ("group", "close", "task", "upgrade", "touch", "form", "fail", "complete")):
            case "order":
                bases = [dice.choice((0, 99, 3335, 8996, 20_001)) for _ in range(dice.choice((1, 1, 2)))]
                named = (f.Attribution("creator", dice.choice(people), ""),) if dice.random() < 0.3 else ()
                group = f"G{dice.randrange(groups)}" if groups and dice.random() < 0.4 else ""
                more: dict[str, Any] = {"attributions": named, "group_id": group}
                if shop.order(f"O{step}", dice.choice(people), *bases, day=max(0, day - dice.choice((0, 0, 0, 1))), **more):
                    orders.append((f"O{step}", day, bases))
            case "refund" if orders:
                order_id, paid, bases = dice.choice(orders)
                everything = dice.random() < 0.5
                lines = [(n, 2 if everything else 0, base if everything else dice.randrange(base + 1)) for n, base in enumerate(bases, 1)]
                shop.refund(f"R{step}", order_id, *(line for line in lines if line[1] or line[2]), day=max(day, paid))
            case "group":
                shop.do(c.OpenGroup(f.GroupOpened(f"G{groups}", dice.choice(people)), 0))
                groups += 1
            case "form" if groups:
                shop.do(c.FormGroup(f.GroupFormed(f"G{dice.randrange(groups)}"), 100 * DAY_US))
            case "fail" if groups:
                shop.do(c.FailGroup(f.GroupFailed(f"G{dice.randrange(groups)}", "too few"), 100 * DAY_US))
            case "close":
                shop.do(c.ClosePeriod(f.PeriodClosed(f"1970-01-{1 + dice.randrange(day + 1):02d}"), (day + 2) * DAY_US))
            case "task":
                shop.do(c.RecordTask(f.TaskDone(f"T{step}", dice.choice(people), "share"), day * DAY_US))
            case "upgrade":
                evidence = dice.choice(["", *(order_id for order_id, _, _ in orders[-3:])])
                shop.upgrade(dice.choice(people), dice.choice(("member", "manager", "director")), evidence, day * DAY_US)
            case "touch":
                shop.touch(dice.choice(people), dice.choice(people))
            case "complete" if orders:
                shop.do(c.CompleteOrder(f.OrderCompleted(dice.choice(orders)[0]), (day + 1) * DAY_US))
    return shop


def same(report: Report) -> bool:
    rows = (*report.by_rule, *report.by_member)
    return (
        all(row.recorded_minor == row.simulated_minor for row in rows)
        and all(one.recorded_minor == one.simulated_minor for one in report.totals)
        and all(one.recorded_breakage_minor == one.simulated_breakage_minor and not one.refused for one in report.totals)
    )


# ---------------------------------------------------------------- one thing at a time


def test_a_draft_is_compared_by_total_by_rule_and_by_member() -> None:
    """C buys 100.00, half of it comes back: B has 5.00, would have 6.00; A has 2.50, would have nothing."""
    shop = family(TWO_LEVEL)
    shop.order("O1", "C", 10_000)
    shop.refund("R1", "O1", (1, 0, 5_000))
    report = shop.simulate(ONE_LEVEL)
    assert report.totals == (Total("CNY", 4, 1, 5_000, 750, 600, 0, 0, 0),)
    assert report.by_rule == (Row("first", "CNY", 500, 600), Row("second", "CNY", 250, 0))
    assert report.by_member == (Row("A", "CNY", 250, 0), Row("B", "CNY", 500, 600))


def test_a_version_that_came_into_force_in_a_period_does_not_close_it_beside_the_draft() -> None:
    """The recorded plan paid a board of places for the month; a draft without one pays none of it."""
    shop = Shop(RICH | {"period": "month"}, at=(DAY_US,))
    for member, referrer in (("A", ""), ("B", "A"), ("C", "B")):
        shop.enroll(member, referrer)
    shop.order("O1", "C", 10_000, day=2)
    assert shop.do(c.ClosePeriod(f.PeriodClosed("1970-01"), 40 * DAY_US))
    total = shop.simulate(TWO_LEVEL).totals[0]
    # 10% to B, whose own bond is not locked yet, so that the second generation is left over.
    assert (total.simulated_minor, total.simulated_breakage_minor, total.refused) == (1_000, 500, 1)


def test_only_orders_paid_in_the_window_count_with_their_refunds_whenever_those_are() -> None:
    shop = family(TWO_LEVEL)
    for day in (1, 2, 3):
        shop.order(f"O{day}", "C", 10_000, day=day)
        shop.refund(f"R{day}", f"O{day}", (1, 0, 1_000 * day), day=40)
    report = shop.simulate(ONE_LEVEL, 2, 3)
    assert report.totals == (Total("CNY", 1, 1, 8_000, 800 + 400, 960, 0, 0, 0),)


def test_what_the_draft_does_to_an_order_outside_the_window_counts_as_a_difference() -> None:
    """The draft makes B a manager on day 2; the recorded plan pays managers more, on day 3 as well."""
    recorded = TWO_LEVEL | {"rules": [{"id": "first", "kind": "generation", "generation": 1, "rates": {"member": "1%", "manager": "10%"}}]}
    draft = recorded | {"promotions": [{"tier": "manager", "any": [{"metric": "orders", "at_least": 1}]}]}
    shop = family(recorded)
    for member in "ABC":
        shop.upgrade(member, "member")
    shop.order("O1", "B", 1_000, day=2)
    shop.order("O2", "C", 10_000, day=3)
    report = shop.simulate(draft, 2, 3)
    assert report.totals == (Total("CNY", 1, 0, 1_000, 10, 10 + 900, 90, 90 - 900, 0),)
    assert report.by_member == (Row("B", "CNY", 0, 900), Row("A", "CNY", 10, 10))


def test_promotions_that_the_recorded_plan_made_do_not_count_in_the_shadow() -> None:
    rates = {"id": "first", "kind": "generation", "generation": 1, "rates": {"manager": "10%"}}
    recorded = TWO_LEVEL | {"rules": [rates], "promotions": [{"tier": "manager", "any": [{"metric": "orders", "at_least": 1}]}]}
    shop = family(recorded)
    shop.order("O1", "C", 10_000)
    assert shop.simulate(recorded).by_member == (Row("B", "CNY", 1000, 1000),)
    assert shop.simulate(recorded | {"promotions": []}).by_member == (Row("B", "CNY", 1000, 0),)


def test_bindings_stay_as_they_were_told_whatever_touch_counts_for_the_draft() -> None:
    """A brought C, whose first order names B's code; D was brought by C. The refund of that order sets C free, or not."""
    by_code = TWO_LEVEL | {"binding": {"touch": "order", "on_full_refund": "release"}}
    for recorded, draft in ((TWO_LEVEL, by_code), (by_code, TWO_LEVEL)):
        shop = Shop(recorded)
        for member, referrer in (("A", ""), ("B", ""), ("C", "A"), ("D", "C")):
            shop.enroll(member, referrer)
        shop.order("O1", "C", 1_000, referrer_id="B")
        shop.order("O2", "C", 1_000)
        shop.order("O3", "D", 1_000)
        shop.refund("R1", "O1", (1, 2, 1_000))
        # C is locked, or free: A earns by the second generation, or nobody does.
        shop.order("O4", "D", 1_000)
        shop.touch("C", "A")
        shop.order("O5", "C", 1_000)
        earned = {row.key: row.recorded_minor for row in shop.simulate(draft).by_member}
        assert earned == ({"A": 300, "C": 200} if recorded is TWO_LEVEL else {"A": 100, "B": 150, "C": 200})
        assert same(shop.simulate(draft)), shop.simulate(draft)


def test_whose_upgrade_loses_its_evidence_falls_back_to_the_tier_the_draft_gave() -> None:
    """The recorded plan had made B a manager, the draft has not; the hand that made B a director took back its evidence."""
    rates = {"id": "first", "kind": "generation", "generation": 1, "rates": {"manager": "10%", "director": "20%"}}
    promotions = [{"tier": "manager", "any": [{"metric": "orders", "at_least": 1}]}]
    recorded = TWO_LEVEL | {"rules": [rates], "promotions": promotions, "on_evidence_refunded": "demote"}
    shop = family(recorded)
    shop.order("O1", "B", 1_000)
    shop.upgrade("B", "director", "O1")
    shop.refund("R1", "O1", (1, 2, 1_000))
    shop.order("O2", "C", 1_000)
    assert shop.simulate(recorded).by_member == (Row("B", "CNY", 100, 100),)
    assert shop.simulate(recorded | {"promotions": []}).by_member == (Row("B", "CNY", 100, 0),)


def test_a_period_in_which_the_plan_only_began_is_closed_by_the_draft_in_its_stead() -> None:
    """No plan was in force at the beginning of January: version 1 began on the 6th, and so does the window."""

    def team(rate: str) -> dict[str, Any]:
        rule = {"id": "team", "kind": "volume", "brackets": [{"from_minor": 0, "rate": rate}]}
        return TWO_LEVEL | {"rules": [rule]}

    shop = Shop(team("1%"), at=(5 * DAY_US,))
    shop.enroll("A")
    shop.order("O1", "A", 10_000, day=6)
    assert shop.do(c.ClosePeriod(f.PeriodClosed("1970-01"), 40 * DAY_US))
    assert shop.simulate(team("2%"), 5).by_member == (Row("A", "CNY", 100, 200),)
    assert shop.simulate(team("2%"), 31).by_member == (), "a window after it is about other periods"


def test_what_the_draft_would_refuse_is_counted_and_the_rest_goes_on() -> None:
    shop = family(RICH)
    shop.upgrade("B", "director", at_us=DAY_US)
    shop.order("O1", "C", 10_000)
    assert shop.do(c.ClosePeriod(f.PeriodClosed("1970-01-02"), 9 * DAY_US))
    report = shop.simulate(TWO_LEVEL | {"tiers": ["member"]})
    assert [total.refused for total in report.totals] == [2]
    assert {row.key: row.simulated_minor for row in report.by_rule if row.simulated_minor} == {"first": 1000, "second": 500}


def test_an_upgrade_before_the_window_is_nothing_the_draft_is_asked_about() -> None:
    shop = family(TWO_LEVEL)
    shop.upgrade("B", "director", at_us=DAY_US)
    assert shop.simulate(TWO_LEVEL | {"tiers": ["member"]}, 2).totals[0].refused == 0


def test_points_have_a_total_of_their_own() -> None:
    shop = family(RICH)
    shop.do(c.RecordTask(f.TaskDone("T1", "C", "share"), DAY_US))
    totals = {total.asset: (total.recorded_minor, total.simulated_minor) for total in shop.simulate(RICHER).totals}
    assert totals["points"] == (5, 6)


def test_an_empty_log_gives_a_total_of_nothing_and_the_drafts_rules() -> None:
    report = Shop().simulate(ONE_LEVEL)
    assert report == Report((Total("CNY", 0, 0, 0, 0, 0, 0, 0, 0),), (Row("first", "CNY", 0, 0),), ())


def test_only_orders_that_something_comes_back_to_are_held() -> None:
    shop = family(TWO_LEVEL)
    for number in range(50):
        shop.order(f"O{number}", "C", 1_000)
    shop.refund("R1", "O7", (1, 0, 500))
    simulation = Simulation(parse(ONE_LEVEL), None, None, {"order/O7": 1})
    held = []
    for entry in shop.log:
        simulation.add(entry)
        held.append(simulation.streams_held)
    assert max(held) == 1 + 1 and held[-1] == 1  # the plan's stream and O7


# ---------------------------------------------------------------- properties


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("document", [TWO_LEVEL, RICH, RICHER], ids=["two-level", "rich", "richer"])
def test_the_very_plan_that_was_in_force_changes_nothing(document: dict[str, Any], seed: int) -> None:
    shop = random_shop(seed, document)
    recorded = shop.simulate(document)
    assert same(recorded), recorded
    assert recorded == shop.simulate(document, lean=False)
    assert same(shop.simulate(document, 2, 9)) and same(shop.simulate(document, 5)) and same(shop.simulate(document, None, 4))


@pytest.mark.parametrize("seed", range(25))
def test_the_recorded_side_is_what_the_books_hold(seed: int) -> None:
    shop = random_shop(seed, RICH)
    report = shop.simulate(RICHER)
    assert {(row.key, row.asset): row.recorded_minor for row in report.by_member if row.recorded_minor} == shop.net()
    assert report.totals[0].recorded_breakage_minor == shop.breakage()
    assert {total.asset: total.recorded_minor for total in report.totals} == {
        total.asset: sum(row.recorded_minor for row in report.by_member if row.asset == total.asset) for total in report.totals
    }


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("draft", [TWO_LEVEL, RICHER], ids=["two-level", "richer"])
def test_the_simulated_side_is_what_books_would_hold_that_never_knew_another_plan(draft: dict[str, Any], seed: int) -> None:
    """Bindings kept apart: this plan releases none, so that they fall alike."""
    keeping = RICH | {"binding": {"on_full_refund": "keep"}}
    draft = draft | {"binding": {"on_full_refund": "keep"}}
    shop = random_shop(seed, keeping)
    alone = shop.again_under(draft)
    report = shop.simulate(draft)
    assert {(row.key, row.asset): row.simulated_minor for row in report.by_member if row.simulated_minor} == alone.net()
    assert report.totals[0].simulated_breakage_minor == alone.breakage()
    assert report == shop.simulate(draft, lean=False)


@pytest.mark.parametrize("seed", range(20))
def test_a_draft_in_its_own_window_changes_nothing_where_a_later_version_came_into_force(seed: int) -> None:
    """Version 2 is in force from day 6 on: simulating it there, and version 1 before it, changes nothing."""
    shop = random_shop(seed, RICH, RICHER, at=(0, 6 * DAY_US))
    assert same(shop.simulate(RICHER, 6)), shop.simulate(RICHER, 6)
    assert same(shop.simulate(RICH, None, 6)), shop.simulate(RICH, None, 6)


@pytest.mark.parametrize("seed", range(10))
def test_a_simulation_leaves_what_it_is_given_as_it_was(seed: int) -> None:
    shop = random_shop(seed, RICH)
    before = deepcopy(shop.log)
    shop.simulate(RICHER)
    assert shop.log == before


def test_the_random_histories_reach_every_kind_of_fact_and_rule() -> None:
    """So that the properties above say something."""
    shops = [random_shop(seed, RICH) for seed in range(25)]
    entries = [entry for shop in shops for entry in shop.log]
    facts = Counter(type(entry.fact) for entry in entries)
    wanted = (*CAUSES, *DERIVED, f.OrderCompleted, f.MemberUpgraded, f.MemberTouched, f.RoleGranted)
    assert min(facts[one] for one in wanted) >= 10, facts
    changes = Counter(change.kind for entry in entries for change in getattr(entry.decision, "tier_changes", ()))
    assert changes[f.TierChangeKind.PROMOTED] > 30 and changes[f.TierChangeKind.DEMOTED] > 3, changes
    assert sum(bool(getattr(entry.decision, "binding_released_member_id", "")) for entry in entries) > 3
    rules = Counter(row.key for shop in shops for row in shop.simulate(RICHER).by_rule if row.recorded_minor)
    assert set(rules) >= {rule["id"] for rule in RICH["rules"]} - {"raised"}, rules
