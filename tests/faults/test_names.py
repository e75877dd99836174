"""Servers killed while they name and erase: an erasure is recorded if and only if its key is gone, and what is repeated counts once."""

import base64
import random
import threading
from collections.abc import Callable

import grpc
import psycopg
import pytest
from fenrun.ops.v1 import ops_pb2

from services.runtime.embedded import EmbeddedPostgres
from tests.faults.processes import Server, client_of, program_id
from tests.given import Client, reason

MASTER = base64.b64encode(bytes(range(32))).decode()
MEMBERS = [f"m{number}" for number in range(60)]


def insist(call: Callable[[], object]) -> None:
    """Repeats a call until it is answered. Whoever was erased is not named again, and that is an answer."""
    while True:
        try:
            call()
            return
        except grpc.RpcError as error:
            if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED):
                continue
            if reason(error)[1] != "MEMBER_ERASED":
                raise
            return


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_anywhere_a_member_is_erased_with_their_key_or_not_at_all(database: EmbeddedPostgres, seed: int) -> None:
    program, generator = program_id("names"), random.Random(seed)
    with Server(database.dsn, master_key=MASTER, retry_for_s="2") as server:
        with client_of(server, program, new=True) as client:
            for member in MEMBERS:
                client.enroll(member)

        def tell(client: Client, members: list[str]) -> None:
            for number, member in enumerate(members):
                insist(lambda m=member: client.name(f"a-{m}", m, f"first name of {m}"))  # type: ignore[misc]
                insist(lambda m=member: client.name(f"b-{m}", m, f"second name of {m}", at=2))  # type: ignore[misc]
                if number % 2:
                    insist(lambda m=member: client.erase(m, at=3))  # type: ignore[misc]

        def run(members: list[str]) -> None:
            with client_of(server, program) as client:
                tell(client, members)

        threads = [threading.Thread(target=run, args=(MEMBERS[at::3],)) for at in range(3)]
        for thread in threads:
            thread.start()
        kills = 0
        while kills < 6 and any(thread.is_alive() for thread in threads):
            threads[0].join(generator.uniform(0.02, 0.3))
            server.kill()
            kills += 1
            assert recorded_as_destroyed(database, program)
            server.restart()
            server.said("server.ready", kills + 1)
        for thread in threads:
            thread.join()
        assert kills, "nothing was killed while it worked"
        with client_of(server, program) as client:
            run(MEMBERS[0::3])
            erased = {member for at in range(3) for number, member in enumerate(MEMBERS[at::3]) if number % 2}
            for member in MEMBERS:
                assert client.named(member) == (("erased", "") if member in erased else ("named", f"second name of {member}"))
            entries = client.ops.ReadEntries(ops_pb2.ReadEntriesRequest(program_id=program, page_size=1000)).entries
            # Each naming and each erasure once, but for names that a thread had not come to before it erased: there are none.
            assert len([one for one in entries if one.type == "member.named.v1"]) == 2 * len(MEMBERS)
            assert len([one for one in entries if one.type == "member.erased.v1"]) == len(erased)
            assert client.differences() == []
    assert recorded_as_destroyed(database, program)


def recorded_as_destroyed(database: EmbeddedPostgres, program: str) -> bool:
    """Whether every erased member has no key, and every one who was named and not erased has one."""
    with psycopg.connect(database.dsn) as owner:
        streams = owner.execute(
            "select substr(stream, 8), bool_or(type = 'member.named.v1'), bool_or(type = 'member.erased.v1')"
            " from fenrun.entries where program_id = %s and stream like 'member/%%' group by stream",
            [program],
        ).fetchall()
        keys = {member for (member,) in owner.execute("select member_id from referral.member_keys where program_id = %s", [program])}
    return all(member not in keys if erased else member in keys or not named for member, named, erased in streams)
