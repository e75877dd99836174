"""Publishing over gRPC: what the linter refuses, what it only says, and that what was validated is what is published."""

from dataclasses import replace

import grpc
import pytest
from fenrun.ledger.v1 import ledger_pb2 as lp

from tests.given import Client, day, reason

PLAN = """
plan: tea
version: 1
currency: GBP
profile: cn-common
effective: {from: "2026-01-01T00:00:00Z"}
rules:
  - {id: first, kind: generation, generation: 1, rate: 10%}
"""
TWO_LEVELS = PLAN + "  - {id: second, kind: generation, generation: 2, rate: 5%}\n"
THREE_LEVELS = TWO_LEVELS + "  - {id: third, kind: generation, generation: 3, rate: 2%}\n"
DEEPER = "  - {id: deeper, kind: generation, generation: 4, rate: 1%}\n"


def validate(client: Client, document: str) -> lp.ValidatePlanResponse:
    return client.ledger.ValidatePlan(lp.ValidatePlanRequest(program_id=client.program_id, document=document))


def refused(client: Client, document: str, **more: bytes) -> tuple[grpc.StatusCode, str, dict[str, str]]:
    request = lp.PublishPlanRequest(program_id=client.program_id, document=document, published_at=day(1), **more)
    with pytest.raises(grpc.RpcError) as caught:
        client.ledger.PublishPlan(request)
    return reason(caught.value)


def told(findings: object) -> list[tuple[str, str, str]]:
    severity = lp.PlanFinding.Severity.Name
    return [(severity(one.severity), one.rule, one.path) for one in findings]  # type: ignore[attr-defined]


def test_a_plan_its_profile_forbids_is_refused_with_rule_place_and_sentence_and_leaves_no_entry(client: Client) -> None:
    code, why, metadata = refused(client, THREE_LEVELS + DEEPER)
    assert (code, why) == (grpc.StatusCode.FAILED_PRECONDITION, "PLAN_FORBIDDEN")
    assert (metadata["rule"], metadata["path"]) == ("depth-over-limit", "rules[2]")
    assert metadata["problem"].startswith("Rule 'third' can pay somebody 3 levels above the buyer")
    with pytest.raises(grpc.RpcError) as caught:
        client.ledger.GetPlan(lp.GetPlanRequest(program_id=client.program_id))
    assert reason(caught.value)[1] == "PLAN_UNKNOWN"


def test_validating_says_everything_at_once_and_records_nothing(client: Client) -> None:
    found = validate(client, THREE_LEVELS + DEEPER)
    assert not found.publishable
    assert told(found.findings) == [
        ("SEVERITY_ERROR", "depth-over-limit", "rules[2]"),
        ("SEVERITY_ERROR", "depth-over-limit", "rules[3]"),
        ("SEVERITY_WARNING", "two-levels", "rules[1]"),
    ]
    assert found.findings[0].source
    assert (found.plan_id, found.version) == ("tea", 1)
    assert "Rule first: Whoever brought the buyer earns 10%. It is available on completion of the order." in found.sentences
    with pytest.raises(grpc.RpcError) as caught:
        client.ledger.GetPlan(lp.GetPlanRequest(program_id=client.program_id))
    assert reason(caught.value)[1] == "PLAN_UNKNOWN"


def test_validating_refuses_what_cannot_be_read_and_an_unknown_program(client: Client) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        validate(client, PLAN.replace("10%", "ten"))
    assert reason(caught.value)[:2] == (grpc.StatusCode.INVALID_ARGUMENT, "PLAN_INVALID")
    with pytest.raises(grpc.RpcError) as caught:
        validate(replace(client, program_id="no-such"), PLAN)
    assert reason(caught.value)[:2] == (grpc.StatusCode.NOT_FOUND, "PROGRAM_UNKNOWN")


def test_warnings_come_with_the_receipt(client: Client) -> None:
    response = client.publish(TWO_LEVELS)
    assert told(response.findings) == [("SEVERITY_WARNING", "two-levels", "rules[1]")]
    assert response.receipt.position


def test_only_what_was_validated_is_published(client: Client) -> None:
    validated = validate(client, PLAN)
    code, why, metadata = refused(client, TWO_LEVELS, expected_content_hash=validated.content_hash)
    assert (code, why, metadata["expected"]) == (grpc.StatusCode.FAILED_PRECONDITION, "PLAN_CHANGED", validated.content_hash.hex())
    request = lp.PublishPlanRequest(
        program_id=client.program_id,
        document="# comments do not count\n" + PLAN,
        published_at=day(1),
        expected_content_hash=validated.content_hash,
    )
    first = client.ledger.PublishPlan(request)
    assert first.content_hash == validated.content_hash
    again = client.ledger.PublishPlan(request)
    assert again.receipt.already_recorded
    assert (again.receipt.position, again.content_hash) == (first.receipt.position, first.content_hash)


def test_a_version_that_cuts_another_short_is_refused_and_a_repeat_of_an_older_one_never_is(client: Client) -> None:
    campaign = PLAN.replace('from: "2026-01-01T00:00:00Z"', 'from: "2026-03-01T00:00:00Z", until: "2026-04-01T00:00:00Z"')
    first = client.publish(PLAN)
    client.publish(campaign.replace("version: 1", "version: 2"))
    within = PLAN.replace("version: 1", "version: 3").replace("2026-01-01", "2026-03-15")
    assert refused(client, within)[2]["rule"] == "versions-overlap"
    assert told(validate(client, within).findings) == [("SEVERITY_ERROR", "versions-overlap", "effective")]
    again = client.publish(PLAN)
    assert again.receipt.already_recorded
    assert again.receipt.position == first.receipt.position
    assert validate(client, PLAN).publishable
    assert client.publish(within.replace("2026-03-15", "2026-04-01")).version == 3


def test_a_plan_that_says_no_beginning_begins_when_it_is_published(client: Client) -> None:
    client.publish(PLAN)
    undated = PLAN.replace('effective: {from: "2026-01-01T00:00:00Z"}', "effective: {}").replace("version: 1", "version: 2")
    request = lp.PublishPlanRequest(program_id=client.program_id, document=undated, published_at=day(1))
    with pytest.raises(grpc.RpcError) as caught:
        client.ledger.PublishPlan(request)
    assert reason(caught.value)[2]["rule"] == "versions-overlap"
    assert client.publish(undated, at=2).version == 2


def test_an_older_document_without_a_profile_is_published_with_hints(client: Client) -> None:
    response = client.publish(THREE_LEVELS.replace("profile: cn-common\n", "").replace("10%", "99%"))
    assert told(response.findings) == [
        ("SEVERITY_WARNING", "profile-missing", "profile"),
        ("SEVERITY_WARNING", "payout-over-base", "rules"),
    ]
