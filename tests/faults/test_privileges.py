"""The log is for ever: neither the service nor the owner of the database changes an entry; migrations race and agree."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from psycopg import errors, sql
from psycopg.conninfo import make_conninfo

from services.composition import MIGRATIONS, SERVICE_ROLE, service_dsn
from services.kernel.chain import GENESIS
from services.runtime.embedded import EmbeddedPostgres
from services.runtime.migrations import MigrationChanged, migrate
from tests.faults.processes import REPOSITORY, SHORTLY_S

COLUMNS = "program_id, position, stream, stream_version, type, fact_id, occurred_us, recorded_us, actor, fact, decision, hash"
ENTRY = f"insert into fenrun.entries ({COLUMNS}) values (%s, %s, %s, 1, 'program.created.v1', null, 0, 0, 'ann', '', '', %s)"
# Waits for a line, so that all of them begin at once, migrates and says what it applied.
MIGRATE = """
import json, sys
from pathlib import Path
from services.runtime.migrations import migrate
print("ready", flush=True)
sys.stdin.readline()
print(json.dumps(migrate(sys.argv[1], [Path(directory) for directory in sys.argv[2:]])), flush=True)
"""


@pytest.fixture(scope="module")
def log(database: EmbeddedPostgres) -> str:
    """The owner's conninfo of a migrated database with one entry in it."""
    migrate(database.dsn, MIGRATIONS)
    with psycopg.connect(database.dsn) as owner:
        owner.execute("insert into fenrun.programs values ('shop', 'GBP', 1, %s, 0)", [GENESIS])
        owner.execute(ENTRY, ["shop", 1, "program/shop", GENESIS])
    return database.dsn


def entries(dsn: str) -> list[tuple[object, ...]]:
    with psycopg.connect(dsn) as owner:
        return owner.execute(f"select {COLUMNS} from fenrun.entries order by program_id, position".encode()).fetchall()


def triggers(dsn: str) -> list[tuple[object, ...]]:
    with psycopg.connect(dsn) as owner:
        return owner.execute("select tgname, tgenabled from pg_trigger where tgrelid = 'fenrun.entries'::regclass order by 1").fetchall()


@pytest.mark.parametrize(
    "statement",
    [
        "update fenrun.entries set fact = 'forged'",
        "update fenrun.entries set fact = 'forged' where false",
        "delete from fenrun.entries",
        "delete from fenrun.entries where false",
        "truncate fenrun.entries",
        "truncate fenrun.entries, fenrun.programs",
        "truncate fenrun.programs cascade",
        "delete from fenrun.programs",
        "drop table fenrun.entries",
        "drop table fenrun.programs cascade",
        "drop schema fenrun cascade",
        "drop trigger entries_are_for_ever on fenrun.entries",
        "drop function fenrun.refuse_change() cascade",
        "drop index fenrun.entries_fact_id",
        "alter table fenrun.entries disable trigger entries_are_for_ever",
        "alter table fenrun.entries disable trigger all",
        "alter table fenrun.entries drop column hash",
        "alter table fenrun.entries alter column fact type text using 'forged'",
        "alter table fenrun.entries rename to old_entries",
        "alter table fenrun.entries owner to fenrun_service",
        "alter function fenrun.refuse_change() rename to nothing",
        "create or replace function fenrun.refuse_change() returns trigger language plpgsql as 'begin return old; end'",
        "create rule forget as on insert to fenrun.entries do instead nothing",
        "create trigger forge before insert on fenrun.entries for each row execute function fenrun.refuse_change()",
        "set session_replication_role = replica",
        "insert into fenrun.entries select * from fenrun.entries on conflict (program_id, position) do update set fact = 'forged'",
        "merge into fenrun.entries e using fenrun.entries s on e.position = s.position when matched then delete",
        "merge into fenrun.entries e using fenrun.entries s on e.position = s.position when matched then update set fact = 'forged'",
        "with gone as (delete from fenrun.entries returning 1) select count(*) from gone",
        "update fenrun.migrations set checksum = ''",
        "delete from fenrun.migrations",
        "create table fenrun.entries_of_my_own ()",
    ],
)
def test_the_service_cannot_change_what_is_recorded(log: str, statement: str) -> None:
    """Acting as the role the server runs as, every way to change, remove or disarm the log is refused for want of privilege."""
    before = entries(log), triggers(log)
    with psycopg.connect(service_dsn(log), autocommit=True) as service, pytest.raises(errors.InsufficientPrivilege):
        service.execute(statement.encode())
    assert (entries(log), triggers(log)) == before


def test_a_grant_of_its_own_gives_the_service_nothing(log: str) -> None:
    """Granting itself UPDATE or DELETE, which PostgreSQL answers with a warning, leaves the service as it was."""
    with psycopg.connect(service_dsn(log), autocommit=True) as service:
        service.execute("grant update, delete, truncate on fenrun.entries to fenrun_service")
        with pytest.raises(errors.InsufficientPrivilege):
            service.execute("delete from fenrun.entries")


@pytest.mark.parametrize(
    "statement",
    [
        "update fenrun.entries set fact = 'forged'",
        "delete from fenrun.entries",
        "truncate fenrun.entries",
        "truncate fenrun.programs cascade",
        "truncate fenrun.programs",
        "delete from fenrun.programs",
        "update fenrun.programs set program_id = program_id || '.old'",
        "insert into fenrun.entries select * from fenrun.entries on conflict (program_id, position) do update set fact = 'forged'",
        "merge into fenrun.entries e using fenrun.entries s on e.position = s.position when matched then delete",
    ],
)
def test_not_even_the_owner_changes_an_entry(log: str, statement: str) -> None:
    """The owner may do everything, so a trigger refuses what the privileges cannot."""
    before = entries(log)
    with psycopg.connect(log, autocommit=True) as owner:
        assert owner.execute("select current_user = tableowner from pg_tables where tablename = 'entries'").fetchone() == (True,)
        with pytest.raises(errors.RestrictViolation, match="the log is append-only"):
            owner.execute(statement.encode())
    assert entries(log) == before


def test_the_service_appends_and_reads(log: str) -> None:
    """What is left to the service is what it needs: new entries, and reading all of them."""
    with psycopg.connect(service_dsn(log)) as service:
        assert service.execute("select current_user").fetchone() == (SERVICE_ROLE,)
        service.execute("insert into fenrun.programs values ('second shop', 'GBP', 1, %s, 0)", [GENESIS])
        service.execute(ENTRY, ["second shop", 1, "program/second shop", GENESIS])
        found = service.execute("select program_id, position from fenrun.readable_entries order by 1").fetchall()
    assert found == [("second shop", 1), ("shop", 1)]
    assert len(entries(log)) == 2


# ---------------------------------------------------------------- migrations


@pytest.fixture
def empty(database: EmbeddedPostgres, request: pytest.FixtureRequest) -> Iterator[str]:
    """The owner's conninfo of an empty database."""
    name = sql.Identifier(request.node.name[:60])
    with psycopg.connect(database.dsn, autocommit=True) as owner:
        owner.execute(sql.SQL("create database {}").format(name))
        yield make_conninfo(database.dsn, dbname=request.node.name[:60])
        owner.execute(sql.SQL("drop database {} with (force)").format(name))


def migrated_at_once(dsns: list[str]) -> list[list[str]]:
    """What each of several processes applied that began to migrate at the same moment. Raises AssertionError for one that failed."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", MIGRATE, dsn, *map(str, MIGRATIONS)],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for dsn in dsns
    ]
    try:
        with ThreadPoolExecutor(len(dsns)) as hands:
            ready = [hands.submit(process.stdout.readline) for process in processes if process.stdout]
            assert [line.result(SHORTLY_S) for line in ready] == ["ready\n"] * len(dsns)
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        answers = [process.communicate(timeout=SHORTLY_S) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait(SHORTLY_S)
    assert [process.returncode for process in processes] == [0] * len(dsns), [errors for _, errors in answers]
    return [json.loads(answer) for answer, _ in answers]


def test_four_processes_migrate_an_empty_database_at_once(empty: str) -> None:
    """All succeed, and each migration was applied by one of them, once."""
    applied = migrated_at_once([empty] * 4)
    assert sorted(applied, key=len) == [[], [], [], migration_files()]
    with psycopg.connect(empty) as owner:
        assert sorted(name for (name,) in owner.execute("select name from fenrun.migrations")) == sorted(migration_files())
    assert migrate(empty, MIGRATIONS) == []


def migration_files() -> list[str]:
    """The names of all migrations, in the order they are applied."""
    directories = [REPOSITORY / "services" / "runtime" / "sql", *MIGRATIONS]
    return [f"{directory.parent.name}/{path.name}" for directory in directories for path in sorted(directory.glob("[0-9]*.sql"))]


def test_two_databases_of_one_cluster_may_be_migrated_at_once(tmp_path: Path) -> None:
    """The service's role belongs to the whole cluster: whoever migrates another database while it is being made waits, and finds it."""
    with (
        EmbeddedPostgres(tmp_path / "data", durable=False) as cluster,
        psycopg.connect(make_conninfo(cluster.dsn, dbname="postgres")) as elsewhere,
        psycopg.connect(cluster.dsn, autocommit=True) as onlooker,
        ThreadPoolExecutor(1) as hands,
    ):
        elsewhere.execute("create role fenrun_service nologin")
        here = hands.submit(migrate, cluster.dsn, MIGRATIONS)
        try:
            await_blocked(onlooker, by=elsewhere.info.backend_pid)
        finally:
            elsewhere.commit()
        assert len(here.result(SHORTLY_S)) == len(migration_files())


def await_blocked(onlooker: psycopg.Connection[tuple[object, ...]], by: int) -> None:
    """Returns once somebody waits for a lock that another backend holds."""
    until = time.monotonic() + SHORTLY_S
    while not onlooker.execute("select from pg_stat_activity where %s = any (pg_blocking_pids(pid))", [by]).fetchall():
        assert time.monotonic() < until, "nobody waits"


def test_a_migration_that_reads_differently_now_is_refused(empty: str, tmp_path: Path) -> None:
    """A file that was applied and has changed since stops the program before anything else happens to the database."""
    copies = []
    for directory in MIGRATIONS:
        copies.append(tmp_path / directory.parent.name / "sql")
        shutil.copytree(directory, copies[-1])
    assert migrate(empty, copies)
    changed = next(copies[0].glob("001_*.sql"))
    changed.write_text(changed.read_text() + "-- improved\n")
    (copies[0] / "900_later.sql").write_text("create table ledger.later ();")
    with pytest.raises(MigrationChanged, match=f"ledger/{changed.name}"):
        migrate(empty, copies)
    with psycopg.connect(empty) as owner:
        assert owner.execute("select to_regclass('ledger.later')").fetchone() == (None,)
