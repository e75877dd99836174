"""What the ledger answers from its views and the log: plain SQL in, messages of the contract out."""

from collections.abc import Mapping, Sequence

from fenrun.ledger.v1 import ledger_pb2 as pb
from fenrun.log.v1 import log_pb2
from fenrun.type.v1 import type_pb2

from services.kernel.chain import GENESIS
from services.kernel.decider import Entry
from services.kernel.refusals import GroupUnknown, MemberUnknown, OrderUnknown, PeriodUnknown, PostingUnknown
from services.ledger import codec, explaining, past, sealed
from services.ledger.domain.booking import Seal, adjusts, booked_us
from services.ledger.domain.books import APART_ACCOUNTS, NOTHING, Balance, ClosedPeriod, fold_order, fold_period
from services.ledger.domain.facts import Account, GroupFailed, GroupFormed, GroupJoined, Person, Posting
from services.ledger.domain.plan import PlanVersion
from services.ledger.domain.rules import Rule
from services.runtime import eventlog
from services.runtime.as_of import AsOf
from services.runtime.eventlog import Connection
from services.runtime.stored import Stored, entry_fields, moment_fields, timestamp

LAST_POSITION = 2**63 - 1


async def require_member(connection: Connection, program_id: str, member_id: str) -> None:
    """Raises MemberUnknown."""
    cursor = await connection.execute("select from ledger.members where program_id = %s and member_id = %s", [program_id, member_id])
    if await cursor.fetchone() is None:
        raise MemberUnknown(member_id)


async def balance(connection: Connection, program_id: str, member_id: str, currency: str, as_of: AsOf) -> pb.Balance:
    """A member's balance. Raises MemberUnknown."""
    await require_member(connection, program_id, member_id)
    [found] = await _balances_of(connection, program_id, [member_id], currency, as_of)
    return found


async def _balances_of(connection: Connection, program_id: str, members: Sequence[str], currency: str, as_of: AsOf) -> list[pb.Balance]:
    held = await past.held(connection, program_id, members, currency, as_of)
    apart = await past.apart(connection, program_id, members, currency, as_of)
    found = [balance_message(member_id, currency, *held.get(member_id, (NOTHING, 0))) for member_id in members]
    for one in found:
        one.deposit_minor = apart.get((one.member_id, Account.DEPOSIT), 0)
        one.margin_minor = apart.get((one.member_id, Account.MARGIN), 0)
    return found


def balance_message(member_id: str, currency: str, held: Balance, position: int) -> pb.Balance:
    return pb.Balance(
        member_id=member_id,
        currency=currency,
        pending_minor=held.pending,
        available_minor=held.available,
        reserved_minor=held.reserved,
        paid_minor=held.paid,
        debt_minor=-held.debt,
        accrued_minor=held.accrued,
        reversed_minor=held.reversed,
        adjusted_minor=held.adjusted,
        position=position,
    )


async def balances(connection: Connection, program_id: str, currency: str, as_of: AsOf, after: str, limit: int) -> list[pb.Balance]:
    """Balances by member id, of up to `limit` members after one; as of another time, of those enrolled by then."""
    enrolled, values = "", list[str | int | None]()
    if as_of.asked:
        enrolled = (
            " and exists (select from fenrun.entries e where e.program_id = m.program_id and e.stream = 'member/' || m.member_id"
            " and e.stream_version = 1 and e.position <= %s and (%s::bigint is null or e.occurred_us <= %s))"
        )
        values = [as_of.position, as_of.occurred_us, as_of.occurred_us]
    cursor = await connection.execute(
        f"select member_id from ledger.members m where program_id = %s and member_id > %s{enrolled} order by member_id limit %s".encode(),
        [program_id, after, *values, limit],
    )
    return await _balances_of(connection, program_id, [member_id for (member_id,) in await cursor.fetchall()], currency, as_of)


async def trial_balance(connection: Connection, program_id: str, currency: str) -> dict[Account, int]:
    """The sums of the members' accounts and the company's own, now; together they are zero."""
    cursor = await connection.execute(
        "select coalesce(sum(b.pending), 0)::bigint, coalesce(sum(b.available), 0)::bigint, coalesce(sum(b.reserved), 0)::bigint,"
        " coalesce(sum(b.paid), 0)::bigint, coalesce(sum(b.debt), 0)::bigint from ledger.balances b"
        " where b.program_id = %s and b.asset = %s",
        [program_id, currency],
    )
    members = await cursor.fetchone()
    assert members is not None
    found = dict(zip(Account, members, strict=False))
    cursor = await connection.execute(
        "select account, sum(balance)::bigint from ledger.apart where program_id = %s and asset = %s group by account",
        [program_id, currency],
    )
    found |= {Account(account): held for account, held in await cursor.fetchall()}
    cursor = await connection.execute(
        "select account, balance from ledger.company where program_id = %s and asset = %s", [program_id, currency]
    )
    return found | {Account(account): held for account, held in await cursor.fetchall()}


def account_balances(sums: Mapping[Account, int], currency: str) -> list[pb.AccountBalance]:
    """Every account of the chart, those of nothing too."""
    return [
        pb.AccountBalance(account=account.value, balance=type_pb2.Money(minor_units=sums.get(account, 0), currency=currency))  # type: ignore[arg-type]  # same numbers
        for account in Account
    ]


def order(order_id: str, stored: Sequence[Stored], plans: Sequence[PlanVersion]) -> pb.GetOrderResponse:
    """An order folded from its stream, oldest first. Raises OrderUnknown."""
    folded = fold_order([codec.read(one) for one in stored])
    if folded is None:
        raise OrderUnknown(order_id)
    rules = next(version for version in plans if version.position == folded.decision.plan_position).plan.rules
    people = folded.decision.people
    return pb.GetOrderResponse(
        order=log_pb2.OrderPaid.FromString(stored[0].fact),
        paid_at=timestamp(folded.paid.occurred_us),
        completed_at=timestamp(folded.completed.occurred_us) if folded.completed else None,
        plan_position=folded.decision.plan_position,
        people=log_pb2.OrderPaidDecision.FromString(stored[0].decision).people,
        lines=[
            pb.OrderLineState(
                line_no=line_no,
                remaining_base_minor=line.remaining_base,
                remaining_quantity=line.remaining_quantity,
                entitlements=_entitlements(line.entitled, rules, people),
            )
            for line_no, line in folded.lines.items()
        ]
        + ([pb.OrderLineState(entitlements=_entitlements(folded.whole, rules, people))] if any(folded.whole.values()) else []),
        positions=folded.positions,
    )


def _entitlements(entitled: Mapping[tuple[int, int], int], rules: Sequence[Rule], people: Sequence[Person]) -> list[pb.LineEntitlement]:
    return [
        pb.LineEntitlement(rule_id=rules[rule_index].id, member_id=people[payee - 1].member_id if payee else "", amount_minor=amount)
        for (rule_index, payee), amount in entitled.items()
        if amount
    ]


async def group(connection: Connection, program_id: str, group_id: str) -> pb.GetGroupResponse:
    """A group folded from its stream. Raises GroupUnknown."""
    entries = [codec.read(one) for one in await eventlog.streams(connection, program_id, [f"group/{group_id}"])]
    if not entries:
        raise GroupUnknown(group_id)
    closed = next((entry for entry in entries if isinstance(entry.fact, GroupFormed | GroupFailed)), None)
    state = "open" if closed is None else "formed" if isinstance(closed.fact, GroupFormed) else "failed"
    return pb.GetGroupResponse(
        group_id=group_id,
        opener_id=entries[0].fact.opener_id,
        state=state,
        order_ids=[entry.fact.order_id for entry in entries if isinstance(entry.fact, GroupJoined)],
        opened_at=timestamp(entries[0].occurred_us),
        closed_at=timestamp(closed.occurred_us) if closed else None,
    )


async def period(connection: Connection, program_id: str, period_id: str, plans: Sequence[PlanVersion]) -> pb.GetPeriodResponse:
    """A closed period as it stands now. Raises PeriodUnknown."""
    folded = fold_period([codec.read(one) for one in await eventlog.streams(connection, program_id, [f"period/{period_id}"])])
    if folded is None:
        raise PeriodUnknown(period_id, "it was not closed")
    decided = folded.decision
    return pb.GetPeriodResponse(
        period_id=period_id,
        starts_at=timestamp(decided.starts_us),
        ends_at=timestamp(decided.ends_us),
        closed_at=timestamp(folded.closed.occurred_us),
        plan_position=decided.plan_position,
        rules=period_rules(folded, plans),
        positions=folded.positions,
    )


def period_rules(period: ClosedPeriod, plans: Sequence[PlanVersion]) -> list[pb.PeriodRuleResult]:
    """What each rule gave for a period, corrections included."""
    plan = next(version for version in plans if version.position == period.decision.plan_position).plan
    found = []
    for index, rule in plan.period_rules:
        asset = plan.asset_of(rule)
        mine = {payee: amount for (payee, rule_index), amount in period.shares.items() if rule_index == index and amount}
        found.append(
            pb.PeriodRuleResult(
                rule_id=rule.id,
                volume=sum(period.volumes.get(index, {}).values()),
                earnings=[
                    pb.Earning(
                        member_id=period.decision.people[payee - 1].member_id, amount=type_pb2.Money(minor_units=amount, currency=asset)
                    )
                    for payee, amount in sorted(mine.items())
                    if payee
                ],
                breakage=type_pb2.Money(minor_units=mine.get(0, 0), currency=asset),
            )
        )
    return found


def postings_of(entry: Entry) -> tuple[Posting, ...]:
    return getattr(entry.decision, "postings", ())


async def postings(
    connection: Connection, program_id: str, member_id: str, assets: Sequence[str], after: int, limit: int
) -> tuple[list[pb.MemberPosting], int]:
    """The postings of the next `limit` entries that moved a member's money, and the last position read (0: no more)."""
    seals = await sealed.seals(connection, program_id)
    rows, more = await past.rows(connection, program_id, member_id, assets, after, LAST_POSITION, limit)
    found = []
    for stored in await eventlog.at(connection, program_id, sorted(rows)):
        for number, posting in enumerate(postings_of(codec.read(stored)), start=1):
            if posting.member_id == member_id and posting.account not in APART_ACCOUNTS:
                found.append(posting_message(stored, number, posting, rows[stored.position][posting.asset][posting.account - 1], seals))
    return found, max(rows) if more else 0


def posting_message(stored: Stored, number: int, posting: Posting, balance_after: int, seals: Sequence[Seal]) -> pb.MemberPosting:
    late_for = adjusts(stored.position, stored.occurred_us, seals)
    return pb.MemberPosting(
        posting_id=f"{stored.position}.{number}",
        position=stored.position,
        type=stored.type,
        stream=stored.stream,
        occurred_at=timestamp(stored.occurred_us),
        recorded_at=timestamp(stored.recorded_us),
        account=posting.account.value,  # type: ignore[arg-type]  # same numbers
        amount=type_pb2.Money(minor_units=posting.amount_minor, currency=posting.asset),
        balance_after=type_pb2.Money(minor_units=balance_after, currency=posting.asset),
        booked_at=timestamp(booked_us(stored.position, stored.occurred_us, seals)),
        adjusts=sealed.period_message(late_for) if late_for else None,
    )


def explain(
    posting_id: str, history: Sequence[Stored], previous_hash: bytes | None, seals: Sequence[Seal], plans: Sequence[PlanVersion]
) -> pb.ExplainResponse:
    """The whole story of one posting. `history`: its entry and what stands before it in its stream, oldest first; the previous hash is of
    the entry before it in the log. Raises PostingUnknown."""
    if not history:
        raise PostingUnknown(posting_id)
    *earlier, stored = history
    number = int(posting_id.partition(".")[2])
    story = explaining.explain(codec.read(stored), number, [codec.read(one) for one in earlier], plans)
    booked = booked_us(stored.position, stored.occurred_us, seals)
    late_for = adjusts(stored.position, stored.occurred_us, seals)
    if late_for is not None:
        story.sentences.insert(1, explaining.lateness(late_for, booked))
    return story.message(
        entry_fields(stored, previous_hash or GENESIS), moment_fields(booked), sealed.period_message(late_for) if late_for else None
    )
