"""AuditService through the real server and PostgreSQL: the tree, checkpoints, proofs, entries; and what it answers when there are none."""

import time

import grpc
import psycopg
import pytest
from fenrun.audit.v1 import audit_pb2 as pb
from fenrun.ops.v1 import ops_pb2 as op

from services.audit import signing
from services.audit.client import hash_of
from services.audit.domain import merkle
from services.audit.domain.checkpoint import Note
from services.kernel.chain import GENESIS
from services.runtime import tokens
from tests.audit.house import Shop, soon
from tests.audit.test_merkle import mth, path, subproof
from tests.given import LATEST, Client, reason


def hashes(shop: Shop) -> list[bytes]:
    request = pb.ExportEntriesRequest(program_id=shop.program_id)
    return [entry.hash for answer in shop.audit.ExportEntries(request) for entry in answer.entries]


def ask(shop: Shop, rpc: str, request: object) -> object:
    answer = getattr(shop.audit, rpc)(request)
    return list(answer) if rpc == "ExportEntries" else answer


def test_a_checkpoint_says_the_root_of_the_whole_log(shop: Shop) -> None:
    shop.sell(7)
    found = shop.checkpoint()
    assert found.size == 11
    assert found.root == mth(hashes(shop))
    opened = signing.open_checkpoint(found.note.encode(), [shop.key], f"shop.example/{shop.program_id}")
    assert (opened.size, opened.root) == (11, found.root)
    assert opened.made_us == found.made_at.ToMicroseconds()
    assert abs(time.time() - found.made_at.ToSeconds()) < 60


def test_checkpoints_are_published_as_files_and_stay_there(shop: Shop) -> None:
    first = shop.checkpoint()
    shop.sell(3)
    last = shop.checkpoint()
    assert (shop.directory / str(first.size)).read_text() == first.note
    assert (shop.directory / str(last.size)).read_text() == (shop.directory / "latest").read_text() == last.note
    assert not [one for one in shop.directory.iterdir() if one.name.endswith(".new")]


def test_checkpoints_are_listed_in_pages_the_latest_first(shop: Shop) -> None:
    for _ in range(3):
        shop.sell(1)
        shop.checkpoint()
    request = pb.ListCheckpointsRequest(program_id=shop.program_id)
    everything = shop.audit.ListCheckpoints(request).checkpoints
    sizes = [one.size for one in everything]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[:3] == [7, 6, 5]
    request.page_size = 2
    paged: list[pb.Checkpoint] = []
    while True:
        page = shop.audit.ListCheckpoints(request)
        paged += page.checkpoints
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert paged == list(everything)
    for one in everything:
        assert shop.audit.GetCheckpoint(pb.GetCheckpointRequest(program_id=shop.program_id, size=one.size)).checkpoint == one


def test_every_proof_is_the_definition_s(shop: Shop) -> None:
    shop.sell(9)
    shop.checkpoint()
    leaves = hashes(shop)
    for size in range(1, len(leaves) + 1):
        for position in range(1, size + 1):
            proof = shop.audit.GetInclusionProof(pb.GetInclusionProofRequest(program_id=shop.program_id, position=position, size=size))
            assert list(proof.hashes) == path(position - 1, leaves[:size])
        for old in range(1, size + 1):
            found = shop.audit.GetConsistencyProof(pb.GetConsistencyProofRequest(program_id=shop.program_id, old_size=old, new_size=size))
            assert list(found.hashes) == subproof(old, leaves[:size], True)


def test_entries_are_exported_as_they_are_chained(shop: Shop) -> None:
    shop.sell(5)
    request = pb.ExportEntriesRequest(program_id=shop.program_id, consistency=LATEST)
    entries = [entry for answer in shop.audit.ExportEntries(request) for entry in answer.entries]
    assert [entry.position for entry in entries] == list(range(1, 10))
    previous = GENESIS
    for entry in entries:
        assert entry.previous_hash == previous
        assert entry.hash == hash_of(entry)
        previous = entry.hash
    request = pb.ExportEntriesRequest(program_id=shop.program_id, from_position=3, to_position=5)
    assert [entry for answer in shop.audit.ExportEntries(request) for entry in answer.entries] == entries[2:5]


def test_a_long_log_is_exported_in_messages_of_some_size(shop: Shop) -> None:
    shop.sell(600)
    answers = list(shop.audit.ExportEntries(pb.ExportEntriesRequest(program_id=shop.program_id)))
    assert [len(answer.entries) for answer in answers] == [500, 104]
    assert [entry.position for answer in answers for entry in answer.entries] == list(range(1, 605))


def test_a_checkpoint_can_be_asked_to_cover_what_was_written(shop: Shop) -> None:
    shop.sell(1)
    token = shop.client.ops.GetProgram(op.GetProgramRequest(program_id=shop.program_id)).consistency_token
    request = pb.GetCheckpointRequest(program_id=shop.program_id)
    request.consistency.at_least_as_fresh = token
    refused: set[str] = set()

    def look() -> pb.Checkpoint | None:
        try:
            return shop.audit.GetCheckpoint(request).checkpoint
        except grpc.RpcError as error:
            refused.add(reason(error)[1])
            return None

    assert soon(look).size >= 5
    assert refused <= {"NOT_FRESH_ENOUGH", "CHECKPOINT_UNKNOWN"}


@pytest.mark.parametrize(
    ("rpc", "request_", "code", "why"),
    [
        ("GetCheckpoint", pb.GetCheckpointRequest(size=999), "NOT_FOUND", "CHECKPOINT_UNKNOWN"),
        ("GetCheckpoint", pb.GetCheckpointRequest(size=1, consistency=LATEST), "INVALID_ARGUMENT", "MALFORMED"),
        ("GetCheckpoint", pb.GetCheckpointRequest(size=2**63), "INVALID_ARGUMENT", "MALFORMED"),
        ("ListCheckpoints", pb.ListCheckpointsRequest(page_token="x"), "INVALID_ARGUMENT", "TOKEN_INVALID"),
        ("ListCheckpoints", pb.ListCheckpointsRequest(page_token=tokens.make("entries", 3)), "INVALID_ARGUMENT", "TOKEN_INVALID"),
        ("ListCheckpoints", pb.ListCheckpointsRequest(page_size=1001), "INVALID_ARGUMENT", "MALFORMED"),
        ("GetInclusionProof", pb.GetInclusionProofRequest(position=1), "INVALID_ARGUMENT", "MALFORMED"),
        ("GetInclusionProof", pb.GetInclusionProofRequest(size=1), "INVALID_ARGUMENT", "MALFORMED"),
        ("GetInclusionProof", pb.GetInclusionProofRequest(position=3, size=2), "OUT_OF_RANGE", "POSITION_BEYOND_HEAD"),
        ("GetInclusionProof", pb.GetInclusionProofRequest(position=1, size=999), "OUT_OF_RANGE", "POSITION_BEYOND_HEAD"),
        ("GetConsistencyProof", pb.GetConsistencyProofRequest(old_size=2, new_size=1), "INVALID_ARGUMENT", "MALFORMED"),
        ("GetConsistencyProof", pb.GetConsistencyProofRequest(new_size=1), "INVALID_ARGUMENT", "MALFORMED"),
        ("GetConsistencyProof", pb.GetConsistencyProofRequest(old_size=1, new_size=999), "OUT_OF_RANGE", "POSITION_BEYOND_HEAD"),
        ("ExportEntries", pb.ExportEntriesRequest(from_position=999), "OUT_OF_RANGE", "POSITION_BEYOND_HEAD"),
        ("ExportEntries", pb.ExportEntriesRequest(to_position=999), "OUT_OF_RANGE", "POSITION_BEYOND_HEAD"),
        ("ExportEntries", pb.ExportEntriesRequest(from_position=3, to_position=2), "OUT_OF_RANGE", "POSITION_BEYOND_HEAD"),
    ],
)
def test_what_cannot_be_answered_has_a_reason(shop: Shop, rpc: str, request_: object, code: str, why: str) -> None:
    asked = type(request_).FromString(request_.SerializeToString())  # type: ignore[attr-defined]
    asked.program_id = shop.program_id
    with pytest.raises(grpc.RpcError) as caught:
        ask(shop, rpc, asked)
    assert reason(caught.value)[:2] == (grpc.StatusCode[code], why)


@pytest.mark.parametrize(
    "rpc", ["GetCheckpoint", "ListCheckpoints", "GetInclusionProof", "GetConsistencyProof", "ExportEntries", "GetStatus"]
)
def test_an_unknown_program_is_not_found(shop: Shop, rpc: str) -> None:
    asked = getattr(pb, f"{rpc}Request")(program_id="nobody")
    for field in ("position", "size", "old_size", "new_size"):
        if field in asked.DESCRIPTOR.fields_by_name:
            setattr(asked, field, 1)
    with pytest.raises(grpc.RpcError) as caught:
        ask(shop, rpc, asked)
    assert reason(caught.value)[:2] == (grpc.StatusCode.NOT_FOUND, "PROGRAM_UNKNOWN")


def test_a_server_without_a_key_keeps_the_tree_and_makes_no_checkpoints(client: Client, channel: grpc.Channel) -> None:
    from fenrun.audit.v1 import audit_pb2_grpc

    audit = audit_pb2_grpc.AuditServiceStub(channel)

    def look() -> pb.GetStatusResponse | None:
        found = audit.GetStatus(pb.GetStatusRequest(program_id=client.program_id))
        return found if found.tree_size == found.head_position else None

    found = soon(look)
    assert (found.tree_size, found.signs, found.publishes, found.HasField("latest")) == (1, False, False, False)
    with pytest.raises(grpc.RpcError) as caught:
        audit.GetCheckpoint(pb.GetCheckpointRequest(program_id=client.program_id))
    assert reason(caught.value)[:2] == (grpc.StatusCode.NOT_FOUND, "CHECKPOINT_UNKNOWN")


# ---------------------------------------------------------------- the tree as a projection


def verified(shop: Shop) -> dict[str, op.VerificationResult]:
    steps = shop.client.ops.VerifyProjections(op.VerifyProjectionsRequest(program_id=shop.program_id, projections=["audit.nodes"]))
    return {step.result.projection: step.result for step in steps if step.HasField("result")}


def test_the_tree_is_verified_and_rebuilt_like_any_projection(shop: Shop) -> None:
    shop.sell(66)
    shop.checkpoint()
    result = verified(shop)["audit.nodes"]
    # Of 70 entries four nodes over 16 each, two over 32 and one over 64.
    assert (result.equal, result.rows, result.position) == (True, 7, 70)
    with psycopg.connect(shop.dsn) as owner:
        owner.execute("update audit.nodes set hash = %s where program_id = %s and level = 5 and number = 1", [bytes(32), shop.program_id])
        owner.execute("delete from audit.nodes where program_id = %s and level = 4 and number = 0", [shop.program_id])
    result = verified(shop)["audit.nodes"]
    assert not result.equal
    assert len(result.differences) == 2
    rebuilt = shop.client.ops.RebuildProjection(op.RebuildProjectionRequest(program_id=shop.program_id, projection="audit.nodes"))
    assert rebuilt.rows_replaced == 2
    assert verified(shop)["audit.nodes"].equal


def test_a_tree_that_cannot_go_on_stands_still_and_skips_nothing(shop: Shop) -> None:
    """A node stands where the next one must go. Nothing of it is quarantined; a rebuild puts it right and the tree goes on."""
    shop.checkpoint()
    with psycopg.connect(shop.dsn, autocommit=True) as owner:
        owner.execute("insert into audit.nodes values (%s, 4, 0, %s)", [shop.program_id, bytes(32)])
        shop.sell(12)
        time.sleep(1)
        assert shop.status().tree_size < 16
        quarantined = owner.execute("select count(*) from fenrun.quarantined where program_id = %s", [shop.program_id]).fetchone()
        assert quarantined == (0,)
    shop.client.ops.RebuildProjection(op.RebuildProjectionRequest(program_id=shop.program_id, projection="audit.nodes"))
    assert shop.checkpoint().root == mth(hashes(shop))


def test_a_missing_node_is_an_error_and_not_a_wrong_proof(shop: Shop) -> None:
    shop.sell(13)
    shop.checkpoint()
    with psycopg.connect(shop.dsn, autocommit=True) as owner:
        owner.execute("delete from audit.nodes where program_id = %s and level = 4 and number = 0", [shop.program_id])
    with pytest.raises(grpc.RpcError) as caught:
        shop.audit.GetInclusionProof(pb.GetInclusionProofRequest(program_id=shop.program_id, position=17, size=17))
    assert caught.value.code() is grpc.StatusCode.INTERNAL


def test_one_entry_is_enough_for_a_tree(shop: Shop) -> None:
    [first, *_] = hashes(shop)
    shop.checkpoint()
    proof = shop.audit.GetInclusionProof(pb.GetInclusionProofRequest(program_id=shop.program_id, position=1, size=1))
    merkle.verify_inclusion(first, 0, 1, mth([first]), proof.hashes)
    assert not proof.hashes


def test_the_note_is_kept_byte_for_byte(shop: Shop) -> None:
    found = shop.checkpoint()
    assert str(Note.parse(found.note.encode())) == found.note
