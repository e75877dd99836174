"""What several commands take and say: ids, amounts and lines as people type them, and who earned what."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.console import terminal
from services.console.client import Call
from services.console.terminal import Column
from services.runtime.currency import to_major

if TYPE_CHECKING:
    from fenrun.type.v1 import type_pb2 as types

Member = Annotated[str, typer.Argument(help="The member's id.")]
OrderId = Annotated[str, typer.Argument(metavar="ORDER", help="The order's id.")]
Amount = Annotated[str, typer.Argument(help="As people write it, in the program's currency: 26.90.")]
Reason = Annotated[str, typer.Option(help="Why.")]
Asset = Annotated[str, typer.Option(help="Points that the plan names. Left out: money.")]


def split(text: str, shape: str) -> list[str]:
    """The parts of a line, from the right, so that only the first may hold a colon: A1:2:179.03."""
    parts = text.rsplit(":", shape.count(":"))
    if len(parts) != shape.count(":") + 1 or not all(parts):
        raise typer.BadParameter(f"{text!r} is not {shape}")
    return parts


def count(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise typer.BadParameter(f"{text!r} is not a count")
    return int(text)


def unsigned(call: Call, text: str) -> int:
    """An amount of at least zero, in minor units."""
    minor = call.minor(text)
    if minor < 0:
        raise typer.BadParameter(f"{text!r} is below zero")
    return minor


def earnings(found: Any, header: str, *also: tuple[str, "types.Money"]) -> None:
    """Who earns or loses what, money and points."""
    rows = [(one.member_id, one.amount) for one in found] + [(name, amount) for name, amount in also if amount.minor_units]
    if rows:
        amounts(["member"], header, [([member], amount.minor_units, amount.currency) for member, amount in rows])
    else:
        terminal.say(f"nobody {header} anything")


def losses(reversed_: Any, period_reversed: Any) -> None:
    """Who loses what of orders, and then of periods that were closed."""
    earnings(reversed_, "loses")
    if period_reversed:
        terminal.say("", "and of periods that were closed:")
        earnings(period_reversed, "loses")


def amounts(before: Sequence[str], header: str, rows: Sequence[tuple[list[str], int, str]]) -> None:
    """A table that ends in an amount; what it is an amount of is named where there is more than one answer."""
    assets = list(dict.fromkeys(asset for _, _, asset in rows))
    if len(assets) == 1:
        terminal.table(
            [*map(Column, before), Column(f"{header} {assets[0]}", money=assets[0])], [(*cells, minor) for cells, minor, _ in rows]
        )
    else:
        columns = [*map(Column, before), Column(header, "number"), Column("of")]
        terminal.table(columns, [(*cells, to_major(minor, asset), asset) for cells, minor, asset in rows])


def people(found: Any) -> None:
    if found:
        terminal.table(
            [Column("level", "number"), Column("member"), Column("tier"), Column("lock", "number"), Column("tier since", "number")],
            [(level, one.member_id, one.tier, one.binding_position, one.tier_position) for level, one in enumerate(found)],
        )
        terminal.say("")
