"""Figures from what was folded: sums, lists of the largest, steps of time, how income is spread."""

from collections.abc import Sequence
from dataclasses import fields
from datetime import date, timedelta
from itertools import accumulate
from typing import Any

from fenrun.log.v1 import log_pb2 as pb

from services.auditor.report.figures import (
    AccountRow,
    Concentration,
    Debts,
    Figures,
    FlowRow,
    Flows,
    Head,
    Locks,
    MemberAmount,
    Plan,
    RuleRow,
    TopShare,
    Wrong,
)
from services.auditor.report.folding import LISTED, Flow, Fold
from services.auditor.report.lineage import HEAD_LEVELS, HEAD_PEOPLE, Tree, heads
from services.auditor.report.surveying import Survey
from services.kernel.times import to_text
from services.ledger.domain.plan import PlanVersion

# Rows of members that are listed; all are counted.
ROWS, HEADS_LISTED = 50, 20
# A span in days is shown by the first unit it fits.
UNITS = (("day", 45), ("week", 200), ("month", 3660))
# Never below nothing at the end of any entry; debt never above (docs/accounts.md).
NOT_NEGATIVE = (pb.ACCOUNT_PENDING, pb.ACCOUNT_AVAILABLE, pb.ACCOUNT_RESERVED, pb.ACCOUNT_PAID, pb.ACCOUNT_DEPOSIT)


def count(fold: Fold, tree: Tree, survey: Survey, explained: list[dict[str, Any]]) -> Figures:
    """All figures of a log that is folded to its end."""
    members = fold.members
    newest = survey.plans[-1].plan.tiers if survey.plans else ()
    tiers = dict.fromkeys(["", *newest], 0)
    for tier in members.tier:
        tiers[tier] = tiers.get(tier, 0) + 1
    balances = _trial_balance(fold)
    sums: dict[str, int] = {}
    for row in balances:
        sums[row.asset] = sums.get(row.asset, 0) + row.balance_minor
    holds = sorted(fold.holds.values(), key=lambda hold: hold.position)
    return Figures(
        program_id=fold.program_id,
        currency=fold.currency,
        zone_minutes=survey.zone_us // 60_000_000,
        first_position=fold.first,
        last_position=fold.last,
        head_hash=fold.head_hash.hex(),
        first_recorded_at=to_text(fold.first_us),
        last_recorded_at=to_text(fold.recorded_us),
        members=len(members.ids),
        buyers=sum(1 for orders in members.orders if orders),
        orders=fold.types["order.paid.v1"],
        tiers=tiers,
        entries_by_type=dict(sorted(fold.types.items())),
        plans=[_plan(version) for version in survey.plans],
        trial_balance=balances,
        sums=sums,
        flows=_flows(fold),
        rules=_rules(fold),
        debts=_debts(fold),
        holds=holds[:LISTED],
        holds_open=len(holds),
        wrong=_wrong(fold, tree),
        locks=_locks(fold),
        concentration=_concentration(fold, tree),
        explained=explained,
    )


def _plan(version: PlanVersion) -> Plan:
    until = "" if version.effective_until_us is None else to_text(version.effective_until_us)
    hashed = version.content_hash.hex()
    return Plan(version.plan.plan_id, version.plan.version, version.position, to_text(version.effective_from_us), until, hashed)


def _account(number: int) -> str:
    return pb.Account.Name(number).removeprefix("ACCOUNT_").lower()  # type: ignore[arg-type]  # read as one


def _assets(fold: Fold) -> list[str]:
    """The program's currency first."""
    found = {asset for asset, _ in fold.totals} | {asset for asset, _ in fold.days} | {fold.currency}
    return sorted(found, key=lambda asset: (asset != fold.currency, asset))


def _trial_balance(fold: Fold) -> list[AccountRow]:
    """Every account of the currency, and of the other assets those that ever moved."""
    found = []
    for asset in _assets(fold):
        for account in sorted(pb.Account.values()):
            if account and (asset == fold.currency or (asset, account) in fold.totals):
                column = fold.members.balances.get((asset, account), ())
                holders = sum(1 for balance in column if balance)
                found.append(AccountRow(asset, _account(account), fold.totals[(asset, account)], holders))
    return found


# ---------------------------------------------------------------- money over time


def _flows(fold: Fold) -> list[Flows]:
    days = [ordinal for _, ordinal in fold.days]
    if not days:
        return []
    span = max(days) - min(days) + 1
    unit = next((name for name, most in UNITS if span <= most), "year")
    found = []
    for asset in _assets(fold):
        steps: dict[str, Flow] = {}
        for (moved, ordinal), flow in fold.days.items():
            if moved == asset:
                _add(steps.setdefault(_begins(ordinal, unit), Flow()), flow)
        if not steps:
            continue
        total = Flow()
        for flow in steps.values():
            _add(total, flow)
        rows = [FlowRow(begins, steps.get(begins, Flow())) for begins in _steps(sorted(steps), unit)]
        found.append(Flows(asset, unit, rows, total))
    return found


def _add(total: Flow, flow: Flow) -> None:
    for one in fields(Flow):
        setattr(total, one.name, getattr(total, one.name) + getattr(flow, one.name))


def _begins(ordinal: int, unit: str) -> str:
    day = date.fromordinal(ordinal)
    if unit == "week":
        day -= timedelta(days=min(day.weekday(), ordinal - 1))
    elif unit == "month":
        day = day.replace(day=1)
    elif unit == "year":
        day = day.replace(month=1, day=1)
    return day.isoformat()


def _steps(begun: Sequence[str], unit: str) -> list[str]:
    """The steps that have something, and where they are not years the empty ones between."""
    if unit == "year":
        return list(begun)
    step = {"day": 1, "week": 7, "month": 32}[unit]
    found, last = [begun[0]], date.fromisoformat(begun[-1])
    while found[-1] < begun[-1]:
        later = min(date.fromisoformat(found[-1]) + timedelta(days=step), last)
        found.append(_begins(later.toordinal(), unit))
    return found


# ---------------------------------------------------------------- rules, debts, what is wrong


def _rules(fold: Fold) -> list[RuleRow]:
    found = []
    for total in fold.rules.values():
        net = total.accrued.copy()
        net.subtract(total.reversed)
        found.append(
            RuleRow(
                total.plan_id,
                total.versions,
                total.rule_id,
                total.kind,
                total.asset,
                total.accrued.total(),
                total.reversed.total(),
                total.breakage,
                {tier: amount for tier, amount in sorted(net.items()) if amount},
            )
        )
    return found


def _debts(fold: Fold) -> list[Debts]:
    found = []
    for asset in _assets(fold):
        column = fold.members.balances.get((asset, pb.ACCOUNT_DEBT), ())
        owing = sorted((balance, number) for number, balance in enumerate(column) if balance)
        if owing:
            listed = [_member(fold, number, -balance) for balance, number in owing[:ROWS]]
            found.append(Debts(asset, len(owing), -sum(balance for balance, _ in owing), listed))
    return found


def _member(fold: Fold, number: int, amount: int) -> MemberAmount:
    return MemberAmount(fold.members.ids[number], fold.members.tier[number], amount)


def _wrong(fold: Fold, tree: Tree) -> list[Wrong]:
    """What no log that holds has; each is told also where nothing was found, so that one sees it was looked for."""
    negative = [
        f"{fold.members.ids[number]}: {_account(account)} {asset}"
        for (asset, account), column in sorted(fold.members.balances.items())
        for number, balance in enumerate(column)
        if (balance < 0 and account in NOT_NEGATIVE) or (balance > 0 and account == pb.ACCOUNT_DEBT)
    ]
    unbalanced = [str(position) for position, _, _ in fold.unbalanced]
    return [
        Wrong("unbalanced", len(unbalanced), unbalanced[:ROWS]),
        Wrong("negative", len(negative), negative[:ROWS]),
        Wrong("locked-twice", len(fold.locked_twice), [str(position) for position in fold.locked_twice[:ROWS]]),
        Wrong("circles", tree.circles, []),
        Wrong("unknown", sum(fold.unknown.values()), list(fold.unknown)[:ROWS]),
    ]


def _locks(fold: Fold) -> Locks:
    members = fold.members
    everybody = range(len(members.ids))
    unbound = [number for number in everybody if members.locked[number] and members.referrer[number] < 0 and members.orders[number]]
    unlocked = [number for number in everybody if not members.locked[number] and members.orders[number]]

    def listed(numbers: Sequence[int]) -> list[MemberAmount]:
        by_volume = sorted(numbers, key=lambda number: (-members.own[number], number))
        return [_member(fold, number, members.own[number]) for number in by_volume[:ROWS]]

    locked = sum(members.locked)
    return Locks(
        locked=locked,
        open=len(members.ids) - locked,
        top=sum(1 for referrer in members.referrer if referrer < 0),
        corrected=fold.types["member.binding_corrected.v1"],
        corrections=fold.corrections,
        unlocked=fold.unlocked,
        unbound=len(unbound),
        unbound_volume_minor=sum(members.own[number] for number in unbound),
        unbound_listed=listed(unbound),
        open_orders=len(unlocked),
        open_listed=listed(unlocked),
    )


# ---------------------------------------------------------------- concentration


def _concentration(fold: Fold, tree: Tree) -> Concentration:
    members = fold.members
    earned = [members.earned[number] for number in tree.members]
    # Sums over the people of a subtree, which stand next to each other.
    earned_to = [0, *accumulate(earned)]
    earners_to = [0, *accumulate(1 if amount > 0 else 0 for amount in earned)]
    found = heads(tree)
    is_head = bytearray(len(tree.parent))
    for place in found:
        is_head[place] = 1
    # A head's uplines are heads too: they have more people and levels.
    top = [place for place in found if tree.parent[place] < 0]
    depth = [0] * len(tree.parent)
    for place, above in enumerate(tree.parent):
        depth[place] = depth[above] + 1 if above >= 0 else 0
    listed = []
    for place in found[:HEADS_LISTED]:
        number, end = tree.members[place], place + tree.people[place]
        listed.append(
            Head(
                members.ids[number],
                members.tier[number],
                depth[place],
                tree.people[place],
                tree.levels[place],
                earners_to[end] - earners_to[place],
                earned[place],
                earned_to[end] - earned_to[place],
            )
        )
    positive = sorted((amount for amount in earned if amount > 0), reverse=True)
    upto = [0, *accumulate(positive)]
    counts = sorted({1, 10, 100, -(-len(positive) // 100), -(-len(positive) // 10)})
    return Concentration(
        least_people=HEAD_PEOPLE,
        least_levels=HEAD_LEVELS,
        heads=len(found),
        heads_top=len(top),
        people_under_heads=sum(tree.people[place] for place in top),
        heads_earned_minor=sum(max(0, earned[place]) for place in found),
        listed=listed,
        earners=len(positive),
        earned_minor=upto[-1],
        top=[TopShare(count, upto[count]) for count in counts if 0 < count <= len(positive)],
        levels=max(tree.levels, default=0),
    )
