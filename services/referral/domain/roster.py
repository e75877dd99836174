"""The referral state: every member's binding and tier, and how each entry changes them.

Like the ledger's books a roster can be complete or partial; a partial one raises NotLoaded for what it does not hold. The graph of current
referrers (locked ones, and while open the one a lock would fall to) never has a circle, so no lock can close one.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

from services.kernel.decider import Entry, NotLoaded
from services.referral.domain.facts import (
    BindingCorrected,
    BindingLock,
    BindingReleased,
    MemberEnrolled,
    MemberTouched,
    MemberUpgraded,
    OrderLocked,
    PlanPublished,
    TouchDecision,
    UpgradeDecision,
)


class Member(NamedTuple):
    """While open, `referrer_id` is the one a lock would fall to and `touch_position` the touch that says so."""

    enrolled_us: int
    tier: str = ""
    tier_position: int = 0
    locked: bool = False
    referrer_id: str = ""
    binding_position: int = 0
    touch_position: int = 0


@dataclass(slots=True)
class Roster:
    complete: bool = True
    position: int = 0
    members: dict[str, Member | None] = field(default_factory=dict)
    plans: list[PlanPublished] = field(default_factory=list)
    # Facts recorded before, by the id that lets them count once; None: known to be new.
    facts: dict[str, Entry | None] = field(default_factory=dict)
    # Order ids known to be recorded (True) or not (False).
    orders: dict[str, bool] = field(default_factory=dict)
    # Last version of streams that commands of this state may append to.
    versions: dict[str, int] = field(default_factory=dict)

    def member(self, member_id: str) -> Member | None:
        found = self.members.get(member_id)
        if found is None and not self.complete and member_id not in self.members:
            raise NotLoaded(f"member {member_id}")
        return found

    def fact(self, fact_id: str) -> Entry | None:
        if fact_id not in self.facts and not self.complete:
            raise NotLoaded(f"fact {fact_id}")
        return self.facts.get(fact_id)

    def order_recorded(self, order_id: str) -> bool:
        if order_id not in self.orders and not self.complete:
            raise NotLoaded(f"order {order_id}")
        return self.orders.get(order_id, False)

    def plan_in_force(self, at_us: int) -> PlanPublished | None:
        return next((plan for plan in reversed(self.plans) if plan.in_force(at_us)), None)

    @property
    def first_touch_counts(self) -> bool:
        """Whether the newest plan keeps the first touch rather than the last."""
        return bool(self.plans) and self.plans[-1].first_touch

    def stands_above(self, member_id: str, of: str) -> bool:
        """Whether `member_id` is `of` or anywhere on the current path above it."""
        current = of
        while current:
            if current == member_id:
                return True
            above = self.member(current)
            current = above.referrer_id if above else ""
        return False


def evolve(roster: Roster, entry: Entry) -> None:
    """Takes in one entry of the log, also those the ledger wrote."""
    fact, decision, position = entry.fact, entry.decision, entry.position
    roster.position = position
    match fact:
        case MemberEnrolled():
            touch = position if fact.referrer_id else 0
            roster.members[fact.member_id] = Member(entry.occurred_us, referrer_id=fact.referrer_id, touch_position=touch)
            roster.facts[f"member/{fact.member_id}"] = entry
        case MemberTouched():
            assert isinstance(decision, TouchDecision)
            if decision.counts:
                _change(roster, fact.member_id, referrer_id=fact.referrer_id, touch_position=position)
            roster.facts[f"touch/{fact.touch_id}"] = entry
        case MemberUpgraded():
            assert isinstance(decision, UpgradeDecision)
            _change(roster, fact.member_id, tier=fact.tier, tier_position=position)
            _lock(roster, decision.binding_locked, position)
            roster.facts[f"upgrade/{fact.upgrade_id}"] = entry
        case BindingCorrected():
            _change(roster, fact.member_id, locked=True, referrer_id=fact.referrer_id, binding_position=position)
            roster.facts[f"correction/{fact.correction_id}"] = entry
        case OrderLocked():
            _lock(roster, fact.lock, position)
        case BindingReleased():
            _change(roster, fact.member_id, locked=False, binding_position=0)
        case PlanPublished():
            roster.plans.append(fact)
    if entry.stream.startswith("order/"):
        roster.orders[entry.stream[6:]] = True


def _change(roster: Roster, member_id: str, **changes: object) -> None:
    member = roster.members.get(member_id)
    if member is not None:
        roster.members[member_id] = member._replace(**changes)  # type: ignore[arg-type]  # the names are Member's fields, all call sites above


def _lock(roster: Roster, lock: BindingLock | None, position: int) -> None:
    if lock is not None:
        _change(roster, lock.member_id, locked=True, referrer_id=lock.referrer_id, binding_position=position)
