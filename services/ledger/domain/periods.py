"""Periods: their names and ends, and what rules by period give for what was counted in one. Pure, like the engine; docs/plan-format.md."""

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from functools import lru_cache
from typing import NamedTuple

from services.kernel.money import Rate, half_up, largest_remainder
from services.ledger.domain.facts import PeriodPerson, Share
from services.ledger.domain.plan import Plan
from services.ledger.domain.rules import PeriodPool, Rank, Volume, day_us, local_ordinal

# {rule index: {person, from 1: figure}}
Figures = Mapping[int, Mapping[int, int]]


class Period(NamedTuple):
    """`starts_us` is inside, `ends_us` is not."""

    period_id: str
    starts_us: int
    ends_us: int


def period_of(plan: Plan, at_us: int) -> Period:
    """The period of a plan that a time lies in. A time outside a campaign counts in it all the same."""
    if plan.period == "campaign":
        assert plan.effective_from_us is not None and plan.effective_until_us is not None, "the plan format sees to that"
        return Period(f"{plan.plan_id}.{plan.version}", plan.effective_from_us, plan.effective_until_us)
    return _calendar_period(plan.period, local_ordinal(at_us, plan.zone_us), plan.zone_us)


@lru_cache(maxsize=1024)
def _calendar_period(kind: str, ordinal: int, zone_us: int) -> Period:
    day = date.fromordinal(ordinal)
    match kind:
        case "day":
            name, first, next_ = day.isoformat(), day, day + timedelta(days=1)
        case "week":
            first = day - timedelta(days=day.weekday())
            year, week, _ = first.isocalendar()
            name, next_ = f"{year:04d}-W{week:02d}", first + timedelta(days=7)
        case _:
            first = day.replace(day=1)
            # strftime leaves out the zeros of a year before 1000.
            name, next_ = f"{first.year:04d}-{first.month:02d}", (first + timedelta(days=32)).replace(day=1)
    return Period(name, day_us(first, zone_us), day_us(next_, zone_us))


def named(plan: Plan, period_id: str) -> Period | None:
    """The period of a plan with a name; None where the plan has no such period."""
    if plan.period == "campaign":
        found = period_of(plan, 0)
    else:
        try:
            match plan.period:
                case "day" if len(period_id) == 10:
                    day = date.fromisoformat(period_id)
                case "week" if len(period_id) == 8 and period_id[4:6] == "-W":
                    day = date.fromisoformat(f"{period_id}-1")
                case "month" if len(period_id) == 7:
                    day = date.fromisoformat(f"{period_id}-01")
                case _:
                    return None
            found = period_of(plan, day_us(day, plan.zone_us))
        except (ValueError, OverflowError):
            return None
    return found if found.period_id == period_id else None


def expected(plan: Plan) -> str:
    """How a plan's periods are named, for people."""
    return {
        "day": "a day such as 2026-03-08",
        "week": "a week such as 2026-W11",
        "month": "a month such as 2026-03",
        "campaign": f"the campaign {plan.plan_id}.{plan.version}",
    }[plan.period]


class Tree:
    """The people of a closed period: who stands below whom, and what that adds up to."""

    def __init__(self, people: Sequence[PeriodPerson]) -> None:
        self.people = people
        self.below: list[list[int]] = [[] for _ in range(len(people) + 1)]
        for number, person in enumerate(people, 1):
            if person.parent:
                self.below[person.parent].append(number)
        # Everybody after those who stand above them.
        self.downwards = [number for number, person in enumerate(people, 1) if not person.parent]
        for number in self.downwards:
            self.downwards += self.below[number]

    def team(self, own: Mapping[int, int]) -> dict[int, int]:
        """Own figures and those of everybody below, at any depth."""
        found = dict(own)
        for number in reversed(self.downwards):
            parent = self.people[number - 1].parent
            if parent and found.get(number):
                found[parent] = found.get(parent, 0) + found[number]
        return found

    def direct(self, own: Mapping[int, int]) -> dict[int, int]:
        """The own figures of those directly below."""
        found: dict[int, int] = {}
        for number, figure in own.items():
            parent = self.people[number - 1].parent
            if parent:
                found[parent] = found.get(parent, 0) + figure
        return found


def compute(plan: Plan, people: Sequence[PeriodPerson], volumes: Figures, holders: Figures) -> list[Share]:
    """What every rule by period gives; payees count people from 1, 0 is breakage. Zeros are left out."""
    tree = Tree(people)
    shares: list[Share] = []
    for index, rule in plan.period_rules:
        own = {number: figure for number, figure in volumes.get(index, {}).items() if figure}
        match rule:
            case PeriodPool():
                shares += _pool(index, rule, tree, own, holders.get(index, {}))
            case Volume():
                shares += _brackets(index, rule, tree, own)
            case Rank():
                shares += _rank(index, rule, tree, own)
    return shares


def _pool(index: int, rule: PeriodPool, tree: Tree, own: Mapping[int, int], holders: Mapping[int, int]) -> list[Share]:
    volume = sum(own.values())
    exact, denominator = rule.rate.numerator * volume, rule.rate.denominator
    pool = half_up(exact, denominator)
    if pool <= 0:
        return []
    if rule.split == "volume":
        reached = tree.team(own) if rule.volume == "team" else own
        weights = {number: max(0, reached.get(number, 0)) for number in holders}
    else:
        weights = {number: weight if rule.split == "shares" else 1 for number, weight in holders.items()}
    held = sum(weights.values())
    total = max(rule.of_total or 0, held) or 1
    payees = [number for number in sorted(weights) if weights[number]]
    parts = [exact * weights[number] for number in payees]
    left = exact * (total - held)
    if left:
        payees, parts = [*payees, 0], [*parts, left]
    amounts = largest_remainder(pool, parts, denominator * total)
    return [Share(index, payee, amount) for payee, amount in zip(payees, amounts, strict=True) if amount]


def _brackets(index: int, rule: Volume, tree: Tree, own: Mapping[int, int]) -> list[Share]:
    team = tree.team(own)
    denominator = max(rate.denominator for _, rate in rule.brackets)

    def bracket(volume: int) -> int:
        """The rate that a team volume reaches, over the denominator."""
        reached = Rate(0, 1)
        for from_minor, rate in rule.brackets:
            if volume >= from_minor:
                reached = rate
        return reached.numerator * (denominator // reached.denominator)

    rates = {number: bracket(volume) for number, volume in team.items()}
    none = bracket(0)
    shares = []
    for number in sorted(team):
        if rule.tiers and tree.people[number - 1].tier not in rule.tiers:
            continue
        exact = own.get(number, 0) * rates[number]
        for below in tree.below[number]:
            exact += team.get(below, 0) * (rates[number] - rates.get(below, none))
        amount = half_up(exact, denominator)
        if amount:
            shares.append(Share(index, number, amount))
    return shares


def _rank(index: int, rule: Rank, tree: Tree, own: Mapping[int, int]) -> list[Share]:
    figures = {"team": tree.team, "direct": tree.direct}.get(rule.board, dict)(own)
    placed = sorted((number for number, figure in figures.items() if figure >= rule.at_least), key=lambda n: (-figures[n], n))
    shares: list[Share] = []
    place = 0
    while place < len(placed) and place < len(rule.places_minor):
        tied = sorted(number for number in placed[place:] if figures[number] == figures[placed[place]])
        pool = sum(rule.places_minor[place : place + len(tied)])
        amounts = largest_remainder(pool, [pool] * len(tied), len(tied))
        shares += [Share(index, number, amount) for number, amount in zip(tied, amounts, strict=True) if amount]
        place += len(tied)
    vacant = sum(rule.places_minor[place:])
    if vacant:
        shares.append(Share(index, 0, vacant))
    return shares
