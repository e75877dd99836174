"""Work spread over processes by fork: a child begins with all that its parent knows at that moment, without copying it.

A child answers once; while it works it may say how far it has come. The caller must have no threads of its own.
"""

import ctypes
import multiprocessing
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from typing import Any

Say = Callable[[int], None]


# Of linux/prctl.h.
PR_SET_PDEATHSIG = 1


def belong_to_parent() -> None:
    """An interrupt is the parent's to answer. A process whose parent was killed has nobody to answer to, and would wait for work for
    ever; Linux alone can end it then.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class WorkerLost(Exception):
    """A process ended without an answer, such as one that the system killed for want of memory."""


class Children:
    """Processes under way. `answers` holds what those that ended gave, by the key they were started under."""

    def __init__(self, progress: Callable[[Any, int], None]) -> None:
        self.answers: dict[Any, Any] = {}
        self._progress = progress
        self._running: dict[Connection, tuple[ForkProcess, Any]] = {}
        self._context = multiprocessing.get_context("fork")

    def __len__(self) -> int:
        return len(self._running)

    def start(self, key: Any, work: Callable[[Say], Any]) -> None:
        """Forks. `work` is given a function that tells how far it has come; what it returns must be picklable."""
        mine, theirs = self._context.Pipe(duplex=False)
        process = self._context.Process(target=_run, args=(work, theirs), daemon=True)
        process.start()
        theirs.close()
        self._running[mine] = (process, key)

    def poll(self, timeout_s: float | None = 0) -> None:
        """Takes what children say; waits at most so long for one to say something (None: until one does). Raises WorkerLost."""
        for connection in wait(list(self._running), timeout_s):
            assert isinstance(connection, Connection)
            process, key = self._running[connection]
            try:
                kind, value = connection.recv()
            except EOFError:
                process.join()
                raise WorkerLost(f"a process that verified {key} ended with status {process.exitcode} and no answer") from None
            if kind == "progress":
                self._progress(key, value)
                continue
            process.join()
            connection.close()
            del self._running[connection]
            if kind == "error":
                raise WorkerLost(f"a process that verified {key} failed: {value}")
            self.answers[key] = value

    def wait_for_all(self) -> None:
        while self._running:
            self.poll(None)

    def stop(self) -> None:
        """Ends those still running."""
        for connection, (process, _) in self._running.items():
            process.kill()
            process.join()
            connection.close()
        self._running.clear()


def _run(work: Callable[[Say], Any], connection: Connection) -> None:
    belong_to_parent()
    try:
        answer = work(lambda done: connection.send(("progress", done)))
    except BaseException as error:
        connection.send(("error", f"{type(error).__name__}: {error}"))
        raise
    connection.send(("answer", answer))
