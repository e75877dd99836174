"""Whatever a real server recorded verifies: random stories of every kind of fact, in any order, batched, repeated and refused."""

from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

import grpc
import pytest
from fenrun.log.v1 import log_pb2
from fenrun.ops.v1 import ops_pb2, ops_pb2_grpc

from services.auditor.verifying.laws import POSTING
from tests.auditor.logs import bundle
from tests.auditor.test_tampering import forged, positions, tampered_posting, verified
from tests.oracle.facts import Write
from tests.stateful.drawing import CURRENCY
from tests.stateful.grpc_driver import GrpcDriver
from tests.stateful.stories import tell_story


def recorded(channel: grpc.Channel, program_id: str) -> list[log_pb2.Entry]:
    """A whole log, page by page."""
    ops, request = ops_pb2_grpc.OpsServiceStub(channel), ops_pb2.ReadEntriesRequest(program_id=program_id, page_size=1000)
    found: list[log_pb2.Entry] = []
    while True:
        page = ops.ReadEntries(request)
        found += page.entries
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token


def check_stories(channel: grpc.Channel, fresh_program_id: Callable[[], str], tmp_path: Path, seeds: Sequence[int], length: int) -> None:
    for seed in seeds:
        program_id = fresh_program_id()
        told: list[Write] = []
        tell_story(GrpcDriver(channel, program_id, CURRENCY), Random(seed), length, told)
        log = recorded(channel, program_id)
        report = verified(bundle(tmp_path / str(seed), log))
        assert report.holds, (seed, report.findings, told)
        assert report.decisions_recomputed == len(log)
        # And one decision of each story rewritten, wherever it is, is found.
        moving = [entry.position for entry in log if len(postings(entry)) > 1]
        if moving:
            position = Random(seed).choice(moving)
            lie = verified(bundle(tmp_path / f"{seed}-forged", forged(position, tampered_posting, log)))
            assert positions(lie, "decisions") == [position], (seed, position)


def postings(entry: log_pb2.Entry) -> Sequence[log_pb2.Posting]:
    return POSTING[entry.type].FromString(entry.decision).postings if entry.type in POSTING else ()


@pytest.mark.parametrize("block", range(2000, 2020, 5))
def test_random_stories_verify(channel: grpc.Channel, fresh_program_id: Callable[[], str], tmp_path: Path, block: int) -> None:
    check_stories(channel, fresh_program_id, tmp_path, range(block, block + 5), 40)


@pytest.mark.parametrize("seed", [3007, 3020, 3055])
def test_stories_that_once_did_not_verify(channel: grpc.Channel, fresh_program_id: Callable[[], str], tmp_path: Path, seed: int) -> None:
    """Several tiers rested on one order, and the server took them back in another order than the log gave them; a tier was frozen."""
    check_stories(channel, fresh_program_id, tmp_path, [seed], 120)


@pytest.mark.long
@pytest.mark.parametrize("block", range(3000, 3200, 20))
def test_many_long_stories_verify(channel: grpc.Channel, fresh_program_id: Callable[[], str], tmp_path: Path, block: int) -> None:
    check_stories(channel, fresh_program_id, tmp_path, range(block, block + 20), 120)
