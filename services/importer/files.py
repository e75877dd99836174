"""Reads the files of an import: checks every row, and forms facts of the rows that hold. docs/import-format.md is the format.

A file is read twice and not held: first a survey (what is malformed, what contradicts itself, is it in order of time, which ids
have a row), then the facts, in order of time. Only ids stay in memory. What the contract checks by itself is left to the server.
"""

import csv
import gzip
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from fenrun.ledger.v1 import ledger_pb2 as ledger
from fenrun.log.v1 import log_pb2 as log
from fenrun.referral.v1 import referral_pb2 as referral
from google.protobuf.timestamp_pb2 import Timestamp

from services.kernel.names import nameable
from services.kernel.times import from_text


class Kind(IntEnum):
    """Kinds of facts, in the order in which those of one instant apply."""

    MEMBER = 0
    ORDER = 1
    UPGRADE = 2
    REFUND = 3
    COMPLETION = 4


class Unreadable(Exception):
    """A file is no such table at all: nothing is sent. `str()` is the sentence."""


# ---------------------------------------------------------------- cells

ID = re.compile(r"[!-.0-~]{1,100}")  # as the contract: printable ASCII without space and slash
TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d:\d\d)?", re.ASCII)
LINE_KINDS = {"": log.LINE_KIND_UNSPECIFIED, "goods": log.LINE_KIND_GOODS, "gift_pack": log.LINE_KIND_GIFT_PACK, "fee": log.LINE_KIND_FEE}


@lru_cache(maxsize=4096)
def _id(text: str) -> str:
    if ID.fullmatch(text) is None:
        raise ValueError(f"{text!r} is not an id of 1 to 100 printable ASCII characters without space and slash")
    return text


def _id_or_none(text: str) -> str:
    return _id(text) if text else ""


@lru_cache(maxsize=4096)
def _whole(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 13:
        raise ValueError(f"{text!r} is not a whole number from 0 to 9999999999999; amounts are counted in minor units")
    return int(text)


def _tier(text: str) -> str:
    if not nameable(text):
        raise ValueError(f"{text!r} is not a tier: 1 to 100 printable characters without space")
    return text


@lru_cache(maxsize=4096)
def _line_no(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text[:11]) <= 0xFFFFFFFF:
        raise ValueError(f"{text!r} is not a line number from 1 to 4294967295")
    return int(text)


def _line_kind(text: str) -> "log.LineKind.ValueType":
    if text not in LINE_KINDS:
        raise ValueError(f"{text!r} is not goods, gift_pack or fee")
    return LINE_KINDS[text]


@lru_cache(maxsize=1024)
def _time(text: str) -> int:
    """Microseconds since the epoch. The lines of an order repeat one text, hence the cache."""
    if TIME.fullmatch(text) is None:
        raise ValueError(f"{text!r} is not a time such as 2026-01-31T08:00:00Z")
    return from_text(text)


Parse = Callable[[str], Any]


@dataclass(frozen=True)
class Format:
    """A file: which columns make a fact's id, which is its time, how each cell reads. Several rows may make one fact if `joins`."""

    name: str
    key: tuple[str, ...]
    time: str
    columns: Mapping[str, Parse]
    optional: Mapping[str, Parse] = field(default_factory=dict)
    joins: bool = False
    # Rows of one fact may differ in time; the fact is dated at the latest of them.
    spans: bool = False
    required: bool = True


FORMATS = {
    Kind.MEMBER: Format("members", ("member_id",), "joined_at", {"member_id": _id, "joined_at": _time, "referrer_id": _id_or_none}),
    Kind.ORDER: Format(
        "orders",
        ("order_id",),
        "paid_at",
        {"order_id": _id, "member_id": _id, "paid_at": _time, "line_no": _line_no, "sku": str, "quantity": _whole, "amount_minor": _whole},
        optional={"category": str, "kind": _line_kind},
        joins=True,
    ),
    Kind.UPGRADE: Format(
        "upgrades",
        ("upgrade_id",),
        "upgraded_at",
        {"upgrade_id": _id, "member_id": _id, "tier": _tier, "upgraded_at": _time, "order_id": _id_or_none},
        required=False,
    ),
    Kind.REFUND: Format(
        "refunds",
        ("refund_id", "order_id"),
        "refunded_at",
        {"refund_id": _id, "order_id": _id, "line_no": _line_no, "quantity": _whole, "amount_minor": _whole, "refunded_at": _time},
        joins=True,
        spans=True,
        required=False,
    ),
}

# ---------------------------------------------------------------- rows


class Row(NamedTuple):
    """A row as read. `line` counts from 1, the header. With a problem there are no values, and the key is what could be made out."""

    line: int
    key: tuple[str, ...]
    at_us: int
    values: Mapping[str, Any]
    problem: str = ""


class Table:
    """One file of an import. Raises Unreadable for a header that lacks a column."""

    def __init__(self, kind: Kind, path: Path) -> None:
        self.kind, self.path, self.format = kind, path, FORMATS[kind]
        header, problem = next(self._lines(), ([], ""))
        if problem or not header:
            raise Unreadable(f"{path.name}: {problem or 'the file is empty; its first row names the columns'}")
        parsers = {**self.format.columns, **self.format.optional}
        missing = [column for column in self.format.columns if column not in header]
        if missing or len(set(header)) < len(header):
            raise Unreadable(f"{path.name}: the header {'lacks ' + ', '.join(missing) if missing else 'names a column twice'}")
        self.unused = [column for column in header if column not in parsers]
        self._width = len(header)
        self._cells = [(index, column, parsers[column]) for index, column in enumerate(header) if column in parsers]
        self._key = [header.index(column) for column in self.format.key]

    def rows(self) -> Iterator[Row]:
        lines, time = self._lines(), self.format.time
        next(lines)
        for number, (cells, problem) in enumerate(lines, 2):
            if not cells:
                continue
            if not problem and len(cells) != self._width:
                problem = f"{len(cells)} columns, the header has {self._width}"
            if problem:
                yield Row(number, tuple(cells[index] for index in self._key if index < len(cells)), 0, {}, problem)
                continue
            values, key = {}, tuple([cells[index] for index in self._key])
            try:
                for index, column, parse in self._cells:
                    values[column] = parse(cells[index])
            except ValueError as wrong:
                yield Row(number, key, 0, {}, f"{column}: {wrong}")
                continue
            yield tuple.__new__(Row, (number, key, values[time], values, ""))

    def _lines(self) -> Iterator[tuple[list[str], str]]:
        """The cells of each line, none of an empty one, and what is wrong with it. A row is a line: a stray quote spoils that one alone."""
        with gzip.open(self.path) if self.path.suffix == ".gz" else self.path.open("rb") as file:
            try:
                for number, raw in enumerate(file):
                    line, problem = raw.rstrip(b"\r\n"), ""
                    try:
                        text = line.decode("utf-8" if number else "utf-8-sig")
                        cells = next(csv.reader([text], strict=True), []) if '"' in text else text.split(",") if text else []
                    except UnicodeDecodeError as wrong:
                        problem = f"not UTF-8: byte {line[wrong.start]:#04x} at {wrong.start + 1}"
                    except csv.Error as wrong:
                        problem = f"not CSV: {wrong}"
                    # Also of a spoiled line the id is wanted: an order must not go in without it.
                    yield (line.decode("utf-8", "replace").split(","), problem) if problem else (cells, "")
            except (OSError, EOFError, zlib.error) as broken:
                raise Unreadable(f"{self.path.name} cannot be read to its end: {broken}") from broken


# ---------------------------------------------------------------- survey


@dataclass
class Survey:
    """What a first reading of a file tells. `first_us` and `last_us` are None when no row holds."""

    rows: int = 0
    first_us: int | None = None
    last_us: int | None = None
    # Line of the first row that is earlier than the one before it; 0: the file is in order of time.
    disorder: int = 0
    # (time, line) of the earliest row that holds, by id.
    seen: dict[tuple[str, ...], tuple[int, int]] = field(default_factory=dict)
    # When facts whose rows differ in time are dated, by id: at their latest row.
    latest_us: dict[tuple[str, ...], int] = field(default_factory=dict)
    # Facts of several rows that cannot be, and why.
    spoiled: dict[tuple[str, ...], str] = field(default_factory=dict)


def survey(table: Table) -> Survey:
    """Reads a file once. Raises Unreadable when it breaks off."""
    found, previous_us = Survey(), None
    joins, times = table.format.joins, table.format.time
    for row in table.rows():
        found.rows += 1
        if row.problem:
            if joins and len(row.key) == len(table.format.key):
                found.spoiled.setdefault(row.key, f"line {row.line} of the same {table.kind.name.lower()} is malformed")
            continue
        at_us, place = row.at_us, (row.at_us, row.line)
        if previous_us is None or found.first_us is None or found.last_us is None:
            found.first_us = found.last_us = at_us
        elif at_us < previous_us:
            found.disorder = found.disorder or row.line
            found.first_us = min(found.first_us, at_us)
        elif at_us > found.last_us:
            found.last_us = at_us
        previous_us = at_us
        earlier = found.seen.setdefault(row.key, place)
        if table.format.spans and earlier[0] != at_us:
            found.latest_us[row.key] = max(found.latest_us.get(row.key, earlier[0]), at_us)
        elif joins and earlier[0] != at_us:
            found.spoiled.setdefault(row.key, f"lines {earlier[1]} and {row.line} differ in {times}")
        elif place < earlier:
            found.seen[row.key] = place
    return found


# ---------------------------------------------------------------- facts


class Fact(NamedTuple):
    """A fact about to be sent, and the rows it was told in. `message` lacks the program and its currency."""

    at_us: int
    kind: Kind
    id: str
    lines: tuple[int, ...]
    message: Any
    # The members and orders it needs to be known before it.
    refers: tuple[tuple[Kind, str], ...] = ()


class Rejected(NamedTuple):
    """A row that stays out. `reason` is a name of fenrun.type.v1.ErrorReason."""

    kind: Kind
    line: int
    id: str
    reason: str
    message: str


Reject = Callable[[Rejected], None]


def facts(table: Table, found: Survey, reject: Reject) -> Iterator[Fact]:
    """The facts of a file in order of time, those of one instant as the file has them. Sorts in memory only what is not in order."""
    rows: Iterable[Row] = _holding(table, found, reject)
    if found.latest_us:
        rows = (row._replace(at_us=found.latest_us.get(row.key, row.at_us)) for row in rows)
    if found.disorder or found.latest_us:
        rows = sorted(rows, key=lambda row: row.at_us)
    for _, instant in groupby(rows, key=lambda row: row.at_us):
        told: dict[Any, list[Row]] = {}
        for row in instant:
            told.setdefault(row.key if table.format.joins else row.line, []).append(row)
        for together in told.values():
            try:
                yield FORM[table.kind](together)
            except ValueError as problem:
                for row in together:
                    reject(Rejected(table.kind, row.line, "/".join(row.key), "MALFORMED", str(problem)))


def _holding(table: Table, found: Survey, reject: Reject) -> Iterator[Row]:
    for row in table.rows():
        problem = row.problem or found.spoiled.get(row.key, "")
        if problem:
            reject(Rejected(table.kind, row.line, "/".join(row.key), "MALFORMED", problem))
        else:
            yield row


def timestamp(us: int) -> Timestamp:
    return Timestamp(seconds=us // 1_000_000, nanos=us % 1_000_000 * 1000)


def _member(rows: Sequence[Row]) -> Fact:
    line, (member_id,), at_us, cells, _ = rows[0]
    referrer_id = cells["referrer_id"]
    request = referral.EnrollMemberRequest(member_id=member_id, referrer_id=referrer_id, enrolled_at=timestamp(at_us))
    return Fact(at_us, Kind.MEMBER, member_id, (line,), request, ((Kind.MEMBER, referrer_id),) if referrer_id else ())


def _order(rows: Sequence[Row]) -> Fact:
    _, (order_id,), at_us, first, _ = rows[0]
    order = ledger.Order(order_id=order_id, member_id=first["member_id"], paid_at=timestamp(at_us))
    lines: dict[int, Row] = {}
    for row in rows:
        cells = row.values
        if cells["member_id"] != order.member_id:
            raise ValueError(f"lines {rows[0].line} and {row.line} differ in member_id")
        same = lines.setdefault(cells["line_no"], row)
        if same.values != cells:
            raise ValueError(f"lines {same.line} and {row.line} are both line_no {cells['line_no']}, with different content")
        if same is row:
            order.lines.add(
                line_no=cells["line_no"],
                sku=cells["sku"],
                quantity=cells["quantity"],
                base_minor=cells["amount_minor"],
                category=cells.get("category", ""),
                kind=cells.get("kind", log.LINE_KIND_UNSPECIFIED),
            )
    return Fact(at_us, Kind.ORDER, order_id, tuple(row.line for row in rows), order, ((Kind.MEMBER, order.member_id),))


def _upgrade(rows: Sequence[Row]) -> Fact:
    line, (upgrade_id,), at_us, cells, _ = rows[0]
    member_id, order_id = cells["member_id"], cells["order_id"]
    kind = log.EVIDENCE_KIND_PAID_ORDER if order_id else log.EVIDENCE_KIND_IMPORT
    request = referral.UpgradeMemberRequest(
        upgrade_id=upgrade_id,
        member_id=member_id,
        tier=cells["tier"],
        upgraded_at=timestamp(at_us),
        evidence=log.Evidence(kind=kind, order_id=order_id),
    )
    refers = ((Kind.MEMBER, member_id), (Kind.ORDER, order_id)) if order_id else ((Kind.MEMBER, member_id),)
    return Fact(at_us, Kind.UPGRADE, upgrade_id, (line,), request, refers)


def _refund(rows: Sequence[Row]) -> Fact:
    _, (refund_id, order_id), at_us, _, _ = rows[0]
    refund = ledger.Refund(refund_id=refund_id, order_id=order_id, refunded_at=timestamp(at_us))
    for row in rows:
        cells = row.values
        refund.lines.add(line_no=cells["line_no"], quantity=cells["quantity"], base_minor=cells["amount_minor"])
    return Fact(at_us, Kind.REFUND, f"{refund_id}/{order_id}", tuple(row.line for row in rows), refund, ((Kind.ORDER, order_id),))


def completion(order_id: str, at_us: int) -> Fact:
    """Told by no row: an order counts as completed some days after it was paid."""
    told = ledger.Completion(order_id=order_id, completed_at=timestamp(at_us))
    return Fact(at_us, Kind.COMPLETION, order_id, (), told)


FORM: dict[Kind, Callable[[Sequence[Row]], Fact]] = {
    Kind.MEMBER: _member,
    Kind.ORDER: _order,
    Kind.UPGRADE: _upgrade,
    Kind.REFUND: _refund,
}


def find(directory: Path) -> list[Table]:
    """The tables of a directory, plain or gzipped. Raises Unreadable for a required one that is missing or one that is there twice."""
    tables = []
    for kind, form in FORMATS.items():
        there = [path for name in (f"{form.name}.csv", f"{form.name}.csv.gz") if (path := directory / name).is_file()]
        if len(there) > 1:
            raise Unreadable(f"{directory} has both {there[0].name} and {there[1].name}; leave one")
        if not there and form.required:
            raise Unreadable(f"{directory} has no {form.name}.csv or {form.name}.csv.gz")
        tables += [Table(kind, path) for path in there]
    return tables
