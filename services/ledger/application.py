"""The ledger as the writer sees it: what to load for a batch of commands, and the domain's decide and evolve on that."""

import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, assert_never

from psycopg import AsyncCursor

from services.kernel.decider import Answer, Draft, Entry, Presumed
from services.kernel.refusals import Refusal
from services.ledger import codec, sealed
from services.ledger.domain import commands as c
from services.ledger.domain import counting
from services.ledger.domain.books import (
    NOTHING,
    Books,
    Evidence,
    Grant,
    Member,
    Order,
    Standing,
    count,
    count_by_day,
    evolve,
    fold_due,
    fold_period,
    source_of,
    stream_of,
)
from services.ledger.domain.closing import climbs, governing, rule_counters
from services.ledger.domain.counting import Key, Window, cap_counter, keys, task_counter
from services.ledger.domain.decide import decide
from services.ledger.domain.facts import Account, GroupJoined, GroupOpened, HoldPlaced, OrderPaid, PayoutRequested
from services.ledger.domain.orders import counted_of, standing_of
from services.ledger.domain.periods import period_of
from services.ledger.domain.plan import Plan, PlanVersion, version_of
from services.ledger.domain.rules import PeriodPool
from services.ledger.domain.tasks import rules_of
from services.ledger.projection import LedgerChanges
from services.runtime import eventlog
from services.runtime.eventlog import Connection, Head, HeadMoved, array, texts
from services.runtime.stored import Stored

SQL = Path(__file__).resolve().parent / "sql"
MEMBER_COLUMNS = "member_id, tier, tier_position, locked, referrer_id, binding_position, touch_position"
BALANCE_COLUMNS = "pending, available, reserved, paid, debt, accrued, reversed, adjusted"
# Plan versions kept parsed; beyond it the oldest go.
PLANS_KEPT = 10_000
# Members, and places of roles, of one program that are kept from batch to batch; beyond it those that were read first go, half of them all,
# and of the members those first who stand above nobody else that is kept: others' orders do not ask for them.
MEMBERS_KEPT = 200_000
# What folds into the views that members are looked up in.
FOLDING_MEMBERS = frozenset({"ledger.fold_members", "ledger.fold_standings"})
FOLDING_ROLES = "ledger.fold_roles"
# So many members are looked up alone first, because most often who stands above them is at hand; fewer with their paths, in one statement.
MANY = 16


class Ledger:
    """Implements `runtime.writer.Participant`."""

    name = "ledger"
    handles: frozenset[type] = frozenset(c.Command.__args__)

    def __init__(self) -> None:
        # By the hash of the entry that published it.
        self._plans: dict[bytes, PlanVersion] = {}
        # By program: up to which position its plans are known, and they.
        self._plans_through: dict[str, tuple[int, list[PlanVersion]]] = {}

    def alone(self, command: c.Command) -> bool:
        """A release looks at all that is due, a closing at all that a period counted, a seal at the whole log: nothing may be decided
        before them in their batch."""
        return isinstance(command, c.ReleaseDue | c.ClosePeriod | c.SealBooks)

    def decide(self, state: Books, command: c.Command) -> Answer:
        """As the domain's. Raises Presumed instead of a refusal where orders are only presumed to be new: a recorded one has an answer."""
        try:
            return decide(state, command)
        except Refusal:
            if state.presumed:
                raise Presumed from None
            # The next ones may be refused as well.
            state.presumed = None
            raise

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
        """Every published plan version, oldest first."""
        return (await self.plans_of(connection, [program_id]))[program_id]

    async def plans_of(self, connection: Connection, program_ids: Collection[str]) -> dict[str, list[PlanVersion]]:
        """The same of several programs."""
        found = await eventlog.plans(connection, program_ids)
        return {program_id: await self._plans_at(connection, program_id, plans) for program_id, plans in found.items()}

    async def plans_before(self, connection: Connection, positions: Mapping[str, int]) -> dict[str, list[PlanVersion]]:
        """At least the plan versions that stand before an entry of each program, oldest first. What stands there never changes: the log is
        asked again only for an entry beyond those it was asked for."""
        kept = self._plans_through
        found = {of: known[1] for of, position in positions.items() if (known := kept.get(of)) and known[0] >= position}
        if len(found) < len(positions):
            for program_id, plans in (await self.plans_of(connection, positions.keys() - found.keys())).items():
                found[program_id] = plans
                kept[program_id] = (positions[program_id], plans)
            while len(kept) > PLANS_KEPT:
                del kept[next(iter(kept))]
        return found

    async def _plans_at(self, connection: Connection, program_id: str, plans: Sequence[eventlog.Plan]) -> list[PlanVersion]:
        """They never change, so each is read and parsed once."""
        found = {plan.hash: known for plan in plans if (known := self._plans.get(plan.hash))}
        if len(found) < len(plans):
            for stored in await eventlog.at(connection, program_id, [plan.position for plan in plans if plan.hash not in found]):
                found[stored.hash] = self._plans[stored.hash] = version_of(codec.read(stored).fact, stored.position)
            while len(self._plans) > PLANS_KEPT:
                del self._plans[next(iter(self._plans))]
        return [found[plan.hash] for plan in plans]

    def people(self, command: c.Command) -> tuple[str, ...]:
        """Whoever's code stands on an order: the lock may fall to them. Anybody else it falls to was named before."""
        return (command.fact.referrer_id,) if isinstance(command, c.RecordOrder) and command.fact.referrer_id else ()

    def keep(self, state: Books) -> int:
        """People, where they stand, and the roles that were looked at stay: orders ask for the same ones again and again."""
        if state.closing:
            return 0
        # Orders name places as they like, also such as nobody holds a role at.
        if len(state.members) + len(state.roles) > MEMBERS_KEPT:
            for member_id in _forgotten(state.members):
                del state.members[member_id]
                state.standings.pop(member_id, None)
            for role in list(islice(state.roles, (len(state.roles) + 1) // 2)):
                del state.roles[role]
        state.streams, state.orders, state.balances, state.holds, state.apart = {}, {}, {}, {}, {}
        state.counters, state.windows, state.evidence, state.sources_due = {}, {}, {}, None
        state.seals = state.booked = None
        # Nothing was there already, so the next batch presumes the same of its own.
        state.presumed = set() if state.presumed is not None else None
        # Plans are kept apart, for all programs together.
        state.plans = []
        return len(state.members) + len(state.roles) + len(state.counted)

    async def load(
        self, connection: Connection, head: Head, commands: Sequence[c.Command], people: Collection[str], kept: Books | None
    ) -> Books:
        """The books as far as these commands look: streams first, then the people these name, then what is kept for those."""
        books = kept or Books(complete=False, currency=head.currency, position=head.position, closed_periods=None, seals=None, booked=None)
        # What other services' batches appended since may stand in it.
        books.streams, books.orders = {}, {}
        books.counted, books.counted_after = {}, head.position
        books.plans = await self._plans_at(connection, head.program_id, head.plans)
        await Loading(connection, head.program_id, books, set(people)).load(commands)
        books.looked_up = frozenset()
        for command in commands:
            if isinstance(command, c.SealBooks) and not books.streams[f"books/{command.fact.seal_id}"]:
                books.seals = await sealed.seals(connection, head.program_id)
                books.booked = await sealed.booked(connection, head, command.fact.through_us)
        return books

    async def look_up(
        self,
        connection: Connection,
        before: Head,
        head: Head,
        commands: Sequence[c.Command],
        people: Collection[str],
        kept: Books,
        folding: Collection[str],
    ) -> None:
        """Members whom orders name and who stands above them, where no member is being changed or all are at hand; then the counters that
        these orders look at, if neither roles that they look at nor holders of them may be changing."""
        recorded = [command for command in commands if isinstance(command, c.RecordOrder)]
        if not recorded or not all(plan.hash in self._plans for plan in head.plans):
            return
        kept.plans = await self._plans_at(connection, head.program_id, head.plans)
        loading = Loading(connection, head.program_id, kept, set(people))
        moving = not FOLDING_MEMBERS.isdisjoint(folding)
        if moving and loading.lacks_members(recorded):
            return
        await loading.load_members(recorded)
        if kept.counted_after != before.position or not any(version.plan.counts for version in kept.plans):
            return
        if loading.around(recorded) and (moving or FOLDING_ROLES in folding):
            return
        await loading.load_counted(before, head, recorded)


def _forgotten(members: Mapping[str, Member | None]) -> list[str]:
    """The half of them that goes."""
    above = {member.referrer_id for member in members.values() if member}
    below = (member_id for member_id in members if member_id not in above)
    return list(islice(chain(below, (member_id for member_id in members if member_id in above)), len(members) // 2))


class Loading:
    """One loading of partial books. What the commands look at is collected step by step, each step one set-based query for all of them."""

    def __init__(self, connection: Connection, program_id: str, books: Books, people: set[str]) -> None:
        self._connection, self._program_id, self._books = connection, program_id, books
        self._people = people
        self._members: set[str] = set()
        # (member, asset)
        self._balances: set[tuple[str, str]] = set()
        self._counters: set[Key] = set()
        self._windows: set[Window] = set()
        self._roles: set[tuple[str, str]] = set()
        self._tasks: list[c.RecordTask] = []

    async def load(self, commands: Sequence[c.Command]) -> None:
        books = self._books
        recorded = [command for command in commands if isinstance(command, c.RecordOrder)]
        await self._load_first_streams(commands, {f"order/{command.fact.order_id}" for command in recorded})
        if any(isinstance(command, c.FormGroup | c.FailGroup) for command in commands):
            joined = [entry.fact.order_id for entries in books.streams.values() for entry in entries if isinstance(entry.fact, GroupJoined)]
            await self._load_streams({f"order/{order_id}" for order_id in joined})
        reversing = any(isinstance(command, c.RefundOrder | c.FailGroup) for command in commands)
        new = {f"order/{command.fact.order_id}" for command in recorded}
        others = [stream for stream, entries in books.streams.items() if entries and stream.startswith("order/") and stream not in new]
        followed = [order for stream in others if reversing and (order := books.order(source_of(stream)))]
        for command in commands:
            self._named(command)
        for entries in list(books.streams.values()):
            if entries and isinstance(entries[0].fact, PayoutRequested):
                self._balances.add((entries[0].fact.member_id, books.currency))
            elif entries and isinstance(entries[0].fact, GroupOpened):
                self._members.add(entries[0].fact.opener_id)
        if books.closed_periods is None and any(version.plan.period_rules for version in books.plans) and (recorded or reversing):
            books.closed_periods = await self._closed_periods()
        if books.sources_due is not None:
            await self._due_of_sources()
        elif reversing:
            await self._followed(followed)
        await self._load_members(recorded)
        if self.around(recorded):
            await self._load_roles()
        for command in commands:
            if isinstance(command, c.ClosePeriod):
                await self._closing(command)
        for command in recorded:
            if id(command) not in books.looked_up:
                self._kept(command)
        for task in self._tasks:
            self._kept_for_task(task)
        deposits = {command.fact.member_id for command in commands if isinstance(command, c.MoveDeposit)}
        if deposits:
            await self._load_deposits(sorted(deposits))
        await self._load_counters()
        await self._load_windows()
        if self._balances:
            await self._load_balances()
        if self._balances:
            books.holds = await self._holds(sorted({member_id for member_id, _ in self._balances}))

    async def load_members(self, recorded: Sequence[c.RecordOrder]) -> None:
        """Only whom these orders name, and who stands above them."""
        for command in recorded:
            self._named(command)
        await self._load_members(recorded)

    def lacks_members(self, recorded: Sequence[c.RecordOrder]) -> bool:
        """Whether that would read anything."""
        for command in recorded:
            self._named(command)
        return bool(self._missing(self._members | self._people, self._depth())) or self._climbs(recorded)

    def around(self, recorded: Sequence[c.RecordOrder]) -> bool:
        """Whether these orders look at roles."""
        for command in recorded:
            self._around(command)
        return bool(self._roles)

    async def load_counted(self, before: Head, head: Head, recorded: Sequence[c.RecordOrder]) -> None:
        """Then the counters they look at, as of a head that is being appended after the one `before`, from whichever of the two is there.

        Raises HeadMoved where it is neither.
        """
        books = self._books
        if self._roles:
            await self._load_roles()
        # Where a group was opened is not looked up; balances neither.
        looked_up = [command for command in recorded if not command.fact.group_id]
        for command in looked_up:
            self._kept(command)
        for load, add in ((self._load_counters, count), (self._load_windows, count_by_day)):
            found = await load()
            if found == (before.position, before.rebuilt):
                add(books, books.counted.items())
            elif found not in (None, (head.position, head.rebuilt)):
                raise HeadMoved
        if not self._balances:
            books.looked_up = frozenset(map(id, looked_up))

    # ------------------------------------------------------------ what the commands name

    async def _load_first_streams(self, commands: Sequence[c.Command], new: set[str]) -> None:
        """The streams that commands name, `new` being those of orders to be recorded.

        Where none of those was there in the batch before, they are presumed to be new again, and not looked for: an append finds it out if
        one is there after all, because a stream has each version once.
        """
        books = self._books
        others = {stream for command in commands for stream in await self._first_streams(command)}
        if books.presumed is not None:
            books.presumed = new - others
            books.streams.update({stream: [] for stream in books.presumed})
        await self._load_streams(others | new)
        if books.presumed is None and new and not any(books.streams[stream] for stream in new):
            books.presumed = set()

    async def _first_streams(self, command: c.Command) -> list[str]:
        match command:
            case c.RecordOrder():
                return [f"group/{command.fact.group_id}"] if command.fact.group_id else []
            case c.CompleteOrder() | c.RefundOrder():
                return [f"order/{command.fact.order_id}"]
            case c.ReleaseDue():
                found = await orders_due(self._connection, self._program_id, command.occurred_us, command.limit)
                self._books.sources_due = found
                return [stream_of(source) for source in found]
            case c.PlaceHold():
                held = [f"order/{command.fact.order_id}"] if command.fact.order_id else []
                return [f"hold/{command.fact.hold_id}", *held]
            case c.LiftHold():
                return [f"hold/{command.fact.hold_id}"]
            case c.RequestPayout() | c.ConfirmPayout() | c.FailPayout():
                return [f"payout/{command.fact.payout_id}"]
            case c.PostAdjustment():
                return [f"adjustment/{command.fact.adjustment_id}"]
            case c.PublishPlan():
                return [f"plan/{command.fact.plan_id}"]
            case c.OpenGroup() | c.FormGroup() | c.FailGroup():
                return [f"group/{command.fact.group_id}"]
            case c.RecordTask():
                return [f"task/{command.fact.task_id}"]
            case c.ClosePeriod():
                return [f"period/{command.fact.period_id}"]
            case c.MoveDeposit():
                return [f"deposit/{command.fact.deposit_id}"]
            case c.TransferStock():
                return [f"stock/{command.fact.transfer_id}"]
            case c.OpenBalance():
                return [f"opening/{command.fact.opening_id}"]
            case c.SealBooks():
                return [f"books/{command.fact.seal_id}"]
        assert_never(command)

    def _named(self, command: c.Command) -> None:
        """The members a command names, and whose balance it looks at."""
        currency = self._books.currency
        match command:
            case c.RecordOrder():
                fact = command.fact
                self._members.add(fact.member_id)
                if fact.referrer_id:
                    self._members.add(fact.referrer_id)
                attributions = (*fact.attributions, *(one for line in fact.lines for one in line.attributions))
                self._members.update(one.member_id for one in attributions if one.member_id)
            case c.PlaceHold():
                if command.fact.member_id:
                    self._members.add(command.fact.member_id)
            case c.RequestPayout() | c.OpenBalance():
                self._members.add(command.fact.member_id)
                self._balances.add((command.fact.member_id, currency))
            case c.PostAdjustment():
                self._members.add(command.fact.member_id)
                self._balances.add((command.fact.member_id, command.fact.currency))
            case c.OpenGroup():
                self._members.add(command.fact.opener_id)
            case c.RecordTask():
                self._members.add(command.fact.member_id)
                self._tasks.append(command)
                self._counters.update(
                    Key(task_counter(rule.id), "", command.fact.member_id)
                    for version in self._books.plans
                    for _, rule in rules_of(version.plan, command.fact.task)
                )
            case c.MoveDeposit():
                self._members.add(command.fact.member_id)
            case c.TransferStock():
                self._members.update((command.fact.from_member_id, command.fact.to_member_id))

    async def _due_of_sources(self) -> None:
        """Whose balances a release moves."""
        for source in self._books.sources_due or ():
            due, _ = fold_due(self._books.streams[stream_of(source)])
            self._balances.update((member_id, asset or self._books.currency) for member_id, _, asset in due)

    async def _followed(self, orders: Sequence[Order]) -> None:
        """What taking back an order, or a part of it, looks at."""
        books = self._books
        closed = {order.decision.period_id for order in orders if order.decision.period_id and books.is_closed(order.decision.period_id)}
        await self._load_streams({f"period/{period_id}" for period_id in closed})
        for period_id in closed:
            period = fold_period(books.streams[f"period/{period_id}"])
            assert period is not None, "a period that is closed has a stream"
            plan = books.plan_at(period.decision.plan_position).plan
            assets = [books.currency, *plan.points]
            self._balances.update((person.member_id, asset) for person in period.decision.people for asset in assets)
        resting = []
        for order in orders:
            plan = books.plan_at(order.decision.plan_position).plan
            self._members.add(order.fact.member_id)
            assets = [books.currency, *plan.points]
            self._balances.update((person.member_id, asset) for person in order.decision.people for asset in assets)
            self._count(counted_of(order, plan, standing_of(order, plan)))
            if plan.on_evidence_refunded != "keep":
                resting.append(order.fact.order_id)
        if resting:
            books.evidence = {order_id: [] for order_id in resting}
            cursor = await self._connection.execute(
                "select order_id, member_id, tier, previous_tier, position, previous_position from ledger.evidence"
                " where program_id = %s and order_id = any(%s::text[])",
                [self._program_id, array(resting)],
            )
            for order_id, *evidence in await cursor.fetchall():
                books.evidence[order_id].append(Evidence(*evidence))
                self._members.add(evidence[0])

    def _around(self, command: c.RecordOrder) -> None:
        """The roles that an order's plan looks at."""
        version = self._books.plan_in_force(command.occurred_us)
        if version is None:
            return
        fact, plan = command.fact, version.plan
        self._roles.update((role, "") for role in plan.pool_roles)
        for one in (*fact.attributions, *(one for line in fact.lines for one in line.attributions)):
            if one.role in plan.attributed_roles and not one.member_id:
                self._roles.add((one.role, one.scope))

    def _kept(self, command: c.RecordOrder) -> None:
        """Counters and balances that recording an order looks at."""
        books = self._books
        version = books.plan_in_force(command.occurred_us)
        if version is None or not (version.plan.counts or version.plan.pays_at_once):
            return
        plan, fact = version.plan, command.fact
        above = self._above(fact, plan)
        order = counting.Order(plan, fact, command.occurred_us, above, "", False)
        self._count(order)
        concerned = {fact.member_id, *above, *(one.member_id for one in fact.attributions if one.member_id)}
        concerned.update(one.member_id for line in fact.lines for one in line.attributions if one.member_id)
        concerned.update(grant.member_id for role in self._roles for grant in books.roles.get(role, ()))
        if fact.group_id and books.streams[f"group/{fact.group_id}"]:
            concerned.add(books.streams[f"group/{fact.group_id}"][0].fact.opener_id)
        if plan.pays_at_once:
            self._balances.update((member_id, asset) for member_id in concerned for asset in (books.currency, *plan.points))
        capped = [rule for rule in plan.rules if rule.cap_period_minor is not None]
        if capped:
            period_id = period_of(plan, command.occurred_us).period_id
            self._counters.update(Key(cap_counter(rule.id), period_id, member_id) for rule in capped for member_id in concerned)

    def _count(self, order: counting.Order) -> None:
        for key in keys(order):
            if isinstance(key, Window):
                self._windows.add(key)
            else:
                self._counters.add(key)

    def _kept_for_task(self, command: c.RecordTask) -> None:
        """Balances that a task paid at once looks at."""
        version = self._books.plan_in_force(command.occurred_us)
        member = self._books.members.get(command.fact.member_id)
        if version is not None and member is not None and version.plan.pays_at_once:
            assets = (self._books.currency, *version.plan.points)
            concerned = filter(None, (command.fact.member_id, member.referrer_id))
            self._balances.update((member_id, asset) for member_id in concerned for asset in assets)

    def _above(self, fact: OrderPaid, plan: Plan) -> list[str]:
        """Who stands above a buyer, should the lock fall with this order; as far as the plan looks."""
        found: list[str] = []
        member = self._books.members.get(fact.member_id)
        if member is not None and not member.locked and plan.touch == "order" and fact.referrer_id:
            member = member._replace(referrer_id=fact.referrer_id)
        while member is not None and member.referrer_id and len(found) < plan.depth:
            found.append(member.referrer_id)
            member = self._books.members.get(member.referrer_id)
        return found

    # ------------------------------------------------------------ reading

    async def _load_streams(self, names: set[str]) -> None:
        names -= set(self._books.streams)
        if names:
            self._books.streams.update({stream: [] for stream in names})
            for stored in await eventlog.streams(self._connection, self._program_id, list(names)):
                self._books.streams[stored.stream].append(codec.read(stored))

    async def _closed_periods(self) -> set[str]:
        cursor = await self._connection.execute("select period_id from ledger.periods where program_id = %s", [self._program_id])
        return {period_id for (period_id,) in await cursor.fetchall()}

    async def _load_members(self, recorded: Sequence[c.RecordOrder]) -> None:
        if not self._members:
            return
        # Somebody of this batch may come to stand above a buyer.
        self._members |= self._people
        depth = self._depth()
        missing = self._missing(self._members, depth)
        if len(missing) >= MANY:
            await self._paths(set(missing.values()), 0)
            missing = self._missing(missing, depth)
        if missing:
            await self._paths(missing, depth)
        if self._climbs(recorded):
            await self._paths({command.fact.referrer_id for command in recorded if command.fact.referrer_id}, None)

    def _depth(self) -> int:
        """A task looks one up."""
        return max([1, *(version.plan.depth for version in self._books.plans)])

    def _climbs(self, recorded: Sequence[c.RecordOrder]) -> bool:
        """Whether a lock may fall to a code on an order: that it would close a circle is seen only from the whole way up."""
        return any(version.plan.touch == "order" for version in self._books.plans) and any(one.fact.referrer_id for one in recorded)

    def _missing(self, named: Iterable[str], depth: int) -> dict[str, str]:
        """{member: the first who is not at hand, of them and who stands up to `depth` above them}, where somebody is not."""
        members, found = self._books.members, {}
        for named_id in named:
            member_id = named_id
            for _ in range(depth + 1):
                if member_id not in members:
                    found[named_id] = member_id
                    break
                member = members[member_id]
                if member is None or not member.referrer_id:
                    break
                member_id = member.referrer_id
        return found

    async def _paths(self, members: Collection[str], depth: int | None) -> None:
        """These members and who stands up to `depth` (None: at any height) above them, locked or not yet: a lock may fall in this batch."""
        books = self._books
        for member_id in members:
            books.members.setdefault(member_id, None)
        if depth is not None:
            statement: Any = "select * from ledger.paths(%s, %s::text[], %s)"
            cursor = await self._connection.execute(statement, [self._program_id, array(members), depth])
        else:
            cursor = await self._whole_paths(members)
        for member_id, tier, tier_position, locked, referrer_id, binding_position, touch_position, *standing in await cursor.fetchall():
            # Many are kept: what is the same is kept once.
            touch_position = tier_position if touch_position == tier_position else touch_position
            books.members[member_id] = Member(sys.intern(tier), tier_position, locked, referrer_id, binding_position, touch_position)
            if standing[0] is not None:
                books.standings[member_id] = Standing(*standing)

    async def _whole_paths(self, members: Collection[str]) -> AsyncCursor[tuple[Any, ...]]:
        """The same with everybody above them. Whoever stands above several is there once."""
        return await self._connection.execute(
            f"with recursive path as (select {MEMBER_COLUMNS} from ledger.members where program_id = %s and member_id = any(%s::text[])"
            f" union select {', '.join('m.' + name for name in MEMBER_COLUMNS.split(', '))}"
            " from path p cross join lateral (select * from ledger.members where program_id = %s and member_id = p.referrer_id offset 0) m)"
            " select p.*, s.frozen, s.seat_until_us, s.fallback_tier, s.fallback_position from path p left join lateral"
            " (select * from ledger.standings where program_id = %s and member_id = p.member_id offset 0) s on true".encode(),
            [self._program_id, array(members), self._program_id, self._program_id],
        )

    async def _load_roles(self) -> None:
        books = self._books
        roles = sorted(role for role in self._roles if role not in books.roles)
        if roles:
            await self._load_grants(roles)
        holders = {grant.member_id for role in self._roles for grant in books.roles[role] if grant.member_id not in books.members}
        if holders:
            await self._paths(holders, 0)

    async def _load_grants(self, roles: Sequence[tuple[str, str]]) -> None:
        books = self._books
        books.roles.update({role: [] for role in roles})
        cursor = await self._connection.execute(
            "select g.grant_id, g.member_id, g.role, g.scope, g.weight, g.from_us, g.until_us, g.position"
            " from unnest(%s::text[], %s::text[]) as r(role, scope)"
            " cross join lateral (select * from ledger.roles where program_id = %s and role = r.role and scope = r.scope offset 0) g"
            " order by g.position",
            [array(role for role, _ in roles), array(scope for _, scope in roles), self._program_id],
        )
        for row in await cursor.fetchall():
            books.roles[(row[2], row[3])].append(Grant(*row))

    async def _load_counters(self) -> tuple[int, int] | None:
        """As of which head: its position, and how often views had been rebuilt then. None: all were at hand."""
        counters = self._books.counters
        asked = [key for key in self._counters if key not in counters]
        if not asked:
            return None
        counters.update(dict.fromkeys(asked, 0))
        cursor = await self._connection.execute(
            "select p.head_position, p.rebuilt, a.n, k.amount from fenrun.programs p"
            " cross join unnest(%s::text[], %s::text[], %s::text[]) with ordinality as a(counter, bucket, member_id, n)"
            " left join lateral (select amount from ledger.counters where program_id = p.program_id and counter = a.counter"
            " and bucket = a.bucket and member_id = a.member_id offset 0) k on true where p.program_id = %s",
            [*map(texts, zip(*asked, strict=True)), self._program_id],
        )
        found = await cursor.fetchall()
        for *_, number, amount in found:
            if amount is not None:
                counters[asked[number - 1]] = amount
        return found[0][0], found[0][1]

    async def _load_windows(self) -> tuple[int, int] | None:
        """As `_load_counters`."""
        windows = self._books.windows
        asked = [window for window in self._windows if window not in windows.get((window.counter, window.member_id), ())]
        if not asked:
            return None
        cursor = await self._connection.execute(
            "select p.head_position, p.rebuilt, a.n, k.total from fenrun.programs p"
            " cross join unnest(%s::text[], %s::text[], %s::text[], %s::text[])"
            " with ordinality as a(counter, member_id, first_day, last_day, n)"
            " cross join lateral (select coalesce(sum(amount), 0)::bigint as total from ledger.counters where program_id = p.program_id"
            " and counter = a.counter and member_id = a.member_id and bucket between a.first_day and a.last_day) k where p.program_id = %s",
            [*map(texts, zip(*asked, strict=True)), self._program_id],
        )
        found = await cursor.fetchall()
        for *_, number, total in found:
            window = asked[number - 1]
            windows.setdefault((window.counter, window.member_id), {})[window] = total
        return found[0][0], found[0][1]

    async def _load_balances(self) -> None:
        books = self._books
        asked = sorted(self._balances)
        books.balances.update((key, list(NOTHING)) for key in asked)
        cursor = await self._connection.execute(
            f"select m.member_id, m.asset, {', '.join('b.' + name for name in BALANCE_COLUMNS.split(', '))}"
            f" from unnest(%s::text[], %s::text[]) as m(member_id, asset)"
            " cross join lateral (select * from ledger.balances"
            " where program_id = %s and member_id = m.member_id and asset = m.asset offset 0) b".encode(),
            [array(member_id for member_id, _ in asked), array(asset for _, asset in asked), self._program_id],
        )
        for member_id, asset, *held in await cursor.fetchall():
            books.balances[(member_id, asset)] = held

    async def _load_deposits(self, members: list[str]) -> None:
        books = self._books
        books.apart.update({(member_id, books.currency, Account.DEPOSIT): 0 for member_id in members})
        cursor = await self._connection.execute(
            "select member_id, balance from ledger.apart"
            " where program_id = %s and member_id = any(%s::text[]) and asset = %s and account = %s",
            [self._program_id, array(members), books.currency, Account.DEPOSIT.value],
        )
        for member_id, balance in await cursor.fetchall():
            books.apart[(member_id, books.currency, Account.DEPOSIT)] = balance

    async def _holds(self, members: list[str]) -> dict[str, HoldPlaced]:
        """Holds in force on these members."""
        cursor = await self._connection.execute(
            "select hold_id, member_id from ledger.holds where program_id = %s and member_id = any(%s::text[]) and member_id <> ''",
            [self._program_id, array(members)],
        )
        return {hold_id: HoldPlaced(hold_id, member_id, "", "") for hold_id, member_id in await cursor.fetchall()}

    async def _closing(self, command: c.ClosePeriod) -> None:
        """Everything that a period counted, and everybody its rules look at."""
        books, period_id = self._books, command.fact.period_id
        if books.streams[f"period/{period_id}"]:
            return
        try:
            version, _ = governing(books, period_id, command.occurred_us)
        except Refusal:
            return
        plan = version.plan
        books.closing = True
        cursor = await self._connection.execute(
            "select counter, bucket, member_id, amount from ledger.counters"
            " where program_id = %s and bucket = %s and counter >= 'rule:' and counter < 'rule;' and counter = any(%s::text[])",
            [self._program_id, period_id, array(rule_counters(plan))],
        )
        books.counters.update({Key(*row[:3]): row[3] for row in await cursor.fetchall()})
        members = {key.member_id for key in books.counters}
        pools = [rule for _, rule in plan.period_rules if isinstance(rule, PeriodPool)]
        self._roles.update((rule.role, "") for rule in pools if rule.role)
        if self._roles:
            await self._load_roles()
            members |= {grant.member_id for grants in books.roles.values() for grant in grants}
        tiers = {tier for rule in pools for tier in rule.tiers}
        if tiers:
            cursor = await self._connection.execute(
                "select member_id from ledger.members where program_id = %s and tier = any(%s::text[])"
                " union select member_id from ledger.standings where program_id = %s and fallback_tier = any(%s::text[])",
                [self._program_id, array(tiers), self._program_id, array(tiers)],
            )
            members |= {member_id for (member_id,) in await cursor.fetchall()}
        climbing = any(climbs(rule) for _, rule in plan.period_rules)
        await self._paths(members, None if climbing else 0)
        if plan.pays_at_once:
            self._balances.update((member_id, asset) for member_id in books.members for asset in (books.currency, *plan.points))


async def orders_due(connection: Connection, program_id: str, as_of_us: int, limit: int) -> list[str]:
    """Up to `limit` sources of which something is due at or before a time and stopped by no hold, the one due earliest first."""
    found: dict[str, None] = {}
    after: tuple[int, str, str, str] = (-(2**63), "", "", "")
    rows_at_once = 4 * limit
    while True:
        # An order has a row for each payee, so rows are read on until there are orders enough.
        cursor = await connection.execute(
            "select due_us, order_id, member_id, asset from ledger.due d where program_id = %s and due_us <= %s"
            " and (due_us, order_id, member_id, asset) > (%s, %s, %s, %s)"
            " and not exists (select from ledger.holds h where h.program_id = d.program_id and h.member_id = d.member_id"
            " and h.member_id <> '') and not exists (select from ledger.holds h where h.program_id = d.program_id"
            " and h.order_id = d.order_id and h.order_id <> '')"
            " order by due_us, order_id, member_id, asset limit %s",
            [program_id, as_of_us, *after, rows_at_once],
        )
        rows = await cursor.fetchall()
        for _, order_id, _, _ in rows:
            found[order_id] = None
            if len(found) == limit:
                return list(found)
        if len(rows) < rows_at_once:
            return list(found)
        after = rows[-1]
