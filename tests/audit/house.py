"""A house to audit: a database and a server of its own, a key, a directory of checkpoints; and what a database's owner could do to it."""

import base64
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import grpc
import psycopg
from fenrun.audit.v1 import audit_pb2 as pb
from fenrun.audit.v1 import audit_pb2_grpc
from fenrun.log.v1 import log_pb2
from pydantic import SecretStr

from services import composition
from services.audit.domain.checkpoint import VerifierKey
from services.audit.domain.merkle import Frontier
from services.audit.views import LOWEST
from services.kernel.chain import GENESIS, entry_hash
from services.runtime.settings import Settings
from tests.given import Client, line

SHORTLY_S = 20.0
T = TypeVar("T")


def soon(look: Callable[[], T | None]) -> T:
    """What `look` gives, once it gives something."""
    until = time.monotonic() + SHORTLY_S
    while not (found := look()):
        assert time.monotonic() < until, "it never happened"
        time.sleep(0.05)
    return found


@dataclass
class Shop:
    """One program of the house. `directory` is where its checkpoints are published."""

    client: Client
    channel: grpc.Channel
    audit: audit_pb2_grpc.AuditServiceStub
    address: str
    dsn: str
    key: VerifierKey
    directory: Path

    @property
    def program_id(self) -> str:
        return self.client.program_id

    def sell(self, count: int) -> None:
        """Appends so many orders of 10.00, each an entry."""
        begin = self.head()
        for number in range(count):
            self.client.order(f"o-{begin + number}", "B", line(1, 1000))

    def head(self) -> int:
        return self.status().head_position

    def status(self) -> pb.GetStatusResponse:
        return self.audit.GetStatus(pb.GetStatusRequest(program_id=self.program_id))

    def checkpoint(self) -> pb.Checkpoint:
        """The checkpoint of the whole log, once it is made."""

        def look() -> pb.Checkpoint | None:
            found = self.status()
            return found.latest if found.latest.size == found.head_position else None

        return soon(look)


@contextmanager
def opened(server: composition.RunningServer, program_id: str, key: VerifierKey, directory: Path) -> Iterator[Shop]:
    """A new program with a plan and two members, A who brought B: positions 1 to 4."""
    with grpc.insecure_channel(server.address) as channel:
        client = Client.of_new_program(channel, program_id)
        client.publish()
        client.enroll("A")
        client.enroll("B", "A")
        yield Shop(
            client, channel, audit_pb2_grpc.AuditServiceStub(channel), server.address, server.dsn, key, directory / key.name / program_id
        )


def settings(dsn: str, key_file: Path, directory: Path | None, entries: int = 1000, seconds: float = 0) -> Settings:
    """A server that makes checkpoints; by default whenever there is something new."""
    return Settings(
        dsn=dsn,
        master_key=SecretStr(base64.b64encode(bytes(32)).decode()),
        checkpoint_key_file=key_file,
        checkpoint_dir=directory,
        checkpoint_entries=entries,
        checkpoint_seconds=seconds,
    )


# ---------------------------------------------------------------- what the owner of a database can do


def rewrite(dsn: str, program_id: str, position: int, tree: bool = True) -> None:
    """Moves one posting of an old order, and puts everything else right as if it had always been so.

    The postings still balance; every hash from there on, the head, and (unless it is forgotten) the tree are computed anew.
    """
    with psycopg.connect(dsn) as owner:
        owner.execute("alter table fenrun.entries disable trigger user")
        rows = owner.execute(
            "select position, stream, stream_version, type, occurred_us, recorded_us, actor, fact, decision from fenrun.entries"
            " where program_id = %s order by position",
            [program_id],
        ).fetchall()
        previous, frontier, nodes = GENESIS, Frontier(), []
        for at, stream, version, kind, occurred_us, recorded_us, actor, fact, decision in rows:
            if at == position:
                assert kind == "order.paid.v1"
                opened = log_pb2.OrderPaidDecision.FromString(decision)
                opened.postings[0].amount_minor += 1
                opened.postings[1].amount_minor -= 1
                decision = opened.SerializeToString(deterministic=True)
            own = entry_hash(previous, program_id, at, stream, version, kind, occurred_us, recorded_us, actor, fact, decision)
            owner.execute(
                "update fenrun.entries set decision = %s, hash = %s where program_id = %s and position = %s",
                [decision, own, program_id, at],
            )
            nodes += frontier.append(own)
            previous = own
        owner.execute("update fenrun.programs set head_hash = %s where program_id = %s", [previous, program_id])
        owner.execute("alter table fenrun.entries enable trigger user")
        if tree:
            owner.execute("delete from audit.nodes where program_id = %s", [program_id])
            with owner.cursor() as cursor:
                kept = [(program_id, *node, value) for node, value in nodes if node.level >= LOWEST]
                cursor.executemany("insert into audit.nodes values (%s, %s, %s, %s)", kept)


def forget_checkpoints(dsn: str, program_id: str) -> None:
    """Takes every checkpoint out of the database."""
    with psycopg.connect(dsn) as owner:
        owner.execute("alter table audit.checkpoints disable trigger user")
        owner.execute("delete from audit.checkpoints where program_id = %s", [program_id])
        owner.execute("alter table audit.checkpoints enable trigger user")
