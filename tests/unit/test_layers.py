"""A file imports only from floors below its own; read from the sources, not from luck."""

from __future__ import annotations

import ast
import graphlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import pytest_kvquant

PACKAGE = Path(pytest_kvquant.__file__).parent
OURS = "pytest_kvquant"
HEAVY = {"numpy", "scipy", "numba", "msgspec", "gguf", "llama_cpp", "syrupy", "rich", "psutil",
         "cpuinfo", "filelock", "platformdirs", "pytest_benchmark"}  # fmt: skip


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def statements(tree: ast.AST, *, late: bool) -> Iterator[ast.AST]:
    """Everything that runs at import; with ``late`` also what functions import when called."""
    for child in ast.iter_child_nodes(tree):
        if for_types_only(child):
            continue
        function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if function and not late:
            continue
        yield child
        yield from statements(child, late=late)


def imports(module: str, *, late: bool) -> set[str]:
    """Modules that ``module`` names in import statements, ours down to the file."""
    found: set[str] = set()
    tree = ast.parse(SOURCES[module].read_text(encoding="utf-8"))
    for node in statements(tree, late=late):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            inner = whole & SOURCES.keys()
            found |= inner
            if len(inner) < len(whole):
                found.add(str(node.module))
    return found


def ours(module: str, *, late: bool) -> set[str]:
    return {name for name in imports(module, late=late) if name.partition(".")[0] == OURS}


def foreign(module: str, *, late: bool) -> set[str]:
    roots = {name.partition(".")[0] for name in imports(module, late=late)}
    return roots - set(sys.stdlib_module_names) - {OURS}


def closure(module: str) -> set[str]:
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        if (name := waiting.pop()) not in seen:
            seen.add(name)
            waiting += ours(name, late=True)
    return seen


def below(folder: str) -> list[str]:
    return [name for name in SOURCES if name.startswith(f"{OURS}.{folder}.")]


def test_no_file_imports_in_a_circle() -> None:
    """Late imports count: a circle that is put off is one all the same."""
    graph = {name: ours(name, late=True) - {OURS} for name in SOURCES}
    tuple(graphlib.TopologicalSorter(graph).static_order())


def floor_of(module: str) -> str:
    """The folder of a module; of ``engine`` the side; a module at the top by its own name."""
    parts = module.split(".")[1:]
    if len(parts) > 1 and parts[0] == "engine" and parts[1] in ("parent", "child"):
        return f"engine.{parts[1]}"
    return parts[0] if parts else ""


FLOORS = (
    "__main__", "plugin", "hooks", "xdist", "fixtures", "suite", "testing",
    "outcomes", "cli", "session", "zoo", "report", "baselines", "checks", "quality", "speed",
    "engine.parent", "engine.child", "engine", "results", "config", "inputs", "machine",
    "numerics", "format", "matrix", "errors", "data",
)  # fmt: skip
"""From the top down."""

ALLOWED = {
    "__main__": "cli",
    "plugin": "errors fixtures hooks session",
    "hooks": "config errors matrix outcomes session xdist",
    "xdist": "matrix session",
    "fixtures": "outcomes session",
    "suite": "outcomes",
    "outcomes": "baselines checks config engine.parent errors format machine matrix numerics "
    "report results",
    "testing": "checks engine.child matrix numerics results",
    "cli": "baselines checks config data engine engine.parent errors format inputs machine matrix "
    "numerics quality report results session",
    "session": "baselines checks config data engine engine.parent errors inputs machine "
    "matrix numerics quality report results speed zoo",
    "zoo": "matrix results",
    "report": "checks config errors format machine matrix numerics results",
    "baselines": "errors machine matrix numerics results speed",
    "checks": "config data errors format matrix numerics quality results",
    "quality": "engine engine.parent errors inputs machine matrix numerics results",
    "speed": "config engine engine.parent errors format inputs machine matrix numerics results",
    "engine.parent": "engine errors machine matrix numerics results",
    "engine.child": "engine numerics",
    "engine": "numerics",
    "results": "errors format inputs machine numerics",
    "config": "data errors matrix",
    "inputs": "errors machine matrix numerics",
    "machine": "errors format",
    "matrix": "errors",
}  # fmt: skip
"""Every arrow between folders there is: a new one is a decision, and stands here."""


def arrows() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for module in SOURCES:
        for name in ours(module, late=True) - {OURS}:
            if floor_of(name) != floor_of(module):
                found.setdefault(floor_of(module), set()).add(floor_of(name))
    return found


def test_the_arrows_between_folders_are_the_allowed_ones() -> None:
    assert arrows() == {folder: set(names.split()) for folder, names in ALLOWED.items()}


@pytest.mark.parametrize("folder", ALLOWED)
def test_folders_import_downwards(folder: str) -> None:
    below = FLOORS[FLOORS.index(folder) + 1 :]
    assert set(ALLOWED[folder].split()) <= set(below)


def test_a_class_name_means_one_thing() -> None:
    found: dict[str, list[str]] = {}
    for module, path in SOURCES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name, []).append(module)
    assert not {name: modules for name, modules in found.items() if len(modules) > 1}


LLAMA = f"{OURS}.engine.child.llama"
"""Where the functions of libllama have their types."""


def uses(names: set[str]) -> dict[str, int]:
    """How often each module says one of these names, outside of imports and strings."""
    found: dict[str, int] = {}
    for module, path in SOURCES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = node.id if isinstance(node, ast.Name) else getattr(node, "attr", "")
            if name in names:
                found[module] = found.get(module, 0) + 1
    return found


def aliases_of_any() -> set[str]:
    """``Any`` and every name that stands for a type with it, however many steps away."""
    named: set[str] = {"Any"}
    assigned = [
        (target, node.value)
        for path in SOURCES.values()
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        for target in getattr(node, "targets", [getattr(node, "target", None)])
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(target, ast.Name)
    ]
    while True:
        found = {
            target.id
            for target, value in assigned
            if value is not None
            for part in ast.walk(value)
            if (isinstance(part, ast.Name) and part.id in named)
            or (isinstance(part, ast.Constant) and str(part.value) in named)
        }
        if found <= named:
            return named
        named |= found


def test_any_is_said_only_where_c_functions_have_their_types() -> None:
    """Under whatever name: what C returns is of no type, and everything else is of one."""
    assert uses({"Any"}).keys() == {LLAMA}
    named = aliases_of_any()
    assert "CFunction" in named
    assert sum(uses(named).values()) <= 15, (named, uses(named))


def test_few_modules_stand_at_the_top() -> None:
    assert len([path for path in PACKAGE.glob("*.py") if path.name != "__init__.py"]) <= 8


def test_files_are_short() -> None:
    """A file that is longer holds more than one idea; the ABI is one table."""
    long = {
        module: lines
        for module, path in SOURCES.items()
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > 300
    }
    assert long.keys() <= {f"{OURS}.engine.child.abi"}, long


@pytest.mark.parametrize("floor", ["config", "inputs", "machine", "numerics"])
def test_the_ground_floors_know_no_engine_and_no_pytest(floor: str) -> None:
    for module in below(floor):
        for name in closure(module):
            assert not name.startswith((f"{OURS}.engine", f"{OURS}.report", f"{OURS}.session"))
            assert "pytest" not in foreign(name, late=True)


@pytest.mark.parametrize("folder", ["numerics", "engine"])
def test_arithmetic_and_engine_know_no_pytest(folder: str) -> None:
    assert not [module for module in below(folder) if "pytest" in foreign(module, late=True)]


def test_the_session_knows_no_hooks() -> None:
    up = (f"{OURS}.plugin", f"{OURS}.fixtures", f"{OURS}.xdist", f"{OURS}.outcomes")
    assert not [name for name in closure(f"{OURS}.session.run") if name.startswith(up)]


def test_the_worker_needs_nothing_but_numpy() -> None:
    """It runs under any interpreter that has the right llama-cpp-python."""
    for module in closure(f"{OURS}.engine.child.main") - {OURS}:
        floors = (f"{OURS}.engine", f"{OURS}.numerics")
        assert module.startswith(floors), f"the worker imports {module}"
        assert not module.startswith(f"{OURS}.engine.parent"), f"the worker imports {module}"
        assert foreign(module, late=True) <= {"numpy"}, module


def test_only_the_library_module_imports_llama_cpp() -> None:
    loaders = {
        module
        for module, path in SOURCES.items()
        if "llama_cpp" in foreign(module, late=True)
        or 'import_module("llama_cpp' in path.read_text(encoding="utf-8")
    }
    assert loaders == {f"{OURS}.engine.child.library"}


def test_what_pytest_imports_on_every_run_is_light() -> None:
    seen: set[str] = set()
    waiting = [f"{OURS}.plugin"]
    while waiting:
        if (name := waiting.pop()) not in seen:
            seen.add(name)
            assert foreign(name, late=False) <= {"pytest"}, name
            waiting += ours(name, late=False)
    loaded = subprocess.run(
        [sys.executable, "-c", "import pytest, sys, json; before = set(sys.modules)\n"
         "import pytest_kvquant.plugin\nprint(json.dumps(sorted(set(sys.modules) - before)))"],
        capture_output=True, text=True, check=True, cwd=PACKAGE.parent,
    )  # fmt: skip
    modules = {name.partition(".")[0] for name in json.loads(loaded.stdout)}
    assert OURS in modules
    assert not modules & HEAVY
