"""When checkpoints are made, by whom, and with which key; and what happens to one that was published and not stored."""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import psycopg
import pytest
from fenrun.audit.v1 import audit_pb2 as pb
from fenrun.audit.v1 import audit_pb2_grpc
from fenrun.statistics.v1 import statistics_pb2
from psycopg import errors

from services import composition
from services.audit import signing
from services.audit.client import VerifyingClient
from services.audit.domain.checkpoint import Checkpoint, VerifierKey, origin_of
from services.audit.publishing import Directory
from services.composition import CannotServe, service_dsn
from services.runtime.settings import Settings
from tests.audit.house import Shop, opened, settings, soon
from tests.given import line


def sizes(shop: Shop) -> list[int]:
    found = shop.audit.ListCheckpoints(pb.ListCheckpointsRequest(program_id=shop.program_id, page_size=1000))
    return [one.size for one in found.checkpoints][::-1]


def test_a_checkpoint_is_made_after_so_many_entries(
    own_dsn: str, key_file: Path, key: VerifierKey, tmp_path: Path, fresh_program_id: Callable[[], str]
) -> None:
    with (
        composition.start(settings(own_dsn, key_file, tmp_path, entries=10, seconds=10_000)) as server,
        opened(server, fresh_program_id(), key, tmp_path) as shop,
    ):
        # The first entries are covered at once: no checkpoint was made in the last 10,000 seconds, or ever.
        [first] = soon(lambda: sizes(shop))
        shop.sell(9 - (4 - first))
        time.sleep(1.5)
        assert sizes(shop) == [first]
        shop.sell(1)
        assert soon(lambda: sizes(shop)[1:]) == [first + 10]


def test_a_checkpoint_is_made_after_so_many_seconds(
    own_dsn: str, key_file: Path, key: VerifierKey, tmp_path: Path, fresh_program_id: Callable[[], str]
) -> None:
    with (
        composition.start(settings(own_dsn, key_file, tmp_path, seconds=3)) as server,
        opened(server, fresh_program_id(), key, tmp_path) as shop,
    ):
        [first] = soon(lambda: sizes(shop))
        shop.sell(1)
        assert sizes(shop) == [first]
        last = shop.checkpoint()
        assert last.size == 5
        earlier = shop.audit.GetCheckpoint(pb.GetCheckpointRequest(program_id=shop.program_id, size=first)).checkpoint
        assert last.made_at.ToMicroseconds() - earlier.made_at.ToMicroseconds() >= 3_000_000


def test_of_many_that_are_due_those_that_have_grown_most_come_first_and_all_in_time(
    own_dsn: str, key_file: Path, key: VerifierKey, tmp_path: Path, fresh_program_id: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the rests would be."""
    monkeypatch.setattr("services.audit.checkpointing.REST", 10**6)
    monkeypatch.setattr("services.audit.checkpointing.DUE_AT_ONCE", 1)
    with contextlib.ExitStack() as closing:
        keyless = closing.enter_context(composition.start(Settings(dsn=own_dsn)))
        shops = [closing.enter_context(opened(keyless, fresh_program_id(), key, tmp_path)) for _ in range(3)]
        for shop, orders in zip(shops, (5, 20, 1), strict=True):
            shop.sell(orders)
        closing.enter_context(composition.start(settings(own_dsn, key_file, tmp_path, seconds=6)))
        made_us = [soon(lambda shop=shop: shop.status().latest.made_at.ToMicroseconds()) for shop in shops]  # type: ignore[misc]
    assert made_us[1] < made_us[0] < made_us[2] < made_us[1] + 6_000_000


def test_after_a_rotation_the_new_key_goes_on_from_what_the_former_signed(
    own_dsn: str, tmp_path: Path, fresh_program_id: Callable[[], str]
) -> None:
    path, published, program_id = tmp_path / "key", tmp_path / "published", fresh_program_id()
    [former] = signing.create(path, "shop.example").trusted
    with (
        composition.start(settings(own_dsn, path, published)) as server,
        opened(server, program_id, former, published) as shop,
    ):
        shop.checkpoint()
        client = VerifyingClient(shop.channel, program_id, [former])
        client.advance()
    _, new = signing.rotate(path).trusted
    with composition.start(settings(own_dsn, path, published)) as server, opened(server, fresh_program_id(), new, published) as other:
        shop = Shop(other.client.of(other.channel, program_id), other.channel, other.audit, other.address, other.dsn, new, other.directory)
        shop.sell(1)
        shop.checkpoint()
        again = VerifyingClient(shop.channel, program_id, [former, new], client.last_note)
        assert again.advance().size == 5
        with pytest.raises(signing.NotTrusted):
            signing.open_checkpoint(again.last_note, [former])


def test_another_key_that_does_not_trust_the_former_signs_nothing(
    audit_dsn: str, tmp_path: Path, fresh_program_id: Callable[[], str], shop: Shop
) -> None:
    """Who exchanges the key without its verifier key breaks the line on purpose; the server does not do it for them."""
    shop.checkpoint()
    [key] = signing.create(tmp_path / "key", "shop.example").trusted
    with psycopg.connect(audit_dsn, autocommit=True) as owner:
        # The house no longer follows this program.
        owner.execute(
            "update fenrun.followed set holder = 'nobody', held_until = 'infinity' where program_id = %s and projection = 'audit'",
            [shop.program_id],
        )
        shop.sell(1)
        with composition.start(settings(audit_dsn, tmp_path / "key", None)) as server, opened(server, fresh_program_id(), key, tmp_path):
            owner.execute("update fenrun.followed set holder = '', held_until = '-infinity' where program_id = %s", [shop.program_id])
            # Whichever server is first: this one refuses, the other one signs.
            soon(lambda: shop.status().latest.size == 5)
            assert signing.open_checkpoint(shop.checkpoint().note.encode(), [shop.key]).size == 5


def test_a_server_of_the_audit_alone_finds_what_another_appended(
    own_dsn: str, key_file: Path, key: VerifierKey, tmp_path: Path, fresh_program_id: Callable[[], str]
) -> None:
    with composition.start(Settings(dsn=own_dsn)) as server, opened(server, fresh_program_id(), key, tmp_path) as shop:
        assert not shop.status().signs
    given = settings(own_dsn, key_file, tmp_path).model_copy(update={"service": "audit"})
    with composition.start(given) as server, grpc.insecure_channel(server.address) as channel:
        audit, request = audit_pb2_grpc.AuditServiceStub(channel), pb.GetStatusRequest(program_id=shop.program_id)
        assert soon(lambda: audit.GetStatus(request).latest.size) == 4
        with pytest.raises(grpc.RpcError) as caught:
            shop.client.of(channel, shop.program_id).board(statistics_pb2.BOARD_INVITES)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_checkpoint_published_and_not_stored_is_the_one_that_is_stored(
    own_dsn: str, key_file: Path, key: VerifierKey, tmp_path: Path, fresh_program_id: Callable[[], str]
) -> None:
    """The server is killed between the two. Nobody may ever see two checkpoints of one size."""
    with (
        composition.start(settings(own_dsn, key_file, tmp_path)) as server,
        opened(server, fresh_program_id(), key, tmp_path) as shop,
    ):
        first = shop.checkpoint()
    with psycopg.connect(own_dsn) as owner:
        owner.execute("alter table audit.checkpoints disable trigger user")
        owner.execute("delete from audit.checkpoints where program_id = %s", [shop.program_id])
        owner.execute("alter table audit.checkpoints enable trigger user")
    with (
        composition.start(settings(own_dsn, key_file, tmp_path)) as server,
        opened(server, fresh_program_id(), key, tmp_path) as other,
    ):
        request = pb.GetStatusRequest(program_id=shop.program_id)
        assert soon(lambda: other.audit.GetStatus(request).latest.note) == first.note


def test_no_checkpoint_takes_the_place_of_another_of_its_size(
    own_dsn: str, key_file: Path, key: VerifierKey, tmp_path: Path, fresh_program_id: Callable[[], str]
) -> None:
    """The database was put back to before, and `latest` is lost; what was published of this size still counts."""
    signer = signing.load(key_file).signing
    assert signer is not None
    program_id = fresh_program_id()
    origin = origin_of(signer.name, program_id)
    other = str(signer.sign(str(Checkpoint(origin, 4, bytes(32)))))
    Directory(tmp_path).publish(origin, 4, other)
    (tmp_path / origin / "latest").unlink()
    with (
        composition.start(settings(own_dsn, key_file, tmp_path)) as server,
        opened(server, program_id, key, tmp_path) as shop,
    ):
        assert "not those that the last checkpoint published covers" in soon(lambda: shop.status().refusal.reason)
    assert (tmp_path / origin / "4").read_text() == other


def test_a_clock_that_was_ahead_does_not_stop_checkpoints(
    own_dsn: str, key_file: Path, key: VerifierKey, tmp_path: Path, fresh_program_id: Callable[[], str]
) -> None:
    with (
        composition.start(settings(own_dsn, key_file, tmp_path, seconds=1)) as server,
        opened(server, fresh_program_id(), key, tmp_path) as shop,
    ):
        shop.checkpoint()
        with psycopg.connect(own_dsn, autocommit=True) as owner:
            owner.execute("alter table audit.checkpoints disable trigger user")
            owner.execute("update audit.checkpoints set made_us = made_us + 3600000000 where program_id = %s", [shop.program_id])
            owner.execute("alter table audit.checkpoints enable trigger user")
        shop.sell(1)
        assert shop.checkpoint().size == 5


def test_a_directory_that_cannot_be_written_stops_checkpoints_and_says_so(
    own_dsn: str, key_file: Path, key: VerifierKey, tmp_path: Path, fresh_program_id: Callable[[], str]
) -> None:
    (tmp_path / "file").write_text("not a directory")
    with (
        composition.start(settings(own_dsn, key_file, tmp_path / "file")) as server,
        opened(server, fresh_program_id(), key, tmp_path) as shop,
    ):
        assert "cannot" in soon(lambda: shop.status().refusal.reason)
        assert not shop.status().HasField("latest")
        assert shop.client.order("still-sold", "B", line(1, 1000)).receipt.position == 5


@pytest.mark.parametrize("origin", ["a/..", "../../b", "a/.", "a/.hidden", 'a/b:c*?"<>|', "a/x+y", "shop.example/fenrun/tea", "a//b"])
def test_an_origin_never_leads_out_of_the_directory(tmp_path: Path, origin: str) -> None:
    inside = tmp_path / "published"
    Directory(inside).publish(origin, 1, "note\n")
    assert Directory(inside).standing(origin, 1) == [b"note\n", b"note\n"]
    [found] = [path for path in tmp_path.rglob("latest") if not path.is_symlink()]
    assert found.is_relative_to(inside)
    assert not any(part.startswith(".") for part in found.relative_to(tmp_path).parts)


# ---------------------------------------------------------------- keys in the settings


def test_a_key_can_come_from_the_environment(
    own_dsn: str, key_file: Path, key: VerifierKey, tmp_path: Path, fresh_program_id: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FENRUN_CHECKPOINT_KEY", key_file.read_text())
    given = Settings(dsn=own_dsn, checkpoint_seconds=0)
    assert key_file.read_text().strip() not in repr(given)
    with composition.start(given) as server, opened(server, fresh_program_id(), key, tmp_path) as shop:
        assert signing.open_checkpoint(shop.checkpoint().note.encode(), [key])
        assert not shop.status().publishes


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"checkpoint_key_file": Path("no-such-file")}, "key file no-such-file: No such file or directory"),
        ({"checkpoint_key": "nonsense"}, "FENRUN_CHECKPOINT_KEY: a verifier key is"),
        ({"checkpoint_key": "x", "checkpoint_key_file": Path("y")}, "not both"),
    ],
)
def test_a_key_that_cannot_be_used_is_said_before_anything_is_served(given: dict[str, object], why: str) -> None:
    with pytest.raises(CannotServe, match=why):
        composition.checkpoint_keys(Settings.model_validate(given))


# ---------------------------------------------------------------- who may change checkpoints


@pytest.mark.parametrize(
    "statement", ["update audit.checkpoints set note = ''", "delete from audit.checkpoints", "truncate audit.checkpoints"]
)
def test_checkpoints_are_only_ever_added(shop: Shop, statement: str) -> None:
    shop.checkpoint()
    with psycopg.connect(service_dsn(shop.dsn)) as service, pytest.raises(errors.InsufficientPrivilege):
        service.execute(statement.encode())
    with psycopg.connect(shop.dsn) as owner, pytest.raises(errors.RestrictViolation, match="checkpoints are append-only"):
        owner.execute(statement.encode())
