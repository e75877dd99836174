"""Publishing a plan version: numbered without gaps, never changed, and only what its profile allows."""

from dataclasses import replace

from services.kernel.decider import Answer, Draft, repeated
from services.kernel.refusals import CurrencyMismatch, PlanForbidden, PlanVersionOutOfOrder
from services.ledger.domain.books import Books
from services.ledger.domain.commands import PublishPlan
from services.ledger.domain.facts import PlanDecision
from services.ledger.domain.lint import beside, refusing
from services.ledger.domain.plan import content_hash, version_of


def publish(books: Books, command: PublishPlan) -> Answer:
    """One version. The document was parsed and linted at the edge; here it is held against the versions before it.

    What is published already is answered first: a linter that has learned since, or a later version, takes nothing back.
    """
    fact = command.fact
    stream = f"plan/{fact.plan_id}"
    versions = books.stream(stream)
    if fact.version <= len(versions):
        again = repeated(versions[fact.version - 1], f"plan {fact.plan_id!r} version {fact.version}", fact, command.occurred_us)
        assert again is not None
        return again
    if fact.version != len(versions) + 1:
        raise PlanVersionOutOfOrder(fact.plan_id, len(versions) + 1, fact.version)
    if command.refused:
        raise command.refused
    plan = version_of(fact, 0).plan
    if plan.currency != books.currency:
        raise CurrencyMismatch(books.currency, plan.currency)
    forbidden = refusing(beside(replace(plan, effective_from_us=fact.effective_from_us), books.plans)) if command.linted else None
    if forbidden:
        raise PlanForbidden(forbidden.rule, forbidden.path, forbidden.problem)
    return [Draft(stream, fact, PlanDecision(content_hash(fact.document)), command.occurred_us)]
