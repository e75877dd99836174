"""One house for all tests of the audit: its own database, because some tests act as the owner and rewrite history."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from services import composition
from services.audit import signing
from services.audit.domain.checkpoint import VerifierKey
from services.runtime.embedded import EmbeddedPostgres
from tests.audit.house import Shop, opened, settings


@pytest.fixture(scope="session")
def audit_dsn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with EmbeddedPostgres(tmp_path_factory.mktemp("audit") / "data", durable=False) as database:
        yield database.dsn


@pytest.fixture(scope="session")
def own_dsn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Another one, without the house's server, which would take its turn in making checkpoints."""
    with EmbeddedPostgres(tmp_path_factory.mktemp("own") / "data", durable=False) as database:
        yield database.dsn


@pytest.fixture(scope="session")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "key"
    signing.create(path, "shop.example")
    return path


@pytest.fixture(scope="session")
def key(key_file: Path) -> VerifierKey:
    return signing.load(key_file).trusted[-1]


@pytest.fixture(scope="session")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("published")


@pytest.fixture(scope="session")
def house(audit_dsn: str, key_file: Path, directory: Path) -> Iterator[composition.RunningServer]:
    """A server that makes a checkpoint whenever there is something new."""
    with composition.start(settings(audit_dsn, key_file, directory)) as running:
        yield running


@pytest.fixture
def shop(house: composition.RunningServer, fresh_program_id: Callable[[], str], key: VerifierKey, directory: Path) -> Iterator[Shop]:
    with opened(house, fresh_program_id(), key, directory) as found:
        yield found
