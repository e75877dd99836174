"""Balances as of any position, recorded time or occurred time.

A member's row after each entry is kept, so as of a position their balance is a look-up or a few (`ledger.balance_at`). What had happened
by a time is added up from the changes between their rows. Of the company, and of deposits and margins, only the newest figures are kept:
what they were is folded from the log, which never changes.
"""

from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from functools import partial

from services.ledger import codec
from services.ledger.application import BALANCE_COLUMNS
from services.ledger.domain.books import Balance
from services.ledger.domain.facts import Account
from services.runtime import eventlog
from services.runtime.as_of import AsOf
from services.runtime.eventlog import COLUMNS, Connection
from services.runtime.replaying import Sync, Threads, entries
from services.runtime.stored import Stored

# Sums of a program kept, of positions once asked for.
SUMS_KEPT = 1000

Sums = Mapping[Account, int]


async def held(connection: Connection, program_id: str, members: Sequence[str], asset: str, as_of: AsOf) -> dict[str, tuple[Balance, int]]:
    """{member: (balance, last entry that moved it)} of those that anything had moved.

    As of a position a look-up for each member, and one more for every 2^20 entries since; as of an occurred time linear in the member's own
    rows.
    """
    names = BALANCE_COLUMNS.split(", ")
    parameters: list[str | int] = [eventlog.array(members), program_id, asset, as_of.position]
    if as_of.occurred_us is None:
        lateral = f"select {BALANCE_COLUMNS}, position from ledger.balance_at(%s, w.member_id, %s, %s)"
    else:
        changes = ", ".join(f"{name} - lag({name}, 1, 0::bigint) over (order by position) as {name}" for name in names)
        sums = ", ".join(f"sum(c.{name})::bigint as {name}" for name in names)
        lateral = (
            f"select {sums}, max(c.position) as position"
            f" from (select position, {changes} from ledger.balances_between(%s, w.member_id, %s, 0, %s, null)) c"
            " join fenrun.entries e on e.program_id = %s and e.position = c.position where e.occurred_us <= %s"
        )
        parameters += [program_id, as_of.occurred_us]
    cursor = await connection.execute(
        f"select w.member_id, {', '.join('h.' + name for name in names)}, h.position from unnest(%s::text[]) as w(member_id)"
        f" cross join lateral ({lateral}) h where h.position is not null".encode(),
        parameters,
    )
    return {row[0]: (Balance(*row[1:9]), row[9]) for row in await cursor.fetchall()}


async def rows(
    connection: Connection, program_id: str, member_id: str, assets: Sequence[str], after: int, last: int, limit: int
) -> tuple[dict[int, dict[str, Balance]], bool]:
    """{position: {asset: balance after it}} of the next `limit` entries that moved a member's money, up to a position, and whether
    there are more. One walk along the index for each asset and every 2^20 entries, however long the member's history is."""
    cursor = await connection.execute(
        f"select b.position, b.asset, {', '.join('b.' + name for name in BALANCE_COLUMNS.split(', '))} from unnest(%s::text[]) as a(asset)"
        " cross join lateral ledger.balances_between(%s, %s, a.asset, %s, %s, %s) b".encode(),
        # One more than asked for: no entry is cut in two between its assets.
        [eventlog.array(assets), program_id, member_id, after, last, limit + 1],
    )
    found: dict[int, dict[str, Balance]] = {}
    for position, asset, *figures in await cursor.fetchall():
        found.setdefault(position, {})[asset] = Balance(*figures)
    return {position: found[position] for position in sorted(found)[:limit]}, len(found) > limit


async def apart(connection: Connection, program_id: str, members: Sequence[str], asset: str, as_of: AsOf) -> dict[tuple[str, Account], int]:
    """{(member, account): amount} of deposits and margins.

    As of another time than now, and only if one of the members ever had any, linear in the program's deposits and transfers.
    """
    cursor = await connection.execute(
        "select member_id, account, balance from ledger.apart where program_id = %s and member_id = any(%s::text[]) and asset = %s",
        [program_id, eventlog.array(members), asset],
    )
    now = {(member_id, Account(account)): amount for member_id, account, amount in await cursor.fetchall()}
    if not now or not as_of.asked:
        return now
    found = dict.fromkeys(now, 0)
    async for stored in apart_entries(connection, program_id, as_of.position):
        if as_of.counts(stored):
            for posting in codec.postings_of(stored):
                key = (posting.member_id, Account(posting.account))
                if key in found and posting.asset == asset:
                    found[key] += posting.amount_minor
    return found


async def apart_entries(connection: Connection, program_id: str, last: int) -> AsyncGenerator[Stored]:
    """The entries that moved deposits or margins, up to a position, in no order, through a server-side cursor."""
    async with connection.transaction(), connection.cursor("apart") as cursor:
        # '0' is the character after '/'.
        await cursor.execute(
            f"select {COLUMNS} from fenrun.entries where program_id = %s and position <= %s"
            " and (stream >= 'deposit/' and stream < 'deposit0' or stream >= 'stock/' and stream < 'stock0')".encode(),
            [program_id, last],
        )
        async for row in cursor:
            yield Stored(*row)


class TrialBalances:
    """Trial balances of the past, folded from the log in a thread of their own, entry by entry, so that memory does not grow with it.

    As of a position the fold begins at the nearest position whose sums are known: the head, the beginning, or one asked for before. As of
    an occurred time it is linear in the entries.
    """

    def __init__(self, dsn: str) -> None:
        self._threads = Threads(dsn, "fenrun-as-of", at_once=2)
        # {(program, asset, position): (hash of the entry there, sums)}
        self._known: dict[tuple[str, str, int], tuple[bytes, Sums]] = {}

    async def at(self, program_id: str, asset: str, as_of: AsOf, head: int, now: Sums) -> Sums:
        """Every account's sum. `now`: those right after the entry at `head`."""
        occurred_us = as_of.occurred_us
        if occurred_us is not None:
            return await self._threads.run(lambda connection: _moved(connection, program_id, asset, 0, as_of.position, occurred_us))
        while True:
            known = {position: kept for (of, what, position), kept in self._known.items() if (of, what) == (program_id, asset)}
            sums: dict[int, Sums] = {position: kept for position, (_, kept) in known.items()} | {0: {}, head: now}
            nearest = min(sums, key=lambda position: abs(position - as_of.position))
            expected = known[nearest][0] if nearest in known else None
            found = await self._threads.run(partial(_from, program_id, asset, as_of.position, nearest, expected, sums[nearest]))
            if found is not None:
                self._known[(program_id, asset, as_of.position)] = found
                while len(self._known) > SUMS_KEPT:
                    del self._known[next(iter(self._known))]
                return found[1]
            self._known.pop((program_id, asset, nearest), None)


def _from(
    program_id: str, asset: str, position: int, nearest: int, expected: bytes | None, sums: Sums, connection: Sync
) -> tuple[bytes, Sums] | None:
    """(hash of the entry at a position, the sums there), folded from the sums at another.

    None: the entry there is not the expected one any more, because the log was restored from a backup and has grown since.
    """
    if expected is not None and _hash_at(connection, program_id, nearest) != expected:
        return None
    first, last = sorted((nearest, position))
    moved = _moved(connection, program_id, asset, first, last)
    sign = 1 if nearest <= position else -1
    found = {account: sums.get(account, 0) + sign * moved.get(account, 0) for account in Account}
    return _hash_at(connection, program_id, position), found


def _hash_at(connection: Sync, program_id: str, position: int) -> bytes:
    """Of the entry at a position; empty where there is none."""
    statement = "select hash from fenrun.entries where program_id = %s and position = %s"
    row = connection.execute(statement, [program_id, position]).fetchone()
    return row[0] if row else b""


def _moved(connection: Sync, program_id: str, asset: str, after: int, last: int, occurred_us: int | None = None) -> Sums:
    """What the entries after one position and up to another moved, account by account."""
    sums: Counter[int] = Counter()
    with connection.transaction():
        for stored in entries(connection, program_id, last, codec.MOVING, after, occurred_us):
            for posting in codec.postings_of(stored):
                if posting.asset == asset:
                    sums[posting.account] += posting.amount_minor
    return {Account(account): amount for account, amount in sums.items()}
