"""Commands about money: plans, orders and what follows them, payouts, and every way to look at the books.

Amounts are typed and shown as people write them (26.90); JSON has minor units (2690), as the contract.
"""

import json
import sys
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.console import terminal
from services.console.client import At, Call, Lazy, command, new_id, parse_time, timestamp
from services.console.terminal import Cell, Column, when
from services.ledger import simulating_cli
from services.runtime.currency import exponent, to_major

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
plan_app = typer.Typer(help="Plans: who earns what, in numbered versions that never change.", no_args_is_help=True)
order_app = typer.Typer(help="Paid orders.", no_args_is_help=True)
payout_app = typer.Typer(help="Paying out, in two steps: request, then confirm or fail.", no_args_is_help=True)
hold_app = typer.Typer(help="Stopping releases while something is looked into.", no_args_is_help=True)
app.add_typer(plan_app, name="plan")
simulating_cli.register(plan_app)
app.add_typer(order_app, name="order")
app.add_typer(payout_app, name="payout")
app.add_typer(hold_app, name="hold")

Member = Annotated[str, typer.Argument(help="The member's id.")]
OrderId = Annotated[str, typer.Argument(metavar="ORDER", help="The order's id.")]
PayoutId = Annotated[str, typer.Argument(metavar="PAYOUT", help="The payout's id.")]
Amount = Annotated[str, typer.Argument(help="As people write it, in the program's currency: 26.90.")]
Reason = Annotated[str, typer.Option(help="Why.")]

# ---------------------------------------------------------------- plans


@command(plan_app)
def publish(
    call: Call, file: Annotated[Path, typer.Argument(help="YAML or JSON; docs/plan-format.md.", exists=True, dir_okay=False)], at: At = None
) -> None:
    """Publishes the next version of a plan. Counts once by plan and version; to repeat it, repeat --at too."""
    document = file.read_text(encoding="utf-8")
    response = call.ledger.PublishPlan(pb.PublishPlanRequest(program_id=call.program, document=document, published_at=timestamp(at)))
    call.wrote(response, response.receipt, f"plan {response.plan_id} version {response.version}, content {response.content_hash.hex()}")


@command(plan_app, "show")
def show_plan(
    call: Call,
    plan: Annotated[str, typer.Argument(help="Plan id: its newest version. Left out: the newest of any.")] = "",
    version_position: Annotated[int | None, typer.Option(help="The version published at this position.", min=1)] = None,
    at: Annotated[Any, typer.Option(parser=parse_time, metavar="TIME", help="The version in force for an order paid then.")] = None,
) -> None:
    """A plan version: which it is, from when until when, and its document."""
    if sum((bool(plan), version_position is not None, at is not None)) > 1:
        raise typer.BadParameter("give one of: a plan id, --version-position, --at")
    request = pb.GetPlanRequest(program_id=call.program, latest_of_plan_id=plan)
    if version_position is not None:
        request.position = version_position
    elif at is not None:
        request.in_force_at.CopyFrom(timestamp(at))
    found = call.ledger.GetPlan(request)
    if call.as_json:
        return terminal.print_json(terminal.plain(found) | {"document": json.loads(found.plan.document)})
    fact = found.plan
    terminal.say(f"plan       {fact.plan_id} version {fact.version}", f"position   {found.position}")
    until = f" until {when(fact.effective_until)}" if fact.HasField("effective_until") else ""
    terminal.say(f"in force   from {when(fact.effective_from)}{until}")
    terminal.say(f"content    {found.content_hash.hex()}", "", json.dumps(json.loads(fact.document), ensure_ascii=False, indent=2))


# ---------------------------------------------------------------- orders and what follows them


@command(order_app)
def record(
    call: Call,
    file: Annotated[str, typer.Argument(help="An Order as JSON (amounts in minor units), or - for stdin.")] = "",
    order_id: Annotated[str, typer.Option(help="Without a file: the order's id.")] = "",
    member: Annotated[str, typer.Option(help="The buyer.")] = "",
    paid_at: Annotated[Any, typer.Option(parser=parse_time, metavar="TIME", help="Default: now.")] = None,
    line: Annotated[list[str] | None, typer.Option(metavar="SKU:QTY:AMOUNT", help="A line; repeat for more. A1:2:179.03")] = None,
) -> None:
    """Records a paid order and says who earns what. Counts once by order id; to repeat it, repeat --paid-at too."""
    if bool(file) == bool(order_id or member or line):
        raise typer.BadParameter("give a FILE, or --order-id, --member and at least one --line")
    if file:
        order = _order_of(sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8"))
    else:
        if not (order_id and member and line):
            raise typer.BadParameter("--order-id, --member and at least one --line are needed")
        order = pb.Order(order_id=order_id, member_id=member, paid_at=timestamp(paid_at))
        for number, text in enumerate(line, 1):
            sku, quantity, amount = _three(text, "SKU:QTY:AMOUNT")
            order.lines.add(line_no=number, sku=sku, quantity=_count(quantity), base_minor=_unsigned(call, amount))
    order.currency = order.currency or call.currency
    response = call.ledger.RecordOrder(pb.RecordOrderRequest(program_id=call.program, order=order))
    told = response.recorded
    if call.wrote(response, told.receipt, f"order {order.order_id} of {order.member_id}"):
        if told.HasField("binding_locked"):
            terminal.say(f"{order.member_id} is locked for life to {told.binding_locked.referrer_id or 'nobody'}")
        _earnings(told.earnings, "earns", ("breakage", told.breakage))


def _order_of(text: str) -> "pb.Order":
    def no_float(number: str) -> None:
        raise typer.BadParameter(f"{number}: amounts in a file are whole minor units")

    try:
        return json_format.ParseDict(json.loads(text, parse_float=no_float), pb.Order())
    except (json.JSONDecodeError, json_format.ParseError) as problem:
        raise typer.BadParameter(f"not an Order: {problem}") from None


def _three(text: str, shape: str) -> tuple[str, str, str]:
    first, _, rest = text.rpartition(":")
    start, _, middle = first.rpartition(":")
    if not (start and middle and rest):
        raise typer.BadParameter(f"{text!r} is not {shape}")
    return start, middle, rest


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise typer.BadParameter(f"{text!r} is not a count")
    return int(text)


def _unsigned(call: Call, text: str) -> int:
    minor = call.minor(text)
    if minor < 0:
        raise typer.BadParameter(f"{text!r} is below zero")
    return minor


def _earnings(earnings: Any, header: str, *also: tuple[str, "types.Money"]) -> None:
    rows = [(one.member_id, one.amount) for one in earnings] + [(name, amount) for name, amount in also if amount.minor_units]
    if rows:
        terminal.table(
            [Column("member"), Column(header, money=rows[0][1].currency)], [(member, amount.minor_units) for member, amount in rows]
        )
    else:
        terminal.say(f"nobody {header} anything")


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
        "",
    )
    _people(found.people)
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
    terminal.table(
        [Column("line", "number"), Column("rule"), Column("entitled"), Column("amount", money=currency)],
        [(line.line_no, one.rule_id, one.member_id or "breakage", one.amount_minor) for line in found.lines for one in line.entitlements],
    )


def _people(people: Any) -> None:
    if people:
        terminal.table(
            [Column("level", "number"), Column("member"), Column("tier"), Column("lock", "number"), Column("tier since", "number")],
            [(level, one.member_id, one.tier, one.binding_position, one.tier_position) for level, one in enumerate(people)],
        )
        terminal.say("")


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
        number, quantity, amount = _three(text, "N:QTY:AMOUNT")
        fact.lines.add(line_no=_count(number), quantity=_count(quantity), base_minor=_unsigned(call, amount))
    response = call.ledger.RefundOrder(pb.RefundOrderRequest(program_id=call.program, refund=fact))
    if call.wrote(response, response.recorded.receipt, f"refund {refund_id} of order {order}"):
        _earnings(response.recorded.reversed, "loses")


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


# ---------------------------------------------------------------- payouts, holds, adjustments


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
            amount=types.Money(minor_units=_unsigned(call, amount), currency=call.currency),
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


# ---------------------------------------------------------------- the books


def net_minor(balance: "pb.Balance") -> int:
    """What a member has earned and kept, paid out or not."""
    return balance.accrued_minor - balance.reversed_minor + balance.adjusted_minor


def _position_or_time(text: str) -> Any:
    return int(text) if text.isascii() and text.isdigit() else parse_time(text)


@command(app)
def balance(
    call: Call,
    member: Member,
    at: Annotated[
        Any, typer.Option(parser=_position_or_time, metavar="POSITION|TIME", help="Right after this entry, or as the book stood then.")
    ] = None,
) -> None:
    """Where a member's money stands."""
    request = pb.GetBalanceRequest(program_id=call.program, member_id=member)
    if isinstance(at, int):
        request.position = at
    elif at is not None:
        request.recorded_at.CopyFrom(timestamp(at))
    answer = call.ledger.GetBalance(request)
    if call.as_json:
        return terminal.print_json(terminal.plain(answer))
    found = answer.balance
    rows: list[tuple[str, int]] = [(name, getattr(found, f"{name}_minor")) for name in ("accrued", "reversed", "adjusted")]
    rows.append(("net", net_minor(found)))
    rows += [(name, getattr(found, f"{name}_minor")) for name in ("pending", "available", "reserved", "paid", "debt")]
    terminal.say(f"{found.member_id} at position {answer.as_of_position}")
    terminal.table([Column(""), Column(found.currency, money=found.currency)], rows)


@command(app)
def statement(
    call: Call,
    member: Member,
    limit: Annotated[int | None, typer.Option(help="Only the newest so many; what was before is the opening.", min=1)] = None,
) -> None:
    """A member's postings, oldest first: opening, each with its account's balance after it, closing."""
    request = pb.ListPostingsRequest(program_id=call.program, member_id=member)
    postings: list[pb.MemberPosting] = list(call.pages(call.ledger.ListPostings, request, "postings"))
    shown = postings[-limit:] if limit else postings
    opening, closing = _sums(postings[: len(postings) - len(shown)]), _sums(postings)
    if call.as_json:
        document = {"member_id": member, "currency": call.currency, "opening_minor": opening}
        return terminal.print_json(document | {"postings": [terminal.plain(one) for one in shown], "closing_minor": closing})

    def ends(name: str, sums: dict[str, int]) -> list[tuple[Cell, ...]]:
        return [("", "", name if not number else "", account, None, sum_) for number, (account, sum_) in enumerate(sums.items())]

    rows = ends("opening", opening)
    for one in shown:
        told = f"{one.type.removesuffix('.v1')} {one.stream.partition('/')[2]}"
        account = terminal.word(log.Account, one.account)
        at = f"{one.occurred_at.ToDatetime():%Y-%m-%d %H:%M}"
        rows.append((one.posting_id, at, told, account, one.amount.minor_units, one.balance_after.minor_units))
    rows += ends("closing", closing)
    columns = [Column("posting"), Column("at (UTC)"), Column("fact"), Column("account")]
    columns += [Column("amount", money=call.currency), Column("balance", money=call.currency)]
    terminal.table(columns, rows, ("", "", "net", "", None, sum(closing.values())))


def _sums(postings: list["pb.MemberPosting"]) -> dict[str, int]:
    """Balance by account, of the accounts that were ever moved; of none at all, a pending zero: every statement opens at 0."""
    sums: dict[str, int] = {}
    for one in postings:
        account = terminal.word(log.Account, one.account)
        sums[account] = sums.get(account, 0) + one.amount.minor_units
    return sums or {"pending": 0}


@command(app)
def explain(call: Call, posting: Annotated[str, typer.Argument(help="As `statement` lists it: 128.2")]) -> None:
    """Why a posting has the amount it has."""
    found = call.ledger.Explain(pb.ExplainRequest(program_id=call.program, posting_id=posting))
    if call.as_json:
        return terminal.print_json(terminal.plain(found))
    terminal.say(*found.sentences, "")
    if found.HasField("plan"):
        terminal.say(f"plan {found.plan.plan_id} version {found.plan.version}, published at position {found.plan.position}")
    if found.because_of:
        terminal.say(f"follows from position {', '.join(map(str, found.because_of))}")
    terminal.say("")
    _people(found.people)
    if found.shares:
        currency = found.posting.asset
        terminal.table(
            [
                Column("line", "number"),
                Column("rule"),
                Column("gen", "number"),
                Column("tier"),
                Column("rate", "number"),
                Column("base", money=currency),
                Column("exact", "number"),
                Column("before", money=currency, keep=False),
                Column("after", money=currency),
                Column("amount", money=currency),
            ],
            [
                (
                    one.line_no,
                    one.rule_id,
                    one.generation,
                    one.tier,
                    one.rate,
                    one.base_minor,
                    _major_exact(one.exact_minor, currency),
                    one.entitled_before_minor,
                    one.entitled_after_minor,
                    one.amount_minor,
                )
                for one in found.shares
            ],
            ("", "", "", "", "", None, "", None, None, sum(one.amount_minor for one in found.shares)),
        )


def _major_exact(exact_minor: str, currency: str) -> str:
    """1790.3 minor units of GBP are 17.903."""
    if "/" in exact_minor:
        over, under = exact_minor.split("/")
        return f"{over}/{int(under) * 10 ** exponent(currency)}"
    return f"{Decimal(exact_minor).scaleb(-exponent(currency)):f}" if exact_minor else ""


@command(app, "trial-balance")
def trial_balance(
    call: Call,
    by: Annotated[str, typer.Option(help="account: the company's and the members' accounts. member: a row for each member.")] = "account",
) -> None:
    """The books on one page. By account they sum to zero; by member, net is accrued - reversed + adjusted."""
    if by not in ("account", "member"):
        raise typer.BadParameter("--by is account or member")
    if by == "member":
        return _by_member(call)
    found = call.ledger.TrialBalance(pb.TrialBalanceRequest(program_id=call.program))
    if call.as_json:
        return terminal.print_json(terminal.plain(found))
    rows: list[tuple[str, int]] = [(terminal.word(log.Account, one.account), one.balance.minor_units) for one in found.accounts]
    terminal.say(f"{call.program} at position {found.position}")
    terminal.table([Column("account"), Column(call.currency, money=call.currency)], rows, ("sum", sum(amount for _, amount in rows)))


def _by_member(call: Call) -> None:
    found: list[pb.Balance] = list(call.pages(call.ledger.ListBalances, pb.ListBalancesRequest(program_id=call.program), "balances"))
    names = ("accrued", "reversed", "adjusted", "net", "pending", "available", "reserved", "paid", "debt")
    amounts: list[list[int]] = [[net_minor(one) if name == "net" else getattr(one, f"{name}_minor") for name in names] for one in found]
    totals = [sum(column) for column in zip(*amounts, strict=True)] or [0] * len(names)
    if call.as_json:
        balances = [terminal.plain(one) | {"net_minor": net_minor(one)} for one in found]
        totals_json = {f"{name}_minor": total for name, total in zip(names, totals, strict=True)}
        return terminal.print_json({"balances": balances, "totals": totals_json})
    # Adjustments are rare: their column is there only where there are any.
    shown = [index for index, name in enumerate(names) if name != "adjusted" or any(row[index] for row in amounts)]
    terminal.table(
        [Column("member"), *(Column(names[index], money=call.currency, keep=names[index] in ("accrued", "net")) for index in shown)],
        [(one.member_id, *(row[index] for index in shown)) for one, row in zip(found, amounts, strict=True)],
        ("in all", *(totals[index] for index in shown)),
    )
