"""An import's stream to a server that is not as it should be."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any

import grpc
import pytest

from services.console.client import Connection, Failed
from services.importer import run
from services.importer.files import completion
from services.importer.run import Sender, Stream


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
