"""What statistics reads of the log. It writes nothing. A type that is not listed here means nothing to it and is skipped."""

import json
from collections.abc import Sequence

from fenrun.log.v1 import log_pb2 as pb

from services.runtime.stored import Reader, Reading, microseconds
from services.statistics.domain import facts as f


def _plan(fact: bytes, _: bytes) -> tuple[f.PlanPublished, None]:
    rules = json.loads(pb.PlanPublished.FromString(fact).document)["rules"]
    return f.PlanPublished(tuple(f.Rule(rule["id"], rule.get("asset", "")) for rule in rules)), None


def _enrolled(fact: bytes, _: bytes) -> tuple[f.Enrolled, None]:
    return f.Enrolled(pb.MemberEnrolled.FromString(fact).member_id), None


def _lock(lock: pb.BindingLocked) -> f.Locked:
    return f.Locked(lock.member_id, lock.referrer_id)


def _upgraded(_: bytes, decision: bytes) -> tuple[f.Locked | None, None]:
    decided = pb.MemberUpgradedDecision.FromString(decision)
    return (_lock(decided.binding_locked) if decided.HasField("binding_locked") else None), None


def _corrected(fact: bytes, _: bytes) -> tuple[f.Corrected, None]:
    told = pb.BindingCorrected.FromString(fact)
    return f.Corrected(told.member_id, told.referrer_id), None


# What a NamedTuple is made by, without the detour through its own __new__ in Python.
_tuple = tuple.__new__

# Repeated fields are read as [:], a list made in one go; to walk along one is half as fast again.


def _shares(shares: Sequence[pb.Share]) -> tuple[f.Share, ...]:
    return tuple([_tuple(f.Share, (one.rule_index, one.payee, one.amount_minor)) for one in shares[:]])


def _of_lines(lines: Sequence[pb.LineShares]) -> tuple[f.Share, ...]:
    """Line 0, the order or task as a whole, is one of them."""
    return tuple([_tuple(f.Share, (one.rule_index, one.payee, one.amount_minor)) for line in lines[:] for one in line.shares[:]])


def _order_paid(fact: bytes, decision: bytes) -> tuple[f.Paid, None]:
    told, decided = pb.OrderPaid.FromString(fact), pb.OrderPaidDecision.FromString(decision)
    paid = (
        f"order/{told.order_id}",
        decided.plan_position,
        tuple([person.member_id for person in decided.people[:]]),
        _of_lines(decided.lines),
        told.member_id,
        sum([line.base_minor for line in told.lines[:]]),
        _lock(decided.binding_locked) if decided.HasField("binding_locked") else None,
        None,
    )
    return _tuple(f.Paid, paid), None


def _order_refunded(fact: bytes, decision: bytes) -> tuple[f.Changed, None]:
    told, decided = pb.OrderRefunded.FromString(fact), pb.OrderRefundedDecision.FromString(decision)
    base_minor = sum(line.base_minor for line in told.lines)
    return f.Changed(f"order/{told.order_id}", base_minor, _of_lines(decided.lines), decided.binding_released_member_id), None


def _order_voided(fact: bytes, decision: bytes) -> tuple[f.Changed, None]:
    told, decided = pb.OrderVoided.FromString(fact), pb.OrderRefundedDecision.FromString(decision)
    return f.Changed(f"order/{told.order_id}", None, _of_lines(decided.lines), decided.binding_released_member_id), None


def _task_done(fact: bytes, decision: bytes) -> tuple[f.Paid, None]:
    told, decided = pb.TaskDone.FromString(fact), pb.TaskDoneDecision.FromString(decision)
    payees = tuple(person.member_id for person in decided.people)
    return f.Paid(f"task/{told.task_id}", decided.plan_position, payees, _of_lines(decided.lines)), None


def _period_closed(fact: bytes, decision: bytes) -> tuple[f.Paid, None]:
    told, decided = pb.PeriodClosed.FromString(fact), pb.PeriodClosedDecision.FromString(decision)
    payees = tuple(person.member_id for person in decided.people)
    starts_us = microseconds(decided.starts_at)
    return f.Paid(f"period/{told.period_id}", decided.plan_position, payees, _shares(decided.shares), at_us=starts_us), None


def _period_corrected(fact: bytes, decision: bytes) -> tuple[f.Changed, None]:
    told, decided = pb.PeriodCorrected.FromString(fact), pb.PeriodCorrectedDecision.FromString(decision)
    return f.Changed(f"period/{told.period_id}", 0, _shares(decided.shares)), None


READERS: dict[str, Reader] = {
    "plan.published.v1": _plan,
    "member.enrolled.v1": _enrolled,
    "member.upgraded.v1": _upgraded,
    "member.binding_corrected.v1": _corrected,
    "order.paid.v1": _order_paid,
    "order.refunded.v1": _order_refunded,
    "order.voided.v1": _order_voided,
    "task.done.v1": _task_done,
    "period.closed.v1": _period_closed,
    "period.corrected.v1": _period_corrected,
}

read = Reading(READERS)
