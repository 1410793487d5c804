"""Who may know what: the directions of imports, and what only the command line may do, read from the sources."""

from __future__ import annotations

import ast
import os
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

import preflight
from preflight import catalog

PACKAGE = Path(preflight.__file__).parent
MODULES = {
    ".".join((PACKAGE.name, *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
OUTSIDE = ("preflight.cli", "preflight.__main__")

# What stands in a folder may import these parts of the package, and nothing else of it.
ALLOWED = {
    "preflight.reporters": {"reporters", "report", "finding", "units"},
    "preflight.tape": {"tape", "units"},
    "preflight.networks": {"networks", "tape", "units", "finding"},
    "preflight.finding": set[str](),
    "preflight.units": set[str](),
    "preflight.report": {"finding", "spec"},
    "preflight.spec": set[str](),
    "preflight.catalog": {"finding", "paths", "units"},
}
# What stands in a folder must not import these.
FORBIDDEN = {
    "preflight.memory": {"adapters", "document", "reporters", "cli", "settings", "pipeline"},
    "preflight.checks": {"adapters", "document", "reporters", "cli", "settings", "pipeline"},
    "preflight.advice": {"adapters", "document", "reporters", "cli", "settings", "pipeline"},
    "preflight.adapters": {
        "tape",
        "networks",
        "memory",
        "advice",
        "checks",
        "reporters",
        "cli",
        "settings",
        "pipeline",
    },
    "preflight.document": {
        "adapters",
        "tape",
        "networks",
        "memory",
        "advice",
        "checks",
        "reporters",
        "cli",
        "settings",
    },
    "preflight.pipeline": {"reporters", "cli", "settings"},
    "preflight.settings": {"reporters", "cli", "pipeline", "adapters"},
}
NEVER = {"torch", "diffusers", "peft", "transformers", "requests", "urllib", "http", "socket"}
HEAVY = {"numpy", "jsonschema", "omegaconf", "rich", "yaml", "tree_sitter", "tree_sitter_bash"}
ONE_TRAINER_ONLY = {"memory", "checks", "advice", "pipeline"}


def imports(path: Path, name: str, *, top_level: bool = False) -> Iterator[str]:
    """The dotted names that the module imports, relative ones resolved; with `top_level` only while it is loaded."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = _outside_functions(tree) if top_level else ast.walk(tree)
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.rsplit(".", node.level - 1)[0] if node.level > 1 else package
            module = ".".join(part for part in (base if node.level else "", node.module) if part)
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def _outside_functions(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        guard = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
        if guard or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        yield child
        yield from _outside_functions(child)


def part(dotted: str) -> str | None:
    """Which part of the package a dotted name belongs to, or None when it is not the package's."""
    words = dotted.split(".")
    return words[1] if words[0] == "preflight" and len(words) > 1 else None


def within(name: str, folder: str) -> bool:
    return name == folder or name.startswith(f"{folder}.")


def outside(name: str) -> bool:
    """Whether the module belongs to the command line, which alone knows the world around the program."""
    return any(within(name, folder) for folder in OUTSIDE)


MODULE = pytest.mark.parametrize("name", MODULES)


@MODULE
def test_imports_go_one_way(name: str) -> None:
    used = {p for p in map(part, imports(MODULES[name], name)) if p is not None and not p.startswith("__")}
    for folder, allowed in ALLOWED.items():
        if within(name, folder):
            assert used <= allowed, f"{name} may import {sorted(allowed)} of the package"
    for folder, forbidden in FORBIDDEN.items():
        if within(name, folder):
            assert not used & forbidden, f"{name} must not know {sorted(forbidden)}"


@MODULE
def test_the_command_line_is_imported_by_nobody(name: str) -> None:
    assert outside(name) or "cli" not in map(part, imports(MODULES[name], name))


@MODULE
def test_no_check_imports_torch_or_reaches_for_the_network(name: str) -> None:
    assert not {dotted.split(".")[0] for dotted in imports(MODULES[name], name)} & NEVER


@MODULE
def test_heavy_libraries_are_imported_where_they_are_used(name: str) -> None:
    assert not {dotted.split(".")[0] for dotted in imports(MODULES[name], name, top_level=True)} & HEAVY


@MODULE
def test_only_a_trainers_adapter_and_its_tests_name_it(name: str) -> None:
    if part(name) in ONE_TRAINER_ONLY:
        trainers = {path.stem for path in (PACKAGE / "adapters").glob("*.py")} - {"__init__"}
        assert not {dotted for dotted in imports(MODULES[name], name) if dotted.split(".")[-1] in trainers - {"reading"}}


@MODULE
def test_memory_and_checks_name_no_network(name: str) -> None:
    if part(name) in {"memory", "checks", "advice"}:
        families = {network.family.replace("-", "_") for network in catalog.networks()}
        named = {dotted for dotted in imports(MODULES[name], name) if dotted.startswith("preflight.networks.")}
        assert not {dotted for dotted in named if dotted.split(".")[2] in families}


@MODULE
def test_only_the_command_line_prints_exits_or_reads_the_environment(name: str) -> None:
    if outside(name):
        return
    calls = {"print", "input", "exit", "quit", "breakpoint"}
    attributes = {
        "os.environ",
        "os.getenv",
        "sys.exit",
        "sys.stdin",
        "sys.stdout",
        "sys.stderr",
        "sys.argv",
        "os._exit",
    }
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in calls, f"{name}:{node.lineno}"
        if isinstance(node, ast.Attribute):
            assert ast.unparse(node) not in attributes, f"{name}:{node.lineno}"
        if isinstance(node, ast.Name):
            assert node.id != "SystemExit", f"{name}:{node.lineno}"


@pytest.mark.skipif("PREFLIGHT_TESTS_INSTALLED" not in os.environ, reason="the tests run on a checkout, not on a wheel")
def test_the_installed_wheel_is_what_is_tested() -> None:
    assert PACKAGE.parent == Path(sysconfig.get_paths()["purelib"])
    assert Path(sys.prefix) in PACKAGE.parents
    assert (PACKAGE / "schemas" / "report.schema.json").is_file()
    assert list((PACKAGE / "catalog" / "gpus").glob("*.yaml"))
