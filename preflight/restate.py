"""Canonical changes said in the user's own keys, and the config with them read again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from preflight import schema
from preflight.adapters.reading import Adapter, Reading
from preflight.advice.said import DEAR, Restated
from preflight.document import Document
from preflight.editing.keys import with_keys
from preflight.finding import ConfigError
from preflight.position import dotted
from preflight.spec import Spec

# Groups of settings that people keep together: a key that is new goes where the user has one of these.
KIN: Mapping[str, tuple[str, ...]] = {
    "offload": ("offload", "data.latents", "data.text", "train.optimizer.bits", "train.checkpointing"),
    "data.latents": ("data.latents", "data.text", "offload", "train.optimizer.bits"),
    "data.text": ("data.text", "data.latents", "offload", "train.optimizer.bits"),
    "train": ("train.batch", "train.accumulation", "train.checkpointing", "train"),
    "parallel": ("parallel", "train.batch"),
    "precision": ("precision", "train.batch"),
    "sample": ("sample",),
}


def restater(document: Document, adapter: Adapter, reading: Reading) -> Callable[[Mapping[str, Any]], Restated | None]:
    """A function from canonical changes to the user's keys and what the adapter reads from the config with them.

    It answers None when the trainer has no key for any of them, or refuses what they make of the config. What the trainer
    derives from the other changes is not spelled out, but for what is learnt from, which only its own keys change.
    """
    document = reading.document or document  # with the files that it names

    def restate(changes: Mapping[str, Any]) -> Restated | None:
        derived = {path: value for path, value in changes.items() if path in reading.assumed and path not in DEAR}
        plain = {path: value for path, value in changes.items() if path not in derived}
        if derived and plain:
            short = _restated(document, adapter, reading, plain)
            if short is not None and _says(short.spec, changes):
                return short
        return _restated(document, adapter, reading, changes)

    return restate


def _restated(document: Document, adapter: Adapter, reading: Reading, changes: Mapping[str, Any]) -> Restated | None:
    spelled = reading.spell(changes)
    if not spelled:
        return None
    plain = _read(document, adapter, spelled)
    if plain is None:
        return None
    for keys in _beside(document, reading, changes, spelled):
        if _read(document, adapter, keys) == plain:
            return Restated(keys=keys, spec=plain)
    return Restated(keys=spelled, spec=plain)


def _read(document: Document, adapter: Adapter, keys: Mapping[str, Any]) -> Spec | None:
    """The spec of the config with `keys`; None where it is refused."""
    data = with_keys(document.data, keys)
    if data is None:
        return None
    try:
        reading = adapter.read(replace(document, data=data))
    except ConfigError:
        return None
    refused = any(finding.severity == "error" for finding in reading.findings)
    if refused or schema.check(reading.spec, "spec"):
        return None
    return Spec.from_mapping(reading.spec)


def _says(spec: Spec, changes: Mapping[str, Any]) -> bool:
    data = spec.to_mapping()
    return all(_at(data, path.split(".")) == value for path, value in changes.items())


def _at(data: Any, parts: list[str]) -> Any:
    for part in parts:
        data = data.get(part) if isinstance(data, Mapping) else None
    return data


def _beside(document: Document, reading: Reading, changes: Mapping[str, Any], spelled: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The keys with those that are new moved into the group where the user keeps such settings, where there is one."""
    if any(not isinstance(value, Mapping) for value in document.data.values()):
        return
    own = (path for path in document.positions if path[0] not in document.included)
    groups = {str(path[-1]): dotted(path[:-1]) for path in own if len(path) == 2}
    moved = dict(spelled)
    for path, value in changes.items():
        for key in reading.spell({path: value}):
            homes = (home for home in _homes(reading, path) if home.partition(".")[0] not in document.included)
            home = groups.get(key) or next(homes, None)
            if key in moved and "." not in key and document.position(key) is None and home:
                moved = {(f"{home}.{key}" if name == key else name): other for name, other in moved.items()}
    if moved != spelled:
        yield moved


def _homes(reading: Reading, path: str) -> Iterator[str]:
    """The groups of the user's keys that are kin to a canonical path, the nearest first."""
    for prefix in KIN.get(path) or KIN.get(path.partition(".")[0], ()):
        for canonical, key in reading.origins.items():
            if (canonical == prefix or canonical.startswith(prefix + ".")) and "." in key:
                yield key.rpartition(".")[0]
