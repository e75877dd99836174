"""What makes a statement hold for somebody who does not believe us: a signed checkpoint, and for each entry the way from it to there.

They are attached as the server gives them: whoever receives a statement checks them, as docs/audit.md says, with this program or another.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

from services.console import terminal
from services.console.client import Call, Lazy, explain, reason
from services.ledger.cli.adding_up import Statement

if TYPE_CHECKING:
    import grpc
    from fenrun.audit.v1 import audit_pb2 as pb
else:
    grpc = Lazy("grpc")
    pb = Lazy("fenrun.audit.v1.audit_pb2")


class Proofs(NamedTuple):
    checkpoint: "pb.Checkpoint"
    # {position: (hash of the entry, inclusion proof of it in the checkpoint's tree)}
    paths: dict[int, tuple[bytes, list[bytes]]]

    def as_json(self) -> dict[str, Any]:
        paths = [
            {"position": position, "entry_hash": entry_hash.hex(), "hashes": [one.hex() for one in hashes]}
            for position, (entry_hash, hashes) in self.paths.items()
        ]
        return {"checkpoint": terminal.plain(self.checkpoint), "proofs": paths}


def attached(call: Call, statement: Statement) -> Proofs | None:
    """The latest checkpoint and a proof for each entry of a statement that it covers. None, with a notice, where there is no checkpoint."""
    try:
        checkpoint = call.audit.GetCheckpoint(pb.GetCheckpointRequest(program_id=statement.program_id)).checkpoint
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.UNIMPLEMENTED and reason(error) != "CHECKPOINT_UNKNOWN":
            raise
        terminal.notice(f"without checkpoint and proofs: {explain(error, call.connection.address)}")
        return None
    entries = {one.posting.position: one.entry_hash for one in statement.postings}
    paths = {}
    for position in sorted(entries):
        if position <= checkpoint.size:
            request = pb.GetInclusionProofRequest(program_id=statement.program_id, position=position, size=checkpoint.size)
            paths[position] = (entries[position], list(call.audit.GetInclusionProof(request).hashes))
    if len(paths) < len(entries):
        terminal.notice(f"entries after position {checkpoint.size} have no proof: the latest checkpoint does not cover them yet")
    return Proofs(checkpoint, paths)
