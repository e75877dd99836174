"""How much a plan can pay at most, as a share of the base: what the linter holds against 30 % and 100 %.

The bound is one that no order can pass: a rule whose conditions may hold counts as if they held, and every seat counts as taken. Only what
people earn in money is counted, never breakage, never points. It is taken on the order as told; a part refund leaves a fixed amount whole.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from typing import NamedTuple

from services.ledger.domain.engine import REFERRER_RULES
from services.ledger.domain.facts import LineKind
from services.ledger.domain.plan import Plan
from services.ledger.domain.rules import (
    Amount,
    Attributed,
    Counted,
    GroupFormed,
    Paying,
    Peer,
    PeriodPool,
    Rank,
    Rule,
    Seat,
    Triggered,
    Volume,
    When,
)

# Combinations of products, days and order sizes that are looked at one by one. Beyond it some conditions count as if they might hold.
MOST_LOOKS = 200_000
NONE = Fraction(0)


class Most(NamedTuple):
    """`share` of the base that the rules in `by_rule` ({rule index: share}) pay together at worst; `unbounded`: {rule index: why}."""

    share: Fraction
    by_rule: Mapping[int, Fraction]
    unbounded: Mapping[int, str]


class Pay(NamedTuple):
    """What a rule pays at most: a share of the base, and an amount once for an order."""

    rate: Fraction
    fixed: Fraction


class Options(NamedTuple):
    """The amounts a rule may pay by: those of overrides with the number of their `when`, then its own."""

    overrides: Sequence[tuple[int, Amount]]
    own: Amount | None


@dataclass(frozen=True)
class Cell:
    """One kind of line on one kind of day in an order of at least so much. Bits are the numbers of the plan's `when`s."""

    possible: int
    certain: int
    least_minor: int


def most(plan: Plan) -> Most:
    """The most that a plan pays. Exact where conditions exclude each other by kind, sku, category, day, window or order minimum."""
    whens = [rule.when for rule in plan.rules] + [override.when for override in plan.overrides]
    options = {
        index: Options(
            [(len(plan.rules) + at, override.amounts[index]) for at, override in enumerate(plan.overrides) if index in override.amounts],
            rule.amount if isinstance(rule, Paying) else None,
        )
        for index, rule in enumerate(plan.rules)
        if not rule.asset
    }
    unbounded = {index: why for index in options if (why := _loose(plan.rules[index], options[index], whens))}
    counted = {index: plan.rules[index] for index in options if index not in unbounded or isinstance(plan.rules[index], Paying)}
    worst = Most(NONE, {}, unbounded)
    # What is looked at for each kind of line: every condition, every amount of every rule.
    each = max(len(whens), sum(1 + len(one.overrides) for one in options.values()))
    for group in _cells(whens, plan, MOST_LOOKS // max(1, each)):
        rates: dict[int, Fraction] = {}
        fixed: dict[int, Fraction] = {}
        for cell in group:
            line = {index: _pay(plan, index, rule, options, cell) for index, rule in counted.items() if cell.possible >> index & 1}
            for index, pay in line.items():
                if index not in unbounded:
                    fixed[index] = max(fixed.get(index, NONE), pay.fixed)
            mine = _without_excluded(plan, {index: pay.rate for index, pay in line.items() if pay.rate})
            if sum(mine.values()) > sum(rates.values()):
                rates = mine
        least = group[0].least_minor
        by_rule = dict(rates)
        for index, amount in fixed.items():
            if amount and least:
                by_rule[index] = by_rule.get(index, NONE) + Fraction(amount, least)
        share = sum(by_rule.values(), NONE)
        if share > worst.share:
            worst = Most(share, by_rule, unbounded)
    return worst


def pays(plan: Plan, index: int) -> bool:
    """Whether a rule can pay anything at all by its amounts or by those of an override."""
    rule = plan.rules[index]
    if 0 in (rule.cap_order_minor, rule.cap_period_minor):
        return False
    if not isinstance(rule, Paying):
        match rule:
            case PeriodPool():
                return rule.rate.numerator > 0
            case Volume():
                return rule.brackets[-1][1].numerator > 0
            case Rank():
                return rule.places_minor[0] > 0
        return True
    amounts = [rule.amount, *(override.amounts[index] for override in plan.overrides if index in override.amounts)]
    return any(rate or fixed for amount in amounts for rate, fixed in parts(amount).values())


def parts(amount: Amount) -> dict[str, tuple[Fraction, int]]:
    """{tier, "" for everybody else: (rate, fixed)}; of each at most one is not 0."""
    found = {}
    for tier in ("", *amount.tiers):
        rate = amount.rate_of(tier)
        exact = Fraction(rate.numerator, rate.denominator) if rate else NONE
        fixed: int | None = amount.fixed
        if tier in amount.fixed_by_tier:
            fixed = amount.fixed_by_tier[tier]
        found[tier] = (exact, fixed or 0)
    return found


def _loose(rule: Rule, options: Options, whens: Sequence[When]) -> str:
    """Why no order bounds what a rule pays; empty: one does."""
    match rule:
        case Triggered(on="task"):
            return "a task is no order"
        case Rank(board="own" | "direct" | "team"):
            return "its prizes are larger than the sales that win them" if rule.places_minor[0] > rule.at_least else ""
        case Rank() if rule.places_minor[0] > rule.at_least * rule.when.min_order_minor:
            return "its prizes are larger than the sales that win them"
        case Triggered() | Counted():
            return "" if rule.when.min_order_minor else "an order of any size brings it"
        case Paying():
            capped = isinstance(rule, Seat | GroupFormed) and rule.cap_order_minor is not None
            for when, amount in ((rule.when, options.own), *((whens[at], amount) for at, amount in options.overrides)):
                assert amount is not None
                if any(fixed for _, fixed in parts(amount).values()):
                    if amount.per == "unit" and not capped:
                        return "an order may have any number of units"
                    if not max(when.min_order_minor, rule.when.min_order_minor):
                        return "an order of any size brings it"
    return ""


def _pay(plan: Plan, index: int, rule: Rule, options: Mapping[int, Options], cell: Cell) -> Pay:
    match rule:
        case Triggered():
            return Pay(NONE, Fraction(rule.buyer_minor + rule.referrer_minor))
        case Counted():
            # Owed for `at` invitees, each of them with such an order.
            return Pay(NONE, Fraction(rule.fixed_minor, rule.at))
        case PeriodPool():
            return Pay(Fraction(rule.rate.numerator, rule.rate.denominator), NONE)
        case Volume():
            top = rule.brackets[-1][1]
            return Pay(Fraction(top.numerator, top.denominator), NONE)
        case Rank(board="invites"):
            return Pay(NONE, Fraction(rule.places_minor[0], rule.at_least))
        case Rank():
            return Pay(Fraction(rule.places_minor[0], rule.at_least), NONE)
        case Paying():
            tops = [_top(plan, rule, amount, options, cell) for amount in _meant(options[index], cell)]
            rate, fixed = max(top[0] for top in tops), max(top[1] for top in tops)
            if rule.cap_order_minor is not None and isinstance(rule, Seat | GroupFormed):
                fixed = min(fixed, Fraction(rule.cap_order_minor))
                rate = min(rate, Fraction(rule.cap_order_minor, cell.least_minor)) if cell.least_minor else rate
            if rate and fixed and len(tops) == 1 and not options[index].overrides:
                # One payee earns by one tier: the rate or the fixed amount, whichever is more.
                return Pay(rate, NONE) if rate * cell.least_minor >= fixed else Pay(NONE, fixed)
            return Pay(rate, fixed)
    return Pay(NONE, NONE)


def _meant(options: Options, cell: Cell) -> list[Amount]:
    """The amounts that may count for a line: overrides up to the first that certainly does, else also the rule's own."""
    found = []
    for at, amount in options.overrides:
        if cell.possible >> at & 1:
            found.append(amount)
            if cell.certain >> at & 1:
                return found
    assert options.own is not None
    return [*found, options.own]


def _top(plan: Plan, rule: Rule, amount: Amount, options: Mapping[int, Options], cell: Cell) -> tuple[Fraction, Fraction]:
    """(rate, fixed amount) that a rule pays at most by an amount."""
    each = parts(amount)
    if not isinstance(rule, Peer):
        return max(rate for rate, _ in each.values()), Fraction(max(fixed for _, fixed in each.values()))
    tiers = [each[tier] for tier in plan.tiers if tier in amount.tiers]
    if rule.base == "line":
        return rule.times * sum((rate for rate, _ in tiers), NONE), Fraction(rule.times * sum(fixed for _, fixed in tiers))
    # What the first ones of all tiers earn together is at most what the rule they earn by pays.
    assert rule.of is not None
    if not cell.possible >> rule.of & 1:
        return NONE, NONE
    income = [_top(plan, plan.rules[rule.of], one, options, cell) for one in _meant(options[rule.of], cell)]
    factor = rule.times * max((rate for rate, _ in tiers), default=NONE)
    return factor * max(rate for rate, _ in income), factor * max(fixed for _, fixed in income)


def _without_excluded(plan: Plan, rates: dict[int, Fraction]) -> dict[int, Fraction]:
    """Where a rule is `exclusive`, either it pays or those do that go up the chain."""
    exclusive = {index for index in rates if isinstance(rule := plan.rules[index], Attributed) and rule.with_referrer == "exclusive"}
    if not exclusive:
        return rates
    chain = {index for index in rates if plan.rules[index].kind in REFERRER_RULES and not plan.rules[index].asset}
    more, less = exclusive, chain
    if sum(rates[index] for index in chain) > sum(rates[index] for index in exclusive):
        more, less = chain, exclusive
    return {index: rate for index, rate in rates.items() if index in more or index not in less}


# ---------------------------------------------------------------- cells


def _cells(whens: Sequence[When], plan: Plan, at_most: int) -> Iterable[list[Cell]]:
    """Every kind of line, grouped by what its order shares: the day and the order's size."""
    everything = (1 << len(whens)) - 1
    line = [
        _told([when.kinds for when in whens], list(LineKind)),
        _told([when.skus for when in whens]),
        _told([when.categories for when in whens]),
    ]
    order = [
        _told([when.weekdays for when in whens], list(range(7))),
        _told([when.days for when in whens], list(range(1, 32))),
        _windows(whens, plan),
    ]
    sizes = sorted({0, *(when.min_order_minor for when in whens)})
    certain = sum(1 << at for at, when in enumerate(whens) if not when.stores and not when.regions)
    # Too many sizes to look at: some that follow one another are taken for one, of the least of them and with what any of them satisfies.
    step = -(-len(sizes) // max(at_most, 2))
    by_size = []
    for first in (0, *range(1, len(sizes), step)):
        last = sizes[0] if not first else sizes[min(first + step, len(sizes)) - 1]
        by_size.append((sizes[first], sum(1 << at for at, when in enumerate(whens) if when.min_order_minor <= last)))
        if last > sizes[first]:
            certain &= ~sum(1 << at for at, when in enumerate(whens) if sizes[first] < when.min_order_minor <= last)
    looks = len(by_size)
    kept: dict[int, set[int]] = {}
    for number, masks in sorted(enumerate([*line, *order]), key=lambda one: len(one[1])):
        looks *= len(masks)
        kept[number] = masks
        if looks > max(at_most, 1):
            # Too many to look at: what this dimension decides may hold or not.
            looks //= len(masks)
            kept[number] = {everything}
            for mask in masks:
                certain &= mask
    for of_order in product(*(kept[number] for number in range(3, 6))):
        for size, sized in by_size:
            shared = of_order[0] & of_order[1] & of_order[2] & sized
            possible = {shared & a & b & c for a, b, c in product(kept[0], kept[1], kept[2])}
            yield [Cell(mask, mask & certain, size) for mask in possible]


def _told(wanted: Sequence[frozenset[int] | frozenset[str] | frozenset[LineKind]], values: Sequence[int] | None = None) -> set[int]:
    """For each value of a property, which `when`s it satisfies; without `values` any that no `when` names is one more."""
    free = sum(1 << at for at, names in enumerate(wanted) if not names)
    masks: dict[int | str, int] = dict.fromkeys(values, 0) if values is not None else {}
    for at, names in enumerate(wanted):
        for name in names:
            masks[name] = masks.get(name, 0) | 1 << at
    return {free | mask for mask in masks.values()} | (set() if values is not None else {free})


def _windows(whens: Sequence[When], plan: Plan) -> set[int]:
    """For each stretch of time between the ends of windows, which windows it lies in."""
    first, last = plan.effective_from_us or -(2**63), plan.effective_until_us or 2**63
    ends = {end for when in whens for end in (when.from_us, when.until_us) if end is not None}
    found = set()
    for us in {first, *(end for end in ends if first < end < last)}:
        inside = ((when.from_us is None or when.from_us <= us) and (when.until_us is None or us < when.until_us) for when in whens)
        found.add(sum(1 << at for at, holds in enumerate(inside) if holds))
    return found
