"""LedgerService over gRPC: requests become commands, outcomes become replies. No rule of the books lives here."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Any

from fenrun.ledger.v1 import ledger_pb2 as pb
from fenrun.ledger.v1 import ledger_pb2_grpc
from fenrun.log.v1 import log_pb2
from fenrun.type.v1 import type_pb2

from services.kernel.decider import Entry
from services.kernel.names import nameable
from services.kernel.refusals import (
    AssetUnknown,
    Malformed,
    NoPlanInForce,
    PlanChanged,
    PlanInvalid,
    PlanUnknown,
    Refusal,
    TokenInvalid,
)
from services.kernel.times import to_text
from services.ledger import codec, sealed, simulating, statements, telling, views
from services.ledger.application import Ledger, orders_due
from services.ledger.documents import Documents, draft, simulated
from services.ledger.domain import commands as c
from services.ledger.domain import facts as f
from services.ledger.domain.books import fold_period
from services.ledger.domain.lint import Finding, beside, refusing, together
from services.ledger.domain.plan import Plan, PlanVersion
from services.ledger.domain.simulating import Report
from services.ledger.past import Sums, TrialBalances
from services.ledger.reads import Reads
from services.runtime import eventlog, tokens
from services.runtime.as_of import as_asked
from services.runtime.eventlog import Connection, Head
from services.runtime.gathering import Pace
from services.runtime.replaying import Progress, Sync, Threads
from services.runtime.serving import (
    Context,
    Told,
    actor,
    bidirectional,
    check_fresh,
    formed,
    moment,
    must_include,
    page_size,
    receipt,
    recorded,
    status_of,
    streaming,
    unary,
    validate,
    within,
)
from services.runtime.writer import Connect, Outcome, Writer

LARGEST_ADJUSTMENT = 10**15


class LedgerTransport(ledger_pb2_grpc.LedgerServiceServicer):
    def __init__(self, connect: Connect, writer: Writer, ledger: Ledger, dsn: str, stopping: asyncio.Event) -> None:
        """`stopping`: streams of orders end when it is set."""
        self.stopping = stopping
        self._connect = connect
        self._writer = writer
        self._ledger = ledger
        self._reads = Reads(connect, ledger)
        # One simulation takes a core for itself: two at once, and others wait.
        self._simulations = Threads(dsn, "fenrun-simulations", at_once=2)
        self._trial_balances = TrialBalances(dsn)
        self._documents = Documents()

    # ------------------------------------------------------------ orders

    @unary
    async def RecordOrder(self, request: pb.RecordOrderRequest, context: Context) -> pb.RecordOrderResponse:
        outcome = await self._writer.submit(request.program_id, record_order(request.order, "order."), actor(context))
        return order_response(outcome)

    @unary
    async def RecordOrders(self, request: pb.RecordOrdersRequest, context: Context) -> pb.RecordOrdersResponse:
        commands = await formed(request.orders, record_order)
        return pb.RecordOrdersResponse(results=await self._record(request.program_id, commands, actor(context)))

    @bidirectional
    async def StreamOrders(self, request: pb.StreamOrdersRequest, context: Context) -> Callable[[], Awaitable[pb.StreamOrdersResponse]]:
        commands, who = await formed(request.orders, record_order), actor(context)

        async def answer() -> pb.StreamOrdersResponse:
            return pb.StreamOrdersResponse(results=await self._record(request.program_id, commands, who))

        return answer

    async def _record(self, program_id: str, commands: Sequence[Any], who: str) -> list[Any]:
        """The fields of an OrderResult for each."""
        answers, pace, results = await recorded(self._writer, program_id, commands, who), Pace(), list[Any]()
        for answer in answers:
            await pace.step()
            results.append({"error": status_of(answer)} if isinstance(answer, Refusal) else {"recorded": recorded_order(answer)})
        return results

    @unary
    async def CompleteOrder(self, request: pb.CompleteOrderRequest, context: Context) -> pb.CompleteOrderResponse:
        outcome = await self._writer.submit(request.program_id, complete_order(request.completion, "completion."), actor(context))
        return completion_response(outcome)

    @unary
    async def RefundOrder(self, request: pb.RefundOrderRequest, context: Context) -> pb.RefundOrderResponse:
        outcome = await self._writer.submit(request.program_id, refund_order(request.refund, "refund."), actor(context))
        return refund_response(outcome)

    @unary
    async def FollowUpOrders(self, request: pb.FollowUpOrdersRequest, context: Context) -> pb.FollowUpOrdersResponse:
        commands = await formed(request.follow_ups, follow_up)
        answers = await recorded(self._writer, request.program_id, commands, actor(context))
        results = []
        for answer in answers:
            if isinstance(answer, Refusal):
                results.append(pb.FollowUpResult(error=status_of(answer)))
            elif isinstance(answer.entries[0].fact, f.OrderCompleted):
                results.append(pb.FollowUpResult(completed=receipt(answer, answer.entries[0])))
            else:
                results.append(pb.FollowUpResult(refunded=recorded_refund(answer)))
        return pb.FollowUpOrdersResponse(results=results)

    @unary
    async def ReleaseDue(self, request: pb.ReleaseDueRequest, context: Context) -> pb.ReleaseDueResponse:
        limit = request.max_orders or 100
        as_of = moment("as_of", request.as_of)
        async with self._connect() as connection:
            currency = (await eventlog.head(connection, request.program_id)).currency
        outcome = await self._writer.submit(request.program_id, c.ReleaseDue(as_of, limit), actor(context))
        async with self._connect() as connection:
            more = bool(await orders_due(connection, request.program_id, as_of, 1))
        dues = [due for entry in outcome.entries for due in entry.decision.due]
        return pb.ReleaseDueResponse(
            orders_released=len(outcome.entries),
            amount=type_pb2.Money(minor_units=-sum(due.amount_minor for due in dues if not due.asset), currency=currency),
            more=more,
            consistency_token=tokens.make(request.program_id, outcome.position),
        )

    # ------------------------------------------------------------ groups, tasks, periods

    @unary
    async def OpenGroup(self, request: pb.OpenGroupRequest, context: Context) -> pb.OpenGroupResponse:
        command = c.OpenGroup(f.GroupOpened(request.group_id, request.opener_id), moment("opened_at", request.opened_at))
        return pb.OpenGroupResponse(receipt=await self._receipt(request.program_id, command, context))

    @unary
    async def FormGroup(self, request: pb.FormGroupRequest, context: Context) -> pb.FormGroupResponse:
        command = c.FormGroup(f.GroupFormed(request.group_id), moment("formed_at", request.formed_at))
        outcome = await self._writer.submit(request.program_id, command, actor(context))
        return pb.FormGroupResponse(receipt=receipt(outcome, outcome.entries[0]), orders=len(outcome.entries) - 1)

    @unary
    async def FailGroup(self, request: pb.FailGroupRequest, context: Context) -> pb.FailGroupResponse:
        command = c.FailGroup(f.GroupFailed(request.group_id, request.reason), moment("failed_at", request.failed_at))
        outcome = await self._writer.submit(request.program_id, command, actor(context))
        voided = [entry for entry in outcome.entries if isinstance(entry.fact, f.OrderVoided)]
        corrected = [entry for entry in outcome.entries if isinstance(entry.fact, f.PeriodCorrected)]
        return pb.FailGroupResponse(
            receipt=receipt(outcome, outcome.entries[0]),
            orders=len(voided),
            reversed=_earnings(voided, -1),
            period_reversed=_earnings(corrected, -1),
        )

    @unary
    async def GetGroup(self, request: pb.GetGroupRequest, context: Context) -> pb.GetGroupResponse:
        async with self._connect() as connection, eventlog.snapshot(connection):
            await check_fresh(connection, request.program_id, request.consistency)
            return await views.group(connection, request.program_id, request.group_id)

    @unary
    async def RecordTask(self, request: pb.RecordTaskRequest, context: Context) -> pb.RecordTaskResponse:
        return task_response(await self._writer.submit(request.program_id, record_task(request), actor(context)))

    @unary
    async def ClosePeriod(self, request: pb.ClosePeriodRequest, context: Context) -> pb.ClosePeriodResponse:
        command = c.ClosePeriod(f.PeriodClosed(request.period_id), moment("closed_at", request.closed_at))
        outcome = await self._writer.submit(request.program_id, command, actor(context))
        async with self._connect() as connection:
            plans = await self._ledger.plans(connection, request.program_id)
        closed = fold_period(outcome.entries)
        assert closed is not None, "closing gives an entry"
        return pb.ClosePeriodResponse(receipt=receipt(outcome, outcome.entries[0]), rules=views.period_rules(closed, plans))

    @unary
    async def GetPeriod(self, request: pb.GetPeriodRequest, context: Context) -> pb.GetPeriodResponse:
        async with self._connect() as connection, eventlog.snapshot(connection):
            await check_fresh(connection, request.program_id, request.consistency)
            plans = await self._ledger.plans(connection, request.program_id)
            return await views.period(connection, request.program_id, request.period_id, plans)

    @unary
    async def SealBooks(self, request: pb.SealBooksRequest, context: Context) -> pb.SealBooksResponse:
        fact = f.BooksSealed(request.seal_id, moment("through", request.through), request.reason, request.sealed_by)
        outcome = await self._writer.submit(request.program_id, c.SealBooks(fact, moment("sealed_at", request.sealed_at)), actor(context))
        async with self._connect() as connection:
            found = sealed.seal_messages(await sealed.entries(connection, request.program_id))
        mine = next(one for one in found if one.period.seal_id == request.seal_id)
        return pb.SealBooksResponse(receipt=receipt(outcome, outcome.entries[0]), seal=mine)

    @unary
    async def ListSeals(self, request: pb.ListSealsRequest, context: Context) -> pb.ListSealsResponse:
        async with self._connect() as connection:
            await check_fresh(connection, request.program_id, request.consistency)
            return pb.ListSealsResponse(seals=sealed.seal_messages(await sealed.entries(connection, request.program_id)))

    @unary
    async def ListLateEntries(self, request: pb.ListLateEntriesRequest, context: Context) -> pb.ListLateEntriesResponse:
        after = 0
        if request.page_token:
            [_, _, after] = _page(request.page_token, "late", request.seal_id, int)
        async with self._connect() as connection, eventlog.snapshot(connection):
            await check_fresh(connection, request.program_id, request.consistency)
            found, last = await sealed.late(connection, request.program_id, request.seal_id, after, page_size(request.page_size))
        token = tokens.make("late", request.seal_id, last) if last else ""
        return pb.ListLateEntriesResponse(entries=found, next_page_token=token)

    # ------------------------------------------------------------ accounts apart

    @unary
    async def MoveDeposit(self, request: pb.MoveDepositRequest, context: Context) -> pb.MoveDepositResponse:
        fact = f.DepositMoved(
            request.deposit_id,
            request.member_id,
            f.DepositKind(request.kind),
            _bounded("amount", request.amount.minor_units),
            request.amount.currency,
            request.reason,
        )
        command = c.MoveDeposit(fact, moment("moved_at", request.moved_at))
        return pb.MoveDepositResponse(receipt=await self._receipt(request.program_id, command, context))

    @unary
    async def TransferStock(self, request: pb.TransferStockRequest, context: Context) -> pb.TransferStockResponse:
        fact = f.StockTransferred(
            request.transfer_id,
            request.from_member_id,
            request.to_member_id,
            request.currency,
            codec.stock_lines_of(request.lines),  # type: ignore[arg-type]  # a repeated field reads as a list
        )
        command = c.TransferStock(fact, moment("transferred_at", request.transferred_at))
        outcome = await self._writer.submit(request.program_id, command, actor(context))
        margin = sum(posting.amount_minor for posting in outcome.entries[0].decision.postings if posting.member_id)
        return pb.TransferStockResponse(
            receipt=receipt(outcome, outcome.entries[0]), margin=type_pb2.Money(minor_units=margin, currency=request.currency)
        )

    @unary
    async def OpenBalance(self, request: pb.OpenBalanceRequest, context: Context) -> pb.OpenBalanceResponse:
        return opening_response(await self._writer.submit(request.program_id, open_balance(request), actor(context)))

    # ------------------------------------------------------------ holds, payouts, adjustments

    @unary
    async def PlaceHold(self, request: pb.PlaceHoldRequest, context: Context) -> pb.PlaceHoldResponse:
        fact = f.HoldPlaced(request.hold_id, request.member_id, request.order_id, request.reason)
        command = c.PlaceHold(fact, moment("placed_at", request.placed_at))
        return pb.PlaceHoldResponse(receipt=await self._receipt(request.program_id, command, context))

    @unary
    async def LiftHold(self, request: pb.LiftHoldRequest, context: Context) -> pb.LiftHoldResponse:
        command = c.LiftHold(f.HoldLifted(request.hold_id, request.reason), moment("lifted_at", request.lifted_at))
        return pb.LiftHoldResponse(receipt=await self._receipt(request.program_id, command, context))

    @unary
    async def RequestPayout(self, request: pb.RequestPayoutRequest, context: Context) -> pb.RequestPayoutResponse:
        fact = f.PayoutRequested(request.payout_id, request.member_id, request.amount.minor_units, request.amount.currency)
        command = c.RequestPayout(fact, moment("requested_at", request.requested_at))
        return pb.RequestPayoutResponse(receipt=await self._receipt(request.program_id, command, context))

    @unary
    async def ConfirmPayout(self, request: pb.ConfirmPayoutRequest, context: Context) -> pb.ConfirmPayoutResponse:
        command = c.ConfirmPayout(f.PayoutPaid(request.payout_id, request.reference), moment("paid_at", request.paid_at))
        return pb.ConfirmPayoutResponse(receipt=await self._receipt(request.program_id, command, context))

    @unary
    async def FailPayout(self, request: pb.FailPayoutRequest, context: Context) -> pb.FailPayoutResponse:
        command = c.FailPayout(f.PayoutFailed(request.payout_id, request.reason), moment("failed_at", request.failed_at))
        return pb.FailPayoutResponse(receipt=await self._receipt(request.program_id, command, context))

    @unary
    async def PostAdjustment(self, request: pb.PostAdjustmentRequest, context: Context) -> pb.PostAdjustmentResponse:
        amount = _bounded("amount", request.amount.minor_units)
        fact = f.AdjustmentPosted(
            request.adjustment_id,
            request.member_id,
            f.AdjustmentKind(request.kind),
            amount,
            request.amount.currency,
            request.reason,
            request.requested_by,
            request.approved_by,
        )
        command = c.PostAdjustment(fact, moment("posted_at", request.posted_at))
        return pb.PostAdjustmentResponse(receipt=await self._receipt(request.program_id, command, context))

    async def _receipt(self, program_id: str, command: c.Command, context: Context) -> Any:
        outcome = await self._writer.submit(program_id, command, actor(context))
        return receipt(outcome, outcome.entries[0])

    # ------------------------------------------------------------ plans

    @unary
    async def PublishPlan(self, request: pb.PublishPlanRequest, context: Context) -> pb.PublishPlanResponse:
        published_us = moment("published_at", request.published_at)
        plan, text, hashed, findings, refused = await self._documents.run(draft, request.document, published_us)
        if request.expected_content_hash and request.expected_content_hash != hashed:
            raise PlanChanged(request.expected_content_hash.hex(), hashed.hex())
        assert plan.effective_from_us is not None, "a draft begins at some time"
        fact = f.PlanPublished(plan.plan_id, plan.version, text, plan.effective_from_us, plan.effective_until_us)
        command = c.PublishPlan(fact, published_us, linted=True, refused=refused)
        outcome = await self._writer.submit(request.program_id, command, actor(context))
        entry = outcome.entries[0]
        async with self._connect() as connection:
            plans = await self._ledger.plans(connection, request.program_id)
        findings = together(findings, beside(plan, _before(plans, plan)))
        return pb.PublishPlanResponse(
            receipt=receipt(outcome, entry),
            plan_id=plan.plan_id,
            version=plan.version,
            content_hash=entry.decision.content_hash,
            # Errors are not among them: what is published already is answered whatever the linter has learned since.
            findings=[finding_message(finding) for finding in findings if finding.severity == "warning"],
        )

    @streaming
    async def SimulatePlan(self, request: pb.SimulatePlanRequest, context: Context) -> AsyncIterator[pb.SimulatePlanResponse]:
        plan = await self._documents.run(simulated, request.document)
        from_us, to_us = _span(request)

        def work(connection: Sync, progress: Callable[[int, int], None]) -> Report:
            return simulating.simulate(connection, request.program_id, plan, from_us, to_us, progress)

        async with contextlib.aclosing(self._simulations.follow(work)) as steps:
            async for step in steps:
                if isinstance(step, Progress):
                    yield pb.SimulatePlanResponse(progress=pb.SimulationProgress(position=step.position, head_position=step.head_position))
                    continue
                for total in step.totals:
                    yield pb.SimulatePlanResponse(total=pb.SimulationTotal(**total._asdict()))
                for row in step.by_rule:
                    yield pb.SimulatePlanResponse(by_rule=pb.SimulationRow(**row._asdict()))
                for row in step.by_member:
                    yield pb.SimulatePlanResponse(by_member=pb.SimulationRow(**row._asdict()))

    @unary
    async def ValidatePlan(self, request: pb.ValidatePlanRequest, context: Context) -> pb.ValidatePlanResponse:
        async with self._connect() as connection:
            await eventlog.head(connection, request.program_id)
            plans = await self._ledger.plans(connection, request.program_id)
        return await self._documents.run(validated, request.document, plans)

    @unary
    async def GetPlan(self, request: pb.GetPlanRequest, context: Context) -> pb.GetPlanResponse:
        async with self._connect() as connection:
            await eventlog.head(connection, request.program_id)
            version = _chosen(await self._ledger.plans(connection, request.program_id), request)
            [stored] = await eventlog.at(connection, request.program_id, [version.position])
        return pb.GetPlanResponse(
            plan=log_pb2.PlanPublished.FromString(stored.fact), position=version.position, content_hash=version.content_hash
        )

    # ------------------------------------------------------------ reads

    @unary
    async def GetOrder(self, request: pb.GetOrderRequest, context: Context) -> pb.GetOrderResponse:
        found = await self._reads.order(request.program_id, request.order_id)
        must_include(request.program_id, request.consistency, found.head_position)
        return views.order(request.order_id, found.entries, found.plans)

    @unary
    async def GetBalance(self, request: pb.GetBalanceRequest, context: Context) -> pb.GetBalanceResponse:
        if request.WhichOneof("as_of") is None and not request.HasField("occurred_at"):
            held = await self._reads.balance(request.program_id, request.member_id, request.asset)
            must_include(request.program_id, request.consistency, held.head_position)
            if request.asset not in ("", held.currency):
                async with self._connect() as connection:
                    await self._asset(connection, await eventlog.head(connection, request.program_id), request.asset)
            balance = held.message(request.member_id, request.asset or held.currency)
            return pb.GetBalanceResponse(balance=balance, as_of_position=held.head_position)
        async with self._connect() as connection:
            now = await check_fresh(connection, request.program_id, request.consistency)
            at = await as_asked(connection, now, request)
            asset = await self._asset(connection, now, request.asset)
            found = await views.balance(connection, request.program_id, request.member_id, asset, at)
        return pb.GetBalanceResponse(balance=found, as_of_position=at.position)

    @unary
    async def ListPostings(self, request: pb.ListPostingsRequest, context: Context) -> pb.ListPostingsResponse:
        after = 0
        if request.page_token:
            [_, _, after] = _page(request.page_token, "postings", request.member_id, int)
        async with self._connect() as connection:
            now = await check_fresh(connection, request.program_id, request.consistency)
            await views.require_member(connection, request.program_id, request.member_id)
            assets = await self._assets(connection, now)
            limit = page_size(request.page_size)
            found, last = await views.postings(connection, request.program_id, request.member_id, assets, after, limit)
        token = tokens.make("postings", request.member_id, last) if last else ""
        return pb.ListPostingsResponse(postings=found, next_page_token=token)

    @streaming
    async def GetStatement(self, request: pb.GetStatementRequest, context: Context) -> AsyncIterator[pb.GetStatementResponse]:
        from_us, to_us = _span(request)
        async with self._connect() as connection:
            now = await check_fresh(connection, request.program_id, request.consistency)
            plans = await self._ledger.plans(connection, request.program_id)
            assets = await self._assets(connection, now)
            after = 0 if from_us is None else await eventlog.position_at(connection, request.program_id, from_us - 1)
            last = now.position if to_us is None else await eventlog.position_at(connection, request.program_id, to_us - 1)
        span = (min(after, last), last)
        async with contextlib.aclosing(
            statements.statement(self._connect, request.program_id, assets, request.member_id, *span, plans)
        ) as parts:
            async for part in parts:
                yield part

    @unary
    async def Explain(self, request: pb.ExplainRequest, context: Context) -> pb.ExplainResponse:
        position = int(request.posting_id.partition(".")[0])
        # Before it is asked for together with others, who would be asked again each by themselves.
        if position > views.LAST_POSITION:
            raise Malformed("posting_id", f"posting_id: position {position} is beyond {views.LAST_POSITION}")
        found = await self._reads.history(request.program_id, position)
        return views.explain(request.posting_id, found.entries, found.previous_hash, found.seals, found.plans)

    @unary
    async def TrialBalance(self, request: pb.TrialBalanceRequest, context: Context) -> pb.TrialBalanceResponse:
        async with self._connect() as connection, eventlog.snapshot(connection):
            now = await check_fresh(connection, request.program_id, request.consistency)
            at = await as_asked(connection, now, request)
            asset = await self._asset(connection, now, request.asset)
            sums: Sums = {} if at.occurred_us is not None else await views.trial_balance(connection, request.program_id, asset)
        if at.asked:
            sums = await self._trial_balances.at(request.program_id, asset, at, now.position, sums)
        return pb.TrialBalanceResponse(accounts=views.account_balances(sums, asset), position=at.position)

    @unary
    async def ListBalances(self, request: pb.ListBalancesRequest, context: Context) -> pb.ListBalancesResponse:
        limit = page_size(request.page_size)
        async with self._connect() as connection, eventlog.snapshot(connection):
            now = await check_fresh(connection, request.program_id, request.consistency)
            at = await as_asked(connection, now, request)
            after = ""
            if request.page_token:
                [_, _, position, after] = _page(request.page_token, "balances", at.asked, int, str)
                # All pages of the past are of one position.
                at = at._replace(position=within(position, now.position)) if at.asked else at
            asset = await self._asset(connection, now, request.asset)
            found = await views.balances(connection, request.program_id, asset, at, after, limit)
        token = tokens.make("balances", at.asked, at.position, found[-1].member_id) if len(found) == limit else ""
        return pb.ListBalancesResponse(balances=found, next_page_token=token, position=at.position)

    async def _asset(self, connection: Connection, head: Head, asked: str) -> str:
        """The asset a read is about; the program's currency where none is named. Raises AssetUnknown."""
        if asked in ("", head.currency):
            return head.currency
        known = await self._assets(connection, head)
        if asked not in known:
            raise AssetUnknown(asked, known)
        return asked

    async def _assets(self, connection: Connection, head: Head) -> list[str]:
        """The program's currency and every kind of points that any version of the plan names."""
        plans = await self._ledger.plans(connection, head.program_id)
        return [head.currency, *dict.fromkeys(name for version in plans for name in version.plan.points)]


def _span(request: Any) -> tuple[int | None, int | None]:
    """(from, to) of a request for a span of time; None: open. Raises Malformed."""
    from_us = moment("from", getattr(request, "from")) if request.HasField("from") else None
    to_us = moment("to", request.to) if request.HasField("to") else None
    if from_us is not None and to_us is not None and to_us <= from_us:
        raise Malformed("to", f"to, {to_text(to_us)}, is not after from, {to_text(from_us)}")
    return from_us, to_us


def _bounded(field: str, amount: int) -> int:
    if abs(amount) > LARGEST_ADJUSTMENT:
        raise Malformed(field, f"{field} is beyond {LARGEST_ADJUSTMENT} minor units")
    return amount


def _page(token: str, call: str, about: str, *kinds: type) -> Any:
    found = tokens.parts(token, "page_token", (str, str, *kinds))
    if found[:2] != (call, about):
        raise TokenInvalid("page_token")
    return found


def _chosen(plans: Sequence[PlanVersion], request: pb.GetPlanRequest) -> PlanVersion:
    match request.WhichOneof("which"):
        case "position":
            found = next((version for version in plans if version.position == request.position), None)
            problem = f"no plan version was published at position {request.position}"
        case "in_force_at":
            at_us = moment("in_force_at", request.in_force_at)
            found = next((version for version in reversed(plans) if version.in_force(at_us)), None)
            problem = str(NoPlanInForce(to_text(at_us)))
        case _:
            plan_id = request.latest_of_plan_id
            found = next((version for version in reversed(plans) if plan_id in ("", version.plan.plan_id)), None)
            problem = f"no plan {plan_id!r} was published" if plan_id else "no plan was published"
    if found is None:
        raise PlanUnknown(problem, request.latest_of_plan_id)
    return found


def validated(document: str, plans: Sequence[PlanVersion]) -> pb.ValidatePlanResponse:
    """What there is to say of a draft beside the versions published already. Raises PlanInvalid."""
    # A plan that says no beginning would begin when it is published: now.
    plan, _, hashed, alone, refused = draft(document, time.time_ns() // 1000)
    earlier = _before(plans, plan)
    # What is published already is never refused.
    published = len(earlier) < len(plans)
    if isinstance(refused, PlanInvalid) and not published:
        raise refused
    findings = together(alone, beside(plan, earlier))
    return pb.ValidatePlanResponse(
        plan_id=plan.plan_id,
        version=plan.version,
        content_hash=hashed,
        findings=[finding_message(finding) for finding in findings],
        publishable=published or refusing(findings) is None,
        sentences=telling.tell(plan),
    )


def _before(plans: Sequence[PlanVersion], plan: Plan) -> Sequence[PlanVersion]:
    """The versions published before this one: all of them, unless it is published already."""
    own = next((at for at, one in enumerate(plans) if (one.plan.plan_id, one.plan.version) == (plan.plan_id, plan.version)), len(plans))
    return plans[:own]


# ---------------------------------------------------------------- requests to commands


def record_order(order: pb.Order, prefix: str = "") -> c.RecordOrder:
    if not prefix:
        validate(order)
    lines = codec.lines_of(order.lines)  # type: ignore[arg-type]  # a repeated field reads as a list
    attributions = codec.attributions_of(order.attributions)  # type: ignore[arg-type]
    for place, named in (("", attributions), *((f"lines[{n}].", line.attributions) for n, line in enumerate(lines) if line.attributions)):
        for number, one in enumerate(named):
            if bool(one.member_id) == bool(one.scope):
                where = f"{prefix}{place}attributions[{number}]"
                raise Malformed(where, f"{where} names either a member_id or a scope")
    fact = f.OrderPaid(order.order_id, order.member_id, order.currency, lines, attributions, order.group_id, order.referrer_id)
    return c.RecordOrder(fact, moment(f"{prefix}paid_at", order.paid_at))


def complete_order(completion: pb.Completion, prefix: str = "") -> c.CompleteOrder:
    return c.CompleteOrder(f.OrderCompleted(completion.order_id), moment(f"{prefix}completed_at", completion.completed_at))


def refund_order(refund: pb.Refund, prefix: str = "") -> c.RefundOrder:
    fact = f.OrderRefunded(refund.refund_id, refund.order_id, codec.refund_lines_of(refund.lines))  # type: ignore[arg-type]
    return c.RefundOrder(fact, moment(f"{prefix}refunded_at", refund.refunded_at))


def follow_up(told: pb.FollowUp) -> c.CompleteOrder | c.RefundOrder:
    validate(told)
    if told.WhichOneof("follow_up") == "completion":
        return complete_order(told.completion)
    return refund_order(told.refund)


def record_task(request: pb.RecordTaskRequest) -> c.RecordTask:
    if not nameable(request.task):
        raise Malformed("task", f"task: {request.task!r} must be 1 to 100 printable characters without space, so that a plan can name it")
    return c.RecordTask(f.TaskDone(request.task_id, request.member_id, request.task), moment("done_at", request.done_at))


def open_balance(request: pb.OpenBalanceRequest) -> c.OpenBalance:
    fact = f.BalanceOpened(
        request.opening_id,
        request.member_id,
        request.currency,
        request.available_minor,
        request.pending_minor,
        moment("pending_due_at", request.pending_due_at) if request.HasField("pending_due_at") else None,
        request.paid_minor,
        request.debt_minor,
        request.source,
    )
    return c.OpenBalance(fact, moment("opened_at", request.opened_at))


# ---------------------------------------------------------------- outcomes to replies


SEVERITIES = {"error": pb.PlanFinding.SEVERITY_ERROR, "warning": pb.PlanFinding.SEVERITY_WARNING}


def finding_message(finding: Finding) -> pb.PlanFinding:
    return pb.PlanFinding(
        severity=SEVERITIES[finding.severity], rule=finding.rule, path=finding.path, problem=finding.problem, source=finding.source
    )


def recorded_order(outcome: Outcome) -> Any:
    """The fields of a RecordedOrder."""
    entry = outcome.entries[0]
    asset, decision = entry.fact.currency, entry.decision
    left = {name: amount for account, _, amount, name in decision.postings if account is f.Account.BREAKAGE}
    fields = {
        "receipt": receipt(outcome, entry),
        "earnings": _earnings([entry], 1),
        "breakage": {"minor_units": left.pop(asset, 0), "currency": asset},
    }
    if decision.binding_locked:
        fields["binding_locked"] = decision.binding_locked._asdict()
    if decision.tier_changes:
        fields["tier_changes"] = codec.tier_changes_of(decision.tier_changes)
    if left:
        fields["points_breakage"] = [{"minor_units": amount, "currency": points} for points, amount in left.items()]
    return fields


def recorded_refund(outcome: Outcome) -> pb.RecordedRefund:
    entry = outcome.entries[0]
    return pb.RecordedRefund(
        receipt=receipt(outcome, entry),
        reversed=_earnings([entry], -1),
        tier_changes=codec.tier_changes_of(entry.decision.tier_changes),
        period_reversed=_earnings(outcome.entries[1:], -1),
    )


def _earnings(entries: Iterable[Entry], sign: int) -> list[Any]:
    """The fields of Earning: what the members' postings come to, each times `sign`."""
    sums: dict[tuple[str, str], int] = {}
    for entry in entries:
        for _, member_id, amount, asset in entry.decision.postings:
            if member_id:
                key = (member_id, asset)
                sums[key] = sums.get(key, 0) + amount
    return [
        {"member_id": member_id, "amount": {"minor_units": sign * amount, "currency": asset}}
        for (member_id, asset), amount in sums.items()
        if amount
    ]


def order_response(outcome: Outcome) -> pb.RecordOrderResponse:
    return pb.RecordOrderResponse(recorded=recorded_order(outcome))


def completion_response(outcome: Outcome) -> pb.CompleteOrderResponse:
    return pb.CompleteOrderResponse(receipt=receipt(outcome, outcome.entries[0]))


def refund_response(outcome: Outcome) -> pb.RefundOrderResponse:
    return pb.RefundOrderResponse(recorded=recorded_refund(outcome))


def task_response(outcome: Outcome) -> pb.RecordTaskResponse:
    return pb.RecordTaskResponse(receipt=receipt(outcome, outcome.entries[0]), earnings=_earnings(outcome.entries, 1))


def opening_response(outcome: Outcome) -> pb.OpenBalanceResponse:
    return pb.OpenBalanceResponse(receipt=receipt(outcome, outcome.entries[0]))


# What the ledger takes in bulk, by the name the contract gives it.
FACTS = {
    "record_order": Told(lambda request: record_order(request.order, "record_order.order."), order_response),
    "complete_order": Told(lambda request: complete_order(request.completion, "complete_order.completion."), completion_response),
    "refund_order": Told(lambda request: refund_order(request.refund, "refund_order.refund."), refund_response),
    "record_task": Told(record_task, task_response),
    "open_balance": Told(open_balance, opening_response),
}
