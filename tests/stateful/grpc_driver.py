"""The real books behind their gRPC stubs, speaking the oracle's words. Knows the contract and nothing else.

Besides translating, it checks on every call what the contract promises whatever the story: a status and metadata that go with the reason,
receipts that repeat to the letter, positions that never serve twice and times of recording that rise with them.
"""

from __future__ import annotations

import hashlib
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, assert_never, cast

import grpc
from fenrun.ledger.v1 import ledger_pb2, ledger_pb2_grpc
from fenrun.log.v1 import log_pb2
from fenrun.ops.v1 import ops_pb2, ops_pb2_grpc
from fenrun.referral.v1 import referral_pb2, referral_pb2_grpc
from fenrun.type.v1 import type_pb2
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from tests.oracle.facts import (
    NS_PER_S,
    Adjust,
    Attribution,
    Balance,
    ClosePeriod,
    Complete,
    ConfirmPayout,
    Correct,
    Detail,
    EndRole,
    Enroll,
    FailGroup,
    FailPayout,
    FormGroup,
    GrantRole,
    GroupState,
    LiftHold,
    Lock,
    Member,
    MoveDeposit,
    OpenBalance,
    OpenGroup,
    Order,
    OrderState,
    Outcome,
    PeriodResult,
    PeriodState,
    PlaceHold,
    PublishPlan,
    RecordTask,
    Refund,
    ReleaseDue,
    RequestPayout,
    SealBooks,
    TierChanged,
    Touch,
    TransferStock,
    Upgrade,
)

Bulk = Enroll | Touch | Upgrade | Order | Complete | Refund | GrantRole | OpenBalance | RecordTask

TIMEOUT_S = 30.0

# error_reason.proto: the status that goes with each reason a write is refused for, and the metadata keys that come with it.
REASONS = {
    "MALFORMED": (grpc.StatusCode.INVALID_ARGUMENT, ""),
    "ID_REUSED": (grpc.StatusCode.ALREADY_EXISTS, "id position field recorded given"),
    "MEMBER_UNKNOWN": (grpc.StatusCode.NOT_FOUND, "member_id field"),
    "SELF_BINDING": (grpc.StatusCode.FAILED_PRECONDITION, "member_id"),
    "BINDING_CYCLE": (grpc.StatusCode.ABORTED, "member_id referrer_id"),
    "BINDING_NOT_LOCKED": (grpc.StatusCode.FAILED_PRECONDITION, "member_id"),
    "APPROVER_IS_REQUESTER": (grpc.StatusCode.FAILED_PRECONDITION, "requested_by"),
    "TIER_UNKNOWN": (grpc.StatusCode.FAILED_PRECONDITION, "tier known"),
    "NO_PLAN_IN_FORCE": (grpc.StatusCode.FAILED_PRECONDITION, "at"),
    "PLAN_INVALID": (grpc.StatusCode.INVALID_ARGUMENT, "path problem"),
    "PLAN_VERSION_OUT_OF_ORDER": (grpc.StatusCode.FAILED_PRECONDITION, "plan_id expected given"),
    "ORDER_UNKNOWN": (grpc.StatusCode.NOT_FOUND, "order_id"),
    "LINE_UNKNOWN": (grpc.StatusCode.FAILED_PRECONDITION, "order_id line_no"),
    "REFUND_EXCEEDS_PAID": (grpc.StatusCode.FAILED_PRECONDITION, "order_id line_no field remaining given"),
    "CURRENCY_MISMATCH": (grpc.StatusCode.FAILED_PRECONDITION, "expected given"),
    "PAYOUT_EXCEEDS_AVAILABLE": (grpc.StatusCode.FAILED_PRECONDITION, "member_id available given"),
    "PAYOUT_UNKNOWN": (grpc.StatusCode.NOT_FOUND, "payout_id"),
    "PAYOUT_CLOSED": (grpc.StatusCode.FAILED_PRECONDITION, "payout_id state"),
    "WRITE_OFF_EXCEEDS_DEBT": (grpc.StatusCode.FAILED_PRECONDITION, "member_id debt given"),
    "HOLD_UNKNOWN": (grpc.StatusCode.NOT_FOUND, "hold_id"),
    "GROUP_UNKNOWN": (grpc.StatusCode.NOT_FOUND, "group_id"),
    "GROUP_CLOSED": (grpc.StatusCode.FAILED_PRECONDITION, "group_id state"),
    "PERIOD_UNKNOWN": (grpc.StatusCode.FAILED_PRECONDITION, "period_id expected"),
    "PERIOD_NOT_OVER": (grpc.StatusCode.FAILED_PRECONDITION, "period_id ends_at given"),
    "ROLE_GRANT_UNKNOWN": (grpc.StatusCode.NOT_FOUND, "grant_id"),
    "SEATS_TAKEN": (grpc.StatusCode.FAILED_PRECONDITION, "tier quota"),
    "PLAN_FORBIDDEN": (grpc.StatusCode.FAILED_PRECONDITION, "rule path problem"),
    "DEPOSIT_EXCEEDS_HELD": (grpc.StatusCode.FAILED_PRECONDITION, "member_id held given"),
    "SEALED_ALREADY": (grpc.StatusCode.FAILED_PRECONDITION, "through sealed_through"),
    "DATED_TOO_EARLY": (grpc.StatusCode.FAILED_PRECONDITION, "field earliest given"),
}
ACCOUNTS = {
    log_pb2.ACCOUNT_PENDING: "pending",
    log_pb2.ACCOUNT_AVAILABLE: "available",
    log_pb2.ACCOUNT_RESERVED: "reserved",
    log_pb2.ACCOUNT_PAID: "paid",
    log_pb2.ACCOUNT_DEBT: "debt",
    log_pb2.ACCOUNT_COMMISSION: "commission",
    log_pb2.ACCOUNT_BREAKAGE: "breakage",
    log_pb2.ACCOUNT_ADJUSTMENT: "adjustment",
    log_pb2.ACCOUNT_WRITE_OFF: "write_off",
    log_pb2.ACCOUNT_DEPOSIT: "deposit",
    log_pb2.ACCOUNT_MARGIN: "margin",
    log_pb2.ACCOUNT_CLEARING: "clearing",
    log_pb2.ACCOUNT_OPENING: "opening",
}


def timestamp(time_ns: int) -> Timestamp:
    """Nanoseconds since 1970 on the wire."""
    return Timestamp(seconds=time_ns // NS_PER_S, nanos=time_ns % NS_PER_S)


def nanoseconds(time: Timestamp) -> int:
    """The wire's time in nanoseconds since 1970."""
    return time.seconds * NS_PER_S + time.nanos


class GrpcDriver:
    """The books of one program on a running server; opens them. Several threads may tell facts at once."""

    def __init__(self, channel: grpc.Channel, program_id: str, currency: str) -> None:
        self.program_id = program_id
        self.currency = currency
        self._ledger = ledger_pb2_grpc.LedgerServiceStub(channel)
        self._referral = referral_pb2_grpc.ReferralServiceStub(channel)
        self._ops = ops_pb2_grpc.OpsServiceStub(channel)
        self._receipts: dict[int, type_pb2.Receipt] = {}
        self._new: set[int] = set()
        opened = self._ops.CreateProgram(ops_pb2.CreateProgramRequest(program_id=program_id, currency=currency), timeout=TIMEOUT_S)
        assert self._receipt(opened.receipt, {}).position == 1

    # ------------------------------------------------------------------------------------------------------------------- answers

    def _receipt(self, receipt: type_pb2.Receipt, detail: Detail) -> Outcome:
        """A receipt as an outcome: new, or to the letter one given before."""
        assert receipt.program_id == self.program_id
        assert len(receipt.entry_hash) == 32
        assert receipt.consistency_token
        first = type_pb2.Receipt()
        first.CopyFrom(receipt)
        first.already_recorded = False
        known = self._receipts.setdefault(receipt.position, first)
        assert known == first, f"receipt of position {receipt.position}: got {receipt}, expected {known}"
        for position, other in list(self._receipts.items()):
            earlier = nanoseconds(other.recorded_at) < nanoseconds(receipt.recorded_at)
            assert earlier == (position < receipt.position), f"times do not rise with positions: got {receipt} and {other}"
        if receipt.already_recorded:
            return Outcome("repeated", position=receipt.position, detail=detail)
        assert receipt.position not in self._new, f"two new facts at one position: got {receipt}"
        self._new.add(receipt.position)
        return Outcome("accepted", position=receipt.position, detail=detail)

    def _refusal(self, status: status_pb2.Status) -> Outcome:
        """A refusal as an outcome, once it is what the contract says it must be."""
        infos = [detail for detail in status.details if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR)]
        assert len(infos) == 1, f"not one ErrorInfo: got {status}"
        info = error_details_pb2.ErrorInfo()
        infos[0].Unpack(info)
        assert info.domain == "fenrun", f"domain: got {status}"
        assert info.reason in REASONS, f"reason: got {status}"
        code, keys = REASONS[info.reason]
        assert status.code == code.value[0], f"status of {info.reason}: got {status}"
        assert set(keys.split()) <= set(info.metadata), f"metadata of {info.reason}: got {status}, expected {keys}"
        if info.reason == "MALFORMED":
            fields = [detail for detail in status.details if detail.Is(error_details_pb2.BadRequest.DESCRIPTOR)]
            assert fields, f"MALFORMED lists no fields: got {status}"
        return Outcome("refused", info.reason)

    def _told(self, call: Callable[..., Any], request: Any, read: Callable[[Any], Outcome]) -> Outcome:
        """Makes one call and reads its reply, or why it was refused."""
        try:
            reply = call(request, timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            refused = error
        else:
            return read(reply)
        status = rpc_status.from_call(cast(grpc.Call, refused))
        assert status is not None, f"no rich status: got {refused}"
        return self._refusal(status)

    def _by_receipt(self, reply: Any) -> Outcome:
        return self._receipt(reply.receipt, {})

    def _minor(self, money: type_pb2.Money) -> int:
        assert money.currency == self.currency, f"currency: got {money}"
        return money.minor_units

    def _earnings(self, earnings: Sequence[ledger_pb2.Earning], name: str) -> dict[str, object]:
        """Money by member, points by member and kind; each once, and never nothing."""
        told = {(earning.member_id, earning.amount.currency): earning.amount.minor_units for earning in earnings}
        assert len(told) == len(earnings), f"a payee twice: got {earnings}"
        return {
            name: {who: amount for (who, asset), amount in told.items() if asset == self.currency and amount},
            f"{name}_points": {key: amount for key, amount in told.items() if key[1] != self.currency and amount},
        }

    def _recorded_order(self, recorded: ledger_pb2.RecordedOrder) -> Outcome:
        points = {money.currency: money.minor_units for money in recorded.points_breakage if money.minor_units}
        detail = {
            **self._earnings(recorded.earnings, "earnings"),
            "breakage": self._minor(recorded.breakage),
            "breakage_points": points,
            "binding_locked": _lock(recorded.binding_locked) if recorded.HasField("binding_locked") else None,
            "tier_changes": tuple(map(_tier_changed, recorded.tier_changes)),
        }
        return self._receipt(recorded.receipt, detail)

    def _recorded_refund(self, recorded: ledger_pb2.RecordedRefund) -> Outcome:
        detail = {
            **self._earnings(recorded.reversed, "reversed"),
            "tier_changes": tuple(sorted(map(_tier_changed, recorded.tier_changes), key=lambda change: change.member_id)),
            **self._earnings(recorded.period_reversed, "period_reversed"),
        }
        return self._receipt(recorded.receipt, detail)

    # ------------------------------------------------------------------------------------------------------------- writes: plan

    def publish_plan(self, fact: PublishPlan) -> Outcome:
        request = ledger_pb2.PublishPlanRequest(
            program_id=self.program_id, document=fact.document, published_at=timestamp(fact.published_at)
        )

        def read(reply: ledger_pb2.PublishPlanResponse) -> Outcome:
            detail = {"plan_id": reply.plan_id, "version": reply.version, "content_hash": reply.content_hash.hex()}
            return self._receipt(reply.receipt, detail)

        return self._told(self._ledger.PublishPlan, request, read)

    # --------------------------------------------------------------------------------------------------------- writes: referral

    def enroll(self, fact: Enroll) -> Outcome:
        return self._told(self._referral.EnrollMember, self._enrolment(fact), self._by_receipt)

    def _enrolment(self, fact: Enroll) -> referral_pb2.EnrollMemberRequest:
        return referral_pb2.EnrollMemberRequest(
            program_id=self.program_id,
            member_id=fact.member_id,
            referrer_id=fact.referrer_id,
            enrolled_at=timestamp(fact.enrolled_at),
        )

    def touch(self, fact: Touch) -> Outcome:
        return self._told(self._referral.RecordTouch, self._touch(fact), self._touched)

    def _touch(self, fact: Touch) -> referral_pb2.RecordTouchRequest:
        return referral_pb2.RecordTouchRequest(
            program_id=self.program_id,
            touch_id=fact.touch_id,
            member_id=fact.member_id,
            referrer_id=fact.referrer_id,
            touched_at=timestamp(fact.touched_at),
            channel=fact.channel,
        )

    def _touched(self, reply: referral_pb2.RecordTouchResponse) -> Outcome:
        return self._receipt(reply.receipt, {"counts": reply.counts})

    def upgrade(self, fact: Upgrade) -> Outcome:
        return self._told(self._referral.UpgradeMember, self._upgrade(fact), self._upgraded)

    def _upgrade(self, fact: Upgrade) -> referral_pb2.UpgradeMemberRequest:
        kind = cast(log_pb2.EvidenceKind.ValueType, fact.evidence_kind)
        return referral_pb2.UpgradeMemberRequest(
            program_id=self.program_id,
            upgrade_id=fact.upgrade_id,
            member_id=fact.member_id,
            tier=fact.tier,
            upgraded_at=timestamp(fact.upgraded_at),
            evidence=log_pb2.Evidence(kind=kind, order_id=fact.evidence_order_id, note=fact.evidence_note),
            expires_at=timestamp(fact.expires_at) if fact.expires_at else None,
        )

    def _upgraded(self, reply: referral_pb2.UpgradeMemberResponse) -> Outcome:
        lock = _lock(reply.binding_locked) if reply.HasField("binding_locked") else None
        return self._receipt(reply.receipt, {"previous_tier": reply.previous_tier, "binding_locked": lock})

    def correct(self, fact: Correct) -> Outcome:
        request = referral_pb2.CorrectBindingRequest(
            program_id=self.program_id,
            correction_id=fact.correction_id,
            member_id=fact.member_id,
            new_referrer_id=fact.new_referrer_id,
            corrected_at=timestamp(fact.corrected_at),
            reason=fact.reason,
            requested_by=fact.requested_by,
            approved_by=fact.approved_by,
        )

        def read(reply: referral_pb2.CorrectBindingResponse) -> Outcome:
            return self._receipt(reply.receipt, {"previous_referrer_id": reply.previous_referrer_id})

        return self._told(self._referral.CorrectBinding, request, read)

    def grant_role(self, fact: GrantRole) -> Outcome:
        return self._told(self._referral.GrantRole, self._grant(fact), self._by_receipt)

    def _grant(self, fact: GrantRole) -> referral_pb2.GrantRoleRequest:
        return referral_pb2.GrantRoleRequest(
            program_id=self.program_id,
            grant_id=fact.grant_id,
            member_id=fact.member_id,
            role=fact.role,
            scope=fact.scope,
            weight=fact.weight,
            effective_from=timestamp(fact.effective_from),
            effective_until=timestamp(fact.effective_until) if fact.effective_until else None,
            granted_at=timestamp(fact.granted_at),
        )

    def end_role(self, fact: EndRole) -> Outcome:
        request = referral_pb2.EndRoleRequest(
            program_id=self.program_id, grant_id=fact.grant_id, ended_at=timestamp(fact.ended_at), reason=fact.reason
        )
        return self._told(self._referral.EndRole, request, self._by_receipt)

    # ----------------------------------------------------------------------------------------------------------- writes: orders

    def order(self, fact: Order) -> Outcome:
        request = ledger_pb2.RecordOrderRequest(program_id=self.program_id, order=_order(fact))
        return self._told(self._ledger.RecordOrder, request, lambda reply: self._recorded_order(reply.recorded))

    def complete(self, fact: Complete) -> Outcome:
        request = ledger_pb2.CompleteOrderRequest(program_id=self.program_id, completion=_completion(fact))
        return self._told(self._ledger.CompleteOrder, request, self._by_receipt)

    def refund(self, fact: Refund) -> Outcome:
        request = ledger_pb2.RefundOrderRequest(program_id=self.program_id, refund=_refund(fact))
        return self._told(self._ledger.RefundOrder, request, lambda reply: self._recorded_refund(reply.recorded))

    def facts(self, facts: Sequence[Bulk]) -> list[Outcome]:
        """Facts of many kinds in one call, one answer each."""
        request = ops_pb2.RecordFactsRequest(program_id=self.program_id, facts=map(self._fact, facts))
        return [self._fact_result(result) for result in self._ops.RecordFacts(request, timeout=TIMEOUT_S).results]

    def stream_facts(self, batches: Sequence[Sequence[Bulk]]) -> list[list[Outcome]]:
        """Batches sent without waiting, one list of answers for each."""

        def requests() -> Iterator[ops_pb2.StreamFactsRequest]:
            for batch in batches:
                yield ops_pb2.StreamFactsRequest(program_id=self.program_id, facts=map(self._fact, batch))

        replies = self._ops.StreamFacts(requests(), timeout=TIMEOUT_S)
        return [[self._fact_result(result) for result in reply.results] for reply in replies]

    def _fact(self, fact: Bulk) -> ops_pb2.Fact:
        match fact:
            case Enroll():
                return ops_pb2.Fact(enroll_member=self._enrolment(fact))
            case Touch():
                return ops_pb2.Fact(record_touch=self._touch(fact))
            case Upgrade():
                return ops_pb2.Fact(upgrade_member=self._upgrade(fact))
            case Order():  # its own program_id may be left empty
                return ops_pb2.Fact(record_order=ledger_pb2.RecordOrderRequest(order=_order(fact)))
            case Complete():
                return ops_pb2.Fact(complete_order=ledger_pb2.CompleteOrderRequest(completion=_completion(fact)))
            case Refund():
                return ops_pb2.Fact(refund_order=ledger_pb2.RefundOrderRequest(refund=_refund(fact)))
            case GrantRole():
                return ops_pb2.Fact(grant_role=self._grant(fact))
            case OpenBalance():
                return ops_pb2.Fact(open_balance=self._opening(fact))
            case RecordTask():
                return ops_pb2.Fact(record_task=self._task(fact))
            case _:
                assert_never(fact)

    def _fact_result(self, result: ops_pb2.FactResult) -> Outcome:
        match result.WhichOneof("result"):
            case "enroll_member":
                return self._by_receipt(result.enroll_member)
            case "record_touch":
                return self._touched(result.record_touch)
            case "upgrade_member":
                return self._upgraded(result.upgrade_member)
            case "record_order":
                return self._recorded_order(result.record_order.recorded)
            case "complete_order":
                return self._by_receipt(result.complete_order)
            case "refund_order":
                return self._recorded_refund(result.refund_order.recorded)
            case "grant_role":
                return self._by_receipt(result.grant_role)
            case "open_balance":
                return self._by_receipt(result.open_balance)
            case "record_task":
                return self._task_recorded(result.record_task)
            case _:
                return self._refusal(result.error)

    def orders(self, facts: Sequence[Order]) -> list[Outcome]:
        request = ledger_pb2.RecordOrdersRequest(program_id=self.program_id, orders=map(_order, facts))
        return self._order_results(self._ledger.RecordOrders(request, timeout=TIMEOUT_S).results)

    def stream_orders(self, batches: Sequence[Sequence[Order]]) -> list[list[Outcome]]:
        """Batches sent without waiting, one list of answers for each."""

        def requests() -> Iterator[ledger_pb2.StreamOrdersRequest]:
            for batch in batches:
                yield ledger_pb2.StreamOrdersRequest(program_id=self.program_id, orders=map(_order, batch))

        return [self._order_results(reply.results) for reply in self._ledger.StreamOrders(requests(), timeout=TIMEOUT_S)]

    def _order_results(self, results: Sequence[ledger_pb2.OrderResult]) -> list[Outcome]:
        return [
            self._recorded_order(result.recorded) if result.WhichOneof("result") == "recorded" else self._refusal(result.error)
            for result in results
        ]

    def follow_ups(self, facts: Sequence[Complete | Refund]) -> list[Outcome]:
        request = ledger_pb2.FollowUpOrdersRequest(
            program_id=self.program_id,
            follow_ups=[
                ledger_pb2.FollowUp(completion=_completion(fact))
                if isinstance(fact, Complete)
                else ledger_pb2.FollowUp(refund=_refund(fact))
                for fact in facts
            ],
        )
        outcomes: list[Outcome] = []
        for result in self._ledger.FollowUpOrders(request, timeout=TIMEOUT_S).results:
            match result.WhichOneof("result"):
                case "completed":
                    outcomes.append(self._receipt(result.completed, {}))
                case "refunded":
                    outcomes.append(self._recorded_refund(result.refunded))
                case _:
                    outcomes.append(self._refusal(result.error))
        return outcomes

    # -------------------------------------------------------------------------------------------- writes: groups, tasks, periods

    def open_group(self, fact: OpenGroup) -> Outcome:
        request = ledger_pb2.OpenGroupRequest(
            program_id=self.program_id, group_id=fact.group_id, opener_id=fact.opener_id, opened_at=timestamp(fact.opened_at)
        )
        return self._told(self._ledger.OpenGroup, request, self._by_receipt)

    def form_group(self, fact: FormGroup) -> Outcome:
        request = ledger_pb2.FormGroupRequest(program_id=self.program_id, group_id=fact.group_id, formed_at=timestamp(fact.formed_at))
        return self._told(self._ledger.FormGroup, request, lambda reply: self._receipt(reply.receipt, {"orders": reply.orders}))

    def fail_group(self, fact: FailGroup) -> Outcome:
        request = ledger_pb2.FailGroupRequest(
            program_id=self.program_id, group_id=fact.group_id, failed_at=timestamp(fact.failed_at), reason=fact.reason
        )

        def read(reply: ledger_pb2.FailGroupResponse) -> Outcome:
            reversed_ = {**self._earnings(reply.reversed, "reversed"), **self._earnings(reply.period_reversed, "period_reversed")}
            return self._receipt(reply.receipt, {"orders": reply.orders, **reversed_})

        return self._told(self._ledger.FailGroup, request, read)

    def record_task(self, fact: RecordTask) -> Outcome:
        return self._told(self._ledger.RecordTask, self._task(fact), self._task_recorded)

    def _task(self, fact: RecordTask) -> ledger_pb2.RecordTaskRequest:
        return ledger_pb2.RecordTaskRequest(
            program_id=self.program_id, task_id=fact.task_id, member_id=fact.member_id, task=fact.task, done_at=timestamp(fact.done_at)
        )

    def _task_recorded(self, reply: ledger_pb2.RecordTaskResponse) -> Outcome:
        return self._receipt(reply.receipt, self._earnings(reply.earnings, "earnings"))

    def close_period(self, fact: ClosePeriod) -> Outcome:
        request = ledger_pb2.ClosePeriodRequest(program_id=self.program_id, period_id=fact.period_id, closed_at=timestamp(fact.closed_at))
        return self._told(
            self._ledger.ClosePeriod, request, lambda reply: self._receipt(reply.receipt, {"rules": self._period_results(reply.rules)})
        )

    def _period_results(self, results: Sequence[ledger_pb2.PeriodRuleResult]) -> tuple[PeriodResult, ...]:
        told = []
        for result in results:
            earnings = {(one.member_id, one.amount.currency): one.amount.minor_units for one in result.earnings if one.amount.minor_units}
            told.append(PeriodResult(result.rule_id, result.volume, earnings, result.breakage.minor_units))
        return tuple(told)

    def move_deposit(self, fact: MoveDeposit) -> Outcome:
        request = ledger_pb2.MoveDepositRequest(
            program_id=self.program_id,
            deposit_id=fact.deposit_id,
            member_id=fact.member_id,
            kind=cast(log_pb2.DepositKind.ValueType, fact.kind),
            amount=type_pb2.Money(minor_units=fact.amount_minor, currency=fact.currency),
            reason=fact.reason,
            moved_at=timestamp(fact.moved_at),
        )
        return self._told(self._ledger.MoveDeposit, request, self._by_receipt)

    def transfer_stock(self, fact: TransferStock) -> Outcome:
        request = ledger_pb2.TransferStockRequest(
            program_id=self.program_id,
            transfer_id=fact.transfer_id,
            from_member_id=fact.from_member_id,
            to_member_id=fact.to_member_id,
            currency=fact.currency,
            lines=[
                log_pb2.StockLine(
                    sku=line.sku,
                    quantity=line.quantity,
                    unit_cost_minor=line.unit_cost_minor,
                    unit_price_minor=line.unit_price_minor,
                )
                for line in fact.lines
            ],
            transferred_at=timestamp(fact.transferred_at),
        )
        return self._told(
            self._ledger.TransferStock, request, lambda reply: self._receipt(reply.receipt, {"margin": self._minor(reply.margin)})
        )

    def open_balance(self, fact: OpenBalance) -> Outcome:
        return self._told(self._ledger.OpenBalance, self._opening(fact), self._by_receipt)

    def _opening(self, fact: OpenBalance) -> ledger_pb2.OpenBalanceRequest:
        return ledger_pb2.OpenBalanceRequest(
            program_id=self.program_id,
            opening_id=fact.opening_id,
            member_id=fact.member_id,
            currency=fact.currency,
            available_minor=fact.available_minor,
            pending_minor=fact.pending_minor,
            pending_due_at=timestamp(fact.pending_due_at) if fact.pending_due_at else None,
            paid_minor=fact.paid_minor,
            debt_minor=fact.debt_minor,
            source=fact.source,
            opened_at=timestamp(fact.opened_at),
        )

    def seal_books(self, fact: SealBooks) -> Outcome:
        request = ledger_pb2.SealBooksRequest(
            program_id=self.program_id,
            seal_id=fact.seal_id,
            through=timestamp(fact.through),
            reason=fact.reason,
            sealed_by=fact.sealed_by,
            sealed_at=timestamp(fact.sealed_at),
        )

        def read(reply: ledger_pb2.SealBooksResponse) -> Outcome:
            seal = reply.seal
            begins = getattr(seal.period, "from")
            # The program's own entry is of the day it was created, which no story tells.
            own = nanoseconds(next(self._entries()).occurred_at) < fact.through
            balances = {(one.balance.currency, ACCOUNTS[one.account]): one.balance.minor_units for one in seal.balances}
            detail = {
                "sealed_from": nanoseconds(begins) if seal.period.HasField("from") else None,
                "entries": seal.entries - own,
                "balances": balances,
            }
            return self._receipt(reply.receipt, detail)

        return self._told(self._ledger.SealBooks, request, read)

    # --------------------------------------------------------------------------------------------------- writes: release, holds

    def release_due(self, fact: ReleaseDue) -> Outcome:
        request = ledger_pb2.ReleaseDueRequest(program_id=self.program_id, as_of=timestamp(fact.as_of), max_orders=fact.max_orders)

        def read(reply: ledger_pb2.ReleaseDueResponse) -> Outcome:
            detail = {"orders_released": reply.orders_released, "amount": self._minor(reply.amount), "more": reply.more}
            return Outcome("accepted", detail=detail)

        return self._told(self._ledger.ReleaseDue, request, read)

    def place_hold(self, fact: PlaceHold) -> Outcome:
        request = ledger_pb2.PlaceHoldRequest(
            program_id=self.program_id, hold_id=fact.hold_id, reason=fact.reason, placed_at=timestamp(fact.placed_at)
        )
        if fact.member_id:
            request.member_id = fact.member_id
        if fact.order_id:
            request.order_id = fact.order_id
        return self._told(self._ledger.PlaceHold, request, self._by_receipt)

    def lift_hold(self, fact: LiftHold) -> Outcome:
        request = ledger_pb2.LiftHoldRequest(
            program_id=self.program_id, hold_id=fact.hold_id, reason=fact.reason, lifted_at=timestamp(fact.lifted_at)
        )
        return self._told(self._ledger.LiftHold, request, self._by_receipt)

    # ---------------------------------------------------------------------------------------------------------- writes: payouts

    def request_payout(self, fact: RequestPayout) -> Outcome:
        request = ledger_pb2.RequestPayoutRequest(
            program_id=self.program_id,
            payout_id=fact.payout_id,
            member_id=fact.member_id,
            amount=type_pb2.Money(minor_units=fact.amount_minor, currency=fact.currency),
            requested_at=timestamp(fact.requested_at),
        )
        return self._told(self._ledger.RequestPayout, request, self._by_receipt)

    def confirm_payout(self, fact: ConfirmPayout) -> Outcome:
        request = ledger_pb2.ConfirmPayoutRequest(
            program_id=self.program_id, payout_id=fact.payout_id, reference=fact.reference, paid_at=timestamp(fact.paid_at)
        )
        return self._told(self._ledger.ConfirmPayout, request, self._by_receipt)

    def fail_payout(self, fact: FailPayout) -> Outcome:
        request = ledger_pb2.FailPayoutRequest(
            program_id=self.program_id, payout_id=fact.payout_id, reason=fact.reason, failed_at=timestamp(fact.failed_at)
        )
        return self._told(self._ledger.FailPayout, request, self._by_receipt)

    def adjust(self, fact: Adjust) -> Outcome:
        request = ledger_pb2.PostAdjustmentRequest(
            program_id=self.program_id,
            adjustment_id=fact.adjustment_id,
            member_id=fact.member_id,
            kind=cast(log_pb2.AdjustmentKind.ValueType, fact.kind),
            amount=type_pb2.Money(minor_units=fact.amount_minor, currency=fact.currency),
            reason=fact.reason,
            requested_by=fact.requested_by,
            approved_by=fact.approved_by,
            posted_at=timestamp(fact.posted_at),
        )
        return self._told(self._ledger.PostAdjustment, request, self._by_receipt)

    # -------------------------------------------------------------------------------------------------------------------- reads

    def balance(self, member_id: str, position: int | None = None, asset: str = "") -> Balance:
        request = ledger_pb2.GetBalanceRequest(program_id=self.program_id, member_id=member_id, asset=asset)
        if position is not None:
            request.position = position
        reply = self._ledger.GetBalance(request, timeout=TIMEOUT_S)
        assert position is None or reply.as_of_position == position
        return self._balance(reply.balance, member_id, asset)

    def balances(self, asset: str = "") -> Mapping[str, Balance]:
        return self._listed_balances(1000, asset)

    def _listed_balances(self, page_size: int, asset: str = "") -> dict[str, Balance]:
        balances: dict[str, Balance] = {}
        request = ledger_pb2.ListBalancesRequest(program_id=self.program_id, page_size=page_size, asset=asset)
        while True:
            page = self._ledger.ListBalances(request, timeout=TIMEOUT_S)
            assert len(page.balances) <= page_size
            for balance in page.balances:
                assert balance.member_id not in balances, f"twice in the list: got {balance}"
                balances[balance.member_id] = self._balance(balance, balance.member_id, asset)
            if not page.next_page_token:
                assert list(balances) == sorted(balances), f"not by member id: got {list(balances)}"
                return balances
            request.page_token = page.next_page_token

    def _balance(self, balance: ledger_pb2.Balance, member_id: str, asset: str = "") -> Balance:
        assert (balance.member_id, balance.currency) == (member_id, asset or self.currency)
        return Balance(
            pending=balance.pending_minor,
            available=balance.available_minor,
            reserved=balance.reserved_minor,
            paid=balance.paid_minor,
            debt=balance.debt_minor,
            accrued=balance.accrued_minor,
            reversed=balance.reversed_minor,
            adjusted=balance.adjusted_minor,
            deposit=balance.deposit_minor,
            margin=balance.margin_minor,
        )

    def trial_balance(self, asset: str = "", position: int | None = None) -> Mapping[str, int]:
        request = ledger_pb2.TrialBalanceRequest(program_id=self.program_id, asset=asset)
        if position is not None:
            request.position = position
        reply = self._ledger.TrialBalance(request, timeout=TIMEOUT_S)
        assert position is None or reply.position == position
        trial = dict.fromkeys(ACCOUNTS.values(), 0)
        for account in reply.accounts:
            assert account.balance.currency == (asset or self.currency), f"currency: got {account}"
            trial[ACCOUNTS[account.account]] += account.balance.minor_units
        assert len({account.account for account in reply.accounts}) == len(reply.accounts), f"an account twice: got {reply}"
        return trial

    def check_itself(self) -> None:
        """The projections are what the log says, by the server's own word; the log is what docs/log.md says; pages hold the whole list."""
        assert self._listed_balances(3) == self.balances()
        steps = self._ops.VerifyProjections(ops_pb2.VerifyProjectionsRequest(program_id=self.program_id), timeout=TIMEOUT_S)
        for step in steps:
            if step.WhichOneof("step") == "result":
                assert step.result.equal, f"projection differs from the log: got {step.result}"
        self._check_log()

    def _check_log(self) -> None:
        """Every entry is chained to the one before by docs/log.md, numbered without gaps, later than it, and its postings sum to zero."""
        previous: log_pb2.Entry | None = None
        versions: Counter[str] = Counter()
        for entry in self._entries():
            versions[entry.stream] += 1
            assert entry.position == (previous.position if previous else 0) + 1, f"position: got {entry}"
            assert entry.stream_version == versions[entry.stream], f"stream version: got {entry}"
            assert entry.previous_hash == (previous.hash if previous else bytes(32)), f"previous hash: got {entry}"
            assert entry.hash == hashlib.sha256(_hashed_bytes(entry)).digest(), f"hash: got {entry}"
            assert previous is None or nanoseconds(previous.recorded_at) < nanoseconds(entry.recorded_at), f"recorded: got {entry}"
            receipt = self._receipts.get(entry.position)
            assert receipt is None or (receipt.entry_hash, receipt.recorded_at) == (entry.hash, entry.recorded_at), f"receipt: got {entry}"
            sums: Counter[str] = Counter()
            for posting in _postings(entry):
                sums[posting.asset] += posting.amount_minor
            assert not any(sums.values()), f"postings: got {entry}"
            previous = entry
        assert previous is not None
        assert set(self._receipts) <= set(range(1, previous.position + 1)), "a receipt beyond the log"

    def entries(self) -> list[tuple[str, str]]:
        own = f"program/{self.program_id}"
        return [(entry.type, "program" if entry.stream == own else entry.stream) for entry in self._entries()]

    def _entries(self) -> Iterator[log_pb2.Entry]:
        request = ops_pb2.ReadEntriesRequest(program_id=self.program_id, page_size=50)
        while True:
            page = self._ops.ReadEntries(request, timeout=TIMEOUT_S)
            yield from page.entries
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def member(self, member_id: str) -> Member:
        reply = self._referral.GetMember(referral_pb2.GetMemberRequest(program_id=self.program_id, member_id=member_id), timeout=TIMEOUT_S)
        member = reply.member
        return Member(
            member_id=member.member_id,
            enrolled_at=nanoseconds(member.enrolled_at),
            tier=member.tier,
            locked=member.locked,
            referrer_id=member.referrer_id,
            binding_position=member.binding_position,
            tier_position=member.tier_position,
            direct_count=reply.direct_count,
            tier_expires_at=nanoseconds(member.tier_expires_at) if member.HasField("tier_expires_at") else 0,
            tier_frozen=member.tier_frozen,
        )

    def upline(self, member_id: str) -> list[str]:
        reply = self._referral.GetUpline(referral_pb2.GetUplineRequest(program_id=self.program_id, member_id=member_id), timeout=TIMEOUT_S)
        assert not reply.more
        return [member.member_id for member in reply.members]

    def order_state(self, order_id: str) -> OrderState:
        reply = self._ledger.GetOrder(ledger_pb2.GetOrderRequest(program_id=self.program_id, order_id=order_id), timeout=TIMEOUT_S)
        entitlements: Counter[tuple[int, str, str]] = Counter()  # whoever holds a role twice is entitled twice
        for line in reply.lines:
            for entitled in line.entitlements:
                entitlements[line.line_no, entitled.rule_id, entitled.member_id] += entitled.amount_minor
        return OrderState(
            paid_at=nanoseconds(reply.paid_at),
            completed_at=nanoseconds(reply.completed_at) if reply.HasField("completed_at") else 0,
            plan_position=reply.plan_position,
            people=tuple((who.member_id, who.tier, who.binding_position, who.tier_position) for who in reply.people if not who.role),
            lines={line.line_no: (line.remaining_base_minor, line.remaining_quantity) for line in reply.lines if line.line_no},
            entitlements={key: amount for key, amount in entitlements.items() if amount},
            positions=tuple(reply.positions),
        )

    def group_state(self, group_id: str) -> GroupState:
        reply = self._ledger.GetGroup(ledger_pb2.GetGroupRequest(program_id=self.program_id, group_id=group_id), timeout=TIMEOUT_S)
        assert reply.group_id == group_id
        closed_at = nanoseconds(reply.closed_at) if reply.HasField("closed_at") else 0
        return GroupState(reply.opener_id, reply.state, tuple(reply.order_ids), nanoseconds(reply.opened_at), closed_at)

    def period_state(self, period_id: str) -> PeriodState:
        reply = self._ledger.GetPeriod(ledger_pb2.GetPeriodRequest(program_id=self.program_id, period_id=period_id), timeout=TIMEOUT_S)
        assert reply.period_id == period_id
        times = (nanoseconds(reply.starts_at), nanoseconds(reply.ends_at), nanoseconds(reply.closed_at))
        return PeriodState(*times, reply.plan_position, self._period_results(reply.rules), tuple(reply.positions))


def _hashed_bytes(entry: log_pb2.Entry) -> bytes:
    """What docs/log.md says the hash of an entry is taken over."""
    times = (nanoseconds(entry.occurred_at) // 1000, nanoseconds(entry.recorded_at) // 1000)
    texts = [text.encode() for text in (entry.program_id, entry.stream, entry.type, entry.actor)]
    return b"".join(
        (
            b"fenrun.entry.v1\0",
            entry.previous_hash,
            struct.pack(">QQqq", entry.position, entry.stream_version, *times),
            *(struct.pack(">I", len(part)) + part for part in (*texts, entry.fact, entry.decision)),
        )
    )


def _postings(entry: log_pb2.Entry) -> Sequence[log_pb2.Posting]:
    """The movements an entry decided on."""
    match entry.type.rsplit(".", 1)[0]:
        case "order.paid":
            return log_pb2.OrderPaidDecision.FromString(entry.decision).postings
        case "order.refunded" | "order.voided":
            return log_pb2.OrderRefundedDecision.FromString(entry.decision).postings
        case "order.released" | "reward.released":
            return log_pb2.OrderReleasedDecision.FromString(entry.decision).postings
        case "task.done":
            return log_pb2.TaskDoneDecision.FromString(entry.decision).postings
        case "period.closed":
            return log_pb2.PeriodClosedDecision.FromString(entry.decision).postings
        case "period.corrected":
            return log_pb2.PeriodCorrectedDecision.FromString(entry.decision).postings
        case "balance.opened":
            return log_pb2.BalanceOpenedDecision.FromString(entry.decision).postings
        case "payout.requested" | "payout.paid" | "payout.failed" | "adjustment.posted" | "deposit.moved" | "stock.transferred":
            return log_pb2.MovementDecision.FromString(entry.decision).postings
        case _:
            return ()


def _lock(lock: log_pb2.BindingLocked) -> Lock:
    return Lock(lock.member_id, lock.referrer_id, lock.touch_position)


def _tier_changed(change: log_pb2.TierChange) -> TierChanged:
    return TierChanged(change.member_id, change.kind, change.tier, change.previous_tier)


def _attributions(named: Sequence[Attribution]) -> list[log_pb2.Attribution]:
    return [log_pb2.Attribution(role=one.role, member_id=one.member_id, scope=one.scope) for one in named]


def _order(fact: Order) -> ledger_pb2.Order:
    return ledger_pb2.Order(
        order_id=fact.order_id,
        member_id=fact.member_id,
        paid_at=timestamp(fact.paid_at),
        currency=fact.currency,
        lines=[
            log_pb2.OrderLine(
                line_no=line.line_no,
                base_minor=line.base_minor,
                quantity=line.quantity,
                sku=line.sku,
                category=line.category,
                kind=cast(log_pb2.LineKind.ValueType, line.kind),
                attributions=_attributions(line.attributions),
            )
            for line in fact.lines
        ],
        attributions=_attributions(fact.attributions),
        group_id=fact.group_id,
        referrer_id=fact.referrer_id,
    )


def _completion(fact: Complete) -> ledger_pb2.Completion:
    return ledger_pb2.Completion(order_id=fact.order_id, completed_at=timestamp(fact.completed_at))


def _refund(fact: Refund) -> ledger_pb2.Refund:
    return ledger_pb2.Refund(
        refund_id=fact.refund_id,
        order_id=fact.order_id,
        refunded_at=timestamp(fact.refunded_at),
        lines=[log_pb2.RefundLine(line_no=line.line_no, quantity=line.quantity, base_minor=line.base_minor) for line in fact.lines],
    )
