"""Two servers follow one log for the statistics: one at a time, whoever of them is killed, and whenever."""

import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from fenrun.statistics.v1 import statistics_pb2 as pb

from services.runtime.embedded import EmbeddedPostgres
from tests.faults.histories import Answers, Teller, Telling, enrolment, finish, opening, order, orders, refund
from tests.faults.processes import SHORTLY_S, Server, client_of, program_id, serving
from tests.given import line


class Tracking:
    """What the tracking row of the statistics says of a program."""

    def __init__(self, dsn: str, program: str) -> None:
        self._connection = psycopg.connect(dsn, autocommit=True)
        self._program = program

    def row(self) -> tuple[int, str]:
        """(position, holder)."""
        query = "select position, holder from fenrun.followed where program_id = %s and projection = 'statistics'"
        row = self._connection.execute(query, [self._program]).fetchone()
        return (row[0], row[1]) if row else (0, "")

    def beyond(self, position: int, server: Server | None = None) -> None:
        """Returns once it has gone beyond a position, by the hand of this server if one is named."""
        until = time.monotonic() + SHORTLY_S
        while True:
            reached, holder = self.row()
            if reached > position and (server is None or pid_of(holder) == server.process.pid):
                return
            assert time.monotonic() < until, f"still at {reached}, held by {holder}"
            time.sleep(0.005)


def pid_of(holder: str) -> int:
    return int(holder.split("/")[1])


@contextmanager
def tracking(dsn: str, program: str) -> Iterator[Tracking]:
    found = Tracking(dsn, program)
    try:
        yield found
    finally:
        found._connection.close()


def trade(about: str) -> Iterator[Telling]:
    """New members who buy, and orders of which a part comes back, without end."""
    for number in itertools.count():
        member = f"{about}-{number}"
        yield enrolment(member, "guide")
        yield orders([f"{member}-{one}" for one in range(20)], member, 1000)
        yield order(f"{member}-regretted", member, 500)
        yield refund(f"{member}-refund", f"{member}-regretted", 100)


@pytest.mark.parametrize("kills", [4, pytest.param(25, marks=pytest.mark.long)])
def test_a_follower_that_is_killed_loses_nothing_and_doubles_nothing(database: EmbeddedPostgres, kills: int) -> None:
    """Again and again whoever holds the lease is killed while both servers are told facts; the other goes on where the rows are."""
    program = program_id("killed")
    with serving(database.dsn, database.dsn, lease_s="0.3") as (first, second), tracking(database.dsn, program) as track:
        with client_of(first, program, new=True) as client:
            opening(client)
        answers = Answers()
        with client_of(first, program) as one, client_of(second, program) as other:
            tellers = [Teller(client, trade(about), answers) for client, about in ((one, "a"), (other, "b"))]
            for teller in tellers:
                teller.start()
            for number in range(kills):
                before, _ = track.row()
                track.beyond(before + 30 + 7 * number)
                position, holder = track.row()
                victim, survivor = (first, second) if pid_of(holder) == first.process.pid else (second, first)
                victim.kill()
                track.beyond(position, survivor)
                victim.restart()
            finish(tellers, answers)
            volume = one.board(pb.BOARD_TEAM_VOLUME)
            assert other.board(pb.BOARD_TEAM_VOLUME) == volume
            assert volume[0][2] > 0
            assert one.differences() == []
        assert [said for said in (*first.log, *second.log) if "follower.quarantined" in said] == []


def test_one_that_is_told_to_stop_gives_its_lease_back(database: EmbeddedPostgres) -> None:
    """However long the lease is, the other goes on at once."""
    program = program_id("stopped")
    with serving(database.dsn, database.dsn, lease_s="3600") as (first, second), tracking(database.dsn, program) as track:
        with client_of(first, program, new=True) as client:
            opening(client)
        track.beyond(0)
        position, holder = track.row()
        victim, survivor = (first, second) if pid_of(holder) == first.process.pid else (second, first)
        assert victim.stop() == 0
        with client_of(survivor, program) as client:
            client.order("o", "guide", line(1, 100))
            track.beyond(position, survivor)
            assert client.differences() == []
