"""The shape of every decision: a command and a state give drafts or a refusal; an entry changes the state.

`decide(state, command)` answers `Decided` or raises a `Refusal`; it changes nothing. `evolve(state, entry)` never refuses: what is
recorded happened. Both use only their arguments.
"""

from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, NamedTuple

from services.kernel.refusals import IdReused
from services.kernel.times import to_text


class NotLoaded(Exception):
    """The state holds only what the batch asked for, and not this. The writer ends the batch before this command and loads again."""


class Draft(NamedTuple):
    """An entry about to be: everything but what the log itself gives (position, version, hash, time of recording)."""

    stream: str
    fact: Any
    decision: Any
    occurred_us: int
    # The id that lets the fact count once, where neither the stream nor its state tells.
    fact_id: str | None = None


class Entry(NamedTuple):
    """An entry as a service reads it: `fact` and `decision` are that service's own frozen dataclasses."""

    position: int
    stream: str
    stream_version: int
    occurred_us: int
    recorded_us: int
    hash: bytes
    fact: Any
    decision: Any


class Presumed(Exception):
    """The answer hangs on something that a state presumed without having looked. The writer loads again, and looks."""


@dataclass(frozen=True, slots=True)
class Repeated:
    """The command told a fact that is recorded already, with the same content. `more`: what else it drafted then."""

    entry: Entry
    more: tuple[Entry, ...] = ()


Answer = list[Draft] | Repeated


def altered(value: Any, **changes: Any) -> Any:
    """A fact, decision or command with other fields: hot ones are NamedTuples, all others dataclasses."""
    return value._replace(**changes) if hasattr(value, "_replace") else replace(value, **changes)


def repeated(prior: Entry | None, key: str, fact: Any, occurred_us: int) -> Repeated | None:
    """The first entry if this fact is recorded already, None if it is new. Raises IdReused naming the first field that differs."""
    if prior is None:
        return None
    if prior.fact == fact and prior.occurred_us == occurred_us:
        return Repeated(prior)
    field, recorded, given = difference(prior.fact, fact) or ("occurred_at", to_text(prior.occurred_us), to_text(occurred_us))
    raise IdReused(key, prior.position, field, recorded, given)


def difference(recorded: Any, given: Any, path: str = "") -> tuple[str, Any, Any] | None:
    """The first place where two values of one shape differ: ("lines[2].base_minor", 100, 90). None when they are equal."""
    if recorded == given:
        return None
    if type(recorded) is not type(given):
        return (path or type(recorded).__name__, _short(recorded), _short(given))
    names = _names(recorded)
    if names is not None:
        for name in names:
            found = difference(getattr(recorded, name), getattr(given, name), f"{path}.{name}" if path else name)
            if found:
                return found
    elif isinstance(recorded, tuple):
        if len(recorded) != len(given):
            return (f"number of {path}", len(recorded), len(given))
        for index, (left, right) in enumerate(zip(recorded, given, strict=True)):
            found = difference(left, right, f"{path}[{index}]")
            if found:
                return found
    return (path, _short(recorded), _short(given))


def _names(value: Any) -> list[str] | None:
    if is_dataclass(value):
        return [field.name for field in fields(value)]
    return list(value._fields) if hasattr(value, "_fields") else None


def _short(value: Any) -> Any:
    return value if isinstance(value, int | str) else type(value).__name__
