"""Connecting a command to a server, and turning whatever a server refuses into one sentence.

`command` gives a function the options every command shares and opens the connection: a server named by --target, else the one that
serves the data directory, else one started inside this process for as long as the command takes.
"""

import functools
import importlib
import inspect
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, NoReturn, ParamSpec

import typer

from services.console import terminal
from services.kernel.times import from_text
from services.runtime.currency import to_minor

if TYPE_CHECKING:
    import grpc
    from fenrun.audit.v1.audit_pb2_grpc import AuditServiceStub
    from fenrun.ledger.v1.ledger_pb2_grpc import LedgerServiceStub
    from fenrun.ops.v1.ops_pb2_grpc import OpsServiceStub
    from fenrun.referral.v1.referral_pb2_grpc import ReferralServiceStub
    from fenrun.statistics.v1.statistics_pb2_grpc import StatisticsServiceStub
    from fenrun.type.v1.type_pb2 import Receipt
    from google.protobuf.message import Message
    from google.protobuf.timestamp_pb2 import Timestamp
    from google.rpc.status_pb2 import Status

P = ParamSpec("P")

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
# A server that restarts is back within a second or two; gRPC's own pause between attempts grows to two minutes.
CHANNEL_OPTIONS = [
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
]
# How long a server that wrote server.json may take to answer before it counts as gone.
KNOCK_S = 2

Program = Annotated[str, typer.Option("--program", "-P", envvar="FENRUN_PROGRAM", help="The program whose books are meant.")]
Target = Annotated[
    str | None,
    typer.Option("--target", envvar="FENRUN_TARGET", metavar="HOST:PORT", help="Use this server. Left out: the data directory's own."),
]
DataDir = Annotated[
    Path | None, typer.Option("--data-dir", envvar="FENRUN_DATA_DIR", help="Where the embedded server keeps its data.", file_okay=False)
]
Json = Annotated[bool, typer.Option("--json", help="JSON: names as in the contract, 64-bit integers as numbers, hashes in hex.")]


class Lazy:
    """A module imported when it is first used. grpc and the generated classes cost more than all of `fenrun --help`."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(importlib.import_module(self._name), attribute)


class Failed(Exception):
    """Ends a command: `str()` is the sentence for stderr. Exit status 1."""


# ---------------------------------------------------------------- what a person types


def parse_time(text: str) -> datetime:
    """ISO 8601 with a zone, or a date, which is its first instant in UTC."""
    try:
        day = date.fromisoformat(text)
    except ValueError:
        pass
    else:
        return datetime(day.year, day.month, day.day, tzinfo=UTC)
    try:
        from_text(text)
        return datetime.fromisoformat(text)
    except ValueError as problem:
        what = str(problem) if "time zone" in str(problem) else f"{text!r} is not a time; write 2026-01-31T08:00:00Z, or a date"
        raise typer.BadParameter(what) from None


# For options: `at: At = None`; `timestamp(at)` is that time, or now.
At = Annotated[
    datetime | None, typer.Option("--at", parser=parse_time, metavar="TIME", help="When: ISO 8601 with zone, or a date. Default: now.")
]


def position_or_time(text: str) -> int | datetime:
    return int(text) if text.isascii() and text.isdigit() else parse_time(text)


# For reads: `as_of: AsOf = None, occurred_by: OccurredBy = None`; `ask_as_of` puts them into a request.
AsOf = Annotated[
    Any,
    typer.Option("--as-of", parser=position_or_time, metavar="POSITION|TIME", help="As the book stood right after this entry, or then."),
]
OccurredBy = Annotated[
    datetime | None,
    typer.Option("--occurred-by", parser=parse_time, metavar="TIME", help="Of that, only what had happened in the world by then."),
]


def ask_as_of(request: Any, as_of: int | datetime | None, occurred_by: datetime | None) -> None:
    """Asks for another time than now."""
    if isinstance(as_of, int):
        if as_of >= 2**63:
            raise typer.BadParameter(f"there is no position {as_of}")
        request.position = as_of
    elif as_of is not None:
        request.recorded_at.CopyFrom(timestamp(as_of))
    if occurred_by is not None:
        request.occurred_at.CopyFrom(timestamp(occurred_by))


def told_as_of(position: int, occurred_by: datetime | None) -> str:
    """What an answer is true at, for people."""
    happened = f", of what had happened by {terminal.when(timestamp(occurred_by))}" if occurred_by else ""
    return f"at position {position}{happened}"


def timestamp(moment: datetime | None = None) -> "Timestamp":
    """The contract's form of a time; of now, if none is given: time enters here, at the edge."""
    from google.protobuf.timestamp_pb2 import Timestamp

    found = Timestamp()
    found.FromDatetime(moment or datetime.now(UTC))
    return found


def new_id(kind: str) -> str:
    """An id nobody had to invent: "touch-3f9c0a1b2c4d". The command prints it."""
    import secrets

    return f"{kind}-{secrets.token_hex(6)}"


# ---------------------------------------------------------------- the connection


class Connection:
    """An open channel and the services on it. `reopen` follows a server that came back on another port."""

    def __init__(self, address: str, data_dir: Path | None = None, at_home: bool = False) -> None:
        self.address, self._data_dir, self._at_home = address, data_dir, at_home or data_dir is not None
        self._open()

    def _open(self) -> None:
        import grpc
        from fenrun.audit.v1.audit_pb2_grpc import AuditServiceStub
        from fenrun.ledger.v1.ledger_pb2_grpc import LedgerServiceStub
        from fenrun.ops.v1.ops_pb2_grpc import OpsServiceStub
        from fenrun.referral.v1.referral_pb2_grpc import ReferralServiceStub
        from fenrun.statistics.v1.statistics_pb2_grpc import StatisticsServiceStub

        # Our own server is on the loopback; a proxy from the environment would not find it there.
        options = [*CHANNEL_OPTIONS, ("grpc.enable_http_proxy", 0)] if self._at_home else CHANNEL_OPTIONS
        self.channel: grpc.Channel = grpc.insecure_channel(self.address, options=options)
        self.ledger: LedgerServiceStub = LedgerServiceStub(self.channel)
        self.referral: ReferralServiceStub = ReferralServiceStub(self.channel)
        self.ops: OpsServiceStub = OpsServiceStub(self.channel)
        self.statistics: StatisticsServiceStub = StatisticsServiceStub(self.channel)
        self.audit: AuditServiceStub = AuditServiceStub(self.channel)

    def answers(self) -> bool:
        import grpc

        try:
            grpc.channel_ready_future(self.channel).result(timeout=KNOCK_S)
        except grpc.FutureTimeoutError:
            return False
        return True

    def reopen(self) -> None:
        found = _served_at(self._data_dir) if self._data_dir else None
        if found and found != self.address:
            self.close()
            self.address = found
            self._open()

    def close(self) -> None:
        self.channel.close()


def _served_at(data_dir: Path) -> str | None:
    """The address of the server that says it serves this data directory, if its process is alive."""
    try:
        told = json.loads((data_dir / "server.json").read_text())
        address, pid = str(told["address"]), int(told["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    try:
        os.kill(pid, 0)
    except PermissionError:
        return address  # alive, and another user's
    except OSError:
        return None
    return address


@contextmanager
def connect(target: str | None, data_dir: Path | None) -> Iterator[Connection]:
    """A connection to `target`, to the server of the data directory, or to one started here and stopped at the end.

    A call that fails inside leaves as `Failed`, with the sentence for it.
    """
    import grpc

    with ExitStack() as closing:
        connection = Connection(target) if target else _connect_at_home(data_dir, closing)
        closing.callback(connection.close)
        try:
            yield connection
        except grpc.RpcError as error:
            raise Failed(explain(error, connection.address)) from error


def _connect_at_home(data_dir: Path | None, closing: ExitStack) -> Connection:
    from services.runtime.settings import Settings

    settings = Settings(data_dir=data_dir) if data_dir else Settings()
    address = _served_at(settings.data_dir)
    if address:
        connection = Connection(address, settings.data_dir)
        if connection.answers():
            return connection
        connection.close()
    from services import composition
    from services.runtime.process import configure_logging

    # The server is only a means here: of its log just what went wrong, and never on stdout.
    configure_logging("error")
    return Connection(closing.enter_context(composition.start(settings)).address, at_home=True)


# ---------------------------------------------------------------- one command


@dataclass
class Call:
    """What a command is given: the connection, the program, and whether JSON is wanted."""

    connection: Connection
    program: str
    as_json: bool

    @property
    def ledger(self) -> "LedgerServiceStub":
        return self.connection.ledger

    @property
    def referral(self) -> "ReferralServiceStub":
        return self.connection.referral

    @property
    def ops(self) -> "OpsServiceStub":
        return self.connection.ops

    @property
    def statistics(self) -> "StatisticsServiceStub":
        return self.connection.statistics

    @property
    def audit(self) -> "AuditServiceStub":
        return self.connection.audit

    @functools.cached_property
    def currency(self) -> str:
        """Of the program's books."""
        from fenrun.ops.v1.ops_pb2 import GetProgramRequest

        return self.ops.GetProgram(GetProgramRequest(program_id=self.program)).currency

    def minor(self, text: str) -> int:
        """An amount as people write it, in minor units of the program's currency."""
        try:
            return to_minor(text, self.currency)
        except ValueError as problem:
            raise typer.BadParameter(str(problem)) from None

    def pages(self, rpc: Callable[[Any], Any], request: Any, field: str, at_most: int | None = None) -> Iterator[Any]:
        """Every item of a list that comes in pages, or the first few."""
        request.page_size = min(at_most or 1000, 1000)
        left = at_most
        while True:
            page = rpc(request)
            items = list(getattr(page, field))[:left]
            yield from items
            left = None if left is None else left - len(items)
            if not page.next_page_token or left == 0:
                return
            request.page_token = page.next_page_token

    def wrote(self, response: "Message", receipt: "Receipt", sentence: str) -> bool:
        """Says that a fact is recorded; true when there is room for more words (no JSON)."""
        if self.as_json:
            terminal.print_json(terminal.plain(response))
        else:
            was = "was recorded already, at" if receipt.already_recorded else "recorded at"
            terminal.say(f"{sentence}: {was} position {receipt.position}")
        return not self.as_json


def command(
    app: typer.Typer, name: str | None = None, program: bool = True
) -> Callable[[Callable[Concatenate[Call, P], None]], Callable[Concatenate[Call, P], None]]:
    """Registers a function as a command. It is given an open `Call`; the options for that are added to its own."""
    shared: dict[str, Any] = {"program": Program, "target": Target, "data_dir": DataDir, "json": Json}
    if not program:
        del shared["program"]
    defaults = {"program": inspect.Parameter.empty, "target": None, "data_dir": None, "json": False}

    def register(body: Callable[Concatenate[Call, P], None]) -> Callable[Concatenate[Call, P], None]:
        @functools.wraps(body)
        def run(**given: Any) -> None:
            options = {option: given.pop(option) for option in shared}
            with one_sentence(), connect(options["target"], options["data_dir"]) as connection:
                body(Call(connection, options.get("program", ""), options["json"]), **given)  # type: ignore[call-arg]

        _, *theirs = inspect.signature(body).parameters.values()
        own = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in theirs]
        added = [
            inspect.Parameter(option, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=defaults[option])
            for option, annotation in shared.items()
        ]
        run.__signature__ = inspect.Signature([*own, *added])  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in [*own, *added]}
        app.command(name)(run)
        return body

    return register


# ---------------------------------------------------------------- refusals, in words


@contextmanager
def one_sentence() -> Iterator[None]:
    """Ends a command that failed with a sentence on stderr and status 1, one that was interrupted with 130; neither with a traceback."""
    try:
        yield
        sys.stdout.flush()
    except KeyboardInterrupt:
        _leave(130)
    except BrokenPipeError:
        # Who read our output has left (`fenrun entries | head`). Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        _leave(141)
    except Failed as failed:
        terminal.notice(f"fenrun: {failed}")
        _leave(1)
    except Exception as error:
        # The embedded server says for itself why it cannot start; only it knows its errors, and it may never have been imported.
        embedded = sys.modules.get("services.runtime.embedded")
        if embedded is None or not isinstance(error, embedded.EmbeddedPostgresError):
            raise
        terminal.notice(f"fenrun: {error}")
        _leave(1)


def _leave(status: int) -> NoReturn:
    raise typer.Exit(status)


def explain(error: "grpc.RpcError", address: str) -> str:
    """One sentence for a call to a server that failed."""
    from grpc_status import rpc_status

    call: Any = error
    try:
        status = rpc_status.from_call(call)
    except ValueError:
        status = None
    if status is not None:
        reason, sentence = refusal(status)
        return f"{sentence} ({reason})" if reason else sentence
    code, details = call.code().name, call.details() or ""
    if code == "UNAVAILABLE":
        return f"no server answers at {address} ({details.rpartition(': ')[2] or 'no reason given'})"
    if code == "UNIMPLEMENTED":
        return f"the server at {address} does not offer this service; it may have been started with --service"
    return f"the server at {address} answered {code}: {details or 'no reason given'}"


def reason(error: "grpc.RpcError") -> str:
    """The name of fenrun.type.v1.ErrorReason that a call was refused for; "" where the server gave none."""
    from grpc_status import rpc_status

    call: Any = error
    try:
        status = rpc_status.from_call(call)
    except ValueError:
        return ""
    return refusal(status)[0] if status is not None else ""


def refusal(status: "Status") -> tuple[str, str]:
    """(reason, sentence) of a google.rpc.Status: the reason is a name of fenrun.type.v1.ErrorReason, or "" where the server gave none."""
    from google.rpc.error_details_pb2 import BadRequest, ErrorInfo

    info, bad = ErrorInfo(), BadRequest()
    for detail in status.details:
        detail.Unpack(info)
        detail.Unpack(bad)
    fields = "; ".join(
        violation.description if violation.field in violation.description else f"{violation.field}: {violation.description}"
        for violation in bad.field_violations
    )
    told = status.message if not fields or fields in status.message else f"{status.message}: {fields}" if status.message else fields
    told = told or ", ".join(f"{key} {value}" for key, value in sorted(info.metadata.items()))
    return info.reason.removeprefix("ERROR_REASON_"), told
