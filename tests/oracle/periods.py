"""Periods: how they are named, when they begin and end, and what the rules by period give for the volumes counted in one. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from fractions import Fraction

from tests.oracle.facts import DAY_NS
from tests.oracle.plan import Plan, Rule, local
from tests.oracle.shares import Holder, half_up, shared, split_pool

_EPOCH = date(1970, 1, 1)


@dataclass(frozen=True)
class Period:
    """One period: from its start inclusive to its end exclusive, in nanoseconds since 1970."""

    period_id: str
    start: int
    end: int


def period_at(plan: Plan, at: int) -> Period:
    """The period of the plan that a time falls in; a campaign has but one."""
    day = local(at, plan.zone_ns).date()
    match plan.period:
        case "day":
            return _days(plan, day.isoformat(), day, day + timedelta(days=1))
        case "week":
            monday = day - timedelta(days=day.weekday())
            return _days(plan, f"{day.isocalendar().year:04d}-W{day.isocalendar().week:02d}", monday, monday + timedelta(days=7))
        case "month":
            first = day.replace(day=1)
            return _days(plan, f"{day.year:04d}-{day.month:02d}", first, (first + timedelta(days=31)).replace(day=1))
        case _:
            assert plan.period == "campaign" and plan.effective_from is not None and plan.effective_until is not None
            return Period(f"{plan.plan_id}.{plan.version}", plan.effective_from, plan.effective_until)


def period_named(plan: Plan, period_id: str) -> Period | None:
    """The period of the plan with this name; None where its periods are named otherwise, or there is no such day, week or month."""
    if plan.period == "campaign":
        period = period_at(plan, plan.effective_from or 0)
        return period if period.period_id == period_id else None
    forms = {"day": r"(\d{4})-(\d{2})-(\d{2})", "week": r"(\d{4})-W(\d{2})", "month": r"(\d{4})-(\d{2})"}
    found = re.fullmatch(forms.get(plan.period, "(?!)"), period_id)
    if found is None:
        return None
    numbers = [int(part) for part in found.groups()]
    try:
        if plan.period == "week":
            first = date.fromisocalendar(numbers[0], numbers[1], 1)
        else:
            first = date(*numbers, *([1] if plan.period == "month" else []))
    except ValueError:
        return None
    midnight = (first - _EPOCH).days * DAY_NS - plan.zone_ns
    return period_at(plan, midnight)


def _days(plan: Plan, period_id: str, first: date, after: date) -> Period:
    return Period(period_id, (first - _EPOCH).days * DAY_NS - plan.zone_ns, (after - _EPOCH).days * DAY_NS - plan.zone_ns)


@dataclass(frozen=True)
class People:
    """Everybody as they stood when a period was closed: by member id, their tier and whom they are locked to (empty: nobody)."""

    tiers: Mapping[str, str]
    above: Mapping[str, str]
    holders: Mapping[str, tuple[Holder, ...]]  # by role, those who hold it everywhere

    def directs(self, member_id: str) -> list[str]:
        """Those locked to a member."""
        return [below for below, above in sorted(self.above.items()) if above == member_id]

    def team(self, member_id: str, own: Mapping[str, int]) -> int:
        """A member's own volume and that of everybody below, at any depth."""
        return own.get(member_id, 0) + sum(self.team(below, own) for below in self.directs(member_id))


def rule_for_period(rule: Rule, people: People, own: Mapping[str, int]) -> list[tuple[str, int]]:
    """(payee or "" for breakage, amount) of a rule by period. `own` is what it counted for each member: base, or invites."""
    if rule.kind == "volume":
        return _volume(rule, people, own)
    if rule.kind == "rank":
        return _rank(rule, people, own)
    holders = (
        people.holders.get(rule.role, ()) if rule.role else tuple(Holder(who) for who, tier in people.tiers.items() if tier in rule.tiers)
    )
    holders = tuple(sorted(holders, key=lambda holder: holder.member_id))
    pool = rule.amounts.rate_for("") * sum(own.values())
    if rule.split != "volume":
        return split_pool(rule, pool, holders)
    figures = {
        who: people.team(who, own) if rule.volume == "team" else own.get(who, 0) for who in dict.fromkeys(h.member_id for h in holders)
    }
    total = sum(figures.values())
    parts = [pool * Fraction(figure, total) if total else Fraction(0) for figure in figures.values()]
    return list(zip([*figures, ""], shared(pool, parts), strict=True))


def _volume(rule: Rule, people: People, own: Mapping[str, int]) -> list[tuple[str, int]]:
    def bracket(member_id: str) -> Fraction:
        reached = [rate for least, rate in rule.brackets if people.team(member_id, own) >= least]
        return reached[-1] if reached else Fraction(0)

    given = []
    for member_id, tier in sorted(people.tiers.items()):
        if not rule.tiers or tier in rule.tiers:
            legs = sum(people.team(below, own) * (bracket(member_id) - bracket(below)) for below in people.directs(member_id))
            given.append((member_id, half_up(own.get(member_id, 0) * bracket(member_id) + legs)))
    return given


def _rank(rule: Rule, people: People, own: Mapping[str, int]) -> list[tuple[str, int]]:
    figures: dict[str, int] = {}
    for member_id in sorted(people.tiers):
        match rule.board:
            case "direct":
                figures[member_id] = sum(own.get(below, 0) for below in people.directs(member_id))
            case "team":
                figures[member_id] = people.team(member_id, own)
            case _:  # own volume; or the invites that the member is counted for
                figures[member_id] = own.get(member_id, 0)
    given: list[tuple[str, int]] = []
    place = 0
    for figure in sorted(set(figures.values()), reverse=True):
        if figure >= rule.at_least and place < len(rule.places):
            tied: Sequence[str] = [who for who, reached in figures.items() if reached == figure]
            pool = Fraction(sum(rule.places[place : place + len(tied)]))
            given += list(zip([*tied, ""], shared(pool, [pool / len(tied)] * len(tied)), strict=True))
            place += len(tied)
    given.append(("", sum(rule.places[place:])))
    return given
