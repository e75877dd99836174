"""What verifying found: what was checked, figures, and what does not hold; for machines (JSON) and for people (80 columns)."""

import textwrap
from dataclasses import asdict, dataclass, field
from typing import Any

# In the order they are made.
CHECKS = ("manifest", "hashes and chain", "checkpoints", "decisions", "balances", "locks", "payouts", "refunds", "copies", "trial balance")


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that does not hold. `position` is the first bad one, None where no single entry can be named."""

    check: str
    position: int | None
    problem: str
    expected: str = ""
    found: str = ""

    @property
    def rank(self) -> tuple[int, int]:
        """The order findings are told in: by position, those of no position last; at one position by the order of checks."""
        return (self.position if self.position is not None else 1 << 63, CHECKS.index(self.check))


class Bad(Exception):
    """Ends a check with its finding."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.problem)
        self.finding = finding


@dataclass(slots=True)
class Report:
    """The outcome. `holds` only if every check was made and none found anything."""

    program_id: str = ""
    currency: str = ""
    entries: int = 0
    head_hash: str = ""
    root_hash: str = ""
    checked: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    checkpoints: list[dict[str, Any]] = field(default_factory=list)
    decisions_recomputed: int = 0
    postings: int = 0
    members: int = 0
    entries_by_type: dict[str, int] = field(default_factory=dict)
    trial_balance: list[dict[str, Any]] = field(default_factory=list)
    processes: int = 1
    duration_ms: int = 0

    @property
    def holds(self) -> bool:
        return not self.findings and self.checked == list(CHECKS)

    @property
    def first(self) -> Finding | None:
        """The finding with the first bad position."""
        return min(self.findings, key=lambda finding: finding.rank, default=None)

    def to_json(self) -> dict[str, Any]:
        found = asdict(self)
        first = self.first
        return {"holds": self.holds, "first_bad_position": first.position if first else None, **found}

    def lines(self) -> list[str]:
        """For people, in 80 columns."""
        rate = self.entries * 1000 // max(1, self.duration_ms)
        out = [
            f"program        {self.program_id} ({self.currency})",
            f"entries        {self.entries:,}, {self.decisions_recomputed:,} decided again",
            f"postings       {self.postings:,} of {self.members:,} members",
            f"head           {self.head_hash[:32]}…",
            f"Merkle root    {self.root_hash[:32]}…" if self.root_hash else "Merkle root    not computed",
            f"took           {self.duration_ms / 1000:.1f} s, {rate:,} entries/s on {self.processes} processor(s)",
            "",
        ]
        wrong = {finding.check for finding in self.findings}
        for check in CHECKS:
            state = "DOES NOT HOLD" if check in wrong else "holds" if check in self.checked else "not reached"
            out.append(f"{check:<18} {state}")
        for note in self.notes:
            out += ["", *textwrap.wrap(note, 80)]
        for finding in sorted(self.findings, key=lambda finding: finding.rank):
            where = "" if finding.position is None else f"position {finding.position}: "
            out += ["", *textwrap.wrap(f"{finding.check}: {where}{finding.problem}", 80)]
            for name, value in (("expected", finding.expected), ("found", finding.found)):
                if value:
                    out += textwrap.wrap(value, 80, initial_indent=f"  {name:<9}", subsequent_indent=" " * 11)
        first = self.first
        out.append("")
        if first is None:
            out.append("Everything holds." if self.holds else "Not everything was checked.")
        elif first.position is None:
            out.append("This bundle does not hold.")
        else:
            out.append(f"This bundle does not hold; the first bad position is {first.position}.")
        # Findings quote what a stranger wrote, and it must not steer the terminal.
        return ["".join(char if char.isprintable() else "�" for char in line) for line in out]
