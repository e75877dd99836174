"""A server told to stop finishes what it has begun, and one that cannot start says why in one sentence."""

import json
import re
import signal
import socket
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from queue import SimpleQueue
from typing import Self

import grpc
import psycopg
import pytest
from fenrun.ledger.v1 import ledger_pb2
from fenrun.ops.v1 import ops_pb2, ops_pb2_grpc

from services import composition
from services.composition import CannotServe, refuse_taken
from services.runtime.embedded import EmbeddedPostgres
from services.runtime.settings import Settings
from tests.faults.histories import AGAIN, Answers, Teller, Telling, finish, insist, opening, order, positions_of, whole_log, wrong_with
from tests.faults.processes import SHORTLY_S, Server, channel, client_of, program_id
from tests.given import Client, line, reason

# gRPC itself ends calls with CANCELLED that have come in and are not yet taken up when a server is stopped (grpc/grpc#41785).
AGAIN_WHILE_STOPPING = AGAIN | {grpc.StatusCode.CANCELLED}


class Hold:
    """Holds a program's head in a transaction of its own: appends wait until it is released, reads do not."""

    def __init__(self, dsn: str) -> None:
        self._holder = psycopg.connect(dsn)
        self._onlooker = psycopg.connect(dsn, autocommit=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._holder.close()
        self._onlooker.close()

    def take(self, program: str) -> None:
        self._holder.execute("select from fenrun.programs where program_id = %s for update", [program])

    def await_append(self) -> None:
        """Returns once an append waits for the head."""
        until = time.monotonic() + SHORTLY_S
        holder = self._holder.info.backend_pid
        while not self._onlooker.execute("select from pg_stat_activity where %s = any (pg_blocking_pids(pid))", [holder]).fetchall():
            assert time.monotonic() < until, "no append waits"

    def release(self) -> None:
        self._holder.rollback()


def recording(client: Client, order_id: str) -> "grpc.Future[ledger_pb2.RecordOrderResponse]":
    """A call under way that records an order of root's."""
    told = client.told_order(order_id, "root", line(1, 1000))
    return client.ledger.RecordOrder.future(ledger_pb2.RecordOrderRequest(program_id=client.program_id, order=told))


def await_refused(server: Server) -> None:
    """Returns once the server takes no new calls."""
    until, answers = time.monotonic() + SHORTLY_S, list[grpc.StatusCode]()
    while time.monotonic() < until:
        # A new connection each time, and no patience: tests.faults.processes.channel would wait for a server to come. A call that comes
        # just as the server stops listening may be neither taken nor refused until it ends; the next one is refused.
        with grpc.insecure_channel(server.listen, options=[("grpc.use_local_subchannel_pool", 1)]) as opened:
            try:
                ops_pb2_grpc.OpsServiceStub(opened).GetProgram(ops_pb2.GetProgramRequest(program_id="any"), timeout=SHORTLY_S / 10)
            except grpc.RpcError as error:
                answers.append(error.code())
                if error.code() is grpc.StatusCode.UNAVAILABLE:
                    return
    raise AssertionError(f"it still takes calls: {answers}")


def test_calls_under_way_are_answered_before_the_server_ends(database: EmbeddedPostgres) -> None:
    """Calls wait for the database when the signal comes: the server takes no new ones, answers these once they are done, and ends with
    status 0."""
    program = program_id("drained")
    with Server(database.dsn) as server, client_of(server, program, new=True) as client, Hold(database.dsn) as hold:
        opening(client)
        hold.take(program)
        calls = [recording(client, "first")]
        hold.await_append()
        calls += [recording(client, f"behind-{place}") for place in range(7)]
        # One that is refused at once, sent after them to the same method: when it is answered, they have been taken up.
        assert recording(client, "").exception(SHORTLY_S)
        server.process.send_signal(signal.SIGTERM)
        await_refused(server)
        assert not any(call.done() for call in calls)
        hold.release()
        receipts = [call.result(SHORTLY_S).recorded.receipt for call in calls]
        assert server.ended() == 0
    assert [receipt.position for receipt in receipts] == list(range(5, 13))
    assert not any(receipt.already_recorded for receipt in receipts)


def test_an_open_stream_does_not_keep_the_server_from_ending(database: EmbeddedPostgres) -> None:
    """Its caller may have nothing to tell for hours: it is told UNAVAILABLE, and the server ends long before its drain time is over."""
    program = program_id("streaming")
    with Server(database.dsn, drain_s="3600") as server, client_of(server, program, new=True) as client:
        opening(client)
        telling: SimpleQueue[ledger_pb2.StreamOrdersRequest | None] = SimpleQueue()
        answers = client.ledger.StreamOrders(iter(telling.get, None), timeout=2 * SHORTLY_S)
        telling.put(ledger_pb2.StreamOrdersRequest(program_id=program, orders=[client.told_order("first", "root", line(1, 1000))]))
        assert next(answers).results[0].recorded.receipt.position == 5
        assert server.stop() == 0
        with pytest.raises(grpc.RpcError) as ended:
            next(answers)
        telling.put(None)
        assert reason(ended.value)[0] is grpc.StatusCode.UNAVAILABLE


def test_a_database_that_hangs_does_not_keep_the_server_from_ending(database: EmbeddedPostgres) -> None:
    """The append under way is not done when the drain time is over: its caller is told UNAVAILABLE, and the server ends with status 0
    all the same."""
    program = program_id("hanging")
    with Hold(database.dsn) as hold, Server(database.dsn, drain_s="1") as server, client_of(server, program, new=True) as client:
        opening(client)
        hold.take(program)
        call = recording(client, "stuck")
        hold.await_append()
        assert server.stop() == 0
        error = call.exception(SHORTLY_S)
        assert isinstance(error, grpc.RpcError)
        assert error.code() is grpc.StatusCode.UNAVAILABLE


def orders_without_end(about: str) -> Iterator[Telling]:
    for number in count():
        yield order(f"{about}-{number}", "root")


def test_under_load_nothing_acknowledged_is_lost_by_stopping(database: EmbeddedPostgres) -> None:
    """Eight clients write and one watches when the server is told to stop, by SIGTERM or by SIGINT: every call gets its answer or has
    to be repeated, the watcher is told UNAVAILABLE, the server ends with status 0, and its successor has all that was acknowledged,
    once."""
    program, answers = program_id("stopped"), Answers()
    with Server(database.dsn, drain_s="1") as server, channel(server.listen) as opened:
        client = Client.of_new_program(opened, program)
        opening(client)
        tellers = [Teller(client, orders_without_end(f"client-{place}"), answers, again=AGAIN_WHILE_STOPPING) for place in range(8)]
        for teller in tellers:
            teller.start()
        for number in (signal.SIGTERM, signal.SIGINT):
            watching = client.ops.WatchEntries(ops_pb2.WatchEntriesRequest(program_id=program))
            assert next(watching).entries
            answers.await_more(200)
            assert server.stop(number) == 0
            with pytest.raises(grpc.RpcError) as told:
                for _ in watching:
                    pass
            assert told.value.code() is grpc.StatusCode.UNAVAILABLE
            server.restart()
        finish(tellers, answers)
        log = whole_log(client)
        assert wrong_with(log) == []
        assert answers.positions().items() <= positions_of(log).items()
        assert len(log) == len(answers.receipts) + 4, "besides: the program, its plan, two people"
        assert client.differences() == []


def test_the_embedded_default_says_where_it_serves_while_it_does(tmp_path: Path) -> None:
    """Without a DSN server.json in the data directory names address and process, and is gone after the end; what was written is there
    when it is started again."""
    announcement = tmp_path / "server.json"
    program, answers = program_id("embedded"), Answers()
    with Server(None, data_dir=str(tmp_path)) as server:
        assert json.loads(announcement.read_text()) == {"address": server.listen, "pid": server.process.pid}
        with client_of(server, program, new=True) as client:
            opening(client)
            insist(order("kept", "root"), client, answers)
        assert server.stop() == 0
        assert not announcement.exists()
        server.restart()
        with client_of(server, program) as client:
            insist(order("kept", "root"), client, answers)
            server.said("server.ready", times=2)
            assert json.loads(announcement.read_text())["pid"] == server.process.pid
            assert server.stop(signal.SIGINT) == 0
        assert not announcement.exists()
    assert [receipt.already_recorded for receipt in answers.receipts["order.paid.v1 kept"]] == [False, True]


# ---------------------------------------------------------------- what cannot start


def sentence_of(server: Server) -> str:
    """The one sentence of a server that cannot start; raises AssertionError if it says anything else, or starts."""
    try:
        assert server.ended() != 0
        said = [line for line in server.log if not line.startswith("{")]
        assert len(said) == 1, "\n".join(server.log)
        return said[0]
    finally:
        server.kill()


def test_an_address_in_use_is_one_clear_error(database: EmbeddedPostgres) -> None:
    """Where another process listens, the server ends with a sentence that names the address."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        sentence = sentence_of(Server(database.dsn, listen=address))
    assert sentence == f"fenrun: cannot listen on {address}: Address already in use"


@pytest.mark.parametrize(
    "listen", ["nonsense", "127.0.0.1", "127.0.0.1:seven", "127.0.0.1:99999", ":50051", "no-such-host.invalid:50051", "192.0.2.1:50051"]
)
def test_an_address_that_is_none_is_named(listen: str) -> None:
    """What cannot be listened on is refused before gRPC sees it."""
    with pytest.raises(CannotServe, match=re.escape(listen)):
        refuse_taken(listen)


@pytest.mark.parametrize(
    ("dsn", "clue"),
    [
        ("host=/no/such/directory dbname=fenrun", "No such file or directory"),
        ("complete nonsense", 'missing "=" after "complete"'),
        ("postgresql://shop:hush@127.0.0.1:1/fenrun", "Connection refused"),
    ],
)
def test_a_database_that_cannot_be_used_is_explained(dsn: str, clue: str) -> None:
    """A DSN that leads nowhere, or is none, is refused with PostgreSQL's reason and without the password."""
    with pytest.raises(CannotServe) as refused, composition.database(Settings(dsn=dsn)):
        pass
    assert clue in str(refused.value)
    assert "hush" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_database_out_of_reach_is_one_clear_error() -> None:
    """Where nobody answers at the DSN, the server ends with a sentence that says so."""
    sentence = sentence_of(Server("host=127.0.0.1 port=1 dbname=fenrun"))
    assert sentence.startswith("fenrun: the database cannot be used: ")
    assert "port 1 failed: Connection refused" in sentence


def test_a_role_that_may_not_act_for_the_service_is_refused(database: EmbeddedPostgres) -> None:
    """A login that was not granted fenrun_service is noticed at the start, not call by call."""
    with composition.database(Settings(dsn=database.dsn)), psycopg.connect(database.dsn) as owner:
        owner.execute("create role stranger login")
    dsn = database.dsn.replace("user=fenrun_owner", "user=stranger")
    with (
        pytest.raises(CannotServe, match='permission denied to set role "fenrun_service"'),
        composition.database(Settings(dsn=dsn, owner_dsn=database.dsn)),
    ):
        pass
