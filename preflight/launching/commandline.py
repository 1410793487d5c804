"""A program's words as flags and values, as argparse takes them apart without knowing the program."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from preflight.launching.launch import Unresolved
from preflight.launching.shell import Word
from preflight.position import Path, Position

NEGATIVE = re.compile(r"-(\d+|\d*\.\d+)([eE][-+]?\d+)?")  # argparse's own, and exponents, which it takes for flags


class Flags(NamedTuple):
    """`arguments` belong to no flag. A flag is True, its value, or a list where it has several; the last one of a name counts."""

    data: dict[str, Any]
    positions: dict[Path, Position]
    arguments: tuple[Word, ...]


def is_flag(word: str) -> bool:
    """Whether argparse would take `word` for a flag: it begins with a dash, is no number, and holds no blank before a "="."""
    known = word.parts[0] if isinstance(word, Unresolved) else word
    if isinstance(known, Unresolved) or not known.startswith("-") or known in ("-", "--") or NEGATIVE.fullmatch(known):
        return False
    return " " not in known.partition("=")[0]


def flags(words: Sequence[Word]) -> Flags:
    """The words after a program's name."""
    found = Flags({}, {}, ())
    arguments: list[Word] = []
    name, values = "", list[str]()

    def end() -> None:
        if name:
            found.data[name] = True if not values else values[0] if len(values) == 1 else list(values)

    for word in words:
        if is_flag(word.text):
            end()
            name, equals, value = _parted(word.text)
            values = [value] if equals else []
            found.data.pop(name, None)
            found.positions[name,] = word.place
            if equals:
                end()
                name = ""
        elif word.text == "--":
            end()
            name = ""
        elif name:
            values.append(word.text)
        else:
            arguments.append(word)
    end()
    return found._replace(arguments=tuple(arguments))


def _parted(word: str) -> tuple[str, bool, str]:
    """`--name=value` in two; what is not known of the value stays unknown."""
    if not isinstance(word, Unresolved):
        name, equals, value = word.partition("=")
        return name, bool(equals), value
    name, equals, value = word.parts[0].partition("=")
    rest = Unresolved.joining([value, *word.parts[1:]] if value else word.parts[1:])
    return (name, True, rest) if equals else (str(word), False, "")
