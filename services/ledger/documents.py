"""A plan's document on its way in: YAML becomes plain values, a plan, and what the document alone says of it. Beside the event loop.

A document may be 200,000 characters long and take seconds to read, so whoever serves others meanwhile reads it through `Documents`.
"""

import asyncio
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

import yaml

from services.kernel.refusals import PlanForbidden, PlanInvalid, Refusal
from services.kernel.times import to_text
from services.ledger.domain.document import too_long
from services.ledger.domain.lint import Finding, alone, refusing
from services.ledger.domain.plan import Plan, canonical, content_hash, parse

T = TypeVar("T")


class PlanLoader(yaml.SafeLoader):
    """YAML without surprises: a key written twice is refused, and so are aliases (a few lines of them can mean gigabytes); times stay the
    text they are written as, and so do on, off, yes, no, which YAML 1.1 takes for booleans and this format for words."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise PlanInvalid("document", "uses a YAML alias; write it out")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise PlanInvalid("document", f"key {key!r} is not text")
            if key in seen:
                raise PlanInvalid(key, "is written twice")
            seen.add(key)
        return super().construct_mapping(node, deep)


PlanLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:bool")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
PlanLoader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(?:true|false)$"), ["t", "f"])


def read_document(text: str) -> Any:
    """A plan document's YAML as plain values. Raises PlanInvalid."""
    try:
        return yaml.load(text, PlanLoader)  # PlanLoader is a SafeLoader
    except PlanInvalid:
        raise
    except Exception as error:
        # PyYAML answers odd scalars (!!bool of no bool, !!int of nothing) with whatever Python raises; all of it is the document's fault.
        problem = " ".join(str(error).split())[:300]
        raise PlanInvalid("document", f"is not YAML: {problem}") from None


class Draft(NamedTuple):
    """A document as it was read: the plan, beginning when it would if it were published; the canonical text and its hash (32 bytes);
    what the linter says of the document alone; and what that is refused for unless it is published already."""

    plan: Plan
    text: str
    content_hash: bytes
    findings: Sequence[Finding]
    refused: Refusal | None


def draft(text: str, published_us: int) -> Draft:
    """A document that is or would be published at a time. Raises PlanInvalid where it cannot be read."""
    document = read_document(text)
    plan = parse(document)
    plan = replace(plan, effective_from_us=_begins(plan, published_us))
    written = canonical(document)
    refused: Refusal | None = too_long(document)
    # What is too long is not linted either.
    findings = [] if refused else alone(plan)
    forbidden = refusing(findings)
    if forbidden:
        refused = PlanForbidden(forbidden.rule, forbidden.path, forbidden.problem)
    return Draft(plan, written, content_hash(written), findings, refused)


def simulated(text: str) -> Plan:
    """The plan of a document that is to be simulated. Raises PlanInvalid."""
    document = read_document(text)
    refused = too_long(document)
    if refused:
        raise refused
    return parse(document)


def _begins(plan: Plan, published_us: int) -> int:
    """When a plan that is published at a time comes into force."""
    from_us = published_us if plan.effective_from_us is None else plan.effective_from_us
    if plan.effective_until_us is not None and plan.effective_until_us <= from_us:
        raise PlanInvalid("effective.until", f"{to_text(plan.effective_until_us)} is not after the plan begins, {to_text(from_us)}")
    return from_us


class Documents:
    """Threads for reading documents. Two, so that a short document does not wait for a long one; more would only take turns with the event
    loop's thread more often."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="fenrun-documents")

    async def run(self, work: Callable[..., T], *args: Any) -> T:
        """What a pure function gives; others are served meanwhile."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *args)
