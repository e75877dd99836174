"""Reads a plan document as docs/plan-format.md describes it, for the oracle. Independent of the service's own reader.

Strict about what the document spells out (unknown keys, rates that are not percentages, versions, names); knows nothing of lawfulness.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from typing import NoReturn, cast

import yaml

from tests.oracle.facts import DAY_NS, KIND_FEE, KIND_GIFT_PACK, KIND_GOODS, NS_PER_S, Attribution, Line, Order

_KINDS = {"goods": KIND_GOODS, "gift_pack": KIND_GIFT_PACK, "fee": KIND_FEE}
_WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_PERCENTAGE = re.compile(r"([0-9]+)(?:\.([0-9]{1,9}))?%")
_ZONE = re.compile(r"([+-])([0-9]{2}):([0-9]{2})")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_US = 1000

LINE_KINDS = ("self", "generation", "differential", "peer", "attributed", "pool")
BY_PERIOD = ("volume", "rank")

# The keys of each kind of rule besides id, kind, when, release and asset.
_RULE_KEYS = {
    "self": "rate rates fixed_minor per cap_minor",
    "generation": "rate rates fixed_minor per cap_minor generation skip_unqualified depth",
    "differential": "rates fixed_minor per cap_minor buyer depth",
    "peer": "rates fixed_minor per cap_minor times of base depth",
    "attributed": "rate fixed_minor per cap_minor role with_referrer referrer_share",
    "pool": "rate fixed_minor per cap_minor role tiers split of_total volume",
    "triggered": "on to tier task most rate fixed_minor per cap_minor",
    "counted": "at fixed_minor repeat most",
    "volume": "brackets tiers",
    "rank": "board places_minor at_least",
}


class PlanInvalid(Exception):
    """The document breaks a rule of the format."""


def local(at_ns: int, zone_ns: int) -> datetime:
    """What the clock on the wall of the plan's zone shows (as if it were UTC)."""
    return _EPOCH + timedelta(microseconds=(at_ns + zone_ns) // _US)


def day_number(at_ns: int, zone_ns: int) -> int:
    """The day of the plan's zone, counted from 1970."""
    return (at_ns + zone_ns) // DAY_NS


@dataclass(frozen=True)
class Amounts:
    """What a rule gives whom, before it is known on what: one rate or rates by tier, one fixed amount or fixed ones by tier."""

    one_rate: Fraction | None = None
    rates: Mapping[str, Fraction] = field(default_factory=dict)
    one_fixed: int | None = None
    fixed: Mapping[str, int] = field(default_factory=dict)
    per: str = "unit"  # what a fixed amount is for: unit, order or group

    def fixed_for(self, tier: str) -> int | None:
        """The fixed amount that names this tier; it wins over a rate, also when it is 0."""
        return self.fixed.get(tier, self.one_fixed)

    def rate_for(self, tier: str) -> Fraction:
        """The rate of this tier; one not named has none."""
        return self.rates.get(tier, Fraction(0)) if self.one_rate is None else self.one_rate

    def gives(self, tier: str) -> bool:
        """Whether there is an amount for this tier, and not 0."""
        fixed = self.fixed_for(tier)
        return self.rate_for(tier) > 0 if fixed is None else fixed > 0


@dataclass(frozen=True)
class When:
    """The conditions of a rule or an override. None: not asked."""

    kinds: frozenset[int] = frozenset((KIND_GOODS, KIND_GIFT_PACK))
    skus: frozenset[str] | None = None
    categories: frozenset[str] | None = None
    stores: frozenset[str] | None = None
    regions: frozenset[str] | None = None
    start: int | None = None
    end: int | None = None
    weekdays: frozenset[int] | None = None
    days: frozenset[int] | None = None
    min_order_minor: int = 0

    def holds(self, order: Order, line: Line, zone_ns: int) -> bool:
        """Whether a line meets all conditions; a kind left out on the order is goods."""
        clock = local(order.paid_at, zone_ns)
        return (
            (line.kind or KIND_GOODS) in self.kinds
            and (self.skus is None or line.sku in self.skus)
            and (self.categories is None or line.category in self.categories)
            and (self.stores is None or _names_one_of(order, line, "store", self.stores))
            and (self.regions is None or _names_one_of(order, line, "region", self.regions))
            and (self.start is None or self.start <= order.paid_at)
            and (self.end is None or order.paid_at < self.end)
            and (self.weekdays is None or clock.weekday() in self.weekdays)
            and (self.days is None or clock.day in self.days)
            and sum(each.base_minor for each in order.lines) >= self.min_order_minor
        )


def named_for(order: Order, line: Line, role: str) -> tuple[Attribution, ...]:
    """The attributions of a role that count for a line: the line's own where it names the role, else the order's."""
    own = tuple(named for named in line.attributions if named.role == role)
    return own or tuple(named for named in order.attributions if named.role == role)


def _names_one_of(order: Order, line: Line, role: str, wanted: frozenset[str]) -> bool:
    return any(named.scope in wanted or named.member_id in wanted for named in named_for(order, line, role))


@dataclass(frozen=True)
class Release:
    """When an amount becomes available: days after completion, group_formed or period_close, or at_once."""

    on: str = "completion"
    days: int = 0


@dataclass(frozen=True)
class Rule:
    """One rule, whatever its kind; what a kind does not know has its default."""

    rule_id: str
    kind: str
    when: When
    release: Release
    asset: str  # "": money
    amounts: Amounts = Amounts()
    cap_order: int | None = None
    cap_period: int | None = None
    generation: int = 0
    skip_unqualified: bool = False
    depth: int = 10
    buyer: str = "out"
    times: int = 1
    of: str = ""
    base: str = "line"
    role: str = ""
    with_referrer: str = "both"
    referrer_share: Fraction = Fraction(0)
    by_period: bool = False
    tiers: tuple[str, ...] = ()
    split: str = ""
    of_total: int | None = None
    volume: str = "own"
    on: str = ""
    to: Mapping[str, int] = field(default_factory=dict)
    tier: str = ""
    task: str = ""
    at: int = 0
    repeat: bool = False
    most: int | None = None
    brackets: tuple[tuple[int, Fraction], ...] = ()
    board: str = ""
    places: tuple[int, ...] = ()
    at_least: int = 1

    def on_lines(self) -> bool:
        """Whether it pays on the lines of an order."""
        return (self.kind in LINE_KINDS and not self.by_period) or (self.kind == "triggered" and self.on == "group_formed")


@dataclass(frozen=True)
class Condition:
    """One condition of a promotion."""

    metric: str
    at_least: int
    days: int | None = None
    depth: int = 0


@dataclass(frozen=True)
class Promotion:
    """A tier and what it takes to be given it: any or all of the conditions."""

    tier: str
    needs_all: bool
    conditions: tuple[Condition, ...]


@dataclass(frozen=True)
class Override:
    """Other amounts for some rules on some lines."""

    when: When
    amounts: Mapping[str, Amounts]


@dataclass(frozen=True)
class Plan:
    """One version of a plan. effective_from is None when the document leaves it out."""

    plan_id: str
    version: int
    currency: str
    tiers: tuple[str, ...]
    effective_from: int | None
    effective_until: int | None
    touch: str
    on_full_refund: str
    rules: tuple[Rule, ...]
    content: object
    points: tuple[str, ...] = ()
    zone_ns: int = 0
    period: str = "month"
    overrides: tuple[Override, ...] = ()
    promotions: tuple[Promotion, ...] = ()
    granted: tuple[str, ...] = ()
    seats: Mapping[str, int] = field(default_factory=dict)
    on_evidence_refunded: str = "keep"

    def in_force(self, published_at: int, at: int) -> bool:
        """Whether an order paid at that time may use this version: from its start inclusive to its end exclusive."""
        start = published_at if self.effective_from is None else self.effective_from
        return start <= at and (self.effective_until is None or at < self.effective_until)

    def amounts(self, rule: Rule, order: Order, line: Line) -> Amounts:
        """The amounts of a rule on a line: the first override that holds and names it, else its own."""
        for override in self.overrides:
            if rule.rule_id in override.amounts and override.when.holds(order, line, self.zone_ns):
                return override.amounts[rule.rule_id]
        return rule.amounts

    def metrics(self) -> set[str]:
        """What its promotions look at."""
        return {condition.metric for promotion in self.promotions for condition in promotion.conditions}

    def rules_by_period(self) -> tuple[Rule, ...]:
        """The rules that ClosePeriod computes."""
        return tuple(rule for rule in self.rules if rule.by_period)


# ------------------------------------------------------------------------------------------------------------------------- values


def _wrong(problem: str) -> NoReturn:
    raise PlanInvalid(problem)


def _mapping(value: object, allowed: str | tuple[str, ...], where: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        _wrong(f"{where} is not a mapping")
    for key in value:
        if key not in (allowed.split() if isinstance(allowed, str) else allowed):
            _wrong(f"{where}.{key} is not known")
    return cast(Mapping[str, object], value)


def _list(value: object, where: str) -> list[object]:
    if not isinstance(value, list) or not value:
        _wrong(f"{where} is not a list")
    return value


def _names(value: object, where: str) -> tuple[str, ...]:
    names = tuple(_name(name, where) for name in _list(value, where))
    if len(set(names)) != len(names):
        _wrong(f"{where} names something twice")
    return names


def _name(value: object, where: str) -> str:
    if not isinstance(value, str) or not value:
        _wrong(f"{where} is not a name")
    return value


def _role(value: object, where: str) -> str:
    name = _name(value, where)
    return name if re.fullmatch(r"[a-z][a-z0-9_-]{0,39}", name) else _wrong(f"{where} is not a role or points")


def _whole(value: object, least: int, where: str, most: int | None = None) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least or (most is not None and value > most):
        _wrong(f"{where} is not a whole number from {least}")
    return value


def _yes(value: object, where: str) -> bool:
    return value if isinstance(value, bool) else _wrong(f"{where} is neither true nor false")


def _rate(value: object, where: str) -> Fraction:
    found = _PERCENTAGE.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        _wrong(f"{where} is not a percentage")
    decimals = found[2] or ""
    rate = Fraction(int(found[1] + decimals), 100 * 10 ** len(decimals))
    if rate > 1:
        _wrong(f"{where} is more than 100%")
    return rate


def _time(value: object, where: str) -> int:
    try:
        time = datetime.fromisoformat(value if isinstance(value, str) else _wrong(f"{where} is not a time"))
    except ValueError:
        _wrong(f"{where} is not a time")
    if time.tzinfo is None:
        _wrong(f"{where} has no time zone")
    since = time - _EPOCH
    return since.days * DAY_NS + since.seconds * NS_PER_S + since.microseconds * _US


def _zone(value: object) -> int:
    found = _ZONE.fullmatch(value) if isinstance(value, str) else None
    if found is None or int(found[3]) > 59 or int(found[2]) > 14:
        _wrong("zone is not like +08:00")
    return (1 if found[1] == "+" else -1) * (int(found[2]) * 3600 + int(found[3]) * 60) * NS_PER_S


def _choice(value: object, choices: str, where: str) -> str:
    if not isinstance(value, str) or value not in choices.split():
        _wrong(f"{where} is none of {choices}")
    return value


def _release(value: object, where: str) -> Release:
    release = _mapping(value, "on days", where)
    on = _choice(release.get("on", "completion"), "completion group_formed period_close at_once", f"{where}.on")
    days = _whole(release.get("days", 0), 0, f"{where}.days")
    return Release(on, days) if on != "at_once" or days == 0 else _wrong(f"{where}.days does not go with at_once")


def _when(value: object, where: str) -> When:
    when = _mapping(value, "kinds skus categories stores regions from until weekdays days min_order_minor", where)
    kinds = _names(when["kinds"], f"{where}.kinds") if "kinds" in when else ("goods", "gift_pack")

    def names(key: str) -> frozenset[str] | None:
        return frozenset(_names(when[key], f"{where}.{key}")) if key in when else None

    weekdays, days = names("weekdays"), None
    if "days" in when:
        days = frozenset(_whole(day, 1, f"{where}.days", 31) for day in _list(when["days"], f"{where}.days"))
    return When(
        kinds=frozenset(_KINDS[_choice(name, " ".join(_KINDS), f"{where}.kinds")] for name in kinds),
        skus=names("skus"),
        categories=names("categories"),
        stores=names("stores"),
        regions=names("regions"),
        start=_time(when["from"], f"{where}.from") if "from" in when else None,
        end=_time(when["until"], f"{where}.until") if "until" in when else None,
        weekdays=None
        if weekdays is None
        else frozenset(_WEEKDAYS.index(_choice(day, " ".join(_WEEKDAYS), f"{where}.weekdays")) for day in weekdays),
        days=days,
        min_order_minor=_whole(when.get("min_order_minor", 0), 0, f"{where}.min_order_minor"),
    )


def _amounts(rule: Mapping[str, object], tiers: tuple[str, ...], where: str, pers: str) -> Amounts:
    """rate, rates, fixed_minor and per as they stand beside one another; the `per` of a pool says something else."""
    if "rate" in rule and "rates" in rule:
        _wrong(f"{where} needs one of rate and rates")
    if not {"rate", "rates", "fixed_minor"} & set(rule):
        _wrong(f"{where} has no amount")
    rates: dict[str, Fraction] = {}
    if "rates" in rule:
        named = _mapping(rule["rates"], tiers, f"{where}.rates")
        rates = {tier: _rate(text, f"{where}.rates.{tier}") for tier, text in named.items()}
        if not rates:
            _wrong(f"{where}.rates is empty")
    one_fixed, fixed = None, {}
    if isinstance(rule.get("fixed_minor"), dict):
        given = _mapping(rule["fixed_minor"], tiers, f"{where}.fixed_minor")
        fixed = {tier: _whole(amount, 0, f"{where}.fixed_minor.{tier}") for tier, amount in given.items()}
        if not fixed:
            _wrong(f"{where}.fixed_minor is empty")
    elif "fixed_minor" in rule:
        one_fixed = _whole(rule["fixed_minor"], 0, f"{where}.fixed_minor")
    per = _choice(rule.get("per", pers.split()[0]), pers, f"{where}.per")
    per = "unit" if per in ("line", "period") else per
    return Amounts(_rate(rule["rate"], f"{where}.rate") if "rate" in rule else None, rates, one_fixed, fixed, per)


# -------------------------------------------------------------------------------------------------------------------------- rules


def _rule(value: object, tiers: tuple[str, ...], points: tuple[str, ...], default: Release, where: str) -> Rule:
    kind = _choice(value.get("kind") if isinstance(value, dict) else None, " ".join(_RULE_KEYS), f"{where}.kind")
    rule = _mapping(value, f"id kind when release asset {_RULE_KEYS[kind]}", where)
    fields: dict[str, object] = {}
    trigger = ""
    if kind == "triggered":
        trigger = _choice(rule.get("on"), "invite upgrade group_formed task", f"{where}.on")
        fields |= _triggered(rule, trigger, tiers, where)
    release = default
    if "release" in rule:
        release = _release(rule["release"], f"{where}.release")
    elif trigger == "group_formed":
        release = Release("group_formed", 0)
    by_period = kind in BY_PERIOD or (kind == "pool" and rule.get("per") == "period")
    if by_period and release.on not in ("completion", "at_once"):
        _wrong(f"{where}.release: a rule by period waits for days after the close, or for nothing")
    on_lines = (kind in LINE_KINDS and not by_period) or trigger == "group_formed"
    if on_lines or kind == "pool":
        pers = "line period" if kind == "pool" else "unit order group" if trigger else "unit order"
        fields["amounts"] = _amounts(rule, tiers, where, pers)
    if "cap_minor" in rule:
        if not on_lines:
            _wrong(f"{where}.cap_minor does not go with this rule")
        cap = _mapping(rule["cap_minor"], "order period", f"{where}.cap_minor")
        fields["cap_order"] = _whole(cap["order"], 0, f"{where}.cap_minor.order") if "order" in cap else None
        fields["cap_period"] = _whole(cap["period"], 0, f"{where}.cap_minor.period") if "period" in cap else None
    if "depth" in rule:
        fields["depth"] = _whole(rule["depth"], 1, f"{where}.depth", 100)
    fields |= dict(_of_kind(rule, kind, tiers, where))
    return Rule(
        rule_id=_name(rule.get("id"), f"{where}.id"),
        kind=kind,
        when=_when(rule.get("when", {}), f"{where}.when"),
        release=release,
        asset=_choice(rule["asset"], " ".join(points), f"{where}.asset") if "asset" in rule else "",
        by_period=by_period,
        **fields,  # type: ignore[arg-type] # each was read as what its field holds
    )


def _of_kind(rule: Mapping[str, object], kind: str, tiers: tuple[str, ...], where: str) -> Iterator[tuple[str, object]]:
    """What only this kind of rule knows, as name and value of a field of Rule."""
    match kind:
        case "generation":
            yield "generation", _whole(rule.get("generation"), 1, f"{where}.generation")
            yield "skip_unqualified", _yes(rule.get("skip_unqualified", False), f"{where}.skip_unqualified")
        case "differential":
            _by_tier(rule, where)
            yield "buyer", _choice(rule.get("buyer", "out"), "out earns deducts", f"{where}.buyer")
        case "peer":
            _by_tier(rule, where)
            yield "times", _whole(rule.get("times", 1), 1, f"{where}.times")
            yield "of", _name(rule["of"], f"{where}.of") if "of" in rule else ""
            base = _choice(rule.get("base", "line"), "line income", f"{where}.base")
            if base == "income" and ("of" not in rule or "rates" not in rule or "fixed_minor" in rule):
                _wrong(f"{where}.base income needs `of` and rates")
            yield "base", base
        case "attributed":
            _not_by_tier(rule, where)
            yield "role", _role(rule.get("role"), f"{where}.role")
            how = _choice(rule.get("with_referrer", "both"), "both exclusive split", f"{where}.with_referrer")
            if (how == "split") != ("referrer_share" in rule):
                _wrong(f"{where}.referrer_share goes with split")
            yield "with_referrer", how
            if how == "split":
                yield "referrer_share", _rate(rule["referrer_share"], f"{where}.referrer_share")
        case "pool":
            _not_by_tier(rule, where)
            by_period = _choice(rule.get("per", "line"), "line period", f"{where}.per") == "period"
            if ("role" in rule) == ("tiers" in rule) or ("tiers" in rule and not by_period):
                _wrong(f"{where} needs a role, or by period one of role and tiers")
            if "role" in rule:
                yield "role", _role(rule["role"], f"{where}.role")
            else:
                yield "tiers", _tiers(rule["tiers"], tiers, f"{where}.tiers")
            if by_period and "fixed_minor" in rule:
                _wrong(f"{where}.fixed_minor does not go with a pool by period")
            yield "split", _choice(rule.get("split", "shares"), "shares seats volume" if by_period else "shares seats", f"{where}.split")
            if "of_total" in rule:
                yield "of_total", _whole(rule["of_total"], 1, f"{where}.of_total")
            yield "volume", _choice(rule.get("volume", "own"), "own team", f"{where}.volume")
        case "counted":
            yield "at", _whole(rule.get("at"), 1, f"{where}.at")
            yield "amounts", Amounts(one_fixed=_whole(rule.get("fixed_minor"), 0, f"{where}.fixed_minor"))
            yield "repeat", _yes(rule.get("repeat", False), f"{where}.repeat")
            if "most" in rule:
                yield "most", _whole(rule["most"], 1, f"{where}.most")
        case "volume":
            yield "brackets", _brackets(rule.get("brackets"), f"{where}.brackets")
            if "tiers" in rule:
                yield "tiers", _tiers(rule["tiers"], tiers, f"{where}.tiers")
        case "rank":
            yield "board", _choice(rule.get("board"), "invites own direct team", f"{where}.board")
            places = _list(rule.get("places_minor"), f"{where}.places_minor")
            yield "places", tuple(_whole(place, 0, f"{where}.places_minor") for place in places)
            yield "at_least", _whole(rule.get("at_least", 1), 1, f"{where}.at_least")


def _triggered(rule: Mapping[str, object], trigger: str, tiers: tuple[str, ...], where: str) -> dict[str, object]:
    """The fields of a triggered rule; `group_formed` takes its amounts like a rule on lines."""
    if trigger == "group_formed":
        _not_by_tier(rule, where)
        if {"to", "tier", "task", "most"} & set(rule):
            _wrong(f"{where} knows a key that does not go with group_formed")
        return {"on": trigger}
    if {"rate", "fixed_minor", "per", "cap_minor"} & set(rule):
        _wrong(f"{where} takes its amounts from `to`")
    who = "member referrer" if trigger == "task" else "buyer referrer"
    to = _mapping(rule.get("to"), who, f"{where}.to")
    if not to:
        _wrong(f"{where}.to is empty")
    fields: dict[str, object] = {"on": trigger, "to": {payee: _whole(amount, 0, f"{where}.to.{payee}") for payee, amount in to.items()}}
    if ("task" in rule) != (trigger == "task") or ("tier" in rule and trigger != "upgrade") or ("most" in rule and trigger != "task"):
        _wrong(f"{where} has a key that does not go with {trigger}")
    if "tier" in rule:
        fields["tier"] = _tiers([rule["tier"]], tiers, f"{where}.tier")[0]
    if "task" in rule:
        fields["task"] = _name(rule["task"], f"{where}.task")
    if "most" in rule:
        fields["most"] = _whole(rule["most"], 1, f"{where}.most")
    return fields


def _by_tier(rule: Mapping[str, object], where: str) -> None:
    if "fixed_minor" in rule and not isinstance(rule["fixed_minor"], dict):
        _wrong(f"{where}.fixed_minor is not by tier")


def _not_by_tier(rule: Mapping[str, object], where: str) -> None:
    if isinstance(rule.get("fixed_minor"), dict) or ("rate" in rule and "fixed_minor" in rule):
        _wrong(f"{where} takes a rate or one fixed amount")


def _tiers(value: object, tiers: tuple[str, ...], where: str) -> tuple[str, ...]:
    named = _names(value, where)
    return named if set(named) <= set(tiers) else _wrong(f"{where} names no tier of the plan")


def _brackets(value: object, where: str) -> tuple[tuple[int, Fraction], ...]:
    brackets: list[tuple[int, Fraction]] = []
    for index, one in enumerate(_list(value, where)):
        bracket = _mapping(one, "from_minor rate", f"{where}[{index}]")
        brackets.append((_whole(bracket.get("from_minor"), 0, f"{where}[{index}].from_minor"), _rate(bracket.get("rate"), where)))
    if any(low[0] >= high[0] or low[1] >= high[1] for low, high in pairwise(brackets)):
        _wrong(f"{where} do not rise")
    return tuple(brackets)


def _promotion(value: object, tiers: tuple[str, ...], where: str) -> Promotion:
    promotion = _mapping(value, "tier any all", where)
    if ("any" in promotion) == ("all" in promotion):
        _wrong(f"{where} needs one of any and all")
    conditions = []
    for index, one in enumerate(_list(promotion.get("any", promotion.get("all")), where)):
        at = f"{where}[{index}]"
        condition = _mapping(one, "metric at_least days depth", at)
        metric = _choice(condition.get("metric"), "orders own_volume team_volume qualified_directs gift_packs", f"{at}.metric")
        if "days" in condition and metric not in ("orders", "own_volume", "team_volume"):
            _wrong(f"{at}.days does not go with {metric}")
        if "depth" in condition and metric != "team_volume":
            _wrong(f"{at}.depth does not go with {metric}")
        conditions.append(
            Condition(
                metric,
                _whole(condition.get("at_least"), 1, f"{at}.at_least"),
                _whole(condition["days"], 1, f"{at}.days") if "days" in condition else None,
                _whole(condition.get("depth", 10), 1, f"{at}.depth", 100) if metric == "team_volume" else 0,
            )
        )
    return Promotion(_tiers([promotion.get("tier")], tiers, f"{where}.tier")[0], "all" in promotion, tuple(conditions))


_PLAN_KEYS = (
    "plan version currency profile tiers effective binding release rules points zone period overrides promotions granted seats"
    " on_evidence_refunded waivers"
)


@lru_cache(maxsize=5000)
def read_plan(document: str) -> Plan:
    """The plan a document describes. Raises PlanInvalid where it breaks a rule of the format.

    A pure function, so what was read once is kept: the oracle asks again and again.
    """
    try:
        content = json.loads(document)  # most are JSON, which YAML reads too, but slowly
    except ValueError:
        try:
            content = yaml.load(document, _Loader)  # a SafeLoader, see below
        except yaml.YAMLError as error:
            raise PlanInvalid(str(error)) from error
    plan = _mapping(content, _PLAN_KEYS, "plan")
    tiers = _names(plan["tiers"], "tiers") if plan.get("tiers") else ()
    points = tuple(_role(name, "points") for name in _names(plan["points"], "points")) if plan.get("points") else ()
    effective = _mapping(plan.get("effective", {}), "from until", "effective")
    binding = _mapping(plan.get("binding", {}), "touch on_full_refund", "binding")
    default = _release(plan["release"], "release") if "release" in plan else Release()
    start = _time(effective["from"], "effective.from") if "from" in effective else None
    end = _time(effective["until"], "effective.until") if "until" in effective else None
    read = tuple(_rule(rule, tiers, points, default, f"rules[{index}]") for index, rule in enumerate(_list(plan.get("rules"), "rules")))
    if len({rule.rule_id for rule in read}) != len(read):
        _wrong("two rules have one id")
    for index, rule in enumerate(read):
        before = {other.rule_id: other for other in read[:index]}
        of = before.get(rule.of)
        if rule.of and (of is None or of.kind not in ("self", "generation", "differential", "attributed") or of.asset != rule.asset):
            _wrong(f"rules[{index}].of names no earlier rule of the same asset")
    currency = _name(plan.get("currency"), "currency")
    if re.fullmatch("[A-Z]{3}", currency) is None:
        _wrong("currency is not an ISO 4217 code")
    period = _choice(plan.get("period", "month"), "day week month campaign", "period")
    if period == "campaign" and (start is None or end is None):
        _wrong("a campaign without both ends")
    _choice(plan.get("profile", "none"), "cn-strict cn-common none", "profile")
    promotions = plan.get("promotions") or []
    seats = _mapping(plan.get("seats") or {}, tiers, "seats")
    return Plan(
        plan_id=_name(plan.get("plan"), "plan"),
        version=_whole(plan.get("version"), 1, "version"),
        currency=currency,
        tiers=tiers,
        effective_from=start,
        effective_until=end,
        touch=_choice(binding.get("touch", "last"), "last first order", "binding.touch"),
        on_full_refund=_choice(binding.get("on_full_refund", "keep"), "keep release", "binding.on_full_refund"),
        rules=read,
        content=content,
        points=points,
        zone_ns=_zone(plan["zone"]) if "zone" in plan else 0,
        period=period,
        overrides=tuple(_overrides(plan.get("overrides"), read, tiers)) if plan.get("overrides") else (),
        promotions=tuple(_promotion(one, tiers, f"promotions[{n}]") for n, one in enumerate(_list(promotions, "promotions")))
        if promotions
        else (),
        granted=_tiers(plan["granted"], tiers, "granted") if plan.get("granted") else (),
        seats={tier: _whole(count, 0, f"seats.{tier}") for tier, count in seats.items()},
        on_evidence_refunded=_choice(plan.get("on_evidence_refunded", "keep"), "keep demote freeze", "on_evidence_refunded"),
    )


def _overrides(value: object, rules: tuple[Rule, ...], tiers: tuple[str, ...]) -> Iterator[Override]:
    allowed = tuple(rule.rule_id for rule in rules if rule.kind in LINE_KINDS and not rule.by_period)
    for index, one in enumerate(_list(value, "overrides")):
        where = f"overrides[{index}]"
        override = _mapping(one, "when rules", where)
        named = _mapping(override.get("rules"), allowed, f"{where}.rules")
        amounts = {}
        for rule_id, given in named.items():
            told = _mapping(given, "rate rates fixed_minor per", f"{where}.rules.{rule_id}")
            amounts[rule_id] = _amounts(told, tiers, where, "unit order")
        yield Override(_when(override.get("when", {}), f"{where}.when"), amounts)


class _Loader(yaml.SafeLoader):
    """YAML in which `on` is a word, as the format's keys need it, and times stay text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
