"""What must hold of the books whatever the engine decided: folded from the stored messages alone, with nothing of the domain's code."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from fenrun.log.v1 import log_pb2 as pb

from services.auditor.verifying.report import Bad, Finding

# Whose decision holds postings, and as which message.
POSTING: dict[str, type[Any]] = {
    "order.paid.v1": pb.OrderPaidDecision,
    "order.refunded.v1": pb.OrderRefundedDecision,
    "order.voided.v1": pb.OrderRefundedDecision,
    "order.released.v1": pb.OrderReleasedDecision,
    "reward.released.v1": pb.OrderReleasedDecision,
    "payout.requested.v1": pb.MovementDecision,
    "payout.paid.v1": pb.MovementDecision,
    "payout.failed.v1": pb.MovementDecision,
    "adjustment.posted.v1": pb.MovementDecision,
    "deposit.moved.v1": pb.MovementDecision,
    "stock.transferred.v1": pb.MovementDecision,
    "balance.opened.v1": pb.BalanceOpenedDecision,
    "task.done.v1": pb.TaskDoneDecision,
    "period.closed.v1": pb.PeriodClosedDecision,
    "period.corrected.v1": pb.PeriodCorrectedDecision,
}
COMPANY = frozenset(
    {
        *(pb.ACCOUNT_COMMISSION, pb.ACCOUNT_BREAKAGE, pb.ACCOUNT_ADJUSTMENT, pb.ACCOUNT_WRITE_OFF),
        *(pb.ACCOUNT_CLEARING, pb.ACCOUNT_OPENING),
    }
)
# Accounts of a member that are never below nothing, and the one never above (docs/accounts.md).
NOT_NEGATIVE = frozenset({pb.ACCOUNT_PENDING, pb.ACCOUNT_AVAILABLE, pb.ACCOUNT_RESERVED, pb.ACCOUNT_PAID, pb.ACCOUNT_DEPOSIT})
# Plain numbers: an enum's name is looked up anew wherever it is written.
_DEBT = int(pb.ACCOUNT_DEBT)
QUARTER_S = 900
# A posting: account, member, amount, asset.
Posted = tuple["pb.Account.ValueType", str, int, str]
Streams = Callable[[str, int], list[pb.Entry]]


class Laws:
    """Give it every entry in order; `add` raises Bad at the first that breaks a law. `stream` gives what stands in a stream before."""

    def __init__(self, stream: Streams) -> None:
        self._stream = stream
        # {(member, asset, account): balance}; the company's accounts under the empty member.
        self.balances: dict[tuple[str, str, int], int] = {}
        # {member: (locked, referrer, the entry that locked it)}
        self._bindings: dict[str, tuple[bool, str, int]] = {}
        # {quarters of an hour since 1970: [entries, {(asset, account): amount}]} of when entries occurred, and where the last seal ends.
        self._booked: dict[int, tuple[int, dict[tuple[str, int], int]]] = {}
        self._sealed_through: int | None = None
        self.currency = ""
        self.postings = 0
        # {position: document}
        self.plans: dict[int, str] = {}
        self._checks: dict[str, Callable[[pb.Entry, Any], None]] = {
            "member.enrolled.v1": self._enrolled,
            "member.touched.v1": self._touched,
            "member.upgraded.v1": self._upgraded,
            "member.binding_corrected.v1": self._corrected,
            "order.paid.v1": self._paid,
            "order.refunded.v1": self._refunded,
            "order.voided.v1": self._voided,
            "payout.requested.v1": self._payout_requested,
            "payout.paid.v1": self._payout_closed,
            "payout.failed.v1": self._payout_closed,
            "books.sealed.v1": self._sealed,
            "plan.published.v1": self._published,
            "program.created.v1": self._created,
        }

    @property
    def members(self) -> int:
        return len(self._bindings)

    def add(self, entry: pb.Entry) -> None:
        message = POSTING.get(entry.type)
        decision = message.FromString(entry.decision) if message else None
        # Before the balances move: what a payout may take is what was available then.
        check = self._checks.get(entry.type)
        if check is not None:
            check(entry, decision)
        # A list made in one go: to walk along a repeated field is half as fast again.
        postings = (
            [(one.account, one.member_id, one.amount_minor, one.asset) for one in decision.postings[:]] if decision is not None else []
        )
        self._post(entry, postings)
        self._book(entry, postings)

    def totals(self) -> dict[tuple[str, int], int]:
        """The trial balance: {(asset, account): sum over its holders}."""
        found: dict[tuple[str, int], int] = {}
        for (_, asset, account), balance in self.balances.items():
            found[(asset, account)] = found.get((asset, account), 0) + balance
        return found

    # ------------------------------------------------------------ balances

    def _post(self, entry: pb.Entry, postings: Sequence[Posted]) -> None:
        sums: dict[str, int] = {}
        touched = []
        balances = self.balances
        for account, member_id, amount, asset in postings:
            sums[asset] = sums.get(asset, 0) + amount
            key = (member_id, asset, account)
            balances[key] = balances.get(key, 0) + amount
            touched.append(key)
            if bool(member_id) == (account in COMPANY) or (member_id and member_id not in self._bindings):
                name = pb.Account.Name(account)
                raise _bad("balances", entry, "a posting names no such holder", f"a holder of {name}", member_id or "nobody")
        for asset, total in sums.items():
            if total:
                raise _bad("balances", entry, f"the postings in {asset} do not sum to zero", "0", str(total))
        for key in touched:
            member_id, asset, account = key
            balance = balances[key]
            if balance and ((account in NOT_NEGATIVE and balance < 0) or (account == _DEBT and balance > 0)):
                name = pb.Account.Name(account).removeprefix("ACCOUNT_").lower()
                expected = "not above 0" if account == _DEBT else "not below 0"
                raise _bad("balances", entry, f"{name} of {member_id!r} in {asset}", expected, str(balance))
        self.postings += len(touched)

    # ------------------------------------------------------------ seals

    def _book(self, entry: pb.Entry, postings: Sequence[Posted]) -> None:
        """Books are sealed through a quarter of an hour, so no time need be kept any finer."""
        quarter = entry.occurred_at.seconds // QUARTER_S
        count, sums = self._booked.get(quarter) or (0, {})
        for account, _, amount, asset in postings:
            key = (asset, account)
            sums[key] = sums.get(key, 0) + amount
        self._booked[quarter] = (count + 1, sums)

    def _sealed(self, entry: pb.Entry, _: Any) -> None:
        """A seal goes further than the last, and says what everything that occurred before it comes to."""
        through, decided = pb.BooksSealed.FromString(entry.fact).through.seconds, pb.BooksSealedDecision.FromString(entry.decision)
        last = self._sealed_through
        if through % QUARTER_S or (last is not None and through <= last):
            raise _bad("balances", entry, "a seal goes further than the last, to a quarter of an hour", f"after {last}", str(through))
        entries, sums = 0, dict[tuple[str, int], int]()
        for quarter, (count, amounts) in self._booked.items():
            if quarter * QUARTER_S < through:
                entries += count
                for key, amount in amounts.items():
                    sums[key] = sums.get(key, 0) + amount
        told: dict[tuple[str, int], int] = {(total.asset, total.account): total.amount_minor for total in decided.totals}
        if decided.entries != entries or told != {key: amount for key, amount in sums.items() if amount}:
            wrong = next((key for key in (*sums, *told) if sums.get(key, 0) != told.get(key, 0)), None)
            what = "entries"
            if wrong is not None:
                name = pb.Account.Name(wrong[1])  # type: ignore[arg-type]  # a number of the enum's own
                what = f"{name.removeprefix('ACCOUNT_').lower()} in {wrong[0]}"
            expected, found = (entries, decided.entries) if wrong is None else (sums.get(wrong, 0), told.get(wrong, 0))
            raise _bad("balances", entry, f"what was sealed: {what}", str(expected), str(found))
        self._sealed_through = through

    # ------------------------------------------------------------ the lifetime lock

    def _enrolled(self, entry: pb.Entry, _: Any) -> None:
        fact = pb.MemberEnrolled.FromString(entry.fact)
        if fact.member_id in self._bindings:
            raise _bad("locks", entry, f"{fact.member_id!r} is enrolled already", "one enrolment", "another")
        self._bindings[fact.member_id] = (False, fact.referrer_id, 0)

    def _touched(self, entry: pb.Entry, _: Any) -> None:
        fact = pb.MemberTouched.FromString(entry.fact)
        locked, referrer, _ = self._binding(entry, fact.member_id)
        if pb.MemberTouchedDecision.FromString(entry.decision).counts:
            if locked:
                raise _bad(
                    "locks", entry, f"a touch moves the locked binding of {fact.member_id!r}", referrer or "nobody", fact.referrer_id
                )
            self._bindings[fact.member_id] = (False, fact.referrer_id, 0)

    def _upgraded(self, entry: pb.Entry, _: Any) -> None:
        decision = pb.MemberUpgradedDecision.FromString(entry.decision)
        fact = pb.MemberUpgraded.FromString(entry.fact)
        self._lock(entry, fact.member_id, decision)

    def _corrected(self, entry: pb.Entry, _: Any) -> None:
        fact = pb.BindingCorrected.FromString(entry.fact)
        locked, referrer, _ = self._binding(entry, fact.member_id)
        before = pb.BindingCorrectedDecision.FromString(entry.decision).previous_referrer_id
        if not locked or before != referrer:
            raise _bad(
                "locks", entry, f"a correction starts from the binding of {fact.member_id!r}", referrer or "nobody", before or "nobody"
            )
        if fact.requested_by == fact.approved_by:
            raise _bad("locks", entry, "a correction needs a second person", "somebody else", fact.approved_by)
        self._bindings[fact.member_id] = (True, fact.referrer_id, entry.position)

    def _binding(self, entry: pb.Entry, member_id: str) -> tuple[bool, str, int]:
        found = self._bindings.get(member_id)
        if found is None:
            raise _bad("locks", entry, "the entry is about a member", "an enrolled member", repr(member_id))
        return found

    def _lock(self, entry: pb.Entry, member_id: str, decision: Any) -> None:
        """The lock falls once, and then stays."""
        locked, referrer, _ = self._binding(entry, member_id)
        falls = decision.HasField("binding_locked")
        if falls == locked:
            expected, found = ("stays", "falls again") if locked else ("falls", "stays open")
            raise _bad("locks", entry, f"the lock of {member_id!r}", f"{expected} ({referrer or 'nobody'})", found)
        if falls:
            lock = decision.binding_locked
            if lock.member_id != member_id:
                raise _bad("locks", entry, "the lock falls for whom the entry is about", member_id, lock.member_id)
            self._bindings[member_id] = (True, lock.referrer_id, entry.position)

    def _release(self, entry: pb.Entry, order_id: str, member_id: str) -> None:
        """A full refund may open the lock again, where the plan says so, but only that of the order which let it fall."""
        if member_id:
            paid = self._order(entry, order_id)[0]
            locked, referrer, position = self._binding(entry, member_id)
            if not locked or position != paid.position:
                raise _bad(
                    "locks", entry, f"the lock of {member_id!r} is not this order's to open", f"locked to {referrer or 'nobody'}", "opened"
                )
            self._bindings[member_id] = (False, referrer, 0)

    # ------------------------------------------------------------ orders

    def _paid(self, entry: pb.Entry, decision: pb.OrderPaidDecision) -> None:
        fact = pb.OrderPaid.FromString(entry.fact)
        self._lock(entry, fact.member_id, decision)
        for line in fact.lines[:]:
            if line.base_minor < 0 or line.quantity < 1:
                found = f"line {line.line_no}: {line.quantity} for {line.base_minor}"
                raise _bad("refunds", entry, "an order sells something", "a quantity above 0 and a base not below 0", found)
        path = [person.member_id for person in decision.people[:] if not person.role]
        if path[:1] != [fact.member_id]:
            raise _bad("locks", entry, "who earns is found from the buyer up", fact.member_id, path[0] if path else "nobody")
        for below, above in pairwise(path):
            locked, referrer, _ = self._binding(entry, below)
            if not locked or referrer != above:
                expected = f"{below} is locked to {referrer or 'nobody'}" if locked else f"{below} is not locked"
                raise _bad("locks", entry, "who earns stands above the buyer by locked bindings", expected, above)

    def _order(self, entry: pb.Entry, order_id: str) -> list[pb.Entry]:
        found = self._stream(f"order/{order_id}", entry.position)
        if not found or found[0].type != "order.paid.v1":
            raise _bad("refunds", entry, "only a recorded order can be taken back", f"an order {order_id!r} before", "none")
        return found

    def _refunded(self, entry: pb.Entry, decision: pb.OrderRefundedDecision) -> None:
        fact = pb.OrderRefunded.FromString(entry.fact)
        earlier = self._order(entry, fact.order_id)
        left = {line.line_no: [line.base_minor, line.quantity] for line in pb.OrderPaid.FromString(earlier[0].fact).lines}
        refunds = [pb.OrderRefunded.FromString(one.fact) for one in earlier if one.type == entry.type]
        if any(refund.refund_id == fact.refund_id for refund in refunds):
            raise _bad("refunds", entry, f"refund {fact.refund_id!r} of {fact.order_id!r} counts once", "one entry", "another")
        for refund in (*refunds, fact):
            for line in refund.lines:
                if line.line_no not in left or line.base_minor < 0 or line.quantity < 0:
                    raise _bad(
                        "refunds", entry, "a refund is of lines of its order", "base and quantity not below 0", f"line {line.line_no}"
                    )
                left[line.line_no][0] -= line.base_minor
                left[line.line_no][1] -= line.quantity
        for line_no, (base, quantity) in left.items():
            if base < 0 or quantity < 0:
                found = f"{-base} more" if base < 0 else f"{-quantity} units more"
                raise _bad("refunds", entry, f"line {line_no} of {fact.order_id!r}", "at most what was paid is refunded", found)
        self._release(entry, fact.order_id, decision.binding_released_member_id)

    def _voided(self, entry: pb.Entry, decision: pb.OrderRefundedDecision) -> None:
        fact = pb.OrderVoided.FromString(entry.fact)
        self._order(entry, fact.order_id)
        self._release(entry, fact.order_id, decision.binding_released_member_id)

    # ------------------------------------------------------------ payouts

    def _payout_requested(self, entry: pb.Entry, decision: pb.MovementDecision) -> None:
        fact = pb.PayoutRequested.FromString(entry.fact)
        available = self.balances.get((fact.member_id, fact.currency, pb.ACCOUNT_AVAILABLE), 0)
        if not 0 < fact.amount_minor <= available:
            raise _bad("payouts", entry, f"a payout to {fact.member_id!r}", f"above 0 and at most {available}", str(fact.amount_minor))
        reserved = _moved(decision, pb.ACCOUNT_RESERVED, fact.member_id, fact.currency)
        taken = _moved(decision, pb.ACCOUNT_AVAILABLE, fact.member_id, fact.currency)
        if (taken, reserved) != (-fact.amount_minor, fact.amount_minor):
            raise _bad("payouts", entry, "what is asked for is reserved", str(fact.amount_minor), f"{reserved} of {-taken}")

    def _payout_closed(self, entry: pb.Entry, decision: pb.MovementDecision) -> None:
        earlier = self._stream(entry.stream, entry.position)
        if [one.type for one in earlier] != ["payout.requested.v1"]:
            found = ", ".join(one.type for one in earlier) or "nothing"
            raise _bad("payouts", entry, "a payout is requested once, then paid or failed once", "payout.requested.v1 before", found)
        asked = pb.PayoutRequested.FromString(earlier[0].fact)
        reserved = _moved(decision, pb.ACCOUNT_RESERVED, asked.member_id, asked.currency)
        paid = _moved(decision, pb.ACCOUNT_PAID, asked.member_id, asked.currency)
        wanted = asked.amount_minor if entry.type == "payout.paid.v1" else 0
        if (reserved, paid) != (-asked.amount_minor, wanted):
            raise _bad(
                "payouts", entry, "what was reserved is paid or given back whole", f"{asked.amount_minor}", f"{-reserved}, {paid} paid"
            )

    # ------------------------------------------------------------ the rest

    def _created(self, entry: pb.Entry, _: Any) -> None:
        self.currency = pb.ProgramCreated.FromString(entry.fact).currency

    def _published(self, entry: pb.Entry, _: Any) -> None:
        self.plans[entry.position] = pb.PlanPublished.FromString(entry.fact).document


def _moved(decision: pb.MovementDecision, account: int, member_id: str, asset: str) -> int:
    mine = (p for p in decision.postings if (p.account, p.member_id, p.asset) == (account, member_id, asset))
    return sum(posting.amount_minor for posting in mine)


def _bad(check: str, entry: pb.Entry, problem: str, expected: str, found: str) -> Bad:
    return Bad(Finding(check, entry.position, problem, expected, found))
