"""JSON text to plain data with the place of every key.

Read as training tools read it: `//` and `/* */` comments and a trailing comma are accepted (SR3's configs have
them), as are NaN and Infinity (Python's own dialect), which no schema takes for a number later.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from preflight.finding import ConfigError
from preflight.position import (
    MAX_DEPTH,
    MAX_DIGITS,
    MAX_VALUES,
    Parsed,
    Path,
    Position,
    dotted,
    refusal,
    shorten,
    too_deep,
    too_many_values,
)

SPACE = re.compile(r"(?:[ \t\n\r]+|//[^\n]*|/\*.*?\*/)*", re.DOTALL)
STRING = re.compile(r'"[^"\\\x00-\x1f]*(?:\\.[^"\\\x00-\x1f]*)*"')
WORD = re.compile(r"[-+.\w]+")
NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
CONSTANTS = {
    "true": True,
    "false": False,
    "null": None,
    "NaN": float("nan"),
    "Infinity": float("inf"),
    "-Infinity": float("-inf"),
}


def looks_like(text: str) -> bool:
    """Whether `text` begins as JSON does; `{a: 1}` begins as YAML in braces does."""
    return bool(re.compile(r'\{\s*["}/]').match(text, _Scanner(text).skip()))


def read(text: str) -> Parsed:
    """The value in `text`.

    Raises ConfigError: not JSON, nothing in it, a key twice, or more than the limits of `position` allow.
    """
    scanner = _Scanner(text)
    if scanner.peek() == "":
        raise refusal("empty-config", "The config is empty.")
    data = scanner.value((), 0)
    if scanner.peek() != "":
        raise scanner.broken("text follows the end of the config")
    return Parsed(data, scanner.positions)


def read_lines(text: str) -> Parsed:
    """The list of the values in `text`, one a line; raises ConfigError as `read` does."""
    scanner = _Scanner(text)
    items: list[Any] = []
    while scanner.peek() != "":
        items.append(scanner.row(len(items)))
    if not items:
        raise refusal("empty-config", "The config is empty.")
    return Parsed(items, scanner.positions)


class Span(NamedTuple):
    """Offsets in the text: where a member begins (its key, or an item itself), and where its value begins and ends."""

    key: int
    value: tuple[int, int]


def spans(text: str) -> Mapping[Path, Span]:
    """Where each value of `text` stands, the top level at the empty path; raises ConfigError as `read` does."""
    scanner = _Scanner(text)
    start = scanner.skip()
    scanner.value((), 0)
    return {(): Span(start, (start, scanner.offset)), **scanner.spans}


class _Scanner:
    """A cursor over the text; every method leaves it behind what it read."""

    def __init__(self, text: str) -> None:
        self.positions: dict[Path, Position] = {}
        self.spans: dict[Path, Span] = {}
        self._text = text
        self._at = 0
        self._made = 0
        self._lines = [0, *(match.end() for match in re.finditer("\n", text))]

    @property
    def offset(self) -> int:
        return self._at

    def skip(self) -> int:
        """The offset of the next character that is neither space nor comment, where the cursor then is."""
        space = SPACE.match(self._text, self._at)
        self._at = space.end() if space else self._at
        return self._at

    def peek(self) -> str:
        """The character at `skip`; "" at the end."""
        return self._text[self.skip() : self._at + 1]

    def value(self, path: Path, depth: int) -> Any:
        self._made += 1
        if self._made > MAX_VALUES:
            raise too_many_values(self._position())
        if depth > MAX_DEPTH:
            raise too_deep(self._position())
        first = self.peek()
        if first == "{":
            return self._object(path, depth)
        if first == "[":
            return self._array(path, depth)
        return self._string() if first == '"' else self._word(path)

    def row(self, index: int) -> Any:
        """The value that is the item `index`, and alone on its line."""
        self.positions[(index,)] = start = self._position()
        item = self.value((index,), 1)
        if self.peek() != "" and self._position().line == start.line:
            raise self.broken("a second value on the line")
        return item

    def broken(self, problem: str, position: Position | None = None) -> ConfigError:
        return refusal("invalid-json", f"This is not valid JSON: {problem}.", position or self._position())

    def _position(self) -> Position:
        line = bisect_right(self._lines, self._at)
        return Position(line, self._at - self._lines[line - 1] + 1)

    def _object(self, path: Path, depth: int) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for _ in self._members("}"):
            if self.peek() != '"':
                raise self.broken("expected a key in double quotes")
            position, begin = self._position(), self._at
            key = self._string()
            at = (*path, key)
            if not key.strip():
                raise refusal("bad-key", "A key is empty; expected a name.", position, path)
            if key in data:
                first = self.positions[at].line
                raise refusal("duplicate-key", f"{dotted(at)} is set twice, first on line {first}; expected once.", position, at)
            self.positions[at] = position
            if self.peek() != ":":
                raise self.broken("expected ':' after the key")
            self._at += 1
            data[key] = self._spanned(at, begin, depth + 1)
        return data

    def _array(self, path: Path, depth: int) -> list[Any]:
        items: list[Any] = []
        for index in self._members("]"):
            at = (*path, index)
            self.positions[at] = self._position()
            items.append(self._spanned(at, self._at, depth + 1))
        return items

    def _spanned(self, path: Path, key: int, depth: int) -> Any:
        start = self.skip()
        self.spans[path] = Span(key, (start, start))  # before those inside it
        found = self.value(path, depth)
        self.spans[path] = Span(key, (start, self._at))
        return found

    def _members(self, close: str) -> Iterator[int]:
        """Counts the members up to `close`; the caller reads one each time, with the cursor before it."""
        self._at += 1
        index = 0
        while self.peek() != close:
            yield index
            index += 1
            if self.peek() == ",":
                self._at += 1
            elif self.peek() != close:
                raise self.broken(f"expected ',' or '{close}'")
        self._at += 1

    def _string(self) -> str:
        match = STRING.match(self._text, self._at)
        if not match:
            raise self.broken("a text that is not closed with '\"' on its line")
        try:
            text = str(json.loads(match[0]))
            text.encode()  # half of a surrogate pair can be escaped but never written
        except ValueError:
            raise self.broken("a text with an escape that means no character") from None
        self._at = match.end()
        return text

    def _word(self, path: Path) -> Any:
        match = WORD.match(self._text, self._at)
        word = match[0] if match else self._text[self._at : self._at + 1]
        if word in CONSTANTS:
            self._at += len(word)
            return CONSTANTS[word]
        number = NUMBER.fullmatch(word)
        if not number:
            raise self.broken(f"expected a value, found {shorten(word)!r}" if word else "it ends before a value")
        if len(word) > MAX_DIGITS:
            raise refusal("invalid-json", f"{dotted(path)} has more than {MAX_DIGITS} digits.", self._position(), path)
        self._at += len(word)
        return float(word) if number[1] or number[2] else int(word)
