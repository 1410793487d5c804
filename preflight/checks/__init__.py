"""Questions about a judged run, one a file: its name is the finding's id, its docstring what `preflight explain` prints."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from preflight.checks.case import Case
from preflight.finding import Finding

_HELPERS = frozenset({"case"})


def ids() -> tuple[str, ...]:
    """The id of every check, which is its file's name with dashes."""
    return tuple(sorted(name.replace("_", "-") for _, name, _ in iter_modules(__path__) if name not in _HELPERS))


def decides(id_: str) -> bool:
    """Whether an error of this check leaves the memory unknown, so that no verdict can rest on it."""
    return bool(getattr(_module(id_), "DECIDES", False))


def documentation(id_: str) -> str:
    """What the check asks, why, and what mends it: its docstring."""
    return inspect.cleandoc(_module(id_).__doc__ or "")


def run(case: Case, *, deciding: bool = False) -> Iterator[Finding]:
    """What every check finds, or only those whose errors leave the memory unknown.

    A finding's `key` is canonical: the pipeline turns it into the user's own and its line.
    """
    for id_ in ids():
        if deciding and not decides(id_):
            continue
        for severity, message, key, fix in _module(id_).check(case):
            yield Finding(id=id_, severity=severity, message=message, key=key, fix=fix)


def _module(id_: str) -> Any:
    return import_module(f"preflight.checks.{id_.replace('-', '_')}")
