"""Real processes to be hostile to: server processes, and a PostgreSQL that can be killed."""

import contextlib
import itertools
import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import grpc

from services.runtime import embedded
from services.runtime.embedded import EmbeddedPostgres
from tests.given import Client

REPOSITORY = Path(embedded.__file__).parents[2]
# What anything that ought to happen at once may take on a machine with better things to do.
SHORTLY_S = 30.0
# No pause between attempts to reach a server that was killed, and a connection of one's own for every channel.
CHANNEL_OPTIONS = [
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.use_local_subchannel_pool", 1),
]
_names = itertools.count(1)


class Server:
    """`python -m services serve` in a process of its own. `log` holds what it has written on stderr so far."""

    def __init__(self, dsn: str | None, *, listen: str = "127.0.0.1:0", **settings: str) -> None:
        """Settings are those of services.runtime.settings: drain_s="1". No DSN: the embedded default."""
        self.listen = listen
        self.log: list[str] = []
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("FENRUN_")}
        self._environment |= {f"FENRUN_{name.upper()}": value for name, value in settings.items()}
        if dsn is not None:
            self._environment["FENRUN_DSN"] = dsn
        self._changed = threading.Condition()
        self.process: subprocess.Popen[str]
        self._launch()

    def __enter__(self) -> Self:
        try:
            self.listen = self.said("server.ready")["address"]
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.kill()

    def _launch(self) -> None:
        self._ended = False
        self.process = subprocess.Popen(
            [sys.executable, "-m", "services", "serve", "--listen", self.listen],
            cwd=REPOSITORY,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._listener = threading.Thread(target=self._listen_to, args=(self.process,), daemon=True)
        self._listener.start()

    def _listen_to(self, process: "subprocess.Popen[str]") -> None:
        assert process.stderr is not None
        for line in process.stderr:
            with self._changed:
                self.log.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def events(self) -> list[dict[str, Any]]:
        """The lines of the log that are events; what is not (a traceback, gRPC's own words) is left out."""
        found = []
        for line in list(self.log):
            with contextlib.suppress(json.JSONDecodeError):
                found.append(json.loads(line))
        return found

    def said(self, event: str, times: int = 1) -> dict[str, Any]:
        """The event, once the log has it so many times. Raises AssertionError if it does not come, or the process ends before."""

        def named() -> list[dict[str, Any]]:
            return [one for one in self.events() if one.get("event") == event]

        with self._changed:
            self._changed.wait_for(lambda: len(named()) >= times or self._ended, SHORTLY_S)
        found = named()
        assert len(found) >= times, f"no {event} in the log:\n" + "\n".join(self.log)
        return found[-1]

    def kill(self) -> None:
        """SIGKILL: no more instruction of it is executed. Safe to repeat."""
        self.process.kill()
        self.process.wait(SHORTLY_S)
        self._listener.join(SHORTLY_S)
        assert self.process.stderr is not None
        self.process.stderr.close()

    def restart(self) -> None:
        """Starts it again after its end, at the same address; does not wait until it is ready."""
        assert self.process.poll() is not None
        self.kill()
        self._launch()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Sends the signal and waits for the end; gives the exit status."""
        self.process.send_signal(number)
        return self.ended()

    def ended(self) -> int:
        """The exit status, once it has ended."""
        status = self.process.wait(SHORTLY_S)
        self._listener.join(SHORTLY_S)
        return status

    @contextlib.contextmanager
    def channel(self) -> Iterator[grpc.Channel]:
        with channel(self.listen) as opened:
            yield opened


@contextlib.contextmanager
def serving(*dsns: str, **settings: str) -> Iterator[list[Server]]:
    """Several servers that start at the same time."""
    with contextlib.ExitStack() as closing:
        launched = []
        for dsn in dsns:
            launched.append(Server(dsn, **settings))
            closing.callback(launched[-1].kill)
        yield [closing.enter_context(server) for server in launched]


class _Details(NamedTuple):
    method: str
    timeout: float | None
    metadata: Any
    credentials: Any
    wait_for_ready: bool | None
    compression: Any


class _CallDetails(_Details, grpc.ClientCallDetails):
    pass


class _Limits(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
    """No call lasts for ever, and none fails because its server is not up yet."""

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return continuation(self._limited(client_call_details), request)

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return continuation(self._limited(client_call_details), request)

    def _limited(self, details: Any) -> grpc.ClientCallDetails:
        timeout_s = details.timeout or SHORTLY_S
        return _CallDetails(details.method, timeout_s, details.metadata, details.credentials, True, details.compression)


@contextlib.contextmanager
def channel(address: str) -> Iterator[grpc.Channel]:
    """A channel on which every call has a limit and waits for a server that is being started."""
    with grpc.insecure_channel(address, options=CHANNEL_OPTIONS) as opened:
        yield grpc.intercept_channel(opened, _Limits())


def program_id(about: str) -> str:
    """A name no other test of this run has used."""
    return f"{about}-{os.getpid()}-{next(_names)}"


@contextlib.contextmanager
def client_of(server: Server, program: str, *, new: bool = False) -> Iterator[Client]:
    """A client of a program on a server, with a connection of its own."""
    with server.channel() as opened:
        yield Client.of_new_program(opened, program) if new else Client.of(opened, program)


def kill_postgres(database: EmbeddedPostgres) -> None:
    """SIGKILL to the postmaster and everything it has forked: the whole PostgreSQL is gone, as after a power cut."""
    tree = [database.pid, *children_of(database.pid)]
    postmaster = os.pidfd_open(database.pid)
    try:
        for pid in tree:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert select.select([postmaster], [], [], SHORTLY_S)[0], "the postmaster does not die"
    finally:
        os.close(postmaster)


def children_of(parent: int) -> list[int]:
    """Processes forked by a process, by /proc."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The name in parentheses may hold anything; the parent's id is the second field after it.
            if int(status.read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(status.parent.name))
    return found
