"""Commands of the auditor: keys, checkpoints, and proofs that are checked here and not by the server."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from services.console import terminal
from services.console.client import Call, Failed, Lazy, command, one_sentence
from services.console.terminal import Column

if TYPE_CHECKING:
    from fenrun.audit.v1 import audit_pb2 as pb

    from services.audit import client as verifying
    from services.audit import signing
else:
    pb = Lazy("fenrun.audit.v1.audit_pb2")
    signing = Lazy("services.audit.signing")
    verifying = Lazy("services.audit.client")

app = typer.Typer()
audit_app = typer.Typer(help="Checkpoints and proofs: check the log without believing whoever keeps it.", no_args_is_help=True)
key_app = typer.Typer(help="The key that signs checkpoints. It belongs outside the database.", no_args_is_help=True)
app.add_typer(audit_app, name="audit")
audit_app.add_typer(key_app, name="key")

File = Annotated[Path, typer.Argument(help="The key file, such as FENRUN_CHECKPOINT_KEY_FILE names.", dir_okay=False)]
Keys = Annotated[
    list[str], typer.Option("--key", help="A verifier key to trust, NAME+ID+BASE64, or a file of them. Repeat it for several.")
]


# ---------------------------------------------------------------- keys


@key_app.command("new")
def new_key(
    file: File,
    name: Annotated[str, typer.Option(help="Who signs, for the world: such as shop.example/fenrun. Logs are NAME/PROGRAM.")] = "fenrun",
    rotate: Annotated[bool, typer.Option("--rotate", help="Replace the key in the file; it stays trusted and signs no more.")] = False,
) -> None:
    """Makes a signing key in a file that only its owner can read, and prints the verifier key to hand out."""
    with one_sentence(), _said():
        keys = signing.rotate(file) if rotate else signing.create(file, name)
    terminal.say(str(keys.trusted[-1]))


@key_app.command("show")
def show_key(file: File) -> None:
    """The verifier keys in a key file, one a line, the newest last: what auditors need. Never the secret."""
    with one_sentence(), _said():
        keys = signing.load(file)
    terminal.say(*map(str, keys.trusted))


# ---------------------------------------------------------------- checkpoints


@command(audit_app, "checkpoint")
def show_checkpoint(
    call: Call, size: Annotated[int | None, typer.Option(help="The one of so many entries. Left out: the latest.", min=1)] = None
) -> None:
    """A checkpoint as it was signed. Keep it where the log's owner cannot change it: `fenrun audit checkpoint -P tea > tea.checkpoint`."""
    found = call.audit.GetCheckpoint(pb.GetCheckpointRequest(program_id=call.program, size=size or 0)).checkpoint
    if call.as_json:
        return terminal.print_json(terminal.plain(found))
    terminal.say(*found.note.removesuffix("\n").split("\n"))


@command(audit_app, "checkpoints")
def list_checkpoints(call: Call, limit: Annotated[int, typer.Option(help="At most this many.", min=1)] = 20) -> None:
    """The checkpoints made, the latest first."""
    found = list(call.pages(call.audit.ListCheckpoints, pb.ListCheckpointsRequest(program_id=call.program), "checkpoints", limit))
    if call.as_json:
        return terminal.print_json({"checkpoints": [terminal.plain(one) for one in found]})
    terminal.table(
        [Column("entries", "number"), Column("made at"), Column("root")],
        [(one.size, terminal.when(one.made_at), one.root.hex()[:32]) for one in found],
    )


@command(audit_app, "status")
def status(call: Call) -> None:
    """How far tree and checkpoints have come, and whether a checkpoint is refused. Exit status 1 if one is."""
    found = call.audit.GetStatus(pb.GetStatusRequest(program_id=call.program))
    if call.as_json:
        terminal.print_json(terminal.plain(found))
    else:
        latest = f"{_entries(found.latest.size)}, {terminal.when(found.latest.made_at)}" if found.HasField("latest") else "none yet"
        signs = "this server signs, and publishes to a directory" if found.publishes else "this server signs, and publishes nowhere"
        terminal.say(f"log         {_entries(found.head_position)}", f"tree        {_entries(found.tree_size)}")
        terminal.say(f"checkpoint  {latest}", f"key         {signs if found.signs else 'none: this server makes no checkpoints'}")
    if found.HasField("refusal"):
        at = terminal.when(found.refusal.refused_at)
        raise Failed(f"the checkpoint of {_entries(found.refusal.size)} is refused, last at {at}: {found.refusal.reason}")


# ---------------------------------------------------------------- proofs


@command(audit_app, "prove")
def prove(
    call: Call,
    position: Annotated[int, typer.Argument(help="The entry's position in the log.", min=1)],
    key: Keys,
    since: Annotated[Path | None, typer.Option(help="A checkpoint kept before: the log must go on from it.", dir_okay=False)] = None,
) -> None:
    """Proves that the entry at a position is in the latest signed checkpoint. Exit status 1 if anything does not hold."""
    with _said():
        auditor = _auditor(call, key, since)
        kept = auditor.last
        auditor.advance()
        proven = auditor.prove(position)
    if call.as_json:
        note = auditor.last_note.decode()
        found = {"proven": True, "position": position, "hash": proven.hash.hex(), "checkpoint": note, "entry": terminal.plain(proven.entry)}
        return terminal.print_json(found)
    last, entry = proven.checkpoint, proven.entry
    terminal.paragraph(f"The checkpoint of {_entries(last.size)} of {last.origin} is signed by a key you trust.")
    if kept is not None:
        terminal.paragraph(f"It goes on from the checkpoint of {_entries(kept.size)} you kept: what that covers is unchanged.")
    # A forged log may have anything for a type or a stream.
    what = f"Entry {position}, {terminal.harmless(f'{entry.type} of {entry.stream}')}, recorded {terminal.when(entry.recorded_at)}"
    terminal.paragraph(f"{what}, hashes to {proven.hash.hex()} from its own bytes.")
    terminal.paragraph(f"The checkpoint covers an entry of that hash at position {position}.")


@command(audit_app, "consistent")
def consistent(
    call: Call,
    old: Annotated[Path, typer.Argument(metavar="OLD_CHECKPOINT", help="A checkpoint kept before, as a file.", dir_okay=False)],
    key: Keys,
) -> None:
    """Proves that the log begins with what a checkpoint kept before covers. Exit status 1 if it does not."""
    with _said():
        auditor = _auditor(call, key, old)
        kept = auditor.last
        assert kept is not None
        found = auditor.advance()
    if call.as_json:
        note = auditor.last_note.decode()
        return terminal.print_json({"consistent": True, "old_size": kept.size, "new_size": found.size, "checkpoint": note})
    terminal.paragraph(f"The checkpoint of {_entries(kept.size)} you kept, and the server's of {found.size}, are signed by keys you trust.")
    terminal.paragraph(f"{found.origin} begins with what your checkpoint covers: no entry of it was changed, taken out or put in.")


def _entries(count: int) -> str:
    return "1 entry" if count == 1 else f"{count} entries"


def _auditor(call: Call, keys: list[str], since: Path | None) -> "verifying.VerifyingClient":
    last = since.read_bytes() if since else None
    return verifying.VerifyingClient(call.connection.channel, call.program, [one for key in keys for one in signing.given(key)], last)


@contextlib.contextmanager
def _said() -> Iterator[None]:
    """What a check finds wrong, or a file, as the sentence that ends the command."""
    from services.audit.domain.checkpoint import NoteMalformed

    try:
        yield
    except (NoteMalformed, signing.KeyFileInvalid, signing.NotTrusted, OSError, ValueError) as error:
        raise Failed(str(error)) from error
    except verifying.ServerLied as error:
        raise Failed(f"NOT PROVEN: {error}") from error
