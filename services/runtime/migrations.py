"""Brings a database to the current schema: numbered SQL files, each applied once, in order, by one process at a time."""

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import psycopg

# Any number of ours; it only has to differ from what else takes advisory locks in this database.
LOCK_KEY = 7_325_880_163
HERE = Path(__file__).resolve().parent
# In the wheel it is copied beside this file; in the repository the one in deploy/ is it.
ROLES = next(path for path in (HERE / "sql" / "roles.sql", HERE.parents[1] / "deploy" / "postgres" / "roles.sql") if path.exists())


class MigrationChanged(RuntimeError):
    """A file that was applied before reads differently now: the database and the program do not belong together."""


def migrate(dsn: str, directories: Sequence[Path]) -> list[str]:
    """Applies what is new from the runtime's own directory and then each service's; returns the names applied.

    Runs as the schema's owner, in one transaction, under an advisory lock, so that servers starting at once do not race. Privileges
    (roles.sql) are applied each time. Raises MigrationChanged, psycopg.Error.
    """
    applied: list[str] = []
    with psycopg.connect(dsn) as connection:
        connection.execute("select pg_advisory_xact_lock(%s)", [LOCK_KEY])
        connection.execute("create schema if not exists fenrun")
        connection.execute(
            "create table if not exists fenrun.migrations"
            " (name text primary key, checksum text not null, applied_at timestamptz not null default now())"
        )
        known: dict[str, str] = dict(connection.execute("select name, checksum from fenrun.migrations").fetchall())
        for directory in (HERE / "sql", *directories):
            for path in sorted(directory.glob("[0-9]*.sql")):
                name = f"{directory.parent.name}/{path.name}"
                text = path.read_text(encoding="utf-8")
                checksum = sha256(text.encode()).hexdigest()
                if name not in known:
                    connection.execute(text.encode())
                    connection.execute("insert into fenrun.migrations (name, checksum) values (%s, %s)", [name, checksum])
                    applied.append(name)
                elif known[name] != checksum:
                    raise MigrationChanged(
                        f"migration {name} was applied with other content; this database is of another version of fenrun"
                    )
        connection.execute(ROLES.read_text(encoding="utf-8").encode())
    return applied
