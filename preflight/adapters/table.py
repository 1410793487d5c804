"""A trainer's words as a table, and a config read through it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

from preflight.adapters.conversions import RANKS, SILENT, Conversion, RefusedError, gib, show, text, whole
from preflight.adapters.reading import Assumed, Reading
from preflight.document import Document
from preflight.finding import ConfigError, Finding, Severity

#: The canonical groups, in the order in which a spec shows them.
GROUPS = ("model", "train", "data", "precision", "parallel", "offload", "sample", "save", "schedule", "paths", "hardware")
#: How bad it is when two keys disagree on a value of these groups, none of which changes what a step needs; elsewhere an error.
DISAGREEING: Mapping[str, Severity | None] = {"paths": None, "schedule": "warning"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Field:
    """One setting: where it goes, what users call it (the trainer's preferred word first), and what holds without it.

    A `path` that begins with "_" is a fact for the adapter's own functions and never reaches the spec. Where two fields speak
    of one path, the higher `precedence` decides; equals must agree.
    """

    path: str | tuple[str, ...]
    keys: tuple[str, ...]
    convert: Conversion
    default: Any = SILENT
    source: str = ""
    precedence: int = 0

    @property
    def paths(self) -> tuple[str, ...]:
        return (self.path,) if isinstance(self.path, str) else self.path

    def values(self, raw: Any) -> dict[str, Any]:
        """What `raw` says of each path. Raises RefusedError."""
        value = self.convert.read(raw)
        parts = (value,) if isinstance(self.path, str) else value
        return {path: part for path, part in zip(self.paths, parts, strict=True) if part is not SILENT}


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """`unread` is the sentence for a key that is not here; `no_effect` are patterns of keys that change no memory.

    `sections` are mappings that only group keys. `locate` makes a user's path of keys the one that is looked up here, `prefer`
    spells a key of ours as this user would, and `null_is_unset` says whether an empty value means the trainer's default.
    """

    unread: str
    fields: tuple[Field, ...]
    no_effect: tuple[str, ...] = ()
    sections: frozenset[str] = frozenset()
    locate: Callable[[tuple[str, ...]], tuple[str, ...]] = tuple
    prefer: Callable[[str, Document], str] = lambda key, _: key
    null_is_unset: bool = True

    def find(self, parts: tuple[str, ...]) -> Field | bool:
        """The field that the user's `parts` name, True when they change no memory, False when nobody knows them."""
        names = [".".join(name) for name in self._shortened(self.locate(parts))]
        for key in names:
            for entry in self.fields:
                if key in entry.keys:
                    return entry
        return any(fnmatchcase(key, pattern) for key in names for pattern in self.no_effect)

    def _shortened(self, names: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        """`names`, and what is left of them without the sections that only group keys."""
        while names:
            yield names
            if names[0] not in self.sections:
                return
            names = names[1:]

    def suggest(self, parts: tuple[str, ...]) -> str | None:
        """The key, as this table has it, whose last word is much like that of `parts`; the same block's first."""
        *above, last = self.locate(parts) or ("",)
        known = [name for entry in self.fields for name in entry.keys]
        known += [name for name in self.no_effect if "*" not in name]
        near = [name for name in known if name.split(".")[:-1] == above]
        for names in (near, known):
            ends = {name.rsplit(".", 1)[-1].lower(): name for name in reversed(names)}
            slips = get_close_matches(last.lower(), ends, n=1, cutoff=0.9)
            kin = get_close_matches(last.lower(), ends, n=8, cutoff=0.7)
            if slips or kin:
                return ends[slips[0]] if slips else min((ends[end] for end in kin), key=known.index)
        return None


@dataclass(frozen=True, kw_only=True, slots=True)
class Said:
    """What the user's `key` says of one path."""

    value: Any
    key: str
    raw: Any
    field: Field


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
            spell=partial(_spell, self, inverse),
        )


def listen(document: Document, table: Table) -> Draft:
    """What `document` says of each path in the words of `table`, and what is wrong with it; nothing is filled in."""
    result = Draft(document=document, table=table)
    for parts, raw, entry in _walk(document.data, (), table, result):
        _hear(result, parts, raw, entry)
    for path, voices in result.said.items():
        _settle(result, path, voices)
    return result


def draft(document: Document, table: Table) -> Draft:
    """`document` read through `table`, with the table's defaults filled in. Raises ConfigError for values it cannot read."""
    result = listen(document, table)
    result.check()
    for entry in table.fields:
        if entry.default is not SILENT:
            parts = (entry.default,) if isinstance(entry.path, str) else entry.default
            for path, value in zip(entry.paths, parts, strict=True):
                result.assume(path, value, entry.source)
    return result


def _walk(
    data: Mapping[Any, Any], above: tuple[str, ...], table: Table, result: Draft
) -> Iterator[tuple[tuple[str, ...], Any, Field]]:
    for name, raw in data.items():
        parts = (*above, str(name))
        found = table.find(parts)
        located = table.locate(parts)
        section = not located or located[-1] in table.sections
        wrapped = isinstance(raw, Mapping) and any(table.locate((*parts, str(below))) == located for below in raw)
        groups = section or wrapped or not isinstance(found, Field)
        if found is True and not (section and isinstance(raw, Mapping)):
            continue
        if isinstance(raw, Mapping) and groups:
            if _anything_known(raw, parts, table):
                yield from _walk(raw, parts, table, result)
            else:
                _unread(result, parts)
        elif isinstance(found, Field):
            if raw is not None or not table.null_is_unset:
                yield parts, raw, found
        elif raw is not None or not groups:
            _unread(result, parts)


def _anything_known(data: Mapping[Any, Any], parts: tuple[str, ...], table: Table) -> bool:
    located = table.locate(parts)
    if not located or located[-1] in table.sections:
        return True
    for name, raw in data.items():
        below = (*parts, str(name))
        if table.find(below) is not False or (isinstance(raw, Mapping) and _anything_known(raw, below, table)):
            return True
    return False


def _unread(result: Draft, parts: tuple[str, ...]) -> None:
    key = ".".join(parts)
    guess = _guess(result, parts)
    message = result.table.unread.format(key=key) + (f"; did you mean {guess}?" if guess else ".")
    fix = f"rename {key} to {guess}" if guess else None
    result.findings.append(result.document.finding("unknown-key", "warning", message, key=key, fix=fix))


def _guess(result: Draft, parts: tuple[str, ...]) -> str | None:
    """The key that `parts` are probably a slip of, spelled beside them; none that the config has already."""
    guess = result.table.suggest(parts)
    if guess is None:
        return None
    group = "" if "." in guess or not set(parts[:-1]) else ".".join(parts[:-1]) + "."
    spelled = group + result.table.prefer(guess, result.document)
    return None if spelled == ".".join(parts) or result.document.position(spelled) else spelled


def _hear(result: Draft, parts: tuple[str, ...], raw: Any, entry: Field) -> None:
    key = ".".join(parts)
    try:
        values = entry.values(raw)
    except RefusedError as refused:
        why = f", {refused.why}" if refused.why else ""
        message = f"{key} is {show(raw)}{why}; expected {refused.expected}."
        result.findings.append(result.document.finding("invalid-value", "error", message, key=key))
        return
    for path, value in values.items():
        result.said.setdefault(path, []).append(Said(value=value, key=key, raw=raw, field=entry))


def _settle(result: Draft, path: str, voices: list[Said]) -> None:
    loudest = max(voice.field.precedence for voice in voices)
    voices[:] = [voice for voice in voices if voice.field.precedence == loudest]
    severity = DISAGREEING.get(path.partition(".")[0], "error")
    if severity is None:
        voices.sort(key=partial(_rank, result.table))
    first = voices[0]
    for other in voices[1:]:
        if other.value != first.value and severity is not None:
            result.findings.append(_conflict(result.document, first, other, severity))
    result.settled[path] = first.value
    result.origins[path] = first.key


def _rank(table: Table, said: Said) -> int:
    """How far down its field's list of keys the one stands that the user chose."""
    name = ".".join(("", *table.locate(tuple(said.key.split(".")))))
    return next((number for number, key in enumerate(said.field.keys) if name.endswith(f".{key}")), len(said.field.keys))


def _conflict(document: Document, first: Said, other: Said, severity: Severity) -> Finding:
    places = [document.position(said.key) for said in (first, other)]
    says = [
        f"{said.key} is {show(said.raw)}" + (f" on line {place.line}" if place else "")
        for said, place in zip((first, other), places, strict=True)
    ]
    message = f"{says[0]} but {says[1]}: both name the same setting, so they must agree."
    fix = f"keep one of {first.key} and {other.key}"
    return document.finding("conflicting-keys", severity, message, key=other.key, fix=fix)


def _spell(result: Draft, inverse: Callable[[dict[str, Any]], dict[str, Any]], changes: Mapping[str, Any]) -> dict[str, Any]:
    wanted = inverse({path: value for path, value in changes.items() if result.settled.get(path, SILENT) != value})
    after = {**result.settled, **wanted}
    answer: dict[str, Any] = {}
    for path in wanted:
        if path.startswith("_") and result.settled.get(path, SILENT) == wanted[path]:
            continue
        voices = result.said.get(path, [])
        written = {voice.key: _write(voice.field, after, voice.raw) for voice in voices}
        if not voices or SILENT in written.values():
            written = _write_anew(result, path, after)
        answer.update(written)
    return answer


def _write(entry: Field, after: Mapping[str, Any], raw: Any) -> Any:
    values = tuple(after.get(path, SILENT) for path in entry.paths)
    if SILENT in values:
        return SILENT
    return entry.convert.write(values[0] if isinstance(entry.path, str) else values, raw)


def _write_anew(result: Draft, path: str, after: Mapping[str, Any]) -> dict[str, Any]:
    for entry in result.table.fields:
        if path in entry.paths:
            value = _write(entry, after, None)
            if value is not SILENT:
                return {result.table.prefer(entry.keys[0], result.document): value}
    return {}


#: Keys of our own that every family accepts, because no trainer says on what it will run.
HARDWARE = (
    Field(path="hardware.gpu", keys=("hardware.gpu",), convert=text('the name of a GPU such as "v100-32gb"')),
    Field(path="hardware.host_memory_gib", keys=("hardware.host_memory_gib", "hardware.ram"), convert=gib(gb_is_gib=True)),
    Field(path="hardware.disk_free_gib", keys=("hardware.disk_free_gib", "hardware.disk"), convert=gib(gb_is_gib=False)),
    Field(path="parallel.nodes", keys=("hardware.nodes",), convert=whole(1, RANKS)),
)
