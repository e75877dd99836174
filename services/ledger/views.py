"""What the ledger answers from its views and the log: plain SQL in, messages of the contract out."""

from collections.abc import Mapping, Sequence

from fenrun.ledger.v1 import ledger_pb2 as pb
from fenrun.log.v1 import log_pb2
from fenrun.type.v1 import type_pb2

from services.kernel.decider import Entry
from services.kernel.refusals import GroupUnknown, MemberUnknown, OrderUnknown, PeriodUnknown, PostingUnknown
from services.ledger import codec, explaining, sealed
from services.ledger.application import BALANCE_COLUMNS
from services.ledger.domain.booking import adjusts, booked_us
from services.ledger.domain.books import APART_ACCOUNTS, NOTHING, Balance, ClosedPeriod, fold_order, fold_period
from services.ledger.domain.facts import Account, GroupFailed, GroupFormed, GroupJoined, Person, Posting
from services.ledger.domain.plan import PlanVersion
from services.ledger.domain.rules import Rule
from services.runtime import eventlog
from services.runtime.eventlog import Connection
from services.runtime.stored import entry_message, timestamp


async def require_member(connection: Connection, program_id: str, member_id: str) -> None:
    """Raises MemberUnknown."""
    cursor = await connection.execute("select from ledger.members where program_id = %s and member_id = %s", [program_id, member_id])
    if await cursor.fetchone() is None:
        raise MemberUnknown(member_id)


async def balance(connection: Connection, program_id: str, member_id: str, currency: str, position: int) -> pb.Balance:
    """A member's balance as it was right after the entry at `position`."""
    await require_member(connection, program_id, member_id)
    cursor = await connection.execute(
        f"select {BALANCE_COLUMNS}, position from ledger.balances where program_id = %s and member_id = %s"
        " and asset = %s and position <= %s order by position desc limit 1".encode(),
        [program_id, member_id, currency, position],
    )
    row = await cursor.fetchone()
    answer = balance_message(member_id, currency, Balance(*row[:8]) if row else NOTHING, row[8] if row else 0)
    apart = await _apart(connection, program_id, currency, [member_id])
    answer.deposit_minor = apart.get((member_id, Account.DEPOSIT), 0)
    answer.margin_minor = apart.get((member_id, Account.MARGIN), 0)
    return answer


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


async def balances(connection: Connection, program_id: str, currency: str, after: str, limit: int) -> list[pb.Balance]:
    """Balances now, by member id, of up to `limit` members after one."""
    cursor = await connection.execute(
        f"select m.member_id, {', '.join('b.' + name for name in BALANCE_COLUMNS.split(', '))}, b.position"
        " from (select member_id from ledger.members where program_id = %s and member_id > %s order by member_id limit %s) m"
        " left join lateral (select * from ledger.balances b where b.program_id = %s and b.member_id = m.member_id and b.asset = %s"
        " order by b.position desc limit 1) b on true order by m.member_id".encode(),
        [program_id, after, limit, program_id, currency],
    )
    found = [
        balance_message(row[0], currency, Balance(*row[1:9]) if row[9] is not None else NOTHING, row[9] or 0)
        for row in await cursor.fetchall()
    ]
    apart = await _apart(connection, program_id, currency, [one.member_id for one in found])
    for one in found:
        one.deposit_minor = apart.get((one.member_id, Account.DEPOSIT), 0)
        one.margin_minor = apart.get((one.member_id, Account.MARGIN), 0)
    return found


async def _apart(connection: Connection, program_id: str, asset: str, members: Sequence[str]) -> dict[tuple[str, int], int]:
    """{(member, account): balance now} of deposits and margins."""
    cursor = await connection.execute(
        "select member_id, account, balance from ledger.apart where program_id = %s and member_id = any(%s::text[]) and asset = %s",
        [program_id, eventlog.array(members), asset],
    )
    return {(member_id, account): balance for member_id, account, balance in await cursor.fetchall()}


async def trial_balance(connection: Connection, program_id: str, currency: str) -> list[pb.AccountBalance]:
    """The sum of the members' accounts and the company's own; together they are zero."""
    cursor = await connection.execute(
        "select coalesce(sum(b.pending), 0)::bigint, coalesce(sum(b.available), 0)::bigint, coalesce(sum(b.reserved), 0)::bigint,"
        " coalesce(sum(b.paid), 0)::bigint, coalesce(sum(b.debt), 0)::bigint from ledger.members m"
        " cross join lateral (select * from ledger.balances b where b.program_id = m.program_id and b.member_id = m.member_id"
        " and b.asset = %s order by b.position desc limit 1) b where m.program_id = %s",
        [currency, program_id],
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
    found |= {Account(account): held for account, held in await cursor.fetchall()}
    return [
        pb.AccountBalance(account=account.value, balance=type_pb2.Money(minor_units=found.get(account, 0), currency=currency))  # type: ignore[arg-type]  # same numbers
        for account in Account
    ]


async def order(connection: Connection, program_id: str, order_id: str, plans: Sequence[PlanVersion]) -> pb.GetOrderResponse:
    """An order folded from its stream. Raises OrderUnknown."""
    stored = await eventlog.streams(connection, program_id, [f"order/{order_id}"])
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


async def postings(connection: Connection, program_id: str, member_id: str, after: int, limit: int) -> tuple[list[pb.MemberPosting], int]:
    """The postings of the next `limit` entries that moved a member's money, and the last position read (0: no more)."""
    cursor = await connection.execute(
        f"select position, asset, {BALANCE_COLUMNS} from ledger.balances where program_id = %s and member_id = %s and position > %s"
        " order by position limit %s".encode(),
        [program_id, member_id, after, limit],
    )
    held = {(row[0], row[1]): Balance(*row[2:]) for row in await cursor.fetchall()}
    positions = sorted({position for position, _ in held})
    seals = await sealed.seals(connection, program_id)
    found = []
    for stored in await eventlog.at(connection, program_id, positions):
        adjusted = adjusts(stored.position, stored.occurred_us, seals)
        for number, posting in enumerate(postings_of(codec.read(stored)), start=1):
            if posting.member_id == member_id and posting.account not in APART_ACCOUNTS:
                account_after = held[(stored.position, posting.asset)][posting.account - 1]
                found.append(
                    pb.MemberPosting(
                        posting_id=f"{stored.position}.{number}",
                        position=stored.position,
                        type=stored.type,
                        stream=stored.stream,
                        occurred_at=timestamp(stored.occurred_us),
                        recorded_at=timestamp(stored.recorded_us),
                        account=posting.account.value,  # type: ignore[arg-type]  # same numbers
                        amount=type_pb2.Money(minor_units=posting.amount_minor, currency=posting.asset),
                        balance_after=type_pb2.Money(minor_units=account_after, currency=posting.asset),
                        booked_at=timestamp(booked_us(stored.position, stored.occurred_us, seals)),
                        adjusts=sealed.period_message(adjusted) if adjusted else None,
                    )
                )
    return found, positions[-1] if len(positions) == limit else 0


async def explain(connection: Connection, program_id: str, posting_id: str, plans: Sequence[PlanVersion]) -> pb.ExplainResponse:
    """The whole story of one posting. Raises PostingUnknown."""
    position, number = (int(part) for part in posting_id.split("."))
    found = await eventlog.at(connection, program_id, [position - 1, position])
    if not found or found[-1].position != position:
        raise PostingUnknown(posting_id)
    stored = found[-1]
    history = [codec.read(one) for one in await eventlog.streams(connection, program_id, [stored.stream]) if one.position < position]
    answer = explaining.explain(codec.read(stored), number, history, plans)
    answer.entry.CopyFrom(entry_message(stored, found[0].hash if position > 1 else bytes(32)))
    seals = await sealed.seals(connection, program_id)
    booked = booked_us(position, stored.occurred_us, seals)
    answer.booked_at.CopyFrom(timestamp(booked))
    late_for = adjusts(position, stored.occurred_us, seals)
    if late_for is not None:
        answer.adjusts.CopyFrom(sealed.period_message(late_for))
        answer.sentences.insert(1, explaining.lateness(late_for, booked))
    return answer
