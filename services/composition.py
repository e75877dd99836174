"""The one place where things are wired: settings become a database, a writer, services, a server."""

import asyncio
import contextlib
import errno
import json
import os
import secrets
import signal
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Self

import grpc
import psycopg
import structlog
from fenrun.audit.v1 import audit_pb2, audit_pb2_grpc
from fenrun.ledger.v1 import ledger_pb2, ledger_pb2_grpc
from fenrun.ops.v1 import ops_pb2, ops_pb2_grpc
from fenrun.referral.v1 import referral_pb2, referral_pb2_grpc
from fenrun.statistics.v1 import statistics_pb2, statistics_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from services.audit import projection as audit_projection
from services.audit import signing
from services.audit.checkpointing import Policy
from services.audit.domain.checkpoint import NoteMalformed
from services.audit.publishing import Directory
from services.audit.signing import KeyFileInvalid, Keys
from services.audit.transport import AuditTransport
from services.followers import FOLLOWED, Following, Signing, checkpointer_of, follow, follower_of, now_us
from services.ledger import application as ledger_application
from services.ledger import codec as ledger_codec
from services.ledger import projection as ledger_projection
from services.ledger import transport as ledger_transport
from services.ledger.application import Ledger
from services.ledger.transport import LedgerTransport
from services.ops.projections import Registered
from services.ops.transport import OpsTransport
from services.referral import application as referral_application
from services.referral import codec as referral_codec
from services.referral import names as member_names
from services.referral import projection as referral_projection
from services.referral import transport as referral_transport
from services.referral.application import Referral
from services.referral.names import MasterKeyInvalid, MasterKeys
from services.referral.transport import ReferralTransport
from services.runtime.beside import FollowerProcess
from services.runtime.embedded import EmbeddedPostgres
from services.runtime.following import Follower
from services.runtime.migrations import MigrationChanged, migrate
from services.runtime.process import Connections, configure_logging, settle_memory
from services.runtime.settings import Settings
from services.runtime.watching import Watchers
from services.runtime.writer import Writer
from services.statistics import codec as statistics_codec
from services.statistics import projection as statistics_projection
from services.statistics.transport import StatisticsTransport

log = structlog.get_logger()

# The role that everything but migrations runs as; see deploy/postgres/roles.sql.
SERVICE_ROLE = "fenrun_service"
SERVICES = {"ledger": ledger_pb2, "referral": referral_pb2, "statistics": statistics_pb2, "audit": audit_pb2, "ops": ops_pb2}
# Orders of 10,000 lines in batches of 500 are refused by size before they exhaust memory.
LARGEST_MESSAGE = 64 * 1024 * 1024
# What each service takes in bulk.
FACTS = {"ledger": ledger_transport.FACTS, "referral": referral_transport.FACTS}
# How the views of each are folded from nothing, to verify and rebuild them.
REGISTERED = (
    Registered(ledger_codec.read_to_fold, ledger_projection.folding, ledger_projection.VIEWS),
    Registered(referral_codec.read, referral_projection.folding, referral_projection.VIEWS),
    Registered(statistics_codec.read, statistics_projection.folding, statistics_projection.VIEWS, statistics_projection.NAME, True),
    Registered(audit_projection.read, audit_projection.folding, audit_projection.VIEWS, audit_projection.NAME),
)
MIGRATIONS = (ledger_application.SQL, referral_application.SQL, statistics_projection.SQL, audit_projection.SQL)
# A server that freezes, or is cut off, while it holds the head of a program keeps every other from appending to it for so long at most.
# Deciding the largest batch takes less.
HELD = "60s"
# How long an append without a caller may keep the process from ending.
CLOSING_S = 1


class CannotServe(Exception):
    """The database cannot be used or the address cannot be listened on; `str()` is the sentence for whoever started us."""


def service_dsn(dsn: str) -> str:
    """The same database, acting as the service's role, which cannot change what is recorded."""
    options = str(conninfo_to_dict(dsn).get("options") or "")
    return make_conninfo(dsn, options=f"{options} -c role={SERVICE_ROLE}".strip())


def patient_dsn(dsn: str) -> str:
    """The same database, which ends a transaction that its client has forgotten. A time that the conninfo sets itself stands."""
    options = str(conninfo_to_dict(dsn).get("options") or "")
    return make_conninfo(dsn, options=f"-c idle_in_transaction_session_timeout={HELD} {options}".strip())


@contextlib.contextmanager
def database(settings: Settings) -> Iterator[str]:
    """A migrated database to serve from: the one in the settings, or the embedded default while the block lasts. Raises CannotServe."""
    with contextlib.ExitStack() as closing:
        dsn = settings.dsn or closing.enter_context(EmbeddedPostgres(settings.data_dir)).dsn
        try:
            applied = migrate(settings.owner_dsn or dsn, MIGRATIONS)
            # A pool would only say later, and to callers, that the role cannot be taken.
            psycopg.connect(service_dsn(dsn)).close()
        except psycopg.Error as error:
            raise CannotServe(f"the database cannot be used: {' '.join(str(error).split())}") from error
        except MigrationChanged as error:
            raise CannotServe(str(error)) from error
        if applied:
            log.info("database.migrated", applied=applied)
        yield dsn


@contextlib.asynccontextmanager
async def server(settings: Settings, dsn: str, listen: str, beside: bool = False) -> AsyncIterator[str]:
    """A gRPC server that answers while the block lasts; gives its address. At the end calls under way get time to finish.

    With `beside`, what follows the log and makes checkpoints of it does so in a process of its own, and so does what folds a long log from
    its beginning. Raises CannotServe.
    """
    refuse_taken(listen)
    keys = checkpoint_keys(settings)
    master = master_keys(settings)
    where = patient_dsn(service_dsn(dsn))
    connections = Connections(where, settings.pool_size)
    connect = connections.connect
    watchers, ledger = Watchers(), Ledger()
    # The server that offers the statistics follows the log for them, and so with the audit.
    offers = {name for name in SERVICES if settings.service in (name, "all")}
    holder = f"{socket.gethostname()}/{os.getpid()}/{secrets.token_hex(4)}"
    directory = Directory(settings.checkpoint_dir) if settings.checkpoint_dir else None
    signs = None
    if keys and keys.signing and "audit" in offers:
        signs = Signing(keys, directory, Policy(settings.checkpoint_entries, settings.checkpoint_seconds))
    given = Following(where, tuple(offers & FOLLOWED.keys()), holder, settings.lease_s, settings.log_level, signs)
    follower: Follower | FollowerProcess
    follows_beside = beside and bool(given.offers)
    follower = FollowerProcess(connect, follow, (given,)) if follows_beside else follower_of(given, connect)
    checkpointer = None if follows_beside else checkpointer_of(given, connect)

    def appended(program_id: str) -> None:
        watchers.appended(program_id)
        follower.appended(program_id)
        if checkpointer:
            checkpointer.appended(program_id)

    writer = Writer(connect, (ledger, Referral()), now_us, settings.batch_limit, settings.retry_for_s, appended)
    options = [("grpc.max_receive_message_length", LARGEST_MESSAGE), ("grpc.so_reuseport", 0)]
    grpc_server = grpc.aio.server(options=options)
    served = {name: told for key, facts in FACTS.items() if settings.service in (key, "all") for name, told in facts.items()}
    ops = OpsTransport(connect, service_dsn(dsn), writer, REGISTERED, served, watchers, now_us, beside)
    ops_pb2_grpc.add_OpsServiceServicer_to_server(ops, grpc_server)
    if settings.service in ("ledger", "all"):
        ledger_pb2_grpc.add_LedgerServiceServicer_to_server(
            LedgerTransport(connect, writer, ledger, service_dsn(dsn), watchers.stopping), grpc_server
        )
    if settings.service in ("referral", "all"):
        referral_pb2_grpc.add_ReferralServiceServicer_to_server(ReferralTransport(connect, writer, master), grpc_server)
    if "statistics" in offers:
        statistics_pb2_grpc.add_StatisticsServiceServicer_to_server(StatisticsTransport(connect, follower), grpc_server)
    if "audit" in offers:
        audit_pb2_grpc.add_AuditServiceServicer_to_server(AuditTransport(connect, keys, directory is not None), grpc_server)
    health = HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health, grpc_server)
    names = [
        service.full_name
        for key, module in SERVICES.items()
        if key in (settings.service, "ops") or settings.service == "all"
        for service in module.DESCRIPTOR.services_by_name.values()
    ]
    reflection.enable_server_reflection([*names, "grpc.health.v1.Health", reflection.SERVICE_NAME], grpc_server)
    host = listen.rpartition(":")[0]
    try:
        port = grpc_server.add_insecure_port(listen)
    except RuntimeError as error:
        raise CannotServe(f"cannot listen on {listen}: {error}") from error
    await connections.open()
    try:
        follower.start()
        if checkpointer:
            checkpointer.start()
        await grpc_server.start()
        for name in ["", *names]:
            await health.set(name, health_pb2.HealthCheckResponse.SERVING)
        yield f"{host}:{port}"
    finally:
        await health.enter_graceful_shutdown()
        watchers.close()
        await grpc_server.stop(settings.drain_s)
        # Every caller has been answered or cut off by now; what is left is an append that the database does not finish.
        await writer.close(CLOSING_S)
        if checkpointer:
            await checkpointer.close(CLOSING_S)
        await follower.close(CLOSING_S)
        await connections.close()


def checkpoint_keys(settings: Settings) -> Keys | None:
    """The keys that the settings name. Raises CannotServe."""
    if settings.checkpoint_key and settings.checkpoint_key_file:
        raise CannotServe("two keys for checkpoints are given: set FENRUN_CHECKPOINT_KEY_FILE or FENRUN_CHECKPOINT_KEY, not both")
    try:
        if settings.checkpoint_key:
            # One line or several, as environments have them.
            return Keys.parse("\n".join(settings.checkpoint_key.get_secret_value().split()))
        return signing.load(settings.checkpoint_key_file) if settings.checkpoint_key_file else None
    except NoteMalformed as error:
        raise CannotServe(f"FENRUN_CHECKPOINT_KEY: {error}") from error
    except KeyFileInvalid as error:
        raise CannotServe(str(error)) from error


def master_keys(settings: Settings) -> MasterKeys | None:
    """The master keys that the settings name. Raises CannotServe."""
    if settings.master_key and settings.master_key_file:
        raise CannotServe("two master keys are given: set FENRUN_MASTER_KEY_FILE or FENRUN_MASTER_KEY, not both")
    try:
        if settings.master_key:
            return MasterKeys.parse(settings.master_key.get_secret_value().split())
        return member_names.load(settings.master_key_file) if settings.master_key_file else None
    except MasterKeyInvalid as error:
        where = "" if settings.master_key_file else "FENRUN_MASTER_KEY: "
        raise CannotServe(f"{where}{error}") from error


def refuse_taken(listen: str) -> None:
    """Raises CannotServe for an address that is taken or makes no sense, before gRPC does so in words for gRPC's developers."""
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise CannotServe(f"cannot listen on {listen!r}: write HOST:PORT, such as 127.0.0.1:50051")
    try:
        addresses = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise CannotServe(f"cannot listen on {listen}: {error.strerror}") from error
    failures = []
    for family, kind, _, _, address in addresses:
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(address)
            except OSError as error:
                failures.append(error)
    # A host of several addresses may lack one of them (::1 in a container); gRPC listens on the others.
    grave = [failure for failure in failures if failure.errno in (errno.EADDRINUSE, errno.EACCES)]
    if grave or len(failures) == len(addresses):
        raise CannotServe(f"cannot listen on {listen}: {(grave or failures)[0].strerror}")


class RunningServer:
    """A server in a thread of this process, on a free port of the loopback: what the command line uses when nothing else serves."""

    def __init__(self, settings: Settings) -> None:
        if not structlog.is_configured():
            # The terminal belongs to the command that started us.
            configure_logging("warning")
        self._closing = contextlib.ExitStack()
        dsn = self._closing.enter_context(database(settings))
        started: Future[str] = Future()
        self._stop: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

        async def run() -> None:
            self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
            try:
                async with server(settings, dsn, "127.0.0.1:0") as address:
                    started.set_result(address)
                    await self._stop.wait()
            except BaseException as error:
                if not started.done():
                    started.set_exception(error)
                raise

        self._thread = threading.Thread(target=lambda: asyncio.run(run()), name="fenrun-server", daemon=True)
        self._thread.start()
        try:
            self.address = started.result()
        except BaseException:
            self._closing.close()
            raise
        self.dsn = dsn

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Lets calls under way finish, then stops the server and the database that was started for it. Safe to repeat."""
        if self._loop and self._stop and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()
        self._closing.close()


def start(settings: Settings) -> RunningServer:
    """A server for this process alone. Call it from the main thread: the embedded database ends with the thread that started it."""
    return RunningServer(settings)


def serve(settings: Settings) -> None:
    """Serves until SIGINT or SIGTERM. Where the embedded default is used, server.json in its directory says how to reach it.

    What cannot be served ends the process: one sentence on stderr, status 1.
    """
    configure_logging(settings.log_level, for_good=True)
    try:
        with database(settings) as dsn:
            asyncio.run(_serve(settings, dsn))
    except CannotServe as reason:
        raise SystemExit(f"fenrun: {reason}") from None


async def _serve(settings: Settings, dsn: str) -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    async with server(settings, dsn, settings.listen, beside=True) as address:
        with contextlib.ExitStack() as closing:
            if settings.dsn is None:
                closing.enter_context(_announced(settings.data_dir / "server.json", address))
            settle_memory()
            log.info("server.ready", address=address, service=settings.service, database="given" if settings.dsn else "embedded")
            await stopping.wait()
            log.info("server.stopping")


@contextlib.contextmanager
def _announced(path: Path, address: str) -> Iterator[None]:
    """The file says where we serve, whole or not at all, while the block lasts."""
    draft = path.with_suffix(".new")
    draft.write_text(json.dumps({"address": address, "pid": os.getpid()}) + "\n", encoding="utf-8")
    draft.replace(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
