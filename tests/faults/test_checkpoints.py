"""Two servers make checkpoints of one log with one key, and are killed again and again: every checkpoint is one of the same history."""

import time
from pathlib import Path

import psycopg
from fenrun.audit.v1 import audit_pb2 as pb
from fenrun.audit.v1 import audit_pb2_grpc

from services.audit import signing
from services.audit.client import VerifyingClient
from services.runtime.embedded import EmbeddedPostgres
from tests.audit.house import soon
from tests.faults.histories import Answers, Teller, finish, opening
from tests.faults.processes import client_of, program_id, serving
from tests.faults.test_following import trade

KILLS = 6


def notes(dsn: str, program: str) -> dict[int, str]:
    """{size: note} of the checkpoints in the database."""
    with psycopg.connect(dsn) as owner:
        return dict(owner.execute("select size, note from audit.checkpoints where program_id = %s", [program]).fetchall())


def test_servers_that_are_killed_never_sign_two_histories(database: EmbeddedPostgres, tmp_path: Path) -> None:
    program, key_file, published = program_id("signed"), tmp_path / "key", tmp_path / "published"
    keys = signing.create(key_file, "shop.example")
    settings = {
        "lease_s": "0.3",
        "checkpoint_key_file": str(key_file),
        "checkpoint_dir": str(published),
        "checkpoint_entries": "20",
        "checkpoint_seconds": "1",
    }
    with serving(database.dsn, database.dsn, **settings) as servers:
        with client_of(servers[0], program, new=True) as client:
            opening(client)
        answers = Answers()
        with client_of(servers[0], program) as one, client_of(servers[1], program) as other:
            tellers = [Teller(client, trade(about), answers) for client, about in ((one, "a"), (other, "b"))]
            for teller in tellers:
                teller.start()
            for number in range(KILLS):
                victim = servers[number % 2]
                before = len(notes(database.dsn, program))
                soon(lambda before=before: len(notes(database.dsn, program)) >= before + 2)  # type: ignore[misc]
                # One is made about every half second; each kill falls into another part of that.
                time.sleep(0.09 * number)
                victim.kill()
                victim.restart()
            finish(tellers, answers)
            assert one.differences() == []
        with servers[0].channel() as channel:
            audit = audit_pb2_grpc.AuditServiceStub(channel)
            request = pb.GetStatusRequest(program_id=program)
            soon(lambda: (found := audit.GetStatus(request)).latest.size == found.head_position)
            assert not audit.GetStatus(request).HasField("refusal")
            stored = notes(database.dsn, program)
            files = {int(path.name): path for path in (published / "shop.example" / program).iterdir() if path.name.isdecimal()}
            assert len(stored) > KILLS
            # Whatever is stored was published, the same text; what was published when its server was killed may not be stored.
            for size, note in stored.items():
                assert files[size].read_text() == note
            auditor = VerifyingClient(channel, program, keys.trusted, files[min(files)].read_bytes())
            for size in sorted(stored):
                assert auditor.advance(size).size == size
            for path in files.values():
                VerifyingClient(channel, program, keys.trusted, path.read_bytes()).advance()
    assert [said for server in servers for said in server.log if "checkpoint.refused" in said or "checkpoint.failed" in said] == []
