"""Inline views as data: which table, which columns, and how entries make its rows. Used to verify and rebuild what `append` folds live."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from services.kernel.decider import Entry

Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class InlineView:
    """A table keyed by program, folded in the transaction of every append. `name` is its qualified table name."""

    name: str
    # After program_id, in table order; the first `keys` of them identify a row.
    columns: tuple[str, ...]
    keys: int


@dataclass(frozen=True, slots=True)
class Folding:
    """A service's views folded in memory, from position 1, without the code that folds them live: `rows()` is what each table must hold."""

    views: tuple[InlineView, ...]
    add: Callable[[Entry], None]
    rows: Callable[[], Mapping[str, Mapping[Row, Row]]]
