"""`--set key=value`: OmegaConf's dot list, applied to plain data."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from preflight import yaml_positions
from preflight.finding import ConfigError
from preflight.position import MAX_DEPTH, Path, Position, dotted, kind, refusal, shorten

PART = re.compile(r"[^.\[\]=\s]+")
KEY = re.compile(r"[^.\[\]=\s]+(?:\.[^.\[\]=\s]+|\[[^.\[\]=\s]+\])*")


def apply(data: dict[str, Any], overrides: Sequence[str]) -> frozenset[Path]:
    """Sets each `key=value` in `data`, in order, and returns the paths that were set.

    The value is read as YAML; a group of keys is merged into one that is there, as OmegaConf does. Raises
    ConfigError: not `key=value`, a key that is none, a value that cannot be read, a place inside a value that is
    not a group or list, an item that a list does not have.
    """
    return frozenset(path for override in overrides for path in _apply(data, override))


def parts(override: str) -> tuple[str, ...]:
    """The parts of the key that `override` is about; none when it is not `key=value`."""
    key, equals, _ = override.partition("=")
    return tuple(PART.findall(key)) if equals and KEY.fullmatch(key) else ()


def reaches_into(override: str, name: str) -> bool:
    """Whether `override` says something of what stands under the top-level key `name`, and not only what `name` is."""
    key, text = parts(override), override.partition("=")[2]
    try:
        return key[:1] == (name,) and (len(key) > 1 or isinstance(yaml_positions.value(text), dict | list))
    except ConfigError:
        return False


def without(positions: Mapping[Path, Position], overridden: frozenset[Path]) -> dict[Path, Position]:
    """`positions` of what is still as the file has it."""
    return {at: place for at, place in positions.items() if not any(at[:n] in overridden for n in range(1, len(at) + 1))}


def _apply(data: dict[str, Any], override: str) -> list[Path]:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise _bad(override, "expected key=value")
    if key[0] in "+~":
        raise _bad(override, f"expected {key.lstrip('+~') or 'key'}={text}, without Hydra's {key[0]!r}")
    if not KEY.fullmatch(key) or len(PART.findall(key)) > MAX_DEPTH:
        raise _bad(override, "expected a dotted key such as data.height or datasets[0].size")
    try:
        value = yaml_positions.value(text)
    except ConfigError as error:
        raise _bad(override, f"its value cannot be read: {error.findings[0].message.rstrip('.')}") from None
    at, path = _parent(data, PART.findall(key), override)
    step = path[-1]
    if isinstance(at, dict) and isinstance(at.get(str(step)), dict) and isinstance(value, dict):
        return [*_merge(at[str(step)], value, path)]
    at[step] = value
    return [path]


def _parent(data: dict[str, Any], parts: list[str], override: str) -> tuple[Any, Path]:
    """The container that holds the last of `parts`, made where it is missing, and the whole path."""
    at: Any = data
    path: Path = ()
    for position, part in enumerate(parts):
        step = _step(at, part, path, override)
        path = (*path, step)
        if position == len(parts) - 1:
            break
        if isinstance(at, dict) and at.get(str(step)) is None:
            at[str(step)] = {}
        at = at[step]
    return at, path


def _step(at: Any, part: str, path: Path, override: str) -> str | int:
    if isinstance(at, dict):
        return part
    if not isinstance(at, list):
        raise _bad(override, f"{dotted(path)} is {kind(at)}; expected a group of keys there")
    if not re.fullmatch(r"\d{1,9}", part) or int(part) >= len(at):
        raise _bad(override, f"{dotted(path)} is a list; expected an item from 0 to {len(at) - 1}")
    return int(part)


def _merge(old: dict[str, Any], new: dict[str, Any], path: Path) -> list[Path]:
    set_: list[Path] = []
    for key, value in new.items():
        inner = old.get(key)
        if isinstance(inner, dict) and isinstance(value, dict):
            set_ += _merge(inner, value, (*path, key))
        else:
            old[key] = value
            set_.append((*path, key))
    return set_


def _bad(override: str, problem: str) -> ConfigError:
    return refusal("bad-override", f"--set {shorten(override)}: {problem}.")
