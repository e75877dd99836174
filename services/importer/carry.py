"""Carries a mall over: enrolments, bindings, tiers and opening balances as facts, in order of time, and the report beside them.

No order of the mall is told again: what it earned stands in the balances. Those are the mall's own, whatever the report says of them, and
are opened at one instant, that of the export. An opening belongs to one export: with another one's figures it is refused, never added.
"""

import csv
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta, timezone
from enum import IntEnum
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import grpc
from fenrun.ledger.v1 import ledger_pb2 as ledger
from fenrun.log.v1 import log_pb2 as log
from fenrun.ops.v1 import ops_pb2 as ops
from fenrun.referral.v1 import referral_pb2 as referral

from services.console.client import Connection, Failed
from services.importer import crmeb, yudao
from services.importer.checks import Check, audit, frozen_figure, referrers
from services.importer.exports import Entry, Mall, Member
from services.importer.files import timestamp
from services.importer.run import BATCH_FACTS, Answer, Count, Sender
from services.kernel.times import to_text
from services.runtime.currency import exponent, to_major

FORMATS = {"crmeb": crmeb.load, "yudao": yudao.load}
CHINA = timezone(timedelta(hours=8))
ACCOUNTS = ("available", "pending", "paid", "debt")
REPORT_COLUMNS = ("check", "member_id", "own_minor", "rows_minor", "difference_minor", "file", "line", "what")
REJECTED_COLUMNS = ("file", "line", "id", "reason", "message")


class Step(IntEnum):
    """Kinds of facts, in the order in which those of one instant apply."""

    MEMBER = 0
    TOUCH = 1
    UPGRADE = 2
    OPENING = 3
    # What is frozen until another day than the first: goes in only if the member's first opening did.
    FURTHER = 4


@dataclass(frozen=True)
class Tiers:
    """Which tiers members get: by their level there, else by their right to sell, else because they are bound."""

    bound: str = ""
    promoter: str = ""
    levels: Mapping[str, str] = field(default_factory=dict)

    def of(self, member: Member, bound: bool) -> str:
        """ "": none, and the binding stays open."""
        by_level = self.levels.get(member.level, "") if member.level else ""
        return by_level or (self.promoter if member.promoter else "") or (self.bound if bound else "")

    def named(self) -> list[str]:
        return sorted({*self.levels.values(), self.promoter, self.bound} - {""})


class Fact(NamedTuple):
    """A fact about to be sent, and the row it was told in. `message` lacks the program and its currency."""

    at_us: int
    step: Step
    member: str
    line: int
    message: Any
    file: str


class Opening(NamedTuple):
    """What a member has. `pending`: (until when, how much), earliest first. Amounts are never negative."""

    available_minor: int
    pending: tuple[tuple[int, int], ...]
    paid_minor: int
    debt_minor: int


# ---------------------------------------------------------------- facts


def openings(mall: Mall) -> dict[str, Opening]:
    """Of every member who has, had or owes anything."""
    frozen: dict[str, list[Entry]] = defaultdict(list)
    paid: dict[str, int] = defaultdict(int)
    for entry in mall.entries:
        if entry.due_us is not None:
            frozen[entry.member].append(entry)
        if entry.beside:
            paid[entry.member] -= entry.amount_minor
    for withdrawal in mall.withdrawals:
        if withdrawal.state == "paid":
            paid[withdrawal.member] += withdrawal.amount_minor
    found = {member.id: _opening(mall, member, frozen[member.id], paid[member.id]) for member in mall.members.values()}
    return {id: one for id, one in found.items() if one.available_minor or one.pending or one.paid_minor or one.debt_minor}


def _opening(mall: Mall, member: Member, frozen: list[Entry], paid_minor: int) -> Opening:
    pending = frozen_figure(mall, member, sum(entry.amount_minor for entry in frozen))
    available = member.balance_minor - (pending if mall.frozen_within else 0)
    if pending < 0:  # more was taken out of what is frozen than was in it
        available, pending = available + pending, 0
    return Opening(max(available, 0), tuple(_due(frozen, pending, mall.as_of_us)), max(paid_minor, 0), max(-available, 0))


def _due(frozen: Sequence[Entry], pending_minor: int, as_of_us: int) -> Iterator[tuple[int, int]]:
    """Spreads the frozen figure over the rows' days, earliest first; what no row explains is due on the last of them."""
    by_day: dict[int, int] = defaultdict(int)
    for entry in frozen:
        by_day[max(entry.due_us or as_of_us, as_of_us)] += entry.amount_minor
    left = pending_minor
    days = sorted(by_day) or [as_of_us]
    for due_us in days:
        part = left if due_us == days[-1] else min(max(by_day[due_us], 0), left)
        left -= part
        if part:
            yield due_us, part


def facts(mall: Mall, tiers: Tiers) -> list[Fact]:
    """Everything that goes in, by time; those of one instant by kind and member."""
    above, _ = referrers(mall)
    found = [*_members(mall, above), *_upgrades(mall, above, tiers), *_openings(mall)]
    return sorted(found, key=lambda fact: (fact.at_us, fact.step))


def _enrolled_us(mall: Mall, member: Member) -> int:
    return member.enrolled_us or mall.first_us


def _members(mall: Mall, above: Mapping[str, str]) -> Iterator[Fact]:
    """A binding that began with the enrolment goes in with it; one that began later is a touch of its own time."""
    there: set[str] = set()
    later: list[Member] = []
    for member in sorted(mall.members.values(), key=lambda one: (_enrolled_us(mall, one), int(one.id))):
        at_us = _enrolled_us(mall, member)
        referrer = above.get(member.id, "")
        if referrer and (referrer not in there or (member.bound_us or 0) > at_us):
            later.append(member)
            referrer = ""
        told = referral.EnrollMemberRequest(member_id=member.id, referrer_id=referrer, enrolled_at=timestamp(at_us))
        yield Fact(at_us, Step.MEMBER, member.id, member.line, told, _file(mall, member))
        there.add(member.id)
    for member in later:
        referrer = above[member.id]
        at_us = max(member.bound_us or 0, _enrolled_us(mall, member), _enrolled_us(mall, mall.members[referrer]))
        touch = referral.RecordTouchRequest(
            touch_id=f"{mall.name}-{member.id}",
            member_id=member.id,
            referrer_id=referrer,
            touched_at=timestamp(at_us),
            channel=f"import {mall.name}",
        )
        yield Fact(at_us, Step.TOUCH, member.id, member.line, touch, _file(mall, member))


def _upgrades(mall: Mall, above: Mapping[str, str], tiers: Tiers) -> Iterator[Fact]:
    """Tiers lock bindings; both are carried over as the export has them, at its instant."""
    for member in mall.members.values():
        paid_us = mall.paid_us.get(member.id)
        tier = tiers.of(member, bound=member.id in above or paid_us is not None)
        if not tier:
            continue
        told = [
            f"{mall.edition} {member.id}",
            f"level {member.level}" if member.level else "",
            "may sell" if member.promoter else "",
            f"bound to {above[member.id]}" if member.id in above else "",
            f"since {to_text(member.bound_us)}" if member.id in above and member.bound_us else "",
            f"first paid order {to_text(paid_us)}" if paid_us is not None else "",
        ]
        upgrade = referral.UpgradeMemberRequest(
            upgrade_id=f"{mall.name}-{member.id}",
            member_id=member.id,
            tier=tier,
            upgraded_at=timestamp(mall.as_of_us),
            evidence=log.Evidence(kind=log.EVIDENCE_KIND_IMPORT, note=", ".join(part for part in told if part)),
        )
        yield Fact(mall.as_of_us, Step.UPGRADE, member.id, member.line, upgrade, _file(mall, member))


def _openings(mall: Mall) -> Iterator[Fact]:
    source = f"{mall.edition}, as of {to_text(mall.as_of_us)}"
    for id, opening in openings(mall).items():
        member, parts = mall.members[id], opening.pending or ((None, 0),)
        frozen = to_major(sum(amount for _, amount in parts), "CNY")
        for number, (due_us, pending) in enumerate(parts, 1):
            told = ledger.OpenBalanceRequest(
                opening_id=f"{mall.name}-{id}" if number == 1 else f"{mall.name}-{id}-{number}",
                member_id=id,
                pending_minor=pending,
                pending_due_at=timestamp(due_us) if due_us is not None else None,
                # The first part tells of all, so that it is refused where there are others than before.
                source=source if len(parts) == 1 else f"{source}; part {number} of {len(parts)}, {frozen} frozen in all",
                opened_at=timestamp(mall.as_of_us),
            )
            if number == 1:
                told.available_minor, told.paid_minor, told.debt_minor = opening.available_minor, opening.paid_minor, opening.debt_minor
            yield Fact(mall.as_of_us, Step.OPENING if number == 1 else Step.FURTHER, id, member.line, told, _file(mall, member))


def _file(mall: Mall, member: Member) -> str:
    return member.file or mall.files["members"]


def batches(stream: Iterable[Fact]) -> Iterator[list[Fact]]:
    """The facts in their order. A further opening never goes with a first one: whether it may be sent shows only then."""
    batch: list[Fact] = []
    for fact in stream:
        if batch and (len(batch) >= BATCH_FACTS or (fact.step is Step.FURTHER) != (batch[-1].step is Step.FURTHER)):
            yield batch
            batch = []
        batch.append(fact)
    if batch:
        yield batch


# ---------------------------------------------------------------- the report


def write_report(path: Path, checks: Iterable[Check]) -> None:
    """report.csv: a row for every finding. Raises Failed when it cannot be written."""
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            out = csv.writer(file)
            out.writerow(REPORT_COLUMNS)
            for check in checks:
                for one in check.findings:
                    difference = difference_of(one.own_minor, one.rows_minor)
                    out.writerow((one.check, one.member, one.own_minor, one.rows_minor, difference, one.file, one.line or None, one.what))
    except OSError as problem:
        raise Failed(f"cannot write {path}: {problem.strerror}") from problem


def difference_of(own_minor: int | None, rows_minor: int | None) -> int | None:
    """The mall's figure less what its rows come to; one that is not there is nothing to differ from."""
    return None if own_minor is None or rows_minor is None else own_minor - rows_minor


# ---------------------------------------------------------------- the whole import


@dataclass(frozen=True)
class Job:
    """What `fenrun import --format` was asked for."""

    directory: Path
    format: str
    program: str
    rejected: Path
    report: Path
    offset: timezone = CHINA
    as_of_us: int | None = None
    tiers: Tiers = field(default_factory=Tiers)
    currency: str | None = None
    plan: str | None = None
    retry_for_s: float = 30


@dataclass
class Summary:
    mall: Mall
    checks: list[Check]
    counts: dict[Step, Count]
    rejected_rows: int = 0
    # Amounts of openings that stayed out, by account.
    stayed_out: dict[str, int] = field(default_factory=lambda: dict.fromkeys(ACCOUNTS, 0))

    def unmapped(self, tiers: Tiers) -> dict[str, int]:
        """Levels that members have there and no tier was given for, and of how many members."""
        levels = Counter(member.level for member in self.mall.members.values() if member.level and member.level not in tiers.levels)
        return dict(sorted(levels.items(), key=lambda one: int(one[0])))

    def carried(self) -> dict[str, int]:
        """By account, what went in; or would, before anything was sent."""
        found = {name: -amount for name, amount in self.stayed_out.items()}
        for one in openings(self.mall).values():
            parts = (one.available_minor, sum(amount for _, amount in one.pending), one.paid_minor, one.debt_minor)
            for name, amount in zip(ACCOUNTS, parts, strict=True):
                found[name] += amount
        return found


def look(job: Job) -> Summary:
    """Reads and checks the export, and writes the report; sends nothing. Raises Unreadable, Failed."""
    mall = FORMATS[job.format](job.directory, job.offset, job.as_of_us)
    checks = audit(mall)
    write_report(job.report, checks)
    return Summary(mall, checks, {step: Count() for step in Step})


def run(connection: Connection, job: Job, advance: Callable[[int, int], None]) -> Summary:
    """Sends everything once. Raises Unreadable before anything is sent, Failed when the server refuses or stays away."""
    summary = look(job)
    mall = summary.mall
    told = facts(mall, job.tiers)
    sender = Sender(connection, job.program, job.retry_for_s)
    sender.prepare(job.currency, job.plan, mall.first_us)
    if exponent(sender.currency) != 2:
        raise Failed(
            f"amounts of {mall.edition} are hundredths, and {sender.currency} has none; the program must be in CNY, or in its like"
        )
    if job.tiers.named():
        _know_tiers(sender, job.tiers, mall.as_of_us)
    done = 0
    without: dict[str, str] = {}
    with _opened(job.rejected) as file:
        out = csv.writer(file)
        out.writerow(REJECTED_COLUMNS)
        for batch in batches(told):
            # What is left of a member's balance stays out with the first part of it.
            held = [fact for fact in batch if fact.step is Step.FURTHER and fact.member in without]
            going = [fact for fact in batch if fact.step is not Step.FURTHER or fact.member not in without]
            answers = sender.patiently(partial(_send, sender, going)) if going else []
            refused = [Answer(reason=without[fact.member], message="the first opening of this member stayed out") for fact in held]
            for fact, answer in zip([*going, *held], [*answers, *refused], strict=True):
                _count(summary, out, fact, answer)
                if fact.step is Step.OPENING and answer.reason:
                    without[fact.member] = answer.reason
            done += len(batch)
            advance(done, len(told))
    return summary


def _opened(path: Path) -> Any:
    try:
        return path.open("w", newline="", encoding="utf-8")
    except OSError as problem:
        raise Failed(f"cannot write {path}: {problem.strerror}; name another with --rejected") from problem


def _count(summary: Summary, out: Any, fact: Fact, answer: Answer) -> None:
    count = summary.counts[fact.step]
    count.sent += 1
    if answer.reason:
        count.rejected.add(fact.member)
        summary.rejected_rows += 1
        if fact.step in (Step.OPENING, Step.FURTHER):
            for name in ACCOUNTS:
                summary.stayed_out[name] += getattr(fact.message, f"{name}_minor")
        out.writerow((fact.file, fact.line, fact.member, answer.reason, f"{fact.step.name.lower()}: {answer.message}"))
    elif answer.already:
        count.already_recorded += 1
    else:
        count.recorded += 1


def _send(sender: Sender, batch: Sequence[Fact]) -> list[Answer]:
    request = ops.RecordFactsRequest(program_id=sender.program)
    for fact in batch:
        told = request.facts.add()
        match fact.step:
            case Step.MEMBER:
                told.enroll_member.CopyFrom(fact.message)
            case Step.TOUCH:
                told.record_touch.CopyFrom(fact.message)
            case Step.UPGRADE:
                told.upgrade_member.CopyFrom(fact.message)
            case Step.OPENING | Step.FURTHER:
                told.open_balance.CopyFrom(fact.message)
                told.open_balance.currency = sender.currency
    return sender.record(request)


def _know_tiers(sender: Sender, tiers: Tiers, as_of_us: int) -> None:
    """Better one sentence now than a refusal for each member. Raises Failed."""
    request = ledger.GetPlanRequest(program_id=sender.program, in_force_at=timestamp(as_of_us))
    try:
        plan = sender.patiently(lambda: sender.connection.ledger.GetPlan(request)).plan
    except grpc.RpcError as error:
        call: Any = error
        if call.code() is not grpc.StatusCode.NOT_FOUND:
            raise
        at = to_text(as_of_us)
        raise Failed(
            f"tiers need a plan, and none is in force at {at}, when the export ends; publish one that is, or give --plan"
        ) from error
    known = json.loads(plan.document).get("tiers", [])
    unknown = [tier for tier in tiers.named() if tier not in known]
    if unknown:
        raise Failed(f"the plan {plan.plan_id} {plan.version} has no tier {', '.join(unknown)}; it has {', '.join(known) or 'none'}")
