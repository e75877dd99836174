"""What plans are made of: conditions, amounts, releases, a class for each kind of rule, promotions. docs/plan-format.md: their meaning."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property, lru_cache
from typing import Literal, NamedTuple

from services.kernel.money import Rate
from services.kernel.times import DAY_US
from services.ledger.domain.facts import Attribution, LineKind, OrderLine

# ---------------------------------------------------------------- when, how much, until when


@dataclass(frozen=True)
class When:
    """Conditions on a line; an empty set means any. `looks_further`: more than the line itself must be looked at."""

    kinds: frozenset[LineKind]
    skus: frozenset[str] = frozenset()
    categories: frozenset[str] = frozenset()
    stores: frozenset[str] = frozenset()
    regions: frozenset[str] = frozenset()
    from_us: int | None = None
    until_us: int | None = None
    weekdays: frozenset[int] = frozenset()
    days: frozenset[int] = frozenset()
    min_order_minor: int = 0

    @cached_property
    def looks_further(self) -> bool:
        return bool(
            self.stores
            or self.regions
            or self.from_us is not None
            or self.until_us is not None
            or self.weekdays
            or self.days
            or self.min_order_minor
        )

    def matches(self, line: OrderLine) -> bool:
        """Whether the line itself is meant."""
        return (
            line.kind in self.kinds
            and (not self.skus or line.sku in self.skus)
            and (not self.categories or line.category in self.categories)
        )

    def holds(self, paid_us: int, day: date, order_minor: int) -> bool:
        """Whether an order paid then (on that day in the plan's zone), of that base in all, is meant."""
        return (
            (self.from_us is None or paid_us >= self.from_us)
            and (self.until_us is None or paid_us < self.until_us)
            and (not self.weekdays or day.weekday() in self.weekdays)
            and (not self.days or day.day in self.days)
            and order_minor >= self.min_order_minor
        )

    def places(self, named: Sequence[Attribution]) -> bool:
        """Whether what an order or line names as store and region is meant."""
        return all(
            not wanted or any(one.role == role and (one.scope in wanted or one.member_id in wanted) for one in named)
            for role, wanted in (("store", self.stores), ("region", self.regions))
        )


@dataclass(frozen=True)
class Amount:
    """What a payee gets: a rate of the base or a fixed amount, one for everybody or by tier. A fixed one wins for whomever it names."""

    rate: Rate | None
    rates: Mapping[str, Rate]
    fixed: int | None
    fixed_by_tier: Mapping[str, int]
    per: Literal["unit", "order", "group"]

    @cached_property
    def denominator(self) -> int:
        """Of every exact amount this gives: the largest power of ten among the rates."""
        return max((one.denominator for one in self._all_rates()), default=1)

    def _all_rates(self) -> Iterable[Rate]:
        return [*self.rates.values(), *([self.rate] if self.rate else [])]

    @cached_property
    def tiers(self) -> frozenset[str]:
        return frozenset(self.rates) | frozenset(self.fixed_by_tier)

    @cached_property
    def _parts(self) -> Mapping[str | None, tuple[int, int]]:
        """{tier, None for everybody else: (rate over the denominator, fixed)}; of each at most one is not 0."""
        found: dict[str | None, tuple[int, int]] = {}
        for tier in (None, *self.tiers):
            fixed = self.fixed_by_tier.get(tier, self.fixed) if tier is not None else self.fixed
            rate = self.rates.get(tier, self.rate) if tier is not None else self.rate
            if fixed is not None:
                found[tier] = (0, fixed)
            elif rate is not None:
                found[tier] = (rate.numerator * (self.denominator // rate.denominator), 0)
            else:
                found[tier] = (0, 0)
        return found

    @cached_property
    def _top_rate(self) -> int | None:
        """The highest rate over the denominator; None where anybody gets a fixed amount."""
        return None if any(fixed for _, fixed in self._parts.values()) else max(rate for rate, _ in self._parts.values())

    @cached_property
    def flat(self) -> int | None:
        """The rate over the denominator, where it is the same for everybody and nothing is fixed."""
        rate, fixed = self._parts[None]
        return rate if len(self._parts) == 1 and not fixed else None

    def names(self, tier: str) -> bool:
        """Whether a payee of this tier gets anything of something."""
        rate, fixed = self._parts.get(tier) or self._parts[None]
        return bool(rate or fixed)

    def exactly(self, tier: str, base_minor: int, count: int) -> int:
        """The exact amount of a payee of this tier over `denominator`; `count` is how many times a fixed amount counts."""
        rate, fixed = self._parts.get(tier) or self._parts[None]
        return rate * base_minor + fixed * count * self.denominator

    def top(self, base_minor: int, count: int) -> int:
        """The most that anybody gets, over `denominator`."""
        if self._top_rate is not None and base_minor >= 0:
            return self._top_rate * base_minor
        return max(rate * base_minor + fixed * count * self.denominator for rate, fixed in self._parts.values())

    def rate_of(self, tier: str) -> Rate | None:
        """The rate that counts for a tier; None where a fixed amount does."""
        if self.fixed_by_tier.get(tier, self.fixed) is not None:
            return None
        return self.rates.get(tier, self.rate)


class Release(NamedTuple):
    on: Literal["completion", "group_formed", "period_close", "at_once"]
    days: int


# ---------------------------------------------------------------- rules


@dataclass(frozen=True)
class Rule:
    """What every rule has. `asset` is empty for money; caps are what one payee earns at most."""

    id: str
    kind: str
    when: When
    release: Release
    asset: str
    cap_order_minor: int | None
    cap_period_minor: int | None


@dataclass(frozen=True)
class Paying(Rule):
    """Rules that pay on a line by an amount."""

    amount: Amount


@dataclass(frozen=True)
class Seat(Paying):
    """`self` and `generation`. `level`: 0 the buyer, n the n-th above them."""

    level: int
    skip_unqualified: bool
    depth: int


@dataclass(frozen=True)
class Differential(Paying):
    depth: int
    buyer: Literal["out", "earns", "deducts"]


@dataclass(frozen=True)
class Peer(Paying):
    depth: int
    times: int
    base: Literal["line", "income"]
    # Index of the rule by which the first one earns; None: whoever comes first on the path.
    of: int | None


@dataclass(frozen=True)
class Attributed(Paying):
    role: str
    with_referrer: Literal["both", "exclusive", "split"]
    referrer_share: Rate | None


@dataclass(frozen=True)
class LinePool(Paying):
    role: str
    split: Literal["shares", "seats"]
    of_total: int | None


@dataclass(frozen=True)
class GroupFormed(Paying):
    """`triggered`, on group_formed: the opener of the order's group earns."""


@dataclass(frozen=True)
class Triggered(Rule):
    """`triggered`, on invite, upgrade or task: fixed amounts, in the order buyer (member), referrer."""

    on: Literal["invite", "upgrade", "task"]
    buyer_minor: int
    referrer_minor: int
    tier: str
    task: str
    most: int | None


@dataclass(frozen=True)
class Counted(Rule):
    at: int
    fixed_minor: int
    repeat: bool
    most: int | None

    def owed(self, invitees: int) -> int:
        """What an inviter is owed with so many qualified invitees."""
        times = invitees // self.at if self.repeat else min(1, invitees // self.at)
        return self.fixed_minor * (times if self.most is None else min(times, self.most))


@dataclass(frozen=True)
class PeriodPool(Rule):
    rate: Rate
    role: str
    tiers: tuple[str, ...]
    split: Literal["shares", "seats", "volume"]
    of_total: int | None
    volume: Literal["own", "team"]


@dataclass(frozen=True)
class Volume(Rule):
    # (from, rate), lowest first.
    brackets: tuple[tuple[int, Rate], ...]
    tiers: tuple[str, ...]


@dataclass(frozen=True)
class Rank(Rule):
    board: Literal["invites", "own", "direct", "team"]
    places_minor: tuple[int, ...]
    at_least: int


PERIOD_RULES = (PeriodPool, Volume, Rank)
# Rules of which every amount may be replaced by an override.
OVERRIDABLE = (Seat, Differential, Peer, Attributed, LinePool)


class Override(NamedTuple):
    when: When
    # {rule index: amount}
    amounts: Mapping[int, Amount]


# ---------------------------------------------------------------- promotions


class Condition(NamedTuple):
    """`days` 0: in all. `depth` is for team_volume."""

    metric: Literal["orders", "own_volume", "team_volume", "qualified_directs", "gift_packs"]
    at_least: int
    days: int
    depth: int

    @property
    def counter(self) -> str:
        return f"team_volume:{self.depth}" if self.metric == "team_volume" else self.metric


class Promotion(NamedTuple):
    tier: str
    every: bool
    conditions: tuple[Condition, ...]


# ---------------------------------------------------------------- days and periods


def local_day(us: int, zone_us: int) -> date:
    """The day of a time in the plan's zone. Days before the year 1 or after 9998 are those at the ends."""
    return date.fromordinal(local_ordinal(us, zone_us))


def local_day_text(us: int, zone_us: int) -> str:
    """The same as 2026-03-08."""
    return _iso(local_ordinal(us, zone_us))


def local_ordinal(us: int, zone_us: int) -> int:
    """The same as `date.toordinal()` gives it."""
    ordinal = (us + zone_us) // DAY_US + _EPOCH_ORDINAL
    return ordinal if 1 <= ordinal <= _LAST_ORDINAL else min(max(ordinal, 1), _LAST_ORDINAL)


def days_before(day: str, days: int) -> str:
    """The first of so many days that end with a day; the first of the calendar where it has no more."""
    return _iso(max(1, _ordinal(day) - days + 1))


@lru_cache(maxsize=4096)
def _ordinal(day: str) -> int:
    return date.fromisoformat(day).toordinal()


@lru_cache(maxsize=4096)
def _iso(ordinal: int) -> str:
    return date.fromordinal(ordinal).isoformat()


def day_us(day: date, zone_us: int) -> int:
    """When a day begins in the plan's zone."""
    return (day.toordinal() - _EPOCH_ORDINAL) * DAY_US - zone_us


_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()
_LAST_ORDINAL = date(9998, 12, 31).toordinal()
