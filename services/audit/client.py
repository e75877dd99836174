"""A client that believes nothing: what a server answers about a log is checked against a public key and the checkpoint seen before.

    with grpc.insecure_channel("127.0.0.1:50051") as channel:
        client = VerifyingClient(channel, "tea", [VerifierKey.parse("shop.example+…")], last=Path("tea.checkpoint").read_bytes())
        client.advance()                        # the latest checkpoint, signed, and the log of before with entries added
        entry = client.prove(42).entry          # is in it, byte for byte
        Path("tea.checkpoint").write_bytes(client.last_note)

Keep the note and give it back the next time: only who remembers notices that a history was exchanged. It needs of the server its
AuditService, and of this project the pure modules of services/audit and services/kernel.
"""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from fenrun.audit.v1 import audit_pb2 as pb
from fenrun.audit.v1 import audit_pb2_grpc
from fenrun.log.v1 import log_pb2

from services.audit.domain import merkle
from services.audit.domain.checkpoint import Checkpoint, NoteMalformed, VerifierKey, origin_of
from services.audit.domain.merkle import HASH_BYTES, ProofInvalid
from services.audit.signing import NotTrusted, open_checkpoint
from services.kernel.chain import entry_hash
from services.runtime.stored import microseconds


class ServerLied(Exception):
    """What the server answered is not true, or not of this log; `str()` says what was checked and found."""


@dataclass(frozen=True, slots=True)
class Proven:
    """An entry that the checkpoint covers. `hash` was computed from the entry's own bytes."""

    entry: log_pb2.Entry
    hash: bytes
    checkpoint: Checkpoint


class VerifyingClient:
    """Reads one program's log. `trusted` are the keys to believe, `last` the note of the last checkpoint seen, if any.

    The log's origin is a trusted key's name, a slash and the program: that of `last`, else `origin`, else of the first checkpoint seen.
    Each method raises ServerLied where an answer does not hold, grpc.RpcError where none came (within `timeout_s` a call). Not to be
    shared between threads.
    """

    def __init__(
        self,
        channel: grpc.Channel,
        program_id: str,
        trusted: Sequence[VerifierKey],
        last: bytes | None = None,
        origin: str | None = None,
        timeout_s: float = 30,
    ) -> None:
        self._audit = audit_pb2_grpc.AuditServiceStub(channel)
        self._program_id = program_id
        self._trusted = trusted
        self._origin = origin
        self._timeout_s = timeout_s
        self.last: Checkpoint | None = None
        self.last_note: bytes = b""
        if last is not None:
            # Ours, so that nobody lied where it cannot be read: NoteMalformed and NotTrusted are the caller's.
            kept = open_checkpoint(last, trusted, origin)
            if (problem := self._of_another_log(kept)) is not None:
                raise NotTrusted(problem)
            self._remember(kept, last)

    def advance(self, size: int = 0) -> Checkpoint:
        """Takes the latest checkpoint (or that of a size, not before the last one seen), once it is signed and goes on from the last."""
        answer = self._audit.GetCheckpoint(pb.GetCheckpointRequest(program_id=self._program_id, size=size), timeout=self._timeout_s)
        note = answer.checkpoint.note.encode()
        try:
            found = open_checkpoint(note, self._trusted, self._origin)
        except (NoteMalformed, NotTrusted) as error:
            raise ServerLied(f"the server's checkpoint: {error}") from error
        if (problem := self._of_another_log(found)) is not None:
            raise ServerLied(problem)
        if size and found.size != size:
            raise ServerLied(f"a checkpoint of {size} entries was asked for, one of {found.size} came")
        if self.last is not None:
            self._goes_on(self.last, found)
        self._remember(found, note)
        return found

    def _of_another_log(self, found: Checkpoint) -> str | None:
        """Not only the end of the origin counts: whoever owns the database can make a program "x/tea" and have that signed for "tea"."""
        if found.origin in [origin_of(key.name, self._program_id) for key in self._trusted]:
            return None
        return f"the checkpoint is of the log {found.origin!r}, not of program {self._program_id!r}"

    def _goes_on(self, last: Checkpoint, found: Checkpoint) -> None:
        if found.size < last.size:
            raise ServerLied(f"the server's checkpoint covers {found.size} entries, one seen before covers {last.size}: entries are gone")
        proof: Sequence[bytes] = ()
        if 0 < last.size < found.size:
            request = pb.GetConsistencyProofRequest(program_id=self._program_id, old_size=last.size, new_size=found.size)
            proof = self._proof(self._audit.GetConsistencyProof, request, found.size)
        try:
            merkle.verify_consistency(last.size, last.root, found.size, found.root, proof)
        except ProofInvalid as error:
            raise ServerLied(
                f"the checkpoint of {found.size} entries does not go on from the one of {last.size} seen before, so something at or"
                f" before position {last.size} is not what it was, or the server cannot prove otherwise ({error})"
            ) from error

    def prove(self, position: int) -> Proven:
        """The entry at a position, proven to be in the last checkpoint seen, which is fetched if there is none yet.

        Raises ValueError for a position that checkpoint does not cover.
        """
        last = self.last or self.advance()
        if not 1 <= position <= last.size:
            raise ValueError(f"position {position} is not covered: the checkpoint has the entries 1 to {last.size}")
        entry = self._entry(position)
        try:
            own = hash_of(entry)
        except struct.error as error:
            raise ServerLied(f"the entry at position {position} has a time that no log can have") from error
        if own != entry.hash:
            raise ServerLied(f"the entry at position {position} hashes to {own.hex()}, and says {entry.hash.hex()}")
        request = pb.GetInclusionProofRequest(program_id=self._program_id, position=position, size=last.size)
        proof = self._proof(self._audit.GetInclusionProof, request, last.size)
        try:
            merkle.verify_inclusion(own, position - 1, last.size, last.root, proof)
        except ProofInvalid as error:
            raise ServerLied(
                f"the entry at position {position} is not the one that the checkpoint of {last.size} entries covers there,"
                f" or the server cannot prove otherwise ({error})"
            ) from error
        return Proven(entry, own, last)

    def _proof(self, rpc: Callable[..., Any], request: Any, size: int) -> Sequence[bytes]:
        try:
            return list(rpc(request, timeout=self._timeout_s).hashes)
        except grpc.RpcError as error:
            raise _lied_about(size, error) from error

    def _entry(self, position: int) -> log_pb2.Entry:
        request = pb.ExportEntriesRequest(program_id=self._program_id, from_position=position, to_position=position)
        found: list[log_pb2.Entry] = []
        try:
            for answer in self._audit.ExportEntries(request, timeout=self._timeout_s):
                found += answer.entries
                if len(found) > 1:
                    break
        except grpc.RpcError as error:
            raise _lied_about(position, error) from error
        if len(found) != 1 or found[0].position != position or found[0].program_id != self._program_id:
            raise ServerLied(f"the entry of {self._program_id!r} at position {position} was asked for, and something else came")
        for moment in (found[0].occurred_at, found[0].recorded_at):
            # The hash covers microseconds; what is finer is nobody's word, and of the ways to write them only one is right.
            if moment.nanos % 1000 or not 0 <= moment.nanos < 1_000_000_000:
                raise ServerLied(f"the entry at position {position} has a time that is not whole microseconds, written the one right way")
        if len(found[0].previous_hash) != HASH_BYTES:
            raise ServerLied(f"the entry at position {position} names a hash before it that is none")
        # Nor does the hash cover fields that nobody knows.
        found[0].DiscardUnknownFields()
        return found[0]

    def _remember(self, found: Checkpoint, note: bytes) -> None:
        self.last, self.last_note, self._origin = found, note, found.origin


def _lied_about(size: int, error: grpc.RpcError) -> Exception:
    """What a failed call means that was about entries a signed checkpoint covers."""
    if error.code() is not grpc.StatusCode.OUT_OF_RANGE:
        return error
    return ServerLied(f"the server's signed checkpoint covers {size} entries or more, and now it says it has no entries up to {size}")


def hash_of(entry: log_pb2.Entry) -> bytes:
    """The hash of an entry from what it holds, whatever it says its hash is."""
    return entry_hash(
        entry.previous_hash,
        entry.program_id,
        entry.position,
        entry.stream,
        entry.stream_version,
        entry.type,
        microseconds(entry.occurred_at),
        microseconds(entry.recorded_at),
        entry.actor,
        entry.fact,
        entry.decision,
    )
