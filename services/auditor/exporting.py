"""Writing a bundle from a stream of entries: in bounded memory, under a temporary name that becomes the real one when all is there."""

import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from fenrun.log.v1 import log_pb2
from google.protobuf.message import DecodeError

from services.auditor import tables
from services.auditor.bundle import (
    MANIFEST,
    SEGMENT_ENTRIES,
    TRIAL_BALANCE,
    File,
    HashingFile,
    Manifest,
    hash_file,
    segment_path,
    varint,
)
from services.auditor.verifying.checkpoints import CONSISTENCY, FOLDER
from services.auditor.verifying.copies import plan_path
from services.auditor.verifying.laws import POSTING


class CannotExport(Exception):
    """No bundle was written; `str()` says why."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What goes into a bundle. `entries`: positions 1 to `upto`, in order.

    `checkpoints` are signed notes by the size they are of; `consistency` the proof (new size, hashes) from `upto` to a larger one,
    if there is one. `books`: the trial balance as the server's own views tell it at `upto`, {(asset, account): balance}; None: they could
    not be asked at that position, and the entries are added up instead.
    """

    program_id: str
    currency: str
    upto: int
    entries: Iterable[log_pb2.Entry]
    checkpoints: Mapping[int, bytes]
    exported_at: str
    consistency: tuple[int, Sequence[bytes]] | None = None
    books: Callable[[Sequence[str]], Mapping[tuple[str, int], int] | None] = lambda assets: None
    with_tables: bool = False
    segment_entries: int = SEGMENT_ENTRIES
    progress: Callable[[int, int], None] = lambda done, total: None


def export(contents: Contents, target: Path) -> Manifest:
    """Writes a bundle. Raises CannotExport, and then nothing is left under the name."""
    with _put_in_place(target) as directory:
        writer = _Writer(directory, contents)
        for entry in contents.entries:
            try:
                writer.add(entry)
            except (DecodeError, ValueError) as problem:
                raise CannotExport(f"the entry at {entry.position} cannot be read: {problem}") from problem
        return writer.finish()


@contextmanager
def _put_in_place(target: Path) -> Iterator[Path]:
    """A directory that takes the target's name at the end, or vanishes."""
    if target.exists() or target.is_symlink():
        raise CannotExport(f"{target} is there already; a bundle never replaces anything")
    if not target.parent.is_dir():
        raise CannotExport(f"there is no directory {target.parent} to write into")
    directory = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
    directory.mkdir()
    try:
        yield directory
        for path in (*directory.rglob("*"), directory):
            _sync(path)
        try:
            # Fails where somebody made a directory of that name in between, unless it is empty.
            directory.rename(target)
        except OSError as problem:
            raise CannotExport(f"{target} cannot be written: {problem.strerror}") from None
        _sync(target.parent)
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@dataclass(slots=True)
class _Segment:
    """The segment being written; its entries are kept only where tables are made of them."""

    file: HashingFile
    first: int
    kept: list[log_pb2.Entry] = field(default_factory=list)


class _Writer:
    def __init__(self, directory: Path, contents: Contents) -> None:
        self._directory, self._contents = directory, contents
        self._files: list[File] = []
        self._last, self._hash = 0, bytes(32)
        self._segment: _Segment | None = None
        self._plans: dict[str, str] = {}
        self._totals: dict[tuple[str, int], int] = {}
        self._tables = tables.TableWriter(directory) if contents.with_tables else None

    def add(self, entry: log_pb2.Entry) -> None:
        contents = self._contents
        if entry.position != self._last + 1 or entry.position > contents.upto or entry.program_id != contents.program_id:
            expected = f"{contents.program_id} at {self._last + 1}"
            raise CannotExport(f"the server sent {entry.program_id} at {entry.position} where {expected} was expected")
        if entry.previous_hash != self._hash:
            raise CannotExport(f"the entry at {entry.position} does not follow the one before it: its previous_hash is another")
        if self._segment is None:
            number = (entry.position - 1) // contents.segment_entries + 1
            self._segment = _Segment(HashingFile(self._directory, segment_path(number)), entry.position)
        raw = entry.SerializeToString(deterministic=True)
        self._segment.file.write(varint(len(raw)) + raw)
        if self._tables is not None:
            self._segment.kept.append(entry)
        self._last, self._hash = entry.position, entry.hash
        self._take_in(entry)
        if entry.position % contents.segment_entries == 0:
            self._end_segment()
        if entry.position % 500 == 0:
            contents.progress(entry.position, contents.upto)

    def _take_in(self, entry: log_pb2.Entry) -> None:
        if entry.type == "plan.published.v1":
            fact = log_pb2.PlanPublished.FromString(entry.fact)
            self._plans[plan_path(entry.position)] = fact.document
        decision = POSTING.get(entry.type)
        for posting in decision.FromString(entry.decision).postings if decision else ():
            key = (posting.asset, posting.account)
            self._totals[key] = self._totals.get(key, 0) + posting.amount_minor

    def _end_segment(self) -> None:
        segment = self._segment
        if segment is not None:
            self._files.append(segment.file.close(segment.first, self._last))
            if self._tables is not None:
                self._tables.write(segment.kept)
            self._segment = None

    def finish(self) -> Manifest:
        contents = self._contents
        if self._last != contents.upto:
            raise CannotExport(f"the server stopped at position {self._last}, {contents.upto} was asked for")
        self._end_segment()
        for path, document in self._plans.items():
            self._write(path, document.encode())
        for size, note in sorted(contents.checkpoints.items()):
            self._write(f"{FOLDER}/{size:012d}.txt", note)
        if contents.consistency is not None:
            new_size, hashes = contents.consistency
            told = {"old_size": contents.upto, "new_size": new_size, "hashes": [one.hex() for one in hashes]}
            self._write(CONSISTENCY, _json(told))
        self._write(TRIAL_BALANCE, _json(self._trial_balance()))
        if self._tables is not None:
            self._tables.close()
            for name in tables.NAMES:
                table = self._directory / name
                self._files.append(File(name, table.stat().st_size, hash_file(table)))
        manifest = Manifest(
            contents.program_id,
            contents.currency,
            contents.upto,
            self._hash.hex(),
            contents.segment_entries,
            contents.exported_at,
            tuple(self._files),
        )
        (self._directory / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
        contents.progress(contents.upto, contents.upto)
        return manifest

    def _trial_balance(self) -> dict[str, object]:
        contents = self._contents
        assets = sorted({contents.currency, *(asset for asset, _ in self._totals)})
        books = contents.books(assets)
        totals = {key: amount for key, amount in (self._totals if books is None else books).items() if amount}
        return {
            "currency": contents.currency,
            "position": contents.upto,
            "told_by": "the entries" if books is None else "the books",
            "accounts": [
                {"asset": asset, "account": log_pb2.Account.Name(account), "balance_minor": amount}  # type: ignore[arg-type]  # read as one
                for (asset, account), amount in sorted(totals.items())
            ],
        }

    def _write(self, path: str, data: bytes) -> None:
        file = HashingFile(self._directory, path)
        file.write(data)
        self._files.append(file.close())


def _json(told: object) -> bytes:
    return (json.dumps(told, ensure_ascii=False, indent=1) + "\n").encode()
