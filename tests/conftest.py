"""One real PostgreSQL and one real server for the whole run: FENRUN_TEST_DSN, else Docker through testcontainers, else the embedded one."""

import itertools
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from services import composition
from services.runtime.embedded import EmbeddedPostgres
from services.runtime.process import configure_logging
from services.runtime.settings import Settings
from tests.given import Client


def docker_dsn() -> Iterator[str] | None:
    """A PostgreSQL in Docker, if a Docker engine answers."""
    import docker

    try:
        docker.from_env(timeout=5).ping()
    except docker.errors.DockerException:
        return None
    from testcontainers.community.postgres import PostgresContainer

    def run() -> Iterator[str]:
        with PostgresContainer("postgres:18", driver=None) as container:
            yield container.get_connection_url()

    return run()


@pytest.fixture(scope="session", autouse=True)
def logging() -> None:
    """As of a server within another process, whichever test comes first: one that looks at what is logged would leave it configured
    otherwise."""
    configure_logging("warning")


@pytest.fixture(scope="session")
def dsn() -> Iterator[str]:
    """The owner's conninfo of an empty database that lasts for the run."""
    given = os.environ.get("FENRUN_TEST_DSN")
    if given:
        yield given
        return
    in_docker = docker_dsn()
    if in_docker is not None:
        yield from in_docker
        return
    # Tests that kill processes use their own, durable one; this one only has to be quick.
    with (
        tempfile.TemporaryDirectory(prefix="fenrun-test-") as directory,
        EmbeddedPostgres(Path(directory) / "data", durable=False) as database,
    ):
        yield database.dsn


@pytest.fixture(scope="session")
def server(dsn: str) -> Iterator[composition.RunningServer]:
    """A server of both services on that database."""
    with composition.start(Settings(dsn=dsn)) as running:
        yield running


@pytest.fixture(scope="session")
def channel(server: composition.RunningServer) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.address) as opened:
        yield opened


@pytest.fixture(scope="session")
def fresh_program_id() -> Callable[[], str]:
    """Names no other test uses, also when the database outlives the run."""
    numbers = itertools.count(1)
    return lambda: f"test-{os.getpid()}-{next(numbers)}"


@pytest.fixture
def client(channel: grpc.Channel, fresh_program_id: Callable[[], str]) -> Client:
    """A client of a new program of its own, in GBP, without a plan."""
    return Client.of_new_program(channel, fresh_program_id())
