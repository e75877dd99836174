"""Export, verification and report of an imported program, as an auditor runs them: commands, of which only the first asks the server."""

import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import grpc
from fenrun.audit.v1 import audit_pb2, audit_pb2_grpc

from services.audit import signing
from tests.bench.load import Where
from tests.bench.machine import ROOT, children_s, memory_mib
from tests.bench.retail import environment
from tests.bench.shop import CALL_TIMEOUT_S, Lost

# How long the server may take to sign a checkpoint of what was imported, and how often it is asked.
SIGNED_S, ASKED_S = 120, 0.1
# How often memory is looked at.
LOOK_S = 0.1


@dataclass(frozen=True)
class Audited:
    """What a command took, its start included. Memory is the most that all its processes had together, what they share counted once."""

    title: str
    entries: int
    wall_s: float
    processor_s: float
    memory_mib: float


def run(where: Where, program: str, scratch: Path, key_file: Path) -> list[Audited]:
    """Exports a program, verifies the bundle by the public key and draws its report. Raises Lost where the bundle does not verify."""
    entries = _signed(where, program)
    bundle, key = scratch / f"{program}.bundle", str(signing.load(key_file).trusted[-1])
    export = ["export", "--program", program, "--target", where.address, "--out", str(bundle)]
    return [
        _measured("fenrun audit export", entries, export),
        _measured("fenrun audit verify", entries, ["verify", str(bundle), "--key", key]),
        _measured("fenrun audit report", entries, ["report", str(bundle), "--out", str(scratch / f"{program}.html")]),
    ]


def _signed(where: Where, program: str) -> int:
    """How many entries a program has, once a checkpoint covers all of them."""
    deadline = time.monotonic() + SIGNED_S
    with grpc.insecure_channel(where.address) as channel:
        audit = audit_pb2_grpc.AuditServiceStub(channel)
        while time.monotonic() < deadline:
            status = audit.GetStatus(audit_pb2.GetStatusRequest(program_id=program), timeout=CALL_TIMEOUT_S)
            if status.latest.size == status.head_position:
                return status.head_position
            time.sleep(ASKED_S)
    raise Lost(f"no checkpoint of {program} was signed in {SIGNED_S} s")


def _measured(title: str, entries: int, arguments: list[str]) -> Audited:
    began, before_s = time.monotonic(), children_s()
    command = [sys.executable, "-m", "services", "audit", *arguments]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        peaks = [0.0]
        ended = threading.Event()

        def look() -> None:
            while not ended.wait(LOOK_S):
                peaks.append(memory_mib(process.pid))

        watch = threading.Thread(target=look)
        watch.start()
        said, _ = process.communicate()
        wall_s = time.monotonic() - began
        ended.set()
        watch.join()
    if process.returncode:
        raise Lost(f"{title} ended with status {process.returncode}:\n{said[-2000:]}")
    return Audited(title, entries, wall_s, children_s() - before_s, max(peaks))
