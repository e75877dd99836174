"""`fenrun audit export` and `fenrun audit verify`. Exporting asks a server; verifying asks nobody."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from services.console import terminal
from services.console.client import Failed, one_sentence

if TYPE_CHECKING:
    from services.audit.domain.checkpoint import VerifierKey


def register(app: typer.Typer) -> None:
    """Adds the commands to the group `audit`."""
    app.command("verify")(verify)


def verify(
    bundle: Annotated[Path, typer.Argument(help="The directory that `fenrun audit export` made.")],
    key: Annotated[str, typer.Option(help="The public key, NAME+ID+BASE64, or a file with such keys: the only thing that is believed.")],
    since: Annotated[
        Path | None, typer.Option(help="A checkpoint kept from earlier; the bundle must contain exactly what it signed.", dir_okay=False)
    ] = None,
    processes: Annotated[int | None, typer.Option(help="How many to use. Default: one for each processor.", min=1)] = None,
    work_dir: Annotated[
        Path | None, typer.Option(help="Where to keep an index while verifying, some 40 bytes an entry.", file_okay=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The report as JSON.")] = False,
) -> None:
    """Verifies a bundle: no database, no network. Exit status 0 only if everything holds; else the first bad position is named."""
    with one_sentence():
        from services.auditor.verifying import run

        trusted = _keys(key)
        kept = _read(since, "checkpoint") if since is not None else None
        with terminal.stages() as progress:
            asked = run.Verification(bundle, trusted, kept, processes or run.processors(), progress, work_dir)
            report = run.verify(asked)
        if as_json:
            terminal.print_json(report.to_json())
        else:
            terminal.say(*report.lines())
        if not report.holds:
            raise typer.Exit(1)


def _keys(text: str) -> "list[VerifierKey]":
    from services.audit.domain.checkpoint import NoteMalformed, VerifierKey
    from services.audit.signing import Keys

    if Path(text).is_file():
        try:
            return list(Keys.parse(_read(Path(text), "key").decode()).trusted)
        except (NoteMalformed, UnicodeDecodeError) as problem:
            raise Failed(f"key file {text}: {problem}") from None
    try:
        return [VerifierKey.parse(text)]
    except NoteMalformed as problem:
        raise Failed(f"--key {text!r}: {problem}; or name a file that holds one") from None


def _read(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as problem:
        raise Failed(f"the {what} {path} cannot be read: {problem.strerror}") from None
