"""From a real server into a bundle and through the verifier: every type of entry, an earlier end, and what a database's owner does."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fenrun.log.v1 import log_pb2
from typer.testing import CliRunner, Result

from services.__main__ import app
from services.auditor import exporting, tables
from services.auditor.bundle import read_manifest
from services.auditor.verifying.deciding import every_type
from tests.audit.house import Shop, rewrite
from tests.auditor.logs import bundle, changed, golden, rehash
from tests.given import Client
from tests.golden.make import play, play_schemes

ROOT = Path(__file__).resolve().parent.parent.parent
Run = Callable[..., Result]


def invoke(*words: str) -> Result:
    return CliRunner().invoke(app, list(words), env={"COLUMNS": "80", "FENRUN_PROGRAM": None, "FENRUN_TARGET": None})


@pytest.fixture
def export(shop: Shop, tmp_path: Path) -> Run:
    """`fenrun audit export` of the program of this test, once a checkpoint covers all of it."""

    return lambda name, *words: exported(shop, tmp_path / name, *words)


def exported(shop: Shop, path: Path, *words: str) -> Result:
    shop.checkpoint()
    return invoke("audit", "export", "-P", shop.program_id, "--target", shop.address, "--out", str(path), *words)


def verify(shop: Shop, path: Path, *words: str) -> tuple[int, dict[str, Any]]:
    """(exit status, report) of `fenrun audit verify`, in a process of its own because it forks."""
    command = [sys.executable, "-m", "services", "audit", "verify", str(path), "--key", str(shop.key), "--json", *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_every_type_of_entry_goes_out_of_a_server_and_verifies(shop: Shop, fresh_program_id: Callable[[], str], tmp_path: Path) -> None:
    shop = replace(shop, client=Client.of_new_program(shop.channel, fresh_program_id()))
    play(shop.client)
    play_schemes(shop.client)
    shop.client.seal("may", through=121, at=122)
    shop.client.refund("late", "q4", (1, 0, 1_000), at=120)
    shop.client.seal("june", through=152, at=152)
    shop.client.name("n1", "ann", "Ann", at=123)
    shop.client.erase("ann", at=124)
    assert exported(shop, tmp_path / "b").exit_code == 0
    status, report = verify(shop, tmp_path / "b", "--processes", "2")
    assert status == 0, report["findings"]
    assert report["decisions_recomputed"] == report["entries"] == shop.head()
    assert set(report["entries_by_type"]) == set(every_type())
    assert json.loads((tmp_path / "b/trial-balance.json").read_text())["told_by"] == "the books"
    assert (tmp_path / "b/plans/000000000002.json").is_file()
    for name in tables.NAMES:
        assert (tmp_path / "b" / name).is_file() is tables.installed()


def test_an_earlier_end_is_covered_by_a_proof_to_the_next_checkpoint(shop: Shop, export: Run, tmp_path: Path) -> None:
    shop.sell(5)
    first = shop.checkpoint()
    shop.sell(6)
    result = export("b", "--to", str(first.size - 2), "--no-tables")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "b/consistency.json").is_file()
    status, report = verify(shop, tmp_path / "b")
    assert status == 0, report["findings"]
    assert report["entries"] == first.size - 2
    assert json.loads((tmp_path / "b/trial-balance.json").read_text())["told_by"] == "the entries"
    assert not (tmp_path / "b/entries.parquet").exists()


def test_a_posting_that_the_owner_of_the_database_moved_is_found_and_named(shop: Shop, export: Run, tmp_path: Path) -> None:
    """All hashes, the head and the tree recomputed; the checkpoint of before stands."""
    shop.sell(9)
    kept = shop.checkpoint()
    rewrite(shop.dsn, shop.program_id, 8)
    result = invoke("audit", "export", "-P", shop.program_id, "--target", shop.address, "--out", str(tmp_path / "b"))
    assert result.exit_code == 0, result.output
    (tmp_path / "kept.txt").write_text(kept.note)
    status, report = verify(shop, tmp_path / "b", "--since", str(tmp_path / "kept.txt"))
    assert status == 1
    assert report["first_bad_position"] == 8
    assert {finding["check"] for finding in report["findings"]} >= {"checkpoints", "decisions"}


def test_a_checkpoint_kept_from_earlier_is_part_of_what_holds(shop: Shop, export: Run, tmp_path: Path) -> None:
    shop.sell(3)
    (tmp_path / "kept.txt").write_text(shop.checkpoint().note)
    shop.sell(3)
    assert export("b").exit_code == 0
    assert verify(shop, tmp_path / "b", "--since", str(tmp_path / "kept.txt"))[0] == 0


def test_people_read_80_columns(shop: Shop, export: Run, tmp_path: Path) -> None:
    shop.sell(2)
    result = export("b")
    assert max(map(len, result.output.splitlines())) <= 80
    result = invoke("audit", "verify", str(tmp_path / "b"), "--key", str(shop.key), "--processes", "1")
    assert result.exit_code == 0
    assert result.output.endswith("Everything holds.\n")
    assert max(map(len, result.output.splitlines())) <= 80


# ---------------------------------------------------------------- one clear sentence


def sentence(result: Result) -> str:
    assert result.exit_code == 1
    return " ".join(result.output.split())


def test_a_bundle_never_replaces_anything(shop: Shop, export: Run, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    assert "is there already; a bundle never replaces anything" in sentence(export("b"))
    assert list(tmp_path.iterdir()) == [tmp_path / "b"]


def test_where_no_checkpoint_reaches_there_is_no_bundle(shop: Shop, export: Run, tmp_path: Path) -> None:
    assert "no checkpoint covers position 5000 yet" in sentence(export("b", "--to", "5000"))
    assert "there is no directory" in sentence(export("c/d/b"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--key", "nonsense"), "a verifier key is NAME+ID+BASE64"),
        (("--key", "README.md"), "key file README.md"),
        (("--key", "K", "--since", "nowhere.txt"), "cannot be read"),
    ],
)
def test_what_cannot_be_read_ends_with_a_sentence(words: tuple[str, ...], says: str, shop: Shop, tmp_path: Path) -> None:
    given = [str(shop.key) if word == "K" else word for word in words]
    assert says in sentence(invoke("audit", "verify", str(tmp_path), *given))


# ---------------------------------------------------------------- writing


def broken(log: list[log_pb2.Entry]) -> Iterator[log_pb2.Entry]:
    yield from log[:40]
    raise ConnectionError("the server went away")


def test_what_breaks_off_leaves_nothing_behind(tmp_path: Path) -> None:
    log = golden("v2")
    contents = exporting.Contents("golden", "GBP", len(log), broken(log), {}, "2026-01-01T00:00:00Z", segment_entries=16)
    with pytest.raises(ConnectionError):
        exporting.export(contents, tmp_path / "b")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda log: log[:9] + log[10:], "at 11 where golden at 10 was expected"),
        (
            lambda log: rehash([*log[:2], changed(log[2], lambda one: setattr(one, "fact", b"\xff")), *log[3:]], 3),
            "entry at 3 cannot be read",
        ),
        (lambda log: log[:-1], "stopped at position 93, 94 was asked for"),
        (lambda log: [*log, log[-1]], "at 94 where golden at 95 was expected"),
    ],
)
def test_what_a_server_leaves_out_or_adds_is_no_bundle(
    change: Callable[[list[log_pb2.Entry]], list[log_pb2.Entry]], says: str, tmp_path: Path
) -> None:
    log = golden("v2")
    contents = exporting.Contents("golden", "GBP", len(log), change(log), {}, "2026-01-01T00:00:00Z")
    with pytest.raises(exporting.CannotExport, match=says):
        exporting.export(contents, tmp_path / "b")
    assert not list(tmp_path.iterdir())


def test_the_same_log_makes_the_same_files(tmp_path: Path) -> None:
    one, two = (bundle(tmp_path / name, golden("v2")) for name in ("one", "two"))
    assert read_manifest(one) == read_manifest(two)
