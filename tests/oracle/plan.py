"""Reads a plan document as docs/plan-format.md describes it, for the oracle. Independent of the service's own reader.

Strict about what the document spells out (unknown keys, rates that are not percentages, versions, names); knows nothing of lawfulness.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from functools import lru_cache
from typing import NoReturn, cast

import yaml

from tests.oracle.facts import DAY_NS, KIND_FEE, KIND_GIFT_PACK, KIND_GOODS, NS_PER_S, Line

_KINDS = {"goods": KIND_GOODS, "gift_pack": KIND_GIFT_PACK, "fee": KIND_FEE}
_PERCENTAGE = re.compile(r"([0-9]+)(?:\.([0-9]{1,9}))?%")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class PlanInvalid(Exception):
    """The document breaks a rule of the format."""


@dataclass(frozen=True)
class Rule:
    """Who earns what share of a line. generation 0 is the buyer."""

    rule_id: str
    generation: int
    one_rate: Fraction | None
    rates: Mapping[str, Fraction]
    days: int
    kinds: frozenset[int]
    skus: frozenset[str] | None
    categories: frozenset[str] | None

    def top_rate(self) -> Fraction:
        """The most it can pay on a line."""
        return self.one_rate if self.one_rate is not None else max(self.rates.values())

    def rate_for(self, tier: str) -> Fraction:
        """What a payee of this tier earns; a tier not named earns nothing."""
        return self.one_rate if self.one_rate is not None else self.rates.get(tier, Fraction(0))

    def matches(self, line: Line) -> bool:
        """Whether a line meets all conditions; a kind left out on the order is goods."""
        return (
            (line.kind or KIND_GOODS) in self.kinds
            and (self.skus is None or line.sku in self.skus)
            and (self.categories is None or line.category in self.categories)
        )


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

    def in_force(self, published_at: int, at: int) -> bool:
        """Whether an order paid at that time may use this version: from its start inclusive to its end exclusive."""
        start = published_at if self.effective_from is None else self.effective_from
        return start <= at and (self.effective_until is None or at < self.effective_until)


def _wrong(problem: str) -> NoReturn:
    raise PlanInvalid(problem)


def _mapping(value: object, allowed: str, where: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        _wrong(f"{where} is not a mapping")
    for key in value:
        if key not in allowed.split():
            _wrong(f"{where}.{key} is not known")
    return cast(Mapping[str, object], value)


def _names(value: object, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(name, str) and name for name in value):
        _wrong(f"{where} is not a list of names")
    if len(set(value)) != len(value):
        _wrong(f"{where} names something twice")
    return tuple(value)


def _name(value: object, where: str) -> str:
    if not isinstance(value, str) or not value:
        _wrong(f"{where} is not a name")
    return value


def _whole(value: object, least: int, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        _wrong(f"{where} is not a whole number from {least}")
    return value


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
    return since.days * DAY_NS + since.seconds * NS_PER_S + since.microseconds * 1000


def _choice(value: object, choices: str, where: str) -> str:
    if not isinstance(value, str) or value not in choices.split():
        _wrong(f"{where} is none of {choices}")
    return value


def _days(value: object, where: str) -> int:
    release = _mapping(value, "days", where)
    return _whole(release.get("days", 0), 0, f"{where}.days")


def _rule(value: object, tiers: tuple[str, ...], default_days: int, where: str) -> Rule:
    rule = _mapping(value, "id kind generation rate rates release when", where)
    kind = _choice(rule.get("kind"), "self generation", f"{where}.kind")
    if kind == "self" and "generation" in rule:
        _wrong(f"{where}.generation does not go with self")
    if ("rate" in rule) == ("rates" in rule):
        _wrong(f"{where} needs one of rate and rates")
    rates: dict[str, Fraction] = {}
    if "rates" in rule:
        named = _mapping(rule["rates"], " ".join(tiers), f"{where}.rates")
        rates = {tier: _rate(text, f"{where}.rates.{tier}") for tier, text in named.items()}
        if not rates:
            _wrong(f"{where}.rates is empty")
    when = _mapping(rule.get("when", {}), "kinds skus categories", f"{where}.when")
    kinds = _names(when["kinds"], f"{where}.when.kinds") if "kinds" in when else ("goods", "gift_pack")
    return Rule(
        rule_id=_name(rule.get("id"), f"{where}.id"),
        generation=0 if kind == "self" else _whole(rule.get("generation"), 1, f"{where}.generation"),
        one_rate=_rate(rule["rate"], f"{where}.rate") if "rate" in rule else None,
        rates=rates,
        days=_days(rule["release"], f"{where}.release") if "release" in rule else default_days,
        kinds=frozenset(_KINDS[_choice(name, " ".join(_KINDS), f"{where}.when.kinds")] for name in kinds),
        skus=frozenset(_names(when["skus"], f"{where}.when.skus")) if "skus" in when else None,
        categories=frozenset(_names(when["categories"], f"{where}.when.categories")) if "categories" in when else None,
    )


@lru_cache(maxsize=1000)
def read_plan(document: str) -> Plan:
    """The plan a document describes. Raises PlanInvalid where it breaks a rule of the format.

    A pure function, so what was read once is kept: the oracle asks again and again.
    """
    try:
        content = yaml.safe_load(document)
    except yaml.YAMLError as error:
        raise PlanInvalid(str(error)) from error
    plan = _mapping(content, "plan version currency tiers effective binding release rules", "plan")
    tiers = _names(plan["tiers"], "tiers") if plan.get("tiers") else ()
    effective = _mapping(plan.get("effective", {}), "from until", "effective")
    binding = _mapping(plan.get("binding", {}), "touch on_full_refund", "binding")
    default_days = _days(plan["release"], "release") if "release" in plan else 0
    start = _time(effective["from"], "effective.from") if "from" in effective else None
    end = _time(effective["until"], "effective.until") if "until" in effective else None
    rules = plan.get("rules")
    if not isinstance(rules, list) or not rules:
        _wrong("rules is not a list of rules")
    read = tuple(_rule(rule, tiers, default_days, f"rules[{index}]") for index, rule in enumerate(rules))
    if len({rule.rule_id for rule in read}) != len(read):
        _wrong("two rules have one id")
    currency = _name(plan.get("currency"), "currency")
    if re.fullmatch("[A-Z]{3}", currency) is None:
        _wrong("currency is not an ISO 4217 code")
    return Plan(
        plan_id=_name(plan.get("plan"), "plan"),
        version=_whole(plan.get("version"), 1, "version"),
        currency=currency,
        tiers=tiers,
        effective_from=start,
        effective_until=end,
        touch=_choice(binding.get("touch", "last"), "last first", "binding.touch"),
        on_full_refund=_choice(binding.get("on_full_refund", "keep"), "keep release", "binding.on_full_refund"),
        rules=read,
        content=content,
    )
