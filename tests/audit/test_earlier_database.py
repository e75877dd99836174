"""A database as an earlier version left it, which kept every node, every order and a count of each member's: it goes on, and verifies."""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import psycopg

from services import composition
from services.audit import projection as audit_projection
from services.audit.client import VerifyingClient
from services.audit.domain.checkpoint import VerifierKey
from services.audit.domain.merkle import Frontier
from services.runtime.embedded import EmbeddedPostgres
from services.runtime.eventlog import COLUMNS
from services.runtime.stored import Stored
from services.statistics import codec
from services.statistics import projection as statistics_projection
from services.statistics.domain.figures import Figures, fold, latest
from tests.audit.house import opened, settings, soon
from tests.given import line

SINCE = ["audit/002_lowest_levels.sql", "statistics/002_lighter.sql", "statistics/003_last_month.sql", "runtime/005_asked.sql"]


Key = TypeVar("Key")


def with_sums(by_month: Mapping[tuple[Key, str], tuple[int, ...]]) -> dict[tuple[Key, str], tuple[int, ...]]:
    """The first version kept a row of all months beside those of each."""
    return {**by_month, **{(key, ""): last.in_all for key, last in latest(by_month)[0].items()}}


def made_earlier(dsn: str, program_id: str, quarantined: int) -> None:
    """Puts tables and rows of statistics and tree back to what the first version kept of the log, with one entry in quarantine."""
    with psycopg.connect(dsn) as owner, owner.cursor() as cursor:
        log = [
            Stored(*row) for row in cursor.execute(f"select {COLUMNS} from fenrun.entries where program_id = %s order by 2", [program_id])
        ]
        frontier, nodes, figures = Frontier(), list[tuple[object, ...]](), Figures()
        for stored in log:
            nodes += [(program_id, *node, value) for node, value in frontier.append(stored.hash)]
            entry = codec.read(stored)
            if entry.fact is not None and stored.position != quarantined:
                fold(figures, entry)
        standing = Counter(source.buyer_id for source in figures.sources.values() if source.remaining_minor)
        cursor.execute("drop table audit.nodes; drop schema statistics cascade; alter table fenrun.followed drop column asked")
        tree = re.search(r"create table audit\.nodes.*?;", (audit_projection.SQL / "001_tree.sql").read_text(), re.DOTALL)
        assert tree is not None
        cursor.execute(tree[0].encode())
        cursor.execute((statistics_projection.SQL / "001_figures.sql").read_bytes())
        cursor.execute("delete from fenrun.migrations where name = any(%s)", [SINCE])
        assert cursor.rowcount == len(SINCE)
        rows: dict[str, list[tuple[object, ...]]] = {
            "audit.nodes": nodes,
            "statistics.members": [(program_id, name, *member[:3], standing[name]) for name, member in figures.members.items()],
            "statistics.bindings": [(program_id, *move) for move in figures.moves],
            "statistics.sources": [(program_id, name, *source[:4]) for name, source in figures.sources.items()],
            "statistics.volumes": [(program_id, month, name, *volume) for (name, month), volume in with_sums(figures.volumes()).items()],
            "statistics.income": [
                (program_id, e.asset, month, e.rule_id, e.member_id, *n)
                for (e, month), n in with_sums({key: (amount,) for key, amount in figures.income().items()}).items()
            ],
            "fenrun.quarantined": [(program_id, "statistics", quarantined, "it was so")],
        }
        for table, values in rows.items():
            cursor.executemany(f"insert into {table} values ({', '.join(['%s'] * len(values[0]))})".encode(), values)


def test_a_database_of_an_earlier_version_goes_on_and_verifies(
    tmp_path: Path, key_file: Path, key: VerifierKey, fresh_program_id: Callable[[], str]
) -> None:
    program_id, published = fresh_program_id(), tmp_path / "published"
    with EmbeddedPostgres(tmp_path / "data", durable=False) as database:
        given = settings(database.dsn, key_file, published)
        with composition.start(given) as server, opened(server, program_id, key, published) as shop:
            shop.sell(33)
            shop.client.refund("part", "o-5", (1, 0, 400))
            shop.client.refund("all", "o-6", (1, 1, 1000))
            for number, on_day in enumerate((65, 34, 66)):
                shop.client.order(f"other-month-{number}", "B", line(1, 100), at=on_day)
            quarantined = shop.client.refund("left-out", "o-7", (1, 0, 100)).receipt.position
            shop.checkpoint()
            kept = VerifyingClient(shop.channel, program_id, [key])
            kept.advance()
            shop.client.figures("B")
        made_earlier(database.dsn, program_id, quarantined)
        with composition.start(given) as server, opened(server, fresh_program_id(), key, published) as other:
            client = other.client.of(other.channel, program_id)
            assert client.differences() == []
            assert client.figures("B").in_all.own_volume_minor == 33 * 1000 - 400 - 1000 + 300
            # What was there before the change is taken back after it: what remains, and in the end who has paid.
            client.refund("rest", "o-5", (1, 1, 600))
            client.refund("more", "o-8", (1, 0, 1))
            client.order("later", "B", line(1, 5000))
            assert client.figures("B").in_all.own_volume_minor == 31 * 1000 - 1 + 300 + 5000
            assert client.differences() == []
            again = VerifyingClient(other.channel, program_id, [key], kept.last_note)
            assert soon(lambda: again.advance().size == 46)
            for position in range(1, 47):
                again.prove(position)
