"""A config read through a trainer's table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from preflight.adapters import unresolved
from preflight.adapters.conversions import SILENT
from preflight.adapters.hearing import Hearing, Said, settle
from preflight.adapters.reading import Assumed, Reading
from preflight.adapters.spelling import spell
from preflight.adapters.table import Table
from preflight.document import Document
from preflight.finding import ConfigError, Finding, Severity

#: The canonical groups, in the order in which a spec shows them.
GROUPS = ("model", "train", "data", "precision", "parallel", "offload", "sample", "save", "schedule", "paths", "hardware")


@dataclass(kw_only=True, slots=True)
class Draft:
    """A config read through a table, on its way to a Reading: the adapter's functions look things up here and add."""

    document: Document
    table: Table
    said: dict[str, list[Said]] = field(default_factory=dict)
    settled: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    assumed: dict[str, Assumed] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def get(self, path: str, default: Any = None) -> Any:
        """The value at `path`, said or assumed; `default` when there is none."""
        return self.settled.get(path, default)

    def block(self, *keys: str) -> Mapping[str, Any]:
        """The group of the config that stands under `keys`; empty where there is none, or something else."""
        found: Any = self.document.data
        for key in keys:
            found = found.get(key) if isinstance(found, Mapping) else None
        return found if isinstance(found, Mapping) else {}

    def put(self, path: str, value: Any, *, like: str | None = None) -> None:
        """What follows for `path`; `like` names the path whose key and assumption it follows from."""
        self.settled[path] = value
        if like in self.origins:
            self.origins[path] = self.origins[like]
        elif like in self.assumed:
            self.assumed[path] = Assumed(value=value, source=self.assumed[like].source)

    def assume(self, path: str, value: Any, source: str) -> None:
        """Fills in `value` where nothing is said of `path`."""
        if path not in self.settled:
            self.settled[path] = value
            self.assumed[path] = Assumed(value=value, source=source)

    def drop(self, prefix: str) -> None:
        """Takes `prefix` and all below it out of the spec."""
        for name in [n for n in self.settled if n == prefix or n.startswith(prefix + ".")]:
            del self.settled[name]
            self.origins.pop(name, None)
            self.assumed.pop(name, None)

    def note(self, severity: Severity, id: str, message: str, *, at: str | None = None, fix: str | None = None) -> None:  # noqa: A002
        """Adds a finding where the user wrote what decides the canonical path `at`."""
        key = self.origins.get(at) if at else None
        self.findings.append(self.document.finding(id, severity, message, key=key, fix=fix))

    def check(self) -> None:
        """Raises ConfigError with all findings if one of them is an error."""
        if any(finding.severity == "error" for finding in self.findings):
            raise ConfigError(*sorted(self.findings, key=lambda f: f.severity != "error"))

    def reading(self, inverse: Callable[[dict[str, Any]], dict[str, Any]] = dict) -> Reading:
        """The Reading; `inverse` undoes on changes what the adapter's functions did after the table."""
        spec: dict[str, Any] = {"preflight": 1}
        shown = {path: value for path, value in self.settled.items() if not path.startswith("_")}
        for path in sorted(shown, key=lambda p: GROUPS.index(p.split(".")[0])):
            *groups, name = path.split(".")
            place = spec
            for group in groups:
                place = place.setdefault(group, {})
            place[name] = shown[path]
        return Reading(
            spec=spec,
            origins={path: key for path, key in self.origins.items() if path in shown},
            assumed={path: value for path, value in self.assumed.items() if path in shown},
            findings=tuple(self.findings),
            spell=partial(spell, self, inverse),
            document=self.document,
        )


def said(document: Document, table: Table) -> Mapping[str, Sequence[Said]]:
    """What `document` says of each path in the words of `table`, whatever is wrong with it."""
    return Hearing(unresolved.without(document, table.find)[0], table).said


def listen(document: Document, table: Table) -> Draft:
    """What `document` says of each path in the words of `table`, and what is wrong with it; nothing is filled in."""
    known, open_ = unresolved.without(document, table.find)
    hearing = Hearing(known, table)
    result = Draft(document=document, table=table, said=hearing.said, findings=[*open_, *hearing.findings, *_unheard(document)])
    conflicts: dict[Finding, None] = {}  # a key with several paths contradicts another in each of them
    for path, voices in result.said.items():
        decides, contradicted = settle(document, table, path, voices)
        conflicts.update(dict.fromkeys(contradicted))
        result.settled[path] = decides.value
        result.origins[path] = decides.key
    result.findings += conflicts
    return result


def draft(document: Document, table: Table) -> Draft:
    """`document` read through `table`, with the table's defaults filled in. Raises ConfigError for values it cannot read."""
    return fill(listen(document, table))


def fill(result: Draft) -> Draft:
    """`result` with its table's defaults filled in. Raises ConfigError with what is wrong with it so far."""
    result.check()
    for entry in result.table.fields:
        if entry.default is not SILENT:
            parts = (entry.default,) if isinstance(entry.path, str) else entry.default
            for path, value in zip(entry.paths, parts, strict=True):
                result.assume(path, value, entry.source)
    return result


def _unheard(document: Document) -> list[Finding]:
    """`--set` about what stands in a file that is not read."""
    return [
        document.finding(
            "bad-override", "error", f"--set {setting}: this trainer's adapter reads no file there; expected a key that is read."
        )
        for setting in document.waiting
    ]
