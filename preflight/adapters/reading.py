"""What an adapter gives back: the canonical description of a run, and how to say it in the user's own words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from preflight.adapters.table import Table
from preflight.document import Document
from preflight.finding import Finding


@dataclass(frozen=True, kw_only=True, slots=True)
class Assumed:
    """A value that the config leaves out, and the place that says what the trainer uses then."""

    value: Any
    source: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """`spec` is canonical data, `preflight: 1` first.

    `origins` and `assumed` are keyed by canonical dotted path ("data.frames"): the user's dotted key, or what was filled in.
    `spell` turns canonical changes into the user's keys and values; a change that the trainer has no key for is left out.
    `document` is what was read: the config with the files that it names in it, None where the config alone was read.
    """

    spec: dict[str, Any]
    origins: Mapping[str, str]
    assumed: Mapping[str, Assumed] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    spell: Callable[[Mapping[str, Any]], dict[str, Any]]
    document: Document | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Adapter:
    """One trainer's format. `read` raises ConfigError with a finding for each value that cannot be understood.

    `tables` are what `preflight list adapters -v` shows of it: the keys, what they mean, and the trainer's defaults. The first is
    that of its files, from which their schema is written. `trains` tells a launch that trains from one that only prepares a
    training, such as the encoding of its data set; a script's other launches are judged in its place.
    """

    name: str
    matches: Callable[[Document], bool]
    read: Callable[[Document], Reading]
    tables: tuple[Table, ...] = ()
    trains: Callable[[Document], bool] = lambda _: True
