"""Canonical changes in the user's own keys and notation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from preflight.adapters.conversions import SILENT
from preflight.adapters.hearing import Said, deciding, extent, size
from preflight.adapters.table import Field
from preflight.position import Path, dotted

if TYPE_CHECKING:
    from preflight.adapters.draft import Draft


def spell(run: Draft, inverse: Callable[[dict[str, Any]], dict[str, Any]], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`changes` by the user's keys, where they stand; those of a trainer that has no key for one are left out."""
    wanted = inverse({path: value for path, value in changes.items() if run.settled.get(path, SILENT) != value})
    after = {**run.settled, **wanted}
    answer: dict[str, Any] = {}
    for path in wanted:
        if path.startswith("_") and run.settled.get(path, SILENT) == wanted[path]:
            continue
        voices = _concerned(run.said.get(path, []), after)
        written = {voice.key: _write(voice.field, after, voice.raw) for voice in voices}
        if not voices or SILENT in written.values():
            written = _anew(run, path, after)
        answer.update(written)
    return answer


def _concerned(voices: list[Said], after: Mapping[str, Any]) -> list[Said]:
    """Those that must say something else then: of the items of a list the one that decides, and those larger than is wanted."""
    chosen = {voice.key for voice in deciding(voices)}
    return [voice for voice in voices if voice.key in chosen or (voice.field.among == "largest" and _exceeds(voice, after))]


def _exceeds(voice: Said, after: Mapping[str, Any]) -> bool:
    return size(voice) > extent([after[path] for path in voice.values if path in after])


def _write(entry: Field, after: Mapping[str, Any], raw: Any) -> Any:
    values = tuple(after.get(path, SILENT) for path in entry.paths)
    if SILENT in values:
        return SILENT
    return entry.convert.write(values[0] if isinstance(entry.path, str) else values, raw)


def _anew(run: Draft, path: str, after: Mapping[str, Any]) -> dict[str, Any]:
    """A key that the user has not set, as the trainer prefers it; one in the items of a list is said in each of them."""
    for entry in run.table.fields:
        if path in entry.paths:
            value = _write(entry, after, None)
            keys = _keys(run, entry) if value is not SILENT else ()
            if keys:
                return dict.fromkeys(keys, value)
    return {}


def _keys(run: Draft, entry: Field) -> tuple[str, ...]:
    for key in entry.keys:
        spelled = run.table.prefer(key, run.document)
        places = [dotted(place) for place in _places(run.document.data, spelled)] if "*" in spelled.split(".") else [spelled]
        if places:
            return tuple(places[:1] if entry.among == "first" else places)
    return ()


def _places(data: Any, key: str) -> list[Path]:
    """The paths that `key` stands for, one for each item of the lists that it goes through."""
    found: list[tuple[Path, Any]] = [((), data)]
    for part in key.split("."):
        if part == "*":
            items = ((path, value) for path, value in found if isinstance(value, list))
            found = [((*path, index), item) for path, value in items for index, item in enumerate(value)]
        else:
            found = [((*path, part), value.get(part) if isinstance(value, Mapping) else None) for path, value in found]
    return [path for path, _ in found]
