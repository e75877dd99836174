"""Referral's inline views: what a batch changes in them (live), and the same tables folded in memory (verify, rebuild)."""

from typing import Any

from services.kernel.decider import Entry
from services.referral.domain.facts import (
    BindingCorrected,
    BindingLock,
    BindingReleased,
    MemberEnrolled,
    MemberTouched,
    MemberUpgraded,
    OrderLocked,
)
from services.referral.domain.roster import Roster, evolve
from services.runtime.eventlog import Fold, array
from services.runtime.projecting import Folding, InlineView, Row

MEMBERS = InlineView(
    "referral.members",
    ("member_id", "enrolled_us", "tier", "tier_position", "locked", "referrer_id", "binding_position", "touch_position"),
    1,
)
BINDING_EVENTS = InlineView("referral.binding_events", ("member_id", "position"), 2)
VIEWS = (MEMBERS, BINDING_EVENTS)


def concerned(entry: Entry) -> str:
    """The member whose binding or tier an entry is about; empty for none."""
    match entry.fact:
        case MemberEnrolled() | MemberTouched() | MemberUpgraded() | BindingCorrected() | BindingReleased():
            return entry.fact.member_id
        case OrderLocked():
            return entry.fact.lock.member_id
    return ""


class ReferralChanges:
    """What a batch of entries changes, one value for each key."""

    def __init__(self) -> None:
        self._members: dict[str, dict[str, Any]] = {}
        self._events: list[tuple[str, int]] = []

    def add(self, entry: Entry) -> None:
        fact, decision, position = entry.fact, entry.decision, entry.position
        member_id = concerned(entry)
        if not member_id:
            return
        self._events.append((member_id, position))
        row = self._members.setdefault(member_id, {})
        match fact:
            case MemberEnrolled():
                touch = position if fact.referrer_id else 0
                row.update(enrolled_us=entry.occurred_us, tier="", referrer_id=fact.referrer_id, touch_position=touch)
            case MemberTouched():
                if decision.counts:
                    row.update(referrer_id=fact.referrer_id, touch_position=position)
            case MemberUpgraded():
                row.update(tier=fact.tier, tier_position=position)
                _lock(row, decision.binding_locked, position)
            case BindingCorrected():
                row.update(locked=True, referrer_id=fact.referrer_id, binding_position=position)
            case BindingReleased():
                row.update(locked=False, binding_position=0)
            case OrderLocked():
                _lock(row, fact.lock, position)

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
        return folds


def _lock(row: dict[str, Any], lock: BindingLock | None, position: int) -> None:
    if lock is not None:
        row.update(locked=True, referrer_id=lock.referrer_id, binding_position=position)


def folding() -> Folding:
    """Referral's views, folded in memory from the whole log by the domain's own `evolve`."""
    roster = Roster()
    events: dict[Row, Row] = {}

    def add(entry: Entry) -> None:
        evolve(roster, entry)
        roster.facts.clear()
        roster.orders.clear()
        member_id = concerned(entry)
        if member_id:
            events[(member_id, entry.position)] = ()

    def rows() -> dict[str, dict[Row, Row]]:
        members = {(member_id,): tuple(member) for member_id, member in roster.members.items() if member is not None}
        return {MEMBERS.name: members, BINDING_EVENTS.name: events}

    return Folding(VIEWS, add, rows)
