"""What callers ask for one by one and most often, read for many of them at a time: balances as of now, orders, explanations.

All that an answer needs is read in one statement, and so as of one moment, except for what stands before it in the log and never changes:
plans and seals.
"""

from collections.abc import Sequence
from operator import attrgetter
from typing import NamedTuple, TypeVar

from fenrun.ledger.v1 import ledger_pb2 as pb

from services.kernel.refusals import MemberUnknown, ProgramUnknown
from services.ledger import sealed, views
from services.ledger.application import Ledger
from services.ledger.domain.booking import Seal
from services.ledger.domain.books import NOTHING, Balance
from services.ledger.domain.plan import PlanVersion
from services.runtime.eventlog import Connection, integers, texts
from services.runtime.stored import Stored
from services.runtime.together import Together
from services.runtime.writer import Connect

# In one statement at most. Entries of orders may be large.
BALANCES, STREAMS = 256, 64
Found = TypeVar("Found")


class Held(NamedTuple):
    """A member's row, as of a head of the log."""

    head_position: int
    # That of the program.
    currency: str
    enrolled: bool
    balance: Balance
    # The last entry that moved it.
    position: int
    deposit_minor: int
    margin_minor: int

    def message(self, member_id: str, asset: str) -> pb.Balance:
        """Raises MemberUnknown."""
        if not self.enrolled:
            raise MemberUnknown(member_id)
        found = views.balance_message(member_id, asset, self.balance, self.position)
        found.deposit_minor, found.margin_minor = self.deposit_minor, self.margin_minor
        return found


class Stream(NamedTuple):
    """The entries of a stream, oldest first, as of a head of the log, and every plan version there was then."""

    head_position: int
    entries: list[Stored]
    plans: list[PlanVersion]


class History(NamedTuple):
    """An entry, last, and what stands before it in its stream; empty where the log has no entry there. The previous hash is that of the
    entry before it in the log; None before the first. Plans and seals: at least those that stand before it."""

    entries: list[Stored]
    previous_hash: bytes | None
    seals: list[Seal]
    plans: list[PlanVersion]


class Reads:
    """Each asks by a tuple that begins with the program; all raise ProgramUnknown. Bound to one event loop."""

    def __init__(self, connect: Connect, ledger: Ledger) -> None:
        self._ledger = ledger
        self._balances = Together(connect, _balances, BALANCES)
        self._streams = Together(connect, self._read_streams, STREAMS)
        self._histories = Together(connect, self._read_histories, STREAMS)

    async def balance(self, program_id: str, member_id: str, asset: str) -> Held:
        """An empty asset is the program's currency."""
        return _known(await self._balances.ask((program_id, member_id, asset)), program_id)

    async def order(self, program_id: str, order_id: str) -> Stream:
        return _known(await self._streams.ask((program_id, f"order/{order_id}")), program_id)

    async def history(self, program_id: str, position: int) -> History:
        return _known(await self._histories.ask((program_id, position)), program_id)

    async def _read_streams(self, connection: Connection, asked: Sequence[tuple[str, str]]) -> list[Stream | None]:
        programs, streams = zip(*asked, strict=True)
        cursor = await connection.execute(
            b"select * from ledger.streams_now(%s::text[], %s::text[])", [texts(programs), texts(streams)], binary=True
        )
        heads: dict[int, int] = {}
        entries: dict[int, list[Stored]] = {}
        for number, head_position, currency, *columns in await cursor.fetchall():
            if currency:
                heads[number] = head_position
                _note(entries, number, columns)
        plans = await self._ledger.plans_of(connection, {programs[number - 1] for number in heads})
        return [
            Stream(heads[number], _in_order(entries, number), plans[program_id]) if number in heads else None
            for number, program_id in enumerate(programs, start=1)
        ]

    async def _read_histories(self, connection: Connection, asked: Sequence[tuple[str, int]]) -> list[History | None]:
        programs, positions = zip(*asked, strict=True)
        cursor = await connection.execute(
            b"select * from ledger.histories(%s::text[], %s::bigint[])", [texts(programs), integers(positions)], binary=True
        )
        previous: dict[int, bytes | None] = {}
        entries: dict[int, list[Stored]] = {}
        seals: dict[str, list[Seal]] = {}
        for number, currency, previous_hash, was_sealed, *columns in await cursor.fetchall():
            if currency:
                previous[number] = previous_hash
                _note(entries, number, columns)
                if was_sealed:
                    seals[programs[number - 1]] = []
        for program_id in seals:
            seals[program_id] = await sealed.seals(connection, program_id)
        found = sorted((positions[number - 1], programs[number - 1]) for number in entries)
        plans = await self._ledger.plans_before(connection, {program_id: position for position, program_id in found})
        return [
            History(_in_order(entries, number), previous[number], seals.get(program_id, []), plans.get(program_id, []))
            if number in previous
            else None
            for number, program_id in enumerate(programs, start=1)
        ]


async def _balances(connection: Connection, asked: Sequence[tuple[str, str, str]]) -> list[Held | None]:
    cursor = await connection.execute(
        b"select * from ledger.balances_now(%s::text[], %s::text[], %s::text[])", [texts(column) for column in zip(*asked, strict=True)]
    )
    found: list[Held | None] = [None] * len(asked)
    for number, head_position, currency, enrolled, *figures, position, deposit, margin in await cursor.fetchall():
        if currency:
            balance = NOTHING if position is None else Balance(*figures)
            found[number - 1] = Held(head_position, currency, enrolled, balance, position or 0, deposit or 0, margin or 0)
    return found


def _known(found: Found | None, program_id: str) -> Found:
    # A program without a currency is the eventsourcing library's own.
    if found is None:
        raise ProgramUnknown(program_id)
    return found


def _note(entries: dict[int, list[Stored]], number: int, columns: Sequence[object]) -> None:
    if columns[0] is not None:
        entries.setdefault(number, []).append(Stored._make(columns))  # the columns as they stand in the table


def _in_order(entries: dict[int, list[Stored]], number: int) -> list[Stored]:
    return sorted(entries.get(number, ()), key=attrgetter("position"))
