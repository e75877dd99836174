"""`fenrun import`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from services.console import terminal
from services.console.client import Call, Failed, command, parse_time, timestamp
from services.console.terminal import Column

app = typer.Typer()


@command(app, "import")
def import_files(
    call: Call,
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="With members.csv, orders.csv, …; or .csv.gz.", exists=True, file_okay=False)
    ],
    plan: Annotated[
        Path | None, typer.Option(help="Publish this plan first; from the earliest row on, unless it says.", exists=True, dir_okay=False)
    ] = None,
    currency: Annotated[str | None, typer.Option(help="Create the program with this currency if it does not exist.")] = None,
    complete_after: Annotated[
        int | None, typer.Option(metavar="DAYS", help="Complete each order so long after it was paid, as far as the files reach.", min=0)
    ] = None,
    release_at: Annotated[Any, typer.Option(parser=parse_time, metavar="TIME", help="Then release all that is due at this time.")] = None,
    rejected: Annotated[
        Path | None, typer.Option(help="Where the rows that stay out are listed. Default: rejected.csv here.", dir_okay=False)
    ] = None,
    retry_for: Annotated[int, typer.Option(metavar="SECONDS", help="How long to wait for a server that is away.", min=0)] = 30,
    progress: Annotated[bool | None, typer.Option("--progress/--no-progress", help="Default: on a terminal.", show_default=False)] = None,
) -> None:
    """Sends the files of another system, in order of time. Run it again after any break: nothing is lost, nothing counts twice.

    Rows that cannot be taken are listed with the reason, and the rest goes in; docs/import-format.md is the format.
    """
    from services.importer.files import Unreadable
    from services.importer.run import Job, run
    from services.ledger.cli import release_due

    rejected = rejected or _beside(directory) / "rejected.csv"
    text = plan.read_text(encoding="utf-8") if plan else None
    job = Job(directory, call.program, rejected, currency, text, complete_after, retry_for)
    try:
        with terminal.progress("rows", shown=progress) as advance:
            done = run(call.connection, job, terminal.notice, advance)
    except Unreadable as problem:
        raise Failed(str(problem)) from problem
    released = release_due(call, timestamp(release_at)) if release_at else None
    pace = int(done.rows / done.elapsed_s) if done.elapsed_s else 0
    names = ("sent", "recorded", "already_recorded", "rejected")
    counts = {kind.name.lower(): (one.sent, one.recorded, one.already_recorded, len(one.rejected)) for kind, one in done.counts.items()}
    if call.as_json:
        document = {
            "program_id": call.program,
            "facts": {kind: dict(zip(names, numbers, strict=True)) for kind, numbers in counts.items()},
            "rows": done.rows,
            "rejected_rows": done.rejected_rows,
            "rejected_file": str(rejected),
            "elapsed_ms": int(done.elapsed_s * 1000),
            "rows_per_s": pace,
        }
        if released:
            document["released"] = {"orders_released": released[0], "amount": terminal.plain(released[1])}
        return terminal.print_json(document)
    terminal.table(
        [Column("facts"), *(Column(name.replace("_", " "), "number") for name in names)],
        [(kind, *numbers) for kind, numbers in counts.items() if any(numbers)],
        ("in all", *(sum(column) for column in zip(*counts.values(), strict=True))),
    )
    terminal.say(f"{done.rows:,} rows in {done.elapsed_s:.1f} s, {pace:,} a second")
    if released:
        terminal.say(f"released {released[0]} orders as of {release_at:%Y-%m-%dT%H:%M:%SZ}")
    if done.rejected_rows:
        terminal.say(f"{done.rejected_rows:,} rows stayed out; {rejected} says why")


def _beside(directory: Path) -> Path:
    """The working directory, unless that is within what is imported."""
    here, given = Path.cwd(), directory.resolve()
    return given.parent if given == here or given in here.parents else Path(".")
