"""The shape of the code, checked: who may import whom, and what the pure parts may not touch."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SERVICES = ROOT / "services"
SERVICE_NAMES = ("ledger", "referral", "statistics", "audit", "ops")
PURE = sorted([*SERVICES.glob("kernel/**/*.py"), *SERVICES.glob("*/domain/**/*.py")])
CLOCKS_AND_DICE = {"time", "random", "secrets", "uuid", "os", "socket", "threading", "asyncio"}


def imports(path: Path) -> Iterator[str]:
    """Every module a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            assert node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", PURE, ids=name)
def test_pure_code_imports_only_the_standard_library_the_kernel_and_its_own_domain(path: Path) -> None:
    own = f"services.{path.relative_to(SERVICES).parts[0]}."
    for module in imports(path):
        if module.startswith("services."):
            allowed = module.startswith("services.kernel.") or (module.startswith(own) and ".domain." in module and "domain" in path.parts)
            assert allowed, f"{name(path)} imports {module}"
        else:
            assert module.split(".")[0] in sys.stdlib_module_names, f"{name(path)} imports {module}"


@pytest.mark.parametrize("path", PURE, ids=name)
def test_pure_code_has_no_clock_no_dice_no_float(path: Path) -> None:
    for module in imports(path):
        assert module.split(".")[0] not in CLOCKS_AND_DICE, f"{name(path)} imports {module}"
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant):
            assert not isinstance(node.value, float), f"{name(path)}:{node.lineno} has a float"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            assert node.func.attr not in {"now", "utcnow", "today"}, f"{name(path)}:{node.lineno} asks for the time"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in {"float", "open", "print", "input"}, f"{name(path)}:{node.lineno} calls {node.func.id}"
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            # Decimal / Decimal, to print a rate, is exact and the only division there is.
            assert "Decimal" in ast.unparse(node), f"{name(path)}:{node.lineno} divides into a float"


@pytest.mark.parametrize("path", sorted(SERVICES.glob("runtime/**/*.py")), ids=name)
def test_the_runtime_knows_no_service(path: Path) -> None:
    for module in imports(path):
        assert not module.startswith("services.") or module.startswith(("services.kernel.", "services.runtime.")), (
            f"{name(path)} imports {module}"
        )


@pytest.mark.parametrize("service", SERVICE_NAMES)
def test_a_service_never_imports_another(service: str) -> None:
    for path in sorted((SERVICES / service).rglob("*.py")):
        for module in imports(path):
            others = tuple(f"services.{other}." for other in SERVICE_NAMES if other != service)
            assert not module.startswith(others), f"{name(path)} imports {module}"


# What wrote, chained or projected the log; the verifier recomputes all of it.
NOT_BELIEVED = (
    "services.kernel.chain",
    "services.runtime.eventlog",
    "services.runtime.replaying",
    "services.runtime.writer",
    "services.ops",
)


@pytest.mark.parametrize("path", sorted(SERVICES.glob("auditor/verifying/*.py")), ids=name)
def test_the_verifier_calls_nothing_that_wrote_or_projected_the_log(path: Path) -> None:
    for module in imports(path):
        assert not module.startswith(NOT_BELIEVED), f"{name(path)} imports {module}"
        assert ".projection" not in module and ".views" not in module, f"{name(path)} imports {module}"
