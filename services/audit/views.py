"""Reading the tree and its checkpoints."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from services.audit.domain.merkle import Node, Part, hashes, leaves_of, nodes_of, root_over
from services.runtime.eventlog import Connection, integers, texts

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
    return (await nodes_of_each(connection, {program_id: wanted}))[program_id]


async def nodes_of_each(connection: Connection, wanted: Mapping[str, Iterable[Node]]) -> dict[str, dict[Node, bytes]]:
    """The same of several programs."""
    asked = {program_id: set(some) for program_id, some in wanted.items()}
    found: dict[str, dict[Node, bytes]] = {program_id: {} for program_id in asked}
    each = [(program_id, node) for program_id, some in asked.items() for node in some]
    kept = [(program_id, *node) for program_id, node in each if node.level >= LOWEST]
    # Each once, though it may be below several nodes.
    leaves = list(dict.fromkeys((program_id, leaf) for program_id, node in each if node.level < LOWEST for leaf in leaves_of(node)))
    if not each:
        return found
    # OFFSET 0 keeps each a look-up by key, whatever the planner knows of the tables. No leaf is kept, so level 0 stands for entries.
    cursor = await connection.execute(
        "select a.program_id, n.level, n.number, n.hash"
        " from unnest(%s::text[], %s::smallint[], %s::bigint[]) as a(program_id, level, number)"
        " cross join lateral (select * from audit.nodes"
        " where program_id = a.program_id and level = a.level and number = a.number offset 0) n"
        " union all select l.program_id, 0::smallint, l.leaf, e.hash from unnest(%s::text[], %s::bigint[]) as l(program_id, leaf)"
        " cross join lateral (select hash from fenrun.entries where program_id = l.program_id and position = l.leaf + 1 offset 0) e",
        [
            texts([program_id for program_id, _, _ in kept]),
            integers(level for _, level, _ in kept),
            integers(number for _, _, number in kept),
            texts([program_id for program_id, _ in leaves]),
            integers(leaf for _, leaf in leaves),
        ],
        binary=True,
    )
    entries: dict[tuple[str, int], bytes] = {}
    for program_id, level, number, value in await cursor.fetchall():
        if level:
            found[program_id][Node(level, number)] = bytes(value)
        else:
            entries[program_id, number] = bytes(value)
    for program_id, node in each:
        if node.level < LOWEST:
            below = [entries.get((program_id, leaf)) for leaf in leaves_of(node)]
            if None not in below:
                found[program_id][node] = root_over([value for value in below if value is not None])
    for program_id, some in asked.items():
        if len(found[program_id]) < len(some):
            raise TreeIncomplete(program_id, sorted(some - found[program_id].keys()))
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
