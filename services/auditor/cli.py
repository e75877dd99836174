"""`fenrun audit export`, `verify` and `report`. Exporting asks a server; the others ask nobody."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from services.console import terminal
from services.console.client import Call, Failed, Lazy, command, one_sentence

if TYPE_CHECKING:
    from fenrun.audit.v1 import audit_pb2 as pb
    from fenrun.ledger.v1 import ledger_pb2 as ledger
    from fenrun.log.v1 import log_pb2 as log

    from services.audit.domain.checkpoint import VerifierKey
    from services.auditor.verifying.report import Report
else:
    pb = Lazy("fenrun.audit.v1.audit_pb2")
    ledger = Lazy("fenrun.ledger.v1.ledger_pb2")

# A log of years has thousands of checkpoints. The newest says all; those before only narrow down where a change lies.
MOST_CHECKPOINTS = 64


def register(app: typer.Typer) -> None:
    """Adds the commands to the group `audit`."""
    command(app, "export")(export)
    app.command("verify")(verify)
    app.command("report")(report)


# ---------------------------------------------------------------- export


def export(
    call: Call,
    out: Annotated[Path, typer.Option(help="The directory to make. It must not be there yet.")],
    to: Annotated[
        int | None, typer.Option(help="The last position wanted. Left out: all that the latest checkpoint covers.", min=1)
    ] = None,
    tables: Annotated[
        bool | None, typer.Option("--tables/--no-tables", help="Parquet copies too. Default: where pyarrow is installed.")
    ] = None,
) -> None:
    """Writes the log, its signed checkpoints and its plans into a bundle that can be carried away and verified."""
    from services.auditor import exporting
    from services.auditor import tables as parquet

    if tables and not parquet.installed():
        raise Failed("Parquet needs pyarrow, which is not installed: pip install 'fenrun[parquet]', or leave --tables out")
    listed = {one.size: one.note.encode() for one in call.pages(call.audit.ListCheckpoints, _list(call), "checkpoints")}
    if not listed:
        raise Failed(f"no checkpoint of {call.program} was signed yet, so nobody could verify a bundle; `fenrun audit status` says why")
    upto = to or max(listed)
    covering = min((size for size in listed if size >= upto), default=None)
    if covering is None:
        raise Failed(f"no checkpoint covers position {upto} yet; the latest covers {max(listed)}")
    proof = None
    if covering > upto:
        request = pb.GetConsistencyProofRequest(program_id=call.program, old_size=upto, new_size=covering)
        proof = (covering, list(call.audit.GetConsistencyProof(request).hashes))
    with terminal.progress("entries") as progress:
        contents = exporting.Contents(
            call.program,
            call.currency,
            upto,
            _entries(call, upto),
            {size: listed[size] for size in _some([size for size in listed if size <= covering])},
            f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
            proof,
            lambda assets: _books(call, upto, assets),
            parquet.installed() if tables is None else tables,
            progress=progress,
        )
        try:
            manifest = exporting.export(contents, out)
        except (exporting.CannotExport, OSError) as problem:
            raise Failed(str(problem)) from problem
    if call.as_json:
        return terminal.print_json({"bundle": str(out), "entries": manifest.entries, "head_hash": manifest.head_hash})
    written = sum(file.bytes for file in manifest.files)
    terminal.paragraph(f"{out}: {manifest.entries} entries of {manifest.program_id}, {len(manifest.files) + 1} files, {written} bytes.")
    terminal.paragraph(f"Anybody who has the public key verifies it: fenrun audit verify {out} --key KEY")


def _list(call: Call) -> "pb.ListCheckpointsRequest":
    return pb.ListCheckpointsRequest(program_id=call.program)


def _some(sizes: Sequence[int]) -> list[int]:
    """The newest, and of the others as many as are worth their files, evenly apart."""
    newest_first = sorted(sizes, reverse=True)
    return newest_first[:: -(-len(newest_first) // MOST_CHECKPOINTS)]


def _entries(call: Call, upto: int) -> "Iterator[log.Entry]":
    for answer in call.audit.ExportEntries(pb.ExportEntriesRequest(program_id=call.program, to_position=upto)):
        yield from answer.entries


def _books(call: Call, upto: int, assets: Sequence[str]) -> Mapping[tuple[str, int], int] | None:
    """What the server's own books say, if they stand at just this position; they do where nothing was recorded since."""
    found: dict[tuple[str, int], int] = {}
    for asset in assets:
        answer = call.ledger.TrialBalance(ledger.TrialBalanceRequest(program_id=call.program, asset=asset))
        if answer.position != upto:
            return None
        found |= {(asset, int(one.account)): one.balance.minor_units for one in answer.accounts}
    return found


# ---------------------------------------------------------------- verify


def verify(
    bundle: Annotated[Path, typer.Argument(help="The directory that `fenrun audit export` made.")],
    key: Annotated[
        list[str], typer.Option(help="The public key, NAME+ID+BASE64, or a file of them: all that is believed. Repeat it for several.")
    ],
    since: Annotated[
        Path | None, typer.Option(help="A checkpoint kept from earlier; the bundle must contain exactly what it signed.", dir_okay=False)
    ] = None,
    processes: Annotated[int | None, typer.Option(help="How many to use. Default: one for each processor.", min=1)] = None,
    work_dir: Annotated[
        Path | None, typer.Option(help="Where to keep an index while verifying, some 40 bytes an entry.", file_okay=False)
    ] = None,
    page: Annotated[
        Path | None, typer.Option("--report", help="Write the page for people too, with what was found on it.", dir_okay=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The report as JSON.")] = False,
) -> None:
    """Verifies a bundle: no database, no network. Exit status 0 only if everything holds; else the first bad position is named."""
    with one_sentence():
        from services.auditor.verifying import run
        from services.auditor.verifying.processes import WorkerLost

        trusted = [one for text in key for one in _keys(text)]
        kept = _read(since) if since is not None else None
        with terminal.stages() as progress:
            asked = run.Verification(bundle, trusted, kept, processes or run.processors(), progress, work_dir)
            try:
                found = run.verify(asked)
            except (WorkerLost, OSError) as problem:
                raise Failed(f"not verified: {problem}") from problem
        if as_json:
            terminal.print_json(found.to_json())
        else:
            terminal.say(*found.lines())
        if page is not None:
            _write_page(bundle, page, found)
        if not found.holds:
            raise typer.Exit(1)


# ---------------------------------------------------------------- report


def report(
    bundle: Annotated[Path, typer.Argument(help="The directory that `fenrun audit export` made.")],
    out: Annotated[Path | None, typer.Option(help="The HTML page to write; it takes the place of an older one.", dir_okay=False)] = None,
    to: Annotated[
        int | None, typer.Option(help="As of this position: what came later is left out. Default: all that the bundle has.", min=1)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The figures as JSON, on stdout.")] = False,
) -> None:
    """Writes a bundle's figures as one page for people: balances, flows, the referral tree, findings. Verifies nothing."""
    with one_sentence():
        if out is None and not as_json:
            raise Failed("say where the page goes: --out report.html; or --json for the figures alone")
        told = _write_page(bundle, out, None, to)
        if as_json:
            terminal.print_json(told)


def _write_page(bundle: Path, out: Path | None, found: "Report | None", to: int | None = None) -> dict[str, object]:
    """Gives the figures for machines."""
    from services.auditor.report import bundled

    with terminal.stages() as progress:
        try:
            made, origin = bundled.made_of(bundled.Asked(bundle, f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}", found, progress, to))
            if out is not None:
                bundled.write(made, origin, out)
        except (bundled.CannotReport, bundled.NotABundle, OSError) as problem:
            raise Failed(f"no page was written: {problem}") from problem
    if out is not None:
        terminal.notice(f"{out}: open it in a browser; it needs no network.")
    return bundled.to_json(made, origin)


def _keys(text: str) -> "Sequence[VerifierKey]":
    from services.audit.domain.checkpoint import NoteMalformed
    from services.audit.signing import KeyFileInvalid, given

    try:
        return given(text)
    except KeyFileInvalid as problem:
        raise Failed(str(problem)) from None
    except NoteMalformed as problem:
        raise Failed(f"--key {text!r}: {problem}; or name a file that holds one") from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as problem:
        raise Failed(f"the checkpoint {path} cannot be read: {problem.strerror}") from None
