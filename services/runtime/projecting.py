"""Projections as data: which table, which columns, and how entries make its rows. Used to verify and rebuild what is kept live.

Some views are folded in the transaction of every append (inline), the others after it (followed, runtime/following.py).
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from services.kernel.decider import Entry

Row = tuple[Any, ...]
# The first entry of a stream by its name, as the service reads it; None where there is none, or where it is left out. Of the log that is
# being folded, as of the same moment: it may stand after the entry that is being added.
First = Callable[[str], Entry | None]


@dataclass(frozen=True, slots=True)
class View:
    """A table keyed by program. `name` is its qualified table name."""

    name: str
    # After program_id, in table order; the first `keys` of them identify a row.
    columns: tuple[str, ...]
    keys: int
    # Whether each row is written once, with the entry at its position, and never changes.
    written_once: bool = False


class InlineView(View):
    """Folded in the transaction of every append."""

    __slots__ = ()


class FollowedView(View):
    """Folded after the log, in one transaction with the position reached."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Folding:
    """A service's views folded in memory, from position 1, without the code that folds them live: `rows()` is what each table must hold,
    its columns as the view names them.

    `add` of a followed projection changes nothing when it raises: the entry is left out then.
    `written` are the same rows of the views written once, by name, as they are made: whoever has seen to them may clear the lists, so that
    memory does not grow with the log.
    """

    views: tuple[View, ...]
    add: Callable[[Entry], None]
    rows: Callable[[], Mapping[str, Collection[Row]]]
    written: Mapping[str, list[Row]] = field(default_factory=dict)
