"""Statistics as a followed projection: the figures a batch touches, read, folded and written (live); and the whole log in memory.

Why team volume is kept and not computed when it is asked for. Asked for, one member's is a walk over their downline, but a leaderboard
needs everybody's: at 100,000 members about a second of processor time for every position it is asked at, in the process that also takes
orders. Kept, a board is one scan of a month's rows. The price is paid per batch and not per order: the path above all buyers of a batch is
read once, their volume is added up on the way (domain/places.py), and each ancestor's row is written once a month touched. A tree of usual
depth costs a few rows for an order. With 10,000 people above the buyer a batch costs 10,000 steps whether it holds one order or 8,000, so a
follower that falls behind takes larger batches and catches up: linear in the orders, never orders times depth. docs/statistics.md has the
measurements.

Invites and cohorts are counted when they are asked for: they need no tree.
"""

from collections.abc import Collection, Sequence
from operator import attrgetter, itemgetter
from pathlib import Path

from services.kernel.decider import Entry
from services.runtime import eventlog
from services.runtime.eventlog import Connection, array, integers, texts
from services.runtime.projecting import Folding, FollowedView, Row
from services.runtime.stored import Stored
from services.statistics import codec
from services.statistics.domain.facts import Changed, Corrected, Enrolled, Locked, Paid, Rule
from services.statistics.domain.figures import IN_ALL, Figures, Member, Source, fold, source_of

SQL = Path(__file__).resolve().parent / "sql"
NAME = "statistics"
MEMBERS = FollowedView("statistics.members", ("member_id", "locked", "referrer_id", "locked_month", "paid"), 1)
BINDINGS = FollowedView("statistics.bindings", ("member_id", "position", "referrer_id"), 2)
SOURCES = FollowedView("statistics.sources", ("source", "remaining_minor"), 1)
VOLUMES = FollowedView("statistics.volumes", ("month", "member_id", "own_minor", "direct_minor", "team_minor"), 2)
INCOME = FollowedView("statistics.income", ("asset", "month", "rule_id", "member_id", "amount"), 4)
VIEWS = (MEMBERS, BINDINGS, SOURCES, VOLUMES, INCOME)
# Plan versions kept parsed; beyond it the oldest go.
PLANS_KEPT = 10_000


class Statistics:
    """Implements `runtime.following.Followed`."""

    name = NAME
    skips = True

    def __init__(self) -> None:
        # By the hash of the entry that published it: after a restore another plan may stand at a position.
        self._plans: dict[bytes, tuple[Rule, ...]] = {}

    async def fold(self, connection: Connection, program_id: str, entries: Sequence[Stored]) -> None:
        read = [entry for entry in map(codec.read, entries) if entry.fact is not None]
        if not read:
            return
        figures = await self._load(connection, program_id, read)
        for entry in read:
            fold(figures, entry)
        await _write(connection, program_id, figures)

    async def _load(self, connection: Connection, program_id: str, entries: Sequence[Entry]) -> Figures:
        """As much of the figures as these entries look at."""
        figures = Figures()
        members: set[str] = set()
        # Whose bindings, and those of everybody above, are needed.
        people: set[str] = set()
        plans: set[int] = set()
        # Who bought, by the order; sources that are told of before these entries; whose orders change.
        bought: dict[str, str] = {}
        sources: set[str] = set()
        buyers: set[str] = set()
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
        if sources:
            figures.sources = await _sources(connection, program_id, sources, entries[0].position)
            plans |= {source.plan_position for source in figures.sources.values()}
            buyers |= {source.buyer_id for source in figures.sources.values()}
        if buyers:
            members |= buyers
            people |= buyers
            cursor = await connection.execute(
                "select member_id, own_minor from statistics.volumes where program_id = %s and month = %s and member_id = any(%s::text[])",
                [program_id, IN_ALL, texts(buyers)],
            )
            figures.remaining = dict(await cursor.fetchall())
        if members:
            cursor = await connection.execute(
                "select member_id, locked, referrer_id, locked_month, paid from statistics.members"
                " where program_id = %s and member_id = any(%s::text[])",
                [program_id, texts(members)],
            )
            figures.members = {row[0]: Member(*row[1:]) for row in await cursor.fetchall()}
        if people - {""}:
            figures.histories = await _histories(connection, program_id, people - {""})
        figures.plans = await self._rules(connection, program_id, plans)
        return figures

    async def _rules(self, connection: Connection, program_id: str, positions: set[int]) -> dict[int, tuple[Rule, ...]]:
        plans = await eventlog.hashes(connection, program_id, positions) if positions else {}
        missing = [position for position, plan in plans.items() if plan not in self._plans]
        if missing:
            for stored in await eventlog.at(connection, program_id, missing):
                self._plans[stored.hash] = codec.read(stored).fact.rules
        found = {position: rules for position, plan in plans.items() if (rules := self._plans.get(plan))}
        while len(self._plans) > PLANS_KEPT:
            del self._plans[next(iter(self._plans))]
        return found


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


async def _histories(connection: Connection, program_id: str, people: set[str]) -> dict[str, list[tuple[int, str]]]:
    """The bindings of these people, and of everybody who was ever above them."""
    # OFFSET 0 keeps each step a look-up by key. Of a plain join the planner may think, while it knows little of a table that has just
    # grown, that reading the whole of it for every level is cheaper.
    cursor = await connection.execute(
        "with recursive up(member_id, position, referrer_id) as ("
        ' select member_id collate "C", b.* from unnest(%s::text[]) as named(member_id)'
        " cross join lateral (select position, referrer_id from statistics.bindings"
        " where program_id = %s and member_id = named.member_id offset 0) b"
        " union select up.referrer_id, b.* from up cross join lateral (select position, referrer_id from statistics.bindings"
        " where program_id = %s and member_id = up.referrer_id offset 0) b)"
        " select member_id, position, referrer_id from up order by position",
        [texts(people), program_id, program_id],
    )
    histories: dict[str, list[tuple[int, str]]] = {}
    for member_id, position, referrer_id in await cursor.fetchall():
        histories.setdefault(member_id, []).append((position, referrer_id))
    return histories


async def _write(connection: Connection, program_id: str, figures: Figures) -> None:
    # Rows in order, so that new ones lie together.
    if figures.members_changed:
        names = sorted(figures.members_changed)
        locked, referrers, months, paid = zip(*[figures.members[name] for name in names], strict=True)
        await connection.execute(
            "insert into statistics.members select %s, * from unnest(%s::text[], %s::boolean[], %s::text[], %s::text[], %s::boolean[])"
            " on conflict (program_id, member_id) do update set locked = excluded.locked, referrer_id = excluded.referrer_id,"
            " locked_month = excluded.locked_month, paid = excluded.paid",
            [program_id, texts(names), array(locked), texts(referrers), texts(months), array(paid)],
        )
    if figures.moves:
        movers, positions, referrers = zip(*figures.moves, strict=True)
        await connection.execute(
            "insert into statistics.bindings select %s, * from unnest(%s::text[], %s::bigint[], %s::text[])",
            [program_id, texts(movers), integers(positions), texts(referrers)],
        )
    if figures.sources_changed:
        names = sorted(figures.sources_changed)
        await connection.execute(
            "insert into statistics.sources select %s, * from unnest(%s::text[], %s::bigint[])"
            " on conflict (program_id, source) do update set remaining_minor = excluded.remaining_minor",
            [program_id, texts(names), integers([figures.sources[name].remaining_minor for name in names])],
        )
    volumes = figures.volumes()
    if volumes:
        keys = sorted(volumes, key=_month_first)
        members, months = zip(*keys, strict=True)
        own, direct, team = zip(*[volumes[key] for key in keys], strict=True)
        await connection.execute(
            "insert into statistics.volumes as v select %s, * from unnest(%s::text[], %s::text[], %s::bigint[], %s::bigint[], %s::bigint[])"
            " on conflict (program_id, month, member_id) do update set own_minor = v.own_minor + excluded.own_minor,"
            " direct_minor = v.direct_minor + excluded.direct_minor, team_minor = v.team_minor + excluded.team_minor",
            [program_id, texts(months), texts(members), integers(own), integers(direct), integers(team)],
        )
    income = figures.income()
    if income:
        earnings = sorted(income, key=_by_asset_and_month)
        members, assets, rules, months = zip(*earnings, strict=True)
        await connection.execute(
            "insert into statistics.income as i select %s, * from unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::bigint[])"
            " on conflict (program_id, asset, month, rule_id, member_id) do update set amount = i.amount + excluded.amount",
            [program_id, texts(assets), texts(months), texts(rules), texts(members), integers([income[one] for one in earnings])],
        )


# The order of the rows' keys.
_month_first = itemgetter(1, 0)
_by_asset_and_month = attrgetter("asset", "month", "rule_id", "member_id")


def folding() -> Folding:
    """The same figures, folded in memory from the whole log in one go. Holds every order's buyer, place and payees while it lasts."""
    figures = Figures()

    def add(entry: Entry) -> None:
        fold(figures, entry)

    def rows() -> dict[str, Collection[Row]]:
        return {
            MEMBERS.name: [(member_id, *member) for member_id, member in figures.members.items()],
            BINDINGS.name: figures.moves,
            SOURCES.name: [(name, figures.sources[name].remaining_minor) for name in figures.sources_changed],
            VOLUMES.name: [(month, member_id, *volume) for (member_id, month), volume in figures.volumes().items()],
            INCOME.name: [(one.asset, one.month, one.rule_id, one.member_id, amount) for one, amount in figures.income().items()],
        }

    return Folding(VIEWS, add, rows)
