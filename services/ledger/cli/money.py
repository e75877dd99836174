"""Money out and put right: payouts, holds, adjustments; deposits and stock, which have accounts of their own."""

from typing import TYPE_CHECKING, Annotated

import typer

from services.console.client import At, Call, Lazy, command, new_id, timestamp
from services.ledger.cli.words import Amount, Member, Reason, count, split, unsigned
from services.runtime.currency import to_major

if TYPE_CHECKING:
    from fenrun.ledger.v1 import ledger_pb2 as pb
    from fenrun.log.v1 import log_pb2 as log
    from fenrun.type.v1 import type_pb2 as types
else:
    pb = Lazy("fenrun.ledger.v1.ledger_pb2")
    log = Lazy("fenrun.log.v1.log_pb2")
    types = Lazy("fenrun.type.v1.type_pb2")

app = typer.Typer()
payout_app = typer.Typer(help="Paying out, in two steps: request, then confirm or fail.", no_args_is_help=True)
hold_app = typer.Typer(help="Stopping releases while something is looked into.", no_args_is_help=True)
deposit_app = typer.Typer(help="Deposits (保证金): held for a member, never commission.", no_args_is_help=True)
stock_app = typer.Typer(help="Stock sold on between agents (囤货).", no_args_is_help=True)
app.add_typer(payout_app, name="payout")
app.add_typer(hold_app, name="hold")
app.add_typer(deposit_app, name="deposit")
app.add_typer(stock_app, name="stock")

PayoutId = Annotated[str, typer.Argument(metavar="PAYOUT", help="The payout's id.")]
DepositId = Annotated[str, typer.Option(help="What makes it count once: a second id would move it twice.")]


@command(payout_app, "request")
def request_payout(
    call: Call,
    member: Member,
    amount: Amount,
    payout_id: Annotated[str, typer.Option(help="What makes it count once: a second id would be a second payout.")],
    at: At = None,
) -> None:
    """Reserves an amount for a payout. To repeat it, repeat --at too."""
    response = call.ledger.RequestPayout(
        pb.RequestPayoutRequest(
            program_id=call.program,
            payout_id=payout_id,
            member_id=member,
            amount=types.Money(minor_units=unsigned(call, amount), currency=call.currency),
            requested_at=timestamp(at),
        )
    )
    call.wrote(response, response.receipt, f"payout {payout_id} of {amount} {call.currency} to {member} reserved")


@command(payout_app)
def confirm(
    call: Call, payout: PayoutId, reference: Annotated[str, typer.Option(help="The bank's or wallet's own reference.")] = "", at: At = None
) -> None:
    """The money has left."""
    response = call.ledger.ConfirmPayout(
        pb.ConfirmPayoutRequest(program_id=call.program, payout_id=payout, reference=reference, paid_at=timestamp(at))
    )
    call.wrote(response, response.receipt, f"payout {payout} paid")


@command(payout_app)
def fail(call: Call, payout: PayoutId, reason: Reason, at: At = None) -> None:
    """The money did not leave: back to available, debts settled first."""
    response = call.ledger.FailPayout(
        pb.FailPayoutRequest(program_id=call.program, payout_id=payout, reason=reason, failed_at=timestamp(at))
    )
    call.wrote(response, response.receipt, f"payout {payout} failed")


@command(hold_app)
def place(
    call: Call,
    reason: Reason,
    member: Annotated[str, typer.Option(help="Stop all releases to this member, or")] = "",
    order: Annotated[str, typer.Option(help="all releases from this order.")] = "",
    hold_id: Annotated[str, typer.Option(help="What makes it count once. Left out: a new one, printed.")] = "",
    at: At = None,
) -> None:
    """Stops releases, never accrual."""
    if bool(member) == bool(order):
        raise typer.BadParameter("give --member or --order")
    hold_id = hold_id or new_id("hold")
    target = {"member_id": member} if member else {"order_id": order}
    response = call.ledger.PlaceHold(
        pb.PlaceHoldRequest(program_id=call.program, hold_id=hold_id, reason=reason, placed_at=timestamp(at), **target)
    )
    call.wrote(response, response.receipt, f"hold {hold_id} on {'member' if member else 'order'} {member or order}")


@command(hold_app)
def lift(call: Call, hold: Annotated[str, typer.Argument(help="The hold's id.")], reason: Reason, at: At = None) -> None:
    """Ends a hold; the next release takes what had become due meanwhile."""
    response = call.ledger.LiftHold(pb.LiftHoldRequest(program_id=call.program, hold_id=hold, reason=reason, lifted_at=timestamp(at)))
    call.wrote(response, response.receipt, f"hold {hold} lifted")


@command(app)
def adjust(
    call: Call,
    member: Member,
    amount: Annotated[str, typer.Argument(help="26.90 credits; a debit is written after --: `adjust … -- c1 -26.90`.")],
    adjustment_id: Annotated[str, typer.Option(help="What makes it count once: a second id would be a second adjustment.")],
    reason: Reason,
    requested_by: Annotated[str, typer.Option(help="Who asked.")],
    approved_by: Annotated[str, typer.Option(help="Who approved: somebody else.")],
    write_off: Annotated[bool, typer.Option("--write-off", help="Forgive debt instead; at most what is owed.")] = False,
    at: At = None,
) -> None:
    """Credits, debits or forgives, with a reason and a second person."""
    response = call.ledger.PostAdjustment(
        pb.PostAdjustmentRequest(
            program_id=call.program,
            adjustment_id=adjustment_id,
            member_id=member,
            kind=log.ADJUSTMENT_KIND_WRITE_OFF if write_off else log.ADJUSTMENT_KIND_CORRECTION,
            amount=types.Money(minor_units=call.minor(amount), currency=call.currency),
            reason=reason,
            requested_by=requested_by,
            approved_by=approved_by,
            posted_at=timestamp(at),
        )
    )
    what = "write-off" if write_off else "correction"
    call.wrote(response, response.receipt, f"adjustment {adjustment_id}: {what} of {amount} for {member}")


# ---------------------------------------------------------------- accounts apart


@command(deposit_app, "in")
def deposit_in(
    call: Call,
    member: Member,
    amount: Amount,
    deposit_id: DepositId,
    reason: Annotated[str, typer.Option(help="Why, if that needs saying.")] = "",
    at: At = None,
) -> None:
    """A member pays a deposit. To repeat it, repeat --at too."""
    _move(call, "PAID_IN", member, amount, deposit_id, reason, at, "paid in by")


@command(deposit_app, "return")
def deposit_return(
    call: Call,
    member: Member,
    amount: Amount,
    deposit_id: DepositId,
    reason: Annotated[str, typer.Option(help="Why, if that needs saying.")] = "",
    at: At = None,
) -> None:
    """A member gets it back, or part of it."""
    _move(call, "RETURNED", member, amount, deposit_id, reason, at, "returned to")


@command(deposit_app)
def forfeit(call: Call, member: Member, amount: Amount, deposit_id: DepositId, reason: Reason, at: At = None) -> None:
    """The company keeps it, or part of it."""
    _move(call, "FORFEITED", member, amount, deposit_id, reason, at, "forfeited by")


def _move(call: Call, kind: str, member: str, amount: str, deposit_id: str, reason: str, at: At, did: str) -> None:
    response = call.ledger.MoveDeposit(
        pb.MoveDepositRequest(
            program_id=call.program,
            deposit_id=deposit_id,
            member_id=member,
            kind=log.DepositKind.Value(f"DEPOSIT_KIND_{kind}"),
            amount=types.Money(minor_units=unsigned(call, amount), currency=call.currency),
            reason=reason,
            moved_at=timestamp(at),
        )
    )
    call.wrote(response, response.receipt, f"deposit {deposit_id}: {amount} {call.currency} {did} {member}")


@command(stock_app)
def transfer(
    call: Call,
    seller: Annotated[str, typer.Argument(metavar="FROM", help="Who sells.")],
    buyer: Annotated[str, typer.Argument(metavar="TO", help="Who buys.")],
    transfer_id: Annotated[str, typer.Option(help="What makes it count once: a second id would be a second transfer.")],
    line: Annotated[
        list[str],
        typer.Option(metavar="SKU:QTY:COST:PRICE", help="Units, what one cost the seller, what one sells for; repeat. A1:10:60:75"),
    ],
    at: At = None,
) -> None:
    """One agent sells stock on to another: the margin is booked, commission is not. To repeat it, repeat --at too."""
    request = pb.TransferStockRequest(
        program_id=call.program,
        transfer_id=transfer_id,
        from_member_id=seller,
        to_member_id=buyer,
        currency=call.currency,
        transferred_at=timestamp(at),
    )
    for text in line:
        sku, quantity, cost, price = split(text, "SKU:QTY:COST:PRICE")
        request.lines.add(sku=sku, quantity=count(quantity), unit_cost_minor=unsigned(call, cost), unit_price_minor=unsigned(call, price))
    response = call.ledger.TransferStock(request)
    margin = f"{to_major(response.margin.minor_units, call.currency)} {call.currency}"
    call.wrote(response, response.receipt, f"stock {transfer_id} from {seller} to {buyer}, margin {margin}")
