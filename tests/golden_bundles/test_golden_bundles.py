"""Bundles of every earlier format still verify with the verifier of now: what an auditor carried away years ago stays proof."""

import shutil
from pathlib import Path

import pytest

from services.audit.signing import load
from services.auditor import tables
from services.auditor.verifying.run import Verification, verify

BUNDLES = sorted(path.parent for path in Path(__file__).resolve().parent.glob("*/key.txt"))


@pytest.mark.parametrize("directory", BUNDLES, ids=lambda path: path.name)
@pytest.mark.parametrize("name", ["whole", "part"])
def test_an_old_bundle_verifies(directory: Path, name: str) -> None:
    trusted, since = load(directory / "key.txt").trusted, (directory / "since.txt").read_bytes()
    report = verify(Verification(directory / name, trusted, since))
    assert report.holds, report.findings
    assert report.decisions_recomputed == report.entries
    # All that may be left out are the tables, where pyarrow, an extra, is not installed.
    assert bool(report.notes) is (name == "whole" and not tables.installed())


@pytest.mark.parametrize("directory", BUNDLES, ids=lambda path: path.name)
def test_an_old_bundle_that_was_touched_does_not(directory: Path, tmp_path: Path) -> None:
    path = tmp_path / "b"
    shutil.copytree(directory / "whole", path)
    segment = path / "entries/00000002.bin"
    data = bytearray(segment.read_bytes())
    data[100] ^= 1
    segment.write_bytes(data)
    report = verify(Verification(path, load(directory / "key.txt").trusted))
    assert report.first is not None
    assert report.first.position == 33


def test_there_is_one_of_this_version() -> None:
    assert BUNDLES
