"""Plans: checked, told in sentences, begun from a preset, published. A plan in a file needs no server to be read."""

import json as json_text
import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.console import terminal
from services.console.client import At, Call, DataDir, Failed, Json, Lazy, Target, command, connect, one_sentence, parse_time, timestamp
from services.console.terminal import when
from services.ledger.cli import simulating
from services.runtime.currency import exponent

if TYPE_CHECKING:
    from fenrun.ledger.v1 import ledger_pb2 as pb
else:
    pb = Lazy("fenrun.ledger.v1.ledger_pb2")

app = typer.Typer()
plan_app = typer.Typer(help="Plans: who earns what, in numbered versions that never change.", no_args_is_help=True)
app.add_typer(plan_app, name="plan")
simulating.register(plan_app)

PRESETS = Path(__file__).resolve().parent.parent / "presets"

File = Annotated[Path, typer.Argument(help="YAML or JSON; docs/plan-format.md.", exists=True, dir_okay=False)]
PerhapsProgram = Annotated[
    str,
    typer.Option("--program", "-P", envvar="FENRUN_PROGRAM", help="Ask the server, which knows the versions before. Left out: no server."),
]

# ---------------------------------------------------------------- publishing and looking


@command(plan_app)
def publish(
    call: Call,
    file: File,
    expect: Annotated[str, typer.Option(metavar="HASH", help="Publish only what has this content hash, as `plan lint` says it.")] = "",
    at: At = None,
) -> None:
    """Publishes the next version of a plan. Counts once by plan and version; to repeat it, repeat --at too."""
    try:
        expected = bytes.fromhex(expect)
    except ValueError:
        raise typer.BadParameter(f"{expect!r} is not a hash in hex") from None
    request = pb.PublishPlanRequest(
        program_id=call.program, document=_text(file), published_at=timestamp(at), expected_content_hash=expected
    )
    response = call.ledger.PublishPlan(request)
    if call.wrote(response, response.receipt, f"plan {response.plan_id} version {response.version}"):
        terminal.say(f"content {response.content_hash.hex()}")
        _findings(response.findings)


@command(plan_app, "show")
def show_plan(
    call: Call,
    plan: Annotated[str, typer.Argument(help="Plan id: its newest version. Left out: the newest of any.")] = "",
    version_position: Annotated[int | None, typer.Option(help="The version published at this position.", min=1)] = None,
    at: Annotated[Any, typer.Option(parser=parse_time, metavar="TIME", help="The version in force for an order paid then.")] = None,
) -> None:
    """A plan version: which it is, from when until when, and its document."""
    if sum((bool(plan), version_position is not None, at is not None)) > 1:
        raise typer.BadParameter("give one of: a plan id, --version-position, --at")
    request = pb.GetPlanRequest(program_id=call.program, latest_of_plan_id=plan)
    if version_position is not None:
        request.position = version_position
    elif at is not None:
        request.in_force_at.CopyFrom(timestamp(at))
    found = call.ledger.GetPlan(request)
    if call.as_json:
        return terminal.print_json(terminal.plain(found) | {"document": json_text.loads(found.plan.document)})
    fact = found.plan
    terminal.say(f"plan       {fact.plan_id} version {fact.version}", f"position   {found.position}")
    until = f" until {when(fact.effective_until)}" if fact.HasField("effective_until") else ""
    terminal.say(f"in force   from {when(fact.effective_from)}{until}")
    terminal.say(
        f"content    {found.content_hash.hex()}", "", json_text.dumps(json_text.loads(fact.document), ensure_ascii=False, indent=2)
    )


# ---------------------------------------------------------------- checking and telling


@plan_app.command()
def lint(file: File, program: PerhapsProgram = "", target: Target = None, data_dir: DataDir = None, json: Json = False) -> None:
    """What is wrong with a plan, or to be known of it; docs/plan-linter.md. Ends with status 1 if it must not be published."""
    with one_sentence():
        if program:
            with connect(target, data_dir) as connection:
                found = connection.ledger.ValidatePlan(pb.ValidatePlanRequest(program_id=program, document=_text(file)))
        else:
            found = _validated(_text(file))
        if json:
            terminal.print_json(terminal.plain(found))
        else:
            _findings(found.findings)
            _verdict(found)
        if not found.publishable:
            raise typer.Exit(1)


@plan_app.command("explain")
def explain_plan(
    plan: Annotated[str, typer.Argument(metavar="FILE|PLAN", help="A file, or with -P the newest version of a published plan.")],
    program: PerhapsProgram = "",
    target: Target = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """A plan in sentences, rule by rule."""
    with one_sentence():
        if Path(plan).is_file():
            text = _text(Path(plan))
        elif program:
            with connect(target, data_dir) as connection:
                text = connection.ledger.GetPlan(pb.GetPlanRequest(program_id=program, latest_of_plan_id=plan)).plan.document
        else:
            raise Failed(f"there is no file {plan}; a published plan needs its program, -P")
        found = _validated(text)
        if json:
            return terminal.print_json({"plan_id": found.plan_id, "version": found.version, "sentences": list(found.sentences)})
        for number, sentence in enumerate(found.sentences):
            # What holds for all rules reads as one text; each rule stands for itself.
            if number and re.match(r"(Rule|Exception|Tier) ", sentence):
                terminal.say("")
            terminal.paragraph(sentence)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise Failed(f"{file} is not UTF-8") from None


def _validated(text: str) -> "pb.ValidatePlanResponse":
    """As the server would say it of the first plan it sees."""
    from services.kernel.refusals import Refusal
    from services.ledger.transport import validated

    try:
        return validated(text, ())
    except Refusal as refusal:
        raise Failed(f"{refusal} ({refusal.reason})") from None


def _findings(findings: Iterable["pb.PlanFinding"]) -> None:
    """Each finding as a line to find it by and a text to read, with a blank line after it."""
    for one in findings:
        severity = "error" if one.severity == pb.PlanFinding.SEVERITY_ERROR else "warning"
        terminal.say(f"{severity:<8} {one.rule:<24} {one.path}".rstrip())
        terminal.paragraph(one.problem, "  ", "  ")
        if one.source:
            terminal.paragraph(one.source, "  source: ", "  ")
        terminal.say("")


def _verdict(found: "pb.ValidatePlanResponse") -> None:
    errors = sum(one.severity == pb.PlanFinding.SEVERITY_ERROR for one in found.findings)
    warnings = len(found.findings) - errors
    counts = [f"{number} {word}{'' if number == 1 else 's'}" for number, word in ((errors, "error"), (warnings, "warning")) if number]
    verdict = "may be published" if found.publishable else "must not be published"
    terminal.say(f"plan {found.plan_id} version {found.version} {verdict}: {', '.join(counts) or 'nothing to say'}")
    terminal.say(f"content {found.content_hash.hex()}")


# ---------------------------------------------------------------- presets


@plan_app.command()
def presets(json: Json = False) -> None:
    """The plans to begin from, one for each way of selling."""
    found = [(path.stem, _title(path)) for path in _shipped()]
    if json:
        return terminal.print_json([{"preset": name, "title": title} for name, title in found])
    width = max((len(name) for name, _ in found), default=0) + 2
    for name, title in found:
        terminal.paragraph(title, f"{name:<{width}}", " " * width)


def _shipped() -> Sequence[Path]:
    return sorted(PRESETS.glob("*.yaml"))


def _title(path: Path) -> str:
    """Each preset begins with a comment that says what it is."""
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    return first.lstrip("# ") if first.startswith("#") else ""


@plan_app.command()
def new(
    preset: Annotated[str, typer.Option(help="What to begin from; `plan presets` lists them.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Where to write the draft.", dir_okay=False)],
    plan: Annotated[str, typer.Option(help="The plan's id. Left out: the preset's name.")] = "",
    currency: Annotated[str, typer.Option(help="ISO 4217. Left out: the preset's.")] = "",
    begin: Annotated[
        Any, typer.Option("--from", parser=parse_time, metavar="TIME", help="Orders paid from here on. Left out: the preset's.")
    ] = None,
) -> None:
    """Writes a draft from a preset, comments and all, that can be published as it is."""
    with one_sentence():
        path = next((path for path in _shipped() if path.stem == preset), None)
        if path is None:
            raise Failed(f"there is no preset {preset!r}; there are {', '.join(path.stem for path in _shipped()) or 'none'}")
        if output.exists():
            raise Failed(f"{output} is there already; remove it or name another")
        text = _text(path)
        was = re.search(r"^currency: *([A-Z]{3})", text, re.MULTILINE)
        for key, value in (("plan", plan), ("currency", currency), ("version", "1")):
            at = re.search(rf"^{key}:.*$", text, re.MULTILINE)
            if value and at:
                text = f"{text[: at.start()]}{key}: {value}{text[at.end() :]}"
        if begin is not None:
            text = _beginning(text, begin)
        found = _validated(text)
        output.write_text(text, encoding="utf-8")
        terminal.say(f"{output}: plan {found.plan_id}, from {preset}. Read it, then: fenrun plan lint {output}")
        if currency and was and exponent(currency) != exponent(was[1]) and re.search(r"_minor|cap_minor", text):
            terminal.notice(f"amounts in {preset} are in minor units of {was[1]}; {currency} has others: check each of them")


def _beginning(text: str, begin: datetime) -> str:
    """The plan with another beginning; an end moves along, so that a campaign stays as long as it is."""
    times = re.search(r"^effective:(?:[^\n]*\n)(?:[ \t]+[^\n]*\n)*", text, re.MULTILINE)
    if times is None:
        return re.sub(r"^(currency:.*)$", rf'\1\neffective: {{from: "{begin.isoformat()}"}}', text, count=1, flags=re.MULTILINE)
    section = times[0]
    old = re.search(r'\bfrom: *"([^"]*)"', section)
    end = re.search(r'\buntil: *"([^"]*)"', section)
    if old is None:
        raise Failed("the preset says no beginning to change")
    changed = section.replace(old[0], f'from: "{begin.isoformat()}"')
    if end is not None:
        until = begin + (datetime.fromisoformat(end[1]) - datetime.fromisoformat(old[1]))
        changed = changed.replace(end[0], f'until: "{until.isoformat()}"')
    return text.replace(section, changed, 1)
