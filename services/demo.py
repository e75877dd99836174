"""`make demo`: a short story of one tea shop, told through gRPC to a real server on the embedded database, and the books it leaves."""

import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
from fenrun.ledger.v1 import ledger_pb2 as lp
from fenrun.ledger.v1 import ledger_pb2_grpc
from fenrun.log.v1 import log_pb2
from fenrun.ops.v1 import ops_pb2 as op
from fenrun.ops.v1 import ops_pb2_grpc
from fenrun.referral.v1 import referral_pb2 as rp
from fenrun.referral.v1 import referral_pb2_grpc
from fenrun.type.v1 import type_pb2
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console
from rich.table import Table
from rich.tree import Tree

from services import composition
from services.runtime.currency import to_major
from services.runtime.settings import Settings

PROGRAM, CURRENCY = "tea-shop", "CNY"
PLAN = """\
plan: two-level
version: 1
currency: CNY
tiers: [member, manager, director, partner]
effective: {from: "2026-01-01T00:00:00Z"}
release: {days: 7}
rules:
  - {id: first, kind: generation, generation: 1, rate: 10%}
  - {id: second, kind: generation, generation: 2, rates: {manager: 5%, director: 6%}}
"""


def day(number: int) -> Timestamp:
    moment = Timestamp()
    moment.FromDatetime(datetime(2026, 3, 1, 9, tzinfo=UTC) + timedelta(days=number - 1))
    return moment


def yuan(minor: int) -> str:
    return to_major(minor, CURRENCY)


class Shop:
    """The shop's backend: it tells Fenrun what happened, and prints what Fenrun answers."""

    def __init__(self, channel: grpc.Channel, console: Console) -> None:
        self.ledger = ledger_pb2_grpc.LedgerServiceStub(channel)
        self.referral = referral_pb2_grpc.ReferralServiceStub(channel)
        self.ops = ops_pb2_grpc.OpsServiceStub(channel)
        self.console = console

    def say(self, number: int, text: str) -> None:
        self.hang(f"[dim]day {number:>2}[/dim]", text)

    def hang(self, mark: str, text: str, width: int = 6) -> None:
        """Text that wraps beside its mark, not below it."""
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_column(width=width, justify="right")
        grid.add_column()
        grid.add_row(mark, text)
        self.console.print(grid)

    def enroll(self, number: int, member: str, referrer: str = "") -> None:
        self.referral.EnrollMember(
            rp.EnrollMemberRequest(program_id=PROGRAM, member_id=member, referrer_id=referrer, enrolled_at=day(number))
        )
        self.say(number, f"{member} joins" + (f", brought by {referrer} (a touch: nothing is locked yet)" if referrer else ""))

    def touch(self, number: int, member: str, referrer: str) -> None:
        answer = self.referral.RecordTouch(
            rp.RecordTouchRequest(
                program_id=PROGRAM,
                touch_id=f"touch-{number}-{member}",
                member_id=member,
                referrer_id=referrer,
                touched_at=day(number),
                channel="link",
            )
        )
        effect = "it is the last touch now" if answer.counts else "too late: the binding is locked for life"
        self.say(number, f"{member} opens {referrer}'s link: {effect}")

    def upgrade(self, number: int, member: str, tier: str) -> None:
        answer = self.referral.UpgradeMember(
            rp.UpgradeMemberRequest(
                program_id=PROGRAM,
                upgrade_id=f"upgrade-{number}-{member}",
                member_id=member,
                tier=tier,
                upgraded_at=day(number),
                evidence=log_pb2.Evidence(kind=log_pb2.EVIDENCE_KIND_SEAT_GRANTED, note="seat granted by the shop"),
            )
        )
        self.say(number, f"{member} becomes {tier}{self.locked(answer.binding_locked) if answer.HasField('binding_locked') else ''}")

    def locked(self, lock: log_pb2.BindingLocked) -> str:
        return f"; the lock falls: {lock.member_id} belongs to {lock.referrer_id or 'nobody'} for life"

    def order(self, number: int, order_id: str, member: str, *bases: int) -> None:
        order = lp.Order(
            order_id=order_id,
            member_id=member,
            paid_at=day(number),
            currency=CURRENCY,
            lines=[log_pb2.OrderLine(line_no=n, base_minor=base, quantity=1, sku=f"tea-{n}") for n, base in enumerate(bases, start=1)],
        )
        request = lp.RecordOrderRequest(program_id=PROGRAM, order=order)
        recorded = self.ledger.RecordOrder(request).recorded
        earned = ", ".join(f"{earning.member_id} earns {yuan(earning.amount.minor_units)}" for earning in recorded.earnings)
        lock = self.locked(recorded.binding_locked) if recorded.HasField("binding_locked") else ""
        self.say(number, f"{member} buys for {yuan(sum(bases))} ({order_id}): {earned or 'nobody earns'}{lock}")
        again = self.ledger.RecordOrder(request).recorded.receipt
        if again.already_recorded and again.position == recorded.receipt.position:
            self.hang("", f"[dim]sent twice, counted once: both replies name entry {again.position}[/dim]")

    def complete_and_release(self, number: int, order_id: str) -> None:
        completion = lp.Completion(order_id=order_id, completed_at=day(number))
        self.ledger.CompleteOrder(lp.CompleteOrderRequest(program_id=PROGRAM, completion=completion))
        released = self.ledger.ReleaseDue(lp.ReleaseDueRequest(program_id=PROGRAM, as_of=day(number + 7)))
        self.say(number + 7, f"{order_id} was completed 7 days ago: {yuan(released.amount.minor_units)} is released")

    def payout(self, number: int, member: str, minor: int) -> None:
        payout_id = f"payout-{number}-{member}"
        amount = type_pb2.Money(minor_units=minor, currency=CURRENCY)
        self.ledger.RequestPayout(
            lp.RequestPayoutRequest(program_id=PROGRAM, payout_id=payout_id, member_id=member, amount=amount, requested_at=day(number))
        )
        self.ledger.ConfirmPayout(
            lp.ConfirmPayoutRequest(program_id=PROGRAM, payout_id=payout_id, paid_at=day(number), reference="bank-7731")
        )
        self.say(number, f"{member} is paid {yuan(minor)}")

    def refund(self, number: int, order_id: str, line_no: int, minor: int) -> None:
        refund = lp.Refund(
            refund_id=f"refund-{number}",
            order_id=order_id,
            refunded_at=day(number),
            lines=[log_pb2.RefundLine(line_no=line_no, quantity=1, base_minor=minor)],
        )
        recorded = self.ledger.RefundOrder(lp.RefundOrderRequest(program_id=PROGRAM, refund=refund)).recorded
        back = ", ".join(f"{reversed_.member_id} gives back {yuan(reversed_.amount.minor_units)}" for reversed_ in recorded.reversed)
        self.say(number, f"line {line_no} of {order_id} ({yuan(minor)}) comes back: {back}")

    def balance(self, member: str) -> lp.Balance:
        return self.ledger.GetBalance(lp.GetBalanceRequest(program_id=PROGRAM, member_id=member)).balance


def tell(shop: Shop) -> None:
    """Enrol, touch, lock, upgrade, order, payout, refund after payout, debt, and the next earning that settles it."""
    shop.ops.CreateProgram(op.CreateProgramRequest(program_id=PROGRAM, currency=CURRENCY))
    shop.ledger.PublishPlan(lp.PublishPlanRequest(program_id=PROGRAM, document=PLAN, published_at=day(1)))
    shop.say(1, "the shop publishes its plan: 10 % to whoever brought the buyer, 5 or 6 % one above")
    shop.enroll(1, "mei")
    shop.upgrade(1, "mei", "manager")
    shop.enroll(2, "bo", "mei")
    shop.order(3, "order-1", "bo", 12_800)
    shop.enroll(4, "chen", "mei")
    shop.touch(5, "chen", "bo")
    shop.order(6, "order-2", "chen", 17_903, 8_996)
    shop.touch(7, "chen", "mei")
    shop.enroll(8, "dan", "chen")
    shop.complete_and_release(9, "order-2")
    shop.payout(17, "bo", 2_690)
    shop.refund(20, "order-2", 2, 8_996)
    shop.say(20, f"bo was paid already, so bo owes {yuan(shop.balance('bo').debt_minor)}: a debt, not a vanished number")
    shop.order(22, "order-3", "chen", 12_000)
    shop.complete_and_release(24, "order-3")
    shop.say(31, f"bo earned 12.00; the debt was settled first, {yuan(shop.balance('bo').available_minor)} is available")


def tree_of(shop: Shop, member: str) -> Tree:
    """The people locked below a member, with their balances, as a picture."""

    def label(member_id: str) -> str:
        found = shop.referral.GetMember(rp.GetMemberRequest(program_id=PROGRAM, member_id=member_id)).member
        held = shop.balance(member_id)
        tier = f" [dim]{found.tier}[/dim]" if found.tier else ""
        return f"[bold]{member_id}[/bold]{tier}  earned {yuan(held.accrued_minor - held.reversed_minor)}"

    tree = Tree(label(member))
    branches = {member: tree}
    below = shop.referral.ListDownline(rp.ListDownlineRequest(program_id=PROGRAM, member_id=member, max_depth=10)).members
    for one in below:
        branches[one.member.member_id] = branches[one.member.referrer_id].add(label(one.member.member_id))
    return tree


def books_of(shop: Shop) -> Table:
    """Every member's balance: the trial balance by member."""
    table = Table(title="The books, by member", title_justify="left")
    for name in ("member", "accrued", "reversed", "pending", "available", "paid", "debt"):
        table.add_column(name, justify="left" if name == "member" else "right", no_wrap=True)
    for row in shop.ledger.ListBalances(lp.ListBalancesRequest(program_id=PROGRAM)).balances:
        amounts = (row.accrued_minor, row.reversed_minor, row.pending_minor, row.available_minor, row.paid_minor, row.debt_minor)
        table.add_row(row.member_id, *(yuan(amount) if amount else "-" for amount in amounts))
    return table


def show(shop: Shop) -> None:
    """The tree, the books, one posting explained, and the replay that proves them."""
    console = shop.console
    console.print("\nWho belongs to whom")
    console.print(tree_of(shop, "mei"))
    console.print("[dim]dan has not bought yet: an open touch, no lock, not in the tree[/dim]\n")
    console.print(books_of(shop))
    accounts = shop.ledger.TrialBalance(lp.TrialBalanceRequest(program_id=PROGRAM)).accounts
    total = sum(row.balance.minor_units for row in accounts)
    console.print(f"All accounts, the company's included, sum to {yuan(total)}.\n")
    postings = shop.ledger.ListPostings(lp.ListPostingsRequest(program_id=PROGRAM, member_id="bo")).postings
    refunded = next(posting for posting in postings if posting.type == "order.refunded.v1")
    console.print(f"Why did bo's debt change by {yuan(refunded.amount.minor_units)}? fenrun explain {refunded.posting_id}")
    for sentence in shop.ledger.Explain(lp.ExplainRequest(program_id=PROGRAM, posting_id=refunded.posting_id)).sentences:
        shop.hang("·", sentence, width=3)
    steps = shop.ops.VerifyProjections(op.VerifyProjectionsRequest(program_id=PROGRAM))
    results = [step.result for step in steps if step.WhichOneof("step") == "result"]
    if not all(result.equal for result in results):
        raise SystemExit("the replay differs from the live views; this is a bug")
    console.print(f"\nReplayed {results[0].rows} entries from zero: the hash chain and {len(results) - 1} live views are equal.")


def main() -> None:
    console = Console(highlight=False, width=None if Console().is_terminal else 80)
    with (
        tempfile.TemporaryDirectory(prefix="fenrun-demo-") as directory,
        composition.start(Settings(dsn=None, data_dir=Path(directory) / "data")) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        console.print(f"Fenrun serves on {server.address}, on its own PostgreSQL.\n")
        shop = Shop(channel, console)
        tell(shop)
        show(shop)


if __name__ == "__main__":
    main()
