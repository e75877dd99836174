"""From a log to figures: three readings of the same entries, none of which keeps them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from fenrun.log.v1 import log_pb2 as pb

from services.auditor.report.counting import count
from services.auditor.report.explanations import explanations
from services.auditor.report.figures import Figures
from services.auditor.report.folding import Fold, Members
from services.auditor.report.lineage import Tree, grow
from services.auditor.report.sampling import Sample
from services.auditor.report.surveying import CannotReport, survey

# Gives the entries from position 1, in order, each time it is called.
Entries = Callable[[], Iterable[pb.Entry]]
SAMPLE = 200
# How often the entries are asked for.
READINGS = 3


@dataclass(frozen=True, slots=True)
class Made:
    """What a page is drawn from."""

    figures: Figures
    members: Members
    tree: Tree


def make(entries: Entries, sample: int = SAMPLE) -> Made:
    """Raises CannotReport where the entries are none of a log, or of no whole one."""
    surveyed = survey(entries())
    chosen = Sample()
    fold = Fold(surveyed, chosen)
    for entry in entries():
        if entry.position != fold.last + 1:
            raise CannotReport(f"position {fold.last + 1} is missing: {entry.position} comes after {fold.last}")
        fold.add(entry)
    if not fold.last:
        raise CannotReport("there are no entries to report on; a log begins with one")
    fold.finish()
    explained = explanations(entries(), chosen.chosen(sample), surveyed)
    tree = grow(fold.members)
    return Made(count(fold, tree, surveyed, explained), fold.members, tree)
