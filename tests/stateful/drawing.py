"""Draws the next fact to tell, knowing what the books hold: mostly sensible ones, some wrong in one way, some twice.

Ids are drawn from one list for members, orders, refunds and all else, so that a clash between kinds shows; they hold characters that
quoting, collation or a separator could trip over. Bases are chosen where a rule's exact share ends in a half.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime
from random import Random
from typing import Any, TypeVar

from hypothesis import strategies as st

from tests.oracle.facts import (
    ADJUST_CORRECTION,
    ADJUST_WRITE_OFF,
    DAY_NS,
    EVIDENCE_PAID_ORDER,
    EVIDENCE_SEAT_GRANTED,
    KIND_FEE,
    KIND_GIFT_PACK,
    KIND_GOODS,
    KIND_UNSPECIFIED,
    NS_PER_S,
    Adjust,
    Complete,
    ConfirmPayout,
    Correct,
    Enroll,
    FailPayout,
    LiftHold,
    Line,
    Order,
    PlaceHold,
    PublishPlan,
    Refund,
    RefundLine,
    ReleaseDue,
    RequestPayout,
    Touch,
    Upgrade,
    Write,
)
from tests.oracle.oracle import Oracle
from tests.oracle.plan import Rule

T = TypeVar("T")
DrawFn = Callable[[st.SearchStrategy[Any]], Any]

CURRENCY = "CNY"
US = 1000  # nanoseconds
START = 1_767_225_600 * NS_PER_S  # 2026-01-01T00:00:00Z
TIERS = ("member", "manager", "director", "partner")
RATES = ("10%", "5%", "2.5%", "12.5%", "25%", "0.5%", "20%", "3.333333333%", "0.000000001%", "0%", "7.77%")
# Unordered on purpose: upper and lower case, digits, and characters that mean something to SQL, URLs, formats or tokens.
IDS = ("b", "A", "10", "a", "9", "~", "B", "a:b", "%s", "_", "'", "a.b", "!", "{0}", "-1", "#", "0", "a|b", "x" * 100, "NULL")
MEMBERS = IDS[:7]
STRANGER = "stranger"


def iso(time_ns: int) -> str:
    """A time as the plan format writes it; whole microseconds only."""
    return datetime.fromtimestamp(time_ns // NS_PER_S, UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{time_ns % NS_PER_S // 1000:06d}Z"


class Drawing:
    """Draws facts against what an oracle holds right now. All it draws with is `one_of` and `number`."""

    def __init__(self, draw: DrawFn, oracle: Oracle) -> None:
        self._draw = draw
        self.oracle = oracle

    # ------------------------------------------------------------------------------------------------------------------- pieces

    def one_of(self, choices: Sequence[T]) -> T:
        """One of these; shrinks to the first."""
        chosen: T = self._draw(st.sampled_from(choices))
        return chosen

    def number(self, least: int, most: int) -> int:
        """A whole number between two, both included."""
        chosen: int = self._draw(st.integers(least, most))
        return chosen

    def rarely(self, one_in: int = 8) -> bool:
        """About one time in so many. Not from `number`, which favours the ends of its range."""
        return self.one_of((False,) * (one_in - 1) + (True,))

    def mostly(self, one_in: int = 4) -> bool:
        """All but one time in so many."""
        return not self.rarely(one_in)

    def time(self) -> int:
        """Some time in the first weeks, sometimes a microsecond or second beside the day, or where a plan starts or ends."""
        edges = [edge for _, _, plan in self.oracle.plans() for edge in (plan.effective_from, plan.effective_until) if edge]
        if edges and self.rarely(4):
            return self.one_of(edges) + self.one_of((0, -US, US))
        return START + self.number(0, 20) * DAY_NS + self.one_of((0, 0, 0, US, -US, NS_PER_S))

    def new_id(self, kind: type[Write]) -> str:
        """An id that this kind of fact has not used."""
        used = sum(isinstance(fact, kind) for fact in self.oracle.log)
        return IDS[used] if used < len(IDS) else f"n{used}"

    def member(self) -> str:
        """Somebody enrolled, rarely a stranger."""
        known = self.oracle.members()
        return STRANGER if not known or self.rarely(12) else self.one_of(known)

    def buyer(self) -> str:
        """Mostly somebody whom somebody brought; rarely a stranger."""
        brought = [member_id for member_id in self.oracle.members() if self.oracle.binding(member_id).referrer_id]
        return self.one_of(brought) if brought and self.mostly() else self.member()

    def any_kind(self, facts: Sequence[Write]) -> Write:
        """One of these; every kind among them as likely as any other, the rare ones first."""
        kinds = sorted(Counter(map(type, facts)).items(), key=lambda kind: kind[1])
        chosen = self.one_of([kind for kind, _ in kinds])
        return self.one_of([fact for fact in facts if type(fact) is chosen])

    def some_order(self) -> Order | None:
        """A recorded order, the newest ones as likely as all others together; rarely none."""
        orders = [fact for fact in self.oracle.log if isinstance(fact, Order)]
        if not orders or self.rarely(16):
            return None
        return self.one_of(orders[-2:] if self.rarely(2) else orders)

    def currency(self) -> str:
        """The program's, rarely another."""
        return "USD" if self.rarely(16) else CURRENCY

    # ---------------------------------------------------------------------------------------------------------------- the facts

    def publish_plan(self) -> PublishPlan:
        """The next version of one of two plans; rarely a version out of order, another currency, or a broken document."""
        return self.plan(valid=False)

    def plan(self, *, valid: bool) -> PublishPlan:
        """A plan that is always in force and right, or any."""
        plan_id = self.one_of(("main", "side"))
        version = 1 + sum(plan.plan_id == plan_id for _, _, plan in self.oracle.plans())
        document: dict[str, object] = {
            "plan": plan_id,
            "version": version + (0 if valid or self.mostly(10) else 1),
            "currency": CURRENCY if valid else self.currency(),
            "tiers": list(self.one_of((TIERS, TIERS[:2], TIERS[1:]))),
        }
        document["rules"] = self.rules(document["tiers"])
        if valid and self.rarely(4):
            document["effective"] = {"from": iso(START - 2 * DAY_NS), "until": iso(START + self.number(5, 15) * DAY_NS)}
        if not valid and self.rarely(3):
            start, length = self.number(-3, 20), self.number(1, 30)
            document["effective"] = {"from": iso(START + start * DAY_NS)}
            if self.rarely(2):
                document["effective"] = {"from": iso(START + start * DAY_NS), "until": iso(START + (start + length) * DAY_NS)}
        binding = {"touch": self.one_of(("", "last", "first")), "on_full_refund": self.one_of(("", "keep", "release", "release"))}
        binding = {key: value for key, value in binding.items() if value}
        if binding:
            document["binding"] = binding
        if self.rarely(2):
            document["release"] = {"days": self.one_of((0, 7, 1, 30))}
        if not valid and self.rarely(12):
            document[self.one_of(("colour", "rule"))] = "red"
        return PublishPlan(json.dumps(document, indent=self.one_of((None, 2))), START + self.number(-2, 10) * DAY_NS)

    def rules(self, tiers: object) -> list[dict[str, object]]:
        """One to four rules that together pay at most the base; with one alone up to all of it."""
        assert isinstance(tiers, list)
        count = self.number(1, 4)
        rates = (*RATES, "100%", "50%", "99.999999999%") if count == 1 else RATES
        rules: list[dict[str, object]] = []
        for index in range(count):
            generation = self.one_of((1, 0, 2, 3, 1, 2))
            rule: dict[str, object] = {"id": f"r{index}", "kind": "generation" if generation else "self"}
            if generation:
                rule["generation"] = generation
            if self.mostly(3):
                rule["rate"] = self.one_of(rates)
            else:
                named = [tier for tier in tiers if self.rarely(2)] or tiers[:1]
                rule["rates"] = {tier: self.one_of(rates) for tier in named}
            if self.rarely(3):
                rule["release"] = {"days": self.one_of((14, 2, 0))}
            if self.rarely(4):
                rule["when"] = self.one_of(
                    (
                        {"kinds": ["goods"]},
                        {"kinds": ["fee", "gift_pack"]},
                        {"skus": ["A1", "A2"]},
                        {"categories": ["tea"], "skus": ["A1"]},
                        {},
                    )
                )
            rules.append(rule)
        return rules

    def enroll(self) -> Enroll:
        """The next member of the cast, brought by one of those before, by nobody, or wrongly by a stranger or themselves."""
        member_id = self.one_of([who for who in MEMBERS if who not in self.oracle.members()] or MEMBERS)
        referrer_id = self.member() if self.mostly() else self.one_of(("", member_id))
        return Enroll(member_id, referrer_id, self.time())

    def opening(self) -> list[Write]:
        """A few members in some tree, and mostly a plan: what a story needs to go anywhere."""
        count = self.number(3, 5)
        above = [""] + [self.one_of((MEMBERS[index - 1], MEMBERS[max(0, index - 2)], MEMBERS[index - 1], "")) for index in range(1, count)]
        enrolled = [Enroll(member_id, referrer_id, START) for member_id, referrer_id in zip(MEMBERS, above, strict=False)]
        plans = [] if self.rarely(10) else [replace(self.plan(valid=True), published_at=START - 2 * DAY_NS)]
        return [*enrolled, *plans]

    def touch(self) -> Touch:
        """Anybody touches anybody, themselves included."""
        return Touch(self.new_id(Touch), self.member(), self.member(), self.time(), self.one_of(("", "live room 3", "扫码")))

    def upgrade(self) -> Upgrade:
        """Into any tier, on all kinds of evidence."""
        kind = self.one_of((EVIDENCE_SEAT_GRANTED, EVIDENCE_PAID_ORDER, EVIDENCE_PAID_ORDER))
        order = self.some_order()
        order_id = "" if self.rarely(3) else order.order_id if order else "O404"
        tier = self.one_of((*TIERS, "captain") if self.rarely() else TIERS)
        return Upgrade(self.new_id(Upgrade), self.member(), tier, self.time(), kind, order_id)

    def correct(self) -> Correct:
        """Towards anybody or nobody; rarely approved by the one who asked."""
        to = "" if self.rarely(5) else self.member()
        approved_by = "lin" if self.rarely() else "zhao"
        return Correct(self.new_id(Correct), self.member(), to, self.time(), approved_by=approved_by)

    def order(self) -> Order:
        """One to three lines, at a time some plan is likely in force."""
        if self.rarely(12):  # several things wrong at once: which one is told is part of the contract
            who, currency = self.one_of((STRANGER, self.buyer())), self.one_of(("USD", CURRENCY))
            return Order(self.new_id(Order), who, START - 900 * DAY_NS, currency, (Line(1, 100),))
        paid_at = self.time()
        plan = self.oracle.plan_in_force(paid_at)
        rules = plan[1].rules if plan else ()
        numbers = self.one_of(((1,), (1, 2), (2, 1), (1, 5, 4_000_000_000)))
        return Order(self.new_id(Order), self.buyer(), paid_at, self.currency(), tuple(self.line(number, rules) for number in numbers))

    def line(self, line_no: int, rules: Sequence[Rule]) -> Line:
        """A line whose base often makes some rule's share end in a half."""
        return Line(
            line_no=line_no,
            base_minor=self.base(rules, 10**12),
            quantity=self.one_of((1, 2, 3, 10**12)),
            sku=self.one_of(("", "A1", "A2", "B7")),
            category=self.one_of(("", "tea", "茶")),
            kind=self.one_of((KIND_GOODS, KIND_UNSPECIFIED, KIND_GIFT_PACK, KIND_FEE)) if self.rarely(3) else KIND_GOODS,
        )

    def base(self, rules: Sequence[Rule], most: int) -> int:
        """A base up to `most`."""
        rates = [rate for rule in rules for rate in (rule.one_rate, *rule.rates.values()) if rate]
        halves = [rate.denominator // 2 for rate in rates if rate.denominator % 2 == 0 and rate.denominator // 2 <= most]
        if halves and self.mostly():
            half = self.one_of(halves)
            return half * (2 * self.number(0, min(40, (most // half - 1) // 2)) + 1)
        return self.number(0, min(most, 30_000)) if self.mostly(10) else self.one_of((most, 0, min(1, most)))

    def complete(self) -> Complete:
        """Some time after payment; rarely before it, rarely a second time."""
        completed = {fact.order_id for fact in self.oracle.log if isinstance(fact, Complete)}
        waiting = [fact for fact in self.oracle.log if isinstance(fact, Order) and fact.order_id not in completed]
        order = self.one_of(waiting) if waiting and self.mostly(10) else self.some_order()
        if order is None:
            return Complete("O404", self.time())
        later = self.one_of((0, NS_PER_S, 3 * DAY_NS, US)) if self.mostly(10) else -US
        return Complete(order.order_id, order.paid_at + later)

    def refund(self, order: Order | None = None) -> Refund:
        """Of some lines, any part of what remains, often so that what stays ends in a half; rarely too much, or dated too early."""
        order = order or self.some_order()
        refund_id = self.one_of((*IDS[:3], f"credit-{len(self.oracle.log)}", f"credit-{len(self.oracle.log)}"))
        if order is None:
            return Refund(refund_id, "O404", self.time(), (RefundLine(1, 0, 1),))
        refunded_at = order.paid_at + (self.one_of((0, DAY_NS, 400 * DAY_NS)) if self.mostly(12) else -US)
        state = self.oracle.order_state(order.order_id)
        plan = self.oracle.plan_in_force(order.paid_at)
        rules = plan[1].rules if plan else ()
        lines = []
        everything = self.rarely(4)
        keeps_units = everything and self.rarely(3)
        for line_no, (base, quantity) in state.lines.items():
            if everything:
                if base or quantity:
                    lines.append(RefundLine(line_no, 0 if keeps_units and base else quantity, base))
            elif self.mostly(3):
                keep = self.base(rules, base) if base else 0
                too_much = 1 if self.rarely(12) else 0
                lines.append(RefundLine(line_no, self.one_of((0, quantity, min(1, quantity))), base - keep + too_much))
                if self.rarely(8):
                    lines.append(RefundLine(line_no, 0, min(1, keep)))
        if not lines or self.rarely(16):
            lines.append(RefundLine(7, 1, 0) if self.rarely(2) else RefundLine(order.lines[0].line_no, 0, 1))
        sensible = tuple(line for line in lines if line.quantity or line.base_minor)
        return Refund(refund_id, order.order_id, refunded_at, sensible or tuple(lines))

    def release_due(self) -> ReleaseDue:
        """Exactly when something is due, a microsecond before, or much later; sometimes only one or two orders."""
        completed = [fact for fact in self.oracle.log if isinstance(fact, Complete)]
        days = sorted({rule.days for _, _, plan in self.oracle.plans() for rule in plan.rules})
        as_of = START + 400 * DAY_NS
        if completed and days and self.mostly(3):
            as_of = self.one_of(completed).completed_at + self.one_of(days) * DAY_NS - self.one_of((0, 0, US))
        return ReleaseDue(as_of, self.one_of((0, 1, 2)))

    def place_hold(self) -> PlaceHold:
        """On a member or on an order."""
        order = self.some_order()
        if self.rarely(2):
            return PlaceHold(self.new_id(PlaceHold), self.member(), "", self.time())
        return PlaceHold(self.new_id(PlaceHold), "", order.order_id if order else "O404", self.time())

    def lift_hold(self) -> LiftHold:
        """Of a hold that was placed; rarely of none. Never dated before it was placed."""
        holds = [fact for fact in self.oracle.log if isinstance(fact, PlaceHold)]
        if not holds or self.rarely():
            return LiftHold("H404", self.time())
        hold = self.one_of(holds)
        return LiftHold(hold.hold_id, hold.placed_at + self.number(0, 3) * DAY_NS)

    def request_payout(self) -> RequestPayout:
        """All that is available, part of it, or a little too much."""
        rich = [member_id for member_id, balance in self.oracle.balances().items() if balance.available]
        member_id = self.one_of(rich) if rich and self.mostly(8) else self.member()
        available = self.oracle.balance(member_id).available
        amount = self.one_of((available, max(1, available // 2), available + 1, available))
        return RequestPayout(self.new_id(RequestPayout), member_id, max(1, amount), self.currency(), self.time())

    def credit(self) -> Adjust:
        """A little for somebody."""
        return Adjust(self.new_id(Adjust), self.member(), ADJUST_CORRECTION, self.one_of((1200, 1, 10**12)), CURRENCY, self.time())

    def close_payout(self) -> ConfirmPayout | FailPayout:
        """Paid or failed, whatever the payout's state; never dated before the request."""
        requests = [fact for fact in self.oracle.log if isinstance(fact, RequestPayout)]
        if not requests or self.rarely():
            return ConfirmPayout("P404", START) if self.rarely(2) else FailPayout("P404", START)
        request = self.one_of(requests)
        at = request.requested_at + self.number(0, 2) * DAY_NS
        if self.rarely(2):
            return ConfirmPayout(request.payout_id, at, self.one_of(("", "ICBC 7")))
        return FailPayout(request.payout_id, at)

    def adjust(self) -> Adjust:
        """Corrections either way around what there is, and write-offs around the debt; rarely approved by the one who asked."""
        if self.rarely(6):  # several things wrong at once, as for an order
            who, currency = self.one_of((STRANGER, self.member())), self.one_of(("USD", CURRENCY))
            approved_by = self.one_of(("lin", "zhao"))
            return Adjust(self.new_id(Adjust), who, ADJUST_WRITE_OFF, 10**9, currency, self.time(), approved_by=approved_by)
        indebted = [member_id for member_id, balance in self.oracle.balances().items() if balance.debt]
        member_id = self.one_of(indebted) if indebted and self.mostly() else self.member()
        balance = self.oracle.balance(member_id)
        if (balance.debt and self.mostly(3)) or self.rarely():
            kind, amount = ADJUST_WRITE_OFF, self.one_of((balance.debt, 1, balance.debt + 1, max(1, balance.debt // 2)))
        else:
            kind = ADJUST_CORRECTION
            amount = self.one_of((1200, -balance.available, balance.debt, -balance.available - 50, balance.debt + 7, -1)) or 1
        approved_by = "lin" if self.rarely() else "zhao"
        return Adjust(self.new_id(Adjust), member_id, kind, amount, self.currency(), self.time(), approved_by=approved_by)

    def trade(self) -> Write:
        """Something of what makes money move, the common things more often."""
        kinds: list[Callable[[], Write]] = [self.refund] * 6 + [self.order] * 4 + [self.complete] * 4 + [self.release_due] * 3
        if any(balance.available for balance in self.oracle.balances().values()):
            kinds += [self.request_payout] * 3
        if any(isinstance(fact, RequestPayout) for fact in self.oracle.log):
            kinds += [self.close_payout] * 3
        if any(isinstance(fact, PlaceHold) for fact in self.oracle.log):
            kinds += [self.lift_hold]
        return self.one_of([*kinds, self.adjust, self.place_hold, self.lift_hold])()

    def about_people(self) -> Write:
        """Something of what makes members, bindings, tiers and plans."""
        kinds: list[Callable[[], Write]] = [self.upgrade] * 2 + [self.touch] * 2 + [self.correct, self.enroll, self.publish_plan]
        return self.one_of(kinds)()

    def anything(self, told: Sequence[Write]) -> Write:
        """The next fact of a story, after these: mostly trade, sometimes people; one in eight repeated, reused or malformed."""
        recorded = [fact for fact in told if fact in self.oracle.log]
        if not recorded or self.mostly(8):
            return self.trade() if self.mostly(4) else self.about_people()
        return self.malformed() if self.rarely(4) else self.again(told) if self.rarely(4) else self.again(recorded)

    def again(self, told: Sequence[Write]) -> Write:
        """Something told before, word for word, or its id with other content."""
        fact = self.any_kind(told)
        return self.reused(fact) if self.rarely(2) else fact

    def at_once(self, count: int) -> list[Write]:
        """Facts that do not know of each other, some under one id: what several callers tell at the same time."""
        kinds: list[Callable[[], Write]] = [self.request_payout] * 3 + [self.touch] * 2 + [self.order] * 2 + [self.refund] * 2
        kinds += [self.complete, self.close_payout, self.correct, self.upgrade, self.adjust, self.place_hold, self.lift_hold, self.enroll]
        facts = [self.one_of(kinds)() for _ in range(count)]
        return [self.renamed(fact, f"once-{len(self.oracle.log)}-{self.number(1, count)}") for fact in facts]

    def renamed(self, fact: Write, new_id: str) -> Write:
        """The same under another id, if the id is the caller's to choose."""
        match fact:
            case RequestPayout():
                return replace(fact, payout_id=new_id)
            case Touch():
                return replace(fact, touch_id=new_id)
            case Order():
                return replace(fact, order_id=new_id)
            case Refund():
                return replace(fact, refund_id=new_id)
            case Correct():
                return replace(fact, correction_id=new_id)
            case Upgrade():
                return replace(fact, upgrade_id=new_id)
            case Adjust():
                return replace(fact, adjustment_id=new_id)
            case PlaceHold():
                return replace(fact, hold_id=new_id)
            case _:
                return fact

    # ------------------------------------------------------------------------------------------------------------- told wrongly

    def reused(self, fact: Write) -> Write:
        """The same id with one thing changed, and well-formed still."""
        changes: list[tuple[str, object]] = []
        for spec in fields(fact):
            name, value = spec.name, getattr(fact, spec.name)
            if name.endswith("_at"):
                changes += [(name, value + self.one_of((NS_PER_S, -US, US)))]
            elif name == "amount_minor":
                changes += [(name, value + 1), (name, 0)]
            elif name == "currency":
                changes += [(name, "EUR")]
            elif name in ("reason", "channel", "reference", "evidence_note", "requested_by", "approved_by"):
                changes += [(name, value + "!")]
            elif name in ("tier", "referrer_id", "new_referrer_id") or (name == "member_id" and not isinstance(fact, Enroll | PlaceHold)):
                changes += [(name, self.one_of([other for other in (*MEMBERS, STRANGER) if other != value]))]
            elif name in ("as_of", "max_orders"):
                changes += [(name, value)]
            elif name == "evidence_kind":
                changes += [(name, value % 4 + 1)]
        if isinstance(fact, PlaceHold) and fact.member_id:
            changes += [("member_id", self.one_of([other for other in (*MEMBERS, STRANGER) if other != fact.member_id]))]
        if isinstance(fact, Order):
            changes += [("lines", self.changed_lines(fact.lines))] * 3
        if isinstance(fact, Refund):
            first = fact.lines[0]
            other = self.one_of((replace(first, base_minor=first.base_minor + 1), replace(first, quantity=first.quantity + 1)))
            changes += [("lines", (other, *fact.lines[1:])), ("lines", (*fact.lines, RefundLine(first.line_no, 1, 0)))]
        if isinstance(fact, PublishPlan):
            document = json.loads(fact.document)
            document["rules"][0]["id"] += "x"
            changes += [("document", json.dumps(document))]
        name, value = self.one_of(changes)
        return replace(fact, **{name: value})  # type: ignore[arg-type] # the name is one of this fact's fields, the value of its type

    def changed_lines(self, lines: tuple[Line, ...]) -> tuple[Line, ...]:
        """The lines of an order with one thing told differently."""
        first, others = lines[0], lines[1:]
        changed = (
            (replace(first, base_minor=first.base_minor - 1 if first.base_minor else 1), *others),
            (replace(first, quantity=first.quantity - 1 if first.quantity > 1 else 2), *others),
            (replace(first, sku=first.sku + "x"), *others),
            (replace(first, category=first.category + "x"), *others),
            (replace(first, kind=KIND_FEE if first.kind != KIND_FEE else KIND_GOODS), *others),
            (*lines, Line(77, 0)),
        )
        return self.one_of(changed)

    def malformed(self) -> Write:
        """Something the contract does not allow, under an id not used yet."""
        return self.any_kind(self.malformed_facts())

    def malformed_facts(self) -> tuple[Write, ...]:
        """One of each that the contract does not allow."""
        who = self.oracle.members()[0] if self.oracle.members() else STRANGER
        orders = self.oracle.order_ids()
        new = f"bad-{len(self.oracle.log)}"
        line = Line(1, 100)
        return (
            Enroll("", "", START),
            Enroll("a b", "", START),
            Enroll("a/b", "", START),
            Enroll("x" * 101, "", START),
            Enroll("王", "", START),
            Enroll("a\n", "", START),
            Enroll(new, "", START + 1),
            Complete(orders[0] if orders else "O404", START + 999),
            Order(new, who, START + 1, CURRENCY, (line,)),
            Touch(new, who, "", START),
            Touch("", who, who, START),
            Upgrade(new, who, "", START),
            Upgrade(new, who, "member", START, evidence_kind=0),
            Correct(new, who, who, START, reason=""),
            Correct(new, who, who, START, requested_by=""),
            Order(new, who, START, "cny", (line,)),
            Order(new, who, START, CURRENCY, ()),
            Order(new, who, START, CURRENCY, (line, line)),
            Order(new, who, START, CURRENCY, (Line(0, 100),)),
            Order(new, who, START, CURRENCY, (Line(1, -1),)),
            Order(new, who, START, CURRENCY, (Line(1, 10**12 + 1),)),
            Order(new, who, START, CURRENCY, (Line(1, 1, quantity=0),)),
            Order(new, who, START, CURRENCY, (Line(1, 1, kind=9),)),
            Order(new, who, START, CURRENCY, (Line(1, 1, sku="s" * 101),)),
            Complete("", START),
            Refund(new, orders[0] if orders else "O404", START, ()),
            Refund(new, orders[0] if orders else "O404", START, (RefundLine(1, 0, 0),)),
            Refund(new, orders[0] if orders else "O404", START, (RefundLine(1, 1, 1), RefundLine(1, 0, 0))),
            Refund(new, orders[0] if orders else "O404", START, (RefundLine(1, -1, 1),)),
            ReleaseDue(START, 501),
            PlaceHold(new, "", "", START),
            PlaceHold(new, who, "", START, reason=""),
            LiftHold(new, START, reason=""),
            RequestPayout(new, who, 0, CURRENCY, START),
            RequestPayout(new, who, -1, CURRENCY, START),
            RequestPayout(new, who, 1, "", START),
            ConfirmPayout(new, START, reference="r" * 201),
            FailPayout(new, START, reason=""),
            Adjust(new, who, ADJUST_CORRECTION, 0, CURRENCY, START),
            Adjust(new, who, ADJUST_WRITE_OFF, -1, CURRENCY, START),
            Adjust(new, who, 0, 1, CURRENCY, START),
            Adjust(new, who, ADJUST_CORRECTION, 1, CURRENCY, START, reason=""),
        )


class RandomDrawing(Drawing):
    """The same from a random generator: for stories that do not go the same way twice, which Hypothesis cannot replay or shrink."""

    def __init__(self, generator: Random, oracle: Oracle) -> None:
        super().__init__(lambda strategy: None, oracle)
        self._generator = generator

    def one_of(self, choices: Sequence[T]) -> T:
        return self._generator.choice(choices)

    def number(self, least: int, most: int) -> int:
        return self._generator.randint(least, most)
