"""Settings, from the environment (FENRUN_…) or given by the command line."""

import os
from pathlib import Path
from typing import Literal

from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


def default_data_dir() -> Path:
    """$XDG_DATA_HOME/fenrun, else ~/.local/share/fenrun."""
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "fenrun"


class Settings(BaseSettings):
    """Everything a server can be told. FENRUN_DSN, FENRUN_DATA_DIR, FENRUN_LISTEN, …"""

    model_config = SettingsConfigDict(env_prefix="FENRUN_", extra="ignore")

    # PostgreSQL conninfo or URL. None: the embedded default in data_dir.
    dsn: str | None = None
    # Conninfo of the owner of the schema, who migrates. None: the same as dsn.
    owner_dsn: str | None = None
    data_dir: Path = default_data_dir()
    # HOST:PORT. Other than loopback only when asked for by name; port 0 lets the system choose.
    listen: str = "127.0.0.1:50051"
    service: Literal["all", "ledger", "referral", "statistics", "audit"] = "all"
    # Master keys for members' names, one a line in base64, the current one first: a file, or the keys themselves, by spaces (read from the
    # environment alone, as secrets are). Neither: no names are kept. docs/erasure.md.
    master_key_file: Path | None = None
    master_key: SecretStr | None = None
    # Where the command line finds a server; None: the embedded default.
    target: str | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    # Connections to PostgreSQL; a program that writes uses one at a time at most, and none while it only decides.
    pool_size: int = 10
    # Commands that one append takes at most.
    batch_limit: int = 500
    # How long a write is retried while the database cannot be reached, before its caller is told to repeat it.
    retry_for_s: int = 10
    # How long a server that follows a program (statistics, audit) keeps others from doing so after its last batch, in seconds. When it
    # is killed, another one takes over after that.
    lease_s: float = 5
    # The key that signs checkpoints: a file made by `fenrun audit key new`, or the lines of one (read from the environment alone, as
    # secrets are). Neither: no checkpoints are made. Every server that follows the log for the audit needs it.
    checkpoint_key_file: Path | None = None
    checkpoint_key: SecretStr | None = None
    # Where each checkpoint is put as a file; None: they are kept in the database alone, whose owner could then take them away.
    checkpoint_dir: Path | None = None
    # A checkpoint is made after so many entries, and otherwise with the first entry so many seconds after the last one.
    checkpoint_entries: int = 1000
    checkpoint_seconds: float = 60
    # Seconds that calls under way get to finish when the server stops.
    drain_s: int = 10
