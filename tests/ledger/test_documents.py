"""Documents of plans as they come in: long ones keep nobody else waiting, and lists may only be so long."""

import threading
import time
from collections.abc import Callable

import grpc
import pytest
from fenrun.ledger.v1 import ledger_pb2 as lp
from fenrun.ops.v1 import ops_pb2

from services.ledger.documents import draft
from services.ledger.domain.document import LONGEST
from services.ledger.domain.plan import canonical, parse
from tests.given import Client, day, reason

HEAD = 'plan: tea\nversion: 1\ncurrency: GBP\nprofile: none\neffective: {from: "2026-01-01T00:00:00Z"}\n'
FIRST = "rules:\n  - {id: first, kind: generation, generation: 1, rate: 1%}\n"
# Some 160,000 characters: seconds for the YAML reader.
LONG_LIST = HEAD + "rules:\n  - {id: board, kind: rank, board: own, places_minor: [" + "1," * 80_000 + "]}\n"
# Within every limit, and a second for the linter: as many order sizes as rules.
LONG_LINT = (
    HEAD
    + "rules:\n"
    + "".join(f"  - {{id: r{n}, kind: self, fixed_minor: 1, per: order, when: {{min_order_minor: {n + 1000}}}}}\n" for n in range(500))
)


def validate(client: Client, document: str) -> None:
    client.ledger.ValidatePlan(lp.ValidatePlanRequest(program_id=client.program_id, document=document))


def publish(client: Client, document: str) -> None:
    client.ledger.PublishPlan(lp.PublishPlanRequest(program_id=client.program_id, document=document, published_at=day(1)))


def simulate(client: Client, document: str) -> None:
    list(client.ledger.SimulatePlan(lp.SimulatePlanRequest(program_id=client.program_id, document=document)))


@pytest.mark.parametrize(
    ("call", "document"),
    [(validate, LONG_LIST), (publish, LONG_LIST), (simulate, LONG_LIST), (validate, LONG_LINT), (publish, LONG_LINT)],
    ids=["validate-list", "publish-list", "simulate-list", "validate-lint", "publish-lint"],
)
def test_while_a_long_document_is_read_and_linted_others_are_answered(
    client: Client, call: Callable[[Client, str], None], document: str
) -> None:
    refused: list[str] = []

    took_s: list[float] = []

    def send() -> None:
        began_s = time.perf_counter()
        try:
            call(client, document)
        except grpc.RpcError as error:
            refused.append(reason(error)[1])
        took_s.append(time.perf_counter() - began_s)

    sender = threading.Thread(target=send)
    sender.start()
    answered, longest_s = 0, 0.0
    while sender.is_alive():
        began_s = time.perf_counter()
        client.ops.GetProgram(ops_pb2.GetProgramRequest(program_id=client.program_id))
        longest_s = max(longest_s, time.perf_counter() - began_s)
        answered += 1
    sender.join()
    assert refused == (["PLAN_INVALID"] if document == LONG_LIST else [])
    # Where one step of it holds everybody up, few are answered, or one waits for most of the time.
    assert answered > 5 and longest_s < took_s[0] * 2 / 3, "others waited for the document"


def names(count: int) -> list[str]:
    return [f"n{number}" for number in range(count)]


def rule(**more: object) -> dict[str, object]:
    return {"id": "first", "kind": "generation", "generation": 1, "rate": "1%", **more}


def volume(count: int) -> dict[str, object]:
    return {"id": "team", "kind": "volume", "brackets": [{"from_minor": number, "rate": "1%"} for number in range(count)]}


# (path of what is too long, what a document has beside its head to have so many there)
LISTS: list[tuple[str, Callable[[int], dict[str, object]]]] = [
    ("rules", lambda count: {"rules": [rule(id=name) for name in names(count)]}),
    ("overrides", lambda count: {"overrides": [{"when": {}, "rules": {"first": {"rate": "2%"}}}] * count}),
    ("promotions", lambda count: {"promotions": [{"tier": "a", "any": [{"metric": "orders", "at_least": 1}]}] * count}),
    ("promotions[0].any", lambda count: {"promotions": [{"tier": "a", "any": [{"metric": "orders", "at_least": 1}] * count}]}),
    ("promotions[0].all", lambda count: {"promotions": [{"tier": "a", "all": [{"metric": "orders", "at_least": 1}] * count}]}),
    ("tiers", lambda count: {"tiers": names(count)}),
    ("points", lambda count: {"points": names(count)}),
    ("waivers", lambda count: {"waivers": dict.fromkeys(names(count), "a reason")}),
    ("rules[0].when.skus", lambda count: {"rules": [rule(when={"skus": names(count)})]}),
    ("rules[0].when.categories", lambda count: {"rules": [rule(when={"categories": names(count)})]}),
    ("rules[0].when.stores", lambda count: {"rules": [rule(when={"stores": names(count)})]}),
    ("rules[0].when.regions", lambda count: {"rules": [rule(when={"regions": names(count)})]}),
    ("rules[0].when.days", lambda count: {"rules": [rule(when={"days": [1] * count})]}),
    ("overrides[0].when.days", lambda count: {"overrides": [{"when": {"days": [1] * count}, "rules": {"first": {"rate": "2%"}}}]}),
    ("rules[0].brackets", lambda count: {"rules": [volume(count)]}),
    ("rules[0].places_minor", lambda count: {"rules": [{"id": "b", "kind": "rank", "board": "own", "places_minor": [1] * count}]}),
]


def document(**more: object) -> dict[str, object]:
    return {"plan": "tea", "version": 1, "currency": "GBP", "tiers": ["a"], "rules": [rule()], **more}


@pytest.mark.parametrize(("path", "having"), LISTS, ids=[path for path, _ in LISTS])
def test_a_list_that_is_too_long_is_refused_with_its_path_its_length_and_the_limit(
    path: str, having: Callable[[int], dict[str, object]]
) -> None:
    limit = LONGEST[path.rpartition(".")[2]]
    assert draft(canonical(document(**having(limit))), 0).refused is None
    refused = draft(canonical(document(**having(limit + 1))), 0).refused
    assert str(refused) == f"plan document, {path}: has {limit + 1} entries; at most {limit} are allowed"
    # What is stored is read whatever its length.
    assert parse(document(**having(limit + 1))).rules


@pytest.mark.parametrize("call", [validate, publish, simulate])
def test_every_call_refuses_it(client: Client, call: Callable[[Client, str], None]) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        call(client, HEAD + FIRST.replace("1%", "1%, when: {days: [" + "8, " * 32 + "]}"))
    code, why, metadata = reason(caught.value)
    assert (code, why, metadata["path"]) == (grpc.StatusCode.INVALID_ARGUMENT, "PLAN_INVALID", "rules[0].when.days")
