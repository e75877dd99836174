"""What the load clients send, and that they see a wrong answer."""

import pytest
from fenrun.ledger.v1 import ledger_pb2
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2

from tests.bench import shop
from tests.bench.load import METHODS, Kind, Measured, Supply
from tests.bench.machine import Usage

SMALL = shop.tree("small", 30, 3)


def measured() -> Measured:
    return Measured(1.0, Usage(1.0, 0.0, 0.0, 0.0, 0.0))


def paid(count: int, payees: int = SMALL.payees) -> ledger_pb2.RecordOrdersResponse:
    recorded = ledger_pb2.RecordedOrder(earnings=[ledger_pb2.Earning() for _ in range(payees)])
    return ledger_pb2.RecordOrdersResponse(results=[ledger_pb2.OrderResult(recorded=recorded) for _ in range(count)])


def test_calls_made_ahead_and_after_are_new_and_only_those_that_were_answered_count() -> None:
    supply = Supply(METHODS["batch"].maker(shop.Orders("run", SMALL), 5), 2)
    sent = [supply.take() for _ in range(3)]
    requests = [ledger_pb2.RecordOrdersRequest.FromString(call.request) for call in sent]
    ids = [(request.program_id, order.order_id) for request in requests for order in request.orders]
    assert len(set(ids)) == 15
    # The third was not answered.
    supply.answers = [(call, paid(5).SerializeToString()) for call in sent[:2]]
    found = measured()
    supply.check(found)
    assert found.told.total() == 10 and set(found.told) == {request.program_id for request in requests[:2]}
    assert found.base_minor.total() == sum(order.lines[0].base_minor for request in requests[:2] for order in request.orders)


@pytest.mark.parametrize("answer", [paid(4), paid(5, payees=2), ledger_pb2.RecordOrdersResponse()])
def test_a_wrong_answer_is_lost(answer: ledger_pb2.RecordOrdersResponse) -> None:
    supply = Supply(METHODS["batch"].maker(shop.Orders("run", SMALL), 5), 1)
    supply.answers = [(supply.take(), answer.SerializeToString())]
    with pytest.raises(shop.Lost):
        supply.check(measured())


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        ("unary", ledger_pb2.RecordOrderResponse()),
        ("stream", ledger_pb2.StreamOrdersResponse()),
        ("balance", ledger_pb2.GetBalanceResponse()),
        ("order", ledger_pb2.GetOrderResponse()),
        ("explain", ledger_pb2.ExplainResponse()),
        ("health", health_pb2.HealthCheckResponse()),
    ],
)
def test_another_answer_than_was_asked_for_is_lost(kind: Kind, answer: Message) -> None:
    supply = Supply(METHODS[kind].maker(shop.Orders("run"), 1), 1)
    supply.answers = [(supply.take(), answer.SerializeToString())]
    with pytest.raises(shop.Lost):
        supply.check(measured())
