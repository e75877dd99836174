"""Orders and what follows them: refunds, completion, release."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.console import terminal
from services.console.client import At, Call, Lazy, command, parse_time, timestamp
from services.console.terminal import Column, when
from services.ledger.cli.words import OrderId, amounts, count, earnings, losses, people, split, unsigned
from services.runtime.currency import to_major

if TYPE_CHECKING:
    from fenrun.ledger.v1 import ledger_pb2 as pb
    from fenrun.log.v1 import log_pb2 as log
    from fenrun.type.v1 import type_pb2 as types
    from google.protobuf import json_format
else:
    pb = Lazy("fenrun.ledger.v1.ledger_pb2")
    log = Lazy("fenrun.log.v1.log_pb2")
    types = Lazy("fenrun.type.v1.type_pb2")
    json_format = Lazy("google.protobuf.json_format")

app = typer.Typer()
order_app = typer.Typer(help="Paid orders.", no_args_is_help=True)
app.add_typer(order_app, name="order")


@command(order_app)
def record(
    call: Call,
    file: Annotated[str, typer.Argument(help="An Order as JSON (amounts in minor units), or - for stdin.")] = "",
    order_id: Annotated[str, typer.Option(help="Without a file: the order's id.")] = "",
    member: Annotated[str, typer.Option(help="The buyer.")] = "",
    paid_at: Annotated[Any, typer.Option(parser=parse_time, metavar="TIME", help="Default: now.")] = None,
    line: Annotated[list[str] | None, typer.Option(metavar="SKU:QTY:AMOUNT", help="A line; repeat for more. A1:2:179.03")] = None,
    attribution: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ROLE=MEMBER|ROLE@PLACE", help="Who has a role in it, or which place's holders; repeat. creator=mei, region@330100"
        ),
    ] = None,
    group: Annotated[str, typer.Option(help="The group buy it joins.")] = "",
    referrer: Annotated[str, typer.Option(help="Whose code stands on it.")] = "",
) -> None:
    """Records a paid order and says who earns what. Counts once by order id; to repeat it, repeat --paid-at too."""
    if bool(file) == bool(order_id or member or line or attribution or group or referrer):
        raise typer.BadParameter("give a FILE, or --order-id, --member and at least one --line")
    if file:
        order = _order_of(sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8"))
    else:
        if not (order_id and member and line):
            raise typer.BadParameter("--order-id, --member and at least one --line are needed")
        order = pb.Order(order_id=order_id, member_id=member, paid_at=timestamp(paid_at), group_id=group, referrer_id=referrer)
        order.attributions.extend(map(_attribution, attribution or ()))
        for number, text in enumerate(line, 1):
            sku, quantity, amount = split(text, "SKU:QTY:AMOUNT")
            order.lines.add(line_no=number, sku=sku, quantity=count(quantity), base_minor=unsigned(call, amount))
    order.currency = order.currency or call.currency
    response = call.ledger.RecordOrder(pb.RecordOrderRequest(program_id=call.program, order=order))
    told = response.recorded
    if call.wrote(response, told.receipt, f"order {order.order_id} of {order.member_id}"):
        if told.HasField("binding_locked"):
            terminal.say(f"{order.member_id} is locked for life to {told.binding_locked.referrer_id or 'nobody'}")
        for change in told.tier_changes:
            terminal.say(f"{change.member_id} is {change.tier} now{f', was {change.previous_tier}' if change.previous_tier else ''}")
        earnings(told.earnings, "earns", *(("breakage", one) for one in (told.breakage, *told.points_breakage)))


def _attribution(text: str) -> "log.Attribution":
    """creator=mei or region@330100."""
    role, mark, whom = text.partition("=") if "=" in text else text.partition("@")
    if not (role and mark and whom):
        raise typer.BadParameter(f"{text!r} is neither ROLE=MEMBER nor ROLE@PLACE")
    return log.Attribution(role=role, member_id=whom if mark == "=" else "", scope=whom if mark == "@" else "")


def _order_of(text: str) -> "pb.Order":
    def no_float(number: str) -> None:
        raise typer.BadParameter(f"{number}: amounts in a file are whole minor units")

    try:
        return json_format.ParseDict(json.loads(text, parse_float=no_float), pb.Order())
    except (json.JSONDecodeError, json_format.ParseError) as problem:
        raise typer.BadParameter(f"not an Order: {problem}") from None


@command(order_app, "show")
def show_order(call: Call, order: OrderId) -> None:
    """An order with what remains of it, and who is entitled to what."""
    found = call.ledger.GetOrder(pb.GetOrderRequest(program_id=call.program, order_id=order))
    if call.as_json:
        return terminal.print_json(terminal.plain(found))
    currency = found.order.currency
    terminal.say(
        f"order      {found.order.order_id}",
        f"buyer      {found.order.member_id}",
        f"paid       {when(found.paid_at)}",
        f"completed  {when(found.completed_at) or 'not yet'}",
        f"plan       position {found.plan_position}",
        f"entries    {', '.join(map(str, found.positions))}",
    )
    if found.order.group_id:
        terminal.say(f"group      {found.order.group_id}")
    for one in found.order.attributions:
        terminal.say(f"{one.role:<10} {one.member_id or f'whoever holds {one.scope}'}")
    terminal.say("")
    people(found.people)
    left = {line.line_no: (line.remaining_quantity, line.remaining_base_minor) for line in found.lines}
    terminal.table(
        [
            Column("line", "number"),
            Column("sku"),
            Column("quantity", "number"),
            Column("base", money=currency),
            Column("left", "number"),
            Column("base left", money=currency),
        ],
        [(line.line_no, line.sku, line.quantity, line.base_minor, *left[line.line_no]) for line in found.order.lines],
    )
    terminal.say("")
    published = call.ledger.GetPlan(pb.GetPlanRequest(program_id=call.program, position=found.plan_position)).plan
    assets = {rule["id"]: rule.get("asset", currency) for rule in json.loads(published.document)["rules"]}
    entitled = [
        ([str(line.line_no or "whole"), one.rule_id, one.member_id or "breakage"], one.amount_minor, assets[one.rule_id])
        for line in found.lines
        for one in line.entitlements
    ]
    if entitled:
        amounts(["line", "rule", "entitled"], "amount", entitled)
    else:
        terminal.say("nobody is entitled to anything")


@command(app)
def refund(
    call: Call,
    order: OrderId,
    refund_id: Annotated[str, typer.Option(help="The credit note; with the order it makes the refund count once.")],
    line: Annotated[list[str], typer.Option(metavar="N:QTY:AMOUNT", help="Line number, units, part of its base; repeat. 2:1:89.96")],
    at: At = None,
) -> None:
    """Takes back lines or parts of lines, and from every payee what these no longer entitle to. To repeat it, repeat --at too."""
    fact = pb.Refund(refund_id=refund_id, order_id=order, refunded_at=timestamp(at))
    for text in line:
        number, quantity, amount = split(text, "N:QTY:AMOUNT")
        fact.lines.add(line_no=count(number), quantity=count(quantity), base_minor=unsigned(call, amount))
    response = call.ledger.RefundOrder(pb.RefundOrderRequest(program_id=call.program, refund=fact))
    if call.wrote(response, response.recorded.receipt, f"refund {refund_id} of order {order}"):
        for change in response.recorded.tier_changes:
            kind = "keeps the title of" if change.kind == log.TIER_CHANGE_KIND_FROZEN else "is back to"
            terminal.say(f"{change.member_id} {kind} {change.tier or 'no tier'}")
        losses(response.recorded.reversed, response.recorded.period_reversed)


@command(app)
def complete(call: Call, order: OrderId, at: At = None) -> None:
    """The customer has the goods for good: from now the release waits only for its days."""
    completion = pb.Completion(order_id=order, completed_at=timestamp(at))
    response = call.ledger.CompleteOrder(pb.CompleteOrderRequest(program_id=call.program, completion=completion))
    call.wrote(response, response.receipt, f"order {order} completed")


@command(app)
def release(
    call: Call,
    as_of: Annotated[Any, typer.Option(parser=parse_time, metavar="TIME", help="All that is due by this time. Default: now.")] = None,
) -> None:
    """Moves to available all that is due and not held; debts are settled first. Safe to repeat."""
    orders, amount = release_due(call, timestamp(as_of))
    if call.as_json:
        return terminal.print_json({"orders_released": orders, "amount": terminal.plain(amount)})
    terminal.say(
        f"released {to_major(amount.minor_units, amount.currency)} {amount.currency} from {orders} {'order' if orders == 1 else 'orders'}"
    )


def release_due(call: Call, as_of: Any) -> tuple[int, "types.Money"]:
    """(orders, amount) released; calls again while more is due."""
    request = pb.ReleaseDueRequest(program_id=call.program, as_of=as_of)
    orders, amount = 0, types.Money(currency=call.currency)
    while True:
        answer = call.ledger.ReleaseDue(request)
        orders += answer.orders_released
        amount.minor_units += answer.amount.minor_units
        if not answer.more:
            return orders, amount
