"""`fenrun plan simulate`: what a draft would have paid for what is recorded, in tables, as JSON, and as a picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.console import terminal
from services.console.client import Call, Failed, Lazy, command, parse_time, timestamp
from services.console.terminal import Cell, Column
from services.kernel.money import half_up
from services.runtime.currency import to_major

if TYPE_CHECKING:
    from fenrun.ledger.v1 import ledger_pb2 as pb
else:
    pb = Lazy("fenrun.ledger.v1.ledger_pb2")

# People shown in the table.
TOP = 20
# Ids may be 100 characters long, and a table must fit 80 columns with its amounts.
LONGEST_ID = 30


def register(app: typer.Typer) -> None:
    """Adds the command to the group of plan commands."""
    command(app, "simulate")(simulate)


def simulate(
    call: Call,
    draft: Annotated[Path, typer.Argument(help="YAML or JSON; docs/plan-format.md. Its version may be any.", exists=True, dir_okay=False)],
    from_: Annotated[
        Any, typer.Option("--from", parser=parse_time, metavar="TIME", help="Orders paid from here on. Left out: from the beginning.")
    ] = None,
    to: Annotated[Any, typer.Option(parser=parse_time, metavar="TIME", help="Orders paid before this time. Left out: all.")] = None,
    top: Annotated[
        int | None, typer.Option(metavar="N", help="People shown, the largest difference first. Default: 20; with --json all.", min=0)
    ] = None,
    picture: Annotated[Path | None, typer.Option(metavar="FILE.svg", help="Also draw it.", dir_okay=False)] = None,
) -> None:
    """Replays what is recorded under a draft and says what would have been different. Records nothing.

    Counted are orders paid in the window, with what followed on them; of all else only what differs.
    """
    if picture is not None and not picture.parent.is_dir():
        raise Failed(f"cannot write {picture}: there is no such directory")
    request = pb.SimulatePlanRequest(program_id=call.program, document=draft.read_text(encoding="utf-8"))
    if from_ is not None:
        getattr(request, "from").CopyFrom(timestamp(from_))
    if to is not None:
        request.to.CopyFrom(timestamp(to))
    totals, rules, members = _simulated(call, request)
    window = _window(from_, to)
    if picture is not None:
        _draw(picture, f"{draft.name} on {call.program}", window, totals, rules, members)
    if call.as_json:
        shown = members if top is None else members[:top]
        found: dict[str, Sequence[Any]] = {"totals": totals, "by_rule": rules, "by_member": shown}
        return terminal.print_json({name: [terminal.plain(one) for one in rows] for name, rows in found.items()})
    terminal.say(*_summary(window, totals[0]))
    for total in totals:
        _tables(total, rules, members, TOP if top is None else top)
    if picture is not None:
        terminal.say("", f"drawn in {picture}")


def _simulated(
    call: Call, request: "pb.SimulatePlanRequest"
) -> tuple[list["pb.SimulationTotal"], list["pb.SimulationRow"], list["pb.SimulationRow"]]:
    totals, rules, members = [], [], []
    with terminal.progress("entries") as advance:
        for step in call.ledger.SimulatePlan(request):
            match step.WhichOneof("step"):
                case "progress":
                    advance(step.progress.position, step.progress.head_position)
                case "total":
                    totals.append(step.total)
                case "by_rule":
                    rules.append(step.by_rule)
                case "by_member":
                    members.append(step.by_member)
    return totals, rules, members


def _window(from_: Any, to: Any) -> str:
    parts = [f"{word} {moment:%Y-%m-%dT%H:%M:%SZ}" for word, moment in (("from", _utc(from_)), ("before", _utc(to))) if moment is not None]
    return f"paid {' and '.join(parts)}" if parts else "all that is recorded"


def _utc(moment: Any) -> Any:
    from datetime import UTC

    return None if moment is None else moment.astimezone(UTC)


def _summary(window: str, total: "pb.SimulationTotal") -> list[str]:
    """`total` is of the program's currency, the first."""
    base = f"{to_major(total.base_minor, total.asset)} {total.asset}"
    found = [window, f"{_many(total.orders, 'order')}, {_many(total.refunds, 'refund')}; base after refunds {base}"]
    if total.refused:
        found.append(f"{_many(total.refused, 'fact')} the draft would have refused")
    return found


def _many(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _tables(total: "pb.SimulationTotal", rules: Sequence["pb.SimulationRow"], members: Sequence["pb.SimulationRow"], top: int) -> None:
    asset = total.asset
    money = [Column(name, money=asset) for name in ("recorded", "simulated", "difference")]
    people = (total.recorded_minor, total.simulated_minor)
    breakage = (total.recorded_breakage_minor, total.simulated_breakage_minor)
    both = tuple(map(sum, zip(people, breakage, strict=True)))
    rows: list[tuple[Cell, ...]] = [("people", *_compared(*people)), ("breakage", *_compared(*breakage)), ("together", *_compared(*both))]
    if asset.isupper() and total.base_minor > 0:
        # The difference is that of the shares as they are shown, so that a reader can check it.
        for name, pair in (("people, of base", people), ("together, of base", both)):
            rows.append((name, *map(percent, _compared(*(hundredths(amount, total.base_minor) for amount in pair)))))
    terminal.say("")
    terminal.table([Column(asset), *money], rows)
    given = [row for row in rules if row.asset == asset]
    if given:
        terminal.say("")
        terminal.table([Column("rule"), *money], [_row(row) for row in given])
    earning = [row for row in members if row.asset == asset]
    if earning and top:
        terminal.say("")
        terminal.table([Column("person"), *money], [_row(row) for row in earning[:top]])
        if len(earning) > top:
            terminal.say(f"and {len(earning) - top:,} more who earn or differ")


def _compared(recorded: int, simulated: int) -> tuple[int, int, int]:
    return recorded, simulated, simulated - recorded


def _row(row: "pb.SimulationRow") -> tuple[Cell, ...]:
    key = row.key if len(row.key) <= LONGEST_ID else row.key[: LONGEST_ID - 1] + "…"
    return key, *_compared(row.recorded_minor, row.simulated_minor)


def hundredths(part: int, whole: int) -> int:
    """A share in hundredths of a percent, rounded once."""
    return half_up(part * 10_000, whole)


def percent(share: int) -> str:
    """Hundredths of a percent for people: -1.25%."""
    return f"{'-' if share < 0 else ''}{abs(share) // 100}.{abs(share) % 100:02d}%"


def _draw(
    picture: Path,
    title: str,
    window: str,
    totals: Sequence["pb.SimulationTotal"],
    rules: Sequence["pb.SimulationRow"],
    members: Sequence["pb.SimulationRow"],
) -> None:
    from services.ledger.cli.picture import Asset, Pair, draw, signed

    def pairs(rows: Sequence["pb.SimulationRow"], asset: str) -> list[Pair]:
        return [Pair(row.key, row.recorded_minor, row.simulated_minor) for row in rows if row.asset == asset]

    lines = _summary(window, totals[0])
    for total in totals:
        recorded, simulated, difference = _compared(total.recorded_minor, total.simulated_minor)
        text = f"Earned: {to_major(recorded, total.asset)} recorded, {to_major(simulated, total.asset)} simulated"
        text += f", {signed(difference, total.asset)} {total.asset}"
        if total.asset.isupper() and total.base_minor > 0:
            text += f"; of the base {percent(hundredths(recorded, total.base_minor))}, {percent(hundredths(simulated, total.base_minor))}"
        lines.append(text)
    assets = [Asset(total.asset, pairs(rules, total.asset), pairs(members, total.asset)) for total in totals]
    try:
        picture.write_text(draw(title, lines, assets), encoding="utf-8")
    except OSError as problem:
        raise Failed(f"cannot write {picture}: {problem.strerror}") from problem
