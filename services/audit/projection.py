"""The Merkle tree as a followed projection: each batch reads the right edge of the tree, at most one node a level, and adds nodes to it.

What an append costs does not depend on how long the log is: about a node is written for eight entries, and about log2(n) nodes and up to
fifteen entries' hashes are read for a batch. The lowest levels are not kept (views.LOWEST).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from services.audit import views
from services.audit.domain.merkle import Frontier, perfect
from services.kernel.decider import Entry
from services.runtime.eventlog import ByteaArray, Connection, integers, texts
from services.runtime.projecting import First, Folding, FollowedView, Row
from services.runtime.stored import Stored, entry_of

SQL = Path(__file__).resolve().parent / "sql"
NAME = "audit"
NODES = FollowedView("audit.nodes", ("level", "number", "hash"), 2)
VIEWS = (NODES,)


class Tree:
    """Implements `runtime.following.Followed`."""

    name = NAME
    # A tree with a leaf left out proves another log.
    skips = False

    async def fold(self, connection: Connection, entries: Mapping[str, Sequence[Stored]]) -> None:
        edges = {program_id: perfect(0, some[0].position - 1) for program_id, some in entries.items()}
        found = await views.nodes_of_each(connection, edges)
        completed = []
        for program_id, some in entries.items():
            frontier = Frontier(some[0].position - 1, [found[program_id][node] for node in edges[program_id]])
            completed += [(program_id, *node) for entry in some for node in append(frontier, entry.position, entry.hash)]
        if completed:
            programs, levels, numbers, values = zip(*completed, strict=True)
            await connection.execute(
                "insert into audit.nodes select * from unnest(%s::text[], %s::smallint[], %s::bigint[], %b::bytea[])",
                [texts(programs), integers(levels), integers(numbers), ByteaArray(values)],
            )


def append(frontier: Frontier, position: int, entry_hash: bytes) -> list[tuple[int, int, bytes]]:
    """Adds the entry at a position to the tree and gives the nodes to keep that it completes: level, number, hash.

    Raises ValueError if it is not the next one.
    """
    if position != frontier.size + 1:
        raise ValueError(f"the entry at position {position} cannot be leaf {frontier.size} of the tree")
    return [(*node, value) for node, value in frontier.append(entry_hash) if node.level >= views.LOWEST]


def read(stored: Stored) -> Entry:
    """Of an entry only its place and hash count here."""
    return entry_of(stored, None, None)


def folding(_: First | None = None) -> Folding:
    """What is kept of the whole tree in memory."""
    frontier, nodes = Frontier(), list[Row]()

    def add(entry: Entry) -> None:
        nodes.extend(append(frontier, entry.position, entry.hash))

    return Folding(VIEWS, add, lambda: {NODES.name: nodes})
