"""Reading the tree and its checkpoints."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from services.audit.domain.merkle import Node, Part, hashes, nodes_of
from services.runtime.eventlog import Connection, array


class TreeIncomplete(Exception):
    """Nodes are missing that the position reached says are there: rows of audit.nodes were removed. A rebuild puts them right."""

    def __init__(self, program_id: str, missing: Sequence[Node]) -> None:
        first = missing[0]
        super().__init__(f"the tree of {program_id} lacks {len(missing)} nodes, such as number {first.number} of level {first.level}")


class Made(NamedTuple):
    """A checkpoint as it is stored. `note` is the signed text."""

    size: int
    made_us: int
    note: str


async def nodes(connection: Connection, program_id: str, wanted: Iterable[Node]) -> dict[Node, bytes]:
    """The nodes asked for, each read by key, in one query. Raises TreeIncomplete."""
    asked = set(wanted)
    if not asked:
        return {}
    # OFFSET 0 keeps each a look-up by key, whatever the planner knows of the table.
    cursor = await connection.execute(
        "select n.level, n.number, n.hash from unnest(%s::smallint[], %s::bigint[]) as a(level, number)"
        " cross join lateral (select * from audit.nodes where program_id = %s and level = a.level and number = a.number offset 0) n",
        [array([node.level for node in asked]), array([node.number for node in asked]), program_id],
        binary=True,
    )
    found = {Node(level, number): bytes(value) for level, number, value in await cursor.fetchall()}
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
