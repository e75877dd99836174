"""Enrolment, touches, upgrades, corrections. Rules: the lifetime lock; tiers carry evidence."""

from dataclasses import dataclass, replace
from typing import assert_never

from services.kernel import refusals
from services.kernel.decider import Answer, Draft, Repeated, repeated
from services.kernel.refusals import (
    ApproverIsRequester,
    BindingCycle,
    BindingNotLocked,
    DatedTooEarly,
    IdReused,
    Malformed,
    MemberUnknown,
    NoPlanInForce,
    OrderUnknown,
    RoleGrantUnknown,
    SeatsTaken,
    SelfBinding,
    TierUnknown,
)
from services.kernel.times import to_text
from services.referral.domain.facts import (
    BindingCorrected,
    BindingLock,
    CorrectionDecision,
    EvidenceKind,
    MemberEnrolled,
    MemberErased,
    MemberNamed,
    MemberTouched,
    MemberUpgraded,
    RoleEnded,
    RoleGranted,
    TouchDecision,
    UpgradeDecision,
)
from services.referral.domain.roster import Roster


@dataclass(frozen=True, slots=True)
class EnrollMember:
    fact: MemberEnrolled
    occurred_us: int


@dataclass(frozen=True, slots=True)
class RecordTouch:
    fact: MemberTouched
    occurred_us: int


@dataclass(frozen=True, slots=True)
class UpgradeMember:
    fact: MemberUpgraded
    occurred_us: int


@dataclass(frozen=True, slots=True)
class CorrectBinding:
    fact: BindingCorrected
    occurred_us: int


@dataclass(frozen=True, slots=True)
class GrantRole:
    fact: RoleGranted
    occurred_us: int


@dataclass(frozen=True, slots=True)
class EndRole:
    """Whose role it is, the grant tells: `member_id` of the fact is left empty."""

    fact: RoleEnded
    occurred_us: int


@dataclass(frozen=True, slots=True)
class NameMember:
    """Of a member who was erased, `mac`, `nonce` and `ciphertext` of the fact are empty: there is no key to make them with."""

    fact: MemberNamed
    occurred_us: int


@dataclass(frozen=True, slots=True)
class EraseMember:
    fact: MemberErased
    occurred_us: int


Command = EnrollMember | RecordTouch | UpgradeMember | CorrectBinding | GrantRole | EndRole | NameMember | EraseMember


def decide(roster: Roster, command: Command) -> Answer:
    """Drafts of entries, or the entry that told the same fact before. Raises a Refusal, or NotLoaded when the roster is partial."""
    match command:
        case EnrollMember():
            return enroll(roster, command)
        case RecordTouch():
            return touch(roster, command)
        case UpgradeMember():
            return upgrade(roster, command)
        case CorrectBinding():
            return correct(roster, command)
        case GrantRole():
            return grant_role(roster, command)
        case EndRole():
            return end_role(roster, command)
        case NameMember():
            return name(roster, command)
        case EraseMember():
            return erase(roster, command)
    assert_never(command)


def enroll(roster: Roster, command: EnrollMember) -> Answer:
    """A new member; whoever is named as referrer counts as the first touch."""
    fact = command.fact
    fact_id = f"member/{fact.member_id}"
    again = repeated(roster.fact(fact_id), f"member {fact.member_id!r}", fact, command.occurred_us)
    if again:
        return again
    if fact.referrer_id == fact.member_id:
        raise SelfBinding(fact.member_id)
    if fact.referrer_id and roster.member(fact.referrer_id) is None:
        raise MemberUnknown(fact.referrer_id, "referrer_id")
    return [Draft(fact_id, fact, None, command.occurred_us)]


def touch(roster: Roster, command: RecordTouch) -> Answer:
    """Somebody's link was followed. It pays nobody; a lock falls to the touch that counts."""
    fact = command.fact
    fact_id = f"touch/{fact.touch_id}"
    again = repeated(roster.fact(fact_id), f"touch {fact.touch_id!r}", fact, command.occurred_us)
    if again:
        return again
    member = roster.member(fact.member_id)
    if member is None:
        raise MemberUnknown(fact.member_id)
    if fact.referrer_id == fact.member_id:
        raise SelfBinding(fact.member_id)
    if roster.member(fact.referrer_id) is None:
        raise MemberUnknown(fact.referrer_id, "referrer_id")
    counts = not member.locked and not (roster.first_touch_counts and member.referrer_id)
    if counts and roster.stands_above(fact.member_id, of=fact.referrer_id):
        raise BindingCycle(fact.member_id, fact.referrer_id)
    return [Draft(f"member/{fact.member_id}", fact, TouchDecision(counts), command.occurred_us, fact_id)]


def upgrade(roster: Roster, command: UpgradeMember) -> Answer:
    """A tier with its evidence. The first upgrade locks the binding, as a first paid order would."""
    fact = command.fact
    fact_id = f"upgrade/{fact.upgrade_id}"
    again = repeated(roster.fact(fact_id), f"upgrade {fact.upgrade_id!r}", fact, command.occurred_us)
    if again:
        return again
    member = roster.member(fact.member_id)
    if member is None:
        raise MemberUnknown(fact.member_id)
    plan = roster.plan_in_force(command.occurred_us)
    if plan is None:
        raise NoPlanInForce(to_text(command.occurred_us))
    if fact.tier not in plan.tiers:
        raise TierUnknown(fact.tier, plan.tiers)
    evidence = fact.evidence
    if evidence.kind is EvidenceKind.PAID_ORDER and evidence.order_id and not roster.order_recorded(evidence.order_id):
        raise OrderUnknown(evidence.order_id)
    seat = evidence.kind is EvidenceKind.SEAT_GRANTED
    if fact.expires_us is not None:
        if not seat:
            raise Malformed("expires_at", "only a seat that is granted ends by itself; its evidence is SEAT_GRANTED")
        if fact.expires_us <= command.occurred_us:
            granted = to_text(command.occurred_us)
            raise Malformed("expires_at", f"{to_text(fact.expires_us)} is not after {granted}, when the seat is granted")
    quota = plan.seats.get(fact.tier)
    if seat and quota is not None and roster.seats_taken(fact.tier, command.occurred_us, besides=fact.member_id) >= quota:
        raise SeatsTaken(fact.tier, quota)
    lock = None if member.locked else BindingLock(fact.member_id, member.referrer_id, member.touch_position)
    timed = fact.expires_us is not None
    # What may be lost again must not lead back to a seat that has an end, and by that make it last.
    behind = timed or (evidence.kind is EvidenceKind.PAID_ORDER and evidence.order_id)
    previous, given = (roster.tier_behind if behind else roster.tier_at)(fact.member_id, command.occurred_us)
    decision = UpgradeDecision(previous, lock, given if timed else 0)
    return [Draft(f"member/{fact.member_id}", fact, decision, command.occurred_us, fact_id)]


def correct(roster: Roster, command: CorrectBinding) -> Answer:
    """The only way to move a locked binding: a reason, one who asks, another who approves. It counts for later orders only."""
    fact = command.fact
    fact_id = f"correction/{fact.correction_id}"
    again = repeated(roster.fact(fact_id), f"correction {fact.correction_id!r}", fact, command.occurred_us)
    if again:
        return again
    member = roster.member(fact.member_id)
    if member is None:
        raise MemberUnknown(fact.member_id)
    if fact.requested_by == fact.approved_by:
        raise ApproverIsRequester(fact.requested_by)
    if not member.locked:
        raise BindingNotLocked(fact.member_id)
    if fact.referrer_id == fact.member_id:
        raise SelfBinding(fact.member_id)
    if fact.referrer_id and roster.member(fact.referrer_id) is None:
        raise MemberUnknown(fact.referrer_id, "referrer_id")
    if fact.referrer_id and roster.stands_above(fact.member_id, of=fact.referrer_id):
        raise BindingCycle(fact.member_id, fact.referrer_id)
    return [Draft(f"member/{fact.member_id}", fact, CorrectionDecision(member.referrer_id), command.occurred_us, fact_id)]


def grant_role(roster: Roster, command: GrantRole) -> Answer:
    """A member holds a role from now on, at a place or everywhere."""
    fact = command.fact
    fact_id = f"role/{fact.grant_id}"
    again = repeated(roster.fact(fact_id), f"role grant {fact.grant_id!r}", fact, command.occurred_us)
    if again:
        return again
    if roster.member(fact.member_id) is None:
        raise MemberUnknown(fact.member_id)
    if fact.until_us is not None and fact.until_us <= fact.from_us:
        raise Malformed("effective_until", f"{to_text(fact.until_us)} is not after effective_from {to_text(fact.from_us)}")
    return [Draft(f"member/{fact.member_id}", fact, None, command.occurred_us, fact_id)]


def end_role(roster: Roster, command: EndRole) -> Answer:
    """A role ends before its time; orders paid before keep their holder."""
    fact_id = f"role_end/{command.fact.grant_id}"
    granted = roster.fact(f"role/{command.fact.grant_id}")
    if granted is None:
        raise RoleGrantUnknown(command.fact.grant_id)
    fact = replace(command.fact, member_id=granted.fact.member_id)
    again = repeated(roster.fact(fact_id), f"end of role grant {fact.grant_id!r}", fact, command.occurred_us)
    if again:
        return again
    if fact.ended_us < granted.fact.from_us:
        raise DatedTooEarly("ended_at", to_text(granted.fact.from_us), to_text(fact.ended_us))
    return [Draft(f"member/{fact.member_id}", fact, None, command.occurred_us, fact_id)]


def name(roster: Roster, command: NameMember) -> Answer:
    """What a member is called. Names are compared by what the member's key makes of them; once it is destroyed they cannot be any more."""
    fact = command.fact
    fact_id = f"naming/{fact.naming_id}"
    erased = roster.fact(f"erasure/{fact.member_id}") is not None
    prior = roster.fact(fact_id)
    if prior is not None:
        told = prior.fact
        same = replace(fact, mac=told.mac, nonce=told.nonce, ciphertext=told.ciphertext)
        again = repeated(prior, f"naming {fact.naming_id!r}", same, command.occurred_us)
        assert again is not None
        if not erased and fact.mac != told.mac:
            raise IdReused(f"naming {fact.naming_id!r}", prior.position, "display_name", "another name", "this one")
        return again
    if roster.member(fact.member_id) is None:
        raise MemberUnknown(fact.member_id)
    if erased:
        raise refusals.MemberErased(fact.member_id)
    assert fact.mac and fact.nonce and fact.ciphertext, "a member who is not erased has a key"
    return [Draft(f"member/{fact.member_id}", fact, None, command.occurred_us, fact_id)]


def erase(roster: Roster, command: EraseMember) -> Answer:
    """A member's key is destroyed. Asked again, whenever and why ever that is, the first answer stands."""
    fact = command.fact
    fact_id = f"erasure/{fact.member_id}"
    prior = roster.fact(fact_id)
    if prior is not None:
        return Repeated(prior)
    if roster.member(fact.member_id) is None:
        raise MemberUnknown(fact.member_id)
    return [Draft(f"member/{fact.member_id}", fact, None, command.occurred_us, fact_id)]
