"""The statistics once more, slowly and by other means: every order keeps the list of everybody above its buyer. Income is money alone."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from fenrun.log.v1 import log_pb2
from google.protobuf.timestamp_pb2 import Timestamp


@dataclass
class Order:
    buyer: str
    month: str
    above: list[str]
    remaining: int
    plan: int
    people: list[str]


def month_of(moment: Timestamp) -> str:
    return moment.ToJsonString()[:7]


@dataclass
class Model:
    """{(member, month): value}, month "" for all; income by (member, rule) besides."""

    referrers: dict[str, str] = field(default_factory=dict)
    locked_months: dict[str, str] = field(default_factory=dict)
    orders: dict[str, Order] = field(default_factory=dict)
    # {position: [(rule, whether it pays points)]}
    plans: dict[int, list[tuple[str, bool]]] = field(default_factory=dict)
    # {period: (plan, people, month)}
    periods: dict[str, tuple[int, list[str], str]] = field(default_factory=dict)
    members: set[str] = field(default_factory=set)
    own: Counter[tuple[str, str]] = field(default_factory=Counter)
    direct: Counter[tuple[str, str]] = field(default_factory=Counter)
    team: Counter[tuple[str, str]] = field(default_factory=Counter)
    income: Counter[tuple[str, str, str]] = field(default_factory=Counter)

    @classmethod
    def of(cls, entries: Iterable[log_pb2.Entry]) -> "Model":
        model = cls()
        for entry in entries:
            model.add(entry)
        return model

    def add(self, entry: log_pb2.Entry) -> None:
        match entry.type:
            case "plan.published.v1":
                document = json.loads(log_pb2.PlanPublished.FromString(entry.fact).document)
                self.plans[entry.position] = [(rule["id"], "asset" in rule) for rule in document["rules"]]
            case "member.enrolled.v1":
                self.members.add(log_pb2.MemberEnrolled.FromString(entry.fact).member_id)
            case "member.upgraded.v1":
                decided = log_pb2.MemberUpgradedDecision.FromString(entry.decision)
                if decided.HasField("binding_locked"):
                    self.lock(decided.binding_locked, month_of(entry.occurred_at))
            case "member.binding_corrected.v1":
                told = log_pb2.BindingCorrected.FromString(entry.fact)
                self.referrers[told.member_id] = told.referrer_id
            case "order.paid.v1":
                self.paid(entry)
            case "order.refunded.v1":
                refund = log_pb2.OrderRefunded.FromString(entry.fact)
                self.taken_back(entry, refund.order_id, sum(line.base_minor for line in refund.lines))
            case "order.voided.v1":
                order_id = log_pb2.OrderVoided.FromString(entry.fact).order_id
                self.taken_back(entry, order_id, self.orders[order_id].remaining)
            case "task.done.v1":
                done = log_pb2.TaskDoneDecision.FromString(entry.decision)
                shares = [share for line in done.lines for share in line.shares]
                self.earn(done.plan_position, [person.member_id for person in done.people], month_of(entry.occurred_at), shares)
            case "period.closed.v1":
                closed = log_pb2.PeriodClosedDecision.FromString(entry.decision)
                period = (closed.plan_position, [person.member_id for person in closed.people], month_of(closed.starts_at))
                self.periods[log_pb2.PeriodClosed.FromString(entry.fact).period_id] = period
                self.earn(*period, closed.shares)
            case "period.corrected.v1":
                period_id = log_pb2.PeriodCorrected.FromString(entry.fact).period_id
                self.earn(*self.periods[period_id], log_pb2.PeriodCorrectedDecision.FromString(entry.decision).shares)

    def lock(self, lock: log_pb2.BindingLocked, month: str) -> None:
        self.referrers[lock.member_id] = lock.referrer_id
        self.locked_months[lock.member_id] = month

    def paid(self, entry: log_pb2.Entry) -> None:
        told, decided = log_pb2.OrderPaid.FromString(entry.fact), log_pb2.OrderPaidDecision.FromString(entry.decision)
        month = month_of(entry.occurred_at)
        if decided.HasField("binding_locked"):
            self.lock(decided.binding_locked, month)
        above, current = [], self.referrers.get(told.member_id, "")
        while current:
            above.append(current)
            current = self.referrers.get(current, "")
        people = [person.member_id for person in decided.people]
        order = self.orders[told.order_id] = Order(told.member_id, month, above, 0, decided.plan_position, people)
        self.change(order, sum(line.base_minor for line in told.lines), decided.lines)

    def taken_back(self, entry: log_pb2.Entry, order_id: str, base: int) -> None:
        decided = log_pb2.OrderRefundedDecision.FromString(entry.decision)
        order = self.orders[order_id]
        # A voided order is refunded all the same, and counts no more.
        self.change(order, -min(base, order.remaining), decided.lines)
        if decided.binding_released_member_id:
            del self.referrers[decided.binding_released_member_id]

    def change(self, order: Order, base: int, lines: Iterable[log_pb2.LineShares]) -> None:
        order.remaining += base
        for month in (order.month, ""):
            self.own[order.buyer, month] += base
            for person in order.above[:1]:
                self.direct[person, month] += base
            for person in order.above:
                self.team[person, month] += base
        self.earn(order.plan, order.people, order.month, [share for line in lines for share in line.shares])

    def earn(self, plan: int, people: list[str], month: str, shares: Iterable[log_pb2.Share]) -> None:
        for share in shares:
            rule, points = self.plans[plan][share.rule_index]
            if share.payee and not points:
                for of in (month, ""):
                    self.income[people[share.payee - 1], rule, of] += share.amount_minor

    def invites(self, *, paid: bool) -> Counter[tuple[str, str]]:
        buyers = {order.buyer for order in self.orders.values() if order.remaining}
        found: Counter[tuple[str, str]] = Counter()
        for member, referrer in self.referrers.items():
            if referrer and (member in buyers or not paid):
                found[referrer, self.locked_months[member]] += 1
                found[referrer, ""] += 1
        return found

    def cohorts(self) -> dict[str, tuple[int, dict[str, tuple[int, int]]]]:
        """{month of the lock: (members, {month: (buyers, volume)})}"""
        found: dict[str, tuple[int, dict[str, tuple[int, int]]]] = {}
        recruits = defaultdict(set)
        for member, referrer in self.referrers.items():
            if referrer:
                recruits[self.locked_months[member]].add(member)
        for cohort, members in recruits.items():
            months: dict[str, tuple[int, int]] = {}
            for (member, month), volume in self.own.items():
                if member in members and month and month >= cohort and volume:
                    buyers, before = months.get(month, (0, 0))
                    months[month] = (buyers + 1, before + volume)
            found[cohort] = (len(members), months)
        return found


def places(values: Counter[tuple[str, str]], month: str) -> list[tuple[int, str, int]]:
    """A leaderboard of one month: (rank, member, value), where a rank is one more than those who have more."""
    on_it = {member: value for (member, of), value in values.items() if of == month and value > 0}
    ranked = [(1 + sum(other > value for other in on_it.values()), member, value) for member, value in on_it.items()]
    return sorted(ranked)
