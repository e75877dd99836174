"""Seals as they stand in the log: reading them, what a new one would seal, and what came too late for them."""

from collections.abc import AsyncIterator, Sequence

from fenrun.ledger.v1 import ledger_pb2 as pb
from fenrun.type.v1 import type_pb2

from services.kernel.decider import Entry
from services.kernel.refusals import SealUnknown
from services.ledger import codec
from services.ledger.domain.booking import Booked, Seal, adjusts, booked_us, seal_of
from services.ledger.domain.facts import Account
from services.runtime.eventlog import COLUMNS, Connection, Head
from services.runtime.stored import Stored, timestamp

# Entries fetched at a time; between them the server has time for other callers.
CHUNK = 2000


async def entries(connection: Connection, program_id: str) -> list[Entry]:
    """The entries that sealed, oldest first. '0' is the character after '/'."""
    cursor = await connection.execute(
        f"select {COLUMNS} from fenrun.entries"
        " where program_id = %s and stream >= 'books/' and stream < 'books0' order by position".encode(),
        [program_id],
    )
    return [codec.read(Stored(*row)) for row in await cursor.fetchall()]


async def seals(connection: Connection, program_id: str) -> list[Seal]:
    """In the order set."""
    return [seal_of(entry) for entry in await entries(connection, program_id)]


async def booked(connection: Connection, head: Head, through_us: int) -> Booked:
    """What is booked before a time that no seal has reached: what stands on the accounts now, less what occurred since.

    So a seal costs what was recorded of the time after it, not what was recorded before.
    """
    found = Booked()
    found.add(through_us - 1, head.position, (await _standing(connection, head.program_id)).items())
    async for stored in _occurred(connection, head.program_id, 0, through_us, None):
        found.add(through_us - 1, -1, [(key, -amount) for key, amount in _amounts(stored).items()])
    return found


def _amounts(stored: Stored) -> dict[tuple[str, Account], int]:
    """How an entry moved each account, all members together: {(asset, account): amount}."""
    sums: dict[tuple[str, Account], int] = {}
    for posting in codec.postings_of(stored):
        key = (posting.asset, codec.ACCOUNTS[posting.account])
        sums[key] = sums.get(key, 0) + posting.amount_minor
    return sums


async def _standing(connection: Connection, program_id: str) -> dict[tuple[str, Account], int]:
    """{(asset, account): what stands there now}, all members together."""
    cursor = await connection.execute(
        "select b.asset, sum(b.pending)::bigint, sum(b.available)::bigint, sum(b.reserved)::bigint, sum(b.paid)::bigint,"
        " sum(b.debt)::bigint from ledger.balances b where b.program_id = %s group by b.asset",
        [program_id],
    )
    of_members = (Account.PENDING, Account.AVAILABLE, Account.RESERVED, Account.PAID, Account.DEBT)
    found = {(row[0], account): held for row in await cursor.fetchall() for account, held in zip(of_members, row[1:], strict=True)}
    cursor = await connection.execute(
        "select asset, account, balance from ledger.company where program_id = %s"
        " union all select asset, account, sum(balance)::bigint from ledger.apart where program_id = %s group by asset, account",
        [program_id, program_id],
    )
    return found | {(asset, Account(account)): held for asset, account, held in await cursor.fetchall()}


async def _occurred(
    connection: Connection, program_id: str, after: int, from_us: int | None, before_us: int | None
) -> AsyncIterator[Stored]:
    """Entries after a position that occurred from a time on and before another."""
    while True:
        cursor = await connection.execute(
            f"select {COLUMNS} from fenrun.entries where program_id = %s and position > %s and occurred_us >= coalesce(%s, occurred_us)"
            " and (%s::bigint is null or occurred_us < %s) order by position limit %s".encode(),
            [program_id, after, from_us, before_us, before_us, CHUNK],
            binary=True,
        )
        rows = [Stored(*row) for row in await cursor.fetchall()]
        for stored in rows:
            yield stored
        if len(rows) < CHUNK:
            return
        after = rows[-1].position


# ---------------------------------------------------------------- messages


def period_message(seal: Seal) -> pb.SealedPeriod:
    begins = {} if seal.from_us is None else {"from": timestamp(seal.from_us)}
    return pb.SealedPeriod(seal_id=seal.seal_id, through=timestamp(seal.through_us), position=seal.position, **begins)


def seal_messages(sealed: Sequence[Entry]) -> list[pb.Seal]:
    """Each seal with its balances and how they moved in its period."""
    found = []
    before: dict[tuple[str, Account], int] = {}
    for entry in sealed:
        now = {(total.asset, total.account): total.amount_minor for total in entry.decision.totals}
        moved = {key: now.get(key, 0) - before.get(key, 0) for key in sorted(now | before)}
        found.append(
            pb.Seal(
                period=period_message(seal_of(entry)),
                reason=entry.fact.reason,
                sealed_by=entry.fact.sealed_by,
                sealed_at=timestamp(entry.occurred_us),
                recorded_at=timestamp(entry.recorded_us),
                entry_hash=entry.hash,
                entries=entry.decision.entries,
                balances=[_account(*total) for total in entry.decision.totals],
                movements=[_account(account, asset, amount) for (asset, account), amount in moved.items() if amount],
            )
        )
        before = now
    return found


def _account(account: Account, asset: str, amount_minor: int) -> pb.AccountBalance:
    return pb.AccountBalance(account=account.value, balance=type_pb2.Money(minor_units=amount_minor, currency=asset))  # type: ignore[arg-type]  # same numbers


async def late(connection: Connection, program_id: str, seal_id: str, after: int, limit: int) -> tuple[list[pb.LateEntry], int]:
    """Up to `limit` entries after a position that moved money and came too late, and the last position to go on from (0: no more).

    Raises SealUnknown.
    """
    known = await seals(connection, program_id)
    asked = [seal for seal in known if seal_id in ("", seal.seal_id)]
    if seal_id and not asked:
        raise SealUnknown(seal_id)
    if not asked:
        return [], 0
    found: list[pb.LateEntry] = []
    async for stored in _occurred(connection, program_id, max(after, asked[0].position), asked[0].from_us, asked[-1].through_us):
        adjusted = adjusts(stored.position, stored.occurred_us, known)
        if adjusted is None or adjusted not in asked:
            continue
        postings = getattr(codec.read(stored).decision, "postings", ())
        if not postings:
            continue
        found.append(
            pb.LateEntry(
                position=stored.position,
                type=stored.type,
                stream=stored.stream,
                occurred_at=timestamp(stored.occurred_us),
                recorded_at=timestamp(stored.recorded_us),
                booked_at=timestamp(booked_us(stored.position, stored.occurred_us, known)),
                adjusts=period_message(adjusted),
                postings=[posting._asdict() for posting in postings],
            )
        )
        if len(found) == limit:
            return found, stored.position
    return found, 0
