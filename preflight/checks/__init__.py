"""Questions about a judged run, one a file: its name is the finding's id, its docstring what `preflight explain` prints."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pkgutil import iter_modules

from preflight.checks.case import Case
from preflight.finding import Finding

_HELPERS = frozenset({"case"})


def ids() -> tuple[str, ...]:
    """The id of every check, which is its file's name with dashes."""
    return tuple(sorted(name.replace("_", "-") for _, name, _ in iter_modules(__path__) if name not in _HELPERS))


def run(case: Case) -> Iterator[Finding]:
    """What every check finds. A finding's `key` is canonical: the pipeline turns it into the user's own and its line."""
    for id_ in ids():
        module = import_module(f"preflight.checks.{id_.replace('-', '_')}")
        for severity, message, key, fix in module.check(case):
            yield Finding(id=id_, severity=severity, message=message, key=key, fix=fix)
