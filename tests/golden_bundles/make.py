"""Writes the golden bundles of the current format: `python -m tests.golden_bundles.make NAME`. What is committed is never made again.

The log in them is a golden history, which a real server recorded; the key is one for tests.
"""

import sys
from pathlib import Path

from services.audit.domain.merkle import Frontier, Node, consistency_parts, hashes
from tests.auditor.logs import KEY, bundle, golden, note

HERE = Path(__file__).resolve().parent
# What `part` ends at.
PART = 60


def main(name: str, history: str = "v2") -> None:
    log, directory = golden(history), HERE / name
    directory.mkdir()
    bundle(directory / "whole", log, sizes=[1, 31, 32, 33, 64, len(log)], with_tables=True)
    frontier = Frontier()
    nodes: dict[Node, bytes] = {}
    for entry in log:
        nodes.update(frontier.append(entry.hash))
    proof = hashes(consistency_parts(PART, len(log)), nodes.__getitem__)
    bundle(directory / "part", log[:PART], notes={len(log): note(log, len(log))}, consistency=(len(log), proof))
    (directory / "since.txt").write_bytes(note(log, 50))
    (directory / "key.txt").write_text(f"{KEY.verifier_key}\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
