"""Random stories told to the server, whose facts happened in quite another order than they were told; and their logs."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import grpc
from fenrun.log.v1 import log_pb2
from fenrun.ops.v1 import ops_pb2

from tests.given import Client
from tests.oracle.oracle import Oracle
from tests.stateful.drawing import CURRENCY, RandomDrawing
from tests.stateful.driver import tell
from tests.stateful.grpc_driver import GrpcDriver


def tell_stories(channel: grpc.Channel, fresh_program_id: Callable[[], str], name: str, number: int) -> list[tuple[Client, Oracle]]:
    """So many programs of some 75 facts each, refused ones among them, as the name says; the oracle was told the same."""
    told = []
    for randomness in range(number):
        program_id, oracle = fresh_program_id(), Oracle(CURRENCY)
        books = GrpcDriver(channel, program_id, CURRENCY)
        draw = RandomDrawing(Random(f"{name} {randomness}"), oracle)
        history: list[Any] = []
        for step in range(70):
            for fact in draw.opening() if step == 0 else [draw.anything(history)]:
                history.append(fact)
                assert tell(books, fact).kind == tell(oracle, fact).kind
        told.append((Client.of(channel, program_id), oracle))
    return told


def log_of(client: Client) -> list[log_pb2.Entry]:
    request = ops_pb2.ReadEntriesRequest(program_id=client.program_id, page_size=1000)
    found: list[log_pb2.Entry] = []
    while True:
        page = client.ops.ReadEntries(request)
        found += page.entries
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token
