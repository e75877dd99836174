"""Stored names and bytes of what the ledger writes, and how it reads the whole log. A name is chosen once and never reused."""

from collections.abc import Sequence
from typing import Any

from fenrun.log.v1 import log_pb2 as pb
from google.protobuf.timestamp_pb2 import Timestamp

from services.ledger.domain import facts as f
from services.runtime.stored import Kind, Reader, Reading, Stored, Writing, microseconds, timestamp

# ---------------------------------------------------------------- values

# The fields of a message within another. protobuf takes them as they are, in less than half the time it takes to make a message of its own
# for each and copy it; a decision holds some fifty.
Fields = dict[str, Any]


KINDS = {0: f.LineKind.GOODS} | {kind.value: kind for kind in f.LineKind}


def _postings(postings: tuple[f.Posting, ...]) -> list[Any]:
    return [
        {"account": account, "member_id": member_id, "amount_minor": amount, "asset": asset}
        for account, member_id, amount, asset in postings
    ]


ACCOUNTS = {account.value: account for account in f.Account}
# What a NamedTuple is made by, without the detour through its own __new__ in Python: reading an order makes dozens of them.
_tuple = tuple.__new__

# Repeated fields are read as [:], a list made in one go; to walk along one is half as fast again. Empty ones are not looked into at all.


def read_postings(postings: "list[pb.Posting]") -> tuple[f.Posting, ...]:
    return tuple([_tuple(f.Posting, (ACCOUNTS[p.account], p.member_id, p.amount_minor, p.asset)) for p in postings[:]])


def _shares(lines: tuple[f.LineShares, ...]) -> list[Any]:
    return [pb.LineShares(line_no=line_no, shares=_period_shares(shares)) for line_no, shares in lines]


def _period_shares(shares: tuple[f.Share, ...]) -> list[Any]:
    return [{"rule_index": rule, "payee": payee, "amount_minor": amount} for rule, payee, amount in shares]


def _read_shares(lines: "list[pb.LineShares]") -> tuple[f.LineShares, ...]:
    return tuple([_tuple(f.LineShares, (x.line_no, _read_period_shares(x.shares))) for x in lines[:]])  # type: ignore[arg-type]


def _due(changes: tuple[f.DueChange, ...]) -> list[Any]:
    return [{"member_id": m, "due_at": timestamp(us), "amount_minor": a, "asset": asset} for m, us, a, asset in changes]


def _read_due(changes: "list[pb.DueChange]") -> tuple[f.DueChange, ...]:
    return tuple([f.DueChange(c.member_id, microseconds(c.due_at), c.amount_minor, c.asset) for c in changes[:]]) if changes else ()


def _people(people: tuple[f.Person, ...]) -> list[Any]:
    return [_person(*person) for person in people]


def _person(member_id: str, tier: str, binding: int, tier_position: int, role: str, scope: str, role_position: int, weight: int) -> Fields:
    fields: Fields = {"member_id": member_id, "tier": tier, "binding_position": binding, "tier_position": tier_position}
    return fields | {"role": role, "scope": scope, "role_position": role_position, "weight": weight} if role else fields


def person_fields(person: f.Person) -> Fields:
    """The fields of fenrun.log.v1.Person."""
    return _person(*person)


def _read_people(people: "list[pb.Person]") -> tuple[f.Person, ...]:
    return tuple(
        [
            _tuple(f.Person, (p.member_id, p.tier, p.binding_position, p.tier_position, p.role, p.scope, p.role_position, p.weight))
            for p in people[:]
        ]
    )


def _attributions(attributions: tuple[f.Attribution, ...]) -> list[Any]:
    return [{"role": role, "member_id": member_id, "scope": scope} for role, member_id, scope in attributions]


def attributions_of(attributions: "list[pb.Attribution]") -> tuple[f.Attribution, ...]:
    return tuple([f.Attribution(one.role, one.member_id, one.scope) for one in attributions[:]]) if attributions else ()


def _counts(counts: tuple[f.Count, ...]) -> list[Any]:
    return [
        {"counter": counter, "bucket": bucket, "member_id": member_id, "amount": amount} for counter, bucket, member_id, amount in counts
    ]


def _read_counts(counts: "list[pb.Count]") -> tuple[f.Count, ...]:
    return tuple([f.Count(one.counter, one.bucket, one.member_id, one.amount) for one in counts[:]]) if counts else ()


def tier_changes_of(changes: tuple[f.TierChange, ...]) -> list[Any]:
    """The fields of fenrun.log.v1.TierChange."""
    return [change._asdict() for change in changes]


def _read_tier_changes(changes: "list[pb.TierChange]") -> tuple[f.TierChange, ...]:
    if not changes:
        return ()
    return tuple(
        f.TierChange(one.member_id, f.TierChangeKind(one.kind), one.tier, one.previous_tier, one.previous_tier_position, one.tier_position)
        for one in changes
    )


def _moment(us: int | None) -> Timestamp | None:
    return None if us is None else timestamp(us)


def _figures(figures: tuple[f.PeriodFigures, ...]) -> list[pb.PeriodVolume]:
    return [
        pb.PeriodVolume(rule_index=index, person=[person for person, _ in pairs], amount=[figure for _, figure in pairs])
        for index, pairs in figures
    ]


def _read_figures(figures: "list[pb.PeriodVolume]") -> tuple[f.PeriodFigures, ...]:
    return tuple(f.PeriodFigures(one.rule_index, tuple(zip(one.person, one.amount, strict=True))) for one in figures)


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
    return tuple(
        [
            _tuple(
                f.OrderLine,
                (
                    x.line_no,
                    x.base_minor,
                    x.quantity,
                    x.sku,
                    x.category,
                    KINDS[x.kind],
                    attributions_of(x.attributions),  # type: ignore[arg-type]  # a repeated field reads as a list
                ),
            )
            for x in lines[:]
        ]
    )


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


def _line(
    line_no: int, base: int, quantity: int, sku: str, category: str, kind: f.LineKind, attributions: tuple[f.Attribution, ...]
) -> Fields:
    fields: Fields = {"line_no": line_no, "base_minor": base, "quantity": quantity, "sku": sku, "category": category, "kind": kind}
    return fields | {"attributions": _attributions(attributions)} if attributions else fields


def _order_paid(fact: f.OrderPaid) -> pb.OrderPaid:
    return pb.OrderPaid(
        order_id=fact.order_id,
        member_id=fact.member_id,
        currency=fact.currency,
        lines=[_line(*line) for line in fact.lines],  # type: ignore[misc]
        attributions=_attributions(fact.attributions),
        group_id=fact.group_id,
        referrer_id=fact.referrer_id,
    )


def _order_paid_decision(decision: f.OrderPaidDecision) -> pb.OrderPaidDecision:
    return pb.OrderPaidDecision(
        engine_version=decision.engine_version,
        plan_position=decision.plan_position,
        binding_locked=_lock(decision.binding_locked),
        people=_people(decision.people),
        lines=_shares(decision.lines),
        postings=_postings(decision.postings),
        period_id=decision.period_id,
        rooms=[{"rule_index": rule, "payee": payee, "room_minor": room} for rule, payee, room in decision.rooms],  # type: ignore[misc]
        counts=_counts(decision.counts),
        tier_changes=tier_changes_of(decision.tier_changes),
        group_first=decision.group_first,
        due=_due(decision.due),
    )


def _order_refunded_decision(decision: f.OrderRefundedDecision) -> pb.OrderRefundedDecision:
    return pb.OrderRefundedDecision(
        engine_version=decision.engine_version,
        lines=_shares(decision.lines),
        due=_due(decision.due),
        postings=_postings(decision.postings),
        binding_released_member_id=decision.binding_released_member_id,
        counts=_counts(decision.counts),
        tier_changes=tier_changes_of(decision.tier_changes),
    )


def _completed_decision(decision: f.OrderCompletedDecision) -> pb.OrderCompletedDecision:
    return pb.OrderCompletedDecision(due=_due(decision.due))


def _released_decision(decision: f.OrderReleasedDecision) -> pb.OrderReleasedDecision:
    return pb.OrderReleasedDecision(due=_due(decision.due), postings=_postings(decision.postings))


def _task_decision(decision: f.TaskDoneDecision) -> pb.TaskDoneDecision:
    return pb.TaskDoneDecision(
        engine_version=decision.engine_version,
        plan_position=decision.plan_position,
        people=_people(decision.people),
        lines=_shares(decision.lines),
        due=_due(decision.due),
        postings=_postings(decision.postings),
        counts=_counts(decision.counts),
    )


def _closed_decision(decision: f.PeriodClosedDecision) -> pb.PeriodClosedDecision:
    return pb.PeriodClosedDecision(
        engine_version=decision.engine_version,
        plan_position=decision.plan_position,
        starts_at=timestamp(decision.starts_us),
        ends_at=timestamp(decision.ends_us),
        people=[pb.PeriodPerson(member_id=m, tier=t, parent=p) for m, t, p in decision.people],
        volumes=_figures(decision.volumes),
        holders=[
            pb.PeriodHolders(rule_index=index, person=[person for person, _ in pairs], weight=[weight for _, weight in pairs])
            for index, pairs in decision.holders
        ],
        shares=_period_shares(decision.shares),
        due=_due(decision.due),
        postings=_postings(decision.postings),
    )


def _corrected_decision(decision: f.PeriodCorrectedDecision) -> pb.PeriodCorrectedDecision:
    return pb.PeriodCorrectedDecision(
        volumes=_figures(decision.volumes),
        shares=_period_shares(decision.shares),
        due=_due(decision.due),
        postings=_postings(decision.postings),
    )


def _stock(fact: f.StockTransferred) -> pb.StockTransferred:
    return pb.StockTransferred(
        transfer_id=fact.transfer_id,
        from_member_id=fact.from_member_id,
        to_member_id=fact.to_member_id,
        currency=fact.currency,
        lines=[pb.StockLine(sku=s, quantity=q, unit_cost_minor=c, unit_price_minor=p) for s, q, c, p in fact.lines],
    )


def _deposit(fact: f.DepositMoved) -> pb.DepositMoved:
    return pb.DepositMoved(
        deposit_id=fact.deposit_id,
        member_id=fact.member_id,
        kind=fact.kind.value,  # type: ignore[arg-type]  # same numbers
        amount_minor=fact.amount_minor,
        currency=fact.currency,
        reason=fact.reason,
    )


def _opening(fact: f.BalanceOpened) -> pb.BalanceOpened:
    return pb.BalanceOpened(
        opening_id=fact.opening_id,
        member_id=fact.member_id,
        currency=fact.currency,
        available_minor=fact.available_minor,
        pending_minor=fact.pending_minor,
        pending_due_at=_moment(fact.pending_due_us),
        paid_minor=fact.paid_minor,
        debt_minor=fact.debt_minor,
        source=fact.source,
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


def _sealed(fact: f.BooksSealed) -> pb.BooksSealed:
    return pb.BooksSealed(seal_id=fact.seal_id, through=timestamp(fact.through_us), reason=fact.reason, sealed_by=fact.sealed_by)


def _sealed_decision(decision: f.BooksSealedDecision) -> pb.BooksSealedDecision:
    totals = [{"account": account, "asset": asset, "amount_minor": amount} for account, asset, amount in decision.totals]
    # `from` is a word of Python's own.
    return pb.BooksSealedDecision(entries=decision.entries, totals=totals, **{"from": _moment(decision.from_us)})  # type: ignore[arg-type]


write = Writing(
    [
        Kind("plan.published.v1", f.PlanPublished, _plan_published, lambda d: pb.PlanPublishedDecision(content_hash=d.content_hash)),
        Kind("order.paid.v1", f.OrderPaid, _order_paid, _order_paid_decision),
        Kind(
            "order.completed.v1",
            f.OrderCompleted,
            lambda fact: pb.OrderCompleted(order_id=fact.order_id),
            _completed_decision,
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
            _released_decision,
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
        Kind(
            "order.group_formed.v1",
            f.OrderGroupFormed,
            lambda fact: pb.OrderGroupFormed(order_id=fact.order_id, group_id=fact.group_id),
            _completed_decision,
        ),
        Kind(
            "order.voided.v1",
            f.OrderVoided,
            lambda fact: pb.OrderVoided(order_id=fact.order_id, group_id=fact.group_id),
            _order_refunded_decision,
        ),
        Kind(
            "group.opened.v1",
            f.GroupOpened,
            lambda fact: pb.GroupOpened(group_id=fact.group_id, opener_id=fact.opener_id),
            None,
        ),
        Kind("group.joined.v1", f.GroupJoined, lambda fact: pb.GroupJoined(group_id=fact.group_id, order_id=fact.order_id), None),
        Kind("group.formed.v1", f.GroupFormed, lambda fact: pb.GroupFormed(group_id=fact.group_id), None),
        Kind("group.failed.v1", f.GroupFailed, lambda fact: pb.GroupFailed(group_id=fact.group_id, reason=fact.reason), None),
        Kind(
            "task.done.v1",
            f.TaskDone,
            lambda fact: pb.TaskDone(task_id=fact.task_id, member_id=fact.member_id, task=fact.task),
            _task_decision,
        ),
        Kind("period.closed.v1", f.PeriodClosed, lambda fact: pb.PeriodClosed(period_id=fact.period_id), _closed_decision),
        Kind(
            "period.corrected.v1",
            f.PeriodCorrected,
            lambda fact: pb.PeriodCorrected(period_id=fact.period_id, order_id=fact.order_id, refund_id=fact.refund_id),
            _corrected_decision,
        ),
        Kind("reward.released.v1", f.RewardReleased, lambda fact: pb.RewardReleased(source=fact.source), _released_decision),
        Kind("deposit.moved.v1", f.DepositMoved, _deposit, _movement),
        Kind("stock.transferred.v1", f.StockTransferred, _stock, _movement),
        Kind(
            "balance.opened.v1",
            f.BalanceOpened,
            _opening,
            lambda d: pb.BalanceOpenedDecision(due=_due(d.due), postings=_postings(d.postings)),
        ),
        Kind("books.sealed.v1", f.BooksSealed, _sealed, _sealed_decision),
    ]
)

# ---------------------------------------------------------------- reading


def _read_plan(fact: bytes, decision: bytes) -> tuple[f.PlanPublished, f.PlanDecision]:
    told = pb.PlanPublished.FromString(fact)
    until = microseconds(told.effective_until) if told.HasField("effective_until") else None
    decided = pb.PlanPublishedDecision.FromString(decision)
    published = f.PlanPublished(told.plan_id, told.version, told.document, microseconds(told.effective_from), until)
    return published, f.PlanDecision(decided.content_hash)


def order_of(told: pb.OrderPaid) -> f.OrderPaid:
    """An order as its message tells it."""
    lines, attributions = lines_of(told.lines), attributions_of(told.attributions)  # type: ignore[arg-type]  # repeated fields read as lists
    return f.OrderPaid(told.order_id, told.member_id, told.currency, lines, attributions, told.group_id, told.referrer_id)


def engine_of(decision: bytes) -> int:
    """The engine version that a stored decision begins with, without reading the rest; 0 where it does not begin with a small one."""
    return decision[1] if decision[:1] == b"\x08" and decision[1:2] < b"\x80" and len(decision) > 1 else 0


def decided_of(decided: pb.OrderPaidDecision) -> f.OrderPaidDecision:
    """The decision on an order as its message tells it."""
    return f.OrderPaidDecision(
        decided.engine_version,
        decided.plan_position,
        _read_lock(decided),
        _read_people(decided.people),  # type: ignore[arg-type]  # a repeated field reads as a list
        _read_shares(decided.lines),  # type: ignore[arg-type]
        read_postings(decided.postings),  # type: ignore[arg-type]
        decided.period_id,
        tuple(f.CapRoom(room.rule_index, room.payee, room.room_minor) for room in decided.rooms) if decided.rooms else (),
        _read_counts(decided.counts),  # type: ignore[arg-type]
        _read_tier_changes(decided.tier_changes),  # type: ignore[arg-type]
        decided.group_first,
        _read_due(decided.due),  # type: ignore[arg-type]
    )


def _read_paid(fact: bytes, decision: bytes) -> tuple[f.OrderPaid, f.OrderPaidDecision]:
    return order_of(pb.OrderPaid.FromString(fact)), decided_of(pb.OrderPaidDecision.FromString(decision))


def _read_due_decision(decision: bytes) -> f.OrderCompletedDecision:
    return f.OrderCompletedDecision(_read_due(pb.OrderCompletedDecision.FromString(decision).due))  # type: ignore[arg-type]


def _read_completed(fact: bytes, decision: bytes) -> tuple[f.OrderCompleted, f.OrderCompletedDecision]:
    return f.OrderCompleted(pb.OrderCompleted.FromString(fact).order_id), _read_due_decision(decision)


def _read_group_formed(fact: bytes, decision: bytes) -> tuple[f.OrderGroupFormed, f.OrderCompletedDecision]:
    told = pb.OrderGroupFormed.FromString(fact)
    return f.OrderGroupFormed(told.order_id, told.group_id), _read_due_decision(decision)


def _read_reversal(decision: bytes) -> f.OrderRefundedDecision:
    decided = pb.OrderRefundedDecision.FromString(decision)
    return f.OrderRefundedDecision(
        decided.engine_version,
        _read_shares(decided.lines),  # type: ignore[arg-type]
        _read_due(decided.due),  # type: ignore[arg-type]
        read_postings(decided.postings),  # type: ignore[arg-type]
        decided.binding_released_member_id,
        _read_counts(decided.counts),  # type: ignore[arg-type]
        _read_tier_changes(decided.tier_changes),  # type: ignore[arg-type]
    )


def _read_refunded(fact: bytes, decision: bytes) -> tuple[f.OrderRefunded, f.OrderRefundedDecision]:
    told = pb.OrderRefunded.FromString(fact)
    return f.OrderRefunded(told.refund_id, told.order_id, refund_lines_of(told.lines)), _read_reversal(decision)  # type: ignore[arg-type]


def _read_voided(fact: bytes, decision: bytes) -> tuple[f.OrderVoided, f.OrderRefundedDecision]:
    told = pb.OrderVoided.FromString(fact)
    return f.OrderVoided(told.order_id, told.group_id), _read_reversal(decision)


def _read_release(decision: bytes) -> f.OrderReleasedDecision:
    decided = pb.OrderReleasedDecision.FromString(decision)
    return f.OrderReleasedDecision(_read_due(decided.due), read_postings(decided.postings))  # type: ignore[arg-type]


def _read_released(fact: bytes, decision: bytes) -> tuple[f.OrderReleased, f.OrderReleasedDecision]:
    return f.OrderReleased(pb.OrderReleased.FromString(fact).order_id), _read_release(decision)


def _read_reward_released(fact: bytes, decision: bytes) -> tuple[f.RewardReleased, f.OrderReleasedDecision]:
    return f.RewardReleased(pb.RewardReleased.FromString(fact).source), _read_release(decision)


def _read_group_opened(fact: bytes, _: bytes) -> tuple[f.GroupOpened, None]:
    told = pb.GroupOpened.FromString(fact)
    return f.GroupOpened(told.group_id, told.opener_id), None


def _read_group_joined(fact: bytes, _: bytes) -> tuple[f.GroupJoined, None]:
    told = pb.GroupJoined.FromString(fact)
    return f.GroupJoined(told.group_id, told.order_id), None


def _read_formed(fact: bytes, _: bytes) -> tuple[f.GroupFormed, None]:
    return f.GroupFormed(pb.GroupFormed.FromString(fact).group_id), None


def _read_failed_group(fact: bytes, _: bytes) -> tuple[f.GroupFailed, None]:
    told = pb.GroupFailed.FromString(fact)
    return f.GroupFailed(told.group_id, told.reason), None


def _read_task(fact: bytes, decision: bytes) -> tuple[f.TaskDone, f.TaskDoneDecision]:
    told, decided = pb.TaskDone.FromString(fact), pb.TaskDoneDecision.FromString(decision)
    return f.TaskDone(told.task_id, told.member_id, told.task), f.TaskDoneDecision(
        decided.engine_version,
        decided.plan_position,
        _read_people(decided.people),  # type: ignore[arg-type]
        _read_shares(decided.lines),  # type: ignore[arg-type]
        _read_due(decided.due),  # type: ignore[arg-type]
        read_postings(decided.postings),  # type: ignore[arg-type]
        _read_counts(decided.counts),  # type: ignore[arg-type]
    )


def _read_period_shares(shares: "list[pb.Share]") -> tuple[f.Share, ...]:
    return tuple([_tuple(f.Share, (share.rule_index, share.payee, share.amount_minor)) for share in shares[:]])


def _read_closed(fact: bytes, decision: bytes) -> tuple[f.PeriodClosed, f.PeriodClosedDecision]:
    decided = pb.PeriodClosedDecision.FromString(decision)
    return f.PeriodClosed(pb.PeriodClosed.FromString(fact).period_id), f.PeriodClosedDecision(
        decided.engine_version,
        decided.plan_position,
        microseconds(decided.starts_at),
        microseconds(decided.ends_at),
        tuple(f.PeriodPerson(p.member_id, p.tier, p.parent) for p in decided.people),
        _read_figures(decided.volumes),  # type: ignore[arg-type]
        tuple(f.PeriodFigures(one.rule_index, tuple(zip(one.person, one.weight, strict=True))) for one in decided.holders),
        _read_period_shares(decided.shares),  # type: ignore[arg-type]
        _read_due(decided.due),  # type: ignore[arg-type]
        read_postings(decided.postings),  # type: ignore[arg-type]
    )


def _read_period_corrected(fact: bytes, decision: bytes) -> tuple[f.PeriodCorrected, f.PeriodCorrectedDecision]:
    told, decided = pb.PeriodCorrected.FromString(fact), pb.PeriodCorrectedDecision.FromString(decision)
    return f.PeriodCorrected(told.period_id, told.order_id, told.refund_id), f.PeriodCorrectedDecision(
        _read_figures(decided.volumes),  # type: ignore[arg-type]
        _read_period_shares(decided.shares),  # type: ignore[arg-type]
        _read_due(decided.due),  # type: ignore[arg-type]
        read_postings(decided.postings),  # type: ignore[arg-type]
    )


def _read_deposit(fact: bytes, decision: bytes) -> tuple[f.DepositMoved, f.Movement]:
    told = pb.DepositMoved.FromString(fact)
    moved = f.DepositMoved(told.deposit_id, told.member_id, f.DepositKind(told.kind), told.amount_minor, told.currency, told.reason)
    return moved, _read_movement(decision)


def stock_lines_of(lines: "list[pb.StockLine]") -> tuple[f.StockLine, ...]:
    return tuple(f.StockLine(line.sku, line.quantity, line.unit_cost_minor, line.unit_price_minor) for line in lines)


def _read_stock(fact: bytes, decision: bytes) -> tuple[f.StockTransferred, f.Movement]:
    told = pb.StockTransferred.FromString(fact)
    lines = stock_lines_of(told.lines)  # type: ignore[arg-type]
    moved = f.StockTransferred(told.transfer_id, told.from_member_id, told.to_member_id, told.currency, lines)
    return moved, _read_movement(decision)


def _read_opening(fact: bytes, decision: bytes) -> tuple[f.BalanceOpened, f.BalanceOpenedDecision]:
    told, decided = pb.BalanceOpened.FromString(fact), pb.BalanceOpenedDecision.FromString(decision)
    opened = f.BalanceOpened(
        told.opening_id,
        told.member_id,
        told.currency,
        told.available_minor,
        told.pending_minor,
        microseconds(told.pending_due_at) if told.HasField("pending_due_at") else None,
        told.paid_minor,
        told.debt_minor,
        told.source,
    )
    return opened, f.BalanceOpenedDecision(_read_due(decided.due), read_postings(decided.postings))  # type: ignore[arg-type]


def _read_sealed(fact: bytes, decision: bytes) -> tuple[f.BooksSealed, f.BooksSealedDecision]:
    told, decided = pb.BooksSealed.FromString(fact), pb.BooksSealedDecision.FromString(decision)
    from_us = microseconds(getattr(decided, "from")) if decided.HasField("from") else None
    totals = tuple(f.AccountTotal(ACCOUNTS[one.account], one.asset, one.amount_minor) for one in decided.totals)
    sealed = f.BooksSealed(told.seal_id, microseconds(told.through), told.reason, told.sealed_by)
    return sealed, f.BooksSealedDecision(from_us, decided.entries, totals)


def _read_role_granted(fact: bytes, _: bytes) -> tuple[f.RoleGranted, None]:
    told = pb.RoleGranted.FromString(fact)
    until = microseconds(told.effective_until) if told.HasField("effective_until") else None
    return (
        f.RoleGranted(told.grant_id, told.member_id, told.role, told.scope, told.weight, microseconds(told.effective_from), until),
        None,
    )


def _read_role_ended(fact: bytes, _: bytes) -> tuple[f.RoleEnded, None]:
    told = pb.RoleEnded.FromString(fact)
    return f.RoleEnded(told.grant_id, microseconds(told.ended_at)), None


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
    evidence = told.evidence.order_id if told.evidence.kind == pb.EVIDENCE_KIND_PAID_ORDER else ""
    expires = microseconds(told.expires_at) if told.HasField("expires_at") else None
    return f.MemberUpgraded(
        told.member_id, told.tier, _read_lock(decided), decided.previous_tier, evidence, expires, decided.previous_tier_position
    ), None


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
    "member.role_granted.v1": _read_role_granted,
    "member.role_ended.v1": _read_role_ended,
    "order.group_formed.v1": _read_group_formed,
    "order.voided.v1": _read_voided,
    "group.opened.v1": _read_group_opened,
    "group.joined.v1": _read_group_joined,
    "group.formed.v1": _read_formed,
    "group.failed.v1": _read_failed_group,
    "task.done.v1": _read_task,
    "period.closed.v1": _read_closed,
    "period.corrected.v1": _read_period_corrected,
    "reward.released.v1": _read_reward_released,
    "deposit.moved.v1": _read_deposit,
    "stock.transferred.v1": _read_stock,
    "balance.opened.v1": _read_opening,
    "books.sealed.v1": _read_sealed,
}

read = Reading(READERS)

# What folding needs of an order's fact where no tier rests on it: that it is one.
_SOME_ORDER = f.OrderPaid("", "", "", ())


def _read_paid_to_fold(fact: bytes, decision: bytes) -> tuple[f.OrderPaid, f.OrderPaidDecision]:
    decided = pb.OrderPaidDecision.FromString(decision)
    if decided.tier_changes:
        return _read_paid(fact, decision)
    pb.OrderPaid.FromString(fact)  # raises DecodeError where it cannot be read
    lock, postings = _read_lock(decided), read_postings(decided.postings)  # type: ignore[arg-type]  # a repeated field reads as a list
    counts, due = _read_counts(decided.counts), _read_due(decided.due)  # type: ignore[arg-type]
    return _SOME_ORDER, _tuple(f.OrderPaidDecision, (0, 0, lock, (), (), postings, "", (), counts, (), False, due))


# As far as a fold of the whole log looks: of an order that gives no tier not its plan, lines, people and shares, most of a log.
read_to_fold = Reading({**READERS, "order.paid.v1": _read_paid_to_fold})

# The decisions that move amounts, by the entry's stored name.
_MOVING: dict[str, Any] = {
    "order.paid.v1": pb.OrderPaidDecision,
    "order.refunded.v1": pb.OrderRefundedDecision,
    "order.voided.v1": pb.OrderRefundedDecision,
    "order.released.v1": pb.OrderReleasedDecision,
    "reward.released.v1": pb.OrderReleasedDecision,
    "task.done.v1": pb.TaskDoneDecision,
    "period.closed.v1": pb.PeriodClosedDecision,
    "period.corrected.v1": pb.PeriodCorrectedDecision,
    "balance.opened.v1": pb.BalanceOpenedDecision,
    "payout.requested.v1": pb.MovementDecision,
    "payout.paid.v1": pb.MovementDecision,
    "payout.failed.v1": pb.MovementDecision,
    "adjustment.posted.v1": pb.MovementDecision,
    "deposit.moved.v1": pb.MovementDecision,
    "stock.transferred.v1": pb.MovementDecision,
}
MOVING = tuple(_MOVING)


def postings_of(stored: Stored) -> Sequence[pb.Posting]:
    """What an entry moved. Reads nothing else of it, a third of the work: a fold of the log looks at millions."""
    kind = _MOVING.get(stored.type)
    return kind.FromString(stored.decision).postings if kind else ()
