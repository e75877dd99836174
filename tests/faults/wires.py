"""Wires that break at the worst moment: proxies that carry a conversation and cut it where a test says."""

import contextlib
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from services.runtime.embedded import SOCKET_FILE
from tests.faults.processes import SHORTLY_S

# RFC 9113: what a client says first, the length of a frame's header, frame types and flags.
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_HEADER = 9
DATA, HEADERS = 0, 1
END_STREAM = 0x1


class Wire:
    """One connection through a proxy. What one side says goes through `to_server` or `to_client`, which may cut it."""

    def __init__(self, client: socket.socket, server: socket.socket, proxy: "Proxy") -> None:
        self._client, self._server, self._proxy = client, server, proxy
        self.from_client, self.from_server = b"", b""
        # From here on the server's answers do not reach the client unseen.
        self.suspect = False
        for source, forward in ((client, proxy.to_server), (server, proxy.to_client)):
            threading.Thread(target=self._pump, args=(source, forward), daemon=True).start()

    def _pump(self, source: socket.socket, forward: Callable[["Wire", bytes], None]) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                forward(self, data)
        self.cut()

    def tell_server(self, data: bytes) -> None:
        self._server.sendall(data)

    def tell_client(self, data: bytes) -> None:
        self._client.sendall(data)

    def cut(self) -> None:
        """Both sides lose the other. Safe to repeat."""
        for side in (self._client, self._server):
            with contextlib.suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)
            side.close()


class Proxy:
    """Accepts connections and carries them to a server. `cuts` counts the wires a test had cut."""

    def __init__(self, listener: socket.socket, connect: Callable[[], socket.socket]) -> None:
        self.cuts = 0
        self._listener = listener
        self._connect = connect
        self._wires: list[Wire] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for wire in self._wires:
            wire.cut()
        self._thread.join(SHORTLY_S)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    self._wires.append(Wire(client, self._connect(), self))
                except OSError:
                    client.close()

    def to_server(self, wire: Wire, data: bytes) -> None:
        wire.tell_server(data)

    def to_client(self, wire: Wire, data: bytes) -> None:
        wire.tell_client(data)

    def cut(self, wire: Wire) -> None:
        self.cuts += 1
        wire.cut()


class CallProxy(Proxy):
    """Between a gRPC client and its server. Armed, it cuts the next call: with its request just forwarded, or with its reply in hand."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        listener = socket.create_server(("127.0.0.1", 0))
        super().__init__(listener, lambda: socket.create_connection((host, int(port)), SHORTLY_S))
        self.address = f"127.0.0.1:{listener.getsockname()[1]}"
        self.armed: Literal["request", "reply"] | None = None

    def to_server(self, wire: Wire, data: bytes) -> None:
        frames, wire.from_client = _frames((wire.from_client + data).removeprefix(PREFACE))
        wire.suspect = self.armed == "request" and any(kind == DATA and flags & END_STREAM for kind, flags in frames)
        wire.tell_server(data)
        if wire.suspect:
            self.armed = None
            self.cut(wire)

    def to_client(self, wire: Wire, data: bytes) -> None:
        frames, wire.from_server = _frames(wire.from_server + data)
        if self.armed == "reply" and any(kind == HEADERS for kind, _ in frames):
            self.armed = None
            self.cut(wire)
        elif not wire.suspect:
            wire.tell_client(data)


def _frames(data: bytes) -> tuple[list[tuple[int, int]], bytes]:
    """The (type, flags) of every whole frame, and the bytes after the last."""
    frames = []
    while len(data) >= FRAME_HEADER and len(data) >= (end := FRAME_HEADER + int.from_bytes(data[:3])):
        frames.append((data[3], data[4]))
        data = data[end:]
    return frames, data


class DatabaseProxy(Proxy):
    """Between a server and its PostgreSQL, on a unix socket in a directory of its own.

    Armed with some bytes, it waits for a statement that holds them, lets PostgreSQL finish it, transaction and all, keeps the answer to
    itself and cuts the wire: the commit that nobody hears of.
    """

    def __init__(self, directory: Path, dsn_of: str, real_directory: Path) -> None:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(directory / SOCKET_FILE))
        listener.listen()

        def connect() -> socket.socket:
            server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            server.connect(str(real_directory / SOCKET_FILE))
            return server

        super().__init__(listener, connect)
        self.dsn = dsn_of.replace(str(real_directory), str(directory))
        self.armed: bytes | None = None

    def to_server(self, wire: Wire, data: bytes) -> None:
        # What is looked for may come in two pieces.
        wire.from_client = wire.from_client[-100:] + data
        if self.armed and self.armed in wire.from_client:
            wire.suspect = True
        wire.tell_server(data)

    def to_client(self, wire: Wire, data: bytes) -> None:
        if not wire.suspect:
            wire.tell_client(data)
            return
        wire.from_server += data
        at = 0
        while len(wire.from_server) >= at + 5 and len(wire.from_server) >= (
            end := at + 1 + int.from_bytes(wire.from_server[at + 1 : at + 5])
        ):
            if wire.from_server[at : at + 1] == b"Z":
                # ReadyForQuery: I is idle, so committed; T is inside a transaction, whose end is still to come.
                if wire.from_server[at + 5 : at + 6] == b"I" and self.armed:
                    self.armed = None
                    self.cut(wire)
                    return
                wire.tell_client(wire.from_server[:end])
                wire.from_server, at = wire.from_server[end:], 0
                continue
            at = end
