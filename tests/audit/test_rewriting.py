"""The owner of the database rewrites history, and recomputes everything that can be recomputed: the chain, the head, the tree.

Any checkpoint taken earlier tells, as long as it is kept where they cannot change it.
"""

from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from fenrun.ops.v1 import ops_pb2 as op

from services import composition
from services.audit.client import ServerLied, VerifyingClient
from services.audit.domain.checkpoint import VerifierKey
from tests.audit.house import Shop, forget_checkpoints, opened, rewrite, settings, soon

# The order whose posting is moved, among 14 entries with a checkpoint after each of the last ten.
CHANGED = 9


@pytest.fixture
def kept(shop: Shop) -> dict[int, bytes]:
    """{size: note} of a checkpoint after each entry from the fifth to the fourteenth, kept by an auditor."""
    notes = {}
    for _ in range(10):
        shop.sell(1)
        found = shop.checkpoint()
        notes[found.size] = found.note.encode()
    assert list(notes) == list(range(5, 15))
    return notes


def refusal(shop: Shop) -> str:
    return soon(lambda: shop.status().refusal.reason)


def logs_agree_with_themselves(shop: Shop) -> bool:
    """Whether everything that is kept beside the log, and needs no key, finds nothing."""
    steps = shop.client.ops.VerifyProjections(op.VerifyProjectionsRequest(program_id=shop.program_id, projections=["log", "audit.nodes"]))
    return all(step.result.equal for step in steps if step.HasField("result"))


def test_a_rewritten_log_agrees_with_itself_and_every_checkpoint_that_covers_the_change_tells(shop: Shop, kept: dict[int, bytes]) -> None:
    rewrite(shop.dsn, shop.program_id, CHANGED)
    assert logs_agree_with_themselves(shop)
    forget_checkpoints(shop.dsn, shop.program_id)
    # Without its checkpoints, and the directory exchanged, a server signs the new history in good faith.
    for file in shop.directory.iterdir():
        file.unlink()
    shop.sell(1)
    forged = shop.checkpoint()
    assert forged.size == 15

    caught = []
    for size, note in kept.items():
        client = VerifyingClient(shop.channel, shop.program_id, [shop.key], note)
        try:
            client.advance()
        except ServerLied as error:
            assert f"at or before position {size} is not what it was" in str(error)  # noqa: PT017
            caught.append(size)
    # The first that is caught covers the change, the one before it does not: between them lies what was changed.
    assert caught == list(range(CHANGED, 15))


def test_the_checkpoints_left_in_the_database_tell_too(shop: Shop, kept: dict[int, bytes]) -> None:
    rewrite(shop.dsn, shop.program_id, CHANGED)
    client = VerifyingClient(shop.channel, shop.program_id, [shop.key])
    client.advance()
    for position in range(1, CHANGED):
        with pytest.raises(ServerLied, match=f"position {position} is not the one that the checkpoint of 14 entries covers"):
            client.prove(position)
    with pytest.raises(ServerLied, match=f"position {CHANGED} is not the one that the checkpoint of 14 entries covers"):
        client.prove(CHANGED)


def test_the_server_signs_no_checkpoint_after_its_log_was_rewritten(shop: Shop, kept: dict[int, bytes]) -> None:
    rewrite(shop.dsn, shop.program_id, CHANGED)
    shop.sell(1)
    told = refusal(shop)
    assert told.startswith("the first 14 entries are not those that the last checkpoint in the database covers")
    assert "at or before position 14" in told
    assert shop.status().latest.size == 14


def test_the_directory_tells_where_the_database_s_checkpoints_were_taken_away(shop: Shop, kept: dict[int, bytes]) -> None:
    rewrite(shop.dsn, shop.program_id, CHANGED)
    forget_checkpoints(shop.dsn, shop.program_id)
    shop.sell(1)
    assert refusal(shop).startswith("the first 14 entries are not those that the last checkpoint published covers")
    assert not shop.status().HasField("latest")
    assert (shop.directory / "latest").read_bytes() == kept[14]


def test_entries_cut_off_the_end_are_noticed(shop: Shop, kept: dict[int, bytes]) -> None:
    with psycopg.connect(shop.dsn) as owner:
        owner.execute("alter table fenrun.entries disable trigger user")
        owner.execute("delete from fenrun.entries where program_id = %s and position > 12", [shop.program_id])
        owner.execute(
            "update fenrun.programs p set head_position = 12, head_hash = e.hash, head_recorded_us = e.recorded_us from fenrun.entries e"
            " where p.program_id = %s and e.program_id = p.program_id and e.position = 12",
            [shop.program_id],
        )
        owner.execute("update fenrun.followed set position = 12 where program_id = %s and projection = 'audit'", [shop.program_id])
        owner.execute("delete from audit.nodes where program_id = %s and ((number + 1) << level) > 12", [shop.program_id])
        owner.execute("alter table fenrun.entries enable trigger user")
    forget_checkpoints(shop.dsn, shop.program_id)
    assert refusal(shop) == "the last checkpoint published covers 14 entries, and the log now has 12: entries are gone"


def test_a_checkpoint_in_the_database_that_the_key_did_not_sign_stops_the_next(shop: Shop, kept: dict[int, bytes]) -> None:
    with psycopg.connect(shop.dsn) as owner:
        owner.execute("alter table audit.checkpoints disable trigger user")
        owner.execute(
            "update audit.checkpoints set note = replace(note, E'\\n14\\n', E'\\n13\\n') where program_id = %s and size = 14",
            [shop.program_id],
        )
        owner.execute("alter table audit.checkpoints enable trigger user")
    shop.sell(1)
    assert "is not of this text" in refusal(shop)


@pytest.mark.parametrize(
    ("level", "number", "told"),
    [
        (5, 0, "the first 36 entries are not those that the last checkpoint in the database covers"),
        (4, 1, "the tree has other entries at positions 17 to 32 than the log"),
    ],
)
def test_a_tree_that_is_not_the_log_s_is_not_signed_until_it_is_rebuilt(shop: Shop, level: int, number: int, told: str) -> None:
    shop.sell(32)
    shop.checkpoint()
    with psycopg.connect(shop.dsn) as owner:
        key = [bytes(32), shop.program_id, level, number]
        owner.execute("update audit.nodes set hash = %s where program_id = %s and level = %s and number = %s", key)
    shop.sell(1)
    assert refusal(shop).startswith(told)


@pytest.mark.parametrize("sold", [16, 28, 29, 42])
def test_a_log_that_was_exchanged_under_its_tree_is_not_signed(shop: Shop, sold: int) -> None:
    """Nobody has a checkpoint, and the tree alone still tells, until as many entries have come as its lowest node covers."""
    shop.sell(sold)
    shop.checkpoint()
    rewrite(shop.dsn, shop.program_id, CHANGED, tree=False)
    forget_checkpoints(shop.dsn, shop.program_id)
    for file in shop.directory.iterdir():
        file.unlink()
    shop.sell(1)
    newest = (sold + 4) // 16 * 16
    assert refusal(shop) == f"the tree has other entries at positions {newest - 15} to {newest} than the log"


@pytest.mark.parametrize("sold", [11, 12, 30])
def test_a_log_that_was_exchanged_under_its_tree_gives_no_proof(shop: Shop, sold: int) -> None:
    """Not of what was changed, and of nothing that is hashed together with it; of a checkpoint from before, nothing at all."""
    shop.sell(sold)
    shop.checkpoint()
    client = VerifyingClient(shop.channel, shop.program_id, [shop.key])
    client.advance()
    rewrite(shop.dsn, shop.program_id, CHANGED, tree=False)
    for position in range(1, min(sold + 4, 16) + 1):
        with pytest.raises(ServerLied):
            client.prove(position)


def test_a_refusal_is_gone_once_what_was_wrong_is_put_right(
    own_dsn: str, key_file: Path, key: VerifierKey, tmp_path: Path, fresh_program_id: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.audit.checkpointing.REFUSED_PAUSE_S", 0.1)
    with (
        composition.start(settings(own_dsn, key_file, tmp_path)) as server,
        opened(server, fresh_program_id(), key, tmp_path) as shop,
    ):
        shop.sell(12)
        shop.checkpoint()
        with psycopg.connect(own_dsn) as owner:
            owner.execute("update audit.nodes set hash = %s where program_id = %s and level = 4", [bytes(32), shop.program_id])
        shop.sell(1)
        refusal(shop)
        shop.client.ops.RebuildProjection(op.RebuildProjectionRequest(program_id=shop.program_id, projection="audit.nodes"))
        assert shop.checkpoint().size == 17
        assert not shop.status().HasField("refusal")
