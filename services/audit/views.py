"""Reading the tree and its checkpoints."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from services.audit.domain.merkle import Node, Part, hashes, leaves_of, nodes_of, root_over
from services.runtime.eventlog import Connection, integers

# The lowest level of which nodes are kept: fifteen of sixteen rows are saved, and what is below is hashed from at most fifteen entries at
# either side of a proof.
LOWEST = 4


class TreeIncomplete(Exception):
    """Nodes are missing that the position reached says are there: rows of audit.nodes were removed, which a rebuild puts right, or
    entries."""

    def __init__(self, program_id: str, missing: Sequence[Node]) -> None:
        first = missing[0]
        super().__init__(f"the tree of {program_id} lacks {len(missing)} nodes, such as number {first.number} of level {first.level}")


class Made(NamedTuple):
    """A checkpoint as it is stored. `note` is the signed text."""

    size: int
    made_us: int
    note: str


async def nodes(connection: Connection, program_id: str, wanted: Iterable[Node]) -> dict[Node, bytes]:
    """The nodes asked for, in one query: each that is kept, and the entries below each that is not, read by key. Raises TreeIncomplete."""
    asked = set(wanted)
    if not asked:
        return {}
    kept = [node for node in asked if node.level >= LOWEST]
    leaves = {leaf for node in asked if node.level < LOWEST for leaf in leaves_of(node)}
    # OFFSET 0 keeps each a look-up by key, whatever the planner knows of the tables. No leaf is kept, so level 0 stands for entries.
    cursor = await connection.execute(
        "select n.level, n.number, n.hash from unnest(%s::smallint[], %s::bigint[]) as a(level, number)"
        " cross join lateral (select * from audit.nodes where program_id = %s and level = a.level and number = a.number offset 0) n"
        " union all select 0::smallint, l.leaf, e.hash from unnest(%s::bigint[]) as l(leaf)"
        " cross join lateral (select hash from fenrun.entries where program_id = %s and position = l.leaf + 1 offset 0) e",
        [integers([node.level for node in kept]), integers([node.number for node in kept]), program_id, integers(leaves), program_id],
        binary=True,
    )
    found = {Node(level, number): bytes(value) for level, number, value in await cursor.fetchall()}
    entries = {leaf: value for leaf in leaves if (value := found.pop(Node(0, leaf), None))}
    for node in asked:
        if node.level < LOWEST and entries.keys() >= set(leaves_of(node)):
            found[node] = root_over([entries[leaf] for leaf in leaves_of(node)])
    if len(found) < len(asked):
        raise TreeIncomplete(program_id, sorted(asked - found.keys()))
    return found


async def hashes_of(connection: Connection, program_id: str, parts: Sequence[Part]) -> list[bytes]:
    """The hash of each part of the tree. Raises TreeIncomplete."""
    found = await nodes(connection, program_id, nodes_of(parts))
    return hashes(parts, found.__getitem__)


async def checkpoint(connection: Connection, program_id: str, size: int = 0) -> Made | None:
    """The checkpoint of a size, or the latest; None where there is none."""
    only = "and size = %s" if size else "and %s = 0"
    cursor = await connection.execute(
        f"select size, made_us, note from audit.checkpoints where program_id = %s {only} order by size desc limit 1".encode(),
        [program_id, size],
    )
    row = await cursor.fetchone()
    return Made(*row) if row else None


async def checkpoints(connection: Connection, program_id: str, before: int, limit: int) -> list[Made]:
    """Up to `limit` checkpoints of fewer entries than `before`, the latest first."""
    cursor = await connection.execute(
        "select size, made_us, note from audit.checkpoints where program_id = %s and size < %s order by size desc limit %s",
        [program_id, before, limit],
    )
    return [Made(*row) for row in await cursor.fetchall()]
