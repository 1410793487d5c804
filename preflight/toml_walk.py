"""One pass over TOML text: where its keys and values stand, and what would cost too much to read."""

from __future__ import annotations

import re
import sys
from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

from preflight.position import (
    MAX_DEPTH,
    MAX_DIGITS,
    MAX_VALUES,
    Path,
    Position,
    dotted,
    refusal,
    shorten,
    too_deep,
    too_many_values,
)

BLANK = re.compile(r"[ \t]*")
SPACE = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
# The three-quoted first: each begins with two of the others.
STRING = re.compile(
    r'"""[^"\\]*(?:(?:\\.|"(?!""))[^"\\]*)*"{3,5}'
    r"|'''[^']*(?:'(?!'')[^']*)*'{3,5}"
    r'|"[^"\\\n]*(?:\\[^\n][^"\\\n]*)*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)
BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
WORD = re.compile(r"[^\s,\[\]{}#=\"']+(?: [0-9][^\s,\[\]{}#=\"']*)?")  # a date may hold a space before its time


class Span(NamedTuple):
    """Offsets in the text: where a key begins (or an item itself), and where its value begins and ends."""

    key: int
    value: tuple[int, int]


class Table(NamedTuple):
    """A part of the text that one header opens: where the header begins and ends, and the pairs that stand below it."""

    path: Path
    header: tuple[int, int]
    pairs: list[Path]


class Layout(NamedTuple):
    """Where everything stands; the first of the tables is the top of the text, with an empty header."""

    spans: Mapping[Path, Span]
    tables: list[Table]


class _StoppedError(Exception):
    """The text cannot be followed any further; the parser says why."""


class Walk:
    """One pass over the text, from its beginning to its end or to what is no TOML."""

    def __init__(self, text: str) -> None:
        self.positions: dict[Path, Position] = {}
        self.spans: dict[Path, Span] = {}
        self.tables = [Table((), (0, 0), [])]
        self._text = text
        self._at = 0
        self._made = 0
        self._lists: dict[Path, int] = {}  # how many [[tables]] there are of a path
        self._headers: set[Path] = set()
        self._keys: list[tuple[Position, Path]] = []
        self._lines = [0, *(match.end() for match in re.finditer("\n", text))]

    def run(self) -> int | None:
        """Follows the text; answers where that ended before its end. Raises ConfigError for keys that are twice, and for limits."""
        try:
            while self._skip() < len(self._text):
                if self._text[self._at] == "[":
                    self._header()
                else:
                    self._pair(self.tables[-1].path, self.tables[-1].pairs)
                end = BLANK.match(self._text, self._at)
                self._at = end.end() if end else self._at
                if self._text[self._at : self._at + 1] not in ("", "#", "\n", "\r"):
                    return self._at
        except _StoppedError:
            return self._at
        return None

    def position(self, offset: int) -> Position:
        line = bisect_right(self._lines, offset)
        return Position(line, offset - self._lines[line - 1] + 1)

    @property
    def end(self) -> Position:
        return self.position(len(self._text))

    def key_on(self, place: Position) -> Path:
        """The last key that stands before `place` on its line."""
        before = [path for position, path in self._keys if position.line == place.line and position <= place]
        return before[-1] if before else ()

    def written(self, path: Path) -> str:
        """The value at `path` as it is spelled."""
        start, end = self.spans[path].value
        return self._text[start:end]

    def _skip(self) -> int:
        space = SPACE.match(self._text, self._at)
        self._at = space.end() if space else self._at
        return self._at

    def _blank(self) -> str:
        """The next character of the line, where the cursor then is; "" at the end."""
        space = BLANK.match(self._text, self._at)
        self._at = space.end() if space else self._at
        return self._text[self._at : self._at + 1]

    def _expect(self, mark: str) -> None:
        self._blank()
        if not self._text.startswith(mark, self._at):
            raise _StoppedError
        self._at += len(mark)

    def _names(self) -> Iterator[tuple[str, int]]:
        """The parts of a dotted key, each with its place."""
        while True:
            quote, start = self._blank(), self._at
            match = STRING.match(self._text, start) if quote in ("'", '"') else BARE_KEY.match(self._text, start)
            if not match or match[0].startswith(("'''", '"""')):
                raise _StoppedError
            self._at = match.end()
            yield _unquoted(match[0]), start
            if self._blank() != ".":
                return
            self._at += 1

    def _count(self, path: Path) -> None:
        self._made += 1
        if self._made > MAX_VALUES:
            raise too_many_values(self.position(self._at))
        if len(path) > MAX_DEPTH:
            raise too_deep(self.position(self._at))

    def _header(self) -> None:
        start = self._at
        several = self._text.startswith("[[", start)
        self._at += 2 if several else 1
        path: Path = ()
        names = []
        for name, place in self._names():
            path = self._named(name, self._latest(path), place)
            names.append((path, place))
        self._expect("]]" if several else "]")
        for at, place in names[:-1]:
            self.positions.setdefault(at, self.position(place))
        path, place = names[-1]
        if several:
            path = self._another(path, place)
        else:
            self._refuse_twice(path, place, self._headers)
            self._headers.add(path)
            self.positions.setdefault(path, self.position(place))
        self._keys.append((self.position(place), path))
        self.tables.append(Table(path, (start, self._at), []))

    def _another(self, path: Path, place: int) -> Path:
        """One more of the [[tables]] of `path`."""
        if path in self.positions and path not in self._lists:
            self._refuse_twice(path, place, (path,))
        self.positions.setdefault(path, self.position(place))
        index = self._lists.get(path, 0)
        self._lists[path] = index + 1
        self.positions[(*path, index)] = self.position(place)
        return (*path, index)

    def _latest(self, path: Path) -> Path:
        """`path`, or the last item of it where it is a list of tables."""
        return (*path, self._lists[path] - 1) if path in self._lists else path

    def _refuse_twice(self, path: Path, place: int, known: Collection[Path]) -> None:
        if path in self.spans or path in known:
            first = self.positions[path].line
            message = f"{dotted(path)} is set twice, first on line {first}; expected once."
            raise refusal("duplicate-key", message, self.position(place), path)

    def _named(self, name: str, above: Path, place: int) -> Path:
        if not name.strip():
            raise refusal("bad-key", "A key is empty; expected a name.", self.position(place), above)
        self._count((*above, name))
        return (*above, name)

    def _pair(self, above: Path, pairs: list[Path] | None = None) -> None:
        path, begin, last = above, self._at, self._at
        for name, place in self._names():
            if path != above:
                self.positions.setdefault(path, self.position(last))
            path, last = self._named(name, path, place), place
            self._keys.append((self.position(last), path))
        self._expect("=")
        self._refuse_twice(path, last, ())
        self.positions.setdefault(path, self.position(last))
        if pairs is not None:
            pairs.append(path)
        self._blank()
        self._spanned(path, begin)

    def _spanned(self, path: Path, key: int) -> None:
        start = self._at
        self.spans[path] = Span(key, (start, start))  # before those inside it
        self._value(path)
        self.spans[path] = Span(key, (start, self._at))

    def _value(self, path: Path) -> None:
        first = self._text[self._at : self._at + 1]
        if first in ("[", "{"):
            self._array(path) if first == "[" else self._group(path)
            return
        match = (STRING if first in ("'", '"') else WORD).match(self._text, self._at)
        if not match:
            raise _StoppedError
        if first not in ("'", '"') and len(match[0]) > MAX_DIGITS:
            message = f"{dotted(path)} is {shorten(repr(match[0]))}; expected a value of at most {MAX_DIGITS} digits."
            raise refusal("invalid-toml", message, self.position(self._at), path)
        self._at = match.end()

    def _array(self, path: Path) -> None:
        for index in self._members("]"):
            self._count((*path, index))
            self.positions[(*path, index)] = self.position(self._at)
            self._spanned((*path, index), self._at)

    def _group(self, path: Path) -> None:
        for _ in self._members("}"):
            self._pair(path)

    def _members(self, close: str) -> Iterator[int]:
        """Counts the members up to `close`; the caller reads one each time, with the cursor at it."""
        self._at += 1
        index = 0
        while self._text[self._skip() : self._at + 1] != close:
            yield index
            index += 1
            following = self._text[self._skip() : self._at + 1]
            if following == ",":
                self._at += 1
            elif following != close:
                raise _StoppedError
        self._at += 1


def _unquoted(word: str) -> str:
    """A key's part as the parser reads it."""
    if word[0] not in ("'", '"'):
        return word
    if word[0] == "'" or "\\" not in word:
        return word[1:-1]
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return str(tomllib.loads(f"key = {word}")["key"])
    except tomllib.TOMLDecodeError:
        raise _StoppedError from None
