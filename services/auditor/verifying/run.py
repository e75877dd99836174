"""Verifying a whole bundle: every check in order, on all processors, in memory that does not grow with the number of orders."""

import gc
import os
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from fenrun.log.v1 import log_pb2

from services.audit.domain.checkpoint import VerifierKey
from services.auditor.bundle import MANIFEST, Manifest, NotABundle, read_manifest, shown_path
from services.auditor.verifying import checkpoints, copies, folding, index, scanning
from services.auditor.verifying.folding import Progress
from services.auditor.verifying.history import History
from services.auditor.verifying.processes import WorkerLost, belong_to_parent
from services.auditor.verifying.report import CHECKS, Bad, Finding, Report
from services.auditor.verifying.scanning import Scanned
from services.auditor.verifying.tree import Peaks, add, root_of

LAWS = ("balances", "locks", "payouts", "refunds")


@dataclass(frozen=True, slots=True)
class Verification:
    """What is verified against what. `since`: a signed checkpoint kept from earlier, which the bundle must contain."""

    bundle: Path
    trusted: Sequence[VerifierKey]
    since: bytes | None = None
    processes: int = 1
    progress: Progress = lambda what, done, total: None
    # Where to keep what does not fit into memory; None: the system's directory for such.
    work_dir: Path | None = None


def verify(asked: Verification) -> Report:
    """Makes every check in order. What does not hold is in the report; only what keeps it from being made at all is raised:
    OSError, WorkerLost."""
    report = Report(processes=asked.processes)
    began = time.monotonic_ns()
    with tempfile.TemporaryDirectory(prefix="fenrun-verify-", dir=asked.work_dir) as work, _without_collector():
        try:
            _verify(asked, Path(work), report)
        except Bad as bad:
            report.findings.append(bad.finding)
    report.duration_ms = (time.monotonic_ns() - began) // 1_000_000
    report.checked.sort(key=CHECKS.index)
    return report


def _verify(asked: Verification, work: Path, report: Report) -> None:
    try:
        manifest = read_manifest(asked.bundle)
    except NotABundle as problem:
        raise Bad(Finding("manifest", None, str(problem))) from None
    report.program_id, report.currency = manifest.program_id, manifest.currency
    report.entries = manifest.entries
    secret = secrets.token_bytes(32)
    signed = checkpoints.read(asked.bundle, manifest, asked.trusted, asked.since)
    with _pool(asked.processes) as pool:
        report.findings += _files(asked, manifest, pool)
        report.checked.append("manifest")
        segments = _scan(asked, manifest, work, secret, signed.sizes, pool)
        roots = _join(manifest, segments, signed.sizes)
        _numbered(work, pool)
    report.checked.append("hashes and chain")
    report.head_hash = segments[-1].last_hash.hex()
    for segment in segments:
        for name, count in segment.types.items():
            report.entries_by_type[name] = report.entries_by_type.get(name, 0) + count
    report.root_hash = roots[manifest.entries].hex()
    if manifest.head_hash != report.head_hash:
        report.findings.append(Finding("manifest", None, "the head's hash", manifest.head_hash, report.head_hash))
    report.findings += checkpoints.check(signed, manifest, roots)
    report.checkpoints = signed.shown
    report.checked.append("checkpoints")
    _fold(asked, manifest, History(asked.bundle, manifest, work, secret), report)


# ---------------------------------------------------------------- files, hashes, chain


def _files(asked: Verification, manifest: Manifest, pool: Executor | None) -> list[Finding]:
    """Everything the manifest names, as it says, and nothing besides."""
    named = {file.path for file in manifest.files} | {MANIFEST}
    there = {shown_path(path.relative_to(asked.bundle)) for path in asked.bundle.rglob("*") if not path.is_dir()}
    found = [Finding("manifest", None, f"{path} is not named by the manifest") for path in sorted(there - named)]
    checked = _map(pool, partial(scanning.check_file, asked.bundle), manifest.files)
    for done, finding in enumerate(checked, 1):
        asked.progress("files", done, len(manifest.files))
        if finding is not None:
            found.append(finding)
    return found


def _scan(asked: Verification, manifest: Manifest, work: Path, secret: bytes, sizes: Sequence[int], pool: Executor | None) -> list[Scanned]:
    """Every segment by itself. Raises Bad with the first bad position."""
    segments = manifest.segments
    for segment in segments:
        if not (asked.bundle / segment.path).is_file():
            raise Bad(Finding("hashes and chain", segment.first_position, f"{segment.path} is missing", "its entries", "nothing"))
    scan = partial(scanning.scan, asked.bundle, manifest.program_id, tuple(sizes), work, secret)
    scanned = []
    for one in _map(pool, scan, segments):
        asked.progress("hashes", one.last_position, manifest.entries)
        scanned.append(one)
        if one.finding is not None:
            break
    for before, one in zip([None, *scanned], scanned, strict=False):
        if one.first_previous_hash or one.finding is None:
            previous = before.last_hash if before else bytes(32)
            scanning.link(
                one.first_position, previous, one.first_previous_hash, before.last_recorded_us if before else 0, one.first_recorded_us
            )
        if one.finding is not None:
            raise Bad(one.finding)
    return scanned


def _join(manifest: Manifest, segments: Sequence[Scanned], sizes: Sequence[int]) -> dict[int, bytes]:
    """{tree size: root} for the sizes of checkpoints that the bundle reaches, and for all of it."""
    peaks: Peaks = []
    roots = {0: root_of([])}
    for segment in segments:
        for size, inside in segment.peaks_at.items():
            upto = list(peaks)
            for height, root in inside:
                add(upto, height, root)
            roots[size] = root_of(upto)
        for height, root in segment.peaks:
            add(peaks, height, root)
    roots[manifest.entries] = root_of(peaks)
    return roots


def _numbered(work: Path, pool: Executor | None) -> None:
    """That the entries of every stream are numbered 1, 2, 3, …; and makes the index. Raises Bad."""
    wrong = [found for bucket in _map(pool, partial(index.sort_bucket, work), range(index.BUCKETS)) for found in bucket]
    if wrong:
        position, expected, version = min(wrong)
        problem = "the entries of a stream are numbered without gaps"
        raise Bad(Finding("hashes and chain", position, problem, f"version {expected}", f"version {version}"))


# ---------------------------------------------------------------- decisions and laws


def _fold(asked: Verification, manifest: Manifest, history: History, report: Report) -> None:
    """Decisions taken again, and the laws, each from the first entry on; then what the bundle says a second time."""
    segments = range(len(manifest.segments)) if copies.tables_told(manifest) else range(0)
    # As many parts as there are processes, each with the library for tables to load.
    parts = [segments[first :: asked.processes] for first in range(min(asked.processes, len(segments)))]
    rest = {f"tables {n}": partial(copies.check_tables, asked.bundle, manifest, history, part) for n, part in enumerate(parts, 1)}
    if asked.processes > 1:
        folded = folding.in_processes(history, asked.processes, asked.progress, rest)
    else:
        folded = folding.alone(history, asked.progress, rest)
    report.findings += folded.findings
    report.decisions_recomputed = folded.decided
    if folded.note:
        report.notes.append(folded.note)
    report.postings, report.members = folded.laws.postings, folded.laws.members
    report.checked += ["decisions", *LAWS]
    if any(finding.check in LAWS for finding in folded.findings):
        return
    if manifest.currency != folded.laws.currency:
        report.findings.append(Finding("manifest", None, "the currency of the program", folded.laws.currency, manifest.currency))
    report.findings += copies.check_plans(asked.bundle, manifest, folded.laws.plans)
    compared: list[copies.Compared] = folded.rest
    first_wrong = min((one for one in compared if one.finding is not None), key=lambda one: one.segment, default=None)
    if first_wrong is not None and first_wrong.finding is not None:
        report.findings.append(first_wrong.finding)
    report.notes += [one.note for one in compared if one.note][:1]
    report.checked.append("copies")
    report.trial_balance = [
        {"asset": asset, "account": log_pb2.Account.Name(account), "balance_minor": balance}  # type: ignore[arg-type]  # read as one
        for (asset, account), balance in sorted(folded.laws.totals.items())
    ]
    report.findings += copies.check_trial_balance(asked.bundle, folded.laws.currency, folded.laws.totals, manifest.entries)
    report.checked.append("trial balance")


# ---------------------------------------------------------------- processes


def _map(pool: Executor | None, work: Callable[[Any], Any], over: Any) -> Iterator[Any]:
    return map(work, over) if pool is None else pool.map(work, over)


@contextmanager
def _pool(processes: int) -> Iterator[Executor | None]:
    if processes == 1:
        yield None
        return
    try:
        with ProcessPoolExecutor(processes, mp_context=get_context("fork"), initializer=belong_to_parent) as pool:
            try:
                yield pool
            except BaseException:
                # What nobody will look at need not be waited for.
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    except BrokenExecutor as error:
        raise WorkerLost("a process that read segments ended without an answer") from error


@contextmanager
def _without_collector() -> Iterator[None]:
    """The state is millions of small objects without cycles: looking for them again and again would take most of the time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def processors() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
