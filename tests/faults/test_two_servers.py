"""Two servers, one database, one program: one order of things, whoever asks and however they race."""

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import grpc
import pytest

from services.runtime.embedded import EmbeddedPostgres
from tests.faults.histories import (
    Answers,
    SqlTail,
    Teller,
    Telling,
    WatchTail,
    await_end,
    credit,
    enrolment,
    head_of,
    life_of,
    opening,
    payout,
    positions_of,
    touch,
    whole_log,
    wrong_with,
)
from tests.faults.processes import SHORTLY_S, Server, client_of, program_id, serving
from tests.given import TWO_LEVEL, Client, line, reason

SEED = 20261122


@pytest.fixture(scope="module")
def servers(database: EmbeddedPostgres) -> Iterator[tuple[Server, Server]]:
    with serving(database.dsn, database.dsn) as (first, second):
        yield first, second


@pytest.mark.parametrize("lives_each", [12, pytest.param(60, marks=pytest.mark.long)])
def test_sixteen_writers_on_two_servers_make_one_log(database: EmbeddedPostgres, servers: tuple[Server, Server], lives_each: int) -> None:
    """Every fact is told to both servers, some by all sixteen at once: the log holds each once, without a gap, in one chain, and every
    caller is told the same position. Nobody who tails it misses an entry or sees one twice: not through WatchEntries of either server,
    resumed after breaks, and not by `position > last` on the table itself."""
    chance = random.Random(SEED)
    program = program_id("two-servers")
    with ExitStack() as closing:

        def client(number: int) -> Client:
            return closing.enter_context(client_of(servers[number % 2], program))

        opening(closing.enter_context(client_of(servers[0], program, new=True)))
        watchers = [closing.enter_context(WatchTail(client(number), chance)) for number in range(2)]
        table = closing.enter_context(SqlTail(database.dsn, program))

        answers, begin = Answers(), threading.Barrier(16)
        everybody = life_of("everybody")
        tellers = []
        for pair in range(8):
            lives = [life_of(f"m{pair}-{number}") for number in range(lives_each)]
            for side in range(2):
                # Half of the pairs race for the same fact, half find what the other told a while ago.
                turned = lives[len(lives) // 2 :] + lives[: len(lives) // 2] if side and pair % 2 else lives
                told: list[Telling] = [*everybody, *(telling for life in turned for telling in life)]
                tellers.append(Teller(client(side), told, answers, begin=begin))
        for teller in tellers:
            teller.start()
        await_end(tellers, answers)

        assert not answers.failures
        told_positions = answers.positions()
        assert {fact: sum(not receipt.already_recorded for receipt in got) for fact, got in answers.receipts.items()} == dict.fromkeys(
            told_positions, 1
        ), "one caller of each fact recorded it, all the others found it recorded"
        assert {len(got) for got in answers.receipts.values()} == {2, 16}

        reader = client(1)
        log = whole_log(reader)
        assert wrong_with(log) == []
        recorded = positions_of(log)
        assert {fact: recorded.get(fact) for fact in told_positions} == told_positions
        assert len(log) == len(told_positions) + 4, "besides: the program, its plan, two people"
        for number in range(2):
            assert client(number).differences() == []

        in_order = list(range(1, len(log) + 1))
        assert head_of(reader) == len(log)
        for tail in (*watchers, table):
            assert tail.saw(len(log)) == in_order
        assert all(watcher.cuts > 2 for watcher in watchers)


Attempt = Callable[[Client], object]


def raced(clients: tuple[Client, Client], attempts: tuple[Attempt, Attempt], hands: ThreadPoolExecutor) -> list[grpc.RpcError | None]:
    """What became of two calls made at the same moment, one to each server: None where it succeeded, else the refusal."""
    begin = threading.Barrier(2)

    def call(client: Client, attempt: Attempt) -> grpc.RpcError | None:
        begin.wait(SHORTLY_S)
        try:
            attempt(client)
        except grpc.RpcError as error:
            return error
        return None

    both = [hands.submit(call, client, attempt) for client, attempt in zip(clients, attempts, strict=True)]
    return [one.result(2 * SHORTLY_S) for one in both]


@pytest.mark.parametrize("rounds", [50, pytest.param(1000, marks=pytest.mark.long)])
def test_of_two_payouts_of_the_whole_balance_one_is_accepted(servers: tuple[Server, Server], rounds: int) -> None:
    """The balance is asked for twice at the same moment, one request to each server: exactly one is reserved, the other is refused."""
    program = program_id("payouts")
    with (
        client_of(servers[0], program, new=True) as first,
        client_of(servers[1], program) as second,
        ThreadPoolExecutor(2) as hands,
    ):
        opening(first)
        for number in range(rounds):
            credit(f"credit-{number}", "root", 700).tell(first)
            outcomes = raced(
                (first, second),
                (payout(f"{number}-first", "root", 700).tell, payout(f"{number}-second", "root", 700).tell),
                hands,
            )
            [refusal] = [outcome for outcome in outcomes if outcome]
            code, why, values = reason(refusal)
            assert (code, why) == (grpc.StatusCode.FAILED_PRECONDITION, "PAYOUT_EXCEEDS_AVAILABLE")
            assert values == {"member_id": "root", "available": "0", "given": "700"}
        assert first.balance("root") == {"reserved": 700 * rounds, "adjusted": 700 * rounds}
        assert second.differences() == []
        assert wrong_with(whole_log(second)) == []


@pytest.mark.parametrize("rounds", [50, pytest.param(1000, marks=pytest.mark.long)])
def test_of_two_touches_that_close_a_circle_one_wins(servers: tuple[Server, Server], rounds: int) -> None:
    """A follows B's link while B follows A's, one told to each server: exactly one is recorded, the other is ABORTED as a circle."""
    program = program_id("circles")
    with (
        client_of(servers[0], program, new=True) as first,
        client_of(servers[1], program) as second,
        ThreadPoolExecutor(2) as hands,
    ):
        opening(first)
        for number in range(rounds):
            ann, bob = f"ann-{number}", f"bob-{number}"
            for member in (ann, bob):
                enrolment(member, "").tell(first)
            outcomes = raced(
                (first, second),
                (touch(f"{ann}-follows", ann, bob).tell, touch(f"{bob}-follows", bob, ann).tell),
                hands,
            )
            [refusal] = [outcome for outcome in outcomes if outcome]
            code, why, values = reason(refusal)
            loser, winner = (ann, bob) if outcomes[0] else (bob, ann)
            assert (code, why) == (grpc.StatusCode.ABORTED, "BINDING_CYCLE")
            assert values == {"member_id": loser, "referrer_id": winner}
        assert second.differences() == []
        assert wrong_with(whole_log(second)) == []


def test_a_server_that_remembers_where_it_left_the_log_sees_what_the_other_told(servers: tuple[Server, Server]) -> None:
    """Each tells in turn what only the other's last fact allows, refuses or repeats; nothing is answered from what it remembered."""
    program = program_id("in-turn")
    with client_of(servers[0], program, new=True) as first, client_of(servers[1], program) as second:
        opening(first)
        for number in range(20):
            one, other = (first, second) if number % 2 else (second, first)
            member = f"member-{number}"
            with pytest.raises(grpc.RpcError) as unknown:
                one.order(f"early-{number}", member, line(1, 100))
            assert reason(unknown.value)[1] == "MEMBER_UNKNOWN"
            other.enroll(member, "root")
            assert one.enroll(member, "root").receipt.already_recorded
            recorded = one.order(f"order-{number}", member, line(1, 100))
            again = other.order(f"order-{number}", member, line(1, 100))
            assert again.receipt.already_recorded and again.receipt.position == recorded.receipt.position
        assert second.differences() == []
        assert wrong_with(whole_log(second)) == []


def test_a_server_that_remembers_too_old_a_head_for_what_it_loads_decides_again(servers: tuple[Server, Server]) -> None:
    """The other published a plan and recorded an order under it: the refund of that order is told to a server that has heard of neither."""
    program = program_id("newer")
    with client_of(servers[0], program, new=True) as first, client_of(servers[1], program) as second:
        opening(first)
        second.publish(TWO_LEVEL.replace("version: 1", "version: 2"))
        second.order("newer", "guide", line(1, 100))
        assert first.refund("refund", "newer", (1, 1, 100)).receipt.position
        assert second.differences() == []
        assert wrong_with(whole_log(second)) == []
