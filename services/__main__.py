"""The only entry point: `fenrun …`, or `python -m services …`. Every command is a gRPC client; only `serve` touches a database."""

from typing import Annotated, Any, Literal

import typer

from services.audit.cli import app as audit
from services.audit.cli import audit_app
from services.auditor import cli as auditor
from services.console.client import DataDir, one_sentence
from services.importer.cli import app as importer
from services.ledger.cli import app as ledger
from services.ops.cli import app as ops
from services.referral.cli import app as referral
from services.statistics.cli import app as statistics

app = typer.Typer(
    name="fenrun",
    help="Fenrun, a commission ledger: tell it what happened, ask who earns what, replay the proof.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command()
def serve(
    listen: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Where to listen; port 0 takes a free one.")] = None,
    service: Annotated[
        Literal["all", "ledger", "referral", "statistics", "audit"] | None, typer.Option(help="One service alone. Default: all.")
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Serves the API until it is told to stop. Without FENRUN_DSN it brings its own PostgreSQL, in the data directory."""
    from services import composition
    from services.runtime.settings import Settings

    given: dict[str, Any] = {"listen": listen, "data_dir": data_dir, "service": service}
    with one_sentence():
        composition.serve(Settings(**{name: value for name, value in given.items() if value is not None}))


auditor.register(audit_app)
for service in (ops, referral, ledger, statistics, audit, importer):
    app.add_typer(service)


def main() -> None:
    app(prog_name="fenrun")


if __name__ == "__main__":
    main()
