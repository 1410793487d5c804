"""A config that is already canonical: top-level `preflight: 1`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from preflight.adapters import unresolved
from preflight.adapters.conversions import text
from preflight.adapters.reading import Adapter, Reading
from preflight.adapters.table import Field
from preflight.document import Document
from preflight.finding import ConfigError

VERSION = 1


def matches(document: Document) -> bool:
    return "preflight" in document.data


def read(document: Document) -> Reading:
    """The document itself. Raises ConfigError when its version is not the one this program reads."""
    version = document.data.get("preflight")
    if isinstance(version, bool) or version != VERSION:
        message = (
            f"preflight is {version!r}, a version of the spec that this program does not read; expected {VERSION}."
            if "preflight" in document.data
            else f"preflight is missing; a canonical config begins with preflight: {VERSION}."
        )
        raise ConfigError(document.finding("bad-version", "error", message, key="preflight"))
    known, open_ = unresolved.without(document, _canonical)
    if any(finding.severity == "error" for finding in open_):
        raise ConfigError(*open_)
    data = {key: value for key, value in known.data.items() if key != "preflight"}
    return Reading(
        spec={"preflight": VERSION, **data},
        origins={path: path for path in _paths(data)},
        findings=tuple(open_),
        spell=dict,
    )


def _canonical(parts: tuple[str, ...]) -> Field:
    name = ".".join(parts)
    return Field(path=name, keys=(name,), convert=text("a value"))


def _paths(data: Mapping[str, Any], above: str = "") -> Iterator[str]:
    for key, value in data.items():
        yield f"{above}{key}"
        if isinstance(value, Mapping):
            yield from _paths(value, f"{above}{key}.")


ADAPTER = Adapter(name="native", matches=matches, read=read)
