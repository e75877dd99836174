"""The small language tests are written in: days, plans, and a client that says things shortly."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
from fenrun.ledger.v1 import ledger_pb2, ledger_pb2_grpc
from fenrun.log.v1 import log_pb2
from fenrun.ops.v1 import ops_pb2, ops_pb2_grpc
from fenrun.referral.v1 import referral_pb2, referral_pb2_grpc
from fenrun.statistics.v1 import statistics_pb2, statistics_pb2_grpc
from fenrun.type.v1 import error_reason_pb2, type_pb2
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2
from grpc_status import rpc_status

LATEST = type_pb2.ReadConsistency(fully_consistent=True)
DAY_ONE = datetime(2026, 1, 1, tzinfo=UTC)

TWO_LEVEL = """
plan: two-level
version: 1
currency: GBP
tiers: [member, manager, director, partner]
effective: {from: "2000-01-01T00:00:00Z"}
release: {days: 7}
rules:
  - {id: first, kind: generation, generation: 1, rate: 10%}
  - {id: second, kind: generation, generation: 2, rate: 5%}
"""


def day(number: float) -> Timestamp:
    """Midnight UTC of a day of the story, the first being 1; halves are noons."""
    moment = Timestamp()
    moment.FromDatetime(DAY_ONE + timedelta(hours=int((number - 1) * 24)))
    return moment


def line(line_no: int, base_minor: int, quantity: int = 1, **more: Any) -> log_pb2.OrderLine:
    return log_pb2.OrderLine(line_no=line_no, base_minor=base_minor, quantity=quantity, **more)


def money(minor_units: int, currency: str = "GBP") -> type_pb2.Money:
    return type_pb2.Money(minor_units=minor_units, currency=currency)


def reason(error: grpc.RpcError) -> tuple[grpc.StatusCode, str, dict[str, str]]:
    """(status code, reason, metadata) of a refused call; the reason is one the contract names."""
    status = rpc_status.from_call(error)  # type: ignore[arg-type]  # a client's RpcError is a Call too
    assert status is not None, error
    info = error_details_pb2.ErrorInfo()
    [packed] = [detail for detail in status.details if detail.Is(info.DESCRIPTOR)]
    packed.Unpack(info)
    assert f"ERROR_REASON_{info.reason}" in error_reason_pb2.ErrorReason.keys()  # noqa: SIM118  # an enum wrapper, not a mapping
    return error.code(), info.reason, dict(info.metadata)


@dataclass(frozen=True)
class Client:
    """The services' stubs, bound to one program."""

    program_id: str
    ledger: ledger_pb2_grpc.LedgerServiceStub
    referral: referral_pb2_grpc.ReferralServiceStub
    ops: ops_pb2_grpc.OpsServiceStub
    statistics: statistics_pb2_grpc.StatisticsServiceStub

    @classmethod
    def of(cls, channel: grpc.Channel, program_id: str) -> "Client":
        return cls(
            program_id,
            ledger_pb2_grpc.LedgerServiceStub(channel),
            referral_pb2_grpc.ReferralServiceStub(channel),
            ops_pb2_grpc.OpsServiceStub(channel),
            statistics_pb2_grpc.StatisticsServiceStub(channel),
        )

    @classmethod
    def of_new_program(cls, channel: grpc.Channel, program_id: str, currency: str = "GBP") -> "Client":
        client = cls.of(channel, program_id)
        client.ops.CreateProgram(ops_pb2.CreateProgramRequest(program_id=program_id, currency=currency))
        return client

    def publish(self, document: str = TWO_LEVEL, at: float = 1) -> ledger_pb2.PublishPlanResponse:
        request = ledger_pb2.PublishPlanRequest(program_id=self.program_id, document=document, published_at=day(at))
        return self.ledger.PublishPlan(request)

    def enroll(self, member_id: str, referrer_id: str = "", at: float = 1) -> referral_pb2.EnrollMemberResponse:
        return self.referral.EnrollMember(
            referral_pb2.EnrollMemberRequest(program_id=self.program_id, member_id=member_id, referrer_id=referrer_id, enrolled_at=day(at))
        )

    def touch(self, touch_id: str, member_id: str, referrer_id: str, at: float = 1) -> referral_pb2.RecordTouchResponse:
        return self.referral.RecordTouch(
            referral_pb2.RecordTouchRequest(
                program_id=self.program_id, touch_id=touch_id, member_id=member_id, referrer_id=referrer_id, touched_at=day(at)
            )
        )

    def upgrade(self, upgrade_id: str, member_id: str, tier: str, at: float = 1) -> referral_pb2.UpgradeMemberResponse:
        return self.referral.UpgradeMember(
            referral_pb2.UpgradeMemberRequest(
                program_id=self.program_id,
                upgrade_id=upgrade_id,
                member_id=member_id,
                tier=tier,
                upgraded_at=day(at),
                evidence=log_pb2.Evidence(kind=log_pb2.EVIDENCE_KIND_SEAT_GRANTED),
            )
        )

    def name(self, naming_id: str, member_id: str, display_name: str, at: float = 1) -> referral_pb2.SetDisplayNameResponse:
        request = referral_pb2.SetDisplayNameRequest(
            program_id=self.program_id, naming_id=naming_id, member_id=member_id, display_name=display_name, named_at=day(at)
        )
        return self.referral.SetDisplayName(request)

    def named(self, member_id: str) -> tuple[str, str]:
        """(state, name) of a member: ("named", "王小明"), ("erased", "")."""
        found = self.referral.GetDisplayName(referral_pb2.GetDisplayNameRequest(program_id=self.program_id, member_id=member_id))
        return referral_pb2.NameState.Name(found.state).removeprefix("NAME_STATE_").lower(), found.display_name

    def erase(self, member_id: str, at: float = 2, reason: str = "asked to be forgotten") -> referral_pb2.EraseMemberResponse:
        request = referral_pb2.EraseMemberRequest(
            program_id=self.program_id, member_id=member_id, reason=reason, erased_by="zhao", erased_at=day(at)
        )
        return self.referral.EraseMember(request)

    def correct(
        self, correction_id: str, member_id: str, referrer_id: str, asked: str = "ann", approved: str = "bob", at: float = 1
    ) -> referral_pb2.CorrectBindingResponse:
        return self.referral.CorrectBinding(
            referral_pb2.CorrectBindingRequest(
                program_id=self.program_id,
                correction_id=correction_id,
                member_id=member_id,
                new_referrer_id=referrer_id,
                corrected_at=day(at),
                reason="wrong code typed",
                requested_by=asked,
                approved_by=approved,
            )
        )

    def seat(
        self, upgrade_id: str, member_id: str, tier: str, at: float = 1, until: float | None = None
    ) -> referral_pb2.UpgradeMemberResponse:
        """A seat granted by hand, until a day or for good."""
        return self.referral.UpgradeMember(
            referral_pb2.UpgradeMemberRequest(
                program_id=self.program_id,
                upgrade_id=upgrade_id,
                member_id=member_id,
                tier=tier,
                upgraded_at=day(at),
                evidence=log_pb2.Evidence(kind=log_pb2.EVIDENCE_KIND_SEAT_GRANTED),
                expires_at=None if until is None else day(until),
            )
        )

    def role(
        self, grant_id: str, member_id: str, role: str, scope: str = "", weight: int = 1, at: float = 1
    ) -> referral_pb2.GrantRoleResponse:
        return self.referral.GrantRole(
            referral_pb2.GrantRoleRequest(
                program_id=self.program_id,
                grant_id=grant_id,
                member_id=member_id,
                role=role,
                scope=scope,
                weight=weight,
                effective_from=day(at),
                granted_at=day(at),
            )
        )

    def end_role(self, grant_id: str, at: float = 2) -> referral_pb2.EndRoleResponse:
        request = referral_pb2.EndRoleRequest(program_id=self.program_id, grant_id=grant_id, ended_at=day(at), reason="moved away")
        return self.referral.EndRole(request)

    def told_order(
        self,
        order_id: str,
        member_id: str,
        *lines: log_pb2.OrderLine,
        at: float = 2,
        currency: str = "GBP",
        attributions: Sequence[tuple[str, str, str]] = (),
        group: str = "",
        referrer: str = "",
    ) -> ledger_pb2.Order:
        """Attributions are (role, member_id, scope)."""
        return ledger_pb2.Order(
            order_id=order_id,
            member_id=member_id,
            paid_at=day(at),
            currency=currency,
            lines=lines,
            attributions=[log_pb2.Attribution(role=role, member_id=who, scope=scope) for role, who, scope in attributions],
            group_id=group,
            referrer_id=referrer,
        )

    def order(self, order_id: str, member_id: str, *lines: log_pb2.OrderLine, **more: Any) -> ledger_pb2.RecordedOrder:
        """As told_order."""
        told = self.told_order(order_id, member_id, *lines, **more)
        return self.ledger.RecordOrder(ledger_pb2.RecordOrderRequest(program_id=self.program_id, order=told)).recorded

    def complete(self, order_id: str, at: float = 3) -> ledger_pb2.CompleteOrderResponse:
        completion = ledger_pb2.Completion(order_id=order_id, completed_at=day(at))
        return self.ledger.CompleteOrder(ledger_pb2.CompleteOrderRequest(program_id=self.program_id, completion=completion))

    def refund(self, refund_id: str, order_id: str, *lines: tuple[int, int, int], at: float = 20) -> ledger_pb2.RecordedRefund:
        """Lines are (line_no, quantity, base_minor)."""
        refund = ledger_pb2.Refund(
            refund_id=refund_id,
            order_id=order_id,
            refunded_at=day(at),
            lines=[log_pb2.RefundLine(line_no=n, quantity=q, base_minor=b) for n, q, b in lines],
        )
        return self.ledger.RefundOrder(ledger_pb2.RefundOrderRequest(program_id=self.program_id, refund=refund)).recorded

    def open_group(self, group_id: str, opener_id: str, at: float = 1) -> ledger_pb2.OpenGroupResponse:
        request = ledger_pb2.OpenGroupRequest(program_id=self.program_id, group_id=group_id, opener_id=opener_id, opened_at=day(at))
        return self.ledger.OpenGroup(request)

    def form_group(self, group_id: str, at: float = 5) -> ledger_pb2.FormGroupResponse:
        return self.ledger.FormGroup(ledger_pb2.FormGroupRequest(program_id=self.program_id, group_id=group_id, formed_at=day(at)))

    def fail_group(self, group_id: str, at: float = 5) -> ledger_pb2.FailGroupResponse:
        request = ledger_pb2.FailGroupRequest(program_id=self.program_id, group_id=group_id, failed_at=day(at), reason="too few")
        return self.ledger.FailGroup(request)

    def task(self, task_id: str, member_id: str, task: str, at: float = 2) -> ledger_pb2.RecordTaskResponse:
        request = ledger_pb2.RecordTaskRequest(program_id=self.program_id, task_id=task_id, member_id=member_id, task=task, done_at=day(at))
        return self.ledger.RecordTask(request)

    def close_period(self, period_id: str, at: float) -> ledger_pb2.ClosePeriodResponse:
        request = ledger_pb2.ClosePeriodRequest(program_id=self.program_id, period_id=period_id, closed_at=day(at))
        return self.ledger.ClosePeriod(request)

    def seal(self, seal_id: str, through: float, at: float) -> ledger_pb2.SealBooksResponse:
        return self.ledger.SealBooks(
            ledger_pb2.SealBooksRequest(
                program_id=self.program_id,
                seal_id=seal_id,
                through=day(through),
                reason="month end",
                sealed_by="zhao",
                sealed_at=day(at),
            )
        )

    def deposit(
        self, deposit_id: str, member_id: str, kind: log_pb2.DepositKind.ValueType, minor_units: int, at: float = 2
    ) -> ledger_pb2.MoveDepositResponse:
        return self.ledger.MoveDeposit(
            ledger_pb2.MoveDepositRequest(
                program_id=self.program_id,
                deposit_id=deposit_id,
                member_id=member_id,
                kind=kind,
                amount=money(minor_units),
                moved_at=day(at),
            )
        )

    def stock(
        self, transfer_id: str, seller: str, buyer: str, *lines: tuple[str, int, int, int], at: float = 2
    ) -> ledger_pb2.TransferStockResponse:
        """Lines are (sku, quantity, unit cost, unit price)."""
        return self.ledger.TransferStock(
            ledger_pb2.TransferStockRequest(
                program_id=self.program_id,
                transfer_id=transfer_id,
                from_member_id=seller,
                to_member_id=buyer,
                currency="GBP",
                lines=[log_pb2.StockLine(sku=s, quantity=q, unit_cost_minor=c, unit_price_minor=p) for s, q, c, p in lines],
                transferred_at=day(at),
            )
        )

    def open_balance(
        self,
        opening_id: str,
        member_id: str,
        available: int = 0,
        pending: int = 0,
        due: float = 9,
        paid: int = 0,
        debt: int = 0,
        at: float = 2,
    ) -> ledger_pb2.OpenBalanceResponse:
        return self.ledger.OpenBalance(
            ledger_pb2.OpenBalanceRequest(
                program_id=self.program_id,
                opening_id=opening_id,
                member_id=member_id,
                currency="GBP",
                available_minor=available,
                pending_minor=pending,
                pending_due_at=day(due) if pending else None,
                paid_minor=paid,
                debt_minor=debt,
                source="another mall",
                opened_at=day(at),
            )
        )

    def release(self, as_of: float = 15) -> ledger_pb2.ReleaseDueResponse:
        return self.ledger.ReleaseDue(ledger_pb2.ReleaseDueRequest(program_id=self.program_id, as_of=day(as_of)))

    def payout(self, payout_id: str, member_id: str, minor_units: int, at: float = 16) -> ledger_pb2.RequestPayoutResponse:
        return self.ledger.RequestPayout(
            ledger_pb2.RequestPayoutRequest(
                program_id=self.program_id, payout_id=payout_id, member_id=member_id, amount=money(minor_units), requested_at=day(at)
            )
        )

    def confirm(self, payout_id: str, at: float = 17) -> ledger_pb2.ConfirmPayoutResponse:
        request = ledger_pb2.ConfirmPayoutRequest(program_id=self.program_id, payout_id=payout_id, paid_at=day(at))
        return self.ledger.ConfirmPayout(request)

    def balance(self, member_id: str, **as_of: Any) -> dict[str, int]:
        """The accounts that are not zero, by name: {"available": 895, "accrued": 1345, …}."""
        request = ledger_pb2.GetBalanceRequest(program_id=self.program_id, member_id=member_id, **as_of)
        found = self.ledger.GetBalance(request).balance
        names = ("pending", "available", "reserved", "paid", "debt", "accrued", "reversed", "adjusted")
        return {name: value for name in names if (value := getattr(found, f"{name}_minor"))}

    def trial_balance(self) -> dict[str, int]:
        """{account: balance} of the whole program."""
        found = self.ledger.TrialBalance(ledger_pb2.TrialBalanceRequest(program_id=self.program_id))
        return {log_pb2.Account.Name(row.account)[8:].lower(): row.balance.minor_units for row in found.accounts}

    def board(self, board: statistics_pb2.Board.ValueType, month: str = "", **more: Any) -> list[tuple[int, str, int]]:
        """(rank, member, value) of a leaderboard that has everything committed before."""
        request = statistics_pb2.ListLeaderboardRequest(program_id=self.program_id, board=board, month=month, consistency=LATEST, **more)
        return [(place.rank, place.member_id, place.value) for place in self.statistics.ListLeaderboard(request).places]

    def figures(self, member_id: str) -> statistics_pb2.GetMemberStatisticsResponse:
        """A member's statistics that have everything committed before."""
        request = statistics_pb2.GetMemberStatisticsRequest(program_id=self.program_id, member_id=member_id, consistency=LATEST)
        return self.statistics.GetMemberStatistics(request)

    def differences(self) -> list[str]:
        """Everything a replay of the log finds wrong with the live views; empty when all is equal."""
        found = self.ops.VerifyProjections(ops_pb2.VerifyProjectionsRequest(program_id=self.program_id))
        return [
            f"{step.result.projection}: {text}" for step in found if step.WhichOneof("step") == "result" for text in step.result.differences
        ]
