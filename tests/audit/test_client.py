"""The verifying client: an honest server satisfies it, and one that lies about anything at all is caught."""

import base64
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import grpc
import pytest
from fenrun.audit.v1 import audit_pb2 as pb
from fenrun.audit.v1 import audit_pb2_grpc
from fenrun.log.v1 import log_pb2

from services.audit import signing
from services.audit.client import ServerLied, VerifyingClient, hash_of
from services.audit.domain.checkpoint import Checkpoint, Note, NoteMalformed
from services.audit.domain.merkle import EMPTY_ROOT
from services.audit.signing import NotTrusted, SigningKey
from tests.audit.house import Shop

STRANGER = SigningKey("shop.example", bytes(range(32)))


class Liar(audit_pb2_grpc.AuditServiceServicer):
    """A real server in front of another: it asks that one and gives the answer on, changed."""

    def __init__(self, honest: audit_pb2_grpc.AuditServiceStub, lies: dict[str, Callable[[Any], Any]]) -> None:
        self._honest = honest
        self._lies = lies

    def _answer(self, rpc: str, request: Any, context: Any) -> Any:
        try:
            answer = getattr(self._honest, rpc)(request)
        except grpc.RpcError as error:
            context.abort(error.code(), error.details())
        return self._lies[rpc](answer) if rpc in self._lies else answer

    def GetCheckpoint(self, request: Any, context: Any) -> Any:
        return self._answer("GetCheckpoint", request, context)

    def GetInclusionProof(self, request: Any, context: Any) -> Any:
        return self._answer("GetInclusionProof", request, context)

    def GetConsistencyProof(self, request: Any, context: Any) -> Any:
        return self._answer("GetConsistencyProof", request, context)

    def ListCheckpoints(self, request: Any, context: Any) -> Any:
        return self._honest.ListCheckpoints(request)

    def GetStatus(self, request: Any, context: Any) -> Any:
        return self._honest.GetStatus(request)

    def ExportEntries(self, request: Any, context: Any) -> Any:
        for answer in self._honest.ExportEntries(request):
            yield self._lies["ExportEntries"](answer) if "ExportEntries" in self._lies else answer


@contextmanager
def lying(shop: Shop, **lies: Callable[[Any], Any]) -> Iterator[grpc.Channel]:
    server = grpc.server(ThreadPoolExecutor(2))
    audit_pb2_grpc.add_AuditServiceServicer_to_server(Liar(shop.audit, lies), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
    finally:
        server.stop(0)


def on_entry(change: Callable[[log_pb2.Entry], None]) -> Callable[[Any], Any]:
    """Changes the entry exported and says the hash that it then has, as a careful liar would."""

    def lie(answer: pb.ExportEntriesResponse) -> pb.ExportEntriesResponse:
        change(answer.entries[0])
        answer.entries[0].hash = hash_of(answer.entries[0])
        return answer

    return lie


@pytest.fixture
def sold(shop: Shop) -> Shop:
    """Ten entries, all covered by a checkpoint."""
    shop.checkpoint()
    shop.sell(6)
    shop.checkpoint()
    return shop


def test_an_honest_server_proves_everything(sold: Shop) -> None:
    client = VerifyingClient(sold.channel, sold.program_id, [sold.key])
    first = client.advance()
    assert first.size == 10
    for position in range(1, 11):
        proven = client.prove(position)
        assert proven.entry.position == position
        assert proven.checkpoint == first
    kept = client.last_note
    sold.sell(3)
    sold.checkpoint()
    again = VerifyingClient(sold.channel, sold.program_id, [sold.key], kept)
    assert again.last == first
    assert again.advance().size == 13
    assert again.prove(13).entry.stream.startswith("order/")
    assert again.advance(13) == again.last


def test_a_position_that_no_checkpoint_covers_is_said_so(sold: Shop) -> None:
    client = VerifyingClient(sold.channel, sold.program_id, [sold.key])
    with pytest.raises(ValueError, match="position 99 is not covered: the checkpoint has the entries 1 to 10"):
        client.prove(99)


def flip(answer: Any) -> Any:
    answer.hashes[0] = bytes(32)
    return answer


def drop(answer: Any) -> Any:
    del answer.hashes[-1]
    return answer


def more(answer: Any) -> Any:
    answer.hashes.append(bytes(32))
    return answer


def swap(answer: Any) -> Any:
    answer.hashes[0], answer.hashes[1] = answer.hashes[1], answer.hashes[0]
    return answer


@pytest.mark.parametrize("lie", [flip, drop, more, swap])
def test_a_false_inclusion_proof_is_caught(sold: Shop, lie: Callable[[Any], Any]) -> None:
    with lying(sold, GetInclusionProof=lie) as channel:
        client = VerifyingClient(channel, sold.program_id, [sold.key])
        with pytest.raises(ServerLied, match="position 6 is not the one"):
            client.prove(6)


@pytest.mark.parametrize("lie", [flip, drop, more, swap])
def test_a_false_consistency_proof_is_caught(sold: Shop, lie: Callable[[Any], Any]) -> None:
    client = VerifyingClient(sold.channel, sold.program_id, [sold.key])
    client.advance()
    sold.sell(3)
    sold.checkpoint()
    with lying(sold, GetConsistencyProof=lie) as channel:
        again = VerifyingClient(channel, sold.program_id, [sold.key], client.last_note)
        with pytest.raises(ServerLied, match="does not go on from the one of 10 seen before"):
            again.advance()
        assert again.last == client.last


def more_for_b(entry: log_pb2.Entry) -> None:
    decision = log_pb2.OrderPaidDecision.FromString(entry.decision)
    decision.postings[0].amount_minor += 1
    entry.decision = decision.SerializeToString(deterministic=True)


def another_actor(entry: log_pb2.Entry) -> None:
    entry.actor = "somebody else"


def another_time(entry: log_pb2.Entry) -> None:
    entry.occurred_at.seconds -= 1


def another_fact(entry: log_pb2.Entry) -> None:
    entry.fact = b""


def another_past(entry: log_pb2.Entry) -> None:
    entry.previous_hash = bytes(32)


@pytest.mark.parametrize("change", [more_for_b, another_actor, another_time, another_fact, another_past])
def test_a_changed_entry_is_caught_though_its_hash_is_made_to_fit(sold: Shop, change: Callable[[log_pb2.Entry], None]) -> None:
    not_there = "position 7 is not the one that the checkpoint of 10 entries covers there"
    with lying(sold, ExportEntries=on_entry(change)) as channel, pytest.raises(ServerLied, match=not_there):
        VerifyingClient(channel, sold.program_id, [sold.key]).prove(7)


@pytest.mark.parametrize("change", [more_for_b, another_actor, another_time, another_fact, another_past])
def test_a_changed_entry_that_says_its_old_hash_is_caught(sold: Shop, change: Callable[[log_pb2.Entry], None]) -> None:
    def lie(answer: pb.ExportEntriesResponse) -> pb.ExportEntriesResponse:
        change(answer.entries[0])
        return answer

    with lying(sold, ExportEntries=lie) as channel, pytest.raises(ServerLied, match="the entry at position 7 hashes to"):
        VerifyingClient(channel, sold.program_id, [sold.key]).prove(7)


def finer(entry: log_pb2.Entry) -> None:
    entry.occurred_at.nanos += 1


def beyond_all_time(entry: log_pb2.Entry) -> None:
    entry.recorded_at.seconds = 2**62


def borrowed(entry: log_pb2.Entry) -> None:
    """The same microseconds, and so the same hash, in other bytes."""
    entry.occurred_at.seconds += 1
    entry.occurred_at.nanos -= 1_000_000_000


def carried(entry: log_pb2.Entry) -> None:
    entry.recorded_at.seconds -= 1
    entry.recorded_at.nanos += 1_000_000_000


@pytest.mark.parametrize("change", [finer, beyond_all_time, borrowed, carried])
def test_a_time_that_the_hash_cannot_cover_is_caught(sold: Shop, change: Callable[[log_pb2.Entry], None]) -> None:
    def lie(answer: pb.ExportEntriesResponse) -> pb.ExportEntriesResponse:
        change(answer.entries[0])
        return answer

    with lying(sold, ExportEntries=lie) as channel, pytest.raises(ServerLied, match=r"position 7 has a time"):
        VerifyingClient(channel, sold.program_id, [sold.key]).prove(7)


def test_what_the_hash_does_not_cover_is_not_handed_on(sold: Shop) -> None:
    def lie(answer: pb.ExportEntriesResponse) -> pb.ExportEntriesResponse:
        answer.entries[0].MergeFromString(b"\xa2\x06\x05bonus")  # field 100: no field of an entry
        return answer

    with lying(sold, ExportEntries=lie) as channel:
        assert b"bonus" not in VerifyingClient(channel, sold.program_id, [sold.key]).prove(7).entry.SerializeToString()


def test_another_entry_or_none_or_two_is_caught(sold: Shop) -> None:
    other = next(iter(sold.audit.ExportEntries(pb.ExportEntriesRequest(program_id=sold.program_id, from_position=5, to_position=5))))
    for lie in (
        lambda answer: other,
        lambda answer: pb.ExportEntriesResponse(),
        lambda answer: pb.ExportEntriesResponse(entries=[*answer.entries, *other.entries]),
    ):
        with lying(sold, ExportEntries=lie) as channel, pytest.raises(ServerLied, match="something else came"):
            VerifyingClient(channel, sold.program_id, [sold.key]).prove(6)


def signed_by(key: SigningKey, **fields: Any) -> Callable[[Any], Any]:
    """A checkpoint of other content, and signed by a key that has the right name only."""

    def lie(answer: pb.GetCheckpointResponse) -> pb.GetCheckpointResponse:
        true = Checkpoint.parse(Note.parse(answer.checkpoint.note.encode()).text)
        answer.checkpoint.note = str(key.sign(str(replace(true, **fields))))
        return answer

    return lie


def test_a_checkpoint_that_no_trusted_key_signed_is_caught(sold: Shop) -> None:
    with lying(sold, GetCheckpoint=signed_by(STRANGER)) as channel, pytest.raises(ServerLied, match="none of the trusted keys"):
        VerifyingClient(channel, sold.program_id, [sold.key]).advance()


def test_a_changed_note_is_caught(sold: Shop) -> None:
    def lie(answer: Any) -> Any:
        answer.checkpoint.note = answer.checkpoint.note.replace("\n10\n", "\n11\n")
        return answer

    with lying(sold, GetCheckpoint=lie) as channel, pytest.raises(ServerLied, match="is not of this text"):
        VerifyingClient(channel, sold.program_id, [sold.key]).advance()


def test_what_stands_beside_the_note_is_not_believed(sold: Shop) -> None:
    def lie(answer: Any) -> Any:
        answer.checkpoint.size, answer.checkpoint.root = 1, bytes(32)
        return answer

    with lying(sold, GetCheckpoint=lie) as channel:
        assert VerifyingClient(channel, sold.program_id, [sold.key]).advance().size == 10


def test_a_log_that_became_shorter_is_caught(sold: Shop) -> None:
    """With the key's true signature: an old checkpoint, given out again after entries were taken away."""
    client = VerifyingClient(sold.channel, sold.program_id, [sold.key])
    old = client.advance()
    sold.sell(2)
    sold.checkpoint()
    client.advance()
    answer = sold.audit.GetCheckpoint(pb.GetCheckpointRequest(program_id=sold.program_id, size=old.size))
    with lying(sold, GetCheckpoint=lambda _: answer) as channel:
        again = VerifyingClient(channel, sold.program_id, [sold.key], client.last_note)
        with pytest.raises(ServerLied, match="covers 10 entries, one seen before covers 12: entries are gone"):
            again.advance()


@pytest.mark.parametrize("size", [10, 11, 9])
def test_two_histories_signed_by_the_true_key_are_caught_by_who_remembers(sold: Shop, key_file: Any, size: int) -> None:
    """The worst case: whoever has the key signs another history for one of two auditors."""
    key = signing.load(key_file).signing
    assert key is not None
    client = VerifyingClient(sold.channel, sold.program_id, [sold.key])
    client.advance()
    with lying(sold, GetCheckpoint=signed_by(key, root=bytes(32), size=size)) as channel:
        again = VerifyingClient(channel, sold.program_id, [sold.key], client.last_note)
        with pytest.raises(ServerLied):
            again.advance()
        assert again.last == client.last


def test_another_program_s_checkpoint_is_caught(sold: Shop, key_file: Any) -> None:
    key = signing.load(key_file).signing
    assert key is not None
    with lying(sold, GetCheckpoint=signed_by(key, origin="shop.example/other")) as channel:
        with pytest.raises(ServerLied, match=r"is of the log 'shop\.example/other'"):
            VerifyingClient(channel, sold.program_id, [sold.key]).advance()
        with pytest.raises(ServerLied, match=r"not of 'shop\.example/mine'"):
            VerifyingClient(channel, sold.program_id, [sold.key], origin="shop.example/mine").advance()


def test_a_program_whose_name_ends_alike_is_another(sold: Shop, key_file: Any) -> None:
    """Whoever owns the database can put a program "x/tea" into it, and the server signs what it finds."""
    key = signing.load(key_file).signing
    assert key is not None
    origin = f"shop.example/x/{sold.program_id}"
    lie = signed_by(key, origin=origin)
    with lying(sold, GetCheckpoint=lie) as channel, pytest.raises(ServerLied, match=f"is of the log {origin!r}"):
        VerifyingClient(channel, sold.program_id, [sold.key]).advance()
    other = str(key.sign(f"shop.example/other\n0\n{base64.b64encode(EMPTY_ROOT).decode()}\n")).encode()
    with pytest.raises(NotTrusted, match=r"of the log 'shop\.example/other', not of program"):
        VerifyingClient(sold.channel, sold.program_id, [sold.key], other)


def test_another_size_than_asked_for_is_caught(sold: Shop) -> None:
    answer = sold.audit.GetCheckpoint(pb.GetCheckpointRequest(program_id=sold.program_id))
    with lying(sold, GetCheckpoint=lambda _: answer) as channel, pytest.raises(ServerLied, match="of 4 entries was asked for, one of 10"):
        VerifyingClient(channel, sold.program_id, [sold.key]).advance(4)


def test_a_kept_note_that_is_not_ours_is_refused_before_any_call(sold: Shop) -> None:
    answer = sold.audit.GetCheckpoint(pb.GetCheckpointRequest(program_id=sold.program_id)).checkpoint.note.encode()
    with pytest.raises(NotTrusted):
        VerifyingClient(sold.channel, sold.program_id, [STRANGER.verifier_key], answer)
    with pytest.raises(NoteMalformed):
        VerifyingClient(sold.channel, sold.program_id, [sold.key], answer[:-1])


def test_a_server_that_has_fewer_entries_than_it_signed_for_is_caught(sold: Shop, key_file: Any) -> None:
    key = signing.load(key_file).signing
    assert key is not None
    client = VerifyingClient(sold.channel, sold.program_id, [sold.key])
    client.advance()
    with lying(sold, GetCheckpoint=signed_by(key, size=999)) as channel:
        with pytest.raises(ServerLied, match="it has no entries up to 999"):
            VerifyingClient(channel, sold.program_id, [sold.key], client.last_note).advance()
        with pytest.raises(ServerLied, match="it has no entries up to 999"):
            VerifyingClient(channel, sold.program_id, [sold.key]).prove(10)
