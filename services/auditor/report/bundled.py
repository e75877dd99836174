"""The report of a bundle: entries from its segments, checkpoints from its notes, and what verifying found if it was verified."""

import json
import mmap
import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from fenrun.log.v1 import log_pb2 as pb
from google.protobuf.message import DecodeError

from services.audit.domain.checkpoint import LARGEST_NOTE, Checkpoint, Note, NoteMalformed
from services.auditor.bundle import Manifest, NotABundle, frames, read_manifest, read_whole
from services.auditor.report import page
from services.auditor.report.figures import Figures
from services.auditor.report.making import READINGS, Made, make
from services.auditor.report.page import Origin
from services.auditor.report.surveying import CannotReport
from services.auditor.verifying.checkpoints import FOLDER
from services.auditor.verifying.report import Report

# How often it is told how far reading has come, in entries.
SAY_EVERY = 1_000
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Asked:
    """`made_at`: ISO 8601, UTC. `verified`: what verifying this bundle found; None: it was not verified."""

    bundle: Path
    made_at: str
    verified: Report | None = None
    progress: Progress = lambda stage, done, total: None
    # The last position reported on; None: all there are.
    to: int | None = None


def made_of(asked: Asked) -> tuple[Made, Origin]:
    """Raises CannotReport, NotABundle or OSError."""
    manifest = read_manifest(asked.bundle)
    upto, read = asked.to or manifest.entries, 0
    if upto > manifest.entries:
        raise CannotReport(f"the bundle ends at position {manifest.entries}, {upto} was asked for")

    def entries() -> Iterator[pb.Entry]:
        nonlocal read
        for entry in islice(_entries(asked.bundle, manifest), upto):
            read += 1
            if read % SAY_EVERY == 0:
                asked.progress("report", read, READINGS * upto)
            yield entry

    made = make(entries)
    asked.progress("report", READINGS * upto, READINGS * upto)
    found = made.figures
    head_hash = manifest.head_hash if upto == manifest.entries else found.head_hash
    if (found.last_position, found.head_hash, found.program_id) != (upto, head_hash, manifest.program_id):
        told = f"{manifest.program_id}, {upto} entries, the last {head_hash}"
        raise CannotReport(f"the manifest says {told}; found {found.program_id}, {found.last_position}, {found.head_hash}")
    return made, Origin(asked.made_at, _checkpoints(asked.bundle, manifest), _verified(asked.verified, found))


def write(made: Made, origin: Origin, target: Path) -> None:
    """The page, in the place of whatever stood there, whole or not at all. Raises OSError."""
    partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
    try:
        with partial.open("x", encoding="utf-8", newline="\n") as file:
            file.writelines(page.write(made, origin))
        partial.replace(target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def to_json(made: Made, origin: Origin) -> dict[str, object]:
    """The same for machines: every figure of the page but the tree, amounts in minor units."""
    return {
        "made_at": origin.made_at,
        "verified": None if origin.verified is None else not origin.verified,
        "does_not_hold": list(origin.verified or ()),
        "checkpoints": [{"size": size, "name": name, "root_hash": root} for size, name, root in origin.checkpoints],
        **made.figures.to_json(),
    }


def _entries(bundle: Path, manifest: Manifest) -> Iterator[pb.Entry]:
    for segment in manifest.segments:
        descriptor = os.open(bundle / segment.path, os.O_RDONLY)
        try:
            if not os.fstat(descriptor).st_size:
                raise CannotReport(f"{segment.path} is empty")
            # Of the page cache's memory, not ours.
            buffer = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
        finally:
            os.close(descriptor)
        try:
            for _, raw in frames(buffer):
                yield pb.Entry.FromString(raw)
        except (ValueError, DecodeError) as problem:
            raise CannotReport(f"{segment.path} cannot be read: {problem}") from None
        finally:
            buffer.close()


def _checkpoints(bundle: Path, manifest: Manifest) -> tuple[tuple[int, str, str], ...]:
    """What the notes say; whether their signatures hold is for verifying."""
    found = []
    for file in manifest.under(FOLDER):
        try:
            note = Note.parse(read_whole(bundle, file.path, LARGEST_NOTE))
            checkpoint = Checkpoint.parse(note.text)
        except (NoteMalformed, OSError):
            continue
        found.append((checkpoint.size, note.signatures[0].name, checkpoint.root.hex()))
    return tuple(sorted(found))


def _verified(report: Report | None, found: Figures) -> tuple[str, ...] | None:
    if report is None:
        return None
    told = []
    for finding in sorted(report.findings, key=lambda one: one.rank):
        where = "" if finding.position is None else f"position {finding.position}: "
        compared = "".join(f"; {name} {value}" for name, value in (("expected", finding.expected), ("found", finding.found)) if value)
        told.append(f"{finding.check}: {where}{finding.problem}{compared}")
    if report.holds:
        _agree(report, found)
    elif not told:
        told.append("not everything was checked")
    return tuple(told)


def _agree(report: Report, found: Figures) -> None:
    """The verifier's fold and this one share no code, so a bundle that holds gives both the same."""
    theirs = {(row["asset"], row["account"]): row["balance_minor"] for row in report.trial_balance if row["balance_minor"]}
    ours = {(row.asset, f"ACCOUNT_{row.account.upper()}"): row.balance_minor for row in found.trial_balance if row.balance_minor}
    if (report.head_hash, theirs) != (found.head_hash, ours):
        raise CannotReport(f"the bundle is not what was verified: {json.dumps(sorted(map(str, set(theirs.items()) ^ set(ours.items()))))}")


__all__ = ["Asked", "CannotReport", "NotABundle", "made_of", "to_json", "write"]
