"""One durable PostgreSQL per module, killed as the tests please."""

import sys
from collections.abc import Iterator

import pytest

from services.runtime.embedded import EmbeddedPostgres

collect_ignore_glob = [] if sys.platform == "linux" else ["test_*.py"]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL of this module's own, with everything that keeps an acknowledged transaction switched on."""
    with EmbeddedPostgres(tmp_path_factory.mktemp("durable") / "data") as running:
        yield running
