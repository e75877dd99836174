"""Requests nobody would write on purpose: each is an answer with a reason, never INTERNAL, and the books stay right."""

import base64
import json
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from fenrun.ledger.v1 import ledger_pb2
from fenrun.log.v1 import log_pb2
from fenrun.ops.v1 import ops_pb2
from fenrun.referral.v1 import referral_pb2
from fenrun.type.v1 import type_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from services.runtime import tokens
from tests.faults.histories import positions_of, whole_log, wrong_with
from tests.faults.processes import SHORTLY_S
from tests.given import Client, day, line, money, reason

INT64_MAX, INT64_MIN, UINT64_MAX = 2**63 - 1, -(2**63), 2**64 - 1
INVALID = grpc.StatusCode.INVALID_ARGUMENT


@pytest.fixture
def shop(client: Client) -> Client:
    """A program with a plan, ann, bob whom she brought, and an order of his."""
    client.publish()
    client.enroll("ann")
    client.enroll("bob", "ann")
    client.order("O1", "bob", line(1, 1000))
    return client


def refused(call: Callable[[], object]) -> tuple[grpc.StatusCode, str]:
    """(status code, reason) of a call that is refused."""
    with pytest.raises(grpc.RpcError) as refusal:
        call()
    code, why, _ = reason(refusal.value)
    return code, why


def correction(shop: Client, adjustment_id: str, minor_units: int) -> ledger_pb2.PostAdjustmentRequest:
    return ledger_pb2.PostAdjustmentRequest(
        program_id=shop.program_id,
        adjustment_id=adjustment_id,
        member_id="ann",
        kind=log_pb2.ADJUSTMENT_KIND_CORRECTION,
        amount=money(minor_units),
        reason="because",
        requested_by="ann",
        approved_by="bob",
        posted_at=day(2),
    )


# ---------------------------------------------------------------- numbers and times

MOMENTS = [
    (INT64_MAX, 0),
    (INT64_MIN, 0),
    (253_402_300_800, 0),
    (-62_135_596_801, 0),
    (0, 1),
    (0, -1000),
    (0, 1_000_000_000),
    (0, 2**31 - 1),
    (0, -(2**31)),
]


@pytest.mark.parametrize(("seconds", "nanos"), MOMENTS)
def test_a_time_outside_the_calendar_is_malformed(shop: Client, seconds: int, nanos: int) -> None:
    """Whatever protobuf can carry but no calendar or microsecond can hold is refused, in commands and in questions."""
    at, program = Timestamp(seconds=seconds, nanos=nanos), shop.program_id
    order = ledger_pb2.Order(order_id="O2", member_id="bob", paid_at=at, currency="GBP", lines=[line(1, 1)])
    for call in (
        lambda: shop.ledger.RecordOrder(ledger_pb2.RecordOrderRequest(program_id=program, order=order)),
        lambda: shop.ledger.ReleaseDue(ledger_pb2.ReleaseDueRequest(program_id=program, as_of=at)),
        lambda: shop.ledger.GetBalance(ledger_pb2.GetBalanceRequest(program_id=program, member_id="ann", recorded_at=at)),
        lambda: shop.ledger.GetPlan(ledger_pb2.GetPlanRequest(program_id=program, in_force_at=at)),
        lambda: shop.referral.EnrollMember(referral_pb2.EnrollMemberRequest(program_id=program, member_id="cat", enrolled_at=at)),
    ):
        assert refused(call) == (INVALID, "MALFORMED")
    answer = shop.ledger.RecordOrders(ledger_pb2.RecordOrdersRequest(program_id=program, orders=[order]))
    assert [result.error.code for result in answer.results] == [INVALID.value[0]]


@pytest.mark.parametrize("base_minor", [INT64_MAX, INT64_MIN, -1, 10**12 + 1])
@pytest.mark.parametrize("quantity", [INT64_MAX, INT64_MIN, -1, 10**12 + 1])
def test_an_amount_or_quantity_out_of_range_is_malformed(shop: Client, base_minor: int, quantity: int) -> None:
    """No arithmetic is done on what cannot be right, in orders and in refunds."""
    for told in (line(1, base_minor), line(1, 1, quantity)):
        assert refused(lambda told=told: shop.order("O2", "bob", told)) == (INVALID, "MALFORMED")  # type: ignore[misc]  # called at once
    for part in ((1, 0, base_minor), (1, quantity, 0)):
        assert refused(lambda part=part: shop.refund("R1", "O1", part)) == (INVALID, "MALFORMED")  # type: ignore[misc]


@pytest.mark.parametrize("amount", [INT64_MIN, -(10**15) - 1, 10**15 + 1, INT64_MAX])
def test_an_adjustment_out_of_range_is_malformed(shop: Client, amount: int) -> None:
    """A correction that no balance should ever see is refused."""
    request = correction(shop, "A1", amount)
    assert refused(lambda: shop.ledger.PostAdjustment(request)) == (INVALID, "MALFORMED")


@pytest.mark.long
def test_a_balance_that_would_not_fit_64_bits_is_malformed(shop: Client) -> None:
    """Nine thousand of the largest corrections fit, the next is refused, and the books are right."""

    def credit(number: int) -> str:
        try:
            shop.ledger.PostAdjustment(correction(shop, f"A{number}", 10**15))
        except grpc.RpcError as error:
            return reason(error)[1]
        return ""

    with ThreadPoolExecutor(50) as hands:
        answers = Counter(hands.map(credit, range(9300), timeout=10 * SHORTLY_S))
    assert answers == {"": INT64_MAX // 10**15, "MALFORMED": 9300 - INT64_MAX // 10**15}
    assert shop.differences() == []


@pytest.mark.parametrize("position", [10**9, INT64_MAX, INT64_MAX + 1, UINT64_MAX])
def test_a_position_beyond_the_log_is_answered(shop: Client, position: int) -> None:
    """A position that no log of ours will ever reach is beyond the head, or has nothing after it."""
    program, out_of_range = shop.program_id, (grpc.StatusCode.OUT_OF_RANGE, "POSITION_BEYOND_HEAD")
    balance = ledger_pb2.GetBalanceRequest(program_id=program, member_id="ann", position=position)
    assert refused(lambda: shop.ledger.GetBalance(balance)) == out_of_range
    watch = ops_pb2.WatchEntriesRequest(program_id=program, after_position=position)
    assert refused(lambda: next(shop.ops.WatchEntries(watch, timeout=SHORTLY_S))) == out_of_range
    plan = ledger_pb2.GetPlanRequest(program_id=program, position=position)
    assert refused(lambda: shop.ledger.GetPlan(plan)) == (grpc.StatusCode.NOT_FOUND, "PLAN_UNKNOWN")
    entries = ops_pb2.ReadEntriesRequest(program_id=program, after_position=position)
    assert not shop.ops.ReadEntries(entries).entries


@pytest.mark.parametrize("posting_id", ["9223372036854775807.1", "9223372036854775808.1", "9999999999999999999.999999"])
def test_a_posting_beyond_64_bits_is_answered(shop: Client, posting_id: str) -> None:
    """An id that has the form of a posting's and names none is unknown or malformed."""
    request = ledger_pb2.ExplainRequest(program_id=shop.program_id, posting_id=posting_id)
    assert refused(lambda: shop.ledger.Explain(request)) in (
        (grpc.StatusCode.NOT_FOUND, "POSTING_UNKNOWN"),
        (INVALID, "MALFORMED"),
    )


# ---------------------------------------------------------------- texts


@pytest.mark.parametrize("member_id", ["", " ", "a b", "a/b", "é", "x" * 101, "\0", "a\0b", "a\n", "\N{RIGHT-TO-LEFT OVERRIDE}"])
def test_an_id_that_is_none_is_malformed(shop: Client, member_id: str) -> None:
    """Ids are printable ASCII without space and slash, to the last character."""
    request = referral_pb2.EnrollMemberRequest(program_id=shop.program_id, member_id=member_id, enrolled_at=day(1))
    assert refused(lambda: shop.referral.EnrollMember(request)) == (INVALID, "MALFORMED")


@pytest.mark.parametrize("member_id", ["{", "}", '"', "\\", '{"a"}', "NULL", ",", "%s", "$1", "';drop", "x" * 100])
def test_an_id_that_looks_like_something_else_is_an_id(shop: Client, member_id: str) -> None:
    """What means something to SQL, to its arrays or to Python means nothing here."""
    shop.enroll(member_id, "ann")
    shop.order(f"order-of-{member_id}"[:100], member_id, line(1, 1000))
    member = shop.referral.GetMember(referral_pb2.GetMemberRequest(program_id=shop.program_id, member_id=member_id)).member
    assert (member.member_id, member.referrer_id, member.locked) == (member_id, "ann", True)
    assert shop.differences() == []


def test_a_text_with_a_zero_byte_is_malformed(shop: Client) -> None:
    """PostgreSQL cannot hold it; where it would have to, the caller is told."""
    evidence = log_pb2.Evidence(kind=log_pb2.EVIDENCE_KIND_PAID_ORDER, order_id="O\0001")
    upgrade = referral_pb2.UpgradeMemberRequest(
        program_id=shop.program_id, upgrade_id="U1", member_id="bob", tier="member", upgraded_at=day(3), evidence=evidence
    )
    assert refused(lambda: shop.referral.UpgradeMember(upgrade)) == (INVALID, "MALFORMED")
    entries = ops_pb2.ReadEntriesRequest(program_id=shop.program_id, stream="order/\0")
    assert refused(lambda: shop.ops.ReadEntries(entries)) == (INVALID, "MALFORMED")


def sealed(content: bytes) -> str:
    """Something in the clothes of a token."""
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


FORGED = {
    "a letter": "x",
    "no base64": "%%%",
    "not ASCII": "é" * 5,
    "zero byte": "\0",
    "not JSON": sealed(b"nonsense"),
    "not UTF-8": sealed(b"\xff\xfe"),
    "no list": sealed(b"{}"),
    "infinity": sealed(b"[1e400]"),
    "deep": sealed(b"[" * 100_000 + b"]" * 100_000),
    "huge number": sealed(b'["entries","",' + b"9" * 10_000 + b"]"),
    "long": "A" * 1_000_000,
    "of another call": tokens.make("postings", "bob", 1),
}


@pytest.mark.parametrize("token", FORGED.values(), ids=FORGED.keys())
def test_a_token_that_was_not_given_is_invalid(shop: Client, token: str) -> None:
    """Page tokens and consistency tokens are checked for what they are, however they are made."""
    program = shop.program_id
    fresh = type_pb2.ReadConsistency(at_least_as_fresh=token)
    for call in (
        lambda: shop.ledger.GetBalance(ledger_pb2.GetBalanceRequest(program_id=program, member_id="ann", consistency=fresh)),
        lambda: shop.ledger.ListPostings(ledger_pb2.ListPostingsRequest(program_id=program, member_id="ann", page_token=token)),
        lambda: shop.ledger.ListBalances(ledger_pb2.ListBalancesRequest(program_id=program, page_token=token)),
        lambda: shop.referral.ListDownline(referral_pb2.ListDownlineRequest(program_id=program, member_id="ann", page_token=token)),
        lambda: shop.ops.ReadEntries(ops_pb2.ReadEntriesRequest(program_id=program, page_token=token)),
    ):
        assert refused(call) == (INVALID, "TOKEN_INVALID")


@pytest.mark.parametrize("last", ["\0", "\ud800", "\udfff\0"])
def test_a_token_with_text_that_is_none_is_refused(shop: Client, last: str) -> None:
    """JSON can say what neither UTF-8 nor PostgreSQL can: half a surrogate pair, a zero byte."""
    balances = sealed(json.dumps(["balances", "", last]).encode())
    downline = sealed(json.dumps(["downline", "ann:1", 1, last]).encode())
    for call in (
        lambda: shop.ledger.ListBalances(ledger_pb2.ListBalancesRequest(program_id=shop.program_id, page_token=balances)),
        lambda: shop.referral.ListDownline(
            referral_pb2.ListDownlineRequest(program_id=shop.program_id, member_id="ann", page_token=downline)
        ),
    ):
        assert refused(call) in ((INVALID, "TOKEN_INVALID"), (INVALID, "MALFORMED"))


# ---------------------------------------------------------------- plans

RULE = "rules: [{id: a, kind: self, rate: 1%}]\n"
DOCUMENTS = {
    "empty mapping": "{}",
    "a number of 6,000 digits": "plan: x\nversion: 0x" + "f" * 6000,
    "a key of 20,000 letters": f"plan: x\nversion: 1\ncurrency: GBP\n{RULE}? {'k' * 20_000}\n: 1",
    "an id of 50,000 letters": "plan: " + "x" * 50_000,
    "half a surrogate pair as key": f'plan: x\nversion: 1\ncurrency: GBP\n{RULE}"\\ud800": 1',
    "half a surrogate pair as value": 'plan: "\\ud800"',
    "deep lists": "[" * 100_000,
    "deep mappings": "{a: " * 40_000,
    "itself": "plan: &a [*a]",
    "many aliases": "a: &a [x]\nb: [" + "*a," * 10_000 + "]",
    "merge key": "a: &a {plan: x}\n<<: *a",
    "a list as key": "? [a]\n: 1",
    "python": "plan: !!python/object/apply:os.system ['id']",
    "a bool that is none": "plan: !!bool abc",
    "a time that is none": "plan: !!timestamp abc",
    "an empty number": "plan: !!int ''",
    "an empty float": "plan: !!float ''",
    "bytes": "plan: !!binary aGVsbG8=",
    "a set": "!!set {plan, version}",
    "until before a beginning after the year 9999": (
        f'plan: x\nversion: 1\ncurrency: GBP\n{RULE}effective: {{from: "9999-12-31T23:59:59-23:00", until: "9999-12-31T00:00:00Z"}}'
    ),
    "until before the year 1": f'plan: x\nversion: 1\ncurrency: GBP\n{RULE}effective: {{until: "0001-01-01T00:00:00+23:00"}}',
    "a beginning after the year 9999": f'plan: x\nversion: 1\ncurrency: GBP\n{RULE}effective: {{from: "9999-12-31T23:59:59-23:00"}}',
}


@pytest.mark.parametrize("document", DOCUMENTS.values(), ids=DOCUMENTS.keys())
def test_a_document_that_is_no_plan_is_invalid(client: Client, document: str) -> None:
    """Whatever YAML can be made to say, what is not a plan is refused as such."""
    assert refused(lambda: client.publish(document)) == (INVALID, "PLAN_INVALID")


# ---------------------------------------------------------------- large refusals


@pytest.mark.parametrize("lines", [1, 30, 10_000])
def test_a_refusal_arrives_however_much_is_wrong(shop: Client, lines: int) -> None:
    """A status travels in headers, of which gRPC takes 8 KiB: a request with 30,000 mistakes still gets its reason."""
    wrong = [log_pb2.OrderLine(line_no=0, base_minor=-1, quantity=-1)] * lines
    assert refused(lambda: shop.order("O2", "bob", *wrong)) == (INVALID, "MALFORMED")


def test_a_refusal_arrives_however_long_what_it_quotes(shop: Client) -> None:
    """The same hold with another reason of 500 characters that UTF-8 and percent-encoding make nine times as long; a plan of 100 KB."""

    def hold(character: str) -> ledger_pb2.PlaceHoldRequest:
        return ledger_pb2.PlaceHoldRequest(
            program_id=shop.program_id, hold_id="H1", member_id="ann", reason=character * 500, placed_at=day(3)
        )

    shop.ledger.PlaceHold(hold("中"))
    assert refused(lambda: shop.ledger.PlaceHold(hold("国"))) == (grpc.StatusCode.ALREADY_EXISTS, "ID_REUSED")
    skus = ", ".join(f"sku{number}" for number in range(10_000))
    document = f"plan: long\nversion: 1\ncurrency: GBP\nrules: [{{id: a, kind: self, rate: 1%, when: {{skus: [{skus}]}}}}]"
    shop.publish(document)
    assert refused(lambda: shop.publish(document.replace("1%", "2%"))) == (grpc.StatusCode.ALREADY_EXISTS, "ID_REUSED")
    tier = referral_pb2.UpgradeMemberRequest(
        program_id=shop.program_id,
        upgrade_id="U1",
        member_id="ann",
        tier="x" * 100,
        upgraded_at=day(1),
        evidence=log_pb2.Evidence(kind=log_pb2.EVIDENCE_KIND_VOLUME),
    )
    assert refused(lambda: shop.referral.UpgradeMember(tier)) == (grpc.StatusCode.FAILED_PRECONDITION, "TIER_UNKNOWN")
    verification = ops_pb2.VerifyProjectionsRequest(program_id=shop.program_id, projections=["x" * 50_000])
    code, why = refused(lambda: list(shop.ops.VerifyProjections(verification)))
    assert (code, why) in ((grpc.StatusCode.NOT_FOUND, "PROJECTION_UNKNOWN"), (INVALID, "MALFORMED"))


# ---------------------------------------------------------------- callers that leave, and many at once


def test_calls_given_up_on_leave_the_books_right(shop: Client) -> None:
    """Hundreds of calls whose deadline passes or whose caller leaves: each order is recorded once or not at all, and the next call is
    answered."""

    def leave(number: int) -> None:
        told = shop.told_order(f"left-{number}", "bob", line(1, 100))
        request = ledger_pb2.RecordOrderRequest(program_id=shop.program_id, order=told)
        if number % 2:
            call = shop.ledger.RecordOrder.future(request, timeout=SHORTLY_S)
            call.cancel()
        else:
            call = shop.ledger.RecordOrder.future(request, timeout=(number % 40) / 1000)
            call.exception(SHORTLY_S)

    with ThreadPoolExecutor(20) as hands:
        list(hands.map(leave, range(400), timeout=SHORTLY_S))
    shop.order("stayed", "bob", line(1, 100))
    log = whole_log(shop)
    assert wrong_with(log) == []
    assert "order.paid.v1 stayed" in positions_of(log)
    assert shop.differences() == []


def test_two_hundred_watchers_hold_nobody_up(shop: Client) -> None:
    """Two hundred streams follow a program while orders are recorded: every one sees every entry once, in order."""
    expected = list(range(1, 26))

    def watch(_: int) -> list[int]:
        seen: list[int] = []
        request = ops_pb2.WatchEntriesRequest(program_id=shop.program_id)
        for message in shop.ops.WatchEntries(request, timeout=2 * SHORTLY_S):
            seen += [entry.position for entry in message.entries]
            arrived.release()
            if seen[-1] >= expected[-1]:
                break
        return seen

    arrived = threading.Semaphore(0)
    with ThreadPoolExecutor(200) as hands:
        watchers = [hands.submit(watch, number) for number in range(200)]
        for _ in watchers:
            assert arrived.acquire(timeout=SHORTLY_S)
        for number in range(20):
            shop.order(f"watched-{number}", "bob", line(1, 100))
        assert all(watcher.result(2 * SHORTLY_S) == expected for watcher in watchers)
