"""Statistics as a followed projection: the figures a batch touches, read, folded and written (live); and the whole log in memory.

Why team volume is kept and not computed when it is asked for. Asked for, one member's is a walk over their downline, but a leaderboard
needs everybody's: at 100,000 members about a second of processor time for every position it is asked at, in the process that also takes
orders. Kept, a board is one scan of everybody's rows. The price is paid per batch and not per order: the path above all buyers of a batch
is read once, their volume is added up on the way (domain/places.py), and each ancestor's row is written once. A tree of usual depth costs a
few rows for an order. With 10,000 people above the buyer a batch costs 10,000 steps whether it holds one order or 24,000, so one that falls
behind takes larger batches and catches up: linear in the orders, never orders times depth. docs/statistics.md has the measurements.

Invites and cohorts are counted when they are asked for: they need no tree.
"""

import contextlib
import itertools
from collections.abc import Collection, Mapping, Sequence
from operator import add as add_up
from pathlib import Path
from typing import NamedTuple

from services.kernel.decider import Entry
from services.runtime import eventlog
from services.runtime.eventlog import Connection, array, integers, keyed, texts
from services.runtime.projecting import First, Folding, FollowedView, Row, View
from services.runtime.stored import Stored
from services.statistics import codec
from services.statistics.domain.facts import Changed, Corrected, Enrolled, Locked, Paid, Rule
from services.statistics.domain.figures import Earning, Figures, Member, Source, Volume, fold, latest, source_of

SQL = Path(__file__).resolve().parent / "sql"
NAME = "statistics"
MEMBERS = FollowedView("statistics.members", ("member_id", "locked", "referrer_id", "locked_month", "paid"), 1)
BINDINGS = FollowedView("statistics.bindings", ("member_id", "position", "referrer_id"), 2)
SOURCES = FollowedView("statistics.sources", ("source", "remaining_minor"), 1)
_VOLUME, _VOLUME_IN_ALL = ("own_minor", "direct_minor", "team_minor"), ("own_all_minor", "direct_all_minor", "team_all_minor")
# A member's last month and all of them in one row, which is what an order changes; the months before are apart.
VOLUMES = FollowedView("statistics.volumes", ("member_id", "month", *_VOLUME, *_VOLUME_IN_ALL), 1)
EARLIER_VOLUMES = FollowedView("statistics.earlier_volumes", ("month", "member_id", *_VOLUME), 2)
INCOME = FollowedView("statistics.income", ("member_id", "asset", "rule_id", "month", "amount", "amount_all"), 3)
EARLIER_INCOME = FollowedView("statistics.earlier_income", ("month", "asset", "rule_id", "member_id", "amount"), 4)
VIEWS = (MEMBERS, BINDINGS, SOURCES, VOLUMES, EARLIER_VOLUMES, INCOME, EARLIER_INCOME)
# Plan versions kept parsed; beyond it the oldest go.
PLANS_KEPT = 10_000
# Of the whole log in memory: so many orders, tasks and periods, and so many changes of volume that have not climbed yet. Each takes some
# hundreds of bytes; the more climb together, the less each costs.
SOURCES_KEPT, PLACEMENTS_KEPT = 200_000, 500_000


class Statistics:
    """Implements `runtime.following.Followed`."""

    name = NAME
    skips = True

    def __init__(self) -> None:
        # By the hash of the entry that published it: after a restore another plan may stand at a position.
        self._plans: dict[bytes, tuple[Rule, ...]] = {}

    async def fold(self, connection: Connection, entries: Mapping[str, Sequence[Stored]]) -> None:
        read = {program_id: [entry for entry in map(codec.read, some) if entry.fact is not None] for program_id, some in entries.items()}
        figures = await self._load(connection, {program_id: some for program_id, some in read.items() if some})
        for program_id, of_program in figures.items():
            for entry in read[program_id]:
                fold(of_program, entry)
        await _write(connection, figures)

    async def _load(self, connection: Connection, read: Mapping[str, Sequence[Entry]]) -> dict[str, Figures]:
        """As much of the figures as these entries look at, by program."""
        figures = {program_id: Figures() for program_id in read}
        needs = {program_id: _needs(entries) for program_id, entries in read.items()}
        for program_id, need in needs.items():
            if need.sources:
                sources = await _sources(connection, program_id, need.sources, read[program_id][0].position)
                figures[program_id].sources = sources
                need.plans.update(source.plan_position for source in sources.values())
                need.buyers.update(source.buyer_id for source in sources.values())
            need.members.update(need.buyers)
            need.people.update(need.buyers)
            need.people.discard("")
        if buyers := {program_id: need.buyers for program_id, need in needs.items() if need.buyers}:
            cursor = await connection.execute(
                "select a.program_id, v.member_id, v.own_all_minor from unnest(%s::text[], %s::text[]) as a(program_id, names)"
                " cross join lateral (select * from statistics.volumes where program_id = a.program_id"
                " and member_id = any(a.names::text[]) offset 0) v",
                keyed(buyers),
            )
            for program_id, member_id, own_all_minor in await cursor.fetchall():
                figures[program_id].remaining[member_id] = own_all_minor
        if members := {program_id: need.members for program_id, need in needs.items() if need.members}:
            cursor = await connection.execute(
                "select a.program_id, m.member_id, m.locked, m.referrer_id, m.locked_month, m.paid"
                " from unnest(%s::text[], %s::text[]) as a(program_id, names) cross join lateral (select * from statistics.members"
                " where program_id = a.program_id and member_id = any(a.names::text[]) offset 0) m",
                keyed(members),
            )
            for program_id, member_id, *member in await cursor.fetchall():
                figures[program_id].members[member_id] = Member(*member)
        if people := {program_id: need.people for program_id, need in needs.items() if need.people}:
            await _load_histories(connection, figures, people)
        if plans := {program_id: need.plans for program_id, need in needs.items() if need.plans}:
            await self._load_rules(connection, figures, plans)
        return figures

    async def _load_rules(self, connection: Connection, figures: Mapping[str, Figures], positions: Mapping[str, set[int]]) -> None:
        plans = await eventlog.hashes_of(connection, positions)
        missing: dict[str, list[int]] = {}
        for (program_id, position), plan in plans.items():
            if plan not in self._plans:
                missing.setdefault(program_id, []).append(position)
        for program_id, some in missing.items():
            for stored in await eventlog.at(connection, program_id, some):
                self._plans[stored.hash] = codec.read(stored).fact.rules
        for (program_id, position), plan in plans.items():
            if rules := self._plans.get(plan):
                figures[program_id].plans[position] = rules
        while len(self._plans) > PLANS_KEPT:
            del self._plans[next(iter(self._plans))]


class _Needs(NamedTuple):
    """What entries look at: members; people whose bindings are needed, with everybody's above; plan versions; sources that are told of
    before; buyers whose orders change."""

    members: set[str]
    people: set[str]
    plans: set[int]
    sources: set[str]
    buyers: set[str]


def _needs(entries: Sequence[Entry]) -> _Needs:
    need = members, people, plans, sources, buyers = _Needs(set(), set(), set(), set(), set())
    # Who bought, by the order.
    bought: dict[str, str] = {}
    for entry in entries:
        match entry.fact:
            case Enrolled():
                members.add(entry.fact.member_id)
            case Locked() | Corrected():
                members.add(entry.fact.member_id)
                people |= {entry.fact.member_id, entry.fact.referrer_id}
            case Paid():
                plans.add(entry.fact.plan_position)
                bought[entry.fact.source] = entry.fact.buyer_id
                if entry.fact.buyer_id:
                    members.add(entry.fact.buyer_id)
                    people.add(entry.fact.buyer_id)
                if entry.fact.lock:
                    members.add(entry.fact.lock.member_id)
                    people |= {entry.fact.lock.member_id, entry.fact.lock.referrer_id}
            case Changed():
                if entry.fact.source in bought:
                    buyers.add(bought[entry.fact.source])
                else:
                    sources.add(entry.fact.source)
                if entry.fact.released_member_id:
                    members.add(entry.fact.released_member_id)
                    people.add(entry.fact.released_member_id)
    return need


async def _sources(connection: Connection, program_id: str, names: set[str], before: int) -> dict[str, Source]:
    """Sources told of before a position, as they stand: the first entry of each says what it was, a row what remains if that is less."""
    cursor = await connection.execute(
        "select source, remaining_minor from statistics.sources where program_id = %s and source = any(%s::text[])",
        [program_id, texts(names)],
    )
    remaining: dict[str, int] = dict(await cursor.fetchall())
    told = [stored for stored in await eventlog.firsts(connection, program_id, list(names)) if stored.position < before]
    cursor = await connection.execute(
        "select position from fenrun.quarantined where program_id = %s and projection = %s and position = any(%s::bigint[])",
        [program_id, NAME, integers([stored.position for stored in told])],
    )
    left_out = {position for (position,) in await cursor.fetchall()}
    sources = {}
    for entry in [codec.read(stored) for stored in told if stored.position not in left_out]:
        if isinstance(entry.fact, Paid):
            source = source_of(entry, entry.fact)
            sources[entry.fact.source] = source._replace(remaining_minor=remaining.get(entry.fact.source, source.remaining_minor))
    return sources


async def _load_histories(connection: Connection, figures: Mapping[str, Figures], people: Mapping[str, set[str]]) -> None:
    """The bindings of these people, and of everybody who was ever above them."""
    # OFFSET 0 keeps each step a look-up by key. Of a plain join the planner may think, while it knows little of a table that has just
    # grown, that reading the whole of it for every level is cheaper.
    cursor = await connection.execute(
        "with recursive up(program_id, member_id, position, referrer_id) as ("
        ' select a.program_id collate "C", named.member_id collate "C", b.*'
        " from unnest(%s::text[], %s::text[]) as a(program_id, names) cross join lateral unnest(a.names::text[]) as named(member_id)"
        " cross join lateral (select position, referrer_id from statistics.bindings"
        " where program_id = a.program_id and member_id = named.member_id offset 0) b"
        " union select up.program_id, up.referrer_id, b.* from up cross join lateral (select position, referrer_id"
        " from statistics.bindings where program_id = up.program_id and member_id = up.referrer_id offset 0) b)"
        " select program_id, member_id, position, referrer_id from up order by position",
        keyed(people),
    )
    for program_id, member_id, position, referrer_id in await cursor.fetchall():
        figures[program_id].histories.setdefault(member_id, []).append((position, referrer_id))


async def _write(connection: Connection, figures: Mapping[str, Figures]) -> None:
    # Rows in order, so that new ones lie together.
    each = sorted(figures.items())
    if members := [(program_id, name, *of.members[name]) for program_id, of in each for name in sorted(of.members_changed)]:
        programs, names, locked, referrers, months, paid = zip(*members, strict=True)
        await connection.execute(
            "insert into statistics.members"
            " select * from unnest(%s::text[], %s::text[], %s::boolean[], %s::text[], %s::text[], %s::boolean[])"
            " on conflict (program_id, member_id) do update set locked = excluded.locked, referrer_id = excluded.referrer_id,"
            " locked_month = excluded.locked_month, paid = excluded.paid",
            [texts(programs), texts(names), array(locked), texts(referrers), texts(months), array(paid)],
        )
    if moves := [(program_id, *move) for program_id, of in each for move in of.moves]:
        programs, movers, positions, referrers = zip(*moves, strict=True)
        await connection.execute(
            "insert into statistics.bindings select * from unnest(%s::text[], %s::text[], %s::bigint[], %s::text[])",
            [texts(programs), texts(movers), integers(positions), texts(referrers)],
        )
    if sources := [(program_id, name, of.sources[name].remaining_minor) for program_id, of in each for name in sorted(of.sources_changed)]:
        programs, names, remaining = zip(*sources, strict=True)
        await connection.execute(
            "insert into statistics.sources select * from unnest(%s::text[], %s::text[], %s::bigint[])"
            " on conflict (program_id, source) do update set remaining_minor = excluded.remaining_minor",
            [texts(programs), texts(names), integers(remaining)],
        )
    volumes = [(program_id, *volume_rows(of.volumes())) for program_id, of in each]
    income = [(program_id, *income_rows(of.income())) for program_id, of in each]
    await _fold(connection, VOLUMES, [(program_id, *row) for program_id, rows, _ in volumes for row in sorted(rows)])
    await _fold(connection, EARLIER_VOLUMES, [(program_id, *row) for program_id, _, rows in volumes for row in sorted(rows)])
    await _fold(connection, INCOME, [(program_id, *row) for program_id, rows, _ in income for row in sorted(rows)])
    await _fold(connection, EARLIER_INCOME, [(program_id, *row) for program_id, _, rows in income for row in sorted(rows)])


async def _fold(connection: Connection, view: View, changes: Sequence[Row]) -> None:
    """Adds changes to a view's rows, in the database: for each key one, behind its program."""
    if changes:
        kinds = ["text" if isinstance(value, str) else "bigint" for value in changes[0]]
        columns = zip(*changes, strict=True)
        await connection.execute(
            f"select statistics.fold_{view.name.partition('.')[2]}({', '.join(f'%s::{kind}[]' for kind in kinds)})".encode(),
            [texts(column) if kind == "text" else integers(column) for kind, column in zip(kinds, columns, strict=True)],
        )


def volume_rows(by_month: Mapping[tuple[str, str], Volume]) -> tuple[list[Row], list[Row]]:
    """Rows of VOLUMES and EARLIER_VOLUMES."""
    found, earlier = latest(by_month)
    return (
        [(member_id, last.month, *last.amounts, *last.in_all) for member_id, last in found.items()],
        [(month, member_id, *amounts) for (member_id, month), amounts in earlier.items()],
    )


def income_rows(by_month: Mapping[tuple[Earning, str], int]) -> tuple[list[Row], list[Row]]:
    """Rows of INCOME and EARLIER_INCOME."""
    found, earlier = latest({key: (amount,) for key, amount in by_month.items()})
    return (
        [(*earning, last.month, *last.amounts, *last.in_all) for earning, last in found.items()],
        [(month, one.asset, one.rule_id, one.member_id, *amounts) for (one, month), amounts in earlier.items()],
    )


def folding(first: First) -> Folding:
    """The same figures, folded in memory from the whole log in one go. What they say of orders is kept of the last ones only: an older one
    of which something is taken back is read again, and volume is made to climb some hundred thousand orders at a time."""
    figures = Figures()
    # What remains of sources of which something was taken back, as far as they are not in `figures`.
    remaining: dict[str, int] = {}
    volumes: dict[tuple[str, str], Volume] = {}
    climbs_at = PLACEMENTS_KEPT

    def add(entry: Entry) -> None:
        nonlocal climbs_at
        if isinstance(entry.fact, Changed) and entry.fact.source not in figures.sources:
            again = first(entry.fact.source)
            if again is not None and again.position < entry.position and isinstance(again.fact, Paid):
                source = source_of(again, again.fact)
                left_minor = remaining.get(again.fact.source, source.remaining_minor)
                figures.sources[again.fact.source] = source._replace(remaining_minor=left_minor)
        fold(figures, entry)
        if len(figures.sources) > SOURCES_KEPT:
            forget()
        if len(figures.placements) >= climbs_at:
            # Where bindings form a circle nothing climbs, and it is said at the end.
            with contextlib.suppress(ValueError):
                climb()
            climbs_at = len(figures.placements) + PLACEMENTS_KEPT

    def forget() -> None:
        """All but the last of the sources, half as many as are kept."""
        for name in [*itertools.islice(figures.sources, len(figures.sources) - SOURCES_KEPT // 2)]:
            source = figures.sources.pop(name)
            if name in figures.sources_changed:
                remaining[name] = source.remaining_minor
                figures.sources_changed.discard(name)

    def climb() -> None:
        for key, change in figures.volumes().items():
            before = volumes.get(key)
            volumes[key] = change if before is None else Volume(*map(add_up, before, change))
        figures.placements.clear()

    def rows() -> dict[str, Collection[Row]]:
        climb()
        left = remaining | {name: figures.sources[name].remaining_minor for name in figures.sources_changed}
        last_volumes, earlier_volumes = volume_rows(volumes)
        last_income, earlier_income = income_rows(figures.income())
        return {
            MEMBERS.name: [(member_id, *member) for member_id, member in figures.members.items()],
            BINDINGS.name: figures.moves,
            SOURCES.name: [*left.items()],
            VOLUMES.name: last_volumes,
            EARLIER_VOLUMES.name: earlier_volumes,
            INCOME.name: last_income,
            EARLIER_INCOME.name: earlier_income,
        }

    return Folding(VIEWS, add, rows)
