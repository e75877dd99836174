"""Stored names and bytes of what referral writes, and what it reads of the rest of the log. A name is chosen once and never reused."""

import json
from collections.abc import Collection, Iterable

from fenrun.log.v1 import log_pb2 as pb

from services.referral.domain import facts as f
from services.runtime.stored import Kind, Reader, Reading, Writing, microseconds, timestamp


def _upgraded(fact: f.MemberUpgraded) -> pb.MemberUpgraded:
    kind, order_id, note = fact.evidence
    evidence = pb.Evidence(kind=kind.value, order_id=order_id, note=note)  # type: ignore[arg-type]  # same numbers
    expires = None if fact.expires_us is None else timestamp(fact.expires_us)
    return pb.MemberUpgraded(upgrade_id=fact.upgrade_id, member_id=fact.member_id, tier=fact.tier, evidence=evidence, expires_at=expires)


def _granted(fact: f.RoleGranted) -> pb.RoleGranted:
    return pb.RoleGranted(
        grant_id=fact.grant_id,
        member_id=fact.member_id,
        role=fact.role,
        scope=fact.scope,
        weight=fact.weight,
        effective_from=timestamp(fact.from_us),
        effective_until=None if fact.until_us is None else timestamp(fact.until_us),
    )


def _ended(fact: f.RoleEnded) -> pb.RoleEnded:
    return pb.RoleEnded(grant_id=fact.grant_id, member_id=fact.member_id, ended_at=timestamp(fact.ended_us), reason=fact.reason)


def _named(fact: f.MemberNamed) -> pb.MemberNamed:
    return pb.MemberNamed(naming_id=fact.naming_id, member_id=fact.member_id, mac=fact.mac, nonce=fact.nonce, ciphertext=fact.ciphertext)


def lock_message(lock: f.BindingLock | None) -> pb.BindingLocked | None:
    if lock is None:
        return None
    return pb.BindingLocked(member_id=lock.member_id, referrer_id=lock.referrer_id, touch_position=lock.touch_position)


def _corrected(fact: f.BindingCorrected) -> pb.BindingCorrected:
    return pb.BindingCorrected(
        correction_id=fact.correction_id,
        member_id=fact.member_id,
        referrer_id=fact.referrer_id,
        reason=fact.reason,
        requested_by=fact.requested_by,
        approved_by=fact.approved_by,
    )


write = Writing(
    [
        Kind(
            "member.enrolled.v1",
            f.MemberEnrolled,
            lambda fact: pb.MemberEnrolled(member_id=fact.member_id, referrer_id=fact.referrer_id),
            None,
        ),
        Kind(
            "member.touched.v1",
            f.MemberTouched,
            lambda fact: pb.MemberTouched(
                touch_id=fact.touch_id, member_id=fact.member_id, referrer_id=fact.referrer_id, channel=fact.channel
            ),
            lambda d: pb.MemberTouchedDecision(counts=d.counts),
        ),
        Kind(
            "member.upgraded.v1",
            f.MemberUpgraded,
            _upgraded,
            lambda d: pb.MemberUpgradedDecision(
                previous_tier=d.previous_tier,
                binding_locked=lock_message(d.binding_locked),
                previous_tier_position=d.previous_tier_position,
            ),
        ),
        Kind(
            "member.binding_corrected.v1",
            f.BindingCorrected,
            _corrected,
            lambda d: pb.BindingCorrectedDecision(previous_referrer_id=d.previous_referrer_id),
        ),
        Kind("member.role_granted.v1", f.RoleGranted, _granted, None),
        Kind("member.role_ended.v1", f.RoleEnded, _ended, None),
        Kind("member.named.v1", f.MemberNamed, _named, None),
        Kind(
            "member.erased.v1",
            f.MemberErased,
            lambda fact: pb.MemberErased(member_id=fact.member_id, reason=fact.reason, erased_by=fact.erased_by),
            None,
        ),
    ]
)


def _read_lock(lock: pb.BindingLocked) -> f.BindingLock:
    return f.BindingLock(lock.member_id, lock.referrer_id, lock.touch_position)


def _read_enrolled(fact: bytes, _: bytes) -> tuple[f.MemberEnrolled, None]:
    told = pb.MemberEnrolled.FromString(fact)
    return f.MemberEnrolled(told.member_id, told.referrer_id), None


def _read_touched(fact: bytes, decision: bytes) -> tuple[f.MemberTouched, f.TouchDecision]:
    told = pb.MemberTouched.FromString(fact)
    counts = pb.MemberTouchedDecision.FromString(decision).counts
    return f.MemberTouched(told.touch_id, told.member_id, told.referrer_id, told.channel), f.TouchDecision(counts)


def evidence_of(evidence: pb.Evidence) -> f.Evidence:
    return f.Evidence(f.EvidenceKind(evidence.kind), evidence.order_id, evidence.note)


def _read_upgraded(fact: bytes, decision: bytes) -> tuple[f.MemberUpgraded, f.UpgradeDecision]:
    told, decided = pb.MemberUpgraded.FromString(fact), pb.MemberUpgradedDecision.FromString(decision)
    lock = _read_lock(decided.binding_locked) if decided.HasField("binding_locked") else None
    expires = microseconds(told.expires_at) if told.HasField("expires_at") else None
    upgraded = f.MemberUpgraded(told.upgrade_id, told.member_id, told.tier, evidence_of(told.evidence), expires)
    return upgraded, f.UpgradeDecision(decided.previous_tier, lock, decided.previous_tier_position)


def _read_corrected(fact: bytes, decision: bytes) -> tuple[f.BindingCorrected, f.CorrectionDecision]:
    told = pb.BindingCorrected.FromString(fact)
    corrected = f.BindingCorrected(told.correction_id, told.member_id, told.referrer_id, told.reason, told.requested_by, told.approved_by)
    return corrected, f.CorrectionDecision(pb.BindingCorrectedDecision.FromString(decision).previous_referrer_id)


def _read_plan(fact: bytes, _: bytes) -> tuple[f.PlanPublished, None]:
    told = pb.PlanPublished.FromString(fact)
    document = json.loads(told.document)
    until = microseconds(told.effective_until) if told.HasField("effective_until") else None
    first = document.get("binding", {}).get("touch") == "first"
    seats = document.get("seats", {})
    return f.PlanPublished(tuple(document.get("tiers", ())), first, microseconds(told.effective_from), until, seats), None


OrderFact = f.OrderLocked | f.BindingReleased | f.OrderMeant | None


def _tier_changes(changes: Iterable[pb.TierChange]) -> list[f.TierChanged]:
    return [f.TierChanged(change.member_id, f.TierChangeKind(change.kind), change.tier, change.tier_position) for change in changes]


def _meant(first: f.OrderLocked | f.BindingReleased | None, changes: Collection[pb.TierChange]) -> OrderFact:
    if not changes:
        return first
    changed = _tier_changes(changes)
    return f.OrderMeant((*([first] if first else []), *changed))


def _read_paid(fact: bytes, decision: bytes) -> tuple[OrderFact, None]:
    decided = pb.OrderPaidDecision.FromString(decision)
    lock = None
    if decided.HasField("binding_locked"):
        lock = f.OrderLocked(pb.OrderPaid.FromString(fact).order_id, _read_lock(decided.binding_locked))
    return _meant(lock, decided.tier_changes), None


def _read_refunded(fact: bytes, decision: bytes) -> tuple[OrderFact, None]:
    return _read_reversal(pb.OrderRefunded.FromString(fact).order_id, decision)


def _read_voided(fact: bytes, decision: bytes) -> tuple[OrderFact, None]:
    return _read_reversal(pb.OrderVoided.FromString(fact).order_id, decision)


def _read_reversal(order_id: str, decision: bytes) -> tuple[OrderFact, None]:
    decided = pb.OrderRefundedDecision.FromString(decision)
    member_id = decided.binding_released_member_id
    return _meant(f.BindingReleased(order_id, member_id) if member_id else None, decided.tier_changes), None


def _read_role_granted(fact: bytes, _: bytes) -> tuple[f.RoleGranted, None]:
    told = pb.RoleGranted.FromString(fact)
    until = microseconds(told.effective_until) if told.HasField("effective_until") else None
    held = (told.grant_id, told.member_id, told.role, told.scope, told.weight, microseconds(told.effective_from))
    return f.RoleGranted(*held, until), None


def _read_role_ended(fact: bytes, _: bytes) -> tuple[f.RoleEnded, None]:
    told = pb.RoleEnded.FromString(fact)
    return f.RoleEnded(told.grant_id, told.member_id, microseconds(told.ended_at), told.reason), None


def _read_named(fact: bytes, _: bytes) -> tuple[f.MemberNamed, None]:
    told = pb.MemberNamed.FromString(fact)
    return f.MemberNamed(told.naming_id, told.member_id, told.mac, told.nonce, told.ciphertext), None


def _read_erased(fact: bytes, _: bytes) -> tuple[f.MemberErased, None]:
    told = pb.MemberErased.FromString(fact)
    return f.MemberErased(told.member_id, told.reason, told.erased_by), None


READERS: dict[str, Reader] = {
    "plan.published.v1": _read_plan,
    "member.enrolled.v1": _read_enrolled,
    "member.touched.v1": _read_touched,
    "member.upgraded.v1": _read_upgraded,
    "member.binding_corrected.v1": _read_corrected,
    "order.paid.v1": _read_paid,
    "order.refunded.v1": _read_refunded,
    "order.voided.v1": _read_voided,
    "member.role_granted.v1": _read_role_granted,
    "member.role_ended.v1": _read_role_ended,
    "member.named.v1": _read_named,
    "member.erased.v1": _read_erased,
}

read = Reading(READERS)
