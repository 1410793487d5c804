"""A file that a config names, read as a part of it: its data, and places that say which file they are in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path as File
from typing import Any, NamedTuple

from preflight import interpolation, overrides, source
from preflight.finding import ConfigError
from preflight.position import Parsed, Path, Position, kind, refusal


class Included(NamedTuple):
    """What the file says, and paths that begin with the key that it goes under."""

    data: Any
    positions: Mapping[Path, Position]
    interpolated: frozenset[Path]
    overridden: frozenset[Path]


def found(config: str, path: str) -> str | None:
    """The file that `config` names as `path`, seen from its folder, then from the working directory; None where nothing is."""
    if not path.strip():
        return None
    places = dict.fromkeys((File(config).parent / path, File(path)))
    try:
        there = [place for place in places if place.exists()]
    except (OSError, ValueError):  # a name that no file can have
        return None
    return str(next((place for place in there if place.is_file()), *there[:1])) if there else None


def read(
    name: str, path: str, reader: Callable[[str], Callable[[str], Parsed]], settings: Sequence[str], written: str | None = None
) -> Included:
    """The file at `path` as what stands under the key `name`; `reader` answers what reads a text, `settings` are applied to it.

    `written` is its text where the config itself, a launch script, writes the file. Raises ConfigError whose findings name the
    file and keys that begin with `name`.
    """
    file = path if written is None else None
    parsed = _parsed(name, path, file, reader, written)
    data = {name: parsed.data}
    overridden = overrides.apply(data, settings)
    places = {(name, *at): Position(place.line, place.column, file) for at, place in parsed.positions.items()}
    places = overrides.without({(name,): Position(1, 1, file), **places}, overridden)
    try:
        value, interpolated = _resolved(name, data[name], places)
    except ConfigError as problem:
        raise ConfigError(*(replace(finding, file=file) for finding in problem.findings)) from None
    return Included(value, places, interpolated, overridden)


def _parsed(
    name: str, path: str, file: str | None, reader: Callable[[str], Callable[[str], Parsed]], written: str | None
) -> Parsed:
    try:
        if written is None and not File(path).is_dir() and not File(path).is_file():
            raise refusal("not-a-file", f"{path} is no plain file; expected a config file.")
        text = source.text_of(path) if written is None else written
        parsed = reader(text)(text)
        if not isinstance(parsed.data, dict | list):
            raise refusal(
                "not-a-mapping", f"The top level is {kind(parsed.data)}; expected keys and values, or a list.", Position(1, 1)
            )
    except ConfigError as problem:
        raise ConfigError(*(replace(f, file=file, key=_below(name, f.key)) for f in problem.findings)) from None
    return parsed


def _below(name: str, key: str | None) -> str:
    return name if key is None else f"{name}{key}" if key.startswith("[") else f"{name}.{key}"


def _resolved(name: str, value: Any, places: Mapping[Path, Position]) -> tuple[Any, frozenset[Path]]:
    """`value` with its `${…}` resolved, which refer to keys of its own file."""
    if not isinstance(value, dict):
        whole, interpolated = interpolation.resolve({name: value}, places)
        return whole[name], interpolated
    resolved, inside = interpolation.resolve(value, places, within=(name,))
    return resolved, frozenset((name, *at) for at in inside)
