"""Logs as entries, without a server: kept histories, histories decided anew, and what a forger makes of them; and bundles of all these."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from fenrun.log.v1 import log_pb2

from services.audit.domain import checkpoint, merkle
from services.audit.signing import SigningKey
from services.auditor import exporting
from services.kernel.chain import entry_hash
from services.kernel.decider import Draft, Entry
from services.ledger import codec as ledger_codec
from services.ledger.domain import books, commands
from services.ledger.domain import decide as ledger_decide
from services.ledger.domain.facts import PlanPublished
from services.ledger.domain.plan import canonical, parse
from services.referral import codec as referral_codec
from services.referral.domain import decide as referral_decide
from services.referral.domain import roster
from services.runtime import eventlog
from services.runtime.stored import entry_message, microseconds
from tests.given import TWO_LEVEL

DAY = 24 * 3600 * 1_000_000
FIRST_DAY = 1_767_225_600 * 1_000_000  # 2026-01-01
GOLDEN = Path(__file__).resolve().parent.parent / "golden"
KEY = SigningKey("audit.example", bytes(range(32)))


def golden(version: str) -> list[log_pb2.Entry]:
    """A kept history; the newest has every type of entry."""
    lines = (GOLDEN / version / "entries.hex").read_text(encoding="ascii").split()
    return [log_pb2.Entry.FromString(bytes.fromhex(line)) for line in lines]


class Log:
    """A program's log that is decided here, command by command, as the writer would."""

    def __init__(self, program_id: str = "tea", currency: str = "GBP", document: str = TWO_LEVEL) -> None:
        self.head = eventlog.beginning(program_id, currency)
        self.books, self.roster = books.Books(), roster.Roster()
        self.entries: list[log_pb2.Entry] = []
        self._versions: dict[str, int] = {}
        opening = log_pb2.ProgramCreated(currency=currency).SerializeToString(deterministic=True)
        self._append(Draft(f"program/{program_id}", None, None, FIRST_DAY), ("program.created.v1", opening, b""))
        plan = yaml.safe_load(document)
        parsed = parse(plan)
        effective = (parsed.effective_from_us or FIRST_DAY, parsed.effective_until_us)
        self.tell(commands.PublishPlan(PlanPublished(parsed.plan_id, parsed.version, canonical(plan), *effective), FIRST_DAY))

    def tell(self, command: Any) -> list[log_pb2.Entry]:
        """Decides a command of either service and appends what it drafts."""
        if type(command).__module__ == referral_decide.__name__:
            answer, write = referral_decide.decide(self.roster, command), referral_codec.write
        else:
            answer, write = ledger_decide.decide(self.books, command), ledger_codec.write
        assert isinstance(answer, list), answer
        return [self._append(draft, write(draft)) for draft in answer]

    def _append(self, draft: Draft, written: tuple[str, bytes, bytes]) -> log_pb2.Entry:
        version = self._versions[draft.stream] = self._versions.get(draft.stream, 0) + 1
        row = eventlog.store(self.head, draft, version, written, "shop", draft.occurred_us)
        entry = entry_message(row, self.head.hash)
        self.head = self.head._replace(position=row.position, hash=row.hash, recorded_us=row.recorded_us)
        self.entries.append(entry)
        books.evolve(self.books, ledger_codec.read(row))
        roster.evolve(self.roster, referral_codec.read(row))
        return entry


def rehash(entries: Sequence[log_pb2.Entry], first: int = 1) -> list[log_pb2.Entry]:
    """The same entries from a position on, renumbered and chained anew: what the owner of a database can do."""
    out = list(entries[: first - 1])
    previous = out[-1].hash if out else bytes(32)
    for position, entry in enumerate(entries[first - 1 :], first):
        changed = log_pb2.Entry()
        changed.CopyFrom(entry)
        changed.position, changed.previous_hash = position, previous
        previous = changed.hash = entry_hash(
            previous,
            changed.program_id,
            position,
            changed.stream,
            changed.stream_version,
            changed.type,
            microseconds(changed.occurred_at),
            microseconds(changed.recorded_at),
            changed.actor,
            changed.fact,
            changed.decision,
        )
        out.append(changed)
    return out


def changed(entry: log_pb2.Entry, change: Callable[[log_pb2.Entry], object]) -> log_pb2.Entry:
    """A copy of an entry with something changed."""
    copy = log_pb2.Entry()
    copy.CopyFrom(entry)
    change(copy)
    return copy


def note(entries: Sequence[log_pb2.Entry], size: int, key: SigningKey = KEY) -> bytes:
    """A signed checkpoint of the first so many entries."""
    frontier = merkle.Frontier()
    for entry in entries[:size]:
        frontier.append(entry.hash)
    origin = checkpoint.origin_of(key.name, entries[0].program_id)
    return str(key.sign(str(checkpoint.checkpoint(origin, size, frontier.root(), FIRST_DAY)))).encode()


def bundle(
    directory: Path,
    entries: Sequence[log_pb2.Entry],
    sizes: Iterable[int] | None = None,
    notes: dict[int, bytes] | None = None,
    **more: Any,
) -> Path:
    """A bundle of the entries, with checkpoints of these sizes (none named: of all of them)."""
    signed = {size: note(entries, size) for size in (sizes if sizes is not None else [len(entries)])} if notes is None else notes
    currency = log_pb2.ProgramCreated.FromString(entries[0].fact).currency
    given = {"segment_entries": 32, "exported_at": "2026-01-31T00:00:00Z", **more}
    contents = exporting.Contents(entries[0].program_id, currency, len(entries), list(entries), signed, **given)
    exporting.export(contents, directory)
    return directory


def read(log: Iterable[log_pb2.Entry]) -> Iterator[Entry]:
    """As the ledger reads them."""
    from services.auditor.verifying.history import stored

    return (ledger_codec.read(stored(entry)) for entry in log)
