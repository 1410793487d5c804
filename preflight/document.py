"""A config file as data: what it says, and where each key stands in it."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from preflight import (
    data_lists,
    env_positions,
    included,
    interpolation,
    json_positions,
    overrides,
    silence,
    source,
    toml_positions,
    yaml_positions,
)
from preflight.finding import Finding, Severity
from preflight.launching import kinds
from preflight.launching.launch import Heredoc, Launch
from preflight.position import Parsed, Path, Position, dotted, refusal

__all__ = ["Document", "Position", "read", "read_all"]

# How a file's name ends -> what reads it. A name without an ending (standard input, /dev/fd/63) is read by content.
FORMATS: Mapping[str, Callable[[str], Parsed]] = {
    ".yaml": yaml_positions.read,
    ".yml": yaml_positions.read,
    ".json": json_positions.read,
    ".jsonc": json_positions.read,
    ".toml": toml_positions.read,
    ".env": env_positions.read,
}
# What only a file that a config names may be: rows of data.
ROWS: Mapping[str, Callable[[str], Parsed]] = {".jsonl": json_positions.read_lines}


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """A config's data, interpolations resolved, and the place of every key and list item that the file spells.

    `overridden` are the paths set from the command line, which have no place; `interpolated` those that held `${…}`.
    `ignored` are the ids of findings that comments silence, by line (`preflight.silence`). `settings` are the `key=value` of the
    command line, and `waiting` those of them that are about a file which the config names. `included` holds the files that have
    been read into the data, by their key. Of a launch script a document is one `launch`, and its data that program's flags;
    `heredocs` are the files that the script writes, by their path.
    """

    path: str
    data: dict[str, Any]
    positions: Mapping[Path, Position]
    interpolated: frozenset[Path] = frozenset()
    overridden: frozenset[Path] = frozenset()
    ignored: Mapping[int, frozenset[str]] = field(default_factory=dict)
    settings: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()
    included: Mapping[str, str] = field(default_factory=dict)
    launch: Launch | None = None
    heredocs: Mapping[str, Heredoc] = field(default_factory=dict)
    _places: dict[str, Position] = field(init=False, default_factory=dict, compare=False, repr=False)

    def position(self, key: str | Path) -> Position | None:
        """Where `key` stands ("datasets[0].size", "datasets.0.size" or a tuple), or None when the file has no such."""
        return self.positions.get(key) if isinstance(key, tuple) else self._spelled().get(_plain(key))

    def is_overridden(self, key: str | Path) -> bool:
        """Whether `key`, or a group that holds it, was given with `--set`."""
        plain = _plain(key)
        return any(plain == _plain(path) or plain.startswith(_plain(path) + ".") for path in self.overridden)

    def finding(
        self,
        id: str,  # noqa: A002  # the field's name in Finding
        severity: Severity,
        message: str,
        key: str | Path | None = None,
        fix: str | None = None,
    ) -> Finding:
        """A finding at `key`, or at its nearest parent in the file; without a place when `--set` gave the key."""
        name = dotted(key) if isinstance(key, tuple) else key
        if name and self.is_overridden(name):
            return Finding(id=id, severity=severity, message=f"{message} (from --set)", key=name, fix=fix)
        line, column, file = self._nearest(name) if name else (None, None, None)
        return Finding(id=id, severity=severity, message=message, key=name, line=line, column=column, fix=fix, file=file)

    def including(self, name: str, path: str) -> Document | None:
        """A copy with what the file at `path` says under the key `name`, or None when there is no such file.

        `path` counts from the folder of the config, then from the working directory; a file that the launch script itself writes
        comes before both. The file may hold a list, and rows of JSON. What `--set` gave under `name` wins over it. A name that is
        included already is left as it is. Raises ConfigError whose findings name the file: all that `read` refuses.
        """
        heredoc = self.heredocs.get(posixpath.normpath(path))
        file = None if name in self.included else path if heredoc is not None else included.found(self.path, path)
        if file is None:
            return self if name in self.included else None
        settings = tuple(setting for setting in self.settings if overrides.reaches_into(setting, name))
        written = None if heredoc is None else heredoc.text_in_place
        extra = included.read(name, file, lambda text: reader(file, text, {**FORMATS, **ROWS}), settings, written)
        own = {at: place for at, place in self.positions.items() if at[0] != name or len(at) == 1}
        return replace(
            self,
            data={**self.data, name: extra.data},
            positions={**extra.positions, **own},
            interpolated=frozenset(at for at in self.interpolated if at[0] != name) | extra.interpolated,
            overridden=frozenset(at for at in self.overridden if at[0] != name) | extra.overridden,
            waiting=tuple(setting for setting in self.waiting if setting not in settings),
            included={**self.included, name: file},
        )

    def _nearest(self, name: str) -> Position | tuple[None, None, None]:
        places = self._spelled()
        plain = _plain(name)
        while plain and plain not in places:
            plain = plain.rpartition(".")[0]
        if plain not in places and self.launch is not None:
            return Position(self.launch.line, 1, self.launch.script)
        return places.get(plain, (None, None, None))

    def _spelled(self) -> Mapping[str, Position]:
        """The positions by their plain spelling, made once."""
        if not self._places:
            self._places.update((_plain(path), position) for path, position in self.positions.items())
        return self._places


def read(path: str, *, overrides: Sequence[str] = (), text: str | None = None) -> Document:
    """The config at `path`, or in `text` when standard input has been read already (`path` is then "-").

    Each of `overrides` is `key=value`. Raises ConfigError whose findings say what is wrong and where.
    """
    documents = read_all(path, overrides=overrides, text=text)
    if len(documents) == 1:
        return documents[0]
    lines = ", ".join(f"{path}:{document.launch.line}" for document in documents if document.launch is not None)
    raise refusal("several-launches", f"{path} starts {len(documents)} programs; expected one of them, named by its line: {lines}.")


def read_all(path: str, *, overrides: Sequence[str] = (), text: str | None = None) -> tuple[Document, ...]:
    """The config as `read` gives it, or of a launch script one Document for each program that it starts.

    A single launch of several is named by its line, `train.sh:40`.
    """
    name, line = (path, None) if text is not None else kinds.named(path)
    kinds.refuse_foreign(name)
    content = source.text_of(name) if text is None else source.checked(text, "standard input")
    if kinds.is_script(name, content):
        from preflight import scripts

        return scripts.read(name, content, overrides, line)
    data, positions = reader(path, content)(content)
    if not isinstance(data, dict):
        raise data_lists.refused(data)
    return (replace(_document(path, data, positions, overrides), ignored=silence.comments(content)),)


def _document(path: str, data: dict[str, Any], positions: Mapping[Path, Position], settings: Sequence[str]) -> Document:
    overridden: frozenset[Path] = frozenset()
    waiting: list[str] = []
    for setting in settings:
        if _waits(path, data, setting):
            waiting.append(setting)
        else:
            overridden |= overrides.apply(data, [setting])
    kept = overrides.without(positions, overridden)
    data, interpolated = interpolation.resolve(data, kept)
    return Document(
        path=path,
        data=data,
        positions=kept,
        interpolated=interpolated,
        overridden=overridden,
        settings=tuple(settings),
        waiting=tuple(waiting),
    )


def _waits(path: str, data: Mapping[str, Any], setting: str) -> bool:
    """Whether `setting` is about what stands in a file that the config names: `dataset.x=1` where `dataset: data.toml`."""
    parts = overrides.parts(setting)
    named = data.get(parts[0]) if len(parts) > 1 else None
    return isinstance(named, str) and included.found(path, named) is not None


def reader(path: str, text: str, formats: Mapping[str, Callable[[str], Parsed]] = FORMATS) -> Callable[[str], Parsed]:
    """What reads a file of this name, or where the name does not end in a format, this text. Raises ConfigError."""
    ending = re.search(r"[^/\\.](\.[A-Za-z0-9_]+)$", path)
    if ending:
        known = formats.get(ending[1].lower())
        if known:
            return known
        expected = ", ".join(formats)
        raise refusal("unknown-format", f"{path} ends in {ending[1]}, which is not read; expected {expected}.")
    guesses = (module.read for module in (json_positions, toml_positions) if module.looks_like(text))
    return next(guesses, yaml_positions.read)


def _plain(key: str | Path) -> str:
    """`key` with a dot before each part, whichever way it was written."""
    return ".".join(map(str, key)) if isinstance(key, tuple) else key.replace("[", ".").replace("]", "")
