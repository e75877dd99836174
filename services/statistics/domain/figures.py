"""The figures and how each entry of the log changes them.

- A member's invites are those locked to them now, by the month of the lock; a correction moves the invite with its month. An invite has
  paid while an order of theirs has anything left that is not refunded.
- Volume is the base of orders less what was refunded of it, in the month (UTC) the order was paid, whenever the refund came. Direct and
  team volume are that of the people below the member when the order was recorded.
- Income is what a member is entitled to, by the rule of the plan version that the order was frozen with, less what refunds took back, in
  the month of the order; of a period in the month it begins.

Used twice: live on what a batch touches, and for verifying and rebuilding on the whole log. `fold` changes nothing when it raises.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache
from operator import add
from typing import NamedTuple, TypeVar, assert_never

from services.kernel.decider import Entry
from services.kernel.times import DAY_US, EARLIEST_US, EPOCH
from services.statistics.domain.facts import Changed, Corrected, Enrolled, Fact, Locked, Paid, PlanPublished, Rule, Share
from services.statistics.domain.places import Placement, climb, referrer_at


class Member(NamedTuple):
    """`locked_month` is that of the last lock; a member has paid while anything remains of the base of any order of theirs."""

    locked: bool = False
    referrer_id: str = ""
    locked_month: str = ""
    paid: bool = False


_NEW = Member()


class Source(NamedTuple):
    """An order, task or period as it stands."""

    position: int
    buyer_id: str
    month: str
    remaining_minor: int
    plan_position: int
    payees: tuple[str, ...]


class Volume(NamedTuple):
    """Minor units."""

    own: int = 0
    direct: int = 0
    team: int = 0


class Earning(NamedTuple):
    """What income is kept by."""

    member_id: str
    asset: str
    rule_id: str


Key = TypeVar("Key")


@dataclass(slots=True)
class Figures:
    """The first five are state: live, as much of it as the batch looks at. The others are what has changed since it was loaded.

    `remaining` is what remains of the bases of all orders of a member; live, that of buyers of whose orders something is taken back.
    """

    members: dict[str, Member] = field(default_factory=dict)
    remaining: dict[str, int] = field(default_factory=dict)
    histories: dict[str, list[tuple[int, str]]] = field(default_factory=dict)
    sources: dict[str, Source] = field(default_factory=dict)
    plans: dict[int, tuple[Rule, ...]] = field(default_factory=dict)

    members_changed: set[str] = field(default_factory=set)
    # Of which something was taken back, if it was nothing.
    sources_changed: set[str] = field(default_factory=set)
    # (member, position, referrer): bindings that moved.
    moves: list[tuple[str, int, str]] = field(default_factory=list)
    # The last of these, or the first order since all was loaded; 0: neither.
    unmoved_since: int = 0
    # Volume that has not climbed yet, minor units.
    placements: dict[Placement, int] = field(default_factory=dict)
    # By plan version, rule of it and month: {payee: amount}.
    earnings: dict[tuple[int, int, str], dict[str, int]] = field(default_factory=dict)

    def income(self) -> dict[tuple[Earning, str], int]:
        """{(earning, month): change}."""
        found: dict[tuple[Earning, str], int] = {}
        for (plan_position, rule_index, month), by_payee in self.earnings.items():
            rule = self.plans[plan_position][rule_index]
            for payee, amount in by_payee.items():
                key = (Earning(payee, rule.asset, rule.id), month)
                found[key] = found.get(key, 0) + amount
        return found

    def volumes(self) -> dict[tuple[str, str], Volume]:
        """{(member, month): change}. Raises ValueError where the bindings form a circle."""
        own: dict[tuple[str, str], int] = {}
        direct: dict[tuple[str, str], int] = {}
        for (member_id, position, month), amount in self.placements.items():
            referrer_id, _, _ = referrer_at(self.histories.get(member_id, ()), position)
            own[member_id, month] = own.get((member_id, month), 0) + amount
            if referrer_id:
                direct[referrer_id, month] = direct.get((referrer_id, month), 0) + amount
        team = climb(self.histories, self.placements)
        return {key: Volume(own.get(key, 0), direct.get(key, 0), team.get(key, 0)) for key in own.keys() | team.keys()}


class Latest(NamedTuple):
    """Amounts of somebody's last month, and those of all their months together."""

    month: str
    amounts: tuple[int, ...]
    in_all: tuple[int, ...]


def latest(by_month: Mapping[tuple[Key, str], tuple[int, ...]]) -> tuple[dict[Key, Latest], dict[tuple[Key, str], tuple[int, ...]]]:
    """{key: its last month}, and what is of months before."""
    found: dict[Key, Latest] = {}
    earlier: dict[tuple[Key, str], tuple[int, ...]] = {}
    for (key, month), amounts in by_month.items():
        before = found.get(key)
        if before is None:
            found[key] = Latest(month, amounts, amounts)
            continue
        in_all = tuple(map(add, before.in_all, amounts))
        if before.month < month:
            earlier[key, before.month] = before.amounts
            found[key] = Latest(month, amounts, in_all)
        else:
            earlier[key, month] = amounts
            found[key] = Latest(before.month, before.amounts, in_all)
    return found, earlier


def month_of(us: int) -> str:
    """The calendar month of a time, in UTC: 2026-03."""
    # A period that holds the first day of the calendar may begin before it, in its own zone.
    return _month_of_day(max(us, EARLIEST_US) // DAY_US)


@lru_cache(maxsize=4096)
def _month_of_day(days: int) -> str:
    moment = EPOCH + timedelta(days=days)
    return f"{moment.year:04}-{moment.month:02}"


def source_of(entry: Entry, paid: Paid) -> Source:
    """A source as it stands after its first entry."""
    month = month_of(entry.occurred_us if paid.at_us is None else paid.at_us)
    # Made without the detour through a NamedTuple's own __new__ in Python.
    return tuple.__new__(Source, (entry.position, paid.buyer_id, month, paid.base_minor, paid.plan_position, paid.payees))


def fold(figures: Figures, entry: Entry) -> None:
    """Takes in one entry of the log.

    Raises LookupError for what an entry refers to and the figures do not have (a source, a plan, a rule, a payee), and ValueError where
    more is taken back than was there: the log holds something else than it should, or an entry was left out before.
    """
    fact: Fact | None = entry.fact
    position = entry.position
    match fact:
        case None:
            return
        case Paid():
            source = source_of(entry, fact)
            earned = _earned(figures, source, fact.shares)
            if fact.lock is not None:
                _lock(figures, fact.lock, position, source.month)
            figures.sources[fact.source] = source
            if fact.buyer_id:
                # Whoever buys between two moves stands where they stood after the first of them: that is added up.
                if not figures.unmoved_since:
                    figures.unmoved_since = position
                _volume(figures, source, figures.unmoved_since, fact.base_minor)
            _earn(figures, earned)
        case PlanPublished():
            figures.plans[position] = fact.rules
        case Enrolled():
            _change(figures, fact.member_id)
        case Locked():
            _lock(figures, fact, position, month_of(entry.occurred_us))
        case Corrected():
            _change(figures, fact.member_id, locked=True, referrer_id=fact.referrer_id)
            _move(figures, fact.member_id, position, fact.referrer_id)
        case Changed():
            before = figures.sources.get(fact.source)
            if before is None:
                raise LookupError(f"{fact.source} is not known")
            taken = before.remaining_minor if fact.base_minor is None else fact.base_minor
            if not before.remaining_minor:
                # Its group failed before: the money still goes back to the buyer, and nothing is taken out of the figures twice.
                taken = 0
            after = before._replace(remaining_minor=before.remaining_minor - taken)
            if after.remaining_minor < 0:
                raise ValueError(f"{fact.source} has {before.remaining_minor} left, and {taken} is taken back")
            earned = _earned(figures, before, fact.shares)
            figures.sources[fact.source] = after
            figures.sources_changed.add(fact.source)
            if before.buyer_id:
                _volume(figures, before, before.position, -taken)
            if fact.released_member_id:
                _change(figures, fact.released_member_id, locked=False, referrer_id="", locked_month="")
                _move(figures, fact.released_member_id, position, "")
            _earn(figures, earned)
        case _:
            assert_never(fact)


def _change(figures: Figures, member_id: str, **changes: object) -> None:
    member = figures.members.get(member_id, _NEW)
    figures.members[member_id] = member._replace(**changes)  # type: ignore[arg-type]  # the names are Member's fields, all call sites here
    figures.members_changed.add(member_id)


def _lock(figures: Figures, lock: Locked, position: int, month: str) -> None:
    _change(figures, lock.member_id, locked=True, referrer_id=lock.referrer_id, locked_month=month)
    _move(figures, lock.member_id, position, lock.referrer_id)


def _move(figures: Figures, member_id: str, position: int, referrer_id: str) -> None:
    history = figures.histories.setdefault(member_id, [])
    if referrer_id != (history[-1][1] if history else ""):
        history.append((position, referrer_id))
        figures.moves.append((member_id, position, referrer_id))
        figures.unmoved_since = position


def _volume(figures: Figures, order: Source, position: int, amount_minor: int) -> None:
    """`position`: one at which everybody stands as they did when the order was recorded.

    A base is never negative, so an order that is told makes its buyer one who has paid, and only what is taken back may end that.
    """
    remaining = figures.remaining.get(order.buyer_id, 0) + amount_minor
    figures.remaining[order.buyer_id] = remaining
    member = figures.members.get(order.buyer_id)
    paid = remaining > 0 if amount_minor < 0 else amount_minor > 0 or (member is not None and member.paid)
    if member is None or member.paid != paid:
        _change(figures, order.buyer_id, paid=paid)
    place = tuple.__new__(Placement, (order.buyer_id, position, order.month))
    figures.placements[place] = figures.placements.get(place, 0) + amount_minor


def _earned(figures: Figures, source: Source, shares: Sequence[Share]) -> list[tuple[tuple[int, int, str], str, int]]:
    """(what it is kept by, payee, amount) of every share; breakage and nothing left out."""
    earned = []
    plan_position, month, payees = source.plan_position, source.month, source.payees
    rules = figures.plans[plan_position] if shares else ()
    for rule_index, payee, amount in shares:
        if payee and amount:
            rules[rule_index]  # it must be there
            earned.append(((plan_position, rule_index, month), payees[payee - 1], amount))
    return earned


def _earn(figures: Figures, earned: Sequence[tuple[tuple[int, int, str], str, int]]) -> None:
    for key, payee, amount in earned:
        by_payee = figures.earnings.get(key)
        if by_payee is None:
            by_payee = figures.earnings[key] = {}
        by_payee[payee] = by_payee.get(payee, 0) + amount
