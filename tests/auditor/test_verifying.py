"""Verifying in shares and in several processes gives what verifying in one piece gives; tables are compared; memory stays bounded."""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fenrun.log.v1 import log_pb2

from services.audit.domain.merkle import Frontier, Node, consistency_parts, hashes, perfect
from services.auditor import tables
from services.auditor.bundle import MANIFEST, frame_at, read_manifest, varint
from services.auditor.verifying import deciding, index, run, scanning
from services.auditor.verifying.history import STREAMS_KEPT, History
from services.auditor.verifying.processes import Children, WorkerLost
from services.auditor.verifying.report import Bad, Report
from services.auditor.verifying.run import Verification, verify
from services.auditor.verifying.tree import Peaks, add, add_leaf, root_of
from services.ledger.domain import commands
from services.ledger.domain.facts import LineKind, OrderLine, OrderPaid
from services.referral.domain.decide import EnrollMember
from services.referral.domain.facts import MemberEnrolled
from tests.auditor.logs import FIRST_DAY, KEY, Log, bundle, golden, note, rehash
from tests.auditor.test_tampering import MOVING, forged, renumbered, seal, tampered_posting, verified

STORY = golden("v2")
ROOT = Path(__file__).resolve().parent.parent.parent
# As a process of its own: verifying forks, and this one has gRPC's threads. Shares of 7 entries.
SCRIPT = """
import json, sys
from pathlib import Path
from services.audit.domain.checkpoint import VerifierKey
from services.auditor.verifying import folding, run
folding.SMALLEST_SHARE = 7
report = run.verify(run.Verification(Path(sys.argv[1]), [VerifierKey.parse(sys.argv[2])], processes=3))
print(json.dumps(report.to_json()))
"""


def in_processes(path: Path) -> str:
    given = [sys.executable, "-c", SCRIPT, str(path), str(KEY.verifier_key)]
    return subprocess.run(given, check=True, capture_output=True, text=True, cwd=ROOT, timeout=60).stdout


def comparable(report: str) -> str:
    """Without what differs from run to run."""
    told = json.loads(report)
    return json.dumps({key: value for key, value in told.items() if key not in ("duration_ms", "processes")}, sort_keys=True)


def as_text(report: Report) -> str:
    return json.dumps(report.to_json())


def test_several_processes_report_what_one_reports(tmp_path: Path) -> None:
    path = bundle(tmp_path / "b", STORY)
    report = verified(path)
    assert report.holds
    assert comparable(in_processes(path)) == comparable(as_text(report))


@pytest.mark.parametrize("position", [MOVING[0], MOVING[len(MOVING) // 2], MOVING[-1]])
def test_several_processes_name_the_first_bad_position(position: int, tmp_path: Path) -> None:
    # Every one from there on is bad; the least must win, whichever process comes first.
    log = STORY
    for bad in [one for one in MOVING if one >= position]:
        log = forged(bad, tampered_posting, log)
    told = json.loads(in_processes(bundle(tmp_path / "b", log)))
    assert not told["holds"]
    assert told["first_bad_position"] == position
    assert [one["position"] for one in told["findings"] if one["check"] == "decisions"] == [position]


def test_a_share_may_begin_anywhere_also_among_what_one_command_drafted(tmp_path: Path) -> None:
    path = bundle(tmp_path / "b", STORY)
    with tempfile.TemporaryDirectory() as work:
        history = opened(path, Path(work))
        for cut in range(1, len(STORY)):
            state = deciding.State.empty(history)
            taken, _ = deciding.decide(state, 1, cut, history, lambda position: None)
            state = deciding.State.empty(history)
            for row in history.rows(1, cut):
                deciding.fold(state, row)
            taken += deciding.decide(state, cut + 1, len(STORY), history, lambda position: None)[0]
            assert taken == len(STORY), cut


@pytest.mark.parametrize("kind", sorted(deciding.FOLLOWING))
def test_what_is_missing_where_a_share_ends_is_found_all_the_same(kind: str, tmp_path: Path) -> None:
    gone = next(entry for entry in STORY if entry.type == kind)
    log = rehash([*STORY[: gone.position - 1], *renumbered(STORY[gone.position :], gone.stream)], gone.position)
    with tempfile.TemporaryDirectory() as work:
        history = opened(bundle(tmp_path / "b", log), Path(work))
        state = deciding.State.empty(history)
        with pytest.raises(Bad) as found:
            deciding.decide(state, 1, gone.position - 1, history, lambda position: None)
        assert found.value.finding.position == gone.position


def opened(path: Path, work: Path) -> History:
    """The history of a bundle, as verifying makes it."""
    manifest, secret = read_manifest(path), bytes(32)
    for segment in manifest.segments:
        assert scanning.scan(path, manifest.program_id, (), work, secret, segment).finding is None
    run._numbered(work, None)
    return History(path, manifest, work, secret)


def test_a_process_that_dies_is_no_verdict() -> None:
    """In a process of its own, for the same reason."""
    script = (
        "import os\n"
        "from services.auditor.verifying.processes import Children, WorkerLost\n"
        "children = Children(lambda key, done: None)\n"
        "children.start('share', lambda say: os._exit(9))\n"
        "try:\n    children.wait_for_all()\n"
        "except WorkerLost as lost:\n    print(lost)\n"
    )
    told = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, cwd=ROOT, timeout=30).stdout
    assert told == "a process that verified share ended with status 9 and no answer\n"
    assert issubclass(WorkerLost, Exception)
    assert len(Children(lambda key, done: None)) == 0


def test_an_interrupt_is_answered_by_the_parent_alone() -> None:
    script = (
        "import os, signal\n"
        "from services.auditor.verifying.processes import Children\n"
        "children = Children(lambda key, done: None)\n"
        "children.start('share', lambda say: os.kill(os.getpid(), signal.SIGINT) or 7)\n"
        "children.wait_for_all()\nprint(children.answers)\n"
    )
    told = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, cwd=ROOT, timeout=30)
    assert (told.stdout, told.stderr) == ("{'share': 7}\n", "")


# Verifies a bundle in two processes, of which something is done to one that reads segments.
WITH_A_POOL = """
import os, signal, sys, time
from pathlib import Path
from services.audit.domain.checkpoint import VerifierKey
from services.auditor import cli
from services.auditor.verifying import scanning
def check_file(bundle, file):
    {act}
scanning.check_file = check_file
try:
    cli.verify(Path(sys.argv[1]), [sys.argv[2]], None, 2, None, None, True)
except cli.typer.Exit as ended:
    sys.exit(ended.exit_code)
"""


def with_a_pool(act: str, tmp_path: Path) -> "subprocess.Popen[str]":
    given = [sys.executable, "-c", WITH_A_POOL.format(act=act), str(bundle(tmp_path / "b", STORY)), str(KEY.verifier_key)]
    # Who is killed leaves their index behind.
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    return subprocess.Popen(given, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=env)


def test_a_process_that_dies_while_reading_segments_is_no_verdict(tmp_path: Path) -> None:
    process = with_a_pool("os.kill(os.getpid(), signal.SIGKILL)", tmp_path)
    told, said = process.communicate(timeout=30)
    assert (process.returncode, told) == (1, "")
    assert said == "fenrun: not verified: a process that read segments ended without an answer\n"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_no_process_outlives_a_verifier_that_was_killed(tmp_path: Path) -> None:
    process = with_a_pool("os.write(1, b'%d\\n' % os.getpid()); time.sleep(60)", tmp_path)
    assert process.stdout is not None
    workers = [int(process.stdout.readline()) for _ in range(2)]
    process.kill()
    process.wait()
    until = time.monotonic() + 10
    while any(running(worker) for worker in workers):
        assert time.monotonic() < until, "they go on"
        time.sleep(0.05)


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_state_keeps_no_stream_of_an_order(tmp_path: Path) -> None:
    """Memory does not grow with orders: their streams are read from the bundle, and only so many are kept."""
    log = Log()
    log.tell(EnrollMember(MemberEnrolled("mei", ""), FIRST_DAY))
    for number in range(STREAMS_KEPT + 50):
        line = OrderLine(1, 900, 1, "tea-1", "tea", LineKind.GOODS)
        log.tell(commands.RecordOrder(OrderPaid(f"O{number}", "mei", "GBP", (line,)), FIRST_DAY))
    with tempfile.TemporaryDirectory() as work:
        history = opened(bundle(tmp_path / "b", log.entries, segment_entries=1024), Path(work))
        state = deciding.State.empty(history)
        deciding.decide(state, 1, len(log.entries), history, lambda position: None)
        assert not state.books.streams
        assert not state.books.due
        assert not state.roster.facts
        assert not state.roster.orders
        assert len(state.books._kept) <= STREAMS_KEPT
        assert len(state.books.stream("order/O7")) == 1


# ---------------------------------------------------------------- a bundle that ends before a checkpoint


def proof(log: list[log_pb2.Entry], old: int, new: int) -> list[bytes]:
    """The consistency proof between two sizes, by the server's code."""
    frontier = Frontier()
    nodes: dict[Node, bytes] = {}
    for entry in log[:new]:
        nodes.update(frontier.append(entry.hash))
    return hashes(consistency_parts(old, new), nodes.__getitem__)


def test_a_larger_checkpoint_covers_a_bundle_by_a_proof(tmp_path: Path) -> None:
    for upto in range(len(STORY) - 6, len(STORY)):
        given: dict[str, Any] = {
            "notes": {len(STORY): note(STORY, len(STORY))},
            "consistency": (len(STORY), proof(STORY, upto, len(STORY))),
        }
        whole = bundle(tmp_path / str(upto), STORY[:upto], **given)
        report = verified(whole)
        assert report.holds, report.findings


def test_a_proof_of_another_history_covers_nothing(tmp_path: Path) -> None:
    other = rehash([*STORY[:3], *STORY[3:]], 1)
    other[5].actor = "somebody else"
    other = rehash(other, 6)
    given: dict[str, Any] = {"notes": {94: note(other, 94)}, "consistency": (94, proof(other, 90, 94))}
    report = verified(bundle(tmp_path / "b", STORY[:90], **given))
    assert [one.check for one in report.findings if one.check == "checkpoints"] == ["checkpoints"]


def test_roots_are_those_of_the_tree_at_every_size() -> None:
    """The verifier's own tree and the server's agree, leaf by leaf and in halves."""
    frontier, peaks = Frontier(), Peaks()
    for entry in STORY:
        frontier.append(entry.hash)
        add_leaf(peaks, entry.hash)
        assert root_of(peaks) == frontier.root()
        assert [height for height, _ in peaks] == [node.level for node in perfect(0, frontier.size)]
    halves: Peaks = []
    for first in range(0, len(STORY), 32):
        part: Peaks = []
        for entry in STORY[first : first + 32]:
            add_leaf(part, entry.hash)
        for height, root in part:
            add(halves, height, root)
    assert root_of(halves) == frontier.root()


# ---------------------------------------------------------------- tables


def test_tables_are_written_and_say_what_the_entries_say(tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    path = bundle(tmp_path / "b", STORY, with_tables=True)
    assert verified(path).holds
    entries, postings = (pq.read_table(path / name).to_pylist() for name in tables.NAMES)
    assert [row["position"] for row in entries] == list(range(1, len(STORY) + 1))
    assert entries[-1]["hash"] == STORY[-1].hash.hex()
    totals: dict[str, int] = {}
    for row in postings:
        totals[row["asset"]] = totals.get(row["asset"], 0) + row["amount_minor"]
    assert set(totals.values()) == {0}
    assert len(postings) == verified(path).postings


def test_tables_that_say_otherwise_are_found(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path, lie = bundle(tmp_path / "b", STORY, with_tables=True), bundle(tmp_path / "lie", forged(40, actor), with_tables=True)
    (path / tables.ENTRIES).write_bytes((lie / tables.ENTRIES).read_bytes())
    seal(path)
    [finding] = verified(path).findings
    assert (finding.check, finding.position) == ("copies", 40)
    (path / tables.ENTRIES).write_bytes(b"no table")
    seal(path)
    [finding] = verified(path).findings
    assert finding.check == "copies"


def test_several_processes_find_the_first_segment_that_tables_tell_otherwise(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    # In segments of 32 entries each; a process takes every third of them.
    lies = forged(40, actor, forged(80, actor, forged(len(STORY), actor)))
    path, lie = bundle(tmp_path / "b", STORY, with_tables=True), bundle(tmp_path / "lie", lies, with_tables=True)
    (path / tables.ENTRIES).write_bytes((lie / tables.ENTRIES).read_bytes())
    seal(path)
    told = json.loads(in_processes(path))
    assert [(one["check"], one["position"]) for one in told["findings"]] == [("copies", 40)]
    assert comparable(json.dumps(told)) == comparable(as_text(verified(path)))


def test_an_entry_that_makes_no_row_is_a_finding_and_no_crash(tmp_path: Path) -> None:
    """Of a hold the laws do not look at, so that it comes to the tables."""
    pytest.importorskip("pyarrow")
    held = next(entry.position for entry in STORY if entry.type == "hold.placed.v1")
    path, lie = bundle(tmp_path / "b", STORY, with_tables=True), bundle(tmp_path / "lie", forged(held, unreadable))
    copies = [file for file in read_manifest(path).files if file.path in tables.NAMES]
    for file in copies:
        (lie / file.path).write_bytes((path / file.path).read_bytes())
    manifest = read_manifest(lie)
    (lie / MANIFEST).write_text(replace(manifest, files=(*manifest.files, *copies)).to_json(), encoding="utf-8")
    for told in (verified(lie).to_json(), json.loads(in_processes(lie))):
        assert [(one["check"], one["position"]) for one in told["findings"]] == [("decisions", held), ("copies", None)]


def test_what_hinders_the_comparison_is_no_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow")

    def no_memory(*given: Any) -> None:
        raise MemoryError

    path = bundle(tmp_path / "b", STORY, with_tables=True)
    monkeypatch.setattr(tables, "difference", no_memory)
    with pytest.raises(MemoryError):
        verified(path)


def unreadable(entry: log_pb2.Entry) -> None:
    entry.fact = b"no message"


def actor(entry: log_pb2.Entry) -> None:
    entry.actor = "somebody else"


def test_tables_are_left_out_of_the_comparison_and_said_so_where_they_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pyarrow")
    path = bundle(tmp_path / "b", STORY, with_tables=True)
    monkeypatch.setattr(tables, "installed", lambda: False)
    report = verified(path)
    assert report.holds
    assert "pyarrow is not installed" in report.notes[0]


# ---------------------------------------------------------------- small parts


@pytest.mark.parametrize("number", [0, 1, 127, 128, 300, 16_383, 16_384, 2**28 - 1])
def test_a_length_is_read_as_it_is_written(number: int) -> None:
    data = varint(number) + bytes(number if number < 20_000 else 0)
    if number < 20_000:
        assert frame_at(data, 0) == (len(varint(number)), len(varint(number)) + number)
    else:
        with pytest.raises(ValueError, match="cut off"):
            frame_at(data, 0)


def test_the_index_gives_what_stands_before_a_position(tmp_path: Path) -> None:
    secret = bytes(32)
    for first in (1, 51):
        records = index.Records(tmp_path, secret)
        for position in range(first, first + 50):
            records.add(index.stream_key(f"order/{position % 7}"), position, (position - 1) // 7 + 1)
        records.flush()
    assert [one for bucket in range(index.BUCKETS) for one in index.sort_bucket(tmp_path, bucket)] == []
    found = index.Index(tmp_path, secret)
    assert list(found.positions(index.stream_key("order/3"), 40)) == [3, 10, 17, 24, 31, 38]
    assert list(found.positions(index.stream_key("order/9"), 40)) == []


def test_a_report_fits_80_columns(tmp_path: Path) -> None:
    for log in (STORY, forged(MOVING[3], tampered_posting)):
        report = verify(Verification(bundle(tmp_path / str(len(list(tmp_path.iterdir()))), log), [KEY.verifier_key]))
        assert max(map(len, report.lines())) <= 80
        assert ("Everything holds." in report.lines()) is report.holds
