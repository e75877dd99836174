"""The plan: a document becomes rules. docs/plan-format.md is its description for people; this file is its only reader.

Everything a plan may say is checked here, once, when it is published; `path` of a PlanInvalid points to the place.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Literal

from services.kernel.money import ZERO_RATE, Rate
from services.kernel.refusals import PlanInvalid
from services.kernel.times import EARLIEST_US, LATEST_US, from_text, to_text
from services.ledger.domain.facts import LineKind, OrderLine, PlanPublished

ID_CHARACTERS = {chr(code) for code in range(33, 127)} - {"/"}
KINDS = {"goods": LineKind.GOODS, "gift_pack": LineKind.GIFT_PACK, "fee": LineKind.FEE}
# Above any upline that a lawful plan pays on, low enough to keep the path of an order short.
DEEPEST_GENERATION = 100


@dataclass(frozen=True, slots=True)
class When:
    """Conditions on a line; an empty set means any."""

    kinds: frozenset[LineKind]
    skus: frozenset[str]
    categories: frozenset[str]

    def matches(self, line: OrderLine) -> bool:
        return (
            line.kind in self.kinds
            and (not self.skus or line.sku in self.skus)
            and (not self.categories or line.category in self.categories)
        )


@dataclass(frozen=True, slots=True)
class Rule:
    """One way to earn. `seat` is where the payee stands on the path: 0 the buyer, n the n-th above them."""

    id: str
    kind: Literal["self", "generation"]
    seat: int
    # One rate for everybody, or a rate for each tier named.
    flat: Rate | None
    by_tier: Mapping[str, Rate]
    top: Rate
    release_days: int
    when: When

    def rate_of(self, tier: str) -> Rate:
        """The rate a payee of this tier earns; zero for a tier the rule does not name."""
        return self.flat if self.flat is not None else self.by_tier.get(tier, ZERO_RATE)


@dataclass(frozen=True, slots=True)
class Plan:
    plan_id: str
    version: int
    currency: str
    tiers: tuple[str, ...]
    # None: from the time of publishing.
    effective_from_us: int | None
    effective_until_us: int | None
    touch: Literal["last", "first"]
    on_full_refund: Literal["keep", "release"]
    rules: tuple[Rule, ...]

    @property
    def depth(self) -> int:
        """How many people above the buyer the plan looks at."""
        return max((rule.seat for rule in self.rules), default=0)


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


def parse(document: Any) -> Plan:
    """The plan a document describes. Raises PlanInvalid naming the first thing wrong and what was expected."""
    top = _Reader(document, "document")
    plan_id = top.identifier("plan")
    version = top.integer("version", 1, 1_000_000)
    currency = top.text("currency")
    if len(currency) != 3 or not currency.isascii() or not currency.isupper():
        raise PlanInvalid("currency", f"{currency!r} is not an ISO 4217 code such as CNY")
    tiers = tuple(top.names("tiers", default=()))
    effective = top.section("effective")
    from_us, until_us = effective.time("from"), effective.time("until")
    effective.finish()
    if from_us is not None and until_us is not None and until_us <= from_us:
        raise PlanInvalid("effective.until", f"{to_text(until_us)} is not after effective.from {to_text(from_us)}")
    binding = top.section("binding")
    touch = binding.choice("touch", ("last", "first"))
    on_full_refund = binding.choice("on_full_refund", ("keep", "release"))
    binding.finish()
    release_days = _release_days(top, 0)
    rules = tuple(_rule(reader, tiers, release_days) for reader in top.sections("rules"))
    top.finish()
    if not rules:
        raise PlanInvalid("rules", "there are none; a plan has at least one rule")
    seen: set[str] = set()
    for index, rule in enumerate(rules):
        if rule.id in seen:
            raise PlanInvalid(f"rules[{index}].id", f"{rule.id!r} is used twice")
        seen.add(rule.id)
    return Plan(plan_id, version, currency, tiers, from_us, until_us, touch, on_full_refund, rules)  # type: ignore[arg-type]  # choice() checked both


def _rule(reader: "_Reader", tiers: tuple[str, ...], default_days: int) -> Rule:
    rule_id = reader.identifier("id")
    kind = reader.choice("kind", ("self", "generation"), required=True)
    seat = reader.integer("generation", 1, DEEPEST_GENERATION) if kind == "generation" else 0
    flat: Rate | None = None
    by_tier: dict[str, Rate] = {}
    if reader.has("rate") == reader.has("rates"):
        raise PlanInvalid(reader.path, "write either rate (one for everybody) or rates (by tier)")
    if reader.has("rate"):
        top_rate = flat = reader.rate("rate")
    else:
        rates = reader.section("rates")
        for tier in rates.left():
            if tier not in tiers:
                raise PlanInvalid(f"{rates.path}.{tier}", f"is not one of the plan's tiers: {', '.join(tiers) or 'it names none'}")
            by_tier[tier] = rates.rate(tier)
        if not by_tier:
            raise PlanInvalid(rates.path, "names no tier")
        top_rate = max(by_tier.values())
    days = _release_days(reader, default_days)
    conditions = reader.section("when")
    kinds = frozenset(_kind(conditions, name) for name in conditions.names("kinds", default=("goods", "gift_pack")))
    when = When(kinds, frozenset(conditions.names("skus", default=())), frozenset(conditions.names("categories", default=())))
    conditions.finish()
    reader.finish()
    return Rule(rule_id, kind, seat, flat, by_tier, top_rate, days, when)  # type: ignore[arg-type]  # choice() checked the kind


def _kind(conditions: "_Reader", name: str) -> LineKind:
    if name not in KINDS:
        raise PlanInvalid(f"{conditions.path}.kinds", f"{name!r} is not one of {', '.join(KINDS)}")
    return KINDS[name]


def _release_days(reader: "_Reader", default: int) -> int:
    section = reader.section("release")
    days = section.integer("days", 0, 3650) if section.has("days") else default
    section.finish()
    return days


class _Reader:
    """One mapping of the document, read key by key; what is left over at the end is a typing mistake."""

    def __init__(self, value: Any, path: str) -> None:
        if not isinstance(value, dict):
            raise PlanInvalid(path, f"expected a mapping, found {_described(value)}")
        for key in value:
            if not isinstance(key, str):
                raise PlanInvalid(path, f"key {key!r} is not text")
        self.path = path
        self._left: dict[str, Any] = dict(value)

    def _at(self, key: str) -> str:
        return key if self.path == "document" else f"{self.path}.{key}"

    def has(self, key: str) -> bool:
        return key in self._left

    def left(self) -> list[str]:
        return list(self._left)

    def finish(self) -> None:
        if self._left:
            raise PlanInvalid(self._at(next(iter(self._left))), "is not a key of the plan format")

    def take(self, key: str) -> Any:
        if key not in self._left:
            raise PlanInvalid(self._at(key), "is missing")
        return self._left.pop(key)

    def text(self, key: str) -> str:
        value = self.take(key)
        if not isinstance(value, str) or not value:
            raise PlanInvalid(self._at(key), f"expected text, found {_described(value)}")
        return value

    def identifier(self, key: str) -> str:
        return _identifier(self.text(key), self._at(key))

    def integer(self, key: str, least: int, most: int) -> int:
        value = self.take(key)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise PlanInvalid(self._at(key), f"expected a whole number from {least} to {most}, found {_described(value)}")
        return value

    def rate(self, key: str) -> Rate:
        value = self.take(key)
        if not isinstance(value, str):
            raise PlanInvalid(self._at(key), f'expected a percentage in text such as "10%", found {_described(value)}')
        try:
            return Rate.of_percent(value)
        except ValueError as problem:
            raise PlanInvalid(self._at(key), str(problem)) from None

    def choice(self, key: str, allowed: tuple[str, ...], required: bool = False) -> str:
        """One of `allowed`; the first is the default unless required."""
        if not required and key not in self._left:
            return allowed[0]
        value = self.take(key)
        if value not in allowed:
            raise PlanInvalid(self._at(key), f"expected one of {', '.join(allowed)}, found {_described(value)}")
        return str(value)

    def names(self, key: str, default: tuple[str, ...]) -> list[str]:
        """A list of names in any script: 经理."""
        if key not in self._left:
            return list(default)
        value = self.take(key)
        if not isinstance(value, list) or not value:
            raise PlanInvalid(self._at(key), f"expected a list of names, found {_described(value)}")
        for index, name in enumerate(value):
            _name(name, f"{self._at(key)}[{index}]")
        if len(set(value)) != len(value):
            raise PlanInvalid(self._at(key), "names something twice")
        return value

    def time(self, key: str) -> int | None:
        if key not in self._left:
            return None
        value = self.take(key)
        try:
            us = from_text(value)
        except (ValueError, TypeError, OverflowError):
            raise PlanInvalid(self._at(key), f'expected a quoted time such as "2026-01-01T00:00:00Z", found {_described(value)}') from None
        if not EARLIEST_US <= us < LATEST_US:
            raise PlanInvalid(self._at(key), f"{_described(value)} is not between the years 1 and 8999")
        return us

    def section(self, key: str) -> "_Reader":
        return _Reader(self._left.pop(key, {}), self._at(key))

    def sections(self, key: str) -> list["_Reader"]:
        value = self.take(key)
        if not isinstance(value, list):
            raise PlanInvalid(self._at(key), f"expected a list, found {_described(value)}")
        return [_Reader(item, f"{self._at(key)}[{index}]") for index, item in enumerate(value)]


def _identifier(value: Any, path: str) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= 100 or not set(value) <= ID_CHARACTERS:
        raise PlanInvalid(path, f"expected 1 to 100 printable ASCII characters without space and slash, found {_described(value)}")
    return value


def _name(value: Any, path: str) -> None:
    if not isinstance(value, str) or not 1 <= len(value) <= 100 or not value.isprintable() or any(sign.isspace() for sign in value):
        raise PlanInvalid(path, f"expected a name of 1 to 100 printable characters without space, found {_described(value)}")


def _described(value: Any) -> str:
    if isinstance(value, int) and abs(value) >= 10**18:
        return "a number far too large"
    if isinstance(value, str | int):
        return repr(value)
    return f"{value!r} (a float is never exact)" if isinstance(value, float) else f"a {type(value).__name__}"
