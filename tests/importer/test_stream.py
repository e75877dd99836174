"""An import's stream: what waits for an answer, and a server that gives none."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from services import composition
from services.console.client import Connection, Failed
from services.importer import run
from services.importer.files import Kind, completion
from services.importer.run import Job, Sender, Stream
from tests.given import TWO_LEVEL


@contextmanager
def silent_server() -> Iterator[str]:
    """The address of one that takes a stream and answers nothing."""
    over = threading.Event()
    handler: Any = grpc.stream_stream_rpc_method_handler(lambda _messages, _context: iter(over.wait, True))
    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("fenrun.ops.v1.OpsService", {"StreamFacts": handler})])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        over.set()
        server.stop(None).wait()


def test_a_server_that_does_not_answer_is_said_to_have_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "CALL_TIMEOUT_S", 0.2)
    with (
        silent_server() as address,
        closing(Connection(address)) as connection,
        closing(Stream(Sender(connection, "shop", retry_for_s=0))) as stream,
    ):
        stream.send([completion("o1", 1)])
        with pytest.raises(Failed, match=rf"the server at {address} has not answered for 0\.2 s; tried for 0 s"):
            stream.answers()


def test_an_order_that_is_refused_is_not_completed_though_messages_are_sent_ahead(
    tmp_path: Path, server: composition.RunningServer, fresh_program_id: Callable[[], str]
) -> None:
    """Its completion stands in the very next message."""
    at = "2026-01-02T10:00:00Z"
    (tmp_path / "members.csv").write_text(f"member_id,joined_at,referrer_id\nann,{at},\n")
    orders = "".join(f"{order},{buyer},{at},1,tea,1,100\n" for order, buyer in (("O1", "ann"), ("O2", "nobody"), ("O3", "ann")))
    (tmp_path / "orders.csv").write_text("order_id,member_id,paid_at,line_no,sku,quantity,amount_minor\n" + orders)
    job = Job(tmp_path, fresh_program_id(), tmp_path / "rejected.csv", "GBP", TWO_LEVEL, complete_after_days=0)
    with closing(Connection(server.address)) as connection:
        counts = run.run(connection, job, lambda _: None, lambda _done, _total: None).counts
    assert (counts[Kind.ORDER].recorded, counts[Kind.ORDER].rejected) == (2, {"O2"})
    assert (counts[Kind.COMPLETION].sent, counts[Kind.COMPLETION].recorded) == (2, 2)
