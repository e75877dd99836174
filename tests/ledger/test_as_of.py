"""Reads as of any position, recorded time and occurred time: against what was answered then, and the log added up otherwise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any

import grpc
import pytest
from fenrun.ledger.v1 import ledger_pb2 as lp
from fenrun.log.v1 import log_pb2
from fenrun.referral.v1 import referral_pb2 as rp
from google.protobuf.timestamp_pb2 import Timestamp

from services.ledger.codec import MOVING, postings_of
from tests.given import Client, day, line, reason
from tests.golden.test_golden import EVERY_TYPE, HISTORIES, stored_entries
from tests.ledger.stories import log_of, tell_stories
from tests.oracle.oracle import Oracle
from tests.stateful.drawing import CURRENCY, RandomDrawing
from tests.stateful.driver import tell
from tests.stateful.grpc_driver import GrpcDriver, _postings

COMPANY = {
    log_pb2.ACCOUNT_COMMISSION,
    log_pb2.ACCOUNT_BREAKAGE,
    log_pb2.ACCOUNT_ADJUSTMENT,
    log_pb2.ACCOUNT_WRITE_OFF,
    log_pb2.ACCOUNT_CLEARING,
    log_pb2.ACCOUNT_OPENING,
}
APART = {log_pb2.ACCOUNT_DEPOSIT: "deposit", log_pb2.ACCOUNT_MARGIN: "margin"}
GROSS = {
    "order.paid.v1": "accrued",
    "task.done.v1": "accrued",
    "period.closed.v1": "accrued",
    "order.refunded.v1": "reversed",
    "order.voided.v1": "reversed",
    "adjustment.posted.v1": "adjusted",
    "balance.opened.v1": "adjusted",
}


def name_of(account: log_pb2.Account.ValueType) -> str:
    return log_pb2.Account.Name(account).removeprefix("ACCOUNT_").lower()


def moves(entry: log_pb2.Entry, member: str, asset: str) -> bool:
    return any((posting.member_id, posting.asset) == (member, asset) and posting.account not in APART for posting in _postings(entry))


def summed(entries: Sequence[log_pb2.Entry]) -> tuple[Counter[tuple[str, str, str]], Counter[tuple[str, str]]]:
    """{(member, asset, figure): amount} and {(account, asset): amount} of these entries, by what docs/accounts.md says of each."""
    members, accounts = Counter[tuple[str, str, str]](), Counter[tuple[str, str]]()
    for entry in entries:
        net: Counter[tuple[str, str]] = Counter()
        for posting in _postings(entry):
            account = name_of(posting.account)
            accounts[account, posting.asset] += posting.amount_minor
            if posting.account not in COMPANY:
                members[posting.member_id, posting.asset, account] += posting.amount_minor
                if posting.account not in APART:
                    net[posting.member_id, posting.asset] += posting.amount_minor
        for (member, asset), amount in net.items():
            figure = GROSS.get(entry.type, "")
            if entry.type == "period.corrected.v1":
                figure = "accrued" if amount > 0 else "reversed"
            if figure:
                members[member, asset, figure] += -amount if figure == "reversed" else amount
    return members, accounts


def figures(balance: lp.Balance) -> dict[str, int]:
    names = ("pending", "available", "reserved", "paid", "accrued", "reversed", "adjusted", "deposit", "margin")
    found = {name: getattr(balance, f"{name}_minor") for name in names} | {"debt": -balance.debt_minor}
    return {name: amount for name, amount in found.items() if amount}


def earlier(moment: Timestamp) -> Timestamp:
    found = Timestamp()
    found.FromMicroseconds(moment.ToMicroseconds() - 1)
    return found


@pytest.fixture(scope="module")
def stories(channel: grpc.Channel, fresh_program_id: Callable[[], str]) -> list[tuple[Client, Oracle]]:
    return tell_stories(channel, fresh_program_id, "as of", 4)


def moments(entries: Sequence[log_pb2.Entry], generator: Random) -> Iterator[tuple[dict[str, Any], list[log_pb2.Entry]]]:
    """What to ask for, in some of all possible ways, and the entries that count then."""
    for _ in range(5):
        at = generator.choice(entries)
        by: Timestamp = generator.choice(entries).occurred_at
        if generator.random() < 0.3:
            by = earlier(by)
        upto = [entry for entry in entries if entry.position <= at.position]
        happened = [entry for entry in entries if entry.occurred_at.ToMicroseconds() <= by.ToMicroseconds()]
        both = [entry for entry in upto if entry.occurred_at.ToMicroseconds() <= by.ToMicroseconds()]
        yield {"position": at.position}, upto
        yield {"recorded_at": at.recorded_at}, upto
        yield {"recorded_at": earlier(at.recorded_at)}, upto[:-1]
        yield {"occurred_at": by}, happened
        yield {"position": at.position, "occurred_at": by}, both
        yield {"recorded_at": at.recorded_at, "occurred_at": by}, both


def test_balances_and_trial_balances_are_the_log_added_up(stories: list[tuple[Client, Oracle]]) -> None:
    """Of every member and asset, as of anything: what the postings of the entries that count come to."""
    compared = 0
    for number, (client, oracle) in enumerate(stories):
        entries, program_id = log_of(client), client.program_id
        for asked, counted in moments(entries, Random(number)):
            position = max((entry.position for entry in counted), default=0) if "occurred_at" not in asked else None
            members, accounts = summed(counted)
            enrolled = sorted(entry.stream.removeprefix("member/") for entry in counted if entry.type == "member.enrolled.v1")
            for asset in oracle.assets():
                trial = client.ledger.TrialBalance(lp.TrialBalanceRequest(program_id=program_id, asset=asset, **asked))
                assert position is None or trial.position == position
                got = {name_of(one.account): one.balance.minor_units for one in trial.accounts}
                assert got == {name: accounts[name, asset] for name in got}
                assert len(got) == len(log_pb2.Account.values()) - 1 and sum(got.values()) == 0
                listed: dict[str, dict[str, int]] = {}
                token = ""
                while True:
                    request = lp.ListBalancesRequest(program_id=program_id, asset=asset, page_size=2, page_token=token, **asked)
                    page = client.ledger.ListBalances(request)
                    assert position is None or page.position == position
                    listed |= {one.member_id: figures(one) for one in page.balances}
                    token = page.next_page_token
                    if not token:
                        break
                assert sorted(listed) == enrolled
                for member in oracle.members():
                    answer = client.ledger.GetBalance(lp.GetBalanceRequest(program_id=program_id, member_id=member, asset=asset, **asked))
                    expected = {name: amount for (who, what, name), amount in members.items() if (who, what) == (member, asset) and amount}
                    assert figures(answer.balance) == expected, asked
                    assert listed.get(member, expected) == expected
                    moved = [entry.position for entry in counted if moves(entry, member, asset)]
                    assert answer.balance.position == max(moved, default=0)
                    compared += bool(expected)
    assert compared > 100


def test_the_past_is_folded_from_every_kind_of_entry_that_moves_amounts() -> None:
    kept = [stored for history in HISTORIES for stored in stored_entries(history)]
    assert {stored.type for stored in kept} == EVERY_TYPE
    assert {stored.type for stored in kept if postings_of(stored)} == set(MOVING)


# ---------------------------------------------------------------- members


class Standing:
    """A member as some entries leave them: what docs/log.md says of each, on the stored messages."""

    def __init__(self, member_id: str) -> None:
        self.member_id = member_id
        self.enrolled = self.locked = self.frozen = False
        self.referrer = self.tier = self.behind = ""
        self.bound = self.since = self.behind_since = 0
        self.until: Timestamp | None = None

    def take(self, entry: log_pb2.Entry) -> None:
        fact_of, decision_of = entry.fact, entry.decision
        match entry.type:
            case "member.enrolled.v1":
                told = log_pb2.MemberEnrolled.FromString(fact_of)
                if told.member_id == self.member_id:
                    self.enrolled, self.referrer = True, told.referrer_id
            case "member.touched.v1":
                touched = log_pb2.MemberTouched.FromString(fact_of)
                if touched.member_id == self.member_id and log_pb2.MemberTouchedDecision.FromString(decision_of).counts and self.enrolled:
                    self.referrer = touched.referrer_id
            case "member.upgraded.v1":
                upgraded, decided = log_pb2.MemberUpgraded.FromString(fact_of), log_pb2.MemberUpgradedDecision.FromString(decision_of)
                if upgraded.member_id == self.member_id and self.enrolled:
                    self.tier, self.since, self.frozen, self.until = upgraded.tier, entry.position, False, None
                    if upgraded.HasField("expires_at"):
                        self.until = upgraded.expires_at
                        self.behind, self.behind_since = decided.previous_tier, decided.previous_tier_position
                self.lock(decided.binding_locked, entry.position)
            case "member.binding_corrected.v1":
                corrected = log_pb2.BindingCorrected.FromString(fact_of)
                if corrected.member_id == self.member_id and self.enrolled:
                    self.locked, self.referrer, self.bound = True, corrected.referrer_id, entry.position
            case "order.paid.v1":
                paid = log_pb2.OrderPaidDecision.FromString(decision_of)
                self.lock(paid.binding_locked, entry.position)
                self.change(paid.tier_changes, entry.position)
            case "order.refunded.v1" | "order.voided.v1":
                back = log_pb2.OrderRefundedDecision.FromString(decision_of)
                if back.binding_released_member_id == self.member_id:
                    self.locked, self.bound = False, 0
                self.change(back.tier_changes, entry.position)

    def lock(self, lock: log_pb2.BindingLocked, position: int) -> None:
        if lock.member_id == self.member_id and self.enrolled:
            self.locked, self.referrer, self.bound = True, lock.referrer_id, position

    def change(self, changes: Any, position: int) -> None:
        for change in changes:
            if change.member_id == self.member_id and self.enrolled:
                self.frozen = change.kind == log_pb2.TIER_CHANGE_KIND_FROZEN
                if not self.frozen:
                    self.tier, self.until = change.tier, None
                    self.since = (change.tier_position or position) if change.tier else 0

    def at(self, by: Timestamp | None) -> tuple[Any, ...]:
        tier, since, until = self.tier, self.since, self.until
        if by is not None and until is not None and not self.frozen and by.ToMicroseconds() >= until.ToMicroseconds():
            tier, since, until = self.behind, self.behind_since, None
        return tier, since, until.ToMicroseconds() if until else None, self.frozen, self.locked, self.referrer, self.bound


def told(member: rp.Member) -> tuple[Any, ...]:
    until = member.tier_expires_at.ToMicroseconds() if member.HasField("tier_expires_at") else None
    standing = (member.tier, member.tier_position, until, member.tier_frozen)
    return (*standing, member.locked, member.referrer_id, member.binding_position)


def test_members_are_what_the_entries_that_count_made_of_them(stories: list[tuple[Client, Oracle]]) -> None:
    """Tier, seat, freeze and binding; somebody not enrolled by then is nobody."""
    unknown = compared = 0
    for number, (client, oracle) in enumerate(stories):
        entries = log_of(client)
        for asked, counted in moments(entries, Random(f"members {number}")):
            for member_id in oracle.members():
                standing = Standing(member_id)
                for entry in counted:
                    standing.take(entry)
                request = rp.GetMemberRequest(program_id=client.program_id, member_id=member_id, **asked)
                if not standing.enrolled:
                    with pytest.raises(grpc.RpcError) as caught:
                        client.referral.GetMember(request)
                    assert reason(caught.value)[1] == "MEMBER_UNKNOWN"
                    unknown += 1
                    continue
                answer = client.referral.GetMember(request)
                assert told(answer.member) == standing.at(asked.get("occurred_at")), (member_id, asked)
                assert "occurred_at" in asked or answer.as_of_position == max(entry.position for entry in counted)
                compared += bool(answer.member.tier)
    assert unknown > 20 and compared > 20


def test_what_was_answered_once_is_answered_as_of_then(channel: grpc.Channel, fresh_program_id: Callable[[], str]) -> None:
    """A story told fact by fact; whatever was answered in between is what the same question gives as of that position."""
    program_id, oracle = fresh_program_id(), Oracle(CURRENCY)
    books, client = GrpcDriver(channel, program_id, CURRENCY), Client.of(channel, program_id)
    draw = RandomDrawing(Random("then"), oracle)
    then: list[tuple[int, Any, Any, Any, Any]] = []
    history: list[Any] = []
    for fact in [*draw.opening(), *(None for _ in range(100))]:
        fact = fact or draw.anything(history)
        history.append(fact)
        tell(oracle, fact)
        tell(books, fact)
        who = oracle.members()[0] if len(oracle.members()) < 3 else oracle.members()[len(history) % 3]
        member = client.referral.GetMember(rp.GetMemberRequest(program_id=program_id, member_id=who))
        upline = client.referral.GetUpline(rp.GetUplineRequest(program_id=program_id, member_id=who))
        roles = client.referral.ListRoles(rp.ListRolesRequest(program_id=program_id))
        trial = client.ledger.TrialBalance(lp.TrialBalanceRequest(program_id=program_id))
        assert member.as_of_position == upline.as_of_position == roles.as_of_position == trial.position == oracle.position()
        then.append((oracle.position(), member, upline, roles, trial))
    assert len({position for position, *_ in then}) > 40
    for position, member, upline, roles, trial in then:
        who = member.member.member_id
        again = client.referral.GetMember(rp.GetMemberRequest(program_id=program_id, member_id=who, position=position))
        assert again.member == member.member
        assert client.referral.GetUpline(rp.GetUplineRequest(program_id=program_id, member_id=who, position=position)) == upline
        assert client.referral.ListRoles(rp.ListRolesRequest(program_id=program_id, position=position)) == roles
        assert client.ledger.TrialBalance(lp.TrialBalanceRequest(program_id=program_id, position=position)) == trial


# ---------------------------------------------------------------- by hand


def member(client: Client, **asked: Any) -> rp.Member:
    return client.referral.GetMember(rp.GetMemberRequest(program_id=client.program_id, member_id="A", **asked)).member


def test_a_late_told_fact_is_known_now_and_was_not_known_then(client: Client) -> None:
    """Bitemporal: what had happened by a day, as the book has it now, and as it had it before the news came in."""
    client.publish()
    client.enroll("A")
    client.enroll("B", "A")
    client.order("O1", "B", line(1, 10_000), at=2)
    news = client.order("O2", "B", line(1, 5_000), at=1).receipt.position

    def pending(**asked: Any) -> int:
        request = lp.GetBalanceRequest(program_id=client.program_id, member_id="A", **asked)
        return client.ledger.GetBalance(request).balance.pending_minor

    assert pending() == 1500
    assert pending(occurred_at=day(1.5)) == 500
    assert pending(position=news - 1, occurred_at=day(1.5)) == 0
    assert pending(position=news - 1) == 1000
    assert pending(occurred_at=day(0)) == 0


def test_a_seat_counts_as_ended_at_its_end_and_a_correction_as_made_on_its_day(client: Client) -> None:
    client.publish()
    for who in ("A", "B", "C"):
        client.enroll(who)
    client.touch("t1", "A", "B", at=1)
    client.upgrade("u1", "A", "member", at=2)
    since = client.seat("u2", "A", "manager", at=3, until=10).receipt.position
    client.correct("c1", "A", "C", at=6)
    seats = [member(client, occurred_at=day(at)) for at in (2, 3, 9.5, 10)]
    assert [found.tier for found in seats] == ["member", "manager", "manager", "member"]
    assert [found.HasField("tier_expires_at") for found in seats] == [False, True, True, False]
    assert member(client, occurred_at=day(10)).tier_position == since - 1
    # As the book stands, a seat is told with its end.
    assert member(client, position=since).tier_expires_at == day(10)
    assert [member(client, occurred_at=day(at)).referrer_id for at in (5.5, 6)] == ["B", "C"]
    assert not member(client, occurred_at=day(1)).locked
    above = client.referral.GetUpline(rp.GetUplineRequest(program_id=client.program_id, member_id="A", occurred_at=day(5)))
    assert [one.member_id for one in above.members] == ["B"]


def test_a_role_ends_by_itself_or_by_what_was_known(client: Client) -> None:
    client.publish()
    client.enroll("A")
    client.role("g1", "A", "region", "sh", at=2)
    told_end = client.end_role("g1", at=5).receipt.position

    def untils(**asked: Any) -> list[str]:
        found = client.referral.ListRoles(rp.ListRolesRequest(program_id=client.program_id, **asked))
        return [one.effective_until.ToJsonString() if one.HasField("effective_until") else "open" for one in found.roles]

    assert untils() == untils(position=told_end) == ["2026-01-05T00:00:00Z"]
    assert untils(position=told_end - 1) == ["open"]
    assert untils(position=told_end - 2) == []
    assert untils(occurred_at=day(4)) == ["open"]
    assert untils(occurred_at=day(1)) == []
    assert untils(position=told_end, at=day(6)) == []
    assert untils(position=told_end - 1, at=day(6)) == ["open"]


def test_deposits_and_margins_are_as_of_then_too(client: Client) -> None:
    client.publish()
    client.enroll("A")
    client.enroll("B")
    first = client.deposit("d1", "A", log_pb2.DEPOSIT_KIND_PAID_IN, 5000, at=2).receipt.position
    client.stock("s1", "A", "B", ("sku", 2, 100, 150), at=3)
    client.deposit("d2", "A", log_pb2.DEPOSIT_KIND_RETURNED, 1000, at=4)

    def held(**asked: Any) -> tuple[int, int]:
        found = client.ledger.GetBalance(lp.GetBalanceRequest(program_id=client.program_id, member_id="A", **asked)).balance
        return found.deposit_minor, found.margin_minor

    assert (held(), held(position=first), held(position=first - 1)) == ((4000, 100), (5000, 0), (0, 0))
    assert (held(occurred_at=day(3.5)), held(position=first, occurred_at=day(3.5))) == ((5000, 100), (5000, 0))


@pytest.mark.parametrize("call", ["GetBalance", "TrialBalance", "ListBalances", "GetMember", "GetUpline", "ListRoles"])
def test_a_position_beyond_the_head_and_a_time_too_fine_are_refused(client: Client, call: str) -> None:
    client.publish()
    client.enroll("A")
    stub = client.ledger if "alance" in call else client.referral
    requests = lp if "alance" in call else rp
    fields: dict[str, Any] = {"program_id": client.program_id}
    if call in ("GetBalance", "GetMember", "GetUpline"):
        fields["member_id"] = "A"
    for asked, expected in (({"position": 4}, "POSITION_BEYOND_HEAD"), ({"occurred_at": Timestamp(nanos=1)}, "MALFORMED")):
        with pytest.raises(grpc.RpcError) as caught:
            getattr(stub, call)(getattr(requests, f"{call}Request")(**fields, **asked))
        assert reason(caught.value)[1] == expected


def test_pages_of_the_past_stay_at_the_position_of_the_first_one(client: Client) -> None:
    """Also where only an occurred time was asked for, and the log went on meanwhile."""
    client.publish()
    for who in ("A", "B", "C"):
        client.enroll(who)
    ask = lp.ListBalancesRequest(program_id=client.program_id, page_size=2, occurred_at=day(5))
    first = client.ledger.ListBalances(ask)
    client.enroll("D")
    ask.page_token = first.next_page_token
    second = client.ledger.ListBalances(ask)
    assert ([one.member_id for one in second.balances], second.position) == (["C"], first.position)
    ask.occurred_at.CopyFrom(day(6))
    with pytest.raises(grpc.RpcError) as caught:
        client.ledger.ListBalances(ask)
    assert reason(caught.value)[1] == "TOKEN_INVALID"
