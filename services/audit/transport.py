"""AuditService over gRPC. Nothing is computed here but proofs, from O(log n) nodes each; callers verify them for themselves."""

from collections.abc import AsyncIterator, Sequence

from fenrun.audit.v1 import audit_pb2 as pb
from fenrun.audit.v1 import audit_pb2_grpc

from services.audit import checkpointing, views
from services.audit.domain.checkpoint import Checkpoint, Note
from services.audit.domain.merkle import Part, consistency_parts, inclusion_parts
from services.audit.projection import NAME
from services.audit.signing import Keys
from services.audit.views import Made
from services.kernel.chain import GENESIS
from services.kernel.refusals import CheckpointUnknown, Malformed, NotFreshEnough, TokenInvalid
from services.runtime import eventlog, tokens
from services.runtime.eventlog import Connection
from services.runtime.following import reached
from services.runtime.serving import Context, asked_for, check_fresh, page_size, streaming, unary, within
from services.runtime.stored import entry_message, timestamp
from services.runtime.writer import Connect

# Entries, and bytes of facts and decisions, in a message of ExportEntries at most; one larger entry goes alone.
CHUNK, CHUNK_BYTES = 500, 2 * 1024 * 1024
# Beyond every position.
EVERYTHING = 2**63 - 1


class AuditTransport(audit_pb2_grpc.AuditServiceServicer):
    """`keys` are those this server trusts, None where it was given none."""

    def __init__(self, connect: Connect, keys: Keys | None, publishes: bool) -> None:
        self._connect = connect
        self._keys = keys
        self._publishes = publishes

    @unary
    async def GetCheckpoint(self, request: pb.GetCheckpointRequest, context: Context) -> pb.GetCheckpointResponse:
        if request.size and request.HasField("consistency"):
            raise Malformed("consistency", "a checkpoint of a given size is as it is; ask for freshness with size 0")
        async with self._connect() as connection:
            _, position = await asked_for(connection, request.program_id, request.consistency)
            made = await views.checkpoint(connection, request.program_id, request.size)
        if made is None:
            which = f"of size {request.size}" if request.size else "yet"
            raise CheckpointUnknown(f"program {request.program_id!r} has no checkpoint {which}", request.program_id, request.size)
        if made.size < position:
            raise NotFreshEnough(position, made.size)
        return pb.GetCheckpointResponse(checkpoint=_message(made))

    @unary
    async def ListCheckpoints(self, request: pb.ListCheckpointsRequest, context: Context) -> pb.ListCheckpointsResponse:
        before, limit = EVERYTHING, page_size(request.page_size)
        if request.page_token:
            call, last = tokens.parts(request.page_token, "page_token", (str, int))
            if call != "checkpoints":
                raise TokenInvalid("page_token")
            before = int(last)
        async with self._connect() as connection:
            await eventlog.head(connection, request.program_id)
            found = await views.checkpoints(connection, request.program_id, before, limit)
        token = tokens.make("checkpoints", found[-1].size) if len(found) == limit else ""
        return pb.ListCheckpointsResponse(checkpoints=map(_message, found), next_page_token=token)

    @unary
    async def GetInclusionProof(self, request: pb.GetInclusionProofRequest, context: Context) -> pb.GetInclusionProofResponse:
        within(request.position, request.size)
        hashes = await self._hashes(request.program_id, request.size, inclusion_parts(request.position - 1, request.size))
        return pb.GetInclusionProofResponse(hashes=hashes)

    @unary
    async def GetConsistencyProof(self, request: pb.GetConsistencyProofRequest, context: Context) -> pb.GetConsistencyProofResponse:
        if request.old_size > request.new_size:
            raise Malformed("new_size", f"a tree of {request.new_size} does not begin with one of {request.old_size}")
        hashes = await self._hashes(request.program_id, request.new_size, consistency_parts(request.old_size, request.new_size))
        return pb.GetConsistencyProofResponse(hashes=hashes)

    async def _hashes(self, program_id: str, size: int, parts: Sequence[Part]) -> list[bytes]:
        """Raises ProgramUnknown, PositionBeyondHead, NotFreshEnough."""
        async with self._connect() as connection:
            within(size, (await eventlog.head(connection, program_id)).position)
            if (come_to := await reached(connection, NAME, program_id)) < size:
                raise NotFreshEnough(size, come_to)
            return await views.hashes_of(connection, program_id, parts)

    @streaming
    async def ExportEntries(self, request: pb.ExportEntriesRequest, context: Context) -> AsyncIterator[pb.ExportEntriesResponse]:
        after = max(request.from_position, 1) - 1
        async with self._connect() as connection:
            head = await check_fresh(connection, request.program_id, request.consistency)
            last = within(request.to_position or head.position, head.position)
            within(after + 1, last)
            previous = await _hash_at(connection, request.program_id, after)
        while after < last:
            async with self._connect() as connection:
                found = await eventlog.read_batch(connection, request.program_id, after, min(CHUNK, last - after), CHUNK_BYTES)
            message = pb.ExportEntriesResponse()
            for stored in found:
                message.entries.append(entry_message(stored, previous))
                previous = stored.hash
            after += len(found)
            yield message

    @unary
    async def GetStatus(self, request: pb.GetStatusRequest, context: Context) -> pb.GetStatusResponse:
        async with self._connect() as connection, eventlog.snapshot(connection):
            found = await checkpointing.status(connection, request.program_id)
        keys = self._keys.trusted if self._keys else ()
        response = pb.GetStatusResponse(
            head_position=found.head_position,
            tree_size=found.tree_size,
            verifier_keys=map(str, keys),
            signs=bool(self._keys and self._keys.signing),
            publishes=self._publishes,
        )
        if found.latest is not None:
            response.latest.CopyFrom(_message(found.latest))
        if found.refusal is not None:
            response.refusal.size, response.refusal.reason, refused_at = found.refusal
            response.refusal.refused_at.FromDatetime(refused_at)
        return response


async def _hash_at(connection: Connection, program_id: str, position: int) -> bytes:
    if position == 0:
        return GENESIS
    [stored] = await eventlog.at(connection, program_id, [position])
    return stored.hash


def _message(made: Made) -> pb.Checkpoint:
    found = Checkpoint.parse(Note.parse(made.note.encode()).text)
    return pb.Checkpoint(size=made.size, root=found.root, made_at=timestamp(made.made_us), note=made.note)
