"""Launch scripts as documents: one for each program that a script starts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from preflight import overrides, silence, source
from preflight.document import Document
from preflight.finding import ConfigError
from preflight.launching import kinds
from preflight.position import refusal

if TYPE_CHECKING:
    from preflight.launching.shell import Started


def name(document: Document, others: Sequence[Document]) -> str:
    """What to call `document`, one of `others`: its path, with the launch's line where there are several.

    A loop starts several on one line: they are numbered in their order.
    """
    if document.launch is None or len(others) < 2:
        return document.path
    same = [other for other in others if other.launch is not None and other.launch.line == document.launch.line]
    number = next(number for number, other in enumerate(same, 1) if other is document)
    return f"{document.path}:{document.launch.line}" + (f" ({number} of {len(same)})" if len(same) > 1 else "")


def placed(called: str) -> tuple[str, int]:
    """The path that `name` called a launch by, and which of the launches there it is, counted from 0."""
    found = re.fullmatch(r"(.*) \((\d+) of \d+\)", called)
    return (found[1], int(found[2]) - 1) if found else (called, 0)


def trains(document: Document) -> bool:
    """Whether the launch looks like a training: a launcher of several processes, or a program of such a name."""
    launch = document.launch
    return launch is None or launch.launcher != "python" or re.search("train|tune", launch.program) is not None


def read(path: str, text: str, settings: Sequence[str], line: int | None = None) -> tuple[Document, ...]:
    """The launches in the script at `path`, or the one whose command begins on `line`. Raises ConfigError where there is none."""
    from preflight.launching import script

    found = script.read(path, text, _load)
    started = [one for one in found.started if line in (None, one.launch.line)]
    if not started:
        there = ", ".join(str(one.launch.line) for one in found.started)
        raise refusal("no-launch", f"{path} starts no program on line {line}; those that it starts are on line {there}.")
    heredocs, ignored = found.heredocs, silence.comments(text)
    return tuple(replace(_document(path, one, settings), heredocs=heredocs, ignored=ignored, launch=one.launch) for one in started)


def _document(path: str, started: Started, settings: Sequence[str]) -> Document:
    data = {name: dict(value) if isinstance(value, dict) else value for name, value in started.data.items()}
    spelled = tuple(_spelled(setting, data) for setting in settings)
    overridden = overrides.apply(data, spelled)
    return Document(
        path=path,
        data=data,
        positions=overrides.without(started.positions, overridden),
        overridden=overridden,
        settings=spelled,
    )


def _spelled(setting: str, data: dict[str, object]) -> str:
    """`setting` with its key as the script spells it, where it does: `lora_rank=8` is about `--lora-rank`."""
    key, equals, value = setting.partition("=")
    return ".".join(_keys(key.split("."), data)) + equals + value


def _keys(parts: Sequence[str], data: object) -> Iterator[str]:
    for part in parts:
        known = data if isinstance(data, dict) else {}
        same = next((name for name in known if _plain(name) == _plain(part)), part)
        yield same
        data = known.get(same)


def _plain(name: str) -> str:
    return name.lstrip("-").replace("-", "_")


def _load(path: str) -> str | None:
    """Another script's text; None for what is not there, or no text."""
    try:
        return source.text_of(path) if kinds.is_file(path) else None
    except ConfigError:
        return None
