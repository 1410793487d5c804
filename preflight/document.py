"""A config file as data: what it says, and where each key stands in it."""

from __future__ import annotations

import codecs
import errno
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from preflight import interpolation, json_positions, overrides, silence, yaml_positions
from preflight.finding import ConfigError, Finding, Severity
from preflight.position import MAX_BYTES, Parsed, Path, Position, dotted, refusal

__all__ = ["Document", "Position", "read"]

# How a file's name ends -> what reads it. A name without an ending (standard input, /dev/fd/63) is read by content.
FORMATS: Mapping[str, Callable[[str], Parsed]] = {
    ".yaml": yaml_positions.read,
    ".yml": yaml_positions.read,
    ".json": json_positions.read,
    ".jsonc": json_positions.read,
}

# The longer mark first: UTF-32's begins with UTF-16's.
BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

# YAML 1.2 §5.1; JSON allows no more. Written out, as a pattern of the allowed ones is slow to search with.
UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]")

TROUBLE = {
    errno.ENOENT: ("missing-file", "{path} does not exist; expected a config file."),
    errno.ENOTDIR: ("missing-file", "{path} does not exist; expected a config file."),
    errno.EISDIR: ("not-a-file", "{path} is a directory; expected a config file."),
    errno.EACCES: ("unreadable-file", "{path} cannot be read: permission denied."),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """A config's data, interpolations resolved, and the place of every key and list item that the file spells.

    `overridden` are the paths set from the command line, which have no place; `interpolated` those that held `${…}`.
    `ignored` are the ids of findings that comments silence, by line (`preflight.silence`).
    """

    path: str
    data: dict[str, Any]
    positions: Mapping[Path, Position]
    interpolated: frozenset[Path] = frozenset()
    overridden: frozenset[Path] = frozenset()
    ignored: Mapping[int, frozenset[str]] = field(default_factory=dict)

    def position(self, key: str | Path) -> Position | None:
        """Where `key` stands ("datasets[0].size", "datasets.0.size" or a tuple), or None when the file has no such."""
        return self.positions.get(key) if isinstance(key, tuple) else self._places().get(_plain(key))

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
        line, column = self._nearest(name) if name else (None, None)
        return Finding(id=id, severity=severity, message=message, key=name, line=line, column=column, fix=fix)

    def _nearest(self, name: str) -> Position | tuple[None, None]:
        places = self._places()
        plain = _plain(name)
        while plain and plain not in places:
            plain = plain.rpartition(".")[0]
        return places.get(plain, (None, None))

    def _places(self) -> dict[str, Position]:
        return {_plain(path): position for path, position in self.positions.items()}


def read(path: str, *, overrides: Sequence[str] = (), text: str | None = None) -> Document:
    """The config at `path`, or in `text` when standard input has been read already (`path` is then "-").

    Each of `overrides` is `key=value`. Raises ConfigError whose findings say what is wrong and where.
    """
    source = _decoded(_content(path), path) if text is None else _checked(text, "standard input")
    data, positions = reader(path, source)(source)
    return replace(_document(path, data, positions, overrides), ignored=silence.comments(source))


def _document(path: str, data: dict[str, Any], positions: Mapping[Path, Position], settings: Sequence[str]) -> Document:
    overridden = overrides.apply(data, settings)
    covered = set(overridden)
    kept = {at: place for at, place in positions.items() if not any(at[:n] in covered for n in range(1, len(at) + 1))}
    data, interpolated = interpolation.resolve(data, kept)
    return Document(path=path, data=data, positions=kept, interpolated=interpolated, overridden=overridden)


def reader(path: str, text: str) -> Callable[[str], Parsed]:
    """What reads a file of this name, or where the name does not end in a format, this text. Raises ConfigError."""
    ending = re.search(r"[^/\\.](\.[A-Za-z0-9_]+)$", path)
    if ending:
        known = FORMATS.get(ending[1].lower())
        if known:
            return known
        expected = ", ".join(FORMATS)
        raise refusal("unknown-format", f"{path} ends in {ending[1]}, which is not read; expected {expected}.")
    return json_positions.read if json_positions.looks_like(text) else yaml_positions.read


def _content(path: str) -> bytes:
    try:
        with open(path, "rb") as file:  # noqa: PTH123  # a path object would normalise the user's spelling
            content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        number = error.errno if isinstance(error, OSError) else None
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        id_, words = TROUBLE.get(number or 0, ("unreadable-file", "{path} cannot be read: {reason}."))
        raise refusal(id_, words.format(path=path, reason=reason)) from None
    return content


def _decoded(content: bytes, path: str) -> str:
    if len(content) > MAX_BYTES:
        raise _too_large(path)
    encoding = next((name for mark, name in BYTE_ORDER_MARKS if content.startswith(mark)), "utf-8")
    if encoding.startswith("utf-8") and b"\0" in content:
        raise refusal("binary-file", f"{path} is a binary file; expected text.")
    try:
        return _checked(content.decode(encoding), path)
    except UnicodeDecodeError as error:
        before = content[: error.start]
        place = Position(before.count(b"\n") + 1, error.start - (before.rfind(b"\n") + 1) + 1)
        at = place if encoding.startswith("utf-8") else None
        raise refusal("binary-file", f"{path} is not {encoding[:6].upper()} text; expected UTF-8.", at) from None


def _checked(text: str, path: str) -> str:
    if len(text) > MAX_BYTES:
        raise _too_large(path)
    text = text.removeprefix("\ufeff")
    bad = UNPRINTABLE.search(text)
    if not bad:
        return text
    before = text[: bad.start()]
    place = Position(before.count("\n") + 1, bad.start() - (before.rfind("\n") + 1) + 1)
    raise refusal("binary-file", f"{path} holds the control character U+{ord(bad[0]):04X}; expected text.", place)


def _too_large(path: str) -> ConfigError:
    return refusal("too-large", f"{path} is larger than {MAX_BYTES // 2**20} MiB; expected a config of a few KiB.")


def _plain(key: str | Path) -> str:
    """`key` with a dot before each part, whichever way it was written."""
    return ".".join(map(str, key)) if isinstance(key, tuple) else key.replace("[", ".").replace("]", "")
