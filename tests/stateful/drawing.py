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
from typing import Any, TypeVar, cast

from hypothesis import strategies as st

from tests.oracle.facts import (
    ADJUST_CORRECTION,
    ADJUST_WRITE_OFF,
    DAY_NS,
    DEPOSIT_FORFEITED,
    DEPOSIT_PAID_IN,
    DEPOSIT_RETURNED,
    EVIDENCE_IMPORT,
    EVIDENCE_PAID_ORDER,
    EVIDENCE_SEAT_GRANTED,
    KIND_FEE,
    KIND_GIFT_PACK,
    KIND_GOODS,
    KIND_UNSPECIFIED,
    NS_PER_S,
    Adjust,
    Attribution,
    ClosePeriod,
    Complete,
    ConfirmPayout,
    Correct,
    EndRole,
    Enroll,
    FailGroup,
    FailPayout,
    FormGroup,
    GrantRole,
    LiftHold,
    Line,
    MoveDeposit,
    OpenBalance,
    OpenGroup,
    Order,
    PlaceHold,
    PublishPlan,
    RecordTask,
    Refund,
    RefundLine,
    ReleaseDue,
    RequestPayout,
    SealBooks,
    StockLine,
    Touch,
    TransferStock,
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
ROLES = ("creator", "store", "region", "partner")
PLACES = ("S1", "R1", "R2")
TASKS = ("checkin", "任务")
# Rates of rules beside others, so that together they stay below the base.
SMALL = ("5%", "2.5%", "1%", "0.5%", "3.333333333%", "7.77%", "0.000000001%", "0%", "4%", "6%")
KINDS_OF_RULES = (
    *("generation", "self", "differential", "peer", "attributed", "pool", "pool by period", "volume", "rank", "counted", "counted"),
    *("on invite", "on upgrade", "on group_formed", "on task"),
)


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
        closed = [book.order for book in self.oracle.books.orders.values() if book.period_id in self.oracle.books.periods]
        if closed and self.rarely(2):
            return self.one_of(closed)
        return self.one_of(orders[-2:] if self.rarely(2) else orders)

    def newest_rules(self) -> list[Rule]:
        """The rules that orders are likely recorded under."""
        return [rule for _, _, plan in self.oracle.plans()[-2:] for rule in plan.rules]

    def role(self) -> str:
        """Mostly a role that a rule looks at."""
        looked_at = sorted({rule.role for rule in self.newest_rules() if rule.role})
        return self.one_of(looked_at) if looked_at and self.mostly(6) else self.one_of(ROLES)

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
        rich = self.mostly(3)
        if rich:
            document |= self.surroundings()
        if valid and self.rarely(4):
            document["effective"] = {"from": iso(START - 2 * DAY_NS), "until": iso(START + self.number(5, 15) * DAY_NS)}
        if not valid and self.rarely(3):
            start, length = self.number(-3, 20), self.number(1, 30)
            document["effective"] = {"from": iso(START + start * DAY_NS)}
            if self.rarely(2):
                document["effective"] = {"from": iso(START + start * DAY_NS), "until": iso(START + (start + length) * DAY_NS)}
        if document.get("period") == "campaign" and "until" not in dict(document.get("effective", {})):  # type: ignore[call-overload]
            document["period"] = "week"
        document["rules"] = self.many_rules(document) if rich else self.rules(document["tiers"])
        if rich and self.rarely(3):
            document["overrides"] = self.overrides(document)
        if rich and self.rarely(2):
            document |= self.promotions(document)
        binding = {
            "touch": self.one_of(("", "last", "first", "order")),
            "on_full_refund": self.one_of(("", "keep", "release", "release")),
        }
        binding = {key: value for key, value in binding.items() if value}
        if binding:
            document["binding"] = binding
        if self.rarely(2):
            document["release"] = self.release(document) if rich else {"days": self.one_of((0, 7, 1, 30))}
        if not valid and self.rarely(12):
            document[self.one_of(("colour", "rule"))] = "red"
        return PublishPlan(json.dumps(document, indent=self.one_of((None, 2))), START + self.number(-2, 10) * DAY_NS)

    def surroundings(self) -> dict[str, object]:
        """Points, a period and a zone; all plans of a story have one zone."""
        found: dict[str, object] = {}
        zones = {plan.zone_ns for _, _, plan in self.oracle.plans()}
        east = zones == {8 * 3600 * NS_PER_S} or (not zones and self.rarely(2))
        if east:
            found["zone"] = "+08:00"
        if self.rarely(2):
            found["points"] = ["points"]
        if self.mostly(4):
            found["period"] = self.one_of(("week", "day", "month", "campaign", "week"))
        return found

    def release(self, document: dict[str, object]) -> dict[str, object]:
        """Any release that the plan can have."""
        ways = ["completion", "completion", "at_once", "group_formed", "period_close"]
        on = self.one_of(ways)
        days = self.one_of((0, 7, 1, 2))
        return {"days": days} if on == "completion" else {"on": on, "days": 0 if on == "at_once" else days}

    def when(self) -> dict[str, object]:
        """Some conditions; mostly such as lines meet."""
        return self.one_of(
            (
                {"kinds": ["goods"]},
                {"kinds": ["fee", "gift_pack"]},
                {"skus": ["A1", "A2"]},
                {"categories": ["tea"], "skus": ["A1"]},
                {"stores": ["S1", MEMBERS[0]]},
                {"regions": ["R1"]},
                {"weekdays": ["thu", "fri", "sat"]},
                {"days": [1, 2, 3, 4, 5, 8, 20]},
                {"from": iso(START + 3 * DAY_NS), "until": iso(START + 15 * DAY_NS)},
                {"min_order_minor": self.one_of((1000, 20_000))},
                {},
            )
        )

    def by_tier(self, tiers: Sequence[str], amounts: Sequence[T]) -> dict[str, T]:
        """An amount for some tiers."""
        named = [tier for tier in tiers if self.mostly(3)] or list(tiers[:1])
        return {tier: self.one_of(amounts) for tier in named}

    def amounts(self, tiers: Sequence[str]) -> dict[str, object]:
        """A rate, rates, fixed amounts, or both."""
        found: dict[str, object] = {}
        way = self.one_of(("rate", "rates", "rates", "fixed", "fixed by tier", "both"))
        if way in ("rate", "both"):
            found["rate"] = self.one_of(SMALL)
        if way == "rates":
            found["rates"] = self.by_tier(tiers, SMALL)
        if way == "fixed":
            found["fixed_minor"] = self.one_of((0, 1, 77, 300))
        if way in ("fixed by tier", "both"):
            found["fixed_minor"] = self.by_tier(tiers, (0, 5, 120))
        if "fixed_minor" in found and self.rarely(3):
            found["per"] = "order"
        return found

    def one_amount(self) -> dict[str, object]:
        """A rate or one fixed amount."""
        return {"rate": self.one_of(SMALL)} if self.mostly(3) else {"fixed_minor": self.one_of((33, 0, 500))}

    def many_rules(self, document: dict[str, object]) -> list[dict[str, object]]:
        """One to six rules of any kinds; a rule of one id is of one kind in all plans of a story."""
        tiers = cast(list[str], document["tiers"])
        by_period = ("pool by period", "volume", "rank")
        kinds = KINDS_OF_RULES
        rules: list[dict[str, object]] = []
        for kind in sorted((self.one_of(kinds) for _ in range(self.number(1, 6))), key=lambda kind: kind == "peer"):
            number = sum(str(rule["id"]).startswith(kind.replace(" ", "-")) for rule in rules)
            rule: dict[str, object] = {"id": f"{kind.replace(' ', '-')}.{number}", **self.rule_of(kind, tiers, rules)}
            if self.rarely(3):
                rule["release"] = self.release(document)
                if kind in by_period and self.rarely(2):
                    rule["release"] = {"on": "at_once"}
            if self.rarely(3) and kind != "on task":
                rule["when"] = self.when()
            if "points" in document and self.rarely(4):
                rule["asset"] = "points"
            if kind in ("self", "generation", "differential", "peer", "attributed", "pool", "on group_formed") and self.rarely(3):
                caps = {"order": self.one_of((50, 400, 0)), "period": self.one_of((60, 300, 900))}
                rule["cap_minor"] = {key: caps[key] for key in self.one_of((("order", "period"), ("order",), ("period",), ("period",)))}
            rules.append(rule)
        return rules

    def rule_of(self, kind: str, tiers: list[str], before: Sequence[dict[str, object]]) -> dict[str, object]:
        """What only a rule of this kind says."""
        match kind:
            case "self":
                return {"kind": kind, **self.amounts(tiers)}
            case "generation":
                more = {"skip_unqualified": True, "depth": self.one_of((3, 5))} if self.rarely(3) else {}
                return {"kind": kind, "generation": self.one_of((1, 2, 3)), **self.amounts(tiers), **more}
            case "differential" | "peer":
                found: dict[str, object] = {"kind": kind, "rates": self.by_tier(tiers, SMALL)}
                if self.rarely(4):
                    found["fixed_minor"] = self.by_tier(tiers, (0, 50, 150))
                if self.rarely(3):
                    found["depth"] = self.one_of((1, 2, 3))
                if kind == "differential":
                    return {**found, "buyer": self.one_of(("out", "earns", "deducts"))}
                if self.rarely(3):
                    found["times"] = 2
                of = [rule["id"] for rule in before if rule["kind"] in ("self", "generation", "differential", "attributed")]
                if of and self.mostly(3):
                    found["of"] = self.one_of(of)
                    if "fixed_minor" not in found and self.rarely(2):
                        found["base"] = "income"
                return found
            case "attributed":
                how = self.one_of(("both", "exclusive", "split"))
                share = {"referrer_share": self.one_of(("40%", "33.3%", "0%"))} if how == "split" else {}
                return {"kind": kind, "role": self.one_of(ROLES[:3]), "with_referrer": how, **share, **self.one_amount()}
            case "pool":
                total = {"of_total": self.one_of((3, 10))} if self.rarely(2) else {}
                return {"kind": kind, "role": "partner", "split": self.one_of(("shares", "seats")), **total, **self.one_amount()}
            case "pool by period":
                who = {"role": "partner"} if self.rarely(2) else {"tiers": list(self.by_tier(tiers, (0,)))}
                split = self.one_of(("shares", "seats", "volume"))
                total = {"of_total": self.one_of((3, 10))} if split != "volume" and self.rarely(2) else {}
                volume = {"volume": self.one_of(("own", "team"))} if split == "volume" else {}
                return {"kind": "pool", "per": "period", **who, "split": split, **total, **volume, "rate": self.one_of(SMALL)}
            case "volume":
                brackets = self.one_of(
                    (
                        [{"from_minor": 0, "rate": "1%"}, {"from_minor": 10_000, "rate": "3%"}],
                        [{"from_minor": 500, "rate": "0.5%"}, {"from_minor": 5_000, "rate": "2.5%"}, {"from_minor": 50_000, "rate": "4%"}],
                    )
                )
                return {"kind": kind, "brackets": brackets, **({"tiers": list(self.by_tier(tiers, (0,)))} if self.rarely(3) else {})}
            case "rank":
                board = self.one_of(("invites", "own", "direct", "team"))
                places = self.one_of(([1000, 500, 250], [100], [7, 5, 3, 2]))
                least = {"at_least": self.one_of((1, 2))} if board == "invites" else {"at_least": 5000} if self.rarely(3) else {}
                return {"kind": kind, "board": board, "places_minor": places, **least}
            case "counted":
                most = {"most": self.one_of((1, 2))} if self.rarely(3) else {}
                return {"kind": kind, "at": self.one_of((1, 2, 2)), "fixed_minor": 600, "repeat": self.mostly(3), **most}
            case "on task":
                to = self.one_of(({"member": 50}, {"member": 50, "referrer": 80}))
                most = {"most": self.one_of((1, 2))} if self.rarely(2) else {}
                return {"kind": "triggered", "on": "task", "task": self.one_of(TASKS), "to": to, **most}
            case "on group_formed":
                amount = self.one_amount()
                return {"kind": "triggered", "on": "group_formed", **amount, **self.group_per(amount)}
            case _:
                to = self.one_of(({"buyer": 500}, {"buyer": 500, "referrer": 1000}, {"referrer": 250}))
                tier = {"tier": self.one_of(tiers)} if kind == "on upgrade" and self.rarely(3) else {}
                return {"kind": "triggered", "on": kind.removeprefix("on "), "to": to, **tier}

    def group_per(self, how: dict[str, object]) -> dict[str, object]:
        """What a fixed amount for the opener is for."""
        return {"per": self.one_of(("unit", "order", "group"))} if "fixed_minor" in how else {}

    def overrides(self, document: dict[str, object]) -> list[dict[str, object]]:
        """Other amounts for some rules on some lines; [] becomes one that names nothing that counts."""
        tiers, rules = cast(list[str], document["tiers"]), cast(list[dict[str, object]], document["rules"])
        lines = ("self", "generation", "differential", "peer", "attributed", "pool")
        able = [rule for rule in rules if rule["kind"] in lines and rule.get("per") != "period"]
        found = []
        for _ in range(self.number(1, 2) if able else 0):
            rule = self.one_of(able)
            amounts: dict[str, object] = {"rate": self.one_of(SMALL)}
            if rule["kind"] in ("differential", "peer"):
                amounts = {"rates": self.by_tier(tiers, SMALL)}
            elif rule["kind"] in ("self", "generation") and self.rarely(2):
                amounts = {"fixed_minor": self.one_of((0, 40)), **({"per": "order"} if self.rarely(3) else {})}
            found.append({"when": self.when(), "rules": {str(rule["id"]): amounts}})
        return found

    def promotions(self, document: dict[str, object]) -> dict[str, object]:
        """Tiers that the plan gives, and what happens when their evidence is refunded; sometimes a quota of seats."""
        tiers = cast(list[str], document["tiers"])
        conditions: list[dict[str, object]] = [
            {"metric": "orders", "at_least": self.one_of((1, 2))},
            {"metric": "own_volume", "at_least": self.one_of((5_000, 20_000)), "days": self.one_of((1, 7))},
            {"metric": "own_volume", "at_least": self.one_of((5_000, 40_000))},
            {"metric": "team_volume", "at_least": self.one_of((10_000, 50_000)), "depth": self.one_of((1, 3))},
            {"metric": "team_volume", "at_least": self.one_of((10_000, 50_000)), "depth": 2, "days": 3},
            {"metric": "qualified_directs", "at_least": self.one_of((1, 2))},
            {"metric": "gift_packs", "at_least": 1},
            {"metric": "orders", "at_least": 2, "days": 7},
        ]
        promotions = [
            {"tier": tier, self.one_of(("any", "all")): [self.one_of(conditions) for _ in range(self.number(1, 2))]}
            for tier in tiers
            if self.mostly(3)
        ]
        found: dict[str, object] = {"on_evidence_refunded": self.one_of(("keep", "demote", "freeze", "demote"))}
        if promotions:
            found["promotions"] = promotions
        if self.rarely(2):
            found["seats"] = {self.one_of(tiers): 1}
        return found

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
                rule["when"] = self.when()
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
        kind = self.one_of((EVIDENCE_SEAT_GRANTED, EVIDENCE_PAID_ORDER, EVIDENCE_PAID_ORDER, EVIDENCE_SEAT_GRANTED, EVIDENCE_IMPORT))
        order = self.some_order()
        order_id = "" if self.rarely(3) else order.order_id if order else "O404"
        tier = self.one_of((*TIERS, "captain") if self.rarely() else TIERS)
        seats = [limited for _, _, plan in self.oracle.plans() for limited in plan.seats]
        if seats and self.rarely(2):
            kind, tier = EVIDENCE_SEAT_GRANTED, self.one_of(seats)
        upgrade = Upgrade(self.new_id(Upgrade), self.member(), tier, self.time(), kind, order_id)
        if kind == EVIDENCE_SEAT_GRANTED and self.rarely(2):
            return replace(upgrade, expires_at=upgrade.upgraded_at + (self.number(1, 12) * DAY_NS if self.mostly(12) else -US))
        return upgrade

    def correct(self) -> Correct:
        """Towards anybody or nobody; rarely approved by the one who asked."""
        to = "" if self.rarely(5) else self.member()
        approved_by = "lin" if self.rarely() else "zhao"
        locked = [member_id for member_id in self.oracle.members() if self.oracle.binding(member_id).locked]
        member_id = self.one_of(locked) if locked and self.mostly() else self.member()
        return Correct(self.new_id(Correct), member_id, to, self.time(), approved_by=approved_by)

    def order(self) -> Order:
        """One to three lines, at a time some plan is likely in force."""
        if self.rarely(12):  # several things wrong at once: which one is told is part of the contract
            who, currency = self.one_of((STRANGER, self.buyer())), self.one_of(("USD", CURRENCY))
            return Order(self.new_id(Order), who, START - 900 * DAY_NS, currency, (Line(1, 100),))
        paid_at = self.time()
        plan = self.oracle.plan_in_force(paid_at)
        rules = plan[1].rules if plan else ()
        numbers = self.one_of(((1,), (1, 2), (2, 1), (1, 5, 4_000_000_000)))
        order = Order(self.new_id(Order), self.buyer(), paid_at, self.currency(), tuple(self.line(number, rules) for number in numbers))
        states = {group_id: self.oracle.group_state(group_id).state for group_id in self.oracle.group_ids()}
        groups = [group_id for group_id, state in states.items() if state == "open"]
        if groups and self.rarely(2):
            order = replace(order, group_id=self.one_of(groups))
        elif self.rarely(24):
            order = replace(order, group_id=self.one_of(("G404", *(group_id for group_id, state in states.items() if state != "open"))))
        if self.rarely(4):
            order = replace(order, referrer_id=self.member())
        return replace(order, attributions=self.attributions()) if self.rarely(2) else order

    def attributions(self) -> tuple[Attribution, ...]:
        """One or two roles named, by member or by place."""
        named = []
        looked_at = tuple(sorted({rule.role for rule in self.newest_rules() if rule.kind == "attributed"})) or ROLES[:2]
        for role in self.one_of((looked_at, looked_at, ROLES[1:3], (ROLES[0], ROLES[0]))):
            by_place = self.rarely(2)
            named.append(Attribution(role, scope=self.one_of(PLACES)) if by_place else Attribution(role, self.member()))
        return tuple(dict.fromkeys(named))

    def line(self, line_no: int, rules: Sequence[Rule]) -> Line:
        """A line whose base often makes some rule's share end in a half."""
        return Line(
            line_no=line_no,
            base_minor=self.base(rules, 10**12),
            quantity=self.one_of((1, 2, 3, 10**12))
            if self.mostly(6) and not any(rule.amounts.one_fixed or rule.amounts.fixed for rule in rules)
            else 2,
            sku=self.one_of(("", "A1", "A2", "B7")),
            category=self.one_of(("", "tea", "茶")),
            kind=self.one_of((KIND_GOODS, KIND_UNSPECIFIED, KIND_GIFT_PACK, KIND_FEE)) if self.rarely(3) else KIND_GOODS,
            attributions=self.attributions() if self.rarely(5) else (),
        )

    def base(self, rules: Sequence[Rule], most: int) -> int:
        """A base up to `most`."""
        rates = [rate for rule in rules for rate in (rule.amounts.one_rate, *rule.amounts.rates.values()) if rate]
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
        everything = self.rarely(2 if any(rule.kind == "counted" for rule in rules) else 4)
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
        due = sorted({due_at for source in self.oracle.books.sources() for _, _, due_at in self.oracle.books.due(source)})
        as_of = START + 400 * DAY_NS
        if due and self.mostly(3):
            as_of = self.one_of(due) - self.one_of((0, 0, US))
        return ReleaseDue(as_of, self.one_of((0, 1, 2)))

    def open_group(self) -> OpenGroup:
        """By anybody."""
        return OpenGroup(self.new_id(OpenGroup), self.member(), START + self.number(-2, 5) * DAY_NS)

    def close_group(self) -> FormGroup | FailGroup:
        """Formed or failed, whatever the group's state; rarely before it was opened."""
        groups = self.oracle.group_ids()
        if not groups or self.rarely(12):
            return FormGroup("G404", START) if self.rarely(2) else FailGroup("G404", START)
        group_id = self.one_of(groups)
        orders = self.oracle.group_state(group_id).order_ids
        earliest = max([self.oracle.group_state(group_id).opened_at, *(self.oracle.order_state(order_id).paid_at for order_id in orders)])
        at = earliest + (self.number(0, 9) * DAY_NS if self.mostly(8) else -US)
        return FormGroup(group_id, at) if self.mostly(3) else FailGroup(group_id, at)

    def record_task(self) -> RecordTask:
        """Some task of somebody."""
        return RecordTask(self.new_id(RecordTask), self.member(), self.one_of((*TASKS, TASKS[0])), self.time())

    def close_period(self) -> ClosePeriod:
        """The period of some order, rarely before its end, or of a name that means nothing."""
        counting = sorted({book.period_id for book in self.oracle.books.orders.values() if book.period_id})
        at = START + 60 * DAY_NS
        if not counting or self.rarely(8):
            wrong = ("2026-01", "2026-W02", "2026-01-03", "main.1", "2026-13", "soon", "2026-W54", "2026-02-30", "2031-01-03", "2019-05")
            return ClosePeriod(self.one_of(wrong), at)
        period_id = self.one_of(counting)
        if self.rarely(4):
            found = self.oracle.books.plan_of_period(period_id)
            at = found[2].end - self.one_of((0, US)) if found else at
        return ClosePeriod(period_id, at)

    def seal_books(self) -> SealBooks:
        """Through one of the first days, mostly further than the last time; rarely through a time that cannot be, or that is to come."""
        last = self.oracle.books.sealed_through
        day = START + self.number(0, 22) * DAY_NS if last is None or self.rarely(4) else last + self.number(1, 6) * DAY_NS
        through = day + self.one_of((0, 0, 0, -8 * 3600 * NS_PER_S, 45 * 60 * NS_PER_S))
        sealed_at = through + self.one_of((0, 3 * DAY_NS, 3 * DAY_NS, US))
        if self.rarely(8):
            through, sealed_at = self.one_of(((through + US, sealed_at + US), (through, through - US)))
        return SealBooks(self.new_id(SealBooks), through, sealed_at)

    def grant_role(self) -> GrantRole:
        """A role at a place or everywhere, for a while or for good; rarely to a stranger, or for less than no time."""
        role = self.role()
        scope = "" if role == "partner" and self.mostly(8) else self.one_of((*PLACES[:2], *PLACES, ""))
        start = START + self.number(-3, 10) * DAY_NS
        until = 0 if self.mostly(3) else start + (self.number(1, 20) * DAY_NS if self.mostly(8) else 0)
        return GrantRole(self.new_id(GrantRole), self.member(), role, scope, self.one_of((0, 1, 2, 5)), start, START, until)

    def end_role(self) -> EndRole:
        """Of a role granted; rarely of none, or before it was granted."""
        grants = [fact for fact in self.oracle.log if isinstance(fact, GrantRole)]
        if not grants or self.rarely(12):
            return EndRole("R404", START)
        grant = self.one_of(grants)
        return EndRole(grant.grant_id, grant.effective_from + (self.one_of((0, 1, 2, 9)) * DAY_NS if self.mostly(8) else -US))

    def move_deposit(self) -> MoveDeposit:
        """In, back or forfeited; around what is held."""
        held = [member_id for member_id, balance in self.oracle.balances().items() if balance.deposit]
        member_id = self.one_of(held) if held and self.mostly() else self.member()
        deposit = self.oracle.balance(member_id).deposit
        kind = self.one_of((DEPOSIT_RETURNED, DEPOSIT_FORFEITED)) if deposit and self.mostly(3) else DEPOSIT_PAID_IN
        amount = self.one_of((500, 10_000)) if kind == DEPOSIT_PAID_IN else self.one_of((deposit, 1, deposit + 1))
        kind = DEPOSIT_RETURNED if self.rarely(16) else kind
        return MoveDeposit(self.new_id(MoveDeposit), member_id, kind, amount, self.currency(), self.time(), self.one_of(("", "contract 7")))

    def transfer_stock(self) -> TransferStock:
        """From anybody to anybody, at a gain or a loss; rarely to themselves."""
        lines = (StockLine("A1", self.number(1, 9), 500, self.one_of((700, 500, 450))), StockLine("", 1, 0, 10))
        return TransferStock(
            self.new_id(TransferStock), self.member(), self.member(), self.currency(), lines[: self.number(1, 2)], self.time()
        )

    def open_balance(self) -> OpenBalance:
        """What somebody had: available or owed, pending, paid."""
        member_id = self.member()
        balance = self.oracle.balance(member_id)
        owes = bool(balance.debt) or (self.rarely(3) and not balance.available)
        pending = self.one_of((0, 300))
        return OpenBalance(
            self.new_id(OpenBalance),
            member_id,
            self.currency(),
            self.time(),
            available_minor=0 if owes else self.one_of((0, 900)),
            pending_minor=pending,
            pending_due_at=START + 9 * DAY_NS if pending else 0,
            paid_minor=self.one_of((0, 4000)),
            debt_minor=150 if owes else 0,
        )

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
        orders = len(self.oracle.order_ids())
        kinds: list[Callable[[], Write]] = [self.order] * 8 + [self.complete, self.release_due, self.refund]
        kinds += [self.refund] * 8 + [self.complete] * 4 + [self.release_due] * 3 if orders > 1 else [self.order] * 8
        if any(balance.available for balance in self.oracle.balances().values()):
            kinds += [self.request_payout] * 3
        if any(isinstance(fact, RequestPayout) for fact in self.oracle.log):
            kinds += [self.close_payout] * 3
        if any(isinstance(fact, PlaceHold) for fact in self.oracle.log):
            kinds += [self.lift_hold]
        rare: list[Callable[[], Write]] = [self.move_deposit, self.transfer_stock, self.open_balance, self.close_period]
        rare += [self.open_group, self.close_group, self.record_task, self.grant_role, self.seal_books]
        return self.one_of([*kinds, *self.asked_for(), self.adjust, self.place_hold, self.lift_hold, self.one_of(rare)])()

    def asked_for(self) -> list[Callable[[], Write]]:
        """What the newest plans make something of."""
        rules, kinds = self.newest_rules(), list[Callable[[], Write]]()
        if any(rule.role for rule in rules):
            kinds += [self.grant_role] * 3
            kinds += [self.end_role] * 2 if any(isinstance(fact, GrantRole) for fact in self.oracle.log) else []
        if any(rule.on == "group_formed" or rule.release.on == "group_formed" for rule in rules):
            kinds += [self.close_group] * 2 if self.oracle.group_ids() else [self.open_group] * 3
        if any(rule.kind == "counted" for rule in rules):
            kinds += [self.order, self.order, self.refund, self.refund]
        if any(rule.on == "task" for rule in rules):
            kinds += [self.record_task] * 3
        if any(book.period_id for book in self.oracle.books.orders.values()):
            kinds += [self.close_period] * 3
        if self.oracle.period_ids():
            kinds += [*[self.correct] * 2, *[self.upgrade] * 2, *[self.refund] * 4]
        if self.oracle.books.sealed_through is not None:
            kinds += [self.seal_books] * 2
        if any(plan.seats for _, _, plan in self.oracle.plans()[-2:]):
            kinds += [self.upgrade] * 2
        return kinds

    def about_people(self) -> Write:
        """Something of what makes members, bindings, tiers and plans."""
        kinds: list[Callable[[], Write]] = [self.upgrade] * 3 + [self.touch] * 2 + [self.correct, self.enroll, self.publish_plan]
        kinds += [self.grant_role, self.end_role]
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
        kinds += [self.record_task, self.grant_role, self.end_role, self.close_group, self.close_period, self.move_deposit]
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
            case RecordTask():
                return replace(fact, task_id=new_id)
            case GrantRole():
                return replace(fact, grant_id=new_id)
            case MoveDeposit():
                return replace(fact, deposit_id=new_id)
            case _:
                return fact

    # ------------------------------------------------------------------------------------------------------------- told wrongly

    def reused(self, fact: Write) -> Write:
        """The same id with one thing changed, and well-formed still."""
        changes: list[tuple[str, object]] = []
        for spec in fields(fact):
            name, value = spec.name, getattr(fact, spec.name)
            if name in ("expires_at", "pending_due_at", "effective_until"):
                changes += [(name, value + DAY_NS)] if value else []
            elif name.endswith("_at"):
                changes += [(name, value + self.one_of((NS_PER_S, -US, US)))]
            elif name in ("effective_from", "paid_minor"):
                changes += [(name, value - US if name == "effective_from" else value + 1)]
            elif name == "through":
                changes += [(name, value - DAY_NS)]
            elif name in ("weight", "role", "scope", "task", "source", "opener_id"):
                changes += [(name, 7 if name == "weight" else f"{value}x")]
            elif name == "amount_minor":
                changes += [(name, value + 1), (name, 0)]
            elif name == "currency":
                changes += [(name, "EUR")]
            elif name in ("reason", "channel", "reference", "evidence_note", "requested_by", "approved_by", "sealed_by"):
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
        if isinstance(fact, TransferStock):
            changes += [("lines", (*fact.lines, StockLine("B", 1, 1, 1)))]
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
            (replace(first, attributions=(*first.attributions, Attribution("guide", scope="S1"))), *others),
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
            Order(new, who, START, CURRENCY, (line,), (Attribution("Creator", who),)),
            Order(new, who, START, CURRENCY, (line,), (Attribution("creator"),)),
            Order(new, who, START, CURRENCY, (line,), (Attribution("creator", who, "S1"),)),
            Order(new, who, START, CURRENCY, (line,), group_id="a b"),
            Upgrade(new, who, "member", START, EVIDENCE_PAID_ORDER, "", "", START + DAY_NS),
            GrantRole(new, who, "", "", 1, START, START),
            GrantRole(new, who, "creator", "", 1_000_001, START, START),
            GrantRole(new, who, "creator", "", 1, START, START, START),
            EndRole(new, START, reason=""),
            OpenGroup(new, "", START),
            FormGroup("", START),
            FailGroup(new, START, reason=""),
            RecordTask(new, who, "", START),
            ClosePeriod("", START),
            SealBooks("", START, START),
            SealBooks(new, START + 1, START + 1),
            SealBooks(new, START + NS_PER_S, START + DAY_NS),
            SealBooks(new, START, START, reason=""),
            MoveDeposit(new, who, DEPOSIT_PAID_IN, 0, CURRENCY, START),
            MoveDeposit(new, who, 9, 1, CURRENCY, START),
            TransferStock(new, who, who, CURRENCY, (StockLine("", 1, 1, 1),), START),
            TransferStock(new, who, STRANGER, CURRENCY, (), START),
            OpenBalance(new, who, CURRENCY, START),
            OpenBalance(new, who, CURRENCY, START, pending_minor=5),
            OpenBalance(new, who, CURRENCY, START, available_minor=5, debt_minor=5),
            OpenBalance(new, who, CURRENCY, START, available_minor=-5),
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
