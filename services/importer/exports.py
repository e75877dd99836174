"""Exports of another system's tables: reading them, and the plain model of a mall that the checks and the facts are made from.

One CSV file per table, with the table's own column names, as a database's client writes it. An export is read whole before anything is
sent, and only the columns that are used are kept. Nothing here knows one mall from another; docs/import-malls.md is the format.
"""

import csv
import gzip
import io
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import IO, Any

from services.importer.files import Unreadable
from services.kernel.times import EARLIEST_US, LATEST_US, to_us

# What clients write for NULL. An empty cell counts as NULL too: none of the columns that are used tells the two apart.
NULLS = {"", r"\N", "NULL", "null", "(NULL)", "<null>", "[NULL]"}
# MySQL's own writer leaves \N unquoted; read with backslash escapes it would become the letter N.
BARE_NULL = re.compile(r"(^|,)\\N(?=,|\r?\n|$)")
ZONE = re.compile(r"([+-])(\d\d):(\d\d)", re.ASCII)
LONGEST_CELL = 16 * 1024 * 1024


# ---------------------------------------------------------------- cells


def zone(text: str) -> timezone:
    """The offset from UTC in which the database wrote its times: +08:00. Raises ValueError."""
    found = ZONE.fullmatch(text)
    if found is None or int(found[2]) > 14 or int(found[3]) > 59:
        raise ValueError(f"{text!r} is not an offset such as +08:00")
    offset = timedelta(hours=int(found[2]), minutes=int(found[3]))
    return timezone(-offset if found[1] == "-" else offset)


def number(text: str) -> str:
    """The key of a row, a whole number in all these tables; as text, because that is what it is here."""
    if not (text.isascii() and text.isdigit()) or len(text) > 20:
        raise ValueError(f"{text!r} is not a row's number")
    return str(int(text))


def someone(text: str) -> str:
    """A member's number, or "" for the 0 (and CRMEB's -1) that stands for nobody."""
    return "" if text == "-1" else number(text).removeprefix("0")


def whole(text: str) -> int:
    """A signed whole number: a status, or an amount in fen."""
    if re.fullmatch(r"-?\d{1,15}", text, re.ASCII) is None:
        raise ValueError(f"{text!r} is not a whole number")
    return int(text)


def yuan(text: str) -> int:
    """A decimal in yuan, in fen. More than two decimals must be zeros: nothing is rounded here."""
    found = re.fullmatch(r"(-?)(\d{1,13})(?:\.(\d{1,2})0*)?", text, re.ASCII)
    if found is None:
        raise ValueError(f"{text!r} is not an amount with two decimals at most, such as 12.50")
    fen = int(found[2] + (found[3] or "").ljust(2, "0"))
    return -fen if found[1] else fen


def flag(text: str) -> bool:
    """A bit, however the client writes it."""
    lower = text.lower()
    if lower in {"1", "true", "t", "b'1'", "\x01"}:
        return True
    if lower in {"0", "false", "f", "b'0'", "\x00"}:
        return False
    raise ValueError(f"{text!r} is not 0 or 1")


def _since_epoch(us: int) -> int | None:
    if us and not EARLIEST_US <= us < LATEST_US:
        raise ValueError("is no time of this age")
    return us or None


def unix_seconds(text: str) -> int | None:
    """Microseconds since the epoch; None for the 0 that stands for never."""
    return _since_epoch(whole(text) * 1_000_000)


def unix_milliseconds(text: str) -> int | None:
    return _since_epoch(whole(text) * 1000)


def local_time(offset: timezone) -> Callable[[str], int | None]:
    """Reads the database's own writing of a time, in the zone it was written in."""

    def read(text: str) -> int | None:
        if text.startswith("0000-00-00"):
            return None
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise ValueError(f"{text!r} is not a time such as 2026-01-31 08:00:00") from None
        return to_us(moment if moment.tzinfo else moment.replace(tzinfo=offset))

    return read


# ---------------------------------------------------------------- tables

REQUIRED: Any = object()


@dataclass(frozen=True, slots=True)
class Column:
    """How a cell reads, and what a NULL counts as. `optional`: the table may lack the column, which is as if all were NULL."""

    parse: Callable[[str], Any]
    null: Any = REQUIRED
    optional: bool = False


class Row:
    """`line` is where the row begins, the header being line 1. A mall has millions of these, hence no dictionary for each."""

    __slots__ = ("_places", "cells", "line")

    def __init__(self, line: int, places: Mapping[str, int], cells: tuple[Any, ...]) -> None:
        self.line, self._places, self.cells = line, places, cells

    def __getitem__(self, column: str) -> Any:
        return self.cells[self._places[column]]


@dataclass
class Table:
    """A table of the export, read: rows that stand there twice, alike, count once and are told in `repeated`."""

    path: Path
    rows: list[Row]
    repeated: list[Row]


def find(directory: Path, names: Mapping[str, str]) -> dict[str, Path]:
    """The file of each table that is there, by table. `names`: the pattern of what a table may be called, without .csv or .csv.gz.

    Raises Unreadable when one table has two files.
    """
    found: dict[str, Path] = {}
    for path in sorted(directory.iterdir()):
        stem = re.sub(r"\.csv(\.gz)?$", "", path.name.lower())
        for table, pattern in names.items():
            if stem != path.name.lower() and path.is_file() and re.fullmatch(pattern, stem):
                if table in found:
                    raise Unreadable(f"{directory} has both {found[table].name} and {path.name}; leave one")
                found[table] = path
    return found


def read(path: Path, columns: Mapping[str, Column], key: str) -> Table:
    """A table, by the columns that are used. Raises Unreadable with the first thing that does not hold: an export with a row that is
    not understood is not to be trusted with money.
    """
    try:
        return _read(path, columns, key, escaped=False)
    except Unreadable as problem:
        # Two ways of writing a quote inside quotes are in use. Which one a file uses shows only where the other does not come out even.
        try:
            return _read(path, columns, key, escaped=True)
        except Unreadable:
            raise problem from None


def _read(path: Path, columns: Mapping[str, Column], key: str, escaped: bool) -> Table:
    table = Table(path, [], [])
    places = {name: place for place, name in enumerate(columns)}
    seen: dict[str, Row] = {}
    for line, cells in _cells(path, columns, escaped):
        values = zip(columns.items(), cells, strict=True)
        row = Row(line, places, tuple(_value(path, line, name, column, cell) for (name, column), cell in values))
        earlier = seen.setdefault(row[key], row)
        if earlier is row:
            table.rows.append(row)
        elif earlier.cells == row.cells:
            table.repeated.append(row)
        else:
            differing = ", ".join(name for name in columns if earlier[name] != row[name])
            raise Unreadable(f"{path.name}: {key} {row[key]} stands in line {earlier.line} and in line {line}, with other {differing}")
    table.rows.sort(key=lambda row: int(row[key]))  # clients export in whatever order was on the screen
    return table


def _value(path: Path, line: int, name: str, column: Column, cell: str) -> Any:
    text = cell.strip(" \t")
    if text in NULLS:
        if column.null is REQUIRED:
            raise Unreadable(f"{path.name} line {line}: {name} is empty")
        return column.null
    try:
        return column.parse(text)
    except (ValueError, OverflowError) as problem:
        raise Unreadable(f"{path.name} line {line}: {name}: {problem}") from None


def _cells(path: Path, columns: Mapping[str, Column], escaped: bool) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(LONGEST_CELL)
    line = 0
    try:
        with _opened(path) as file:
            text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
            lines = (BARE_NULL.sub(r"\1", one) if r"\N" in one else one for one in text)
            reader = csv.reader(lines, strict=True, escapechar="\\" if escaped else None)
            header = [name.strip() for name in next(reader, [])]
            missing = [name for name, column in columns.items() if not column.optional and name not in header]
            if missing:
                raise Unreadable(f"{path.name}: the header lacks {', '.join(missing)}; the first row names the table's columns")
            if len(set(header)) < len(header):
                raise Unreadable(f"{path.name}: the header names a column twice")
            at = [header.index(name) if name in header else None for name in columns]
            line = reader.line_num
            for cells in reader:
                start, line = line + 1, reader.line_num
                if not cells:
                    continue
                if len(cells) != len(header):
                    raise Unreadable(f"{path.name} line {start}: {len(cells)} columns, the header has {len(header)}")
                yield start, ["" if place is None else cells[place] for place in at]
    except UnicodeDecodeError as wrong:
        raise Unreadable(
            f"{path.name} is not UTF-8 (byte {wrong.object[wrong.start]:#04x} after line {line}); export it as UTF-8"
        ) from None
    except csv.Error as wrong:
        raise Unreadable(f"{path.name} line {line + 1}: not CSV: {wrong}") from None
    except (OSError, EOFError, zlib.error) as broken:
        raise Unreadable(f"{path.name} cannot be read to its end: {broken}") from broken


def _opened(path: Path) -> IO[bytes]:
    if path.suffix == ".gz":
        packed: Any = gzip.open(path)  # noqa: SIM115  # the caller closes it
        return packed  # type: ignore[no-any-return]
    return path.open("rb")


# ---------------------------------------------------------------- a mall


@dataclass(slots=True)
class Member:
    """A row of the member table. `balance_minor` and `frozen_minor` are the columns as they stand; None: the table has no such column."""

    id: str
    line: int
    enrolled_us: int | None
    referrer: str
    bound_us: int | None
    balance_minor: int
    frozen_minor: int | None
    promoter: bool
    level: str
    # The file it stands in, where that is not the member table's.
    file: str = ""


@dataclass(slots=True)
class Entry:
    """A row of the commission table. `amount_minor` is signed: what it gives, or takes."""

    line: int
    member: str
    amount_minor: int
    at_us: int
    # Is part of the balance column now.
    counts: bool
    # Still frozen, until then.
    due_us: int | None = None
    # Not even frozen yet: the mall waits for the goods to be received.
    unbooked: bool = False
    # The order it says it comes from, or takes back.
    order: str | None = None
    # Moves money between the balance and withdrawals.
    withdraws: bool = False
    # Paid out without a row in the withdrawal table.
    beside: bool = False
    # The running balance the row shows.
    shown_minor: int | None = None
    # When it moved the balance, and by how much.
    moves: Sequence[tuple[int, int]] = ()
    # Two rows with the same of this say that one thing was paid twice.
    once: tuple[str, ...] | None = None


@dataclass(slots=True)
class Withdrawal:
    """`state`: paid, open (deducted, and neither paid nor given back), refused."""

    line: int
    member: str
    amount_minor: int
    at_us: int
    state: str


@dataclass(slots=True)
class Order:
    """What commission rows name as where they come from: an order, or one item of it."""

    line: int
    refunded: bool
    # Who earned by it through rows that name another order (the one it was split from).
    elsewhere: dict[str, int] = field(default_factory=dict)
    # What it will give once the goods are received, by member.
    expected: dict[str, int] = field(default_factory=dict)


@dataclass
class Mall:
    """An export, understood. All amounts are in fen, all times in microseconds."""

    name: str
    edition: str
    # File names by what they hold: members, entries, withdrawals, orders.
    files: dict[str, str]
    # Whether the balance column holds what is still frozen.
    frozen_within: bool
    # What `shown_minor` is: the balance after the row, or before it.
    shows_after: bool
    members: dict[str, Member]
    entries: list[Entry]
    withdrawals: list[Withdrawal]
    orders: dict[str, Order]
    # The first paid order of each buyer.
    paid_us: dict[str, int]
    # (file, line, member) of rows that stand there twice.
    repeated: list[tuple[str, int, str]]
    # The instant the figures are of: given, or the last one in the files.
    as_of_us: int
    # The first one in the files.
    first_us: int


def instants(tables: Iterable[tuple[Table, Sequence[str]]], as_of_us: int | None, directory: Path) -> tuple[int, int]:
    """(first, as of): the earliest time in those columns, and the latest unless another is given. Raises Unreadable when it is earlier."""
    times = [row[column] for table, columns in tables for row in table.rows for column in columns if row[column] is not None]
    if not times:
        raise Unreadable(f"{directory} has no row with a time")
    if as_of_us is not None and as_of_us < max(times):
        last = datetime.fromtimestamp(max(times) // 1_000_000, tz=UTC)
        raise Unreadable(f"--as-of is before the last row of the export, which is of {last:%Y-%m-%dT%H:%M:%SZ}")
    return min(times), as_of_us if as_of_us is not None else max(times)
