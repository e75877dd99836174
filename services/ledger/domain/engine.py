"""The plan engine: one pure function from (rules, people, line, what remains of it) to shares.

A rule kind is one function in `CLAIMS`; it looks at the people a decision froze and never further. An engine version is never changed
once it has decided an order: refunds of that order, years later, call the same one.
"""

from collections.abc import Callable, Sequence

from services.ledger.domain.facts import OrderLine, Person, Share
from services.ledger.domain.plan import Rule

ENGINE_VERSION = 1


def claim_of_seat(index: int, rule: Rule, people: Sequence[Person], base_minor: int) -> list[Share]:
    """`self` and `generation`: who sits at the rule's seat earns their tier's rate; what of the top rate is not earned is breakage."""
    pool = rule.top.of(base_minor)
    if not pool:
        return []
    earned = rule.rate_of(people[rule.seat].tier).of(base_minor) if rule.seat < len(people) else 0
    shares = [Share(index, rule.seat + 1, earned)] if earned else []
    if pool != earned:
        shares.append(Share(index, 0, pool - earned))
    return shares


CLAIMS: dict[str, Callable[[int, Rule, Sequence[Person], int], list[Share]]] = {
    "self": claim_of_seat,
    "generation": claim_of_seat,
}


def entitle(rules: Sequence[Rule], people: Sequence[Person], line: OrderLine, remaining_base_minor: int) -> list[Share]:
    """Who is entitled to what on what remains of a line, rule by rule, zeros left out. For every rule payees + breakage = its pool."""
    shares: list[Share] = []
    for index, rule in enumerate(rules):
        if rule.when.matches(line):
            shares += CLAIMS[rule.kind](index, rule, people, remaining_base_minor)
    return shares


ENGINES = {1: entitle}
