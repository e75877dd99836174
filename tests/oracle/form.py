"""What the contract does not allow, whatever the books hold.

`well_formed` is what the fields' own rules say (ids, lengths, ranges, times no finer than the books keep them); it comes before all else.
`meaningful` is what they cannot say (an amount of nothing, a line told twice); it comes, like all that is wrong with a fact, after its id.
Both are refused as MALFORMED.
"""

from __future__ import annotations

import re
from dataclasses import fields
from typing import assert_never

from tests.oracle.facts import (
    ADJUST_CORRECTION,
    ADJUST_WRITE_OFF,
    DEPOSIT_FORFEITED,
    DEPOSIT_PAID_IN,
    DEPOSIT_RETURNED,
    EVIDENCE_IMPORT,
    EVIDENCE_PAID_ORDER,
    EVIDENCE_SEAT_GRANTED,
    EVIDENCE_VOLUME,
    KIND_FEE,
    KIND_GIFT_PACK,
    KIND_GOODS,
    KIND_UNSPECIFIED,
    Adjust,
    Attribution,
    ClosePeriod,
    Complete,
    ConfirmPayout,
    Correct,
    EndRole,
    Enroll,
    FailGroup,
    FailPayout,
    FormGroup,
    GrantRole,
    LiftHold,
    Line,
    MoveDeposit,
    OpenBalance,
    OpenGroup,
    Order,
    PlaceHold,
    PublishPlan,
    RecordTask,
    Refund,
    RefundLine,
    ReleaseDue,
    RequestPayout,
    SealBooks,
    StockLine,
    Touch,
    TransferStock,
    Upgrade,
    Write,
)

_MOST = 10**12
_US = 1000  # the books keep times to the microsecond
_QUARTER = 15 * 60 * 10**9  # and are sealed through a quarter of an hour


def well_formed(fact: Write) -> bool:
    """Whether every field is as the contract says. Whether a plan's document can be read is another matter."""
    times = [getattr(fact, spec.name) for spec in fields(fact) if _is_time(spec.name)]
    return all(time % _US == 0 for time in times) and _well_formed(fact)


def meaningful(fact: Write) -> bool:
    """Whether the fields together tell something."""
    match fact:
        case Order():
            named = (*fact.attributions, *(one for line in fact.lines for one in line.attributions))
            one_of_two = all(bool(one.member_id) != bool(one.scope) for one in named)
            return one_of_two and len({line.line_no for line in fact.lines}) == len(fact.lines)
        case Refund():
            return all(line.quantity > 0 or line.base_minor > 0 for line in fact.lines)
        case RequestPayout():
            return fact.amount_minor > 0
        case Adjust():
            return fact.amount_minor > 0 or (fact.kind == ADJUST_CORRECTION and fact.amount_minor < 0)
        case MoveDeposit():
            return fact.amount_minor > 0
        case TransferStock():
            return fact.from_member_id != fact.to_member_id
        case Upgrade():
            return fact.expires_at == 0 or (fact.evidence_kind == EVIDENCE_SEAT_GRANTED and fact.expires_at > fact.upgraded_at)
        case GrantRole():
            return fact.effective_until == 0 or fact.effective_until > fact.effective_from
        case OpenBalance():
            some = fact.available_minor or fact.pending_minor or fact.paid_minor or fact.debt_minor
            due = (fact.pending_due_at != 0) == (fact.pending_minor > 0)
            return bool(some) and due and not (fact.available_minor and fact.debt_minor)
        case SealBooks():
            return fact.through % _QUARTER == 0 and fact.through <= fact.sealed_at
        case _:
            return True


def _is_time(name: str) -> bool:
    return name.endswith("_at") or name in ("as_of", "through", "effective_from", "effective_until")


def _well_formed(fact: Write) -> bool:
    match fact:
        case PublishPlan():
            return 1 <= len(fact.document) <= 200_000
        case Enroll():
            return _ids(fact.member_id) and _id_or_empty(fact.referrer_id)
        case Touch():
            return _ids(fact.touch_id, fact.member_id, fact.referrer_id) and len(fact.channel) <= 100
        case Upgrade():
            known = fact.evidence_kind in (EVIDENCE_PAID_ORDER, EVIDENCE_VOLUME, EVIDENCE_SEAT_GRANTED, EVIDENCE_IMPORT)
            return known and _ids(fact.upgrade_id, fact.member_id, fact.tier) and _evidence(fact)
        case Correct():
            named = _ids(fact.correction_id, fact.member_id, fact.requested_by, fact.approved_by)
            return named and _id_or_empty(fact.new_referrer_id) and _reason(fact.reason)
        case Order():
            counted = 1 <= len(fact.lines) <= 10_000 and all(map(_line, fact.lines))
            named = all(map(_id_or_empty, (fact.group_id, fact.referrer_id))) and all(map(_attribution, fact.attributions))
            return _ids(fact.order_id, fact.member_id) and _currency(fact.currency) and counted and named
        case Complete():
            return _ids(fact.order_id)
        case Refund():
            return _ids(fact.refund_id, fact.order_id) and 1 <= len(fact.lines) <= 10_000 and all(map(_refund_line, fact.lines))
        case ReleaseDue():
            return 0 <= fact.max_orders <= 500
        case PlaceHold():
            one_target = bool(fact.member_id) != bool(fact.order_id)
            return one_target and _ids(fact.hold_id, fact.member_id or fact.order_id) and _reason(fact.reason)
        case LiftHold():
            return _ids(fact.hold_id) and _reason(fact.reason)
        case RequestPayout():
            return _ids(fact.payout_id, fact.member_id) and _asset(fact.currency)
        case ConfirmPayout():
            return _ids(fact.payout_id) and len(fact.reference) <= 200
        case FailPayout():
            return _ids(fact.payout_id) and _reason(fact.reason)
        case Adjust():
            named = _ids(fact.adjustment_id, fact.member_id, fact.requested_by, fact.approved_by)
            return named and _asset(fact.currency) and _reason(fact.reason) and fact.kind in (ADJUST_CORRECTION, ADJUST_WRITE_OFF)
        case GrantRole():
            placed = _id_or_empty(fact.scope) and 0 <= fact.weight <= 1_000_000
            return _ids(fact.grant_id, fact.member_id) and _role(fact.role) and placed
        case EndRole():
            return _ids(fact.grant_id) and _reason(fact.reason)
        case OpenGroup():
            return _ids(fact.group_id, fact.opener_id)
        case FormGroup():
            return _ids(fact.group_id)
        case FailGroup():
            return _ids(fact.group_id) and _reason(fact.reason)
        case RecordTask():
            return _ids(fact.task_id, fact.member_id) and re.fullmatch(r"\S{1,100}", fact.task) is not None
        case ClosePeriod():
            return _ids(fact.period_id)
        case SealBooks():
            return _ids(fact.seal_id, fact.sealed_by) and _reason(fact.reason)
        case MoveDeposit():
            known = fact.kind in (DEPOSIT_PAID_IN, DEPOSIT_RETURNED, DEPOSIT_FORFEITED)
            return known and _ids(fact.deposit_id, fact.member_id) and _asset(fact.currency) and len(fact.reason) <= 500
        case TransferStock():
            named = _ids(fact.transfer_id, fact.from_member_id, fact.to_member_id) and _currency(fact.currency)
            return named and 1 <= len(fact.lines) <= 1000 and all(map(_stock_line, fact.lines))
        case OpenBalance():
            amounts = (fact.available_minor, fact.pending_minor, fact.paid_minor, fact.debt_minor)
            counted = all(0 <= amount <= 10**15 for amount in amounts) and 1 <= len(fact.source) <= 200
            return counted and _ids(fact.opening_id, fact.member_id) and _currency(fact.currency)
        case _:
            assert_never(fact)


def _ids(*values: str) -> bool:
    return all(re.fullmatch(r"[!-.0-~]{1,100}", value) for value in values)


def _id_or_empty(value: str) -> bool:
    return value == "" or _ids(value)


def _currency(value: str) -> bool:
    return re.fullmatch(r"[A-Z]{3}", value) is not None


def _asset(value: str) -> bool:
    return _currency(value) or _role(value)


def _role(value: str) -> bool:
    return re.fullmatch(r"[a-z][a-z0-9_-]{0,39}", value) is not None


def _attribution(named: Attribution) -> bool:
    return _role(named.role) and _id_or_empty(named.member_id) and _id_or_empty(named.scope)


def _stock_line(line: StockLine) -> bool:
    prices = 0 <= line.unit_cost_minor <= 10**9 and 0 <= line.unit_price_minor <= 10**9
    return prices and 1 <= line.quantity <= 10**9 and len(line.sku) <= 100


def _reason(value: str) -> bool:
    return 1 <= len(value) <= 500


def _evidence(fact: Upgrade) -> bool:
    return len(fact.evidence_order_id) <= 100 and len(fact.evidence_note) <= 500


def _line(line: Line) -> bool:
    counted = 1 <= line.line_no < 2**32 and 0 <= line.base_minor <= _MOST and 1 <= line.quantity <= _MOST
    known = line.kind in (KIND_UNSPECIFIED, KIND_GOODS, KIND_GIFT_PACK, KIND_FEE)
    return counted and known and len(line.sku) <= 100 and len(line.category) <= 100 and all(map(_attribution, line.attributions))


def _refund_line(line: RefundLine) -> bool:
    return 1 <= line.line_no < 2**32 and 0 <= line.quantity <= _MOST and 0 <= line.base_minor <= _MOST
