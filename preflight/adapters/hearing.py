"""What a config says of each canonical path in the words of a table, and what is wrong with how it says it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from math import prod
from typing import Any

from preflight.adapters.conversions import RefusedError, show
from preflight.adapters.table import Field, Table
from preflight.document import Document
from preflight.finding import Finding, Severity
from preflight.position import Path, dotted

#: How bad it is when two keys disagree on a value of these groups, none of which changes what a step needs; elsewhere an error.
DISAGREEING: Mapping[str, Severity | None] = {"paths": None, "schedule": "warning"}

MAX_GUESSES = 200  # of what unknown keys were meant to be, at a millisecond each: a person's slips are few


@dataclass(frozen=True, kw_only=True, slots=True)
class Said:
    """What the user's `key` says of one path.

    `parts` are the key's, with "*" for an item of a list, and `values` all that it says, of other paths as well.
    """

    value: Any
    key: str
    raw: Any
    field: Field
    parts: tuple[str, ...]
    values: Mapping[str, Any]


class Hearing:
    """One walk over a config: `said` is what it says of each path, `findings` what is wrong with its keys and values."""

    def __init__(self, document: Document, table: Table) -> None:
        self.said: dict[str, list[Said]] = {}
        self._wrong: list[Finding | tuple[Path, tuple[str, ...]]] = []  # and keys that nothing reads, in the order of the file
        self._document, self._table = document, table
        self._found: dict[tuple[str, ...], Field | bool] = {}
        self._walked: dict[tuple[str, ...], bool] = {}
        self._guessed: dict[tuple[str, ...], str | None] = {}
        for name, raw in document.data.items():
            for path, parts, value, entry in self._below(raw, (str(name),), (str(name),)):
                self._hear(path, parts, value, entry)

    @cached_property
    def findings(self) -> list[Finding]:
        """Found when asked, as it takes a while to guess what unknown keys were meant to be."""
        return [wrong if isinstance(wrong, Finding) else self._unknown(*wrong) for wrong in self._wrong]

    def _find(self, parts: tuple[str, ...]) -> Field | bool:
        if parts not in self._found:
            self._found[parts] = self._table.find(parts)
        return self._found[parts]

    def _walks(self, parts: tuple[str, ...]) -> bool:
        if parts not in self._walked:
            self._walked[parts] = self._table.walks(parts)
        return self._walked[parts]

    def _below(self, raw: Any, path: Path, parts: tuple[str, ...]) -> Iterator[tuple[Path, tuple[str, ...], Any, Field]]:
        """Each value in `raw` that a field reads, where it stands."""
        table, found, located = self._table, self._find(parts), self._table.locate(parts)
        section = not located or located[-1] in table.sections
        wrapped = isinstance(raw, Mapping) and any(table.locate((*parts, str(below))) == located for below in raw)
        groups = section or wrapped or not isinstance(found, Field)
        if found is True and not (section and isinstance(raw, Mapping)):
            return
        if isinstance(raw, Mapping) and groups:
            if isinstance(path[-1], int) or self._anything_known(raw, parts):
                for name, value in raw.items():
                    yield from self._below(value, (*path, str(name)), (*parts, str(name)))
            else:
                self._wrong.append((path, parts))
            return
        if isinstance(found, Field):
            if raw is not None or not table.null_is_unset:
                yield path, parts, raw, found
        elif not isinstance(raw, list) or not self._walks(parts):
            if raw is not None or not groups:
                self._wrong.append((path, parts))
            return
        if isinstance(raw, list) and self._walks(parts):
            for index, item in enumerate(raw):
                yield from self._below(item, (*path, index), (*parts, "*"))

    def _anything_known(self, raw: Any, parts: tuple[str, ...]) -> bool:
        if isinstance(raw, list):
            return self._walks(parts)
        if not isinstance(raw, Mapping):
            return False
        located = self._table.locate(parts)
        if not located or located[-1] in self._table.sections:
            return True
        below = ((value, (*parts, str(name))) for name, value in raw.items())
        return any(self._find(at) is not False or self._anything_known(value, at) for value, at in below)

    def _hear(self, path: Path, parts: tuple[str, ...], raw: Any, entry: Field) -> None:
        key = dotted(path)
        try:
            values = entry.values(raw)
        except RefusedError as refused:
            why = f", {refused.why}" if refused.why else ""
            message = f"{key} is {show(raw)}{why}; expected {refused.expected}."
            self._wrong.append(self._document.finding("invalid-value", "error", message, key=path))
            return
        for name, value in values.items():
            said = Said(value=value, key=key, raw=raw, field=entry, parts=parts, values=values)
            self.said.setdefault(name, []).append(said)

    def _unknown(self, path: Path, parts: tuple[str, ...]) -> Finding:
        key, guess = dotted(path), self._guess(path, parts)
        message = self._table.unread.format(key=key) + (f"; did you mean {guess}?" if guess else ".")
        fix = f"rename {key} to {guess}" if guess else None
        return self._document.finding("unknown-key", "warning", message, key=path, fix=fix)

    def _guess(self, path: Path, parts: tuple[str, ...]) -> str | None:
        """The key that `parts` are probably a slip of, spelled beside them; none that the config has already."""
        if parts not in self._guessed:
            self._guessed[parts] = self._table.suggest(parts) if len(self._guessed) < MAX_GUESSES else None
        guess = self._guessed[parts]
        if guess is None:
            return None
        indices = [step for step in path if isinstance(step, int)]
        indices = indices[max(0, len(indices) - guess.count("*")) :]  # what stands above them the table does not spell
        for index in (*indices, *[0] * guess.count("*")):
            guess = guess.replace(".*", f"[{index}]", 1)
        group = "" if "." in guess or not path[:-1] else dotted(path[:-1]) + "."
        spelled = group + self._table.prefer(guess, self._document)
        return None if spelled == dotted(path) or self._document.position(spelled) else spelled


def settle(document: Document, table: Table, path: str, voices: list[Said]) -> tuple[Said, list[Finding]]:
    """The one of `voices` that decides `path`, and where others contradict it; those of a lower precedence are taken out."""
    loudest = max(voice.field.precedence for voice in voices)
    voices[:] = [voice for voice in voices if voice.field.precedence == loudest]
    severity = DISAGREEING.get(path.partition(".")[0], "error")
    if severity is None:
        voices.sort(key=partial(_rank, table))
    first, *others = deciding(voices)
    if severity is None:
        return first, []
    return first, [_conflict(document, first, other, severity) for other in others if other.value != first.value]


def deciding(voices: Collection[Said]) -> list[Said]:
    """`voices`, of the items of one list only those that their field lets decide."""
    groups: dict[int, list[Said]] = {}
    for voice in voices:
        groups.setdefault(id(voice.field), []).append(voice)
    kept: set[int] = set()
    for group in groups.values():
        among = group[0].field.among
        kept.update(
            id(voice) for voice in (group if among == "agree" else [group[0] if among == "first" else max(group, key=size)])
        )
    return [voice for voice in voices if id(voice) in kept]


def size(said: Said) -> float:
    """How large what was said is: its numbers, all paths multiplied."""
    return extent(said.values.values())


def extent(values: Collection[Any]) -> float:
    """The product of the numbers among `values`, 0 where there is none."""
    numbers = [value for value in values if isinstance(value, int | float)]
    return prod(numbers) if numbers else 0


def _rank(table: Table, said: Said) -> int:
    """How far down its field's list of keys the one stands that the user chose."""
    name = ".".join(("", *table.locate(said.parts)))
    return next((number for number, key in enumerate(said.field.keys) if name.endswith(f".{key}")), len(said.field.keys))


def _conflict(document: Document, first: Said, other: Said, severity: Severity) -> Finding:
    says = []
    for said in (first, other):
        place = document.position(said.key)
        where = f" on line {place.line}" + (f" of {place.file}" if place.file else "") if place else ""
        says.append(f"{said.key} is {show(said.raw)}{where}")
    message = f"{says[0]} but {says[1]}: both name the same setting, so they must agree."
    fix = f"keep one of {first.key} and {other.key}"
    return document.finding("conflicting-keys", severity, message, key=other.key, fix=fix)
