"""A member's statement: the balances before a period of recording, every posting in it with what it came from, the balances after it.

The balances are read from the views and the postings from the log, so that a statement which adds up has checked the one by the other.
What was recorded never changes: the parts are read one after the other, and no snapshot is held meanwhile.
"""

from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Sequence
from typing import Any

from fenrun.ledger.v1 import ledger_pb2 as pb

from services.kernel.decider import Entry
from services.ledger import codec, past, sealed, views
from services.ledger.domain.booking import Seal
from services.ledger.domain.books import APART_ACCOUNTS, COMPANY_ACCOUNTS, Balance
from services.ledger.domain.facts import (
    Account,
    AdjustmentPosted,
    BalanceOpened,
    DepositMoved,
    OrderRefunded,
    OrderVoided,
    PayoutFailed,
    PayoutPaid,
    PeriodCorrected,
    Posting,
    TaskDone,
)
from services.ledger.domain.plan import PlanVersion
from services.runtime import eventlog
from services.runtime.as_of import AsOf
from services.runtime.eventlog import Connection
from services.runtime.stored import Stored
from services.runtime.writer import Connect

# What the rules took back or gave anew of an order or a closed period.
FOLLOWING = ("order.refunded.v1", "order.voided.v1", "period.corrected.v1")
# Entries read at a time.
CHUNK = 200


async def statement(
    connect: Connect, program_id: str, assets: Sequence[str], member_id: str, after: int, last: int, plans: Sequence[PlanVersion]
) -> AsyncGenerator[pb.GetStatementResponse]:
    """The statement over the entries after one position and up to another. Linear in the member's own rows between them.

    `assets` are the program's, its currency first. No connection is held while the caller takes what there is. Raises MemberUnknown.
    """
    async with connect() as connection:
        await views.require_member(connection, program_id, member_id)
        at_end = [await _balance(connection, program_id, member_id, asset, last) for asset in assets]
        closing = [balance for balance in at_end if balance.currency == assets[0] or balance.position]
        held = [balance.currency for balance in closing]
        opening = [await _balance(connection, program_id, member_id, asset, after) for asset in held]
        apart = await _apart_positions(connection, program_id, member_id, after, last)
        seals = await sealed.seals(connection, program_id)
    yield pb.GetStatementResponse(opening=pb.StatementBalances(position=after, balances=opening))
    running = Counter({(Account.DEPOSIT, one.currency): one.deposit_minor for one in opening})
    running.update({(Account.MARGIN, one.currency): one.margin_minor for one in opening})
    reached = after
    while reached < last:
        async with connect() as connection:
            rows, more = await past.rows(connection, program_id, member_id, held, reached, last, CHUNK)
            before, reached = reached, max(rows) if more else last
            positions = sorted({*rows, *(position for position in apart if before < position <= reached)})
            found = await eventlog.at(connection, program_id, positions)
            firsts = await _firsts(connection, program_id, found)
        postings = pb.StatementPostings()
        for stored in found:
            after_it = rows.get(stored.position, {})
            postings.postings.extend(_postings(stored, member_id, after_it, running, firsts.get(stored.stream), plans, seals))
        if postings.postings:
            yield pb.GetStatementResponse(postings=postings)
    yield pb.GetStatementResponse(closing=pb.StatementBalances(position=last, balances=closing))


async def _balance(connection: Connection, program_id: str, member_id: str, asset: str, position: int) -> pb.Balance:
    return await views.balance(connection, program_id, member_id, asset, AsOf(position, asked="statement"))


async def _apart_positions(connection: Connection, program_id: str, member_id: str, after: int, last: int) -> list[int]:
    """Where a member's deposits or margin moved, if they ever did. Else this would read all deposits of the program for nothing."""
    cursor = await connection.execute("select from ledger.apart where program_id = %s and member_id = %s limit 1", [program_id, member_id])
    if await cursor.fetchone() is None:
        return []
    return [
        stored.position
        async for stored in past.apart_entries(connection, program_id, last)
        if stored.position > after and any(posting.member_id == member_id for posting in codec.postings_of(stored))
    ]


async def _firsts(connection: Connection, program_id: str, entries: Iterable[Stored]) -> dict[str, Entry]:
    """{stream: its first entry} for those that follow from an order or a closed period, which says who earns by which rule."""
    streams = sorted({stored.stream for stored in entries if stored.type in FOLLOWING})
    return {stored.stream: codec.read(stored) for stored in await eventlog.firsts(connection, program_id, streams)} if streams else {}


def _postings(
    stored: Stored,
    member_id: str,
    after: dict[str, Balance],
    running: Counter[tuple[Account, str]],
    first: Entry | None,
    plans: Sequence[PlanVersion],
    seals: Sequence[Seal],
) -> list[pb.StatementPosting]:
    """A member's postings in one entry. `after`: {asset: balance after it}; `running`: what is held apart, moved along."""
    entry = codec.read(stored)
    mine = [(number, one) for number, one in enumerate(views.postings_of(entry), start=1) if one.member_id == member_id]
    for _, posting in mine:
        if posting.account in APART_ACCOUNTS:
            running[posting.account, posting.asset] += posting.amount_minor
    decided = first.decision if first is not None and stored.type in FOLLOWING else entry.decision
    version = _plan_of(getattr(decided, "plan_position", 0), plans)
    found = []
    for number, posting in mine:
        assert posting.account not in COMPANY_ACCOUNTS, "the company's accounts name no member"
        apart = posting.account in APART_ACCOUNTS
        balance = running[posting.account, posting.asset] if apart else after[posting.asset][posting.account - 1]
        one = pb.StatementPosting(
            posting=views.posting_message(stored, number, posting, balance, seals), about=_about(entry), entry_hash=stored.hash
        )
        if version is not None:
            one.plan_id, one.plan_version = version.plan.plan_id, version.plan.version
            one.shares.extend(_shares(entry, decided.people, posting, version))
        found.append(one)
    return found


def _plan_of(position: int, plans: Sequence[PlanVersion]) -> PlanVersion | None:
    return next((version for version in plans if version.position == position), None) if position else None


def _shares(entry: Entry, people: Sequence[Any], posting: Posting, version: PlanVersion) -> list[pb.StatementShare]:
    """What each rule gave or took of the posting's member in the whole entry, in the posting's asset, in the plan's order."""
    sums: Counter[int] = Counter()
    shares = [share for _, line in getattr(entry.decision, "lines", ()) for share in line]
    for rule_index, payee, amount in [*shares, *getattr(entry.decision, "shares", ())]:
        if payee and people[payee - 1].member_id == posting.member_id:
            sums[rule_index] += amount
    rules = version.plan.rules
    return [
        pb.StatementShare(rule_id=rules[index].id, amount_minor=amount)
        for index, amount in sorted(sums.items())
        if amount and version.plan.asset_of(rules[index]) == posting.asset
    ]


def _about(entry: Entry) -> str:
    """What the stream's own name does not say."""
    match entry.fact:
        case OrderRefunded(refund_id=about) | OrderVoided(group_id=about) | PeriodCorrected(order_id=about) | TaskDone(task=about):
            return about
        case PayoutPaid(reference=about) | PayoutFailed(reason=about) | AdjustmentPosted(reason=about) | DepositMoved(reason=about):
            return about
        case BalanceOpened(source=about):
            return about
    return ""
