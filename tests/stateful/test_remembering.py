"""What the writer remembers of a program from batch to batch changes nothing: the same story is told to two programs, and before each batch
of the second everything is forgotten and read anew."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import grpc
import pytest
from fenrun.log.v1 import log_pb2

from services.runtime.writer import Writer
from tests.given import Client
from tests.ledger.stories import log_of
from tests.oracle.facts import Complete, Enroll, GrantRole, OpenBalance, Order, RecordTask, Refund, Touch, Upgrade, Write
from tests.oracle.oracle import Oracle
from tests.stateful.drawing import CURRENCY, RandomDrawing
from tests.stateful.driver import tell
from tests.stateful.grpc_driver import Bulk, GrpcDriver

BULK = (Complete, Enroll, GrantRole, OpenBalance, Order, RecordTask, Refund, Touch, Upgrade)
LENGTH = 120


def in_batches(generator: Random) -> list[list[Write]]:
    """A story in batches of facts that one call can tell; what no such call takes is alone."""
    oracle = Oracle(CURRENCY)
    draw = RandomDrawing(generator, oracle)
    told: list[Write] = []
    batches: list[list[Write]] = [[]]
    for step in range(LENGTH):
        for fact in draw.opening() if step == 0 else [draw.anything(told)]:
            tell(oracle, fact)
            told.append(fact)
            if not isinstance(fact, BULK) or not batches[-1] or not isinstance(batches[-1][-1], BULK) or generator.random() < 0.4:
                batches.append([])
            batches[-1].append(fact)
    return batches[1:]


def tell_batch(books: GrpcDriver, batch: list[Write]) -> None:
    facts: list[Bulk] = [fact for fact in batch if isinstance(fact, BULK)]
    if facts:
        books.facts(facts)
    else:
        tell(books, batch[0])


def told_of(entry: log_pb2.Entry) -> tuple[object, ...]:
    """All of an entry but when it was recorded, and the hash, which comes of that."""
    return entry.position, entry.stream, entry.stream_version, entry.type, entry.occurred_at, entry.actor, entry.fact, entry.decision


@pytest.mark.parametrize("seeds", [range(28, 38), pytest.param(range(500), marks=pytest.mark.long)])
def test_what_is_remembered_decides_as_what_is_read_anew(
    channel: grpc.Channel, fresh_program_id: Callable[[], str], monkeypatch: pytest.MonkeyPatch, seeds: range
) -> None:
    recall, forgotten, remembered = Writer._recall, set[str](), set[str]()
    entries = 0

    def recalling(writer: Writer, program_id: str) -> object:
        left = recall(writer, program_id)
        if program_id in forgotten:
            return None
        if left is not None and left.states:
            remembered.add(program_id)
        return left

    monkeypatch.setattr(Writer, "_recall", recalling)
    for seed in seeds:
        remembering, forgetful = fresh_program_id(), fresh_program_id()
        forgotten.add(forgetful)
        books, read_anew = GrpcDriver(channel, remembering, CURRENCY), GrpcDriver(channel, forgetful, CURRENCY)
        for batch in in_batches(Random(f"remembering {seed}")):
            tell_batch(books, batch)
            tell_batch(read_anew, batch)
        first, second = (log_of(Client.of(channel, program_id)) for program_id in (remembering, forgetful))
        entries += len(first)
        # The first one opens a program, and names it.
        for got, expected in zip(map(told_of, first[1:]), map(told_of, second[1:]), strict=True):
            assert got == expected, f"seed {seed}"
        assert Client.of(channel, remembering).differences() == []
    # Most stories get somewhere: this was not told to closed doors.
    assert entries > 30 * len(seeds) and len(remembered) > len(seeds) * 3 // 4
