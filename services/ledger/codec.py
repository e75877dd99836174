"""Stored names and bytes of what the ledger writes, and how it reads the whole log. A name is chosen once and never reused."""

from fenrun.log.v1 import log_pb2 as pb

from services.ledger.domain import facts as f
from services.runtime.stored import Kind, Reader, Reading, Writing, microseconds, timestamp

# ---------------------------------------------------------------- values


def _postings(postings: tuple[f.Posting, ...]) -> list[pb.Posting]:
    return [
        pb.Posting(account=account.value, member_id=member_id, amount_minor=amount, asset=asset)  # type: ignore[arg-type]  # same numbers
        for account, member_id, amount, asset in postings
    ]


_ACCOUNTS = {account.value: account for account in f.Account}


def read_postings(postings: "list[pb.Posting]") -> tuple[f.Posting, ...]:
    return tuple(f.Posting(_ACCOUNTS[p.account], p.member_id, p.amount_minor, p.asset) for p in postings)


def _shares(lines: tuple[f.LineShares, ...]) -> list[pb.LineShares]:
    return [
        pb.LineShares(line_no=line_no, shares=[pb.Share(rule_index=r, payee=p, amount_minor=a) for r, p, a in shares])
        for line_no, shares in lines
    ]


def _read_shares(lines: "list[pb.LineShares]") -> tuple[f.LineShares, ...]:
    return tuple(f.LineShares(x.line_no, tuple(f.Share(s.rule_index, s.payee, s.amount_minor) for s in x.shares)) for x in lines)


def _due(changes: tuple[f.DueChange, ...]) -> list[pb.DueChange]:
    return [pb.DueChange(member_id=m, due_at=timestamp(us), amount_minor=a) for m, us, a in changes]


def _read_due(changes: "list[pb.DueChange]") -> tuple[f.DueChange, ...]:
    return tuple(f.DueChange(c.member_id, microseconds(c.due_at), c.amount_minor) for c in changes)


def _lock(lock: f.BindingLock | None) -> pb.BindingLocked | None:
    if lock is None:
        return None
    return pb.BindingLocked(member_id=lock.member_id, referrer_id=lock.referrer_id, touch_position=lock.touch_position)


def _read_lock(message: pb.OrderPaidDecision | pb.MemberUpgradedDecision) -> f.BindingLock | None:
    if not message.HasField("binding_locked"):
        return None
    lock = message.binding_locked
    return f.BindingLock(lock.member_id, lock.referrer_id, lock.touch_position)


def lines_of(lines: "list[pb.OrderLine]") -> tuple[f.OrderLine, ...]:
    """The lines as told; a kind that was left out is goods."""
    return tuple(f.OrderLine(x.line_no, x.base_minor, x.quantity, x.sku, x.category, f.LineKind(x.kind or f.LineKind.GOODS)) for x in lines)


def refund_lines_of(lines: "list[pb.RefundLine]") -> tuple[f.RefundLine, ...]:
    return tuple(f.RefundLine(x.line_no, x.quantity, x.base_minor) for x in lines)


# ---------------------------------------------------------------- writing


def _plan_published(fact: f.PlanPublished) -> pb.PlanPublished:
    until = None if fact.effective_until_us is None else timestamp(fact.effective_until_us)
    return pb.PlanPublished(
        plan_id=fact.plan_id,
        version=fact.version,
        document=fact.document,
        effective_from=timestamp(fact.effective_from_us),
        effective_until=until,
    )


def _order_paid(fact: f.OrderPaid) -> pb.OrderPaid:
    return pb.OrderPaid(
        order_id=fact.order_id,
        member_id=fact.member_id,
        currency=fact.currency,
        lines=[
            pb.OrderLine(line_no=n, base_minor=base, quantity=quantity, sku=sku, category=category, kind=kind.value)  # type: ignore[arg-type]
            for n, base, quantity, sku, category, kind in fact.lines
        ],
    )


def _order_paid_decision(decision: f.OrderPaidDecision) -> pb.OrderPaidDecision:
    return pb.OrderPaidDecision(
        engine_version=decision.engine_version,
        plan_position=decision.plan_position,
        binding_locked=_lock(decision.binding_locked),
        people=[pb.Person(member_id=m, tier=t, binding_position=b, tier_position=p) for m, t, b, p in decision.people],
        lines=_shares(decision.lines),
        postings=_postings(decision.postings),
    )


def _order_refunded_decision(decision: f.OrderRefundedDecision) -> pb.OrderRefundedDecision:
    return pb.OrderRefundedDecision(
        engine_version=decision.engine_version,
        lines=_shares(decision.lines),
        due=_due(decision.due),
        postings=_postings(decision.postings),
        binding_released_member_id=decision.binding_released_member_id,
    )


def _adjustment(fact: f.AdjustmentPosted) -> pb.AdjustmentPosted:
    return pb.AdjustmentPosted(
        adjustment_id=fact.adjustment_id,
        member_id=fact.member_id,
        kind=fact.kind.value,  # type: ignore[arg-type]  # same numbers
        amount_minor=fact.amount_minor,
        currency=fact.currency,
        reason=fact.reason,
        requested_by=fact.requested_by,
        approved_by=fact.approved_by,
    )


def _movement(decision: f.Movement) -> pb.MovementDecision:
    return pb.MovementDecision(postings=_postings(decision.postings))


write = Writing(
    [
        Kind("plan.published.v1", f.PlanPublished, _plan_published, lambda d: pb.PlanPublishedDecision(content_hash=d.content_hash)),
        Kind("order.paid.v1", f.OrderPaid, _order_paid, _order_paid_decision),
        Kind(
            "order.completed.v1",
            f.OrderCompleted,
            lambda fact: pb.OrderCompleted(order_id=fact.order_id),
            lambda d: pb.OrderCompletedDecision(due=_due(d.due)),
        ),
        Kind(
            "order.refunded.v1",
            f.OrderRefunded,
            lambda fact: pb.OrderRefunded(
                refund_id=fact.refund_id,
                order_id=fact.order_id,
                lines=[pb.RefundLine(line_no=n, quantity=q, base_minor=b) for n, q, b in fact.lines],
            ),
            _order_refunded_decision,
        ),
        Kind(
            "order.released.v1",
            f.OrderReleased,
            lambda fact: pb.OrderReleased(order_id=fact.order_id),
            lambda d: pb.OrderReleasedDecision(due=_due(d.due), postings=_postings(d.postings)),
        ),
        Kind(
            "payout.requested.v1",
            f.PayoutRequested,
            lambda fact: pb.PayoutRequested(
                payout_id=fact.payout_id, member_id=fact.member_id, amount_minor=fact.amount_minor, currency=fact.currency
            ),
            _movement,
        ),
        Kind("payout.paid.v1", f.PayoutPaid, lambda fact: pb.PayoutPaid(payout_id=fact.payout_id, reference=fact.reference), _movement),
        Kind("payout.failed.v1", f.PayoutFailed, lambda fact: pb.PayoutFailed(payout_id=fact.payout_id, reason=fact.reason), _movement),
        Kind("adjustment.posted.v1", f.AdjustmentPosted, _adjustment, _movement),
        Kind(
            "hold.placed.v1",
            f.HoldPlaced,
            lambda fact: pb.HoldPlaced(hold_id=fact.hold_id, member_id=fact.member_id, order_id=fact.order_id, reason=fact.reason),
            None,
        ),
        Kind("hold.lifted.v1", f.HoldLifted, lambda fact: pb.HoldLifted(hold_id=fact.hold_id, reason=fact.reason), None),
    ]
)

# ---------------------------------------------------------------- reading


def _read_plan(fact: bytes, decision: bytes) -> tuple[f.PlanPublished, f.PlanDecision]:
    told = pb.PlanPublished.FromString(fact)
    until = microseconds(told.effective_until) if told.HasField("effective_until") else None
    decided = pb.PlanPublishedDecision.FromString(decision)
    published = f.PlanPublished(told.plan_id, told.version, told.document, microseconds(told.effective_from), until)
    return published, f.PlanDecision(decided.content_hash)


def _read_paid(fact: bytes, decision: bytes) -> tuple[f.OrderPaid, f.OrderPaidDecision]:
    told, decided = pb.OrderPaid.FromString(fact), pb.OrderPaidDecision.FromString(decision)
    return (
        f.OrderPaid(told.order_id, told.member_id, told.currency, lines_of(told.lines)),  # type: ignore[arg-type]  # a repeated field reads as a list
        f.OrderPaidDecision(
            decided.engine_version,
            decided.plan_position,
            _read_lock(decided),
            tuple(f.Person(p.member_id, p.tier, p.binding_position, p.tier_position) for p in decided.people),
            _read_shares(decided.lines),  # type: ignore[arg-type]
            read_postings(decided.postings),  # type: ignore[arg-type]
        ),
    )


def _read_completed(fact: bytes, decision: bytes) -> tuple[f.OrderCompleted, f.OrderCompletedDecision]:
    decided = pb.OrderCompletedDecision.FromString(decision)
    return f.OrderCompleted(pb.OrderCompleted.FromString(fact).order_id), f.OrderCompletedDecision(_read_due(decided.due))  # type: ignore[arg-type]


def _read_refunded(fact: bytes, decision: bytes) -> tuple[f.OrderRefunded, f.OrderRefundedDecision]:
    told, decided = pb.OrderRefunded.FromString(fact), pb.OrderRefundedDecision.FromString(decision)
    return (
        f.OrderRefunded(told.refund_id, told.order_id, refund_lines_of(told.lines)),  # type: ignore[arg-type]
        f.OrderRefundedDecision(
            decided.engine_version,
            _read_shares(decided.lines),  # type: ignore[arg-type]
            _read_due(decided.due),  # type: ignore[arg-type]
            read_postings(decided.postings),  # type: ignore[arg-type]
            decided.binding_released_member_id,
        ),
    )


def _read_released(fact: bytes, decision: bytes) -> tuple[f.OrderReleased, f.OrderReleasedDecision]:
    decided = pb.OrderReleasedDecision.FromString(decision)
    released = f.OrderReleasedDecision(_read_due(decided.due), read_postings(decided.postings))  # type: ignore[arg-type]
    return f.OrderReleased(pb.OrderReleased.FromString(fact).order_id), released


def _read_movement(decision: bytes) -> f.Movement:
    return f.Movement(read_postings(pb.MovementDecision.FromString(decision).postings))  # type: ignore[arg-type]


def _read_requested(fact: bytes, decision: bytes) -> tuple[f.PayoutRequested, f.Movement]:
    told = pb.PayoutRequested.FromString(fact)
    return f.PayoutRequested(told.payout_id, told.member_id, told.amount_minor, told.currency), _read_movement(decision)


def _read_payout_paid(fact: bytes, decision: bytes) -> tuple[f.PayoutPaid, f.Movement]:
    told = pb.PayoutPaid.FromString(fact)
    return f.PayoutPaid(told.payout_id, told.reference), _read_movement(decision)


def _read_payout_failed(fact: bytes, decision: bytes) -> tuple[f.PayoutFailed, f.Movement]:
    told = pb.PayoutFailed.FromString(fact)
    return f.PayoutFailed(told.payout_id, told.reason), _read_movement(decision)


def _read_adjustment(fact: bytes, decision: bytes) -> tuple[f.AdjustmentPosted, f.Movement]:
    told = pb.AdjustmentPosted.FromString(fact)
    posted = f.AdjustmentPosted(
        told.adjustment_id,
        told.member_id,
        f.AdjustmentKind(told.kind),
        told.amount_minor,
        told.currency,
        told.reason,
        told.requested_by,
        told.approved_by,
    )
    return posted, _read_movement(decision)


def _read_hold_placed(fact: bytes, _: bytes) -> tuple[f.HoldPlaced, None]:
    told = pb.HoldPlaced.FromString(fact)
    return f.HoldPlaced(told.hold_id, told.member_id, told.order_id, told.reason), None


def _read_hold_lifted(fact: bytes, _: bytes) -> tuple[f.HoldLifted, None]:
    told = pb.HoldLifted.FromString(fact)
    return f.HoldLifted(told.hold_id, told.reason), None


def _read_program(fact: bytes, _: bytes) -> tuple[f.ProgramCreated, None]:
    return f.ProgramCreated(pb.ProgramCreated.FromString(fact).currency), None


def _read_enrolled(fact: bytes, _: bytes) -> tuple[f.MemberEnrolled, None]:
    told = pb.MemberEnrolled.FromString(fact)
    return f.MemberEnrolled(told.member_id, told.referrer_id), None


def _read_touched(fact: bytes, decision: bytes) -> tuple[f.MemberTouched | None, None]:
    if not pb.MemberTouchedDecision.FromString(decision).counts:
        return None, None
    told = pb.MemberTouched.FromString(fact)
    return f.MemberTouched(told.member_id, told.referrer_id), None


def _read_upgraded(fact: bytes, decision: bytes) -> tuple[f.MemberUpgraded, None]:
    told, decided = pb.MemberUpgraded.FromString(fact), pb.MemberUpgradedDecision.FromString(decision)
    return f.MemberUpgraded(told.member_id, told.tier, _read_lock(decided)), None


def _read_corrected(fact: bytes, _: bytes) -> tuple[f.BindingCorrected, None]:
    told = pb.BindingCorrected.FromString(fact)
    return f.BindingCorrected(told.member_id, told.referrer_id), None


READERS: dict[str, Reader] = {
    "program.created.v1": _read_program,
    "plan.published.v1": _read_plan,
    "member.enrolled.v1": _read_enrolled,
    "member.touched.v1": _read_touched,
    "member.upgraded.v1": _read_upgraded,
    "member.binding_corrected.v1": _read_corrected,
    "order.paid.v1": _read_paid,
    "order.completed.v1": _read_completed,
    "order.refunded.v1": _read_refunded,
    "order.released.v1": _read_released,
    "payout.requested.v1": _read_requested,
    "payout.paid.v1": _read_payout_paid,
    "payout.failed.v1": _read_payout_failed,
    "adjustment.posted.v1": _read_adjustment,
    "hold.placed.v1": _read_hold_placed,
    "hold.lifted.v1": _read_hold_lifted,
}

read = Reading(READERS)
