"""The first reading of a log: the plans, and what is taken back later, so that the second reading keeps only what it will need again."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from fenrun.log.v1 import log_pb2 as pb

from services.ledger.domain.facts import PlanPublished
from services.ledger.domain.plan import PlanVersion, version_of
from services.runtime.stored import microseconds

# What takes back from the stream it stands in.
TAKING_BACK = frozenset({"order.refunded.v1", "order.voided.v1", "period.corrected.v1"})


class CannotReport(Exception):
    """No report can be made of these entries; `str()` names the position and says what was wrong."""


@dataclass(slots=True)
class Survey:
    """`plans` in the order published; `taken_back` is how many entries of a stream take something back."""

    plans: list[PlanVersion] = field(default_factory=list)
    taken_back: Counter[str] = field(default_factory=Counter)

    @property
    def zone_us(self) -> int:
        """The zone of the newest plan, microseconds east of UTC."""
        return self.plans[-1].plan.zone_us if self.plans else 0


def survey(entries: Iterable[pb.Entry]) -> Survey:
    """Raises CannotReport for a plan that cannot be read."""
    found = Survey()
    for entry in entries:
        if entry.type in TAKING_BACK:
            found.taken_back[entry.stream] += 1
        elif entry.type == "plan.published.v1":
            try:
                found.plans.append(_version(entry))
            except Exception as problem:  # whatever forged bytes bring about
                raise CannotReport(f"the plan at position {entry.position} cannot be read: {problem}") from None
    return found


def _version(entry: pb.Entry) -> PlanVersion:
    told = pb.PlanPublished.FromString(entry.fact)
    until = microseconds(told.effective_until) if told.HasField("effective_until") else None
    return version_of(PlanPublished(told.plan_id, told.version, told.document, microseconds(told.effective_from), until), entry.position)
