"""Entries and postings as tables, for DuckDB, Spark or a spreadsheet: Parquet, through pyarrow, which is an extra.

Copies for reading: what they say stands in the segments, and verifying compares them. A row group is a segment.
"""

from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fenrun.log.v1 import log_pb2

from services.auditor.verifying.laws import POSTING
from services.auditor.verifying.scanning import micros

if TYPE_CHECKING:
    import pyarrow as pa

ENTRIES, POSTINGS = "entries.parquet", "postings.parquet"
NAMES = (ENTRIES, POSTINGS)
# Facts about a member: in which field each names them.
_MEMBER: dict[str, tuple[type[Any], str]] = {
    "member.enrolled.v1": (log_pb2.MemberEnrolled, "member_id"),
    "member.touched.v1": (log_pb2.MemberTouched, "member_id"),
    "member.upgraded.v1": (log_pb2.MemberUpgraded, "member_id"),
    "member.binding_corrected.v1": (log_pb2.BindingCorrected, "member_id"),
    "member.role_granted.v1": (log_pb2.RoleGranted, "member_id"),
    "member.role_ended.v1": (log_pb2.RoleEnded, "member_id"),
    "member.named.v1": (log_pb2.MemberNamed, "member_id"),
    "member.erased.v1": (log_pb2.MemberErased, "member_id"),
    "order.paid.v1": (log_pb2.OrderPaid, "member_id"),
    "payout.requested.v1": (log_pb2.PayoutRequested, "member_id"),
    "adjustment.posted.v1": (log_pb2.AdjustmentPosted, "member_id"),
    "hold.placed.v1": (log_pb2.HoldPlaced, "member_id"),
    "group.opened.v1": (log_pb2.GroupOpened, "opener_id"),
    "task.done.v1": (log_pb2.TaskDone, "member_id"),
    "deposit.moved.v1": (log_pb2.DepositMoved, "member_id"),
    "stock.transferred.v1": (log_pb2.StockTransferred, "from_member_id"),
    "balance.opened.v1": (log_pb2.BalanceOpened, "member_id"),
}


def installed() -> bool:
    """Whether pyarrow is there."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        return False
    return True


@cache
def schemas() -> dict[str, "pa.Schema"]:
    import pyarrow as pa

    time, whole = pa.timestamp("us", tz="UTC"), pa.int64()
    return {
        ENTRIES: pa.schema(
            [
                ("position", whole),
                ("type", pa.string()),
                ("stream", pa.string()),
                ("stream_version", whole),
                ("occurred_at", time),
                ("recorded_at", time),
                ("actor", pa.string()),
                ("member_id", pa.string()),
                ("hash", pa.string()),
            ]
        ),
        POSTINGS: pa.schema(
            [
                ("position", whole),
                ("number", whole),
                ("type", pa.string()),
                ("stream", pa.string()),
                ("occurred_at", time),
                ("recorded_at", time),
                ("account", pa.string()),
                ("member_id", pa.string()),
                ("asset", pa.string()),
                ("amount_minor", whole),
            ]
        ),
    }


def tables(entries: Iterable[log_pb2.Entry]) -> dict[str, "pa.Table"]:
    """The rows of some entries, by the file they belong to."""
    import pyarrow as pa

    rows: dict[str, list[tuple[Any, ...]]] = {ENTRIES: [], POSTINGS: []}
    told, posted = rows[ENTRIES], rows[POSTINGS]
    for entry in entries:
        position, kind, stream = entry.position, entry.type, entry.stream
        occurred_us, recorded_us = micros(entry.occurred_at), micros(entry.recorded_at)
        member = _MEMBER.get(kind)
        member_id = getattr(member[0].FromString(entry.fact), member[1]) if member else ""
        told.append(
            (position, kind, stream, entry.stream_version, occurred_us, recorded_us, entry.actor, member_id or None, entry.hash.hex())
        )
        decision = POSTING.get(kind)
        if decision is not None:
            about = (kind, stream, occurred_us, recorded_us)
            posted += [
                (position, number, *about, _account(p.account), p.member_id or None, p.asset, p.amount_minor)
                for number, p in enumerate(decision.FromString(entry.decision).postings[:], 1)
            ]
    return {name: _table(pa, schema, rows[name]) for name, schema in schemas().items()}


@cache
def _account(account: "log_pb2.Account.ValueType") -> str:
    """As the tables name it: pending."""
    return log_pb2.Account.Name(account).removeprefix("ACCOUNT_").lower()


def _table(pa: Any, schema: "pa.Schema", rows: Sequence[tuple[Any, ...]]) -> "pa.Table":
    columns = zip(*rows, strict=True) if rows else ([] for _ in schema)
    return pa.Table.from_arrays([pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)], schema=schema)


class TableWriter:
    """Writes both files, a row group for each segment."""

    def __init__(self, bundle: Path) -> None:
        import pyarrow.parquet as pq

        self._writers = {name: pq.ParquetWriter(bundle / name, schema, compression="zstd") for name, schema in schemas().items()}

    def write(self, entries: Sequence[log_pb2.Entry]) -> None:
        for name, table in tables(entries).items():
            self._writers[name].write_table(table, row_group_size=max(1, table.num_rows))

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()


def difference(bundle: Path, number: int, entries: Sequence[log_pb2.Entry]) -> tuple[str, int | None, str, str] | None:
    """(file, position, expected, found) of the first row of a segment (from 0) that a file tells otherwise; None if both agree."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    expected = tables(entries)
    for name in NAMES:
        try:
            with pq.ParquetFile(bundle / name) as file:
                found = file.read_row_group(number)
        except (pa.ArrowException, OSError, IndexError) as problem:
            return name, None, f"row group {number}", str(problem)
        if not found.schema.equals(expected[name].schema):
            return name, None, str(expected[name].schema), str(found.schema)
        if not found.equals(expected[name]):
            rows = zip(expected[name].to_pylist(), found.to_pylist(), strict=False)
            wrong = next(((one, other) for one, other in rows if one != other), None)
            if wrong is None:
                return name, None, f"{expected[name].num_rows} rows", f"{found.num_rows} rows"
            return name, wrong[0]["position"], _row(wrong[0]), _row(wrong[1])
    return None


def _row(row: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in row.items())


def groups(bundle: Path) -> dict[str, int]:
    """{file: row groups}. Raises ValueError where one is no Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    found = {}
    for name in NAMES:
        try:
            found[name] = pq.read_metadata(bundle / name).num_row_groups
        except (pa.ArrowException, OSError) as problem:
            raise ValueError(f"{name} is no Parquet file: {problem}") from None
    return found
