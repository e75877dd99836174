"""Verifying and rebuilding projections: the log folded from position 1 in memory, compared with the live rows at one position.

An inline view is compared at the head. A followed projection is compared at the position it has reached, without the entries in its
quarantine: its position, its quarantine and its rows change together, so one snapshot holds all three.

Runs beside the server on its own connection: in a thread, or in a process of its own (`runtime/replaying.py`).
"""

from bisect import bisect_right
from collections.abc import Callable, Collection, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter

from psycopg import sql
from psycopg.types.json import Jsonb

from services.kernel.chain import GENESIS, entry_hash
from services.kernel.decider import Entry
from services.kernel.refusals import ProjectionUnknown
from services.runtime.eventlog import COLUMNS
from services.runtime.following import describe
from services.runtime.projecting import First, Folding, Row, View
from services.runtime.replaying import CHUNK, Sync, chunks, entries, head_position
from services.runtime.stored import Stored

DIFFERENCES_SHOWN = 10
QUARANTINED_SHOWN = 100
# How long a rebuild waits for the batch under way before its last step.
LOCK_TIMEOUT = "30s"


@dataclass(frozen=True, slots=True)
class Registered:
    """What a service registers: how to read an entry, and how its views are folded from nothing.

    `followed_as` is the name they are followed under, all with one position; empty: they are inline. `skips` says whether they may go past
    an entry that cannot be folded.
    """

    read: Callable[[Stored], Entry]
    folding: Callable[[First], Folding]
    views: tuple[View, ...]
    followed_as: str = ""
    skips: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    projection: str
    position: int
    equal: bool
    rows: int
    differences: tuple[str, ...]
    quarantined_count: int = 0


@dataclass(frozen=True, slots=True)
class Kept:
    """How a live view of a program stands. `quarantined` are the first (position, error) of `quarantined_count`."""

    view: str
    followed_as: str
    position: int
    rows: int
    quarantined_count: int
    quarantined: tuple[tuple[int, str], ...]


@dataclass(frozen=True, slots=True)
class Standing:
    """The entries that a service's views are made of: those up to a position, less the ones in quarantine."""

    position: int
    quarantined: frozenset[int] = frozenset()


def standing(connection: Sync, program_id: str, service: Registered, head: int) -> Standing:
    """Where a service's live views stand when the log stands at `head`."""
    if not service.followed_as:
        return Standing(head)
    row = connection.execute(
        "select position from fenrun.followed where program_id = %s and projection = %s", [program_id, service.followed_as]
    ).fetchone()
    left_out = connection.execute(
        "select position from fenrun.quarantined where program_id = %s and projection = %s", [program_id, service.followed_as]
    )
    return Standing(row[0] if row else 0, frozenset(position for (position,) in left_out.fetchall()))


def names(registered: Sequence[Registered]) -> list[str]:
    return [view.name for service in registered for view in service.views]


def check_known(registered: Sequence[Registered], asked: Sequence[str]) -> None:
    """Raises ProjectionUnknown."""
    known = ["log", *names(registered)]
    for name in asked:
        if name not in known:
            raise ProjectionUnknown(name, known)


class Chain:
    """Follows the log's numbering and hashes; `faults` are the first things wrong with it. How streams are numbered is for `_versions`:
    following that would take memory for every stream."""

    def __init__(self) -> None:
        self.position = 0
        self.recorded_us = 0
        self.hash = GENESIS
        self.faults: list[str] = []

    def fault(self, text: str) -> None:
        if len(self.faults) < DIFFERENCES_SHOWN:
            self.faults.append(text)

    def add(self, stored: Stored) -> None:
        program_id, position, stream, version, kind, _, occurred_us, recorded_us, actor, fact, decision, own_hash = stored
        if position != self.position + 1:
            self.fault(f"position {position}: follows position {self.position}")
        if recorded_us <= self.recorded_us:
            self.fault(f"position {position}: recorded no later than the entry before it")
        expected = entry_hash(self.hash, program_id, position, stream, version, kind, occurred_us, recorded_us, actor, fact, decision)
        if own_hash != expected:
            self.fault(f"position {position}: hash {own_hash.hex()}, expected {expected.hex()}")
        self.position, self.recorded_us, self.hash = position, recorded_us, own_hash


def verify(
    connection: Sync, program_id: str, registered: Sequence[Registered], asked: Sequence[str], progress: Callable[[int, int], None]
) -> list[Result]:
    """Folds the log and compares every view asked for (none: all) with its live rows, all as of one moment. Changes nothing."""
    check_known(registered, asked)
    with connection.transaction():
        connection.execute("set transaction isolation level repeatable read read only")
        last = head_position(connection, program_id)
        standings = [standing(connection, program_id, service, last) for service in registered]
        chain, foldings, written = _fold(connection, program_id, last, registered, standings, progress)
        for fault in _versions(connection, program_id, last):
            chain.fault(fault)
        head = connection.execute("select head_hash from fenrun.programs where program_id = %s", [program_id]).fetchone()
        if chain.position != last or head is None or bytes(head[0]) != chain.hash:
            chain.fault(f"the log ends at position {chain.position}; its head row says {last} and another hash or position")
        results = [Result("log", last, not chain.faults, chain.position, tuple(chain.faults))]
        foldings.reverse()
        for service, stands in zip(registered, standings, strict=True):
            # Of one service at a time: rows take more memory than what they are made of.
            rows_by_view = foldings.pop().rows()
            for view in service.views:
                if view.written_once:
                    rows, differences = written[view.name].rows, written[view.name].differences
                else:
                    rows, differences = _compare(connection, program_id, view, rows_by_view[view.name])
                shown = tuple(differences[:DIFFERENCES_SHOWN])
                results.append(Result(view.name, stands.position, not shown, rows, shown, len(stands.quarantined)))
    return [result for result in results if not asked or result.projection in asked]


def _fold(
    connection: Sync,
    program_id: str,
    last: int,
    registered: Sequence[Registered],
    standings: Sequence[Standing],
    progress: Callable[[int, int], None],
) -> tuple[Chain, list[Folding], Mapping[str, "Written"]]:
    chain = Chain()
    foldings = [
        service.folding(first_of(connection, program_id, service, stands.quarantined))
        for service, stands in zip(registered, standings, strict=True)
    ]
    written = {view.name: Written(connection, program_id, view) for service in registered for view in service.views if view.written_once}
    for some in chunks(connection, program_id, last):
        for stored in some:
            chain.add(stored)
        # One service after the other, each with what it has just used still at hand: by turns from entry to entry it takes a third longer.
        for service, stands, folding in zip(registered, standings, foldings, strict=True):
            _add(service.read, folding.add, some, stands, chain)
            for name, made in folding.written.items():
                written[name].compare(made, some[-1].position)
                made.clear()
        progress(chain.position, last)
    for view in written.values():
        view.finish()
    return chain, foldings, written


def first_of(connection: Sync, program_id: str, service: Registered, left_out: Container[int]) -> First:
    """Reads the first entry of a stream of the log. `left_out`: positions that the service's views are made without, as of each read."""

    def first(stream: str) -> Entry | None:
        row = connection.execute(
            f"select {COLUMNS} from fenrun.entries where program_id = %s and stream = %s and stream_version = 1".encode(),
            [program_id, stream],
        ).fetchone()
        stored = Stored(*row) if row else None
        return None if stored is None or stored.position in left_out else service.read(stored)

    return first


def _versions(connection: Sync, program_id: str, last: int) -> list[str]:
    """The first entries that are not numbered one after the other within their streams. PostgreSQL sorts them, where they are many on
    disk."""
    found = connection.execute(
        "select position, stream, stream_version, expected from (select position, stream, stream_version,"
        " coalesce(lag(stream_version) over (partition by stream order by position), 0) + 1 as expected"
        " from fenrun.entries where program_id = %s and position <= %s) numbered"
        " where stream_version <> expected order by position limit %s",
        [program_id, last, DIFFERENCES_SHOWN],
    )
    return [f"position {position}: {stream} has version {version}, expected {expected}" for position, stream, version, expected in found]


def _add(read: Callable[[Stored], Entry], add: Callable[[Entry], None], some: Sequence[Stored], stands: Standing, chain: Chain) -> None:
    for stored in some:
        if stored.position > stands.position or stored.position in stands.quarantined:
            continue
        try:
            add(read(stored))
        except Exception as error:
            # What the log holds cannot be trusted here: say where, and go on to see what else is wrong.
            chain.fault(f"position {stored.position}: {stored.type} cannot be folded: {type(error).__name__} {error}")


def live_rows(connection: Sync, program_id: str, view: View, order: str = "") -> Iterator[list[Row]]:
    """Every live row of a program, some at a time; in no order where none is asked for."""
    with connection.cursor(f"live {view.name}", binary=True) as cursor:
        cursor.execute(
            sql.SQL("select {} from {} where program_id = %s{}").format(
                sql.SQL(", ").join(sql.Identifier(column) for column in view.columns),
                sql.Identifier(*view.name.split(".")),
                sql.SQL(f" order by {order}" if order else ""),
            ),
            [program_id],
        )
        while rows := cursor.fetchmany(CHUNK):
            yield rows


class Written:
    """The live rows of a view written once beside those the log makes, as it makes them: neither are kept, however many there are."""

    def __init__(self, connection: Sync, program_id: str, view: View) -> None:
        self.rows = 0
        self.differences: list[str] = []
        self._view = view
        self._live = live_rows(connection, program_id, view, "position")
        self._ahead: list[Row] = []
        self._position = itemgetter(view.columns.index("position"))

    def compare(self, made: Collection[Row], last: int) -> None:
        """With everything that the entries make up to position `last`, from where it stopped before."""
        ahead = self._ahead
        while not ahead or self._position(ahead[-1]) <= last:
            if not (more := next(self._live, None)):
                break
            ahead += more
        end = bisect_right(ahead, last, key=self._position)
        self._note(ahead[:end], set(made))
        del ahead[:end]

    def finish(self) -> None:
        """What is left belongs to no entry."""
        self._note(self._ahead, set())
        for live in self._live:
            self._note(live, set())

    def _note(self, live: Sequence[Row], made: set[Row]) -> None:
        self.rows += len(live)
        # What is not shown need not be kept: every row may be wrong.
        if len(self.differences) < DIFFERENCES_SHOWN and (len(live) != len(made) or not made.issuperset(live)):
            wrong = [row for row in live if row not in made]
            self.differences += _differences(self._view, wrong, made.difference(live))


def _compare(connection: Sync, program_id: str, view: View, made: Collection[Row]) -> tuple[int, list[str]]:
    """How many live rows there are, and what is wrong with them."""
    expected, rows, wrong = set(made), 0, list[Row]()
    for live in live_rows(connection, program_id, view):
        rows += len(live)
        # What is not shown need not be kept: every row may be wrong.
        if len(wrong) < DIFFERENCES_SHOWN and not expected.issuperset(live):
            wrong += [row for row in live if row not in expected]
    differences = list[str]()
    if wrong or rows < len(expected):
        for live in live_rows(connection, program_id, view):
            expected.difference_update(live)
        differences = _differences(view, wrong, expected)
    return rows, differences


def _differences(view: View, wrong: Sequence[Row], missing: Collection[Row]) -> list[str]:
    """Live rows that the log does not make, and rows that it makes which are not live, each in words."""
    should = {row[: view.keys]: row[view.keys :] for row in missing}
    differences = []
    for row in wrong:
        key, rest = row[: view.keys], row[view.keys :]
        made = should.pop(key, None)
        if made is None:
            differences.append(f"{_row(view, key)}: is there, and the log makes no such row")
        else:
            differences.append(f"{_row(view, key)}: is {_row(view, rest, view.keys)}, the log makes {_row(view, made, view.keys)}")
    return [*differences, *(f"{_row(view, key)}: is missing" for key in sorted(should))]


def _row(view: View, values: Row, start: int = 0) -> str:
    return ", ".join(f"{name}={value}" for name, value in zip(view.columns[start : start + len(values)], values, strict=True))


def rebuild(connection: Sync, program_id: str, registered: Sequence[Registered], name: str) -> tuple[int, int, int]:
    """Puts right every live row of one view that differs from the log; returns (position, rows, rows replaced).

    Blue/green by difference: the log is folded beside the live view while writers go on; then, with the head held (of a followed
    projection: its tracking row), what came meanwhile is folded too, and only rows that differ are exchanged, the old ones kept in
    fenrun.replaced_rows.

    A followed projection is rebuilt whole, because its tables share a quarantine: every entry is tried again, and those that still cannot
    be folded are its quarantine from then on.
    """
    check_known(registered, [name])
    if name == "log":
        raise ProjectionUnknown(name, names(registered))
    [service] = [service for service in registered if any(view.name == name for view in service.views)]
    poison: dict[int, str] = {}
    folding = service.folding(first_of(connection, program_id, service, poison))

    def add(stored: Stored) -> None:
        try:
            folding.add(service.read(stored))
        except Exception as error:
            if not service.skips:
                raise
            poison[stored.position] = describe(error)
        for view_name, made in folding.written.items():
            if view_name != name:
                made.clear()

    with connection.transaction():
        connection.execute("set transaction isolation level repeatable read read only")
        folded_to = standing(connection, program_id, service, head_position(connection, program_id)).position
        for stored in entries(connection, program_id, folded_to):
            add(stored)
    with connection.transaction():
        last = _hold(connection, program_id, service)
        missed = connection.execute(
            f"select {COLUMNS} from fenrun.entries where program_id = %s and position > %s and position <= %s order by position".encode(),
            [program_id, folded_to, last],
        )
        for row in missed:
            add(Stored(*row))
        if service.followed_as:
            _requarantine(connection, program_id, service.followed_as, poison)
        rows = replaced = 0
        rows_by_view = folding.rows()
        for view in service.views if service.followed_as else [view for view in service.views if view.name == name]:
            right = set(rows_by_view[view.name])
            if view.name == name:
                rows = len(right)
            wrong = []
            for live in live_rows(connection, program_id, view):
                wrong += [row[: view.keys] for row in live if row not in right]
                right.difference_update(live)
            _exchange(connection, program_id, view, wrong, right, last)
            gone = set(wrong)
            replaced += len(wrong) + sum(row[: view.keys] not in gone for row in right)
    return last, rows, replaced


def _hold(connection: Sync, program_id: str, service: Registered) -> int:
    """Lets nobody change a service's views until the transaction ends; gives the position they stand at."""
    connection.execute("select set_config('lock_timeout', %s, true)", [LOCK_TIMEOUT])
    if not service.followed_as:
        # Whoever remembers rows of these views notices.
        connection.execute("update fenrun.programs set rebuilt = rebuilt + 1 where program_id = %s", [program_id])
        return head_position(connection, program_id)
    key = [program_id, service.followed_as]
    connection.execute("insert into fenrun.followed values (%s, %s, 0, '', '-infinity') on conflict do nothing", key)
    row = connection.execute("select position from fenrun.followed where program_id = %s and projection = %s for update", key).fetchone()
    assert row is not None
    return int(row[0])


def _requarantine(connection: Sync, program_id: str, projection: str, poison: Mapping[int, str]) -> None:
    connection.execute("delete from fenrun.quarantined where program_id = %s and projection = %s", [program_id, projection])
    with connection.cursor() as cursor:
        cursor.executemany(
            "insert into fenrun.quarantined (program_id, projection, position, error) values (%s, %s, %s, %s)",
            [(program_id, projection, position, error) for position, error in poison.items()],
        )


def _exchange(connection: Sync, program_id: str, view: View, wrong: list[Row], right: Collection[Row], position: int) -> None:
    table = sql.Identifier(*view.name.split("."))
    keys = sql.SQL(" and ").join(sql.SQL("{} = %s").format(sql.Identifier(column)) for column in view.columns[: view.keys])
    remove = sql.SQL("delete from {} as t where program_id = %s and {} returning to_jsonb(t)").format(table, keys)
    for key in wrong:
        removed = connection.execute(remove, [program_id, *key]).fetchone()
        assert removed is not None
        connection.execute(
            "insert into fenrun.replaced_rows (program_id, projection, position, row_data) values (%s, %s, %s, %s)",
            [program_id, view.name, position, Jsonb(removed[0])],
        )
    columns = sql.SQL(", ").join(sql.Identifier(column) for column in ("program_id", *view.columns))
    with connection.cursor() as cursor, cursor.copy(sql.SQL("copy {} ({}) from stdin").format(table, columns)) as copy:
        for row in right:
            copy.write_row((program_id, *row))


def kept(connection: Sync, program_id: str, registered: Sequence[Registered]) -> list[Kept]:
    """How every live view of a program stands, all as of one moment. Raises ProgramUnknown."""
    found = []
    with connection.transaction():
        connection.execute("set transaction isolation level repeatable read read only")
        head = head_position(connection, program_id)
        for service in registered:
            stands = standing(connection, program_id, service, head)
            shown = connection.execute(
                "select position, error from fenrun.quarantined where program_id = %s and projection = %s order by position limit %s",
                [program_id, service.followed_as, QUARANTINED_SHOWN],
            ).fetchall()
            for view in service.views:
                query = sql.SQL("select count(*) from {} where program_id = %s").format(sql.Identifier(*view.name.split(".")))
                row = connection.execute(query, [program_id]).fetchone()
                assert row is not None
                left_out = tuple((int(position), str(error)) for position, error in shown)
                found.append(Kept(view.name, service.followed_as, stands.position, int(row[0]), len(stands.quarantined), left_out))
    return found
