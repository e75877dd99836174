"""The plan engine: one pure function from (plan, who stands where, the order, what remains of it) to shares.

A rule kind is one function in `CLAIMS`; it looks at what a decision froze and never further. docs/plan-format.md gives the meaning of each.
An engine version is never changed once it has decided an order: refunds of that order, years later, call the same one. Kinds of rules may
be added to it, because no order decided before can have met one.

Version 2 gives the same shares as 1; what a refund takes back of them comes from another place (`TOLD_APART`).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, NamedTuple

from services.kernel.money import half_up, largest_remainder
from services.ledger.domain.facts import Attribution, LineShares, OrderLine, OrderPaid, Person, Share
from services.ledger.domain.plan import Plan
from services.ledger.domain.rules import Amount, Attributed, Differential, GroupFormed, LinePool, Paying, Peer, Rule, Seat, When, local_day

ENGINE_VERSION = 2
# From this version on, what was paid at once is told from what a hold stopped by the amounts that wait, also where a share of another rule
# is due in that very instant; and what a hold stopped of a share that was released goes first. Version 1 took both for stopped then, and
# took what a refund takes back from pending first; of what was released it took from available.
TOLD_APART = 2
BREAKAGE = 0
# What a NamedTuple is made by, without the detour through its own __new__ in Python: an order makes several for each of its lines.
_tuple = tuple.__new__

# {line: (base, units)} of what is left of an order.
Remaining = Mapping[int, tuple[int, int]]


class Standing:
    """Everything about an order that was frozen when it was recorded, arranged for looking up."""

    def __init__(
        self,
        plan: Plan,
        people: Sequence[Person],
        fact: OrderPaid,
        paid_us: int,
        *,
        invited: bool = False,
        promoted: str = "",
        group_first: bool = False,
    ) -> None:
        self.plan, self.people, self.fact, self.paid_us = plan, people, fact, paid_us
        # Whether this order let the lock fall to somebody; the tier it promoted its buyer to.
        self.invited, self.promoted, self.group_first = invited, promoted, group_first
        self.path: Sequence[Person] = people
        self.opener: int | None = None
        self._firsts: dict[str, int] = {}
        self._named: dict[tuple[str, str], int] = {}
        self._held: dict[tuple[str, str], list[int]] = {}
        if people[-1].role:
            self.path = [person for person in people if not person.role]
            for index, person in enumerate(people):
                if person.role == "opener" and not person.role_position:
                    self.opener = index
                elif person.role and person.role_position:
                    self._held.setdefault((person.role, person.scope), []).append(index)
                elif person.role:
                    self._named[(person.role, person.member_id)] = index
        self._day: date | None = None
        self._order_minor = -1

    def means(self, when: When, line: OrderLine) -> bool:
        """Whether a rule's conditions hold for a line."""
        if not when.matches(line):
            return False
        if not when.looks_further:
            return True
        if self._day is None:
            self._day = local_day(self.paid_us, self.plan.zone_us)
            self._order_minor = sum(one.base_minor for one in self.fact.lines)
        return when.holds(self.paid_us, self._day, self._order_minor) and when.places(
            [*self.named(line, "store"), *self.named(line, "region")]
        )

    def named(self, line: OrderLine, role: str) -> list[Attribution]:
        """The attributions that count for a line in a role."""
        own = [one for one in line.attributions if one.role == role]
        return own or [one for one in self.fact.attributions if one.role == role]

    def holders(self, named: Iterable[Attribution]) -> list[tuple[int, int]]:
        """(index, weight) of the people in a role, each once."""
        found: dict[int, int] = {}
        for one in named:
            if one.member_id:
                index = self._named[(one.role, one.member_id)]
                found.setdefault(index, 1)
            else:
                for index in self._held.get((one.role, one.scope), ()):
                    found.setdefault(index, self.people[index].weight)
        return list(found.items())

    def first_of(self, payee: int) -> int:
        """The first payee who is the same member: one may stand on the path and hold a role, or hold it twice."""
        if not self._firsts:
            for number, person in enumerate(self.people, 1):
                self._firsts.setdefault(person.member_id, number)
        return self._firsts[self.people[payee - 1].member_id]

    def everywhere(self, role: str) -> list[tuple[int, int]]:
        """(index, weight) of those who hold a role everywhere."""
        return [(index, self.people[index].weight) for index in self._held.get((role, ""), ())]


@dataclass(slots=True)
class At:
    """A rule's line: what a rule kind looks at. `earned` is what the rules before it gave on this line: {rule index: shares}."""

    standing: Standing
    line: OrderLine
    base_minor: int
    count: int
    earned: dict[int, list[Share]] = field(default_factory=dict)


def claim_of_seat(at: At, index: int, rule: Seat, amount: Amount) -> list[Share]:
    """`self` and `generation`: who sits at the rule's level earns their tier's amount; what of the top amount is not earned is breakage."""
    return _of_seat(at.standing.path, index, rule, amount, at.base_minor, at.count)


def _of_seat(path: Sequence[Person], index: int, rule: Seat, amount: Amount, base_minor: int, count: int) -> list[Share]:
    level, denominator = rule.level, amount.denominator
    if amount.flat is not None and not rule.skip_unqualified:
        pool = half_up(amount.flat * base_minor, denominator)
        return [_tuple(Share, (index, level + 1 if level < len(path) else BREAKAGE, pool))] if pool else []
    top = amount.top(base_minor, count)
    pool = half_up(top, denominator)
    if not pool:
        return []
    if rule.skip_unqualified:
        level, missing = 0, rule.level
        while missing and level < len(path):
            level += 1
            if level > rule.depth or level == len(path):
                level = len(path)
            elif amount.names(path[level].tier):
                missing -= 1
    if level >= len(path):
        return [_tuple(Share, (index, BREAKAGE, pool))]
    exact = amount.exactly(path[level].tier, base_minor, count)
    if exact == top:
        return [_tuple(Share, (index, level + 1, pool))]
    earned = half_up(exact, denominator)
    shares = [Share(index, level + 1, earned)] if earned else []
    if pool != earned:
        shares.append(Share(index, BREAKAGE, pool - earned))
    return shares


class Parts(NamedTuple):
    """What several share: the exact pool and each payee's exact part of it, over one denominator. What is left over is breakage."""

    pool: int
    denominator: int
    parts: list[tuple[int, int]]


def parts_of_differential(at: At, rule: Differential, amount: Amount) -> Parts:
    """级差: going up, each earns their tier's amount less the highest met below; the top amount is the pool."""
    path = at.standing.path
    top = amount.top(at.base_minor, at.count)
    met = amount.exactly(path[0].tier, at.base_minor, at.count) if rule.buyer == "deducts" else 0
    pool = top - met
    parts: list[tuple[int, int]] = []
    for level in range(0 if rule.buyer == "earns" else 1, min(rule.depth, len(path) - 1) + 1):
        reached = amount.exactly(path[level].tier, at.base_minor, at.count)
        if reached > met:
            parts.append((level + 1, reached - met))
            met = reached
            if met == top:
                break
    return Parts(pool, amount.denominator, parts)


def claim_of_peer(at: At, index: int, rule: Peer, amount: Amount) -> list[Share]:
    """平级: of each tier named, those who stand above the first one of that tier."""
    path = at.standing.path
    income: dict[str, int] = {}
    if rule.of is not None:
        for _, payee, earned in at.earned.get(rule.of, ()):
            if payee:
                member_id = at.standing.people[payee - 1].member_id
                income[member_id] = income.get(member_id, 0) + earned
    # {tier: levels from the bottom up}; the first of a tier by whose income others earn may be the buyer.
    levels: dict[str, list[int]] = {tier: [] for tier in amount.tiers}
    for level in range(1 if rule.of is None else 0, min(rule.depth, len(path) - 1) + 1):
        found = levels.get(path[level].tier)
        if found is not None and (found or rule.of is None or income.get(path[level].member_id)):
            found.append(level)
    shares: list[Share] = []
    vacant = 0
    for tier in at.standing.plan.tiers:
        if tier not in amount.tiers:
            continue
        above = levels[tier]
        first = above[0] if above else None
        if rule.base == "income":
            if first is None:
                continue
            each = half_up(amount.exactly(tier, income[path[first].member_id], 0), amount.denominator)
        else:
            each = half_up(amount.exactly(tier, at.base_minor, at.count), amount.denominator)
        if not each:
            continue
        peers = above[1 : rule.times + 1]
        shares += [Share(index, level + 1, each) for level in peers]
        vacant += each * (rule.times - len(peers))
    if vacant:
        shares.append(Share(index, BREAKAGE, vacant))
    return shares


def parts_of_attributed(at: At, rule: Attributed, amount: Amount) -> Parts | None:
    """Whoever the order names in a role, alone or with the person at level 1."""
    named = at.standing.named(at.line, rule.role)
    if not named:
        return None
    exact = amount.top(at.base_minor, at.count)
    holders = at.standing.holders(named)
    held = sum(weight for _, weight in holders) or 1
    if rule.referrer_share is None or not holders:
        return Parts(exact * held, amount.denominator * held, [(place + 1, exact * weight) for place, weight in holders])
    theirs, whole = rule.referrer_share.numerator, rule.referrer_share.denominator
    parts = [(place + 1, exact * weight * (whole - theirs)) for place, weight in holders]
    if len(at.standing.path) > 1:
        parts.append((2, exact * held * theirs))
    return Parts(exact * held * whole, amount.denominator * held * whole, parts)


def parts_of_pool(at: At, rule: LinePool, amount: Amount) -> Parts:
    """A share of the line for everybody who holds a role everywhere."""
    exact = amount.top(at.base_minor, at.count)
    holders = [(place, 1 if rule.split == "seats" else weight) for place, weight in at.standing.everywhere(rule.role)]
    total = max(rule.of_total or 0, sum(weight for _, weight in holders)) or 1
    return Parts(exact * total, amount.denominator * total, [(place + 1, exact * weight) for place, weight in holders])


def parts_of_group(at: At, rule: GroupFormed, amount: Amount) -> Parts | None:
    """拼团: the opener of the order's group."""
    if at.standing.opener is None or (amount.per == "group" and not at.standing.group_first):
        return None
    exact = amount.top(at.base_minor, at.count)
    return Parts(exact, amount.denominator, [(at.standing.opener + 1, exact)])


PARTS: dict[type, Callable[[At, Any, Amount], Parts | None]] = {
    Differential: parts_of_differential,
    Attributed: parts_of_attributed,
    LinePool: parts_of_pool,
    GroupFormed: parts_of_group,
}


def claim_of_shared(at: At, index: int, rule: Paying, amount: Amount) -> list[Share]:
    """One pool for several: each one's part, then breakage, by largest remainder. Two parts of one payee are two shares."""
    found = PARTS[type(rule)](at, rule, amount)
    if found is None:
        return []
    pool_numerator, denominator, parts = found
    pool = half_up(pool_numerator, denominator)
    if pool <= 0:
        return []
    left = pool_numerator - sum(part for _, part in parts)
    whole = [*parts, (BREAKAGE, left)] if left else parts
    amounts = largest_remainder(pool, [part for _, part in whole], denominator)
    return [Share(index, payee, amount) for (payee, _), amount in zip(whole, amounts, strict=True) if amount]


CLAIMS: dict[type, Callable[..., list[Share]]] = {
    Seat: claim_of_seat,
    Peer: claim_of_peer,
    **dict.fromkeys(PARTS, claim_of_shared),
}
# What an `exclusive` attribution puts out of force on a line.
REFERRER_RULES = ("generation", "differential", "peer")


class Rooms:
    """How much each payee may still earn by a capped rule. `period` gives the room that the period leaves, when an order is recorded."""

    def __init__(self, frozen: Mapping[tuple[int, int], int] | None, period: Callable[[int, int], int | None] | None = None) -> None:
        self._left: dict[tuple[int, int], int] = dict(frozen or {})
        self._period = period
        # What was frozen: {(rule, payee): room}.
        self.asked: dict[tuple[int, int], int] = {}

    def cap(self, rule: Paying, shares: list[Share], standing: Standing) -> list[Share]:
        """The shares as far as their payees have room; the rest is breakage, the last. Whoever is there twice has one room."""
        capped, cut = [], 0
        for share in shares:
            if share.payee == BREAKAGE:
                cut += share.amount_minor
                continue
            key = (share.rule_index, standing.first_of(share.payee))
            room = self._left.get(key)
            if room is None:
                room = self._room(rule, key)
            amount = min(share.amount_minor, room)
            self._left[key] = room - amount
            cut += share.amount_minor - amount
            if amount:
                capped.append(share._replace(amount_minor=amount))
        if cut:
            capped.append(Share(shares[0].rule_index, BREAKAGE, cut))
        return capped

    def _room(self, rule: Paying, key: tuple[int, int]) -> int:
        limits = [] if rule.cap_order_minor is None else [rule.cap_order_minor]
        if rule.cap_period_minor is not None:
            # Who was given nothing when the order was recorded has no room frozen, and gains nothing by a refund.
            period = self._period(*key) if self._period else 0
            limits.append(max(0, period or 0))
        room = min(limits) if limits else 2**63 - 1
        self.asked[key] = room
        return room


class Look(NamedTuple):
    """What a rule saw on a line and gave, before and after its cap: for explaining."""

    at: At
    amount: Amount
    uncapped: list[Share]
    shares: list[Share]


# {(line, rule index): look}
Looks = dict[tuple[int, int], Look]


def entitle(standing: Standing, remaining: Remaining, rooms: Rooms, looks: Looks | None = None) -> list[LineShares]:
    """Who is entitled to what on what remains of an order: its lines as told, then, if there are any, shares of the order as a whole.

    Zeros are left out. For every rule on every line payees + breakage = its pool. `looks` is filled where it is given.
    """
    if standing.plan.is_plain and looks is None:
        return plain(standing.plan, standing.path, standing.fact.lines, remaining)
    begun: set[int] = set()
    lines = [LineShares(line.line_no, tuple(_line(standing, line, remaining, rooms, begun, looks))) for line in standing.fact.lines]
    whole = _whole(standing, remaining)
    if whole:
        lines.append(LineShares(0, tuple(whole)))
    return lines


def lives(line: OrderLine, base_minor: int, units: int) -> bool:
    """Whether something of a line remains."""
    return base_minor > 0 or (line.base_minor == 0 and units > 0)


def plain(plan: Plan, path: Sequence[Person], lines: Sequence[OrderLine], remaining: Remaining) -> list[LineShares]:
    """The same for a plan that `is_plain`, which looks at nothing but who is on the path."""
    found = []
    for line in lines:
        base_minor, units = remaining[line.line_no]
        shares: list[Share] = []
        if lives(line, base_minor, units):
            for index, rule in plan.plain_rules:
                if rule.when.matches(line):
                    shares += _of_seat(path, index, rule, rule.amount, base_minor, units)
        found.append(_tuple(LineShares, (line.line_no, tuple(shares))))
    return found


def _line(standing: Standing, line: OrderLine, remaining: Remaining, rooms: Rooms, begun: set[int], looks: Looks | None) -> list[Share]:
    """`begun` holds the rules that met their first living line."""
    base_minor, units = remaining[line.line_no]
    if not lives(line, base_minor, units):
        return []
    plan = standing.plan
    meant = [(index, rule) for index, rule in plan.line_rules if standing.means(rule.when, line)]
    shares: list[Share] = []
    earned: dict[int, list[Share]] = {}
    shut_out = any(_pays_somebody(standing, line, index, rule) for index, rule in meant if index in plan.exclusive_rules)
    for index, rule in meant:
        first = index not in begun
        begun.add(index)
        if shut_out and rule.kind in REFERRER_RULES:
            continue
        amount = amount_for(standing, line, index, rule) if plan.overrides else rule.amount
        count = units if amount.per == "unit" else int(first)
        at = At(standing, line, base_minor, count, earned)
        uncapped = found = CLAIMS[type(rule)](at, index, rule, amount)
        if found and (rule.cap_order_minor is not None or rule.cap_period_minor is not None):
            found = rooms.cap(rule, found, standing)
        earned[index] = found
        if looks is not None:
            looks[(line.line_no, index)] = Look(at, amount, uncapped, found)
        shares += found
    return shares


def _pays_somebody(standing: Standing, line: OrderLine, index: int, rule: Rule) -> bool:
    """Whether an exclusive rule pays somebody on a line as it was told: a refund never brings back what that put out of force. A cap that
    is used up does not either: the line is still theirs."""
    assert isinstance(rule, Attributed)
    amount = amount_for(standing, line, index, rule)
    count = line.quantity if amount.per == "unit" else 1
    return any(share.payee for share in claim_of_shared(At(standing, line, line.base_minor, count), index, rule, amount))


def amount_for(standing: Standing, line: OrderLine, index: int, rule: Paying) -> Amount:
    """The amounts of a rule on a line: those of the first override that means it, else its own."""
    for when, amounts in standing.plan.overrides:
        if index in amounts and standing.means(when, line):
            return amounts[index]
    return rule.amount


def _whole(standing: Standing, remaining: Remaining) -> list[Share]:
    """`triggered` on invite and upgrade."""
    shares: list[Share] = []
    for index, rule in standing.plan.order_rules:
        happened = standing.invited if rule.on == "invite" else bool(standing.promoted) and rule.tier in ("", standing.promoted)
        if not happened:
            continue
        if not any(lives(line, *remaining[line.line_no]) and standing.means(rule.when, line) for line in standing.fact.lines):
            continue
        given = [(1, rule.buyer_minor), (2 if len(standing.path) > 1 else BREAKAGE, rule.referrer_minor)]
        shares += [Share(index, payee, amount) for payee, amount in given if amount]
    return shares


ENGINES: dict[int, Callable[[Standing, Remaining, Rooms, Looks | None], list[LineShares]]] = {1: entitle, 2: entitle}
