"""`fenrun import`."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.console import terminal
from services.console.client import Call, Failed, command, parse_time, timestamp
from services.console.terminal import Column

if TYPE_CHECKING:
    from services.importer.carry import Job, Summary

app = typer.Typer()


class Format(StrEnum):
    """Whose tables an export is of."""

    CRMEB = "crmeb"
    YUDAO = "yudao"


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
    format: Annotated[Format | None, typer.Option(help="DIR holds an export of this mall's tables; docs/import-malls.md.")] = None,
    zone: Annotated[str, typer.Option(metavar="±HH:MM", help="Where the mall's times without a zone are written.")] = "+08:00",
    as_of: Annotated[
        Any, typer.Option(parser=parse_time, metavar="TIME", help="When the mall was exported. Default: its last row.", show_default=False)
    ] = None,
    tier: Annotated[str, typer.Option(help="Locks members who are bound or have bought there, in this tier.")] = "",
    promoter_tier: Annotated[str, typer.Option(help="The tier of members who may sell there.")] = "",
    level: Annotated[
        list[str] | None, typer.Option(metavar="LEVEL=TIER", help="The tier of members of a level there; may be repeated.")
    ] = None,
    report_only: Annotated[bool, typer.Option("--report-only", help="Check the mall's export and write report.csv; send nothing.")] = False,
) -> None:
    """Sends the files of another system, in order of time. Run it again after any break: nothing is lost, nothing counts twice.

    Rows that cannot be taken are listed with the reason, and the rest goes in; docs/import-format.md is the format.
    With --format an export of a mall's own tables goes in, as bindings and opening balances, with a report of what did not add up there.
    """
    from services.importer.files import Unreadable
    from services.importer.run import Job, run
    from services.ledger.cli import release_due

    rejected = rejected or _beside(directory) / "rejected.csv"
    text = plan.read_text(encoding="utf-8") if plan else None
    if format is not None:
        if complete_after is not None:
            raise typer.BadParameter("--complete-after is of orders; with --format none go in")
        return _import_mall(
            call,
            _mall_job(
                call.program, directory, rejected, format, zone, as_of, (tier, promoter_tier, level or []), (currency, text, retry_for)
            ),
            report_only,
            progress,
            release_at,
        )
    if as_of is not None or tier or promoter_tier or level or report_only:
        raise typer.BadParameter("--as-of, --tier, --promoter-tier, --level and --report-only go with --format")
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


def _mall_job(
    program: str,
    directory: Path,
    rejected: Path,
    format: Format,
    zone: str,
    as_of: Any,
    tiers: tuple[str, str, list[str]],
    sending: tuple[str | None, str | None, int],
) -> "Job":
    """Raises BadParameter for a zone or a level that does not read."""
    from services.importer import carry, exports
    from services.kernel.times import to_us

    try:
        offset = exports.zone(zone)
    except ValueError as problem:
        raise typer.BadParameter(f"--zone: {problem}") from None
    levels = {}
    for pair in tiers[2]:
        id, _, name = pair.partition("=")
        if not id.isdigit() or not name:
            raise typer.BadParameter(f"--level: {pair!r} is not LEVEL=TIER, such as 3=director")
        levels[str(int(id))] = name
    return carry.Job(
        directory,
        format.value,
        program,
        rejected,
        rejected.parent / "report.csv",
        offset,
        to_us(as_of) if as_of is not None else None,
        carry.Tiers(tiers[0], tiers[1], levels),
        *sending,
    )


def _import_mall(call: Call, job: "Job", report_only: bool, progress: bool | None, release_at: Any) -> None:
    from services.importer import carry
    from services.importer.files import Unreadable
    from services.ledger.cli import release_due

    try:
        if report_only:
            summary = carry.look(job)
        else:
            with terminal.progress("facts", shown=progress) as advance:
                summary = carry.run(call.connection, job, advance)
    except Unreadable as problem:
        raise Failed(str(problem)) from problem
    unmapped = summary.unmapped(job.tiers)
    if unmapped:
        levels = ", ".join(f"{level} ({members:,} member{'' if members == 1 else 's'})" for level, members in unmapped.items())
        terminal.notice(f"levels without --level, not carried: {levels}")
    released = release_due(call, timestamp(release_at)) if release_at and not report_only else None
    currency = (job.currency or "CNY") if report_only else call.currency
    if call.as_json:
        document = _document(call.program, job, summary, currency, report_only)
        if released:
            document["released"] = {"orders_released": released[0], "amount": terminal.plain(released[1])}
        return terminal.print_json(document)
    _say(job, summary, currency, report_only)
    if released:
        terminal.say(f"released {released[0]} orders as of {release_at:%Y-%m-%dT%H:%M:%SZ}")


def _counts(summary: "Summary") -> dict[str, tuple[int, int, int, int]]:
    found = {}
    for step, one in summary.counts.items():
        found[step.name.lower()] = (one.sent, one.recorded, one.already_recorded, one.sent - one.recorded - one.already_recorded)
    return found


NAMES = ("sent", "recorded", "already_recorded", "rejected")


def _document(program: str, job: "Job", summary: "Summary", currency: str, report_only: bool) -> dict[str, Any]:
    from services.importer.carry import difference_of
    from services.kernel.times import to_text

    return {
        "program_id": program,
        "format": job.format,
        "edition": summary.mall.edition,
        "as_of": to_text(summary.mall.as_of_us),
        "currency": currency,
        "sent": not report_only,
        "facts": {step: dict(zip(NAMES, numbers, strict=True)) for step, numbers in _counts(summary).items()},
        "members": len(summary.mall.members),
        "levels_not_carried": summary.unmapped(job.tiers),
        "carried": {f"{name}_minor": amount for name, amount in summary.carried().items()},
        "report": [
            {
                "check": check.name,
                "about": check.about,
                "members": check.members,
                "findings": len(check.findings),
                "own_minor": check.own_minor,
                "rows_minor": check.rows_minor,
                "difference_minor": difference_of(check.own_minor, check.rows_minor),
            }
            for check in summary.checks
        ],
        "report_file": str(job.report),
        "rejected_rows": summary.rejected_rows,
        "rejected_file": None if report_only else str(job.rejected),
    }


def _say(job: "Job", summary: "Summary", currency: str, report_only: bool) -> None:
    from services.importer.carry import difference_of
    from services.kernel.times import to_text

    if not report_only:
        terminal.table(
            [Column("facts"), *(Column(name.replace("_", " "), "number") for name in NAMES)],
            [(step, *numbers) for step, numbers in _counts(summary).items() if any(numbers)],
        )
        terminal.say("")
    money = [Column(name, money=currency) for name in ("their figure", "their rows", "difference")]
    terminal.table(
        [Column("check"), Column("members", "number"), *money],
        [
            (check.name, check.members, check.own_minor, check.rows_minor, difference_of(check.own_minor, check.rows_minor))
            for check in summary.checks
        ],
    )
    terminal.say("")
    carried = summary.carried()
    terminal.table(
        [Column("would be carried" if report_only else "carried"), *(Column(name, money=currency) for name in carried)],
        [(f"{len(summary.mall.members)} members", *carried.values())],
    )
    terminal.say(f"{summary.mall.edition}, as of {to_text(summary.mall.as_of_us)}; {job.report} names each member")
    if summary.rejected_rows:
        terminal.say(f"{summary.rejected_rows:,} facts stayed out; {job.rejected} says why")


def _beside(directory: Path) -> Path:
    """The working directory, unless that is within what is imported."""
    here, given = Path.cwd(), directory.resolve()
    return given.parent if given == here or given in here.parents else Path(".")
