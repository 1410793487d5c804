"""A shell script as a syntax tree: tree-sitter's grammar of bash, which reads broken text, too, and says where it is broken."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

from preflight.launching.limits import MAX_PIPES, MAX_RECOVERY, MAX_SECONDS, MAX_TEXT
from preflight.position import Position, refusal

if TYPE_CHECKING:
    from tree_sitter import Node, Parser

CHUNK = 2**16
#: A comment between continued lines, written as a command that does nothing.
COMMENT_COMMAND = re.compile(r"`[ \t]*#[^`\n]*`")


def cleaned(text: str) -> str:
    """`text` as the grammar takes it, every character in its place: Unix line ends, and none continued into nothing."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = COMMENT_COMMAND.sub(lambda match: " " * len(match[0]), text)
    return text + "\n" * (2 if text.endswith(("\\\n", "\\")) else 1)


def parse(source: bytes) -> Node:
    """The root of the tree. Raises ConfigError for a text that no script is as long as, or in which no shell can be found."""
    if len(source) > MAX_TEXT or source.count(b"|") > MAX_PIPES:
        raise refusal("too-large", f"The script is longer than {MAX_TEXT // 1024} KiB, or has more than {MAX_PIPES:,} pipes.")
    past: list[int] = []

    def lost(offset: int, has_error: bool) -> bool:  # the parser's own signature
        past.extend([offset] * has_error)
        return len(past) > MAX_RECOVERY or time.thread_time() - begun > MAX_SECONDS

    parser, begun = _parser(), time.thread_time()
    try:
        return parser.parse(lambda at, _: source[at : at + CHUNK], progress_callback=lost).root_node
    except ValueError:  # it was told to give up
        parser.reset()
        line = source[: past[0]].count(b"\n") + 1 if past else 1
        message = f"Line {line}, or one just above it, cannot be read as shell, nor can what follows."
        raise refusal("invalid-shell", message, Position(line, 1)) from None


@cache
def _parser() -> Parser:
    import tree_sitter
    import tree_sitter_bash

    return tree_sitter.Parser(tree_sitter.Language(tree_sitter_bash.language()))


def broken(root: Node) -> Node | None:
    """The first node that is no shell, or that lacks something; None when all is well."""
    if not root.has_error:
        return None
    left = [root]
    while left:
        node = left.pop()
        if node.is_error or node.is_missing:
            return node
        left += [child for child in reversed(node.children) if child.has_error]
    return None


def adjoining(nodes: Iterable[Node]) -> Iterator[tuple[Node, int]]:
    """The first node and the end of each run of nodes that no blank divides: the grammar takes `$A/$B.sh` for two words."""
    first: Node | None = None
    end = 0
    for node in nodes:
        if first is None or node.start_byte > end:
            if first is not None:
                yield first, end
            first = node
        end = max(end, node.end_byte)
    if first is not None:
        yield first, end


class Source:
    """A script's text and tree, and where its bytes stand for a person.

    `path` is how it was named; `file` the same where it is not the script that was asked for. A text inside another begins at
    `start`.
    """

    def __init__(self, text: str, path: str, file: str | None = None, start: Position | None = None) -> None:
        self.text, self.path, self.file, self.start = text, path, file, start
        self.bytes = cleaned(text).encode("utf-8", "replace")
        self.root: Node = parse(self.bytes)
        self._counted = (-1, 0, 0)  # a line's first byte, a byte in it, and the characters between them

    def spelled(self, node: Node) -> str:
        return self.slice(node.start_byte, node.end_byte)

    def slice(self, first: int, end: int) -> str:
        return self.bytes[first:end].decode("utf-8", "replace")

    def place(self, node: Any) -> Position:
        """Line and column, counted from 1 in characters."""
        row, column = node.start_point
        characters = self._characters(node.start_byte - column, node.start_byte)
        if self.start is None:
            return Position(row + 1, characters + 1, self.file)
        return Position(self.start.line + row, characters + 1 if row else self.start.column + characters, self.file)

    def _characters(self, first: int, byte: int) -> int:
        """How many stand between the line's `first` byte and another; nodes are mostly asked for in order."""
        line, at, count = self._counted
        if line != first or byte < at:
            at, count = first, 0
        count += len(self.slice(at, byte))
        self._counted = (first, byte, count)
        return count
