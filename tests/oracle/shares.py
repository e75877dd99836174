"""Who earns what from an order, by hand: every kind of rule that pays on an order, as docs/plan-format.md says it, in fractions.

Pure: what is frozen with the order (`Scene`) and what remains of it go in, shares come out. Knows no accounts, no log and no release.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from tests.oracle.facts import Line, Order
from tests.oracle.plan import Amounts, Plan, Rule, named_for

Remaining = Mapping[int, tuple[int, int]]


def half_up(exact: Fraction) -> int:
    """A whole number of minor units, the half rounded away from zero."""
    rounded = math.floor(abs(exact) + Fraction(1, 2))
    return rounded if exact >= 0 else -rounded


def shared(exact_pool: Fraction, parts: Sequence[Fraction]) -> list[int]:
    """Splits HALF_UP(pool): each part rounded down, missing units to the largest remainders, ties to the first. The last is breakage."""
    exact = [*parts, exact_pool - sum(parts)]
    whole = [math.floor(part) for part in exact]
    missing = half_up(exact_pool) - sum(whole)
    by_remainder = sorted(range(len(exact)), key=lambda index: (whole[index] - exact[index], index))
    for index in by_remainder[:missing]:
        whole[index] += 1
    return whole


@dataclass(frozen=True)
class Holder:
    """Somebody who holds a role, and their shares of it."""

    member_id: str
    weight: int = 1


@dataclass(frozen=True)
class Scene:
    """All that is frozen with an order besides itself.

    path: (member, tier that counts), buyer first. at_place: (role, place) -> who holds it there, in the order granted; the place "" is
    everywhere. locked_to: to whom this order let the buyer's lock fall, if to somebody. promoted_to: the tier this order promoted the
    buyer to. earned: (rule id, member) -> what the rule has given them in the period of paid_at by the orders before.
    """

    plan: Plan
    order: Order
    path: tuple[tuple[str, str], ...]
    at_place: Mapping[tuple[str, str], tuple[Holder, ...]] = field(default_factory=dict)
    opener: str = ""
    first_in_group: bool = False
    locked_to: str = ""
    promoted_to: str = ""
    earned: Mapping[tuple[str, str], int] = field(default_factory=dict)


@dataclass(frozen=True)
class Share:
    """What one rule gives one payee (empty: breakage) on one line; line 0 is the order as a whole."""

    line_no: int
    rule: Rule
    payee: str
    amount: int


def lives(line: Line, remaining: Remaining) -> bool:
    """Whether something remains of a line."""
    base, quantity = remaining[line.line_no]
    return base > 0 or (line.base_minor == 0 and quantity > 0)


def any_lives(order: Order, remaining: Remaining) -> bool:
    """Whether something remains of an order."""
    return any(lives(line, remaining) for line in order.lines)


def a_match_lives(scene: Scene, rule: Rule, remaining: Remaining) -> bool:
    """Whether a line that matches the rule lives."""
    return any(rule.when.holds(scene.order, line, scene.plan.zone_ns) and lives(line, remaining) for line in scene.order.lines)


def shares_of(scene: Scene, remaining: Remaining) -> list[Share]:
    """What every rule gives on every line and on the order as a whole; a payee once for each rule and line; nothing that is 0.

    `counted` is not here: it depends on other orders too.
    """
    by_rule: dict[str, list[Share]] = {}
    exclusive = _lines_of_exclusive_rules(scene, {line.line_no: (line.base_minor, line.quantity) for line in scene.order.lines})
    for rule in scene.plan.rules:
        if rule.on_lines():
            shares: list[Share] = []
            for line in scene.order.lines:
                taken = line.line_no in exclusive and rule.kind in ("generation", "differential", "peer")
                if rule.when.holds(scene.order, line, scene.plan.zone_ns) and lives(line, remaining) and not taken:
                    given = _on_line(scene, rule, line, remaining, by_rule)
                    shares += [Share(line.line_no, rule, payee, amount) for payee, amount in _merged(given).items() if amount]
            by_rule[rule.rule_id] = _capped(scene, rule, shares)
        elif rule.kind == "triggered" and a_match_lives(scene, rule, remaining):
            by_rule[rule.rule_id] = [Share(0, rule, payee, amount) for payee, amount in _merged(_triggered(scene, rule)).items() if amount]
    return [share for shares in by_rule.values() for share in shares]


def _merged(given: Sequence[tuple[str, int]]) -> dict[str, int]:
    sums: dict[str, int] = {}
    for payee, amount in given:
        sums[payee] = sums.get(payee, 0) + amount
    return sums


def _lines_of_exclusive_rules(scene: Scene, remaining: Remaining) -> set[int]:
    """The lines on which somebody earns by an `exclusive` rule before its caps; asked for the order as it was told."""
    lines: set[int] = set()
    for rule in scene.plan.rules:
        if rule.kind == "attributed" and rule.with_referrer == "exclusive":
            for line in scene.order.lines:
                if rule.when.holds(scene.order, line, scene.plan.zone_ns) and lives(line, remaining):
                    given = _merged(_attributed(scene, rule, line, remaining))
                    if any(payee and amount > 0 for payee, amount in given.items()):
                        lines.add(line.line_no)
    return lines


def _capped(scene: Scene, rule: Rule, shares: list[Share]) -> list[Share]:
    """Cuts each payee's shares, in the order of the lines, at the room their caps leave; what is cut off is breakage."""
    if rule.cap_order is None and rule.cap_period is None:
        return shares
    room: dict[str, int] = {}
    cut: dict[tuple[int, str], int] = {}
    for share in shares:
        amount = share.amount
        if share.payee:
            limits = [] if rule.cap_order is None else [rule.cap_order]
            if rule.cap_period is not None:
                limits.append(max(0, rule.cap_period - scene.earned.get((rule.rule_id, share.payee), 0)))
            left = room.setdefault(share.payee, min(limits))
            amount = min(amount, left)
            room[share.payee] = left - amount
            cut[share.line_no, ""] = cut.get((share.line_no, ""), 0) + share.amount - amount
        cut[share.line_no, share.payee] = cut.get((share.line_no, share.payee), 0) + amount
    return [Share(line_no, rule, payee, amount) for (line_no, payee), amount in cut.items() if amount]


# -------------------------------------------------------------------------------------------------------------------- amounts


def _exact(scene: Scene, rule: Rule, line: Line, remaining: Remaining, tier: str) -> Fraction:
    """What somebody of this tier is given on what remains of a living line, before rounding."""
    amounts = scene.plan.amounts(rule, scene.order, line)
    base, quantity = remaining[line.line_no]
    fixed = amounts.fixed_for(tier)
    if fixed is None:
        return amounts.rate_for(tier) * base
    if amounts.per == "unit":
        return Fraction(fixed * quantity)
    matching = [each for each in scene.order.lines if rule.when.holds(scene.order, each, scene.plan.zone_ns) and lives(each, remaining)]
    counts = matching[0] is line and (amounts.per == "order" or scene.first_in_group)
    return Fraction(fixed if counts else 0)


def _top(scene: Scene, rule: Rule, line: Line, remaining: Remaining) -> Fraction:
    """The most that anybody could be given, whatever their tier."""
    return max(_exact(scene, rule, line, remaining, tier) for tier in ("", *scene.plan.tiers))


def _named_tiers(amounts: Amounts) -> list[str]:
    return [*amounts.rates, *(tier for tier in amounts.fixed if tier not in amounts.rates)]


# ---------------------------------------------------------------------------------------------------------------- rules on lines


def _on_line(scene: Scene, rule: Rule, line: Line, remaining: Remaining, before: Mapping[str, Sequence[Share]]) -> list[tuple[str, int]]:
    """(payee or "" for breakage, amount) of a rule on a living line that matches it."""
    match rule.kind:
        case "self":
            return _independent(scene, rule, line, remaining, scene.path[0])
        case "generation":
            return _independent(scene, rule, line, remaining, _nth_above(scene, rule, line))
        case "differential":
            return _differential(scene, rule, line, remaining)
        case "peer":
            return _peer(scene, rule, line, remaining, before)
        case "attributed":
            return _attributed(scene, rule, line, remaining)
        case "pool":
            return _pool(scene, rule, line, remaining)
        case _:  # triggered on group_formed
            if not scene.opener:
                return []
            return [(scene.opener, half_up(_exact(scene, rule, line, remaining, "")))]


def _independent(scene: Scene, rule: Rule, line: Line, remaining: Remaining, who: tuple[str, str] | None) -> list[tuple[str, int]]:
    pool = half_up(_top(scene, rule, line, remaining))
    if who is None:
        return [("", pool)]
    amount = half_up(_exact(scene, rule, line, remaining, who[1]))
    return [(who[0], amount), ("", pool - amount)]


def _nth_above(scene: Scene, rule: Rule, line: Line) -> tuple[str, str] | None:
    above = scene.path[1:]
    if rule.skip_unqualified:
        amounts = scene.plan.amounts(rule, scene.order, line)
        above = tuple(who for who in above[: rule.depth] if amounts.gives(who[1]))
    return above[rule.generation - 1] if len(above) >= rule.generation else None


def _differential(scene: Scene, rule: Rule, line: Line, remaining: Remaining) -> list[tuple[str, int]]:
    top, met = _top(scene, rule, line, remaining), Fraction(0)
    way = scene.path[0 if rule.buyer == "earns" else 1 : rule.depth + 1]
    if rule.buyer == "deducts":
        met = _exact(scene, rule, line, remaining, scene.path[0][1])
    pool = top - met
    named: list[tuple[str, Fraction]] = []
    for member_id, tier in way:
        amount = _exact(scene, rule, line, remaining, tier)
        if amount > met:
            named.append((member_id, amount - met))
            met = amount
    return list(zip([*(who for who, _ in named), ""], shared(pool, [part for _, part in named]), strict=True))


def _peer(scene: Scene, rule: Rule, line: Line, remaining: Remaining, before: Mapping[str, Sequence[Share]]) -> list[tuple[str, int]]:
    given: list[tuple[str, int]] = []
    above = list(enumerate(scene.path))[1 : rule.depth + 1]
    income = {share.payee: share.amount for share in before.get(rule.of, ()) if share.line_no == line.line_no and share.payee}
    for tier in _named_tiers(scene.plan.amounts(rule, scene.order, line)):
        if rule.of:
            near = enumerate(scene.path[: rule.depth + 1])
            came = [level for level, who in near if who[1] == tier and income.get(who[0], 0) > 0]
        else:
            came = [level for level, who in above if who[1] == tier]
        exact = _exact(scene, rule, line, remaining, tier)
        if rule.base == "income":
            if not came:
                continue
            exact = scene.plan.amounts(rule, scene.order, line).rate_for(tier) * income[scene.path[came[0]][0]]
        peers = [who[0] for level, who in above if came and level > came[0] and who[1] == tier][: rule.times]
        given += [(peer, half_up(exact)) for peer in peers]
        given.append(("", half_up(exact) * (rule.times - len(peers))))
    return given


def _attributed(scene: Scene, rule: Rule, line: Line, remaining: Remaining) -> list[tuple[str, int]]:
    named = named_for(scene.order, line, rule.role)
    if not named:
        return []
    holders: list[Holder] = []
    for one in named:
        holders += [Holder(one.member_id)] if one.member_id else scene.at_place.get((rule.role, one.scope), ())
    pool = _exact(scene, rule, line, remaining, "")
    if not holders:
        return [("", half_up(pool))]
    to_holders = pool * (1 - rule.referrer_share) if rule.with_referrer == "split" else pool
    payees = [holder.member_id for holder in holders]
    parts = [to_holders * Fraction(holder.weight, sum(each.weight for each in holders)) for holder in holders]
    if rule.with_referrer == "split" and len(scene.path) > 1:
        payees.append(scene.path[1][0])
        parts.append(pool - to_holders)
    return list(zip([*payees, ""], shared(pool, parts), strict=True))


def _pool(scene: Scene, rule: Rule, line: Line, remaining: Remaining) -> list[tuple[str, int]]:
    return split_pool(rule, _exact(scene, rule, line, remaining, ""), scene.at_place.get((rule.role, ""), ()))


def split_pool(rule: Rule, pool: Fraction, holders: Sequence[Holder]) -> list[tuple[str, int]]:
    """A pool split by shares or seats among its holders, in their order; what is not held is breakage.

    Whoever was granted the role twice holds it twice.
    """
    weights = [holder.weight if rule.split == "shares" else 1 for holder in holders]
    total = max(rule.of_total or 0, sum(weights))
    parts = [pool * Fraction(weight, total) for weight in weights]
    return list(zip([*(holder.member_id for holder in holders), ""], shared(pool, parts), strict=True))


# ------------------------------------------------------------------------------------------------------- the order as a whole


def _triggered(scene: Scene, rule: Rule) -> list[tuple[str, int]]:
    happened = scene.locked_to != "" if rule.on == "invite" else scene.promoted_to != "" and rule.tier in ("", scene.promoted_to)
    if rule.on not in ("invite", "upgrade") or not happened:
        return []
    payees = {"buyer": scene.path[0][0], "referrer": scene.path[1][0] if len(scene.path) > 1 else ""}
    return [(payees[who], amount) for who, amount in rule.to.items()]


def counted(rule: Rule, qualified: int) -> int:
    """What a `counted` rule owes an inviter for so many qualified invitees."""
    times = qualified // rule.at
    if not rule.repeat:
        times = min(times, 1)
    if rule.most is not None:
        times = min(times, rule.most)
    return times * (rule.amounts.one_fixed or 0)
