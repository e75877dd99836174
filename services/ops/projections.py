"""Verifying and rebuilding inline views: the log folded from position 1 in memory, compared with the live rows at one position.

Runs in a thread of its own on its own connection (`runtime/replaying.py`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from psycopg import sql
from psycopg.types.json import Jsonb

from services.kernel.chain import GENESIS, entry_hash
from services.kernel.decider import Entry
from services.kernel.refusals import ProjectionUnknown
from services.runtime.eventlog import COLUMNS
from services.runtime.projecting import Folding, InlineView, Row
from services.runtime.replaying import Sync, entries, head_position
from services.runtime.stored import Stored

DIFFERENCES_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Registered:
    """What a service registers: how to read an entry, and how its views are folded from nothing."""

    read: Callable[[Stored], Entry]
    folding: Callable[[], Folding]
    views: tuple[InlineView, ...]


@dataclass(frozen=True, slots=True)
class Result:
    projection: str
    position: int
    equal: bool
    rows: int
    differences: tuple[str, ...]


def names(registered: Sequence[Registered]) -> list[str]:
    return [view.name for service in registered for view in service.views]


def check_known(registered: Sequence[Registered], asked: Sequence[str]) -> None:
    """Raises ProjectionUnknown."""
    known = ["log", *names(registered)]
    for name in asked:
        if name not in known:
            raise ProjectionUnknown(name, known)


class Chain:
    """Follows the log's numbering and hashes; `faults` are the first things wrong with it."""

    def __init__(self) -> None:
        self.position = 0
        self.recorded_us = 0
        self.hash = GENESIS
        self.faults: list[str] = []
        self._versions: dict[str, int] = {}

    def fault(self, text: str) -> None:
        if len(self.faults) < DIFFERENCES_SHOWN:
            self.faults.append(text)

    def add(self, stored: Stored) -> None:
        at = f"position {stored.position}"
        if stored.position != self.position + 1:
            self.fault(f"{at}: follows position {self.position}")
        version = self._versions.get(stored.stream, 0) + 1
        if stored.stream_version != version:
            self.fault(f"{at}: {stored.stream} has version {stored.stream_version}, expected {version}")
        if stored.recorded_us <= self.recorded_us:
            self.fault(f"{at}: recorded no later than the entry before it")
        expected = entry_hash(
            self.hash,
            stored.program_id,
            stored.position,
            stored.stream,
            stored.stream_version,
            stored.type,
            stored.occurred_us,
            stored.recorded_us,
            stored.actor,
            stored.fact,
            stored.decision,
        )
        if stored.hash != expected:
            self.fault(f"{at}: hash {stored.hash.hex()}, expected {expected.hex()}")
        self._versions[stored.stream] = stored.stream_version
        self.position, self.recorded_us, self.hash = stored.position, stored.recorded_us, stored.hash


def verify(
    connection: Sync, program_id: str, registered: Sequence[Registered], asked: Sequence[str], progress: Callable[[int, int], None]
) -> list[Result]:
    """Folds the log and compares every view asked for (none: all) with its live rows, all as of one moment. Changes nothing."""
    check_known(registered, asked)
    with connection.transaction():
        connection.execute("set transaction isolation level repeatable read read only")
        last = head_position(connection, program_id)
        chain, folded = _fold(connection, program_id, last, registered, progress)
        head = connection.execute("select head_hash from fenrun.programs where program_id = %s", [program_id]).fetchone()
        if chain.position != last or head is None or bytes(head[0]) != chain.hash:
            chain.fault(f"the log ends at position {chain.position}; its head row says {last} and another hash or position")
        results = [Result("log", last, not chain.faults, chain.position, tuple(chain.faults))]
        for service, rows_by_view in folded:
            for view in service.views:
                results.append(_compare(connection, program_id, view, rows_by_view[view.name], last))
    return [result for result in results if not asked or result.projection in asked]


def _fold(
    connection: Sync, program_id: str, last: int, registered: Sequence[Registered], progress: Callable[[int, int], None]
) -> tuple[Chain, list[tuple[Registered, Mapping[str, Mapping[Row, Row]]]]]:
    chain = Chain()
    foldings = [(service, service.folding()) for service in registered]
    for stored in entries(connection, program_id, last):
        chain.add(stored)
        for service, folding in foldings:
            try:
                folding.add(service.read(stored))
            except Exception as error:
                # What the log holds cannot be trusted here: say where, and go on to see what else is wrong.
                chain.fault(f"position {stored.position}: {stored.type} cannot be folded: {type(error).__name__} {error}")
        if stored.position % 2000 == 0:
            progress(stored.position, last)
    progress(last, last)
    return chain, [(service, folding.rows()) for service, folding in foldings]


def live_rows(connection: Sync, program_id: str, view: InlineView) -> Iterator[tuple[Row, Row]]:
    """(key, rest) of every live row of a program."""
    with connection.cursor("live") as cursor:
        cursor.itersize = 5000
        cursor.execute(
            sql.SQL("select {} from {} where program_id = %s").format(
                sql.SQL(", ").join(sql.Identifier(column) for column in view.columns), sql.Identifier(*view.name.split("."))
            ),
            [program_id],
        )
        for row in cursor:
            yield row[: view.keys], row[view.keys :]


def _compare(connection: Sync, program_id: str, view: InlineView, expected: Mapping[Row, Row], last: int) -> Result:
    differences: list[str] = []
    rows = 0
    for key, rest in live_rows(connection, program_id, view):
        rows += 1
        should = expected.get(key)
        if should is None:
            differences.append(f"{_row(view, key)}: is there, and the log makes no such row")
        elif should != rest:
            differences.append(f"{_row(view, key)}: is {_row(view, rest, view.keys)}, the log makes {_row(view, should, view.keys)}")
        if len(differences) >= DIFFERENCES_SHOWN:
            break
    if rows < len(expected) and len(differences) < DIFFERENCES_SHOWN:
        present = {key for key, _ in live_rows(connection, program_id, view)}
        missing = [key for key in expected if key not in present][: DIFFERENCES_SHOWN - len(differences)]
        differences += [f"{_row(view, key)}: is missing" for key in missing]
    return Result(view.name, last, not differences, rows, tuple(differences))


def _row(view: InlineView, values: Row, start: int = 0) -> str:
    return ", ".join(f"{name}={value}" for name, value in zip(view.columns[start : start + len(values)], values, strict=True))


def rebuild(connection: Sync, program_id: str, registered: Sequence[Registered], name: str) -> tuple[int, int, int]:
    """Puts right every live row of one view that differs from the log; returns (position, rows, rows replaced).

    Blue/green by difference: the log is folded beside the live view while writers go on; then, with the head held, what was appended
    meanwhile is folded too, and only rows that differ are exchanged, the old ones kept in fenrun.replaced_rows.
    """
    check_known(registered, [name])
    if name == "log":
        raise ProjectionUnknown(name, names(registered))
    [service] = [service for service in registered if any(view.name == name for view in service.views)]
    [view] = [view for view in service.views if view.name == name]
    folding = service.folding()
    with connection.transaction():
        connection.execute("set transaction isolation level repeatable read read only")
        folded_to = head_position(connection, program_id)
        for stored in entries(connection, program_id, folded_to):
            folding.add(service.read(stored))
    with connection.transaction():
        connection.execute("select from fenrun.programs where program_id = %s for update", [program_id])
        last = head_position(connection, program_id)
        missed = connection.execute(
            f"select {COLUMNS} from fenrun.entries where program_id = %s and position > %s order by position".encode(),
            [program_id, folded_to],
        )
        for row in missed:
            folding.add(service.read(Stored(*row)))
        expected = dict(folding.rows()[name])
        rows, wrong = len(expected), []
        for key, rest in live_rows(connection, program_id, view):
            if expected.get(key) == rest:
                del expected[key]
            else:
                wrong.append(key)
        _exchange(connection, program_id, view, wrong, expected, last)
    gone = set(wrong)
    return last, rows, len(wrong) + sum(key not in gone for key in expected)


def _exchange(connection: Sync, program_id: str, view: InlineView, wrong: list[Row], right: Mapping[Row, Row], position: int) -> None:
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
        for key, rest in right.items():
            copy.write_row((program_id, *key, *rest))


def row_counts(connection: Sync, program_id: str, registered: Sequence[Registered]) -> dict[str, int]:
    """{view: live rows of the program}."""
    counts = {}
    for view in (view for service in registered for view in service.views):
        query = sql.SQL("select count(*) from {} where program_id = %s").format(sql.Identifier(*view.name.split(".")))
        row = connection.execute(query, [program_id]).fetchone()
        assert row is not None
        counts[view.name] = int(row[0])
    return counts
