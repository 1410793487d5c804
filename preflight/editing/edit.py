"""A config's text with an offer's keys in it, read again to be what was meant."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from preflight import document, json_positions, toml_positions, yaml_positions
from preflight.document import Document
from preflight.editing import json_text, toml_text, yaml_text
from preflight.editing.keys import child, locate, with_keys
from preflight.finding import ConfigError, Finding
from preflight.position import Parsed, Path, dotted

Edit = Callable[[str, Path, Any], str]
# How a format is read -> how its text is edited.
EDITORS: Mapping[Callable[[str], Parsed], Edit] = {
    yaml_positions.read: yaml_text.edited,
    json_positions.read: json_text.edited,
    toml_positions.read: toml_text.edited,
}


def edited(config: Document, text: str, keys: Mapping[str, Any]) -> str:
    """`text`, which `config` was read from, with the user's dotted `keys` set and nothing else changed.

    Raises ConfigError with one sentence: a value that is not the file's own (an interpolation, `--set`, another file's), or one
    that cannot be changed without changing more than it (what an anchor is shared with, a text of several lines).
    """
    read = document.reader(config.path, text)
    before = read(text).data
    edit = EDITORS.get(read)
    if edit is None:
        raise _refused(config, None, f"{config.path} is of a format that preflight does not edit")
    changed = text
    for key, value in keys.items():
        _refuse_included(config, locate(config.data, key))
        path = locate(before, key)
        _refuse_foreign(config, text, path)
        if _at(before, path) != value:
            changed = edit(changed, path, value)
    wanted = with_keys(before, keys)
    try:
        same = wanted is not None and read(changed).data == _plain(wanted)
    except ConfigError:
        same = False
    if not same:
        listed = ", ".join(keys)
        raise _refused(config, None, f"{listed} cannot be set without changing another value of {config.path}")
    return changed


def _refuse_included(config: Document, path: Path) -> None:
    file = config.included.get(str(path[0]))
    if file is None or len(path) == 1 or config.is_overridden(path):
        return
    nearest = next((at for at in (path[:n] for n in range(len(path), 1, -1)) if config.position(at)), None)
    place = config.position(nearest) if nearest else None
    where = f"{file}, line {place.line}" if place else file
    stands = "stands in" if nearest == path else "belongs in"
    raise _refused(config, nearest or path, f"{dotted(path)} {stands} {where}, and not in {config.path}", file)


def _refuse_foreign(config: Document, text: str, path: Path) -> None:
    if config.is_overridden(path):
        raise _refused(config, None, f"{dotted(path)} was given with --set, not by the file")
    for other in config.interpolated:
        if other[: len(path)] == path or path[: len(other)] == other:
            place = config.position(other)
            line = text.splitlines()[place.line - 1] if place else ""
            shown = re.search(r"\$\{[^}]*\}", line)
            raise _refused(config, path, f"{dotted(path)} takes its value from {shown[0] if shown else 'another key'}")


def _refused(config: Document, path: Path | None, why: str, file: str | None = None) -> ConfigError:
    place = config.position(path) if path is not None else None
    line, column, file = place or (None, None, file)
    message = f"{why}, so it is not edited; change it by hand."
    key = dotted(path) if path is not None else None
    return ConfigError(Finding(id="not-edited", severity="error", message=message, key=key, line=line, column=column, file=file))


def _at(data: Any, path: Path) -> Any:
    for step in path:
        data = child(data, step)
    return data


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
