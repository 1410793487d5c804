"""Adapters that other packages bring, by the entry point `preflight.adapters`.

A package says in its pyproject.toml

    [project.entry-points."preflight.adapters"]
    my-trainer = "my_package.my_trainer:ADAPTER"

where ADAPTER is a `preflight.adapters.Adapter` of that name: `matches` answers whether it knows a Document, `read` makes a Reading
of it. They are asked before our own, since who installs one means it; a name of ours stays ours.
"""

from __future__ import annotations

import sys
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from preflight.adapters.reading import Adapter
from preflight.finding import ConfigError, Finding

GROUP = "preflight.adapters"


@cache
def _points() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def names() -> tuple[str, ...]:
    """The names of those that are installed, in alphabetical order."""
    return tuple(sorted(_points()))


def module(name: str) -> Any:
    """The module of the adapter called `name`, which is installed. Raises ConfigError ("bad-adapter") as `load` does."""
    load(name)
    return sys.modules[_points()[name].module]


def load(name: str) -> Adapter:
    """The adapter called `name`, which is installed. Raises ConfigError ("bad-adapter") when it is none, or does not load."""
    point = _points()[name]
    try:
        import_module(point.module)
        adapter = point.load()
    except Exception as problem:  # noqa: BLE001  # another package's code: whatever it raises is said in one sentence
        raise _bad(point, f"cannot be loaded ({type(problem).__name__}: {problem})") from None
    if not isinstance(adapter, Adapter):
        raise _bad(point, f"is of the type {type(adapter).__name__}; expected a preflight.adapters.Adapter")
    if adapter.name != name:
        raise _bad(point, f"calls itself {adapter.name!r}; expected the same name")
    return adapter


def _bad(point: EntryPoint, what: str) -> ConfigError:
    package = f" of {point.dist.name}" if point.dist is not None else ""
    message = f"the adapter {point.name}{package} {what}."
    return ConfigError(Finding(id="bad-adapter", severity="error", message=message, fix=f"uninstall{package[3:]} or mend it"))
