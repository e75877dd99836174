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
    EvidenceKind,
    MemberEnrolled,
    MemberErased,
    MemberNamed,
    MemberTouched,
    MemberUpgraded,
    OrderLocked,
    OrderMeant,
    PlanPublished,
    RoleEnded,
    RoleGranted,
    TierChanged,
    TierChangeKind,
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


class Seat(NamedTuple):
    """A tier granted by hand, for good (`until_us` None) or for a time, after which the tier before it counts."""

    tier: str
    until_us: int | None
    position: int
    previous_tier: str
    # What gave the previous tier; 0: none, or the seat is for good.
    previous_tier_position: int


class Role(NamedTuple):
    """A role held; `until_us` is the earlier of the end told with the grant and the end told later."""

    member_id: str
    role: str
    scope: str
    weight: int
    from_us: int
    until_us: int | None
    position: int


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
    # Of members who hold one now; a partial roster has those of its members and of `seat_tiers`.
    seats: dict[str, Seat] = field(default_factory=dict)
    # Tiers all of whose seats are known; None: of every tier.
    seat_tiers: set[str] | None = None
    # Members whose tier earns nothing, and since which entry.
    frozen: dict[str, int] = field(default_factory=dict)
    # By grant id. Only a complete roster keeps them: what a decision needs is the fact that granted one.
    roles: dict[str, Role] = field(default_factory=dict)
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

    def tier_at(self, member_id: str, at_us: int) -> tuple[str, int]:
        """The tier that counts at a time, and what gave it: none while it is frozen, the one before once a seat has ended."""
        member, seat = self.member(member_id), self.seats.get(member_id)
        if member is None or member_id in self.frozen:
            return "", 0
        ended = seat is not None and seat.until_us is not None and at_us >= seat.until_us
        return (seat.previous_tier, seat.previous_tier_position) if seat is not None and ended else (member.tier, member.tier_position)

    def tier_behind(self, member_id: str, at_us: int) -> tuple[str, int]:
        """The tier that a seat for a time leads back to, and what gave it.

        Never that of another seat for a time, running or not: that one is gone with the new one, and to lead back to it would make it last
        for ever, as each renewal would.
        """
        seat = self.seats.get(member_id)
        if seat is not None and seat.until_us is not None and member_id not in self.frozen:
            return seat.previous_tier, seat.previous_tier_position
        return self.tier_at(member_id, at_us)

    def seats_taken(self, tier: str, at_us: int, besides: str) -> int:
        """How many hold a seat of a tier at a time, one member not counted."""
        if self.seat_tiers is not None and tier not in self.seat_tiers:
            raise NotLoaded(f"seats of {tier}")
        held = ((member_id, seat) for member_id, seat in self.seats.items() if member_id != besides and seat.tier == tier)
        return sum(seat.until_us is None or at_us < seat.until_us for _, seat in held)

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
            roster.frozen.pop(fact.member_id, None)
            roster.seats.pop(fact.member_id, None)
            seat = seat_of(fact, decision, position)
            if seat is not None:
                roster.seats[fact.member_id] = seat
            _lock(roster, decision.binding_locked, position)
            roster.facts[f"upgrade/{fact.upgrade_id}"] = entry
        case BindingCorrected():
            _change(roster, fact.member_id, locked=True, referrer_id=fact.referrer_id, binding_position=position)
            roster.facts[f"correction/{fact.correction_id}"] = entry
        case RoleGranted():
            roster.facts[f"role/{fact.grant_id}"] = entry
            if roster.complete:
                held = (fact.member_id, fact.role, fact.scope, fact.weight, fact.from_us, fact.until_us)
                roster.roles[fact.grant_id] = Role(*held, position)
        case RoleEnded():
            roster.facts[f"role_end/{fact.grant_id}"] = entry
            role = roster.roles.get(fact.grant_id)
            if role is not None:
                until = fact.ended_us if role.until_us is None else min(role.until_us, fact.ended_us)
                roster.roles[fact.grant_id] = role._replace(until_us=until)
        case MemberNamed():
            roster.facts[f"naming/{fact.naming_id}"] = entry
        case MemberErased():
            roster.facts[f"erasure/{fact.member_id}"] = entry
        case PlanPublished():
            roster.plans.append(fact)
    for part in parts(fact):
        match part:
            case OrderLocked():
                _lock(roster, part.lock, position)
            case BindingReleased():
                _change(roster, part.member_id, locked=False, binding_position=0)
            case TierChanged(kind=TierChangeKind.FROZEN):
                roster.frozen[part.member_id] = position
            case TierChanged():
                _change(roster, part.member_id, tier=part.tier, tier_position=rests_on(part, position))
                roster.frozen.pop(part.member_id, None)
                roster.seats.pop(part.member_id, None)
    if entry.stream.startswith("order/"):
        roster.orders[entry.stream[6:]] = True


def parts(fact: object) -> tuple[OrderLocked | BindingReleased | TierChanged, ...]:
    """What an order, refund or void means to referral; nothing for any other fact."""
    if isinstance(fact, OrderMeant):
        return fact.parts
    return (fact,) if isinstance(fact, OrderLocked | BindingReleased | TierChanged) else ()


def rests_on(change: TierChanged, position: int) -> int:
    """The entry that a changed tier rests on, where the change stands at a position; 0 for no tier."""
    return (change.tier_position or position) if change.tier else 0


def seat_of(fact: MemberUpgraded, decision: UpgradeDecision, position: int) -> Seat | None:
    """The seat that an upgrade grants, if its evidence is one."""
    if fact.evidence.kind is not EvidenceKind.SEAT_GRANTED:
        return None
    return Seat(fact.tier, fact.expires_us, position, decision.previous_tier, decision.previous_tier_position)


def _change(roster: Roster, member_id: str, **changes: object) -> None:
    member = roster.members.get(member_id)
    if member is not None:
        roster.members[member_id] = member._replace(**changes)  # type: ignore[arg-type]  # the names are Member's fields, all call sites above


def _lock(roster: Roster, lock: BindingLock | None, position: int) -> None:
    if lock is not None:
        changed = {"referrer_id": lock.referrer_id, "touch_position": lock.touch_position, "binding_position": position}
        _change(roster, lock.member_id, locked=True, **changed)
