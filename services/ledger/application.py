"""The ledger as the writer sees it: what to load for a batch of commands, and the domain's decide and evolve on that."""

from collections.abc import Collection, Sequence
from pathlib import Path

from services.kernel.decider import Answer, Draft, Entry
from services.ledger import codec
from services.ledger.domain import commands as c
from services.ledger.domain.books import NOTHING, Balance, Books, Member, evolve
from services.ledger.domain.decide import decide
from services.ledger.domain.facts import HoldPlaced, OrderPaid, PayoutRequested
from services.ledger.domain.plan import PlanVersion, version_of
from services.ledger.projection import LedgerChanges
from services.runtime import eventlog
from services.runtime.eventlog import Connection, Head, array
from services.runtime.stored import Stored

SQL = Path(__file__).resolve().parent / "sql"
MEMBER_COLUMNS = "member_id, tier, tier_position, locked, referrer_id, binding_position, touch_position"
BALANCE_COLUMNS = "pending, available, reserved, paid, debt, accrued, reversed, adjusted"
# Plan versions kept parsed; beyond it the oldest go.
PLANS_KEPT = 10_000


class Ledger:
    """Implements `runtime.writer.Participant`."""

    name = "ledger"
    handles: frozenset[type] = frozenset(c.Command.__args__)

    def __init__(self) -> None:
        self._plans: dict[tuple[str, int], PlanVersion] = {}

    def alone(self, command: c.Command) -> bool:
        """A release looks at everything that is due, so nothing may be decided before it in its batch."""
        return isinstance(command, c.ReleaseDue)

    def decide(self, state: Books, command: c.Command) -> Answer:
        return decide(state, command)

    def evolve(self, state: Books, entry: Entry) -> None:
        evolve(state, entry)

    def next_version(self, state: Books, stream: str) -> int:
        entries = state.streams[stream]
        return entries[-1].stream_version + 1 if entries else 1

    def write(self, draft: Draft) -> tuple[str, bytes, bytes]:
        return codec.write(draft)

    def read(self, stored: Stored) -> Entry:
        return codec.read(stored)

    def changes(self) -> LedgerChanges:
        return LedgerChanges()

    async def plans(self, connection: Connection, program_id: str) -> list[PlanVersion]:
        """Every published plan version, oldest first. They never change, so each is read and parsed once."""
        positions = await eventlog.plan_positions(connection, program_id)
        found = {position: known for position in positions if (known := self._plans.get((program_id, position)))}
        if len(found) < len(positions):
            for stored in await eventlog.at(connection, program_id, [position for position in positions if position not in found]):
                found[stored.position] = version_of(codec.read(stored).fact, stored.position)
                self._plans[(program_id, stored.position)] = found[stored.position]
            while len(self._plans) > PLANS_KEPT:
                del self._plans[next(iter(self._plans))]
        return [found[position] for position in positions]

    def people(self, command: c.Command) -> tuple[str, ...]:
        """Nobody: an order locks its buyer to somebody who was named before."""
        return ()

    async def load(self, connection: Connection, head: Head, commands: Sequence[c.Command], people: Collection[str]) -> Books:
        """The books as far as these commands look: streams first, then the people and balances that these name."""
        program_id = head.program_id
        books = Books(complete=False, currency=head.currency, position=head.position)
        books.plans = await self.plans(connection, program_id)
        streams: set[str] = set()
        members: set[str] = set()
        balances: set[str] = set()
        for command in commands:
            match command:
                case c.RecordOrder():
                    streams.add(f"order/{command.fact.order_id}")
                    members.add(command.fact.member_id)
                case c.CompleteOrder() | c.RefundOrder():
                    streams.add(f"order/{command.fact.order_id}")
                case c.ReleaseDue():
                    books.orders_due = await orders_due(connection, program_id, command.occurred_us, command.limit)
                    streams.update(f"order/{order_id}" for order_id in books.orders_due)
                case c.PlaceHold():
                    streams.add(f"hold/{command.fact.hold_id}")
                    if command.fact.member_id:
                        members.add(command.fact.member_id)
                    if command.fact.order_id:
                        streams.add(f"order/{command.fact.order_id}")
                case c.LiftHold():
                    streams.add(f"hold/{command.fact.hold_id}")
                case c.RequestPayout():
                    streams.add(f"payout/{command.fact.payout_id}")
                    members.add(command.fact.member_id)
                    balances.add(command.fact.member_id)
                case c.ConfirmPayout() | c.FailPayout():
                    streams.add(f"payout/{command.fact.payout_id}")
                case c.PostAdjustment():
                    streams.add(f"adjustment/{command.fact.adjustment_id}")
                    members.add(command.fact.member_id)
                    balances.add(command.fact.member_id)
                case c.PublishPlan():
                    streams.add(f"plan/{command.fact.plan_id}")
        if streams:
            books.streams = {stream: [] for stream in streams}
            for stored in await eventlog.streams(connection, program_id, list(streams)):
                books.streams[stored.stream].append(codec.read(stored))
        recorded_now = {f"order/{command.fact.order_id}" for command in commands if isinstance(command, c.RecordOrder)}
        for stream, entries in books.streams.items():
            if not entries:
                continue
            first = entries[0]
            if isinstance(first.fact, PayoutRequested):
                balances.add(first.fact.member_id)
            elif isinstance(first.fact, OrderPaid) and stream not in recorded_now:
                if books.orders_due is None:
                    members.add(first.fact.member_id)
                balances.update(person.member_id for person in first.decision.people)
        if members:
            # Somebody of this batch may come to stand above a buyer.
            members.update(people)
            depth = max((version.plan.depth for version in books.plans), default=0)
            books.members = dict.fromkeys(members)
            books.members.update(await self._paths(connection, program_id, list(members), depth))
        if balances:
            books.balances = dict.fromkeys(balances, NOTHING)
            books.balances.update(await self._balances(connection, program_id, head.currency, list(balances)))
        if books.orders_due:
            books.holds = await self._holds(connection, program_id, list(balances))
        return books

    async def _paths(self, connection: Connection, program_id: str, members: list[str], depth: int) -> dict[str, Member]:
        """These members and who stands up to `depth` above them, locked or not yet: a lock may fall in this batch."""
        cursor = await connection.execute(
            f"with recursive path as ("
            f" select {MEMBER_COLUMNS}, 0 as depth from ledger.members where program_id = %s and member_id = any(%s::text[])"
            f" union all select {', '.join('m.' + name for name in MEMBER_COLUMNS.split(', '))}, p.depth + 1 from path p"
            f" join ledger.members m on m.program_id = %s and m.member_id = p.referrer_id where p.depth < %s)"
            f" select distinct {MEMBER_COLUMNS} from path".encode(),
            [program_id, array(members), program_id, depth],
        )
        return {row[0]: Member(*row[1:]) for row in await cursor.fetchall()}

    async def _balances(self, connection: Connection, program_id: str, asset: str, members: list[str]) -> dict[str, Balance]:
        cursor = await connection.execute(
            f"select m.member_id, {', '.join('b.' + name for name in BALANCE_COLUMNS.split(', '))} from unnest(%s::text[]) as m(member_id)"
            f" cross join lateral (select * from ledger.balances b where b.program_id = %s and b.member_id = m.member_id and b.asset = %s"
            f" order by b.position desc limit 1) b".encode(),
            [array(members), program_id, asset],
        )
        return {row[0]: Balance(*row[1:]) for row in await cursor.fetchall()}

    async def _holds(self, connection: Connection, program_id: str, members: list[str]) -> dict[str, HoldPlaced]:
        """Holds in force on these members."""
        cursor = await connection.execute(
            "select hold_id, member_id from ledger.holds where program_id = %s and member_id = any(%s::text[]) and member_id <> ''",
            [program_id, array(members)],
        )
        return {hold_id: HoldPlaced(hold_id, member_id, "", "") for hold_id, member_id in await cursor.fetchall()}


async def orders_due(connection: Connection, program_id: str, as_of_us: int, limit: int) -> list[str]:
    """Up to `limit` orders of which something is due at or before a time and stopped by no hold, the one due earliest first."""
    found: dict[str, None] = {}
    after: tuple[int, str, str] = (-(2**63), "", "")
    rows_at_once = 4 * limit
    while True:
        # An order has a row for each payee, so rows are read on until there are orders enough.
        cursor = await connection.execute(
            "select due_us, order_id, member_id from ledger.due d where program_id = %s and due_us <= %s"
            " and (due_us, order_id, member_id) > (%s, %s, %s)"
            " and not exists (select from ledger.holds h where h.program_id = d.program_id and h.member_id = d.member_id"
            " and h.member_id <> '') and not exists (select from ledger.holds h where h.program_id = d.program_id"
            " and h.order_id = d.order_id and h.order_id <> '')"
            " order by due_us, order_id, member_id limit %s",
            [program_id, as_of_us, *after, rows_at_once],
        )
        rows = await cursor.fetchall()
        for _, order_id, _ in rows:
            found[order_id] = None
            if len(found) == limit:
                return list(found)
        if len(rows) < rows_at_once:
            return list(found)
        after = rows[-1]
