"""The third reading: the streams of the chosen postings, and why each has its amount, by the rules' own engine and words."""

from collections.abc import Iterable, Sequence
from typing import Any

from fenrun.ledger.v1 import ledger_pb2
from fenrun.log.v1 import log_pb2 as pb

from services.auditor.report.sampling import Chosen
from services.auditor.report.surveying import CannotReport, Survey
from services.kernel.decider import Entry
from services.kernel.times import to_text
from services.ledger import codec
from services.ledger.domain import facts as f
from services.ledger.explaining import explain
from services.runtime.stored import Stored, microseconds

# Shares of one posting that are shown: a closed period may have one for everybody.
SHARES = 40
# What entries that only move money say about themselves: the fields of the fact, in the order shown.
TOLD: dict[type, tuple[str, ...]] = {
    f.OrderReleased: ("order_id",),
    f.RewardReleased: ("source",),
    f.PayoutRequested: ("payout_id", "member_id"),
    f.PayoutPaid: ("payout_id", "reference"),
    f.PayoutFailed: ("payout_id", "reason"),
    f.AdjustmentPosted: ("adjustment_id", "reason", "requested_by", "approved_by"),
    f.DepositMoved: ("deposit_id", "reason"),
    f.StockTransferred: ("transfer_id", "from_member_id", "to_member_id"),
    f.BalanceOpened: ("opening_id", "source"),
    f.OrderPaid: ("order_id", "member_id"),
    f.OrderRefunded: ("refund_id", "order_id"),
    f.OrderVoided: ("order_id", "group_id"),
    f.TaskDone: ("task_id", "member_id", "task"),
    f.PeriodClosed: ("period_id",),
    f.PeriodCorrected: ("period_id", "order_id", "refund_id"),
}


def explanations(entries: Iterable[pb.Entry], chosen: Sequence[Chosen], survey: Survey) -> list[dict[str, Any]]:
    """One for each chosen posting, as plain values. Raises CannotReport."""
    wanted = {one.stream for one in chosen}
    upto = chosen[-1].position if chosen else 0
    streams: dict[str, list[Entry]] = {stream: [] for stream in wanted}
    types: dict[int, str] = {}
    for entry in entries:
        if entry.position > upto:
            break
        if entry.stream in wanted:
            streams[entry.stream].append(codec.read(_stored(entry)))
            types[entry.position] = entry.type
    found = []
    for one in chosen:
        stream = streams[one.stream]
        at = next(index for index, entry in enumerate(stream) if entry.position == one.position)
        try:
            answer = explain(stream[at], one.number, stream[:at], survey.plans).message()
        except Exception as problem:  # forged entries may contradict each other in any way
            raise CannotReport(f"posting {one.position}.{one.number} cannot be explained: {type(problem).__name__}: {problem}") from None
        found.append(_told(stream[at], types[one.position], one.number, answer))
    return found


def _stored(entry: pb.Entry) -> Stored:
    occurred_us, recorded_us = microseconds(entry.occurred_at), microseconds(entry.recorded_at)
    numbers = (entry.program_id, entry.position, entry.stream, entry.stream_version, entry.type, None, occurred_us, recorded_us)
    return Stored(*numbers, entry.actor, entry.fact, entry.decision, entry.hash)


def _told(entry: Entry, type_name: str, number: int, answer: ledger_pb2.ExplainResponse) -> dict[str, Any]:
    posting = answer.posting
    shares = [_share(share) for share in answer.shares[:SHARES]]
    plan = {"plan_id": answer.plan.plan_id, "version": answer.plan.version, "position": answer.plan.position}
    return {
        "posting": f"{entry.position}.{number}",
        "type": type_name,
        "stream": entry.stream,
        "occurred_at": to_text(entry.occurred_us),
        "account": pb.Account.Name(posting.account).removeprefix("ACCOUNT_").lower(),
        "member_id": posting.member_id,
        "amount_minor": posting.amount_minor,
        "asset": posting.asset,
        "told": {name: getattr(entry.fact, name) for name in TOLD.get(type(entry.fact), ()) if getattr(entry.fact, name)},
        "lines": _lines(entry.fact),
        "plan": plan if answer.HasField("plan") else None,
        "people": [_person(person) for person in answer.people[:SHARES]],
        "shares": shares,
        "shares_left_out": len(answer.shares) - len(shares),
        "due": [
            {"due_at": to_text(due.due_us), "amount_minor": -due.amount_minor}
            for due in getattr(entry.decision, "due", ())
            if isinstance(entry.fact, f.OrderReleased | f.RewardReleased)
            and due.member_id == posting.member_id
            and due.asset in ("", posting.asset)
        ],
        "moved": [
            {"account": one.account.name.lower(), "amount_minor": one.amount_minor}
            for one in entry.decision.postings
            if one.member_id == posting.member_id and one.asset == posting.asset
        ],
        "because_of": list(answer.because_of),
        "sentences": list(answer.sentences),
    }


def _lines(fact: Any) -> list[dict[str, Any]]:
    """The lines of an order or a refund that the shares are of."""
    if isinstance(fact, f.OrderPaid):
        found = fact.lines[:SHARES]
        return [{"line_no": one.line_no, "base_minor": one.base_minor, "quantity": one.quantity, "sku": one.sku} for one in found]
    if isinstance(fact, f.OrderRefunded):
        return [{"line_no": one.line_no, "base_minor": one.base_minor, "quantity": one.quantity, "sku": ""} for one in fact.lines[:SHARES]]
    return []


def _person(person: pb.Person) -> dict[str, Any]:
    return {
        "member_id": person.member_id,
        "tier": person.tier,
        "tier_position": person.tier_position,
        "role": person.role,
        "binding_position": person.binding_position,
        "role_position": person.role_position,
    }


def _share(share: ledger_pb2.ExplainedShare) -> dict[str, Any]:
    return {
        "line_no": share.line_no,
        "rule_id": share.rule_id,
        "kind": share.kind,
        "member_id": share.member_id,
        "tier": share.tier,
        "rate": share.rate,
        "base_minor": share.base_minor,
        "exact_minor": share.exact_minor,
        "rounding": share.rounding,
        "pool_minor": share.pool_minor,
        "entitled_before_minor": share.entitled_before_minor,
        "entitled_after_minor": share.entitled_after_minor,
        "amount_minor": share.amount_minor,
    }
