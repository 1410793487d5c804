"""A user's dotted keys as paths into the config's data."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from preflight.position import Path


def locate(data: Mapping[str, Any], key: str) -> Path:
    """The path of a dotted key: of what is there where the key's parts could be read in several ways, else one part a dot."""
    path: Path = ()
    at: Any = data
    parts = key.replace("[", ".").replace("]", "").split(".")
    while parts:
        taken = next((n for n in range(len(parts), 0, -1) if isinstance(at, Mapping) and ".".join(parts[:n]) in at), 1)
        name = ".".join(parts[:taken])
        step = int(name) if isinstance(at, list) and name.isdigit() else name
        path, parts = (*path, step), parts[taken:]
        at = child(at, step)
    return path


def child(data: Any, step: str | int) -> Any:
    """What stands at `step` of a group or a list, or None where nothing does."""
    if isinstance(data, list):
        return data[step] if isinstance(step, int) and step < len(data) else None
    return data.get(step) if isinstance(data, Mapping) else None


def with_keys(data: Mapping[str, Any], keys: Mapping[str, Any]) -> dict[str, Any] | None:
    """A copy of `data` with the dotted `keys` set; None where one stands inside a value that holds none."""
    changed: dict[str, Any] = deepcopy(dict(data))
    for key, value in keys.items():
        *above, last = locate(changed, key)
        place: Any = changed
        for step in above:
            if isinstance(place, dict) and place.get(str(step)) is None:
                place[str(step)] = {}
            place = child(place, step)
        if isinstance(place, dict):
            place[str(last)] = _listed(value)
        elif isinstance(place, list) and isinstance(last, int) and last < len(place):
            place[last] = _listed(value)
        else:
            return None
    return changed


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
