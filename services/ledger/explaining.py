"""Why a posting has its amount: the shares behind it, re-derived from the frozen plan and people, told in numbers and in sentences.

Pure: `views.explain` brings the entries from the database, an auditor's report from a bundle.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from fenrun.ledger.v1 import ledger_pb2 as pb

from services.kernel.decider import Entry
from services.kernel.money import exactly
from services.kernel.refusals import PostingUnknown
from services.kernel.times import to_text
from services.ledger import codec
from services.ledger.domain.booking import Seal
from services.ledger.domain.books import ClosedPeriod, Order, fold_order, fold_period
from services.ledger.domain.engine import ENGINES, PARTS, At, Look, Looks, Remaining, Rooms, Standing, amount_for, lives
from services.ledger.domain.facts import (
    Account,
    AdjustmentPosted,
    BalanceOpened,
    DepositMoved,
    OrderPaid,
    OrderRefunded,
    OrderReleased,
    OrderVoided,
    PayoutFailed,
    PayoutPaid,
    PayoutRequested,
    PeriodClosed,
    PeriodCorrected,
    PeriodPerson,
    Person,
    Posting,
    RewardReleased,
    Share,
    StockTransferred,
    TaskDone,
)
from services.ledger.domain.orders import standing_of
from services.ledger.domain.periods import Tree
from services.ledger.domain.plan import Plan, PlanVersion
from services.ledger.domain.rules import Amount, Counted, Differential, Paying, Peer, PeriodPool, Rank, Rule, Seat, Triggered, Volume
from services.runtime.currency import to_major


class Story:
    """A posting explained: the fields of fenrun.ledger.v1.ExplainResponse but those about the entry itself. One message is made of them at
    the end, for a message made within another one costs more than the work."""

    __slots__ = ("because_of", "people", "plan", "posting", "sentences", "shares")

    def __init__(self, posting: Posting, opening: str) -> None:
        self.posting = posting
        self.sentences = [opening]
        self.plan: dict[str, Any] | None = None
        self.people: list[dict[str, Any]] = []
        self.shares: list[dict[str, Any]] = []
        self.because_of: list[int] = []

    def share(self, **fields: Any) -> None:
        """One of fenrun.ledger.v1.ExplainedShare."""
        self.shares.append(fields)

    def message(self, entry: Any = None, booked_at: Any = None, adjusts: Any = None) -> pb.ExplainResponse:
        """With what the caller knows of the entry: messages, or their fields."""
        posting: Any = self.posting._asdict()
        told: Any = {"plan": self.plan, "people": self.people, "shares": self.shares, "because_of": self.because_of}
        return pb.ExplainResponse(entry=entry, posting=posting, sentences=self.sentences, booked_at=booked_at, adjusts=adjusts, **told)


def explain(entry: Entry, number: int, earlier: Sequence[Entry], plans: Sequence[PlanVersion]) -> Story:
    """The whole story of an entry's posting, counted from 1; all but the entry itself, which the caller has.

    `earlier`: what stands in the entry's stream before it, oldest first. Raises PostingUnknown.
    """
    postings: Sequence[Posting] = getattr(entry.decision, "postings", ())
    if not 0 < number <= len(postings):
        raise PostingUnknown(f"{entry.position}.{number}")
    posting = postings[number - 1]
    story = Story(posting, _opening(posting, entry))
    match entry.fact:
        case OrderPaid() | OrderRefunded() | OrderVoided():
            if isinstance(entry.fact, OrderVoided):
                story.sentences.append(f"The group {entry.fact.group_id} of order {entry.fact.order_id} failed: nothing of it counts.")
            _explain_shares(story, entry, posting, earlier, plans)
        case TaskDone():
            _explain_task(story, entry, posting, plans)
        case PeriodClosed() | PeriodCorrected():
            _explain_period(story, entry, posting, earlier, plans)
        case RewardReleased():
            story.because_of.extend(one.position for one in earlier if getattr(one.decision, "due", ()))
            story.sentences.append(f"What is due from {entry.fact.source} is released; debts are settled first.")
        case DepositMoved(deposit_id=deposit_id, kind=kind, reason=reason):
            why = f": {reason}" if reason else ""
            story.sentences.append(f"Deposit {deposit_id} was {kind.name.lower().replace('_', ' ')}{why}. It is no commission.")
        case StockTransferred(from_member_id=seller, to_member_id=buyer, currency=currency, lines=lines):
            story.sentences.append(f"{seller} sold stock on to {buyer}: the margin is price less cost, no commission.")
            for line in lines:
                each = to_major(line.unit_price_minor - line.unit_cost_minor, currency)
                story.sentences.append(f"{line.quantity} of {line.sku or 'goods'} at a margin of {each} each.")
        case BalanceOpened():
            story.sentences.append(f"Carried over from {entry.fact.source}, in its own figures (opening {entry.fact.opening_id}).")
        case OrderReleased():
            order = fold_order(earlier)
            assert order is not None, "what is released was ordered"
            story.because_of.append(order.paid.position)
            for what, happened in (("completed", order.completed), ("part of a group that was formed", order.formed)):
                if happened is not None:
                    story.because_of.append(happened.position)
                    story.sentences.append(
                        f"Order {entry.fact.order_id} was {what} at {to_text(happened.occurred_us)} (entry {happened.position})."
                    )
            for due in entry.decision.due:
                if due.member_id == posting.member_id and (due.asset or order.fact.currency) == posting.asset:
                    amount = to_major(-due.amount_minor, posting.asset)
                    story.sentences.append(f"{amount} of it fell due at {to_text(due.due_us)}; debts are settled first.")
        case PayoutRequested():
            story.sentences.append(f"Payout {entry.fact.payout_id} was requested: the amount is reserved until it is paid or fails.")
        case PayoutPaid():
            story.because_of.append(earlier[0].position)
            story.sentences.append(
                f"Payout {entry.fact.payout_id} was paid" + (f", reference {entry.fact.reference}." if entry.fact.reference else ".")
            )
        case PayoutFailed():
            story.because_of.append(earlier[0].position)
            story.sentences.append(f"Payout {entry.fact.payout_id} failed: {entry.fact.reason}. Debts are settled first.")
        case AdjustmentPosted():
            fact = entry.fact
            story.sentences.append(
                f"Adjustment {fact.adjustment_id}: {fact.reason}. Asked by {fact.requested_by}, approved by {fact.approved_by}."
            )
    return story


def lateness(seal: Seal, booked_us: int) -> str:
    """Of an entry that came too late for a sealed period."""
    return (
        f"It came after the books were sealed through {to_text(seal.through_us)} (seal {seal.seal_id}, entry {seal.position}): it is booked"
        f" at {to_text(booked_us)} and adjusts that period."
    )


def _opening(posting: Posting, entry: Entry) -> str:
    whose = f"{posting.member_id}'s" if posting.member_id else "the company's"
    amount = to_major(posting.amount_minor, posting.asset)
    account = posting.account.name.lower().replace("_", " ")
    return f"Entry {entry.position} ({entry.stream}) moved {whose} {account} by {amount} {posting.asset} at {to_text(entry.occurred_us)}."


def _explain_shares(story: Story, entry: Entry, posting: Posting, earlier: Sequence[Entry], plans: Sequence[PlanVersion]) -> None:
    """Orders, refunds, voids: line by line and rule by rule, with what the line entitled to before and after."""
    before, after = fold_order(earlier), fold_order([*earlier, entry])
    assert after is not None
    version = next(one for one in plans if one.position == after.decision.plan_position)
    people = after.decision.people
    _plan_of(story, version)
    story.people = [codec.person_fields(person) for person in people]
    story.sentences.append(
        f"Decided by plan {version.plan.plan_id} version {version.plan.version} (entry {version.position}),"
        " in force when the order was paid."
    )
    standing = standing_of(after, version.plan)
    story.sentences += [_standing(number, person, standing.path) for number, person in enumerate(people)]
    if isinstance(entry.fact, OrderRefunded | OrderVoided):
        story.because_of.append(after.paid.position)
    accounts = [
        (p.account.name.lower(), p.amount_minor)
        for p in entry.decision.postings
        if p.member_id == posting.member_id and p.asset == posting.asset
    ]
    if posting.member_id and len(accounts) > 1:
        whole = sum(amount for _, amount in accounts)
        parts = ", ".join(f"{to_major(amount, posting.asset)} {account}" for account, amount in accounts)
        story.sentences.append(
            f"For {posting.member_id} the entry comes to {to_major(whole, posting.asset)} in all: {parts}."
            " What is not released is taken from pending, the rest from available as far as it reaches; what is missing becomes debt."
        )
    remaining = after.remaining()
    looks: Looks = {}
    if not version.plan.is_plain:  # the rules of which look at nothing but their line
        rooms = Rooms({(room.rule_index, room.payee): room.room_minor for room in after.decision.rooms})
        ENGINES[after.decision.engine_version](standing, remaining, rooms, looks)
    for line_no, shares in entry.decision.lines:
        for share in shares:
            if _concerns(share, posting, version.plan, people):
                _explain_share(story, line_no, share, posting, standing, remaining, looks, before, after)


def _plan_of(story: Story, version: PlanVersion) -> None:
    plan = version.plan
    story.plan = {
        "plan_id": plan.plan_id,
        "version": plan.version,
        "position": version.position,
        "content_hash": version.content_hash,
    }


def _standing(number: int, person: Person, path: Sequence[Person]) -> str:
    tier = f"tier {person.tier} (entry {person.tier_position})" if person.tier else "no tier"
    if person.role:
        held = "named on the order" if not person.role_position else f"granted by entry {person.role_position}, weight {person.weight}"
        where = f" at {person.scope}" if person.scope else ""
        return f"{person.member_id} is the order's {person.role}{where}: {held}; {tier}."
    place = "bought" if number == 0 else f"stands {number} above the buyer"
    bound = ""
    if number + 1 < len(path):
        bound = f", bound to {path[number + 1].member_id} (entry {person.binding_position})"
    return f"{person.member_id} {place}: {tier}{bound}."


def _concerns(share: Share, posting: Posting, plan: Plan, people: Sequence[Person | PeriodPerson]) -> bool:
    """Whether a share is part of what a posting says."""
    if plan.asset_of(plan.rules[share.rule_index]) != posting.asset:
        return False
    if posting.account is Account.COMMISSION:
        return True
    if posting.account is Account.BREAKAGE:
        return not share.payee
    return bool(share.payee) and people[share.payee - 1].member_id == posting.member_id


class Why(NamedTuple):
    """How an entitlement comes about: the rate as a decimal and the exact amount as text (empty: neither counts), the rounding, words."""

    rate: str
    exact: str
    rounding: str
    text: str


def _explain_share(
    story: Story,
    line_no: int,
    share: Share,
    posting: Posting,
    standing: Standing,
    remaining: Remaining,
    looks: Looks,
    before: Order | None,
    after: Order,
) -> None:
    rule_index, payee, amount = share
    rule = standing.plan.rules[rule_index]
    asset = posting.asset
    person = standing.people[payee - 1] if payee else None
    entitled_before = before.entitled(line_no).get((rule_index, payee), 0) if before else 0
    entitled_after = entitled_before + amount
    entitled = after.entitled(line_no)
    pool = sum(held for (index, _), held in entitled.items() if index == rule_index)
    base = 0
    if line_no:
        base = remaining[line_no][0]
        assert isinstance(rule, Paying)
        look = looks.get((line_no, rule_index))
        if look is None:
            # Nothing of the line remains, or another rule has put this one out of force; or nobody had to look.
            line = after.lines[line_no].line
            left = remaining[line_no] if standing.plan.is_plain and lives(line, *remaining[line_no]) else (0, 0)
            look = Look(At(standing, line, *left), amount_for(standing, line, rule_index, rule), [], [])
        why = _why(rule, look, payee, standing, asset, pool)
        if look.uncapped != look.shares and person:
            uncapped = sum(one.amount_minor for one in look.uncapped if one.payee == payee)
            why = why._replace(rounding="cap", text=f"{why.text} would be {to_major(uncapped, asset)}; the cap leaves")
    else:
        why = _why_whole(rule, payee, asset)
    story.share(
        line_no=line_no,
        rule_id=rule.id,
        generation=payee - 1 if payee and person and not person.role else getattr(rule, "level", 0),
        tier=person.tier if person else "",
        rate=why.rate,
        base_minor=base,
        exact_minor=why.exact,
        entitled_before_minor=entitled_before,
        entitled_after_minor=entitled_after,
        amount_minor=amount,
        kind=rule.kind,
        asset=asset,
        pool_minor=pool,
        rounding=why.rounding,
        member_id=person.member_id if person else "",
    )
    where = f"Line {line_no}" if line_no else "The order as a whole"
    if person:
        text = f"{where}, rule {rule.id}: {why.text} {to_major(entitled_after, asset)}"
    else:
        text = f"{where}, rule {rule.id}: {why.text} nobody qualified for {to_major(entitled_after, asset)} of it, which is breakage"
    if before:
        text += f"; before it was {to_major(entitled_before, asset)}, so the change is {to_major(amount, asset)}"
    story.sentences.append(text + ".")


def _why(rule: Paying, look: Look, payee: int, standing: Standing, asset: str, pool: int) -> Why:
    """How a rule comes to a payee's part of a line."""
    at, amount = look.at, look.amount
    base = to_major(at.base_minor, standing.fact.currency)
    if not payee:
        return _why_left(rule, at, amount, base, asset, pool)
    person = standing.people[payee - 1]
    if isinstance(rule, Seat):
        exact = exactly(amount.exactly(person.tier, at.base_minor, at.count), amount.denominator)
        rate = amount.rate_of(person.tier)
        return Why(
            rate.decimal if rate else "",
            exact,
            "half up",
            f"{_told(amount, person.tier, at, base, asset)} is {exact} minor units, rounded half up",
        )
    if isinstance(rule, Peer):
        return _why_peer(rule, at, amount, person, base, asset)
    found = PARTS[type(rule)](at, rule, amount)
    assert found is not None or not at.base_minor, "who has a share has a part"
    pool_exact, denominator, parts = found or (0, 1, [])
    exact = exactly(sum(part for one, part in parts if one == payee), denominator)
    rate = amount.rate_of(person.tier)
    pool_told = f"{exactly(pool_exact, denominator)} minor units ({_pool_of(amount, at, base, asset)})"
    shared = f"exactly {exact} of a pool of {pool_told}, by largest remainder"
    if isinstance(rule, Differential):
        return Why(
            rate.decimal if rate else "",
            exact,
            "largest remainder",
            f"tier {person.tier} gets {_told(amount, person.tier, at, base, asset)}, less what was met below: {shared}",
        )
    who = f"as the order's {person.role}" if person.role else "as the one who brought the buyer"
    return Why(rate.decimal if rate else "", exact, "largest remainder", f"{person.member_id} {who} has {shared}")


def _why_peer(rule: Peer, at: At, amount: Amount, person: Person, base: str, asset: str) -> Why:
    rate = amount.rate_of(person.tier)
    if rule.base == "line":
        exact = exactly(amount.exactly(person.tier, at.base_minor, at.count), amount.denominator)
        told = _told(amount, person.tier, at, base, asset)
        text = f"as the next {person.tier} above another, {told} is {exact} minor units, rounded half up"
        return Why(rate.decimal if rate else "", exact, "half up", text)
    assert rule.of is not None and rate is not None
    of = at.standing.plan.rules[rule.of]
    income: dict[str, int] = {}
    for _, payee, earned in at.earned.get(rule.of, ()):
        if payee:
            member_id = at.standing.people[payee - 1].member_id
            income[member_id] = income.get(member_id, 0) + earned
    first = next((one for one in at.standing.path if one.tier == person.tier and income.get(one.member_id)), None)
    earned = income[first.member_id] if first else 0
    exact = rate.exactly_of(earned)
    whose = f"the {to_major(earned, asset)} that {first.member_id if first else 'nobody'} earns by {of.id}"
    text = f"{rate.percent} of {whose} is {exact} minor units, rounded half up"
    return Why(rate.decimal, exact, "half up", text)


def _why_left(rule: Paying, at: At, amount: Amount, base: str, asset: str, pool: int) -> Why:
    """The pool of a rule, of which nobody has a part."""
    if isinstance(rule, Peer):
        return Why("", "", "half up", f"its seats come to {to_major(pool, asset)} in all;")
    rate = max((one for one in (amount.rate, *amount.rates.values()) if one is not None), default=None)
    exact = exactly(amount.top(at.base_minor, at.count), amount.denominator)
    rounding = "half up" if isinstance(rule, Seat) else "largest remainder"
    return Why(rate.decimal if rate else "", exact, rounding, f"the pool is {_pool_of(amount, at, base, asset)}, {to_major(pool, asset)};")


def _told(amount: Amount, tier: str, at: At, base: str, asset: str) -> str:
    """ "10% of 179.03", or "2 times 3.00"."""
    rate = amount.rate_of(tier)
    if rate is not None:
        return f"{rate.percent} of {base}"
    fixed = amount.fixed_by_tier.get(tier, amount.fixed) or 0
    return f"{at.count} times {to_major(fixed, asset)}"


def _pool_of(amount: Amount, at: At, base: str, asset: str) -> str:
    """What the top amount of a rule is a part of."""
    rates = [one for one in (amount.rate, *amount.rates.values()) if one is not None]
    fixed = [one for one in (amount.fixed, *amount.fixed_by_tier.values()) if one is not None]
    told = [f"{max(rates).percent} of {base}"] if rates else []
    if fixed:
        told.append(f"{at.count} times {to_major(max(fixed), asset)}")
    return " or ".join(told)


def _why_whole(rule: Rule, payee: int, asset: str) -> Why:
    """Shares of an order or a task as a whole."""
    if isinstance(rule, Counted):
        each = to_major(rule.fixed_minor, asset)
        often = f"each {rule.at}" if rule.repeat else f"once {rule.at}"
        return Why("", "", "none", f"{often} qualified invitees are worth {each} to who brought them; with this entry that comes to")
    assert isinstance(rule, Triggered)
    what = {"invite": "the buyer was brought by somebody", "upgrade": "the buyer was promoted", "task": f"task {rule.task} was done"}[
        rule.on
    ]
    side = "the one it happened to" if payee == 1 else "the one above"
    return Why("", "", "none", f"{what}; {side} gets" if payee else f"{what};")


# ---------------------------------------------------------------- tasks, periods


def _explain_task(story: Story, entry: Entry, posting: Posting, plans: Sequence[PlanVersion]) -> None:
    decided = entry.decision
    version = next(one for one in plans if one.position == decided.plan_position)
    _plan_of(story, version)
    for person in decided.people:
        story.people.append(codec.person_fields(person))
    for _, shares in decided.lines:
        for share in shares:
            if not _concerns(share, posting, version.plan, decided.people):
                continue
            rule = version.plan.rules[share.rule_index]
            why = _why_whole(rule, share.payee, posting.asset)
            story.share(
                rule_id=rule.id,
                entitled_after_minor=share.amount_minor,
                amount_minor=share.amount_minor,
                kind=rule.kind,
                asset=posting.asset,
                rounding=why.rounding,
                member_id=decided.people[share.payee - 1].member_id if share.payee else "",
            )
            amount = to_major(share.amount_minor, posting.asset)
            ending = f"{amount}." if share.payee else f"nobody stands above, and {amount} is breakage."
            story.sentences.append(f"Rule {rule.id}: {why.text} {ending}")


def _explain_period(story: Story, entry: Entry, posting: Posting, earlier: Sequence[Entry], plans: Sequence[PlanVersion]) -> None:
    """A closed period or a correction of it: rule by rule, from the figures it keeps."""
    before, after = fold_period(earlier), fold_period([*earlier, entry])
    assert after is not None
    decided = after.decision
    version = next(one for one in plans if one.position == decided.plan_position)
    plan = version.plan
    _plan_of(story, version)
    story.sentences.append(
        f"Period {after.closed.fact.period_id}, {to_text(decided.starts_us)} to {to_text(decided.ends_us)}, was closed at"
        f" {to_text(after.closed.occurred_us)} by plan {plan.plan_id} version {plan.version} (entry {version.position})."
    )
    if isinstance(entry.fact, PeriodCorrected):
        story.because_of.append(after.closed.position)
        story.sentences.append(
            f"Order {entry.fact.order_id} was taken back after that, so the period was computed again and the difference posted."
        )
    for share in entry.decision.shares:
        if not _concerns(share, posting, plan, decided.people):
            continue
        rule = plan.rules[share.rule_index]
        key = (share.payee, share.rule_index)
        was = before.shares.get(key, 0) if before else 0
        now = after.shares.get(key, 0)
        person = decided.people[share.payee - 1] if share.payee else None
        story.share(
            rule_id=rule.id,
            tier=person.tier if person else "",
            rate=rule.rate.decimal if isinstance(rule, PeriodPool) else "",
            base_minor=sum(after.volumes.get(share.rule_index, {}).values()),
            entitled_before_minor=was,
            entitled_after_minor=now,
            amount_minor=share.amount_minor,
            kind=rule.kind,
            asset=posting.asset,
            pool_minor=sum(amount for (_, index), amount in after.shares.items() if index == share.rule_index),
            rounding="half up" if isinstance(rule, Volume) else "largest remainder",
            member_id=person.member_id if person else "",
        )
        text = f"Rule {rule.id}: {_why_period(rule, share, after, posting.asset, plan.currency)} {to_major(now, posting.asset)}"
        if before:
            text += f"; before it was {to_major(was, posting.asset)}, so the change is {to_major(share.amount_minor, posting.asset)}"
        story.sentences.append(text + ".")


def _why_period(rule: Rule, share: Share, period: ClosedPeriod, asset: str, currency: str) -> str:
    tree = Tree(period.decision.people)
    own = period.volumes.get(share.rule_index, {})
    if isinstance(rule, PeriodPool):
        holders = period.holders.get(share.rule_index, {})
        pool = f"{rule.rate.percent} of {to_major(sum(own.values()), currency)} counted is the pool"
        if not share.payee:
            return f"{pool}; what of it nobody holds is breakage:"
        if rule.split == "volume":
            reached = tree.team(own) if rule.volume == "team" else own
            held, whole = reached.get(share.payee, 0), sum(reached.get(number, 0) for number in holders)
            return (
                f"{pool}, shared by {rule.volume} volume, {to_major(held, currency)} of {to_major(whole, currency)}, by largest remainder:"
            )
        weights = holders if rule.split == "shares" else dict.fromkeys(holders, 1)
        total = max(rule.of_total or 0, sum(weights.values()))
        return f"{pool}, shared by {rule.split}, {weights.get(share.payee, 0)} of {total}, by largest remainder:"
    if isinstance(rule, Volume):
        team = tree.team(own)
        legs = ", ".join(
            f"{period.decision.people[number - 1].member_id} {to_major(team.get(number, 0), currency)}"
            for number in tree.below[share.payee]
            if team.get(number)
        )
        return (
            f"own volume {to_major(own.get(share.payee, 0), currency)}, team volume {to_major(team.get(share.payee, 0), currency)}"
            f" (legs: {legs or 'none'}); own volume times the bracket, and each leg times what the bracket is above its own, half up:"
        )
    assert isinstance(rule, Rank)
    if not share.payee:
        return "places nobody took are breakage:"
    figures = {"team": tree.team, "direct": tree.direct}.get(rule.board, dict)(own)
    figure = figures.get(share.payee, 0)
    place = 1 + sum(other > figure for other in figures.values())
    ties = sum(other == figure for other in figures.values())
    told = to_major(figure, currency) if rule.board != "invites" else str(figure)
    together = f", together with {ties - 1} more, who share the places they take" if ties > 1 else ""
    return f"{told} on the board of {rule.board} is place {place}{together}:"
