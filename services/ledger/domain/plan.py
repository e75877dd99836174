"""The plan: a document becomes rules. docs/plan-format.md is its description for people; this file is its only reader.

Everything a plan may say is checked here, once, when it is published; `path` of a PlanInvalid points to the place.
What is forbidden rather than meaningless is the linter's (lint.py).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from itertools import pairwise
from typing import Any, Literal, NamedTuple

from services.kernel.money import Rate
from services.kernel.refusals import PlanInvalid
from services.kernel.times import to_text
from services.ledger.domain.document import Reader, known_tier, named
from services.ledger.domain.facts import LineKind, PlanPublished
from services.ledger.domain.rules import (
    OVERRIDABLE,
    PERIOD_RULES,
    Amount,
    Attributed,
    Condition,
    Counted,
    Differential,
    GroupFormed,
    LinePool,
    Override,
    Paying,
    Peer,
    PeriodPool,
    Promotion,
    Rank,
    Release,
    Rule,
    Seat,
    Triggered,
    Volume,
    When,
)

KINDS = {"goods": LineKind.GOODS, "gift_pack": LineKind.GIFT_PACK, "fee": LineKind.FEE}
# Above any upline that a lawful plan pays on, low enough to keep the path of an order short.
DEEPEST = 100
DEFAULT_DEPTH = 10
# As far back as a window of days may look.
LONGEST_WINDOW_DAYS = 366
LARGEST_MINOR = 10**12
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
PROFILES = ("none", "cn-common", "cn-strict")
US_PER_MINUTE = 60_000_000

# ---------------------------------------------------------------- the plan


@dataclass(frozen=True)
class Plan:
    plan_id: str
    version: int
    currency: str
    # None: an older document that names none; then the linter only advises.
    profile: str | None
    waivers: Mapping[str, str]
    tiers: tuple[str, ...]
    # None: from the time of publishing.
    effective_from_us: int | None
    effective_until_us: int | None
    zone_us: int
    period: Literal["month", "day", "week", "campaign"]
    touch: Literal["last", "first", "order"]
    on_full_refund: Literal["keep", "release"]
    points: tuple[str, ...]
    rules: tuple[Rule, ...]
    overrides: tuple[Override, ...] = ()
    promotions: tuple[Promotion, ...] = ()
    granted: tuple[str, ...] = ()
    seats: Mapping[str, int] = field(default_factory=dict)
    on_evidence_refunded: Literal["keep", "demote", "freeze"] = "keep"

    @cached_property
    def depth(self) -> int:
        """How many people above the buyer the plan looks at."""
        return max([0, *map(_reach, self.rules), *(_metric_reach(one) for rule in self.promotions for one in rule.conditions)])

    @cached_property
    def line_rules(self) -> tuple[tuple[int, Paying], ...]:
        """The rules that pay on lines, with their index in the plan."""
        return tuple((index, rule) for index, rule in enumerate(self.rules) if isinstance(rule, Paying))

    @cached_property
    def order_rules(self) -> tuple[tuple[int, Triggered], ...]:
        """The rules that pay on an order as a whole."""
        return tuple((index, rule) for index, rule in enumerate(self.rules) if isinstance(rule, Triggered) and rule.on != "task")

    @cached_property
    def counted_rules(self) -> tuple[tuple[int, Counted], ...]:
        return tuple((index, rule) for index, rule in enumerate(self.rules) if isinstance(rule, Counted))

    @cached_property
    def period_rules(self) -> tuple[tuple[int, "PeriodPool | Volume | Rank"], ...]:
        return tuple((index, rule) for index, rule in enumerate(self.rules) if isinstance(rule, PERIOD_RULES))

    @cached_property
    def pool_roles(self) -> frozenset[str]:
        """Roles held everywhere that rules for a line look at."""
        return frozenset(rule.role for rule in self.rules if isinstance(rule, LinePool))

    @cached_property
    def attributed_roles(self) -> frozenset[str]:
        return frozenset(rule.role for rule in self.rules if isinstance(rule, Attributed))

    @cached_property
    def exclusive_rules(self) -> frozenset[int]:
        """Indexes of attributed rules that put the referrers' out of force."""
        return frozenset(
            index for index, rule in enumerate(self.rules) if isinstance(rule, Attributed) and rule.with_referrer == "exclusive"
        )

    @cached_property
    def conditions(self) -> tuple[Condition, ...]:
        """Of all promotions, each once."""
        return tuple(dict.fromkeys(one for rule in self.promotions for one in rule.conditions))

    @cached_property
    def promotion_reach(self) -> int:
        """How far above the buyer a promotion may be brought about."""
        return max(map(_metric_reach, self.conditions), default=0)

    @cached_property
    def rank_of(self) -> Mapping[str, int]:
        """{tier: its place, from 0}."""
        return {tier: rank for rank, tier in enumerate(self.tiers)}

    @cached_property
    def at_once_rules(self) -> frozenset[int]:
        """Indexes of rules that pay without waiting."""
        return frozenset(index for index, rule in enumerate(self.rules) if rule.release.on == "at_once")

    @property
    def pays_at_once(self) -> bool:
        """Whether recording an order may move money that somebody has available or owes."""
        return bool(self.at_once_rules)

    @cached_property
    def capped_rules(self) -> frozenset[int]:
        """Indexes of rules that are capped by period."""
        return frozenset(index for index, rule in enumerate(self.rules) if rule.cap_period_minor is not None)

    @cached_property
    def counts(self) -> bool:
        """Whether orders move counters."""
        return bool(self.capped_rules or self.promotions or self.counted_rules or self.period_rules)

    @cached_property
    def is_plain(self) -> bool:
        """Nothing but people on the path earning a rate of a line: what most orders of most shops need."""
        return not self.overrides and not self.counts and all(_plain(rule) for rule in self.rules)

    @cached_property
    def plain_rules(self) -> tuple[tuple[int, Seat], ...]:
        """All rules of a plan that is plain, by index."""
        return tuple((index, rule) for index, rule in enumerate(self.rules) if isinstance(rule, Seat))

    def asset_of(self, rule: Rule) -> str:
        return rule.asset or self.currency


def _reach(rule: Rule) -> int:
    match rule:
        case Seat():
            return rule.depth if rule.skip_unqualified else rule.level
        case Differential() | Peer():
            return rule.depth
        case Attributed():
            return 1 if rule.with_referrer == "split" else 0
        case Triggered() | Counted() | Rank(board="invites"):
            return 1
    return 0


def _metric_reach(condition: Condition) -> int:
    return {"team_volume": condition.depth, "qualified_directs": 1}.get(condition.metric, 0)


def _plain(rule: Rule) -> bool:
    return (
        isinstance(rule, Seat)
        and not rule.skip_unqualified
        and not rule.asset
        and rule.cap_order_minor is None
        and rule.release.on == "completion"
        and rule.amount.per == "unit"
        and not rule.when.looks_further
    )


@dataclass(frozen=True, slots=True)
class PlanVersion:
    """A published plan: where it stands in the log and when it is in force."""

    plan: Plan
    position: int
    effective_from_us: int
    effective_until_us: int | None
    content_hash: bytes

    def in_force(self, at_us: int) -> bool:
        return self.effective_from_us <= at_us and (self.effective_until_us is None or at_us < self.effective_until_us)


def version_of(fact: PlanPublished, position: int) -> PlanVersion:
    """The version that a plan.published entry made."""
    hashed = content_hash(fact.document)
    return PlanVersion(parse(json.loads(fact.document)), position, fact.effective_from_us, fact.effective_until_us, hashed)


def canonical(document: Mapping[str, Any]) -> str:
    """The document as the one text that is hashed and stored: JSON, sorted keys, no spaces."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def content_hash(canonical_document: str) -> bytes:
    """SHA-256 of the canonical document, 32 bytes."""
    return sha256(canonical_document.encode()).digest()


# ---------------------------------------------------------------- reading


class _Shared(NamedTuple):
    """What the rules of a document share."""

    tiers: tuple[str, ...]
    points: tuple[str, ...]
    release: Release


# What _rule has read for every kind: id, kind, when, release, asset, cap by order, cap by period.
_Common = tuple[str, str, When, Release, str, int | None, int | None]


def parse(document: Any) -> Plan:
    """The plan a document describes. Raises PlanInvalid naming the first thing wrong and what was expected."""
    top = Reader(document, "document")
    plan_id = top.identifier("plan")
    version = top.integer("version", 1, 1_000_000)
    currency = top.text("currency")
    if len(currency) != 3 or not currency.isascii() or not currency.isupper():
        raise PlanInvalid("currency", f"{currency!r} is not an ISO 4217 code such as CNY")
    profile = top.choice("profile", PROFILES) if top.has("profile") else None
    waivers = _waivers(top)
    tiers = tuple(top.names("tiers", default=()))
    effective = top.section("effective")
    from_us, until_us = effective.time("from"), effective.time("until")
    effective.finish()
    if from_us is not None and until_us is not None and until_us <= from_us:
        raise PlanInvalid("effective.until", f"{to_text(until_us)} is not after effective.from {to_text(from_us)}")
    binding = top.section("binding")
    touch = binding.choice("touch", ("last", "first", "order"))
    on_full_refund = binding.choice("on_full_refund", ("keep", "release"))
    binding.finish()
    zone_us = _zone(top)
    period = top.choice("period", ("month", "day", "week", "campaign"))
    if period == "campaign" and (from_us is None or until_us is None):
        raise PlanInvalid("period", "a campaign needs effective.from and effective.until")
    points = top.roles("points")
    shared = _Shared(tiers, points, _release(top, Release("completion", 0)))
    rules: list[Rule] = []
    for reader in top.sections("rules"):
        rules.append(_rule(reader, shared, rules))
    if not rules:
        raise PlanInvalid("rules", "there are none; a plan has at least one rule")
    seen: set[str] = set()
    for index, rule in enumerate(rules):
        if rule.id in seen:
            raise PlanInvalid(f"rules[{index}].id", f"{rule.id!r} is used twice")
        seen.add(rule.id)
    overrides = tuple(_override(reader, shared, rules) for reader in top.sections("overrides", required=False))
    promotions = tuple(_promotion(reader, tiers) for reader in top.sections("promotions", required=False))
    granted = top.tiers("granted", tiers)
    seats = _seats(top.section("seats"), tiers)
    on_evidence_refunded = top.choice("on_evidence_refunded", ("keep", "demote", "freeze"))
    top.finish()
    return Plan(
        plan_id,
        version,
        currency,
        profile,
        waivers,
        tiers,
        from_us,
        until_us,
        zone_us,
        period,  # type: ignore[arg-type]  # choice() checked it, here and below
        touch,  # type: ignore[arg-type]
        on_full_refund,  # type: ignore[arg-type]
        points,
        tuple(rules),
        overrides,
        promotions,
        granted,
        seats,
        on_evidence_refunded,  # type: ignore[arg-type]
    )


def _waivers(top: Reader) -> dict[str, str]:
    section = top.section("waivers")
    found = {rule: section.text(rule) for rule in section.left()}
    section.finish()
    return found


def _zone(top: Reader) -> int:
    """Microseconds east of UTC."""
    if not top.has("zone"):
        return 0
    text = top.text("zone")
    sign, hours, colon, minutes = text[:1], text[1:3], text[3:4], text[4:]
    if not (sign in ("+", "-") and colon == ":" and len(minutes) == 2 and (hours + minutes).isascii() and (hours + minutes).isdigit()):
        raise PlanInvalid("zone", f'expected an offset such as "+08:00", found {text!r}')
    if int(hours) > 14 or int(minutes) > 59:
        raise PlanInvalid("zone", f"{text!r} is beyond 14 hours")
    return (1 if sign == "+" else -1) * (int(hours) * 60 + int(minutes)) * US_PER_MINUTE


def _seats(section: Reader, tiers: tuple[str, ...]) -> dict[str, int]:
    found = {}
    for tier in section.left():
        known_tier(tier, tiers, section.at(tier))
        found[tier] = section.integer(tier, 0, 1_000_000)
    return found


def _release(reader: Reader, default: Release) -> Release:
    if not reader.has("release"):
        return default
    section = reader.section("release")
    if not section.left():
        return default
    on = section.choice("on", ("completion", "group_formed", "period_close", "at_once"))
    days = section.integer("days", 0, 3650, 0)
    if on == "at_once" and days:
        raise PlanInvalid(section.at("days"), "what is paid at once waits for no days")
    section.finish()
    return Release(on, days)  # type: ignore[arg-type]


def _when(reader: Reader) -> When:
    section = reader.section("when")
    kinds = []
    for name in section.names("kinds", default=("goods", "gift_pack")):
        if name not in KINDS:
            raise PlanInvalid(section.at("kinds"), f"{name!r} is not one of {', '.join(KINDS)}")
        kinds.append(KINDS[name])
    weekdays = section.names("weekdays", default=())
    for name in weekdays:
        if name not in WEEKDAYS:
            raise PlanInvalid(section.at("weekdays"), f"{name!r} is not one of {', '.join(WEEKDAYS)}")
    from_us, until_us = section.time("from"), section.time("until")
    if from_us is not None and until_us is not None and until_us <= from_us:
        raise PlanInvalid(section.at("until"), f"{to_text(until_us)} is not after {to_text(from_us)}")
    found = When(
        frozenset(kinds),
        frozenset(section.names("skus", default=())),
        frozenset(section.names("categories", default=())),
        frozenset(section.names("stores", default=())),
        frozenset(section.names("regions", default=())),
        from_us,
        until_us,
        frozenset(WEEKDAYS.index(name) for name in weekdays),
        frozenset(section.integers("days", 1, 31)),
        section.integer("min_order_minor", 0, LARGEST_MINOR, 0),
    )
    section.finish()
    return found


def _amount(reader: Reader, tiers: tuple[str, ...], by_tier: bool | None = None, per: tuple[str, ...] = ("unit", "order")) -> Amount:
    """The amount a mapping gives. `by_tier`: True, only by tier; False, only one for everybody; None, as it likes."""
    if (reader.has("rate") and reader.has("rates")) or not any(reader.has(key) for key in ("rate", "rates", "fixed_minor")):
        raise PlanInvalid(reader.path, "write either rate (one for everybody) or rates (by tier), or fixed_minor")
    if by_tier and reader.has("rate"):
        raise PlanInvalid(reader.at("rate"), "this kind of rule goes by tier; write rates")
    if by_tier is False and reader.has("rates"):
        raise PlanInvalid(reader.at("rates"), "this kind of rule does not go by tier; write rate")
    rate = reader.rate("rate") if reader.has("rate") else None
    rates: dict[str, Rate] = {}
    if reader.has("rates"):
        section = reader.section("rates")
        for tier in section.left():
            known_tier(tier, tiers, f"{section.path}.{tier}")
            rates[tier] = section.rate(tier)
        if not rates:
            raise PlanInvalid(section.path, "names no tier")
    fixed: int | None = None
    fixed_by_tier: dict[str, int] = {}
    how = "unit"
    if reader.has("fixed_minor"):
        value = reader.take("fixed_minor")
        if isinstance(value, dict) and by_tier is not False:
            section = Reader(value, reader.at("fixed_minor"))
            for tier in section.left():
                known_tier(tier, tiers, f"{section.path}.{tier}")
                fixed_by_tier[tier] = section.integer(tier, 0, LARGEST_MINOR)
            if not fixed_by_tier:
                raise PlanInvalid(section.path, "names no tier")
        elif by_tier:
            raise PlanInvalid(reader.at("fixed_minor"), "this kind of rule goes by tier; write {tier: amount}")
        else:
            fixed = Reader({"fixed_minor": value}, reader.path).integer("fixed_minor", 0, LARGEST_MINOR)
        how = reader.choice("per", per)
    return Amount(rate, rates, fixed, fixed_by_tier, how)  # type: ignore[arg-type]


def _override(reader: Reader, shared: _Shared, rules: Sequence[Rule]) -> Override:
    when = _when(reader)
    amounts: dict[int, Amount] = {}
    section = reader.section("rules")
    by_id = {rule.id: index for index, rule in enumerate(rules)}
    for rule_id in section.left():
        index = by_id.get(rule_id)
        if index is None or not isinstance(rules[index], OVERRIDABLE):
            known = ", ".join(rule.id for rule in rules if isinstance(rule, OVERRIDABLE))
            raise PlanInvalid(section.at(rule_id), f"is no rule whose amounts can be replaced; those are {known or 'none'}")
        inner = section.section(rule_id)
        rule = rules[index]
        by_tier = True if isinstance(rule, Differential | Peer) else None if isinstance(rule, Seat) else False
        amounts[index] = _amount(inner, shared.tiers, by_tier)
        if isinstance(rule, Peer) and rule.base == "income" and (amounts[index].fixed_by_tier or amounts[index].fixed is not None):
            raise PlanInvalid(inner.path, "a share of income is a rate")
        inner.finish()
    section.finish()
    if not amounts:
        raise PlanInvalid(section.path, "names no rule")
    reader.finish()
    return Override(when, amounts)


def _promotion(reader: Reader, tiers: tuple[str, ...]) -> Promotion:
    tier = reader.text("tier")
    known_tier(tier, tiers, reader.at("tier"))
    if reader.has("any") == reader.has("all"):
        raise PlanInvalid(reader.path, "write either any or all")
    every = reader.has("all")
    conditions = []
    for one in reader.sections("all" if every else "any"):
        metric = one.choice("metric", ("orders", "own_volume", "team_volume", "qualified_directs", "gift_packs"), required=True)
        at_least = one.integer("at_least", 1, 10**15)
        days = one.integer("days", 1, LONGEST_WINDOW_DAYS) if metric in ("orders", "own_volume", "team_volume") and one.has("days") else 0
        depth = one.integer("depth", 1, DEEPEST, DEFAULT_DEPTH) if metric == "team_volume" else 0
        one.finish()
        conditions.append(Condition(metric, at_least, days, depth))  # type: ignore[arg-type]
    if not conditions:
        raise PlanInvalid(reader.path, "has no conditions")
    reader.finish()
    return Promotion(tier, every, tuple(conditions))


def _rule(reader: Reader, shared: _Shared, earlier: Sequence[Rule]) -> Rule:
    rule_id = reader.identifier("id")
    kind = reader.choice("kind", tuple(_READERS), required=True)
    asset = reader.role("asset") if reader.has("asset") else ""
    if asset and asset not in shared.points:
        raise PlanInvalid(reader.at("asset"), f"{asset!r} is not declared in points: {', '.join(shared.points) or 'there are none'}")
    default = shared.release
    if kind == "triggered" and reader.peek("on") == "group_formed":
        default = Release("group_formed", 0)
    release = _release(reader, default)
    cap = reader.section("cap_minor")
    cap_order = cap.integer("order", 0, LARGEST_MINOR) if cap.has("order") else None
    cap_period = cap.integer("period", 0, LARGEST_MINOR) if cap.has("period") else None
    cap.finish()
    common = (rule_id, kind, _when(reader), release, asset, cap_order, cap_period)
    rule: Rule = _READERS[kind](reader, shared, earlier, common)
    if (cap_order is not None or cap_period is not None) and not isinstance(rule, Paying):
        raise PlanInvalid(reader.at("cap_minor"), "caps are for rules that pay on lines")
    if isinstance(rule, PERIOD_RULES) and release.on in ("group_formed", "period_close"):
        raise PlanInvalid(reader.at("release"), "a rule by period is released days after closing, or at_once")
    reader.finish()
    return rule


def _self(reader: Reader, shared: _Shared, _: Sequence[Rule], common: _Common) -> Rule:
    return Seat(*common, _amount(reader, shared.tiers), 0, False, 0)


def _generation(reader: Reader, shared: _Shared, _: Sequence[Rule], common: _Common) -> Rule:
    level = reader.integer("generation", 1, DEEPEST)
    amount = _amount(reader, shared.tiers)
    skip = reader.flag("skip_unqualified")
    depth = reader.integer("depth", level, DEEPEST, max(DEFAULT_DEPTH, level)) if skip else level
    return Seat(*common, amount, level, skip, depth)


def _differential(reader: Reader, shared: _Shared, _: Sequence[Rule], common: _Common) -> Rule:
    amount = _amount(reader, shared.tiers, by_tier=True)
    depth = reader.integer("depth", 1, DEEPEST, DEFAULT_DEPTH)
    return Differential(*common, amount, depth, reader.choice("buyer", ("out", "earns", "deducts")))  # type: ignore[arg-type]


def _peer(reader: Reader, shared: _Shared, earlier: Sequence[Rule], common: _Common) -> Rule:
    amount = _amount(reader, shared.tiers, by_tier=True)
    depth = reader.integer("depth", 1, DEEPEST, DEFAULT_DEPTH)
    times = reader.integer("times", 1, DEEPEST, 1)
    base = reader.choice("base", ("line", "income"))
    of: int | None = None
    if reader.has("of"):
        wanted = reader.identifier("of")
        of = next((index for index, rule in enumerate(earlier) if rule.id == wanted), None)
        if of is None or not isinstance(earlier[of], Seat | Differential | Attributed) or earlier[of].asset != common[4]:
            raise PlanInvalid(
                reader.at("of"), f"{wanted!r} is no earlier self, generation, differential or attributed rule of the same asset"
            )
    if base == "income":
        if of is None:
            raise PlanInvalid(reader.path, "base: income needs of, the rule by which the first one earns")
        if amount.fixed_by_tier:
            raise PlanInvalid(reader.at("fixed_minor"), "a share of income is a rate")
    return Peer(*common, amount, depth, times, base, of)  # type: ignore[arg-type]


def _attributed(reader: Reader, shared: _Shared, _: Sequence[Rule], common: _Common) -> Rule:
    role = reader.role("role")
    if role == "opener":
        raise PlanInvalid(reader.at("role"), "the opener of a group earns by a triggered rule on group_formed")
    amount = _amount(reader, shared.tiers, by_tier=False)
    with_referrer = reader.choice("with_referrer", ("both", "exclusive", "split"))
    share = reader.rate("referrer_share") if with_referrer == "split" else None
    return Attributed(*common, amount, role, with_referrer, share)  # type: ignore[arg-type]


def _pool(reader: Reader, shared: _Shared, _: Sequence[Rule], common: _Common) -> Rule:
    if reader.choice("per", ("line", "period")) == "line":
        # `per` of a pool says by line or by period; a fixed amount counts by unit.
        amount = _amount(reader, shared.tiers, by_tier=False, per=("unit",))
        role = reader.role("role")
        if role == "opener":
            raise PlanInvalid(reader.at("role"), "a group's opener holds no role")
        split = reader.choice("split", ("shares", "seats"))
        of_total = reader.integer("of_total", 1, 10**9) if reader.has("of_total") else None
        return LinePool(*common, amount, role, split, of_total)  # type: ignore[arg-type]
    rate = reader.rate("rate")
    if reader.has("role") == reader.has("tiers"):
        raise PlanInvalid(reader.path, "write either role or tiers")
    role = reader.role("role") if reader.has("role") else ""
    tiers = reader.tiers("tiers", shared.tiers)
    split = reader.choice("split", ("shares", "seats", "volume"))
    of_total = reader.integer("of_total", 1, 10**9) if split != "volume" and reader.has("of_total") else None
    volume = reader.choice("volume", ("own", "team")) if split == "volume" else "own"
    return PeriodPool(*common, rate, role, tiers, split, of_total, volume)  # type: ignore[arg-type]


def _triggered(reader: Reader, shared: _Shared, _: Sequence[Rule], common: _Common) -> Rule:
    on = reader.choice("on", ("invite", "upgrade", "group_formed", "task"), required=True)
    if on == "group_formed":
        return GroupFormed(*common, _amount(reader, shared.tiers, by_tier=False, per=("unit", "order", "group")))
    to = reader.section("to")
    first = "member" if on == "task" else "buyer"
    buyer = to.integer(first, 0, LARGEST_MINOR, 0)
    referrer = to.integer("referrer", 0, LARGEST_MINOR, 0)
    to.finish()
    if not buyer and not referrer:
        raise PlanInvalid(to.path, f"gives nobody anything; write {first} or referrer")
    tier = ""
    if on == "upgrade" and reader.has("tier"):
        tier = reader.text("tier")
        known_tier(tier, shared.tiers, reader.at("tier"))
    task, most = "", None
    if on == "task":
        task = reader.text("task")
        named(task, reader.at("task"))
        most = reader.integer("most", 1, 1_000_000) if reader.has("most") else None
    return Triggered(*common, on, buyer, referrer, tier, task, most)  # type: ignore[arg-type]


def _counted(reader: Reader, _: _Shared, __: Sequence[Rule], common: _Common) -> Rule:
    at = reader.integer("at", 1, 1_000_000)
    fixed = reader.integer("fixed_minor", 1, LARGEST_MINOR)
    repeat = reader.flag("repeat")
    most = reader.integer("most", 1, 1_000_000) if reader.has("most") else None
    return Counted(*common, at, fixed, repeat, most)


def _volume(reader: Reader, shared: _Shared, _: Sequence[Rule], common: _Common) -> Rule:
    brackets: list[tuple[int, Rate]] = []
    for one in reader.sections("brackets"):
        from_minor, rate = one.integer("from_minor", 0, 10**15), one.rate("rate")
        one.finish()
        if brackets and (from_minor <= brackets[-1][0] or rate < brackets[-1][1]):
            raise PlanInvalid(one.path, "brackets go from the lowest, their rates never falling")
        brackets.append((from_minor, rate))
    if not brackets:
        raise PlanInvalid(reader.at("brackets"), "there are none")
    return Volume(*common, tuple(brackets), reader.tiers("tiers", shared.tiers))


def _rank(reader: Reader, _: _Shared, __: Sequence[Rule], common: _Common) -> Rule:
    board = reader.choice("board", ("invites", "own", "direct", "team"), required=True)
    places = reader.integers("places_minor", 0, LARGEST_MINOR)
    if not places:
        raise PlanInvalid(reader.at("places_minor"), "is missing")
    if any(earlier < later for earlier, later in pairwise(places)):
        raise PlanInvalid(reader.at("places_minor"), "a lower place never gets more than a higher one")
    return Rank(*common, board, places, reader.integer("at_least", 1, 10**15, 1))  # type: ignore[arg-type]


_READERS: Mapping[str, Any] = {
    "self": _self,
    "generation": _generation,
    "differential": _differential,
    "peer": _peer,
    "attributed": _attributed,
    "pool": _pool,
    "triggered": _triggered,
    "counted": _counted,
    "volume": _volume,
    "rank": _rank,
}
