"""What the ledger answers from its views and the log: plain SQL in, messages of the contract out."""

from collections.abc import Sequence

from fenrun.ledger.v1 import ledger_pb2 as pb
from fenrun.log.v1 import log_pb2
from fenrun.type.v1 import type_pb2

from services.kernel.decider import Entry
from services.kernel.refusals import MemberUnknown, OrderUnknown
from services.ledger import codec
from services.ledger.application import BALANCE_COLUMNS
from services.ledger.domain.books import NOTHING, Balance, fold_order
from services.ledger.domain.facts import Account, Posting
from services.ledger.domain.plan import PlanVersion
from services.runtime import eventlog
from services.runtime.eventlog import Connection
from services.runtime.stored import timestamp


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
    return balance_message(member_id, currency, Balance(*row[:8]) if row else NOTHING, row[8] if row else 0)


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
    return [
        balance_message(row[0], currency, Balance(*row[1:9]) if row[9] is not None else NOTHING, row[9] or 0)
        for row in await cursor.fetchall()
    ]


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
                entitlements=[
                    pb.LineEntitlement(
                        rule_id=rules[rule_index].id, member_id=people[payee - 1].member_id if payee else "", amount_minor=amount
                    )
                    for (rule_index, payee), amount in line.entitled.items()
                    if amount
                ],
            )
            for line_no, line in folded.lines.items()
        ],
        positions=folded.positions,
    )


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
    found = []
    for stored in await eventlog.at(connection, program_id, positions):
        for number, posting in enumerate(postings_of(codec.read(stored)), start=1):
            if posting.member_id == member_id:
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
                    )
                )
    return found, positions[-1] if len(positions) == limit else 0
