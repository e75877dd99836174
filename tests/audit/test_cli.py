"""`fenrun audit …`: what operators and auditors read, and when the exit status says no."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from services.__main__ import app
from services.audit import signing
from services.console import terminal
from tests.audit.house import Shop, forget_checkpoints, rewrite, soon


def run(*words: str, status: int = 0) -> str:
    result = CliRunner().invoke(app, words, env={"COLUMNS": "80", "TERM": "dumb"})
    assert result.exit_code == status, result.output
    return result.output


@pytest.fixture
def sold(shop: Shop) -> Shop:
    shop.sell(6)
    shop.checkpoint()
    return shop


@pytest.fixture
def fenrun(sold: Shop) -> Any:
    def call(*words: str, status: int = 0, wide: bool = False) -> str:
        told = run("audit", *words, "-P", sold.program_id, "--target", sold.address, status=status)
        # A note is as long as it is, and a sentence on stderr is not broken.
        assert wide or status or all(len(line) <= 80 for line in told.splitlines()), told
        return told

    return call


# ---------------------------------------------------------------- keys


def test_a_new_key_prints_what_auditors_need_and_never_the_secret(tmp_path: Path) -> None:
    path = tmp_path / "key"
    told = run("audit", "key", "new", str(path), "--name", "shop.example/fenrun")
    assert told == f"{signing.load(path).trusted[0]}\n" == run("audit", "key", "show", str(path))
    assert told.startswith("shop.example/fenrun+")
    assert path.stat().st_mode & 0o777 == 0o600
    assert "File exists" in run("audit", "key", "new", str(path), status=1)
    rotated = run("audit", "key", "new", str(path), "--rotate")
    assert rotated != told
    assert run("audit", "key", "show", str(path)) == told + rotated


def test_what_is_wrong_with_a_key_is_said_in_a_sentence(tmp_path: Path) -> None:
    assert "No such file" in run("audit", "key", "show", str(tmp_path / "none"), status=1)
    assert "cannot name a key" in run("audit", "key", "new", str(tmp_path / "key"), "--name", "my shop", status=1)
    assert not (tmp_path / "key").exists()


# ---------------------------------------------------------------- checkpoints and proofs


def test_checkpoints_for_people_and_for_programs(sold: Shop, fenrun: Any) -> None:
    note = fenrun("checkpoint", wide=True)
    assert note == (sold.directory / "latest").read_text()
    assert note.splitlines()[:2] == [f"shop.example/{sold.program_id}", "10"]
    assert fenrun("checkpoint", "--size", "10", wide=True) == note
    assert fenrun("checkpoint", "--size", "999", status=1).endswith("has no checkpoint of size 999 (CHECKPOINT_UNKNOWN)\n")
    header, first, *_ = fenrun("checkpoints").splitlines()
    assert header.split() == ["entries", "made", "at", "root"]
    assert first.split()[0] == "10"
    assert json.loads(fenrun("checkpoints", "--json", "--limit", "1", wide=True))["checkpoints"][0]["note"] == note


def test_the_status_says_where_everything_stands(fenrun: Any) -> None:
    told = fenrun("status").splitlines()
    assert told[:2] == ["log         10 entries", "tree        10 entries"]
    assert told[2].startswith("checkpoint  10 entries, 20")
    assert told[3] == "key         this server signs, and publishes to a directory"
    assert json.loads(fenrun("status", "--json", wide=True))["tree_size"] == 10


def test_an_entry_is_proven_in_plain_sentences(sold: Shop, fenrun: Any, tmp_path: Path, key_file: Path) -> None:
    told = " ".join(fenrun("prove", "5", "--key", str(sold.key)).split())
    assert f"The checkpoint of 10 entries of shop.example/{sold.program_id} is signed by a key you trust." in told
    assert "Entry 5, order.paid.v1 of order/o-4, recorded 20" in told
    assert "The checkpoint covers an entry of that hash at position 5." in told
    kept = tmp_path / "kept"
    kept.write_text(fenrun("checkpoint", wide=True))
    sold.sell(2)
    sold.checkpoint()
    told = " ".join(fenrun("prove", "12", "--key", str(key_file), "--since", str(kept)).split())
    assert "It goes on from the checkpoint of 10 entries you kept: what that covers is unchanged." in told
    found = json.loads(fenrun("prove", "12", "--key", str(sold.key), "--json", wide=True))
    assert (found["proven"], found["position"], found["entry"]["hash"]) == (True, 12, found["hash"])
    told = " ".join(fenrun("consistent", str(kept), "--key", str(sold.key)).split())
    assert "The checkpoint of 10 entries you kept, and the server's of 12, are signed by keys you trust." in told
    assert "begins with what your checkpoint covers: no entry of it was changed, taken out or put in." in told
    assert json.loads(fenrun("consistent", str(kept), "--key", str(sold.key), "--json", wide=True))["new_size"] == 12


def test_what_does_not_hold_ends_with_status_1_and_says_why(sold: Shop, fenrun: Any, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_text(fenrun("checkpoint", wide=True))
    stranger = str(signing.SigningKey.generate("shop.example").verifier_key)
    assert "none of the trusted keys signed this" in fenrun("prove", "5", "--key", stranger, status=1)
    assert "none of the trusted keys signed this" in fenrun("consistent", str(kept), "--key", stranger, status=1)
    assert "a verifier key is NAME+ID+BASE64" in fenrun("prove", "5", "--key", "no-such-file", status=1)
    assert "position 99 is not covered" in fenrun("prove", "99", "--key", str(sold.key), status=1)
    assert "No such file" in fenrun("consistent", str(tmp_path / "none"), "--key", str(sold.key), status=1)
    rewrite(sold.dsn, sold.program_id, 6)
    told = fenrun("prove", "6", "--key", str(sold.key), status=1)
    assert told.startswith("fenrun: NOT PROVEN: the entry at position 6 is not the one that the checkpoint of 10 entries covers there")
    sold.sell(1)
    soon(lambda: sold.status().refusal.reason)
    told = fenrun("status", status=1)
    assert "the checkpoint of 11 entries is refused" in told
    assert "at or before position 10 was changed" in told
    forget_checkpoints(sold.dsn, sold.program_id)
    for file in sold.directory.iterdir():
        file.unlink()
    sold.sell(1)
    # The server leaves a refused program alone for a while; another one would sign the new history now.
    assert "CHECKPOINT_UNKNOWN" in fenrun("consistent", str(kept), "--key", str(sold.key), status=1)


def test_what_a_forged_log_names_an_entry_does_not_steer_the_terminal() -> None:
    assert (
        terminal.harmless("order.paid.v1\x1b[2J of order/茶\n")
        == "order.paid.v1\N{REPLACEMENT CHARACTER}[2J of order/茶\N{REPLACEMENT CHARACTER}"
    )
