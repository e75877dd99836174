"""`fenrun statement`: a member's account over a period, as a table, CSV, JSON or a page to print."""

import csv
import io
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from services.console import terminal
from services.console.client import Call, Failed, command, parse_time, timestamp
from services.console.terminal import Cell, Column
from services.ledger.cli import statement_page
from services.ledger.cli.adding_up import Figures, Statement, account_of, fetch, figures, rules_of
from services.ledger.cli.proofs import Proofs, attached
from services.ledger.cli.words import Asset, Member
from services.runtime.currency import to_major

if TYPE_CHECKING:
    from fenrun.ledger.v1 import ledger_pb2 as pb

app = typer.Typer()
# What a spreadsheet takes for a formula.
FORMULA = ("=", "+", "-", "@", "\t", "\r")
CSV_COLUMNS = (
    *("section", "asset", "account", "posting", "position", "recorded_at", "occurred_at"),
    *("type", "stream", "about", "plan", "rules", "amount", "balance"),
)


@command(app)
def statement(
    call: Call,
    member: Member,
    from_: Annotated[Any, typer.Option("--from", parser=parse_time, metavar="TIME", help="Recorded from then on.")] = None,
    to: Annotated[Any, typer.Option(parser=parse_time, metavar="TIME", help="And before then. Left out: up to now.")] = None,
    asset: Asset = "",
    as_format: Annotated[str, typer.Option("--format", help="table, csv, json or html.")] = "table",
    language: Annotated[str, typer.Option(help="Of the html page: en or zh.")] = "en",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Into this file.", dir_okay=False)] = None,
) -> None:
    """A member's account over a period: opening, each posting with what it came from, closing. Only ever printed if it adds up."""
    as_format = "json" if call.as_json else as_format
    if as_format not in ("table", "csv", "json", "html"):
        raise typer.BadParameter("--format is table, csv, json or html")
    if language not in ("en", "zh"):
        raise typer.BadParameter("--language is en or zh")
    if output and as_format == "table":
        raise typer.BadParameter("a table goes to the terminal; write --format csv, json or html into a file")
    if from_ is not None and to is not None and to <= from_:
        raise typer.BadParameter("--to is not after --from")
    found = fetch(call, member, from_, to)
    if asset:
        if asset not in found.opening:
            raise Failed(f"{member} has nothing of {asset} in {call.program}")
        found.postings = found.of(asset)
        found.opening, found.closing = {asset: found.opening[asset]}, {asset: found.closing[asset]}
    match as_format:
        case "csv":
            text = as_csv(found)
        case "json":
            text = terminal.json_text(as_json(found, attached(call, found))) + "\n"
        case "html":
            told: Literal["en", "zh"] = "zh" if language == "zh" else "en"
            text = statement_page.page(found, told, datetime.now(UTC), attached(call, found))
        case _:
            return show(found)
    if output is None:
        sys.stdout.write(text)
        return
    try:
        output.write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        raise Failed(f"{output} cannot be written: {error.strerror}") from None
    count = len(found.postings)
    postings = "1 posting" if count == 1 else f"{count} postings"
    terminal.say(f"{output}: statement of {member}, {postings}, after position {found.after} up to {found.last}")


def show(statement: Statement) -> None:
    """Tables: for each asset what it held at both ends, then posting by posting."""
    terminal.say(f"{statement.member_id} in {statement.program_id}, {period_of(statement)}")
    terminal.say(f"opening right after position {statement.after}, closing right after {statement.last}; times of recording, UTC")
    for asset, opening in statement.opening.items():
        terminal.say("")
        rows: list[tuple[Cell, ...]] = [
            (name, start, end - start, end) for name, start, end in figures(statement.shown(asset), opening, statement.closing[asset])
        ]
        terminal.table([Column(asset), *(Column(header, money=asset) for header in ("opening", "change", "closing"))], rows)
        terminal.say("")
        _postings(statement, asset)


def period_of(statement: Statement) -> str:
    ends = [terminal.when(timestamp(moment)) if moment else "" for moment in (statement.from_, statement.to)]
    return f"recorded from {ends[0] or 'the beginning'} to {ends[1] or 'now'}"


def _postings(statement: Statement, asset: str) -> None:
    """One line each; what is told in words is broken into as many lines as it takes."""
    lines = statement.of(asset)
    if not lines:
        return terminal.say(f"no postings of {asset}")
    columns = [Column("posting"), Column("recorded"), Column("from"), Column("account")]
    columns += [Column("amount", money=asset), Column("balance", money=asset)]
    amounts = [(one.posting.amount.minor_units, one.posting.balance_after.minor_units) for one in lines]
    longest = [
        max([len(columns[at].header), *map(len, cells)])
        for at, cells in (
            (0, [one.posting.posting_id for one in lines]),
            (1, ["2026-01-01"]),
            (3, [account_of(one) for one in lines]),
            (4, [to_major(amount, asset) for amount, _ in amounts]),
            (5, [to_major(balance, asset) for _, balance in amounts]),
        )
    ]
    # Two spaces between columns, as the table leaves them.
    left = max(16, terminal.width() - sum(longest) - 2 * len(longest))
    rows: list[tuple[Cell, ...]] = []
    for one, (amount, balance) in zip(lines, amounts, strict=True):
        first, *more = terminal.broken(source_of(one, statement_page.ENGLISH, asset), left)
        recorded = f"{one.posting.recorded_at.ToDatetime():%Y-%m-%d}"
        rows.append((one.posting.posting_id, recorded, first, account_of(one), amount, balance))
        rows += [("", "", line, "", None, None) for line in more]
    terminal.table(columns, rows)


def source_of(one: "pb.StatementPosting", words: statement_page.Words, asset: str) -> str:
    """ "refund O1 (R1): first" """
    rules = rules_of(one, asset)
    return statement_page.told(one, words) + (f": {rules}" if rules else "")


# ---------------------------------------------------------------- for programs


def as_json(statement: Statement, proofs: Proofs | None) -> dict[str, Any]:
    """Figures are minor units with their sign in the book; what is owed back is below zero."""

    def ends(position: int, held: dict[str, Figures]) -> dict[str, Any]:
        return {"position": position, "balances": {asset: _minor(figures) for asset, figures in held.items()}}

    return {
        "program_id": statement.program_id,
        "member_id": statement.member_id,
        "from": statement.from_.isoformat() if statement.from_ else None,
        "to": statement.to.isoformat() if statement.to else None,
        "opening": ends(statement.after, statement.opening),
        "postings": [terminal.plain(one) for one in statement.postings],
        "closing": ends(statement.last, statement.closing),
    } | (proofs.as_json() if proofs else {"checkpoint": None, "proofs": []})


def _minor(figures: Figures) -> dict[str, int]:
    return {f"{name}_minor": amount for name, amount in figures.items()}


def as_csv(statement: Statement) -> str:
    """A line for each account at both ends and for each posting between. Amounts in whole units of money, such as 26.90.

    Text that a spreadsheet would take for a formula has an apostrophe before it.
    """
    text = io.StringIO()
    out = csv.writer(text)
    out.writerow(CSV_COLUMNS)

    def end(section: str, position: int, held: dict[str, Figures]) -> None:
        for asset, ends in held.items():
            for name, amount in ends.items():
                money = to_major(amount, asset, grouped=False)
                out.writerow((section, asset, name, "", position, *[""] * 7, "", money))

    end("opening", statement.after, statement.opening)
    for one in statement.postings:
        posting, asset = one.posting, one.posting.amount.currency
        told = (posting.type, posting.stream, one.about, f"{one.plan_id}:{one.plan_version}" if one.plan_id else "", rules_of(one, asset))
        times = (posting.recorded_at.ToJsonString(), posting.occurred_at.ToJsonString())
        amounts = [to_major(money.minor_units, asset, grouped=False) for money in (posting.amount, posting.balance_after)]
        place = ("posting", asset, account_of(one), posting.posting_id, posting.position)
        out.writerow((*place, *times, *(f"'{cell}" if cell.startswith(FORMULA) else cell for cell in told), *amounts))
    end("closing", statement.last, statement.closing)
    return text.getvalue()
