"""Plays a scenario file through gRPC: each step is one call, and what the file expects of it is compared to the fen.

A scenario is YAML; amounts are integers in minor units (of points: in points), times are dates or ISO times, quoted or not, in UTC.

    scenario: two-level
    title: 二级分销 / Two levels
    plan: two-level              # a preset, or `document: |` with a plan of the scenario's own
    covers: [generation]         # rows of the table of rules that it reaches
    steps:
      - order: {id: O1, buyer: c, paid_at: 2026-01-05, lines: [{no: 1, base: 17903}]}
        earns: {b: 1790, a: 895}
        because:
          - "b: 10 % of 179.03 = 17.903 → 17.90"
          - "a: 5 % of 179.03 = 8.9515 → 8.95"

Steps, each with what may stand beside it (what is left out must be nothing):

    enroll         member, referrer, at
    touch          id, member, referrer, at, channel
    upgrade        id, member, tier, at, evidence (seat_granted, paid_order, volume, import), order, expires_at
    correct        id, member, referrer, at, reason, requested_by, approved_by
    role           id, member, role, scope, weight, from, until, at
    end_role       id, at, reason
    order          id, buyer, paid_at, lines, attributions, group, referrer      earns, breakage, tiers
    complete       order, at
    refund         id, order, at, lines                                          loses, period_loses, tiers
    open_group     id, opener, at
    form_group     id, at
    fail_group     id, at                                                        loses
    task           id, member, task, at                                          earns
    close_period   id, at                                                        earns, breakage, or rules: {id: {volume, earns, breakage}}
    release        as_of                                                         released
    hold           id, member or order, at          lift: id, at
    payout         id, member, amount, at           confirm: id, at      fail_payout: id, at
    adjust         id, member, kind (correction, write_off), amount, reason, requested_by, approved_by, at
    deposit        id, member, kind (paid_in, returned, forfeited), amount, at
    stock          id, from, to, at, lines: [{sku, quantity, cost, price}]       margin
    opening        id, member, available, pending, pending_due_at, paid, debt, source, at
    publish        plan or document, at
    balances       {member: {account: amount}}, of points {member: {points: {account: amount}}}
                   exactly: true beside it means that nothing else stands anywhere
    trial          {account: amount}
    members        {member: {tier, referrer, locked, frozen}}
    refused        step: {…}, reason
    note           words for the reader
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from fenrun.ledger.v1 import ledger_pb2 as lp
from fenrun.log.v1 import log_pb2
from fenrun.referral.v1 import referral_pb2 as rp
from fenrun.type.v1 import type_pb2
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from services.ledger.documents import read_document
from tests.given import Client, reason

HERE = Path(__file__).parent
PRESETS = HERE.parents[1] / "services" / "ledger" / "presets"
CURRENCY = "CNY"
DAY_ONE = "2026-01-01"
ACCOUNTS = ("pending", "available", "reserved", "paid", "debt")
SIDE_ACCOUNTS = ("deposit", "margin")
TOTALS = ("accrued", "reversed", "adjusted")

Step = Mapping[str, Any]
# (member or rule, asset) -> amount; nothing is zero.
Figures = dict[tuple[str, str], int]


def scenario_files() -> list[Path]:
    return sorted(HERE.glob("*.yaml"))


def load(path: Path) -> dict[str, Any]:
    """The file as plain values, by the rules plans are read by: `no` and `on` are words."""
    document = read_document(path.read_text(encoding="utf-8"))
    assert isinstance(document, dict), path
    return document


def document_of(source: Mapping[str, Any]) -> str:
    """The plan document a scenario, or a step that publishes, runs under."""
    if "document" in source:
        return str(source["document"])
    return (PRESETS / f"{source['plan']}.yaml").read_text(encoding="utf-8")


def step_name(step: Step) -> str:
    """The one call a step is; a note may stand beside it."""
    names = [key for key in step if key in STEPS]
    [name] = [key for key in names if key != "note"] or names
    return name


def moment(value: Any) -> Timestamp:
    """A date, a time, or the text of one."""
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    elif isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    if value.tzinfo is None:
        value = value.replace(tzinfo=UTC)
    stamp = Timestamp()
    stamp.FromDatetime(value)
    return stamp


def figures(expected: Any) -> Figures:
    """{"b": 1790, "a": {"points": 20}} by member and asset, without zeros."""
    found: Figures = {}
    for member, amounts in (expected or {}).items():
        by_asset = amounts if isinstance(amounts, Mapping) else {CURRENCY: amounts}
        for asset, amount in by_asset.items():
            assert type(amount) is int, f"{member}: {amount!r} is not a whole number of minor units"
            if amount:
                found[member, asset] = amount
    return found


def assets_of(amounts: Any) -> dict[str, int]:
    """265 or {"CNY": 265, "points": 3} by asset, without zeros."""
    return {asset: amount for (_, asset), amount in figures({"": amounts or 0}).items()}


def earned(earnings: Any) -> Figures:
    found: Figures = {}
    for earning in earnings:
        key = (earning.member_id, earning.amount.currency)
        found[key] = found.get(key, 0) + earning.amount.minor_units
    return {key: amount for key, amount in found.items() if amount}


@dataclass
class Player:
    """One scenario under way in a program of its own."""

    client: Client
    sent: list[tuple[Callable[..., Any], Message, Any]] = field(default_factory=list)
    members: dict[str, None] = field(default_factory=dict)
    refunded: dict[str, None] = field(default_factory=dict)
    payees: dict[str, None] = field(default_factory=dict)
    assets: dict[str, None] = field(default_factory=lambda: {CURRENCY: None})
    payouts: dict[str, str] = field(default_factory=dict)
    # Rules that count people over many orders: what one order gave may be taken with another.
    counting: set[str] = field(default_factory=set)

    # ------------------------------------------------------------ calls

    def call(self, method: Callable[..., Any], request: Message) -> Any:
        """Sends a write and remembers it, for sending it again at the end."""
        answer = method(request)
        self.sent.append((method, request, answer))
        return answer

    def play(self, step: Step) -> None:
        name = step_name(step)
        STEPS[name](self, step[name], step)

    def publish(self, document: str, at: Any = DAY_ONE) -> None:
        program = self.client.program_id
        plan = read_document(document)
        self.assets |= dict.fromkeys(plan.get("points") or ())
        self.counting |= {rule["id"] for rule in plan["rules"] if rule["kind"] == "counted"}
        self.call(
            self.client.ledger.PublishPlan,
            lp.PublishPlanRequest(program_id=program, document=document, published_at=moment(at)),
        )

    # ------------------------------------------------------------ people

    def enroll(self, told: Step, _: Step) -> None:
        self.members[told["member"]] = None
        self.call(
            self.client.referral.EnrollMember,
            rp.EnrollMemberRequest(
                program_id=self.client.program_id,
                member_id=told["member"],
                referrer_id=told.get("referrer") or "",
                enrolled_at=moment(told.get("at", DAY_ONE)),
            ),
        )

    def touch(self, told: Step, _: Step) -> None:
        self.call(
            self.client.referral.RecordTouch,
            rp.RecordTouchRequest(
                program_id=self.client.program_id,
                touch_id=told["id"],
                member_id=told["member"],
                referrer_id=told["referrer"],
                touched_at=moment(told["at"]),
                channel=told.get("channel", ""),
            ),
        )

    def upgrade(self, told: Step, _: Step) -> None:
        kind = f"EVIDENCE_KIND_{told.get('evidence', 'seat_granted').upper()}"
        self.call(
            self.client.referral.UpgradeMember,
            rp.UpgradeMemberRequest(
                program_id=self.client.program_id,
                upgrade_id=told["id"],
                member_id=told["member"],
                tier=told["tier"],
                upgraded_at=moment(told["at"]),
                evidence=log_pb2.Evidence(kind=log_pb2.EvidenceKind.Value(kind), order_id=told.get("order", ""), note=told.get("note", "")),
                expires_at=moment(told["expires_at"]) if told.get("expires_at") else None,
            ),
        )

    def correct(self, told: Step, _: Step) -> None:
        self.call(
            self.client.referral.CorrectBinding,
            rp.CorrectBindingRequest(
                program_id=self.client.program_id,
                correction_id=told["id"],
                member_id=told["member"],
                new_referrer_id=told.get("referrer") or "",
                corrected_at=moment(told["at"]),
                reason=told.get("reason", "wrong code typed"),
                requested_by=told.get("requested_by", "ann"),
                approved_by=told.get("approved_by", "bob"),
            ),
        )

    def role(self, told: Step, _: Step) -> None:
        self.call(
            self.client.referral.GrantRole,
            rp.GrantRoleRequest(
                program_id=self.client.program_id,
                grant_id=told["id"],
                member_id=told["member"],
                role=told["role"],
                scope=str(told.get("scope", "")),
                weight=told.get("weight", 0),
                effective_from=moment(told["from"]),
                effective_until=moment(told["until"]) if told.get("until") else None,
                granted_at=moment(told.get("at", told["from"])),
            ),
        )

    def end_role(self, told: Step, _: Step) -> None:
        self.call(
            self.client.referral.EndRole,
            rp.EndRoleRequest(
                program_id=self.client.program_id,
                grant_id=told["id"],
                ended_at=moment(told["at"]),
                reason=told.get("reason", "contract ended"),
            ),
        )

    # ------------------------------------------------------------ orders

    def order(self, told: Step, step: Step) -> None:
        order = lp.Order(
            order_id=told["id"],
            member_id=told["buyer"],
            paid_at=moment(told["paid_at"]),
            currency=CURRENCY,
            lines=[order_line(line) for line in told["lines"]],
            attributions=[attribution(one) for one in told.get("attributions", ())],
            group_id=told.get("group", ""),
            referrer_id=told.get("referrer", ""),
        )
        recorded = self.call(self.client.ledger.RecordOrder, lp.RecordOrderRequest(program_id=self.client.program_id, order=order)).recorded
        assert earned(recorded.earnings) == figures(step.get("earns")), f"{told['id']} earns"
        breakage = {money.currency: money.minor_units for money in (recorded.breakage, *recorded.points_breakage) if money.minor_units}
        assert breakage == assets_of(step.get("breakage")), f"{told['id']} breakage"
        assert tiers(recorded.tier_changes) == (step.get("tiers") or {}), f"{told['id']} tiers"

    def complete(self, told: Step, _: Step) -> None:
        completion = lp.Completion(order_id=told["order"], completed_at=moment(told["at"]))
        self.call(self.client.ledger.CompleteOrder, lp.CompleteOrderRequest(program_id=self.client.program_id, completion=completion))

    def refund(self, told: Step, step: Step) -> None:
        self.refunded[told["order"]] = None
        refund = lp.Refund(
            refund_id=told["id"],
            order_id=told["order"],
            refunded_at=moment(told["at"]),
            lines=[
                log_pb2.RefundLine(line_no=line["no"], quantity=line.get("quantity", 0), base_minor=line.get("base", 0))
                for line in told["lines"]
            ],
        )
        recorded = self.call(
            self.client.ledger.RefundOrder, lp.RefundOrderRequest(program_id=self.client.program_id, refund=refund)
        ).recorded
        assert earned(recorded.reversed) == figures(step.get("loses")), f"{told['id']} loses"
        assert earned(recorded.period_reversed) == figures(step.get("period_loses")), f"{told['id']} period_loses"
        assert tiers(recorded.tier_changes) == (step.get("tiers") or {}), f"{told['id']} tiers"

    def open_group(self, told: Step, _: Step) -> None:
        self.call(
            self.client.ledger.OpenGroup,
            lp.OpenGroupRequest(
                program_id=self.client.program_id, group_id=told["id"], opener_id=told["opener"], opened_at=moment(told["at"])
            ),
        )

    def form_group(self, told: Step, _: Step) -> None:
        self.call(
            self.client.ledger.FormGroup,
            lp.FormGroupRequest(program_id=self.client.program_id, group_id=told["id"], formed_at=moment(told["at"])),
        )

    def fail_group(self, told: Step, step: Step) -> None:
        failed = self.call(
            self.client.ledger.FailGroup,
            lp.FailGroupRequest(
                program_id=self.client.program_id,
                group_id=told["id"],
                failed_at=moment(told["at"]),
                reason=told.get("reason", "too few joined"),
            ),
        )
        assert earned(failed.reversed) == figures(step.get("loses")), f"{told['id']} loses"
        assert earned(failed.period_reversed) == figures(step.get("period_loses")), f"{told['id']} period_loses"

    def task(self, told: Step, step: Step) -> None:
        done = self.call(
            self.client.ledger.RecordTask,
            lp.RecordTaskRequest(
                program_id=self.client.program_id,
                task_id=told["id"],
                member_id=told["member"],
                task=told["task"],
                done_at=moment(told["at"]),
            ),
        )
        assert earned(done.earnings) == figures(step.get("earns")), f"{told['id']} earns"

    def close_period(self, told: Step, step: Step) -> None:
        closed = self.call(
            self.client.ledger.ClosePeriod,
            lp.ClosePeriodRequest(program_id=self.client.program_id, period_id=told["id"], closed_at=moment(told["at"])),
        )
        if "rules" in step:
            found = {rule.rule_id: rule for rule in closed.rules}
            assert sorted(found) == sorted(step["rules"])
            for rule_id, expected in step["rules"].items():
                rule = found[rule_id]
                assert earned(rule.earnings) == figures(expected.get("earns")), f"{told['id']} {rule_id} earns"
                assert rule.breakage.minor_units == sum(assets_of(expected.get("breakage")).values()), f"{told['id']} {rule_id} breakage"
                if "volume" in expected:
                    assert rule.volume == expected["volume"], f"{told['id']} {rule_id} volume"
            return
        assert earned([one for rule in closed.rules for one in rule.earnings]) == figures(step.get("earns")), f"{told['id']} earns"
        breakage: dict[str, int] = {}
        for rule in closed.rules:
            if rule.breakage.minor_units:
                breakage[rule.breakage.currency] = breakage.get(rule.breakage.currency, 0) + rule.breakage.minor_units
        assert breakage == assets_of(step.get("breakage")), f"{told['id']} breakage"

    # ------------------------------------------------------------ money out

    def release(self, told: Step, step: Step) -> None:
        amount = 0
        while True:
            found = self.client.ledger.ReleaseDue(lp.ReleaseDueRequest(program_id=self.client.program_id, as_of=moment(told["as_of"])))
            amount += found.amount.minor_units
            if not found.more:
                break
        if "released" in step:
            assert amount == step["released"], f"released as of {told['as_of']}"

    def hold(self, told: Step, _: Step) -> None:
        self.call(
            self.client.ledger.PlaceHold,
            lp.PlaceHoldRequest(
                program_id=self.client.program_id,
                hold_id=told["id"],
                reason=told.get("reason", "under review"),
                placed_at=moment(told["at"]),
                **({"order_id": told["order"]} if "order" in told else {"member_id": told["member"]}),
            ),
        )

    def lift(self, told: Step, _: Step) -> None:
        self.call(
            self.client.ledger.LiftHold,
            lp.LiftHoldRequest(
                program_id=self.client.program_id,
                hold_id=told["id"],
                reason=told.get("reason", "cleared"),
                lifted_at=moment(told["at"]),
            ),
        )

    def payout(self, told: Step, _: Step) -> None:
        self.payouts[told["id"]] = told["member"]
        self.call(
            self.client.ledger.RequestPayout,
            lp.RequestPayoutRequest(
                program_id=self.client.program_id,
                payout_id=told["id"],
                member_id=told["member"],
                amount=type_pb2.Money(minor_units=told["amount"], currency=told.get("asset", CURRENCY)),
                requested_at=moment(told["at"]),
            ),
        )

    def confirm(self, told: Step, _: Step) -> None:
        self.payees[self.payouts[told["id"]]] = None
        self.call(
            self.client.ledger.ConfirmPayout,
            lp.ConfirmPayoutRequest(program_id=self.client.program_id, payout_id=told["id"], paid_at=moment(told["at"])),
        )

    def fail_payout(self, told: Step, _: Step) -> None:
        self.call(
            self.client.ledger.FailPayout,
            lp.FailPayoutRequest(
                program_id=self.client.program_id,
                payout_id=told["id"],
                reason=told.get("reason", "bank refused"),
                failed_at=moment(told["at"]),
            ),
        )

    def adjust(self, told: Step, _: Step) -> None:
        kind = f"ADJUSTMENT_KIND_{told['kind'].upper()}"
        self.call(
            self.client.ledger.PostAdjustment,
            lp.PostAdjustmentRequest(
                program_id=self.client.program_id,
                adjustment_id=told["id"],
                member_id=told["member"],
                kind=log_pb2.AdjustmentKind.Value(kind),
                amount=type_pb2.Money(minor_units=told["amount"], currency=told.get("asset", CURRENCY)),
                reason=told.get("reason", "agreed with the member"),
                requested_by=told.get("requested_by", "ann"),
                approved_by=told.get("approved_by", "bob"),
                posted_at=moment(told["at"]),
            ),
        )

    def deposit(self, told: Step, _: Step) -> None:
        kind = f"DEPOSIT_KIND_{told['kind'].upper()}"
        self.call(
            self.client.ledger.MoveDeposit,
            lp.MoveDepositRequest(
                program_id=self.client.program_id,
                deposit_id=told["id"],
                member_id=told["member"],
                kind=log_pb2.DepositKind.Value(kind),
                amount=type_pb2.Money(minor_units=told["amount"], currency=CURRENCY),
                reason=told.get("reason", ""),
                moved_at=moment(told["at"]),
            ),
        )

    def stock(self, told: Step, step: Step) -> None:
        moved = self.call(
            self.client.ledger.TransferStock,
            lp.TransferStockRequest(
                program_id=self.client.program_id,
                transfer_id=told["id"],
                from_member_id=told["from"],
                to_member_id=told["to"],
                currency=CURRENCY,
                lines=[
                    log_pb2.StockLine(
                        sku=line.get("sku", ""), quantity=line["quantity"], unit_cost_minor=line["cost"], unit_price_minor=line["price"]
                    )
                    for line in told["lines"]
                ],
                transferred_at=moment(told["at"]),
            ),
        )
        assert moved.margin.minor_units == step.get("margin", 0), f"{told['id']} margin"

    def opening(self, told: Step, _: Step) -> None:
        self.call(
            self.client.ledger.OpenBalance,
            lp.OpenBalanceRequest(
                program_id=self.client.program_id,
                opening_id=told["id"],
                member_id=told["member"],
                currency=CURRENCY,
                available_minor=told.get("available", 0),
                pending_minor=told.get("pending", 0),
                pending_due_at=moment(told["pending_due_at"]) if told.get("pending_due_at") else None,
                paid_minor=told.get("paid", 0),
                debt_minor=told.get("debt", 0),
                source=told.get("source", "the old system"),
                opened_at=moment(told["at"]),
            ),
        )

    def publish_step(self, told: Step, _: Step) -> None:
        self.publish(document_of(told), told["at"])

    # ------------------------------------------------------------ what must be so

    def accounts(self, member: str, asset: str) -> dict[str, int]:
        """The accounts of a member that are not zero."""
        request = lp.GetBalanceRequest(program_id=self.client.program_id, member_id=member, asset=asset)
        balance = self.client.ledger.GetBalance(request).balance
        names = (*ACCOUNTS, *TOTALS, *(SIDE_ACCOUNTS if asset == CURRENCY else ()))
        return {name: amount for name in names if (amount := getattr(balance, f"{name}_minor"))}

    def balances(self, told: Step, step: Step) -> None:
        exactly = bool(step.get("exactly"))
        for member in self.members if exactly else told:
            for asset, expected in by_asset(told.get(member) or {}, self.assets if exactly else ()).items():
                found = self.accounts(member, asset)
                if exactly:
                    named = {name: amount for name, amount in found.items() if name in expected or name not in TOTALS}
                else:
                    named = {name: found.get(name, 0) for name in expected}
                assert {n: a for n, a in named.items() if a} == {n: a for n, a in expected.items() if a}, f"{member} {asset}"

    def trial(self, told: Step, _: Step) -> None:
        for asset, expected in by_asset(told, ()).items():
            found = self.trial_balance(asset)
            assert {name: found.get(name, 0) for name in expected} == expected, asset

    def trial_balance(self, asset: str) -> dict[str, int]:
        request = lp.TrialBalanceRequest(program_id=self.client.program_id, asset=asset)
        rows = self.client.ledger.TrialBalance(request).accounts
        return {log_pb2.Account.Name(row.account).removeprefix("ACCOUNT_").lower(): row.balance.minor_units for row in rows}

    def standing(self, told: Step, _: Step) -> None:
        for member_id, expected in told.items():
            found = self.client.referral.GetMember(rp.GetMemberRequest(program_id=self.client.program_id, member_id=member_id)).member
            known = {"tier": found.tier, "referrer": found.referrer_id, "locked": found.locked, "frozen": found.tier_frozen}
            assert {name: known[name] for name in expected} == expected, member_id

    def refused(self, told: Step, step: Step) -> None:
        refused_step = told.get("step", told)
        with pytest.raises(grpc.RpcError) as caught:
            self.play(refused_step)
        assert reason(caught.value)[1] == (told.get("reason") or step["reason"])
        if step_name(refused_step) == "enroll":
            self.members.pop(refused_step["enroll"]["member"])

    def note(self, told: Any, step: Step) -> None:
        """Words for the reader."""

    # ------------------------------------------------------------ at the end

    def again(self) -> Iterator[str]:
        """Sends every write once more; yields whatever was not answered as the first time."""
        for method, request, first in self.sent:
            second = method(request)
            told = [getattr(answer, "recorded", answer) for answer in (first, second)]
            if not told[1].receipt.already_recorded or told[0].receipt.position != told[1].receipt.position:
                yield f"{request} was recorded a second time"
            for answer in told:
                answer.ClearField("receipt")
            if first != second:
                yield f"{request} was answered otherwise the second time: {first} {second}"

    def postings(self, member: str) -> Iterator[lp.MemberPosting]:
        token = ""
        while True:
            page = self.client.ledger.ListPostings(
                lp.ListPostingsRequest(program_id=self.client.program_id, member_id=member, page_size=1000, page_token=token)
            )
            yield from page.postings
            token = page.next_page_token
            if not token:
                return


def by_asset(accounts: Step, assets: Any) -> dict[str, dict[str, int]]:
    """{"available": 5, "points": {"available": 3}} by asset, "available" of the currency; the assets named are there, if only empty."""
    found: dict[str, dict[str, int]] = {asset: {} for asset in assets}
    for name, amount in accounts.items():
        if isinstance(amount, Mapping):
            found.setdefault(name, {}).update(amount)
        else:
            found.setdefault(CURRENCY, {})[name] = amount
    return found


def attribution(told: Step) -> log_pb2.Attribution:
    return log_pb2.Attribution(role=told["role"], member_id=told.get("member", ""), scope=str(told.get("scope", "")))


def order_line(told: Step) -> log_pb2.OrderLine:
    return log_pb2.OrderLine(
        line_no=told.get("no", 1),
        base_minor=told["base"],
        quantity=told.get("quantity", 1),
        sku=told.get("sku", ""),
        category=told.get("category", ""),
        kind=log_pb2.LineKind.Value(f"LINE_KIND_{told.get('kind', 'goods').upper()}"),
        attributions=[attribution(one) for one in told.get("attributions", ())],
    )


def tiers(changes: Any) -> dict[str, str]:
    """{member: tier from now on}; a frozen one reads `frozen`, one without a tier empty."""
    frozen = log_pb2.TIER_CHANGE_KIND_FROZEN
    return {change.member_id: "frozen" if change.kind == frozen else change.tier for change in changes}


STEPS: dict[str, Callable[[Player, Any, Step], None]] = {
    "enroll": Player.enroll,
    "touch": Player.touch,
    "upgrade": Player.upgrade,
    "correct": Player.correct,
    "role": Player.role,
    "end_role": Player.end_role,
    "order": Player.order,
    "complete": Player.complete,
    "refund": Player.refund,
    "open_group": Player.open_group,
    "form_group": Player.form_group,
    "fail_group": Player.fail_group,
    "task": Player.task,
    "close_period": Player.close_period,
    "release": Player.release,
    "hold": Player.hold,
    "lift": Player.lift,
    "payout": Player.payout,
    "confirm": Player.confirm,
    "fail_payout": Player.fail_payout,
    "adjust": Player.adjust,
    "deposit": Player.deposit,
    "stock": Player.stock,
    "opening": Player.opening,
    "publish": Player.publish_step,
    "balances": Player.balances,
    "trial": Player.trial,
    "members": Player.standing,
    "refused": Player.refused,
    "note": Player.note,
}
