"""Balances as of any position, recorded time or occurred time.

A member's row after each entry is kept, so as of a position their balance is one look-up. What had happened by a time is added up from the
changes between their rows. Of the company, and of deposits and margins, only the newest figures are kept: what they were is folded from
the log, which never changes.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

from services.ledger import codec
from services.ledger.application import BALANCE_COLUMNS
from services.ledger.domain.books import Balance
from services.ledger.domain.facts import Account, Posting
from services.runtime import eventlog
from services.runtime.as_of import AsOf
from services.runtime.eventlog import COLUMNS, Connection
from services.runtime.replaying import Sync, Threads, entries
from services.runtime.stored import Stored

# The entries that move amounts, by stored name.
MOVING = (
    "order.paid.v1",
    "order.refunded.v1",
    "order.released.v1",
    "order.voided.v1",
    "payout.requested.v1",
    "payout.paid.v1",
    "payout.failed.v1",
    "adjustment.posted.v1",
    "task.done.v1",
    "period.closed.v1",
    "period.corrected.v1",
    "reward.released.v1",
    "deposit.moved.v1",
    "stock.transferred.v1",
    "balance.opened.v1",
)
# Sums of a program kept, of positions once asked for.
SUMS_KEPT = 1000

Sums = Mapping[Account, int]


def postings_of(stored: Stored) -> tuple[Posting, ...]:
    return getattr(codec.read(stored).decision, "postings", ())


async def held(connection: Connection, program_id: str, members: Sequence[str], asset: str, as_of: AsOf) -> dict[str, tuple[Balance, int]]:
    """{member: (balance, last entry that moved it)} of those that anything had moved.

    As of a position one look-up for each member; as of an occurred time linear in the member's own rows.
    """
    names = BALANCE_COLUMNS.split(", ")
    among = "from ledger.balances b where b.program_id = %s and b.member_id = w.member_id and b.asset = %s and b.position <= %s"
    parameters: list[str | int] = [eventlog.array(members), program_id, asset, as_of.position]
    if as_of.occurred_us is None:
        lateral = f"select {BALANCE_COLUMNS}, position {among} order by b.position desc limit 1"
    else:
        changes = ", ".join(f"{name} - lag({name}, 1, 0::bigint) over (order by position) as {name}" for name in names)
        sums = ", ".join(f"sum(c.{name})::bigint as {name}" for name in names)
        lateral = (
            f"select {sums}, max(c.position) as position from (select position, {changes} {among}) c"
            " join fenrun.entries e on e.program_id = %s and e.position = c.position where e.occurred_us <= %s"
        )
        parameters += [program_id, as_of.occurred_us]
    cursor = await connection.execute(
        f"select w.member_id, {', '.join('h.' + name for name in names)}, h.position from unnest(%s::text[]) as w(member_id)"
        f" cross join lateral ({lateral}) h where h.position is not null".encode(),
        parameters,
    )
    return {row[0]: (Balance(*row[1:9]), row[9]) for row in await cursor.fetchall()}


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
    for stored in await apart_entries(connection, program_id, as_of.position):
        if as_of.counts(stored):
            for posting in postings_of(stored):
                key = (posting.member_id, posting.account)
                if key in found and posting.asset == asset:
                    found[key] += posting.amount_minor
    return found


async def apart_entries(connection: Connection, program_id: str, last: int) -> list[Stored]:
    """The entries that moved deposits or margins, up to a position. '0' is the character after '/'."""
    cursor = await connection.execute(
        f"select {COLUMNS} from fenrun.entries where program_id = %s and position <= %s and (stream >= 'deposit/' and stream < 'deposit0'"
        " or stream >= 'stock/' and stream < 'stock0') order by position".encode(),
        [program_id, last],
    )
    return [Stored(*row) for row in await cursor.fetchall()]


class TrialBalances:
    """Trial balances of the past, folded from the log in a thread of their own, entry by entry, so that memory does not grow with it.

    As of a position the fold begins at the nearest position whose sums are known: the head, the beginning, or one asked for before. As of
    an occurred time it is linear in the entries.
    """

    def __init__(self, dsn: str) -> None:
        self._threads = Threads(dsn, "fenrun-as-of", at_once=2)
        self._known: dict[tuple[str, str, int], Sums] = {}

    async def at(self, program_id: str, asset: str, as_of: AsOf, head: int, now: Sums) -> Sums:
        """Every account's sum. `now`: those right after the entry at `head`."""
        occurred_us = as_of.occurred_us
        if occurred_us is not None:
            return await self._threads.run(lambda connection: _moved(connection, program_id, asset, 0, as_of.position, occurred_us))
        known = {position: sums for (of, what, position), sums in self._known.items() if (of, what) == (program_id, asset)}
        known |= {0: {}, head: now}
        nearest = min(known, key=lambda position: abs(position - as_of.position))
        first, last = sorted((nearest, as_of.position))
        moved = await self._threads.run(lambda connection: _moved(connection, program_id, asset, first, last))
        sign = 1 if nearest <= as_of.position else -1
        found = {account: known[nearest].get(account, 0) + sign * moved.get(account, 0) for account in Account}
        self._known[(program_id, asset, as_of.position)] = found
        while len(self._known) > SUMS_KEPT:
            del self._known[next(iter(self._known))]
        return found


def _moved(connection: Sync, program_id: str, asset: str, after: int, last: int, occurred_us: int | None = None) -> Sums:
    """What the entries after one position and up to another moved, account by account."""
    sums: Counter[Account] = Counter()
    with connection.transaction():
        for stored in entries(connection, program_id, last, MOVING, after, occurred_us):
            for account, _, amount, moved in postings_of(stored):
                if moved == asset:
                    sums[account] += amount
    return sums
