"""Sealing the books: `fenrun books seal`, and what came too late for a seal."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.console import terminal
from services.console.client import At, Call, Lazy, command, new_id, parse_time, timestamp
from services.console.terminal import Column
from services.ledger.cli.words import Reason, amounts

if TYPE_CHECKING:
    from fenrun.ledger.v1 import ledger_pb2 as pb
    from fenrun.log.v1 import log_pb2 as log
else:
    pb = Lazy("fenrun.ledger.v1.ledger_pb2")
    log = Lazy("fenrun.log.v1.log_pb2")

app = typer.Typer()
books_app = typer.Typer(help="Close the books: seal a period, and see what came too late for it.", no_args_is_help=True)
app.add_typer(books_app, name="books")


@command(books_app)
def seal(
    call: Call,
    through: Annotated[
        Any, typer.Option(parser=parse_time, metavar="TIME", help="Exclusive: 2026-04-01T00:00:00+08:00 seals March in Shanghai.")
    ],
    reason: Reason,
    by: Annotated[str, typer.Option(help="Who seals.")],
    seal_id: Annotated[str, typer.Option(help="What makes it count once. Left out: a new one, printed.")] = "",
    at: At = None,
) -> None:
    """Seals the books through a time. What comes later for the time before is booked from then on, and points back."""
    seal_id = seal_id or new_id("seal")
    request = pb.SealBooksRequest(
        program_id=call.program, seal_id=seal_id, through=timestamp(through), reason=reason, sealed_by=by, sealed_at=timestamp(at)
    )
    response = call.ledger.SealBooks(request)
    if call.wrote(response, response.receipt, f"seal {seal_id}"):
        _show(response.seal)


@command(books_app)
def seals(call: Call) -> None:
    """Every seal, with the trial balance it sealed and how it moved in the period."""
    found = call.ledger.ListSeals(pb.ListSealsRequest(program_id=call.program))
    if call.as_json:
        return terminal.print_json(terminal.plain(found))
    for one in found.seals:
        _show(one)
    if not found.seals:
        terminal.say("the books were never sealed")


def _show(one: "pb.Seal") -> None:
    terminal.say("", f"{one.period.seal_id}: {_period(one.period)}, by {one.sealed_by} at position {one.period.position}: {one.reason}")
    terminal.say(f"entries {one.entries}, hash {one.entry_hash.hex()}")
    balances = {(row.balance.currency, row.account): row.balance.minor_units for row in one.balances}
    movements = {(row.balance.currency, row.account): row.balance.minor_units for row in one.movements}
    for asset in dict.fromkeys(asset for asset, _ in [*balances, *movements]):
        accounts = sorted({account for of, account in [*balances, *movements] if of == asset})
        rows = [(terminal.word(log.Account, a), movements.get((asset, a), 0), balances.get((asset, a), 0)) for a in accounts]
        terminal.table(
            [Column("account"), Column(f"in the period {asset}", money=asset), Column(f"at its end {asset}", money=asset)],
            rows,
            ("sum", sum(moved for _, moved, _ in rows), sum(held for _, _, held in rows)),
        )


def _period(period: "pb.SealedPeriod") -> str:
    begins = f"from {terminal.when(getattr(period, 'from'))} " if period.HasField("from") else ""
    return f"{begins}through {terminal.when(period.through)}"


@command(books_app)
def late(
    call: Call, seal: Annotated[str, typer.Option("--seal", help="Only what adjusts the period of this seal. Left out: any.")] = ""
) -> None:
    """What happened in a sealed period and came after the seal, with what it moved in the members' accounts and the company's."""
    request = pb.ListLateEntriesRequest(program_id=call.program, seal_id=seal)
    found: list[pb.LateEntry] = list(call.pages(call.ledger.ListLateEntries, request, "entries"))
    if call.as_json:
        return terminal.print_json({"entries": [terminal.plain(one) for one in found]})
    if not found:
        return terminal.say("nothing came too late")
    rows = [
        (
            [
                str(one.position),
                terminal.when(one.occurred_at),
                f"{one.type.removesuffix('.v1')} {one.stream.partition('/')[2]}",
                one.adjusts.seal_id,
                terminal.when(one.booked_at),
                f"{posting.member_id} {account}".strip(),
            ],
            posting.amount_minor,
            posting.asset,
        )
        for one in found
        for posting in one.postings
        for account in (terminal.word(log.Account, posting.account),)
    ]
    amounts(["position", "occurred", "fact", "adjusts", "booked", "account"], "amount", rows)
