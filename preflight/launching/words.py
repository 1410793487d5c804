"""Words of a command expanded as bash does: quotes, variables, their defaults and arrays, arithmetic, and splitting at blanks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from preflight.launching import arithmetic, parameters
from preflight.launching.grammar import Source, adjoining
from preflight.launching.launch import Unresolved
from preflight.launching.limits import MAX_DEPTH, MAX_WORD, MAX_WORDS
from preflight.launching.quotes import braces
from preflight.launching.scan import Token, tokens
from preflight.launching.shell import Shell, Value, Word
from preflight.launching.substitution import output
from preflight.position import Position, refusal, too_deep

if TYPE_CHECKING:
    from tree_sitter import Node

BLANK = re.compile(r"[ \t\n]+")


class Piece(NamedTuple):
    """A stretch of a word: text that stays whole, or bare text that blanks split; the boundary between two words; or nothing."""

    text: str = ""
    kind: Literal["whole", "bare", "boundary", "nothing"] = "whole"
    place: Position | None = None


class Expansion:
    """Expands words of a shell's source. With `lenient` a variable that the script does not set is empty, as an unset one is."""

    def __init__(self, shell: Shell, *, lenient: bool = False) -> None:
        self.shell, self.lenient = shell, lenient

    @property
    def source(self) -> Source:
        return self.shell.source

    def words(self, nodes: Iterable[Node]) -> list[Word]:
        """The words that the nodes come to, none, one or several for each; nodes without a blank between them are one word."""
        answer: list[Word] = []
        for first, end in adjoining(nodes):
            place = self.source.place(first)
            answer += self.split(self.source.slice(first.start_byte, end), place)
            if len(answer) > MAX_WORDS:
                raise refusal("too-large", f"A command expands to more than {MAX_WORDS:,} words.", place)
        return answer

    def split(self, text: str, place: Position) -> Iterator[Word]:
        """The words that one of the script, spelled `text`, comes to."""
        for spelled in braces(text):
            yield from _split(self.pieces(spelled, place), place)

    def text(self, node: Node | None) -> str:
        """The node as one text, as in a condition, where nothing is split."""
        return "" if node is None else self.whole(self.source.spelled(node), self.source.place(node))

    def whole(self, text: str, place: Position) -> str:
        """`text`, spelled as a word, as one text."""
        return _text(self.pieces(text, place), place)

    def array(self, node: Node) -> tuple[Word, ...]:
        """The items of `(…)`."""
        return tuple(self.words(child for child in node.named_children if child.type != "comment"))

    def document(self, node: Node, *, literal: bool) -> str:
        """The body of a here-document, variables filled in unless it is to be taken as it is."""
        spelled, place = self.source.spelled(node), self.source.place(node)
        return spelled if literal else _text(self.pieces(spelled, place, "quoted"), place)

    def pieces(self, text: str, place: Position, quoting: str = "none") -> Iterator[Piece]:
        """The stretches of `text`, which stands between double quotes ("quoted"), in a variable's default ("default"), or alone."""
        reading = self.shell.reading
        if reading.depth > MAX_DEPTH:
            raise too_deep(place)
        reading.depth += 1
        for token in tokens(text, quoted=quoting == "quoted"):
            yield from self._token(token, place, quoting)
        reading.depth -= 1

    def _token(self, token: Token, place: Position, quoting: str) -> Iterator[Piece]:
        kind, text = token
        if kind == "text":
            yield Piece(text, "bare" if quoting == "default" else "whole")
        elif kind == "quoted":
            yield Piece(text)
        elif kind == "group":
            inside = list(self.pieces(text, place, "quoted"))
            if not inside or any(piece.kind != "nothing" for piece in inside):
                yield Piece()
            yield from inside
        elif kind == "parameter":
            yield from self._parameter(text, place, quoting)
        elif kind == "command":
            yield from self._value(output(self, text, place), quoting)
        elif kind == "arithmetic":
            yield Piece(self._arithmetic(text, place))
        else:
            yield Piece(Unresolved(text, text, "command"))

    def _arithmetic(self, spelled: str, place: Position) -> str:
        inside = spelled[3:-2] if spelled.startswith("$((") else spelled[2:-1]
        expression = _text(self.pieces(inside, place, "quoted"), place)
        number = None if isinstance(expression, Unresolved) else arithmetic.value(expression, self._number)
        return str(number) if number is not None else self._open(spelled, expression)

    def _number(self, name: str) -> str | None:
        value = self.shell.get(name)
        if value is None:
            return "" if self.lenient else None
        return None if isinstance(value, Unresolved | tuple) else value

    def _open(self, spelled: str, expression: str) -> Unresolved:
        """Why `spelled` has no value: the first name in it that has none."""
        if isinstance(expression, Unresolved):
            return Unresolved(spelled, expression.variable, expression.reason)
        for name in re.findall(r"[A-Za-z_]\w*", expression):
            value = self.shell.get(name)
            if value is None:
                return Unresolved(spelled, name)
            if isinstance(value, Unresolved):
                return Unresolved(spelled, value.variable, value.reason)
        return Unresolved(spelled, spelled, "command")

    def _parameter(self, spelled: str, place: Position, quoting: str) -> Iterator[Piece]:
        asked = parameters.parsed(spelled)
        if asked is None:
            yield Piece(Unresolved(spelled, spelled, "command"))
            return
        found = parameters.look_up(self.shell, asked, place)
        if asked.operator in parameters.DEFAULTS:
            instead = "quoted" if quoting == "quoted" else "default"
            empty = found is None or (asked.operator[0] == ":" and found in ("", ()))
            if asked.operator[-1] == "+":
                yield from [] if empty else self.pieces(asked.rest, place, instead)
                return
            if empty and asked.operator[-1] != "?":
                pieces = list(self.pieces(asked.rest, place, instead))
                if asked.operator[-1] == "=":
                    self.shell.put(asked.name, _text(pieces, place))
                yield from pieces
                return
        elif found is not None and asked.operator:
            found = parameters.changed(found, asked, _text(self.pieces(asked.rest, place), place), spelled)
        if found is not None:
            yield from self._value(found, quoting, star=asked.star)
        elif not self.lenient:
            yield from self._value(Unresolved(spelled, asked.name), quoting)
        elif quoting == "quoted":
            yield Piece()

    def _value(self, value: Value, quoting: str, *, star: bool = False) -> Iterator[Piece]:
        kind: Literal["whole", "bare"] = "whole" if quoting == "quoted" else "bare"
        if not isinstance(value, tuple):
            yield Piece(value, kind)
        elif star and kind == "whole":
            yield Piece(Unresolved.joining([part for word in value for part in (" ", word.text)][1:]))
        elif not value:
            yield Piece(kind="nothing")
        else:
            for number, word in enumerate(value):
                yield from ([Piece(kind="boundary")] if number else [])
                yield Piece(word.text, kind, word.place)


def _split(pieces: Iterable[Piece], place: Position) -> Iterator[Word]:
    parts: list[str] = []
    at, begun = place, False
    for text, kind, own in _stretches(pieces):
        if kind == "boundary":
            if begun:
                yield Word(_bounded(parts, at), at)
            parts, at, begun = [], place, False
        else:
            at = own if own is not None and not any(parts) else at
            parts.append(text)
            begun = True
    if begun:
        yield Word(_bounded(parts, at), at)


def _stretches(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """The pieces with a boundary at each blank of the bare ones."""
    for piece in pieces:
        if piece.kind == "nothing":
            continue
        if piece.kind != "bare":
            yield piece
            continue
        for stretch in piece.text.parts if isinstance(piece.text, Unresolved) else (piece.text,):
            known = not isinstance(stretch, Unresolved)
            for number, token in enumerate(BLANK.split(stretch) if known else [stretch]):
                if number:
                    yield Piece(kind="boundary")
                if token:
                    yield Piece(token, place=piece.place)


def _text(pieces: Iterable[Piece], place: Position) -> str:
    return _bounded([" " if piece.kind == "boundary" else piece.text for piece in pieces], place)


def _bounded(parts: Sequence[str], place: Position) -> str:
    if sum(map(len, parts)) > MAX_WORD:
        raise refusal("too-large", f"A word expands to more than {MAX_WORD:,} characters.", place)
    return Unresolved.joining(parts)
