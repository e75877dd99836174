"""Programs of any size, written by the domain: every decision is the engine's own, only who joins, buys and returns is drawn (always the
same for the same size)."""

from collections.abc import Callable
from random import Random

from fenrun.log.v1 import log_pb2

from services.ledger.domain import commands as c
from services.ledger.domain import facts as f
from services.referral.domain import decide as r
from services.referral.domain import facts as rf
from tests.auditor.logs import DAY, FIRST_DAY, Log

PLAN = """
plan: tea-house
version: 1
currency: CNY
tiers: [member, manager, director]
points: [leaves]
zone: "+08:00"
profile: cn-common
effective: {from: "2025-01-01T00:00:00Z"}
release: {days: 7}
rules:
  - {id: first, kind: generation, generation: 1, rates: {member: 8%, manager: 10%, director: 12%}}
  - {id: second, kind: generation, generation: 2, rate: 4%}
  - {id: live, kind: attributed, role: creator, rate: 3.5%}
  - {id: own, kind: self, rate: 1%, asset: leaves, release: {"on": at_once}}
  - {id: share, kind: triggered, "on": task, task: share, to: {member: 5}, asset: leaves}
granted: [manager, director]
"""
MONTH = 30 * DAY
# One in so many.
ALONE, REFUNDED, NEVER_COMPLETED, LIVE = 13, 17, 9, 6
LEAST_PAYOUT = 5_000


def named(number: int) -> str:
    return f"m{number:06d}"


def program(members: int, name: Callable[[int], str] = named) -> list[log_pb2.Entry]:
    """A shop of some members over fourteen months: about five entries for each."""
    random, log = Random(members), Log("tea-house", "CNY", PLAN)
    joined: list[str] = []
    # Whoever brought somebody brings more: names stand here once for each they brought.
    drawn: list[str] = []
    buyers, orders, paid_out, done = list[str](), list[tuple[str, int, int]](), 0, 0
    span = 420 * DAY
    next_month = FIRST_DAY + MONTH
    for number in range(members):
        at = FIRST_DAY + span * number // members
        member_id = name(number)
        referrer = random.choice(drawn) if drawn and random.randrange(ALONE) else ""
        log.tell(r.EnrollMember(rf.MemberEnrolled(member_id, referrer), at))
        joined.append(member_id)
        drawn += [member_id] * (1 if random.randrange(3) else 4) + ([referrer] if referrer else [])
        if random.randrange(3):
            tier = "member" if random.randrange(12) else random.choice(("manager", "manager", "director"))
            evidence = rf.Evidence(rf.EvidenceKind.SEAT_GRANTED, "", "")
            log.tell(r.UpgradeMember(rf.MemberUpgraded(f"u{number}", member_id, tier, evidence), at))
        for _ in range(random.choice((0, 1, 1, 2))):
            done += 1
            buyer = member_id if random.randrange(2) else random.choice(joined)
            bases = [random.randrange(990, 60_000) for _ in range(random.choice((1, 1, 2)))]
            lines = tuple(f.OrderLine(line, base, 1, f"tea-{line}", "tea", f.LineKind.GOODS) for line, base in enumerate(bases, 1))
            live = (f.Attribution("creator", random.choice(joined), ""),) if not random.randrange(LIVE) else ()
            log.tell(c.RecordOrder(f.OrderPaid(f"o{done}", buyer, "CNY", lines, live), at + 3600_000_000))
            buyers.append(buyer)
            orders.append((f"o{done}", bases[0], at))
            if random.randrange(NEVER_COMPLETED):
                log.tell(c.CompleteOrder(f.OrderCompleted(f"o{done}"), at + 2 * 3600_000_000))
            if not random.randrange(REFUNDED):
                order_id, base, paid = random.choice(orders[-200:])
                part = base if random.randrange(2) else base // 3
                refund = f.OrderRefunded(f"r{done}", order_id, (f.RefundLine(1, 0, part),))
                orders = [one for one in orders[-200:] if one[0] != order_id]
                log.tell(c.RefundOrder(refund, max(paid, at) + 5 * 3600_000_000))
        if at >= next_month or number == members - 1:
            next_month += MONTH
            paid_out = _month_ends(log, random, at + 6 * 3600_000_000, paid_out)
    _by_hand(log, joined, buyers, FIRST_DAY + span + DAY)
    return log.entries


def _month_ends(log: Log, random: Random, at: int, paid_out: int) -> int:
    """What is due is released, and those who have enough are paid."""
    log.tell(c.ReleaseDue(at, 1_000_000))
    available = [(member_id, held[1]) for (member_id, asset), held in log.books.balances.items() if asset == "CNY"]
    for member_id, amount in available:
        if amount >= LEAST_PAYOUT:
            paid_out += 1
            log.tell(c.RequestPayout(f.PayoutRequested(f"p{paid_out}", member_id, amount, "CNY"), at))
            if random.randrange(30):
                log.tell(c.ConfirmPayout(f.PayoutPaid(f"p{paid_out}", f"bank-{paid_out}"), at + DAY // 2))
            else:
                log.tell(c.FailPayout(f.PayoutFailed(f"p{paid_out}", "account closed"), at + DAY // 2))
    return paid_out


def _by_hand(log: Log, joined: list[str], buyers: list[str], at: int) -> None:
    """What people decide: holds, corrections of bindings, adjustments, a deposit, stock sold on."""
    locked = [one for one in dict.fromkeys(buyers) if log.books.members[one].locked][:3]  # type: ignore[union-attr]  # enrolled above
    for number, member_id in enumerate(locked):
        fact = rf.BindingCorrected(f"c{number}", member_id, "", "the wrong code was typed at the counter", "ann", "bob")
        log.tell(r.CorrectBinding(fact, at))
    for number, member_id in enumerate(joined[:4]):
        log.tell(c.PlaceHold(f.HoldPlaced(f"h{number}", member_id, "", "a dispute with the bank"), at))
        log.tell(c.RecordTask(f.TaskDone(f"t{number}", member_id, "share"), at))
    log.tell(c.LiftHold(f.HoldLifted("h0", "settled"), at + 1))
    indebted = [(member_id, held[4]) for (member_id, asset), held in log.books.balances.items() if asset == "CNY" and held[4]]
    for number, (member_id, debt) in enumerate(indebted[:3]):
        forgiven = f.AdjustmentPosted(
            f"w{number}", member_id, f.AdjustmentKind.WRITE_OFF, -debt // 2 or 1, "CNY", "left the shop", "ann", "bob"
        )
        log.tell(c.PostAdjustment(forgiven, at + 2))
    thanks = f.AdjustmentPosted("a1", joined[0], f.AdjustmentKind.CORRECTION, 888, "CNY", "thanks for ten years", "ann", "bob")
    log.tell(c.PostAdjustment(thanks, at + 3))
    log.tell(c.MoveDeposit(f.DepositMoved("d1", joined[0], f.DepositKind.PAID_IN, 100_000, "CNY", ""), at + 4))
    stock = f.StockTransferred("s1", joined[0], joined[1], "CNY", (f.StockLine("tea-1", 10, 3_000, 3_600),))
    log.tell(c.TransferStock(stock, at + 5))
    opened = f.BalanceOpened("b1", joined[2], "CNY", 1_500, 0, None, 20_000, 0, "the old mall")
    log.tell(c.OpenBalance(opened, at + 6))
