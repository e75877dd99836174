"""Referral's inline views: what a batch changes in them (live), and the same tables folded in memory (verify, rebuild)."""

from collections.abc import Collection
from typing import Any

from services.kernel.decider import Entry
from services.referral.domain.facts import (
    BindingCorrected,
    BindingLock,
    BindingReleased,
    MemberEnrolled,
    MemberErased,
    MemberTouched,
    MemberUpgraded,
    OrderLocked,
    RoleEnded,
    RoleGranted,
    TierChanged,
    TierChangeKind,
)
from services.referral.domain.roster import Roster, Seat, evolve, parts, rests_on, seat_of
from services.runtime.eventlog import Fold, array
from services.runtime.projecting import First, Folding, InlineView, Row

MEMBERS = InlineView(
    "referral.members",
    ("member_id", "enrolled_us", "tier", "tier_position", "locked", "referrer_id", "binding_position", "touch_position"),
    1,
)
BINDING_EVENTS = InlineView("referral.binding_events", ("member_id", "position"), 2)
ROLES = InlineView("referral.roles", ("grant_id", "member_id", "role", "scope", "weight", "from_us", "until_us", "position"), 1)
SEATS = InlineView("referral.seats", ("member_id", "tier", "until_us", "position", "previous_tier", "previous_tier_position"), 1)
FROZEN_TIERS = InlineView("referral.frozen_tiers", ("member_id", "position"), 1)
VIEWS = (MEMBERS, BINDING_EVENTS, ROLES, SEATS, FROZEN_TIERS)


def concerned(entry: Entry) -> list[str]:
    """The members whose binding, tier or role an entry is about, each once."""
    match entry.fact:
        case MemberEnrolled() | MemberTouched() | MemberUpgraded() | BindingCorrected() | RoleGranted() | RoleEnded():
            return [entry.fact.member_id]
    members = (part.lock.member_id if isinstance(part, OrderLocked) else part.member_id for part in parts(entry.fact))
    return list(dict.fromkeys(members))


class ReferralChanges:
    """What a batch of entries changes, one value for each key."""

    def __init__(self) -> None:
        self._members: dict[str, dict[str, Any]] = {}
        self._events: list[tuple[str, int]] = []
        self._granted: list[tuple[Any, ...]] = []
        self._ended: dict[str, int] = {}
        self._seats: dict[str, Seat | None] = {}
        self._frozen: dict[str, int | None] = {}
        self._erased: list[str] = []

    def add(self, entry: Entry) -> None:
        fact, decision, position = entry.fact, entry.decision, entry.position
        self._events += [(member_id, position) for member_id in concerned(entry)]
        match fact:
            case MemberEnrolled():
                touch = position if fact.referrer_id else 0
                self._row(fact.member_id).update(enrolled_us=entry.occurred_us, tier="", referrer_id=fact.referrer_id, touch_position=touch)
            case MemberTouched():
                if decision.counts:
                    self._row(fact.member_id).update(referrer_id=fact.referrer_id, touch_position=position)
            case MemberUpgraded():
                self._tier(fact.member_id, fact.tier, position)
                self._seats[fact.member_id] = seat_of(fact, decision, position)
                self._lock(decision.binding_locked, position)
            case BindingCorrected():
                self._row(fact.member_id).update(locked=True, referrer_id=fact.referrer_id, binding_position=position)
            case RoleGranted():
                held = (fact.grant_id, fact.member_id, fact.role, fact.scope, fact.weight, fact.from_us, fact.until_us)
                self._granted.append((*held, position))
            case RoleEnded():
                self._ended[fact.grant_id] = fact.ended_us
            case MemberErased():
                self._erased.append(fact.member_id)
        for part in parts(fact):
            match part:
                case BindingReleased():
                    self._row(part.member_id).update(locked=False, binding_position=0)
                case OrderLocked():
                    self._lock(part.lock, position)
                case TierChanged(kind=TierChangeKind.FROZEN):
                    self._frozen[part.member_id] = position
                case TierChanged():
                    self._tier(part.member_id, part.tier, rests_on(part, position))

    def _row(self, member_id: str) -> dict[str, Any]:
        return self._members.setdefault(member_id, {})

    def _tier(self, member_id: str, tier: str, position: int) -> None:
        self._row(member_id).update(tier=tier, tier_position=position)
        self._seats[member_id] = None
        self._frozen[member_id] = None

    def _lock(self, lock: BindingLock | None, position: int) -> None:
        if lock is not None:
            changed = {"referrer_id": lock.referrer_id, "touch_position": lock.touch_position, "binding_position": position}
            self._row(lock.member_id).update(locked=True, **changed)

    def folds(self) -> list[Fold]:
        folds = []
        changed = {member_id: row for member_id, row in self._members.items() if row}
        if changed:
            columns = [array(row.get(name) for row in changed.values()) for name in MEMBERS.columns[1:]]
            types = ("text", "bigint", "text", "bigint", "boolean", "text", "bigint", "bigint")
            folds.append(Fold("referral.fold_members", (array(changed), *columns), types))
        if self._events:
            arguments = (array(member_id for member_id, _ in self._events), array(position for _, position in self._events))
            folds.append(Fold("referral.fold_binding_events", arguments, ("text", "bigint")))
        if self._granted or self._ended:
            granted = tuple(array(grant[column] for grant in self._granted) for column in range(8))
            ended = (array(self._ended), array(self._ended.values()))
            kinds = ("text", "text", "text", "text", "bigint", "bigint", "bigint", "bigint", "text", "bigint")
            folds.append(Fold("referral.fold_roles", (*granted, *ended), kinds))
        if self._seats:
            seats = [seat or (None,) * 5 for seat in self._seats.values()]
            columns = [array(seat[column] for seat in seats) for column in range(5)]
            folds.append(
                Fold("referral.fold_seats", (array(self._seats), *columns), ("text", "text", "bigint", "bigint", "text", "bigint"))
            )
        if self._frozen:
            folds.append(Fold("referral.fold_frozen_tiers", (array(self._frozen), array(self._frozen.values())), ("text", "bigint")))
        if self._erased:
            folds.append(Fold("referral.fold_erasures", (array(self._erased),), ("text",)))
        return folds


def folding(_: First | None = None) -> Folding:
    """Referral's views, folded in memory from the whole log by the domain's own `evolve`."""
    roster = Roster()
    events: list[Row] = []

    def add(entry: Entry) -> None:
        if entry.fact is None:
            return  # it means nothing to referral, as most orders do
        evolve(roster, entry)
        roster.facts.clear()
        roster.orders.clear()
        events.extend([(member_id, entry.position) for member_id in concerned(entry)])

    def rows() -> dict[str, Collection[Row]]:
        return {
            MEMBERS.name: [(member_id, *member) for member_id, member in roster.members.items() if member is not None],
            BINDING_EVENTS.name: events,
            ROLES.name: [(grant_id, *role) for grant_id, role in roster.roles.items()],
            SEATS.name: [(member_id, *seat) for member_id, seat in roster.seats.items()],
            FROZEN_TIERS.name: list(roster.frozen.items()),
        }

    return Folding(VIEWS, add, rows)
