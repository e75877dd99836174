"""What every command says: tables and sentences on stdout, notices on stderr, and JSON whose keys are stable.

Rich is imported where it is used: most of what a command costs is its imports.
"""

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from services.runtime.currency import to_major

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from google.protobuf.timestamp_pb2 import Timestamp
    from rich.console import Console

Cell = str | int | None
# Tighter and tighter: (thousands grouped, spaces between columns, columns of zeros left out).
STYLES = ((True, 2, False), (False, 1, False), (True, 2, True), (False, 1, True))
# How often a bar that is moved by hand is drawn.
REFRESH_S = 0.1


@dataclass(frozen=True, slots=True)
class Column:
    """`money`: cells are minor units of that currency. `keep`: shown even when every cell is zero."""

    header: str
    kind: Literal["text", "number"] = "text"
    money: str = ""
    keep: bool = True


def console(stderr: bool = False, terminal: bool | None = None) -> "Console":
    """Prints ids and sentences as they are: no markup, no emoji, no guessed colours."""
    from rich.console import Console

    return Console(stderr=stderr, force_terminal=terminal, markup=False, emoji=False, highlight=False)


def say(*lines: str) -> None:
    """Lines on stdout."""
    sys.stdout.write("".join(f"{line}\n" for line in lines))


def paragraph(text: str, first: str = "", then: str = "") -> None:
    """Sentences on stdout, broken between words to the width there is, 100 at most; `first` begins the first line, `then` the others."""
    from rich.cells import cell_len
    from rich.text import Text

    out = console()
    width = max(20, min(out.width, 100) - max(cell_len(first), cell_len(then)))
    for number, line in enumerate(Text(text).wrap(out, width)):
        say(((then if number else first) + line.plain).rstrip())


def harmless(text: str) -> str:
    """What would steer the terminal is shown as �."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def width() -> int:
    """Columns of the terminal; 80 where there is none."""
    return console().width


def broken(text: str, columns: int) -> list[str]:
    """Text in lines of at most so many columns, broken between words where there are any. What would steer the terminal is shown as �."""
    from rich.cells import cell_len
    from rich.text import Text

    shown = harmless(text)
    if cell_len(shown) <= columns:
        return [shown]
    return [line.plain.rstrip() for line in Text(shown).wrap(console(), columns)]


def notice(line: str) -> None:
    """A line on stderr, so that stdout stays what was asked for."""
    sys.stderr.write(f"{line}\n")


def table(columns: Sequence[Column], rows: Sequence[Sequence[Cell]], totals: Sequence[Cell] | None = None) -> None:
    """Numbers to the right and never folded: what is too wide loses its thousands separators, then its columns of zeros.

    What is still too wide comes in blocks, one below the other, each with the first column.
    """
    from rich.cells import cell_len
    from rich.text import Text

    everything = [*rows, totals] if totals else list(rows)
    out = console()
    for grouped, gap, dropping in STYLES:
        shown = [
            at for at, column in enumerate(columns) if column.keep or not dropping or any(row[at] not in (0, None) for row in everything)
        ]
        text = [[_text(column, cell, grouped) for column, cell in zip(columns, row, strict=True)] for row in everything]
        widths = [max(map(cell_len, (column.header, *(line[at] for line in text)))) for at, column in enumerate(columns)]
        if sum(widths[at] + gap for at in shown) - gap <= out.width:
            break
    blocks: list[list[int]] = [shown[:1]]
    for at in shown[1:]:
        if len(blocks[-1]) > 1 and sum(widths[other] + gap for other in [*blocks[-1], at]) - gap > out.width:
            blocks.append(shown[:1])
        blocks[-1].append(at)

    def spread(line: Sequence[str], block: Sequence[int]) -> str:
        cells = []
        for at in block:
            blank = " " * (widths[at] - cell_len(line[at]))
            cells.append(blank + line[at] if columns[at].kind == "number" or columns[at].money else line[at] + blank)
        return (" " * gap).join(cells).rstrip()

    # Rich's own Table takes seconds for thousands of rows; all that is wanted of it here is bold type.
    for number, block in enumerate(blocks):
        out.print(Text(("\n" if number else "") + spread([column.header for column in columns], block), style="bold"), soft_wrap=True)
        say(*(spread(line, block) for line in text[: len(rows)]))
        if totals:
            say(spread(["-" * width for width in widths], block))
            out.print(Text(spread(text[-1], block), style="bold"), soft_wrap=True)


def _text(column: Column, cell: Cell, grouped: bool) -> str:
    if cell is None:
        return ""
    if isinstance(cell, int):
        return to_major(cell, column.money, grouped) if column.money else str(cell)
    return cell


def when(moment: "Timestamp") -> str:
    """A time for people: UTC, whole seconds; JSON has the microseconds."""
    return f"{moment.ToDatetime():%Y-%m-%dT%H:%M:%SZ}" if moment.seconds or moment.nanos else ""


def word(enum: Any, value: int) -> str:
    """ACCOUNT_WRITE_OFF, the way people write it: "write off"."""
    prefix = "".join("_" + letter if letter.isupper() else letter for letter in enum.DESCRIPTOR.name).strip("_").upper() + "_"
    return str(enum.Name(value)).removeprefix(prefix).replace("_", " ").lower()


def plain(message: "Message") -> dict[str, Any]:
    """A message as JSON: names as in the contract, every field there, integers as numbers, times in ISO 8601, hashes in hex.

    Left out are only the members of a oneof that are not set. (protobuf's own JSON writes 64-bit integers as text and bytes in base64.)
    """
    found: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.is_repeated:
            found[field.name] = [_plain(field, item) for item in value]
        elif not field.has_presence or message.HasField(field.name):
            found[field.name] = _plain(field, value)
        elif field.containing_oneof is None:
            found[field.name] = None
    return found


def _plain(field: Any, value: Any) -> Any:
    if field.type == field.TYPE_MESSAGE:
        return value.ToJsonString() if field.message_type.full_name == "google.protobuf.Timestamp" else plain(value)
    if field.type == field.TYPE_ENUM:
        named = field.enum_type.values_by_number.get(value)
        return named.name if named else value
    return value.hex() if field.type == field.TYPE_BYTES else value


def json_text(document: Any) -> str:
    """One document, as `print_json` writes it."""
    return json.dumps(document, ensure_ascii=False, indent=2)


def print_json(document: Any) -> None:
    """One document on stdout."""
    say(json_text(document))


def print_json_lines(documents: Iterable[Any]) -> None:
    """One document a line, each handed on at once."""
    for document in documents:
        say(json.dumps(document, ensure_ascii=False, separators=(",", ":")))
    sys.stdout.flush()


def flush() -> None:
    """Hands on what is said so far, for a command that goes on."""
    sys.stdout.flush()


@contextmanager
def stages() -> Iterator[Callable[[str, int, int], None]]:
    """A bar on stderr for work in stages; call what it gives with (stage, done, in all). On a terminal only.

    Nothing but those calls moves it: a thread of its own would be in the way of work that forks.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    out = console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    last = ("", 0.0)
    with Progress(*columns, console=out, disable=not out.is_terminal, auto_refresh=False) as bar:
        task = bar.add_task("", total=None)

        def told(stage: str, done: int, total: int) -> None:
            nonlocal last
            now = time.monotonic()
            if stage != last[0] or now - last[1] > REFRESH_S or done == total:
                last = (stage, now)
                bar.update(task, description=stage, completed=done, total=total, refresh=True)

        yield told


@contextmanager
def progress(unit: str, shown: bool | None = None) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr; call what it gives with (done, in all). Shown on a terminal only, unless told."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    out = console(stderr=True, terminal=shown)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=out, disable=not out.is_terminal) as bar:
        task = bar.add_task(unit, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
