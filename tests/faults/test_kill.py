"""Whatever is killed or cut, and whenever: what was acknowledged is in the log, what is repeated counts once."""

import random
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import grpc
import psycopg
import pytest
from fenrun.ops.v1 import ops_pb2
from fenrun.type.v1 import type_pb2
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from services.composition import SERVICE_ROLE, patient_dsn, service_dsn
from services.runtime.embedded import EmbeddedPostgres
from tests.faults.histories import (
    Answers,
    Teller,
    Telling,
    credit,
    enrolment,
    finish,
    insist,
    opening,
    order,
    orders,
    payout,
    positions_of,
    refund,
    touch,
    whole_log,
    wrong_with,
)
from tests.faults.processes import SHORTLY_S, Server, channel, client_of, kill_postgres, program_id, serving
from tests.faults.wires import CallProxy, DatabaseProxy
from tests.given import Client, day, reason

SEED = 20261122
MEMBERS = 3


@pytest.fixture(scope="module")
def servers(database: EmbeddedPostgres) -> Iterator[tuple[Server, Server]]:
    """Two that outlive whatever happens to their database; it knows their connections by "first" and "second". They give up soon, and
    PostgreSQL soon gives up on them, so that the tests need not wait."""
    dsn = make_conninfo(database.dsn, options="-c idle_in_transaction_session_timeout=4s")
    names = [make_conninfo(dsn, application_name=name) for name in ("first", "second")]
    with serving(*names, retry_for_s="2") as (first, second):
        yield first, second


@pytest.fixture
def server(servers: tuple[Server, Server]) -> Server:
    return servers[0]


def without_end(about: str) -> list[Iterator[Telling]]:
    """What three backends of a shop tell, one batches, one single orders, one orders and a refund of each; and a fourth moves money."""

    def batches() -> Iterator[Telling]:
        for number in count():
            yield orders([f"{about}-batch-{number}-{item}" for item in range(20)], "buyer-0")

    def singles() -> Iterator[Telling]:
        for number in count():
            yield order(f"{about}-single-{number}", "buyer-1")

    def refunded() -> Iterator[Telling]:
        for number in count():
            yield order(f"{about}-regretted-{number}", "buyer-2")
            yield refund(f"{about}-refund-{number}", f"{about}-regretted-{number}")

    def paid_out() -> Iterator[Telling]:
        for number in count():
            yield credit(f"{about}-credit-{number}", "root", 100)
            yield payout(f"{about}-payout-{number}", "root", 100)

    return [batches(), singles(), refunded(), paid_out()]


class Shop:
    """Clients that tell facts without end to one or more servers while the test breaks things; at the end of the block it is judged what
    has become of it all."""

    def __init__(self, *servers: Server) -> None:
        self.answers = Answers()
        self._program = program_id("shop")
        self._closing = ExitStack()
        self._servers = servers
        with client_of(servers[0], self._program, new=True) as client:
            opening(client)
            for number in range(MEMBERS):
                enrolment(f"buyer-{number}", "guide").tell(client)
        self._tellers = [
            Teller(self._client(server), tellings, self.answers)
            for place, server in enumerate(servers)
            for tellings in without_end(f"server{place}")
        ]
        self._reader = Reader(self._client(servers[0]), self.answers)

    def __enter__(self) -> Self:
        for thread in (*self._tellers, self._reader):
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        with self._closing:
            if error is None:
                finish([*self._tellers, self._reader], self.answers)
                self._judge()
            else:
                for teller in (*self._tellers, self._reader):
                    teller.finish()

    def _client(self, server: Server) -> Client:
        return self._closing.enter_context(client_of(server, self._program))

    def _judge(self) -> None:
        """Everything acknowledged is in the log at the position acknowledged, everything told is there once, and nothing else; telling
        it all again changes nothing."""
        assert set(self.answers.failures) <= {grpc.StatusCode.UNAVAILABLE}
        client = self._client(self._servers[-1])
        log = whole_log(client)
        assert wrong_with(log) == []
        told = self.answers.positions()
        assert {fact: position for fact, position in positions_of(log).items() if fact in told} == told
        assert len(log) == len(told) + 4 + MEMBERS, "besides: the program, its plan, two people and the buyers"
        assert client.differences() == []

        again = Answers()
        for tellings in without_end("server0"):
            for telling in tellings:
                if not set(telling.ids) <= set(told):
                    break
                insist(telling, client, again)
        assert all(receipt.already_recorded for receipts in again.receipts.values() for receipt in receipts)
        assert again.positions().items() <= told.items()
        assert len(whole_log(client)) == len(log)


class Reader(Teller):
    """Reads balances all the while: each call gives an answer or UNAVAILABLE."""

    def __init__(self, client: Client, answers: Answers) -> None:
        def read() -> Iterator[Telling]:
            def ask(client: Client) -> dict[str, type_pb2.Receipt]:
                client.balance("root")
                client.trial_balance()
                return {}

            while True:
                yield Telling((), ask)

        super().__init__(client, read(), answers)


@pytest.mark.parametrize("kills", [4, pytest.param(50, marks=pytest.mark.long)])
def test_a_killed_server_loses_nothing_it_acknowledged(database: EmbeddedPostgres, kills: int) -> None:
    """The server is killed at random moments while batches, orders, refunds and payouts are told, and started again; whoever got no
    answer repeats: no acknowledged fact is lost, nothing counts twice, every view is what the log says."""
    chance = random.Random(SEED)
    with Server(database.dsn) as server, Shop(server) as shop:
        for _ in range(kills):
            shop.answers.await_more(chance.randint(1, 200))
            server.kill()
            server.restart()


@pytest.mark.parametrize("kills", [3, pytest.param(30, marks=pytest.mark.long)])
def test_a_server_outlives_the_death_of_its_database(database: EmbeddedPostgres, server: Server, kills: int) -> None:
    """PostgreSQL is killed, postmaster and all, while the server stays up: calls wait or are UNAVAILABLE, and go on by themselves once
    it is back; no acknowledged fact is lost, nothing counts twice, every view is what the log says."""
    chance = random.Random(SEED)
    with Shop(server) as shop:
        for number in range(kills):
            shop.answers.await_more(chance.randint(1, 200))
            kill_postgres(database)
            try:
                if number % 2:
                    # Gone for longer than a write is retried.
                    shop.answers.await_failure()
            finally:
                database.start()
        shop.answers.await_more(200)


def test_a_stream_keeps_its_order_when_the_database_is_lost(database: EmbeddedPostgres, server: Server) -> None:
    """Everybody enrols below the one before, all sent ahead: who came in before them would be refused. PostgreSQL is gone for longer than
    a write is retried, so the stream ends; what was not answered is sent again."""
    program = program_id("stream")
    with client_of(server, program, new=True) as client:
        facts = [ops_pb2.Fact() for _ in range(300)]
        for number, fact in enumerate(facts):
            enrolled = fact.enroll_member
            enrolled.member_id, enrolled.referrer_id = f"m{number}", f"m{number - 1}" if number else ""
            enrolled.enrolled_at.CopyFrom(day(1))
        unanswered = [ops_pb2.StreamFactsRequest(program_id=program, facts=[fact]) for fact in facts]
        lost, gone, repeated, ended = threading.Event(), False, 0, []

        def ahead() -> Iterator[ops_pb2.StreamFactsRequest]:
            """Some before the loss, and all others at once after it."""
            sent = [*unanswered]
            yield from sent[:60]
            lost.wait(SHORTLY_S)
            yield from sent[60:]

        while unanswered:
            try:
                for answer in client.ops.StreamFacts(ahead(), timeout=2 * SHORTLY_S):
                    [result] = answer.results
                    if result.error.code == grpc.StatusCode.UNAVAILABLE.value[0]:
                        repeated += 1
                        continue
                    assert result.WhichOneof("result") == "enroll_member", result
                    unanswered.pop(0)
                    if len(unanswered) == 250:
                        gone = True
                        kill_postgres(database)
                        lost.set()
            except grpc.RpcError as error:
                ended.append(reason(error)[0])
            finally:
                if gone:
                    database.start()
                gone = False
        assert (repeated, ended) == (1, [grpc.StatusCode.UNAVAILABLE])
        log = whole_log(client)
        assert wrong_with(log) == []
        assert [entry.stream for entry in log[1:]] == [f"member/m{number}" for number in range(len(facts))]


@pytest.mark.parametrize("cuts", [40, pytest.param(1000, marks=pytest.mark.long)])
def test_connections_to_the_database_may_be_cut_at_any_moment(
    database: EmbeddedPostgres, servers: tuple[Server, Server], cuts: int
) -> None:
    """Two servers write to one program while an administrator terminates their connections at random, inside transactions and between
    them: every caller gets its receipt or UNAVAILABLE, no acknowledged fact is lost, nothing counts twice."""
    chance = random.Random(SEED)
    with psycopg.connect(database.dsn, autocommit=True) as administrator, Shop(*servers) as shop:
        for _ in range(cuts):
            shop.answers.await_more(chance.randint(1, 40))
            administrator.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where application_name in ('first', 'second') and (state <> 'idle' or %s)",
                [chance.random() < 0.2],
            )


def test_a_frozen_server_does_not_hold_up_the_others(database: EmbeddedPostgres, servers: tuple[Server, Server]) -> None:
    """A server is frozen while it holds the head of the program; PostgreSQL takes it away from it after a while, the other server goes
    on, and so does the frozen one when it thaws: nothing is lost, nothing counts twice."""
    holding = "select from pg_stat_activity where application_name = 'first' and state = 'idle in transaction'"
    frozen = servers[0].process
    with psycopg.connect(database.dsn, autocommit=True) as onlooker, Shop(*servers) as shop:
        try:
            for _ in range(1000):
                shop.answers.await_more(1)
                frozen.send_signal(signal.SIGSTOP)
                if onlooker.execute(holding).fetchall():
                    break
                frozen.send_signal(signal.SIGCONT)
            else:
                raise AssertionError("it never held the head")
            shop.answers.await_more(100)
        finally:
            frozen.send_signal(signal.SIGCONT)
        shop.answers.await_more(100)


def test_every_server_says_how_long_it_may_hold_the_head(database: EmbeddedPostgres) -> None:
    """The time after which PostgreSQL gives up on a server that holds the head is set by the server, unless the DSN sets one."""
    own = make_conninfo(database.dsn, options="-c idle_in_transaction_session_timeout=7s")
    for dsn, expected in ((database.dsn, "1min"), (own, "7s")):
        with psycopg.connect(patient_dsn(service_dsn(dsn))) as connection:
            assert connection.execute("show idle_in_transaction_session_timeout").fetchone() == (expected,)
            assert connection.execute("select current_user").fetchone() == (SERVICE_ROLE,)


def test_a_database_that_only_reads_is_waited_for(database: EmbeddedPostgres, server: Server) -> None:
    """After a failover a connection may lead to a standby: writes are UNAVAILABLE, and go on by themselves once there is a database
    that writes."""
    with psycopg.connect(database.dsn, autocommit=True) as administrator, Shop(server) as shop:
        shop.answers.await_more(100)
        administrator.execute("alter database fenrun set default_transaction_read_only = on")
        try:
            administrator.execute("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'first'")
            shop.answers.await_failure()
        finally:
            administrator.execute("alter database fenrun reset default_transaction_read_only")
        shop.answers.await_more(100)


def everything_once(about: str) -> list[Telling]:
    """One telling of each kind, for a program of its own."""
    return [
        enrolment(f"{about}-member", "root"),
        touch(f"{about}-touch", f"{about}-member", "guide"),
        order(f"{about}-order", "guide"),
        orders([f"{about}-order-{number}" for number in range(10)], "guide"),
        refund(f"{about}-refund", f"{about}-order"),
        credit(f"{about}-credit", "root", 100),
        payout(f"{about}-payout", "root", 60),
    ]


def lose(telling: Telling, client: Client, proxy: CallProxy, moment: Literal["request", "reply"]) -> None:
    """Makes the call whose wire is cut at that moment; its caller only learns that it is UNAVAILABLE."""
    cuts = proxy.cuts
    proxy.armed = moment
    while proxy.cuts == cuts:  # a wire that was cut before may be noticed only now
        with pytest.raises(grpc.RpcError) as lost:
            telling.tell(client)
        assert lost.value.code() is grpc.StatusCode.UNAVAILABLE


def test_a_reply_lost_after_the_commit_is_given_again(server: Server) -> None:
    """The wire is cut when the reply is on its way: the caller sees UNAVAILABLE, the fact is in the log; the repeated call gets
    already_recorded and the first position, for every kind of fact."""
    program = program_id("lost-replies")
    with CallProxy(server.listen) as proxy, channel(proxy.address) as through:
        with client_of(server, program, new=True) as direct:
            opening(direct)
            client, answers = Client.of(through, program), Answers()
            for telling in everything_once("lost"):
                lose(telling, client, proxy, "reply")
                recorded = positions_of(whole_log(direct))
                again = insist(telling, client, answers)
                assert all(receipt.already_recorded for receipt in again.values())
                assert {fact: receipt.position for fact, receipt in again.items()} == {fact: recorded[fact] for fact in telling.ids}
            assert wrong_with(whole_log(direct)) == []
            assert direct.differences() == []
        assert proxy.cuts == len(everything_once("lost"))


@pytest.mark.parametrize("rounds", [5, pytest.param(200, marks=pytest.mark.long)])
def test_a_wire_cut_behind_the_request_leaves_it_told_once_or_not_at_all(server: Server, rounds: int) -> None:
    """The wire is cut as soon as the request has gone through: the caller cannot know, repeats, and the fact is recorded once."""
    program = program_id("cut-requests")
    with CallProxy(server.listen) as proxy, channel(proxy.address) as through:
        client, answers = Client.of_new_program(through, program), Answers()
        opening(client)
        for number in range(rounds):
            for telling in everything_once(f"cut-{number}"):
                lose(telling, client, proxy, "request")
                insist(telling, client, answers)
                insist(telling, client, answers)
        log = whole_log(client)
        assert wrong_with(log) == []
        assert answers.positions().items() <= positions_of(log).items()
        assert len(log) == len(answers.receipts) + 4, "besides: the program, its plan, two people"
        assert client.differences() == []


def test_a_commit_that_the_server_does_not_hear_of_is_answered_all_the_same(database: EmbeddedPostgres) -> None:
    """PostgreSQL commits and the connection to it breaks before the server is told: the server looks again, and its caller gets the
    receipt of what is in the log, at the first try."""
    program = program_id("unheard")
    real = Path(str(conninfo_to_dict(database.dsn)["host"]))
    with (
        tempfile.TemporaryDirectory(prefix="fenrun-wire-") as directory,
        DatabaseProxy(Path(directory), database.dsn, real) as proxy,
        Server(proxy.dsn) as server,
        client_of(server, program, new=True) as client,
    ):
        opening(client)
        answers = Answers()
        for telling in everything_once("unheard"):
            proxy.armed = telling.ids[0].split()[0].encode()
            answers.add(telling.tell(client))
            assert proxy.armed is None, "the answer came without a commit that nobody heard of"
        log = whole_log(client)
        assert wrong_with(log) == []
        assert answers.positions().items() <= positions_of(log).items()
        assert len(log) == len(answers.receipts) + 4, "besides: the program, its plan, two people"
        assert client.differences() == []
        assert proxy.cuts == len(everything_once("unheard"))
