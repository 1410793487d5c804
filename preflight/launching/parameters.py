"""`${name…}`: what is asked of a variable, and the answer."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from fnmatch import translate
from typing import NamedTuple

from preflight.launching.launch import Unresolved
from preflight.launching.shell import Shell, Value, Word
from preflight.position import Position

DEFAULTS = frozenset({"-", ":-", "=", ":=", "+", ":+", "?", ":?"})
ASKED = re.compile(
    r"""\$(?:
      (?P<plain>[A-Za-z_]\w*|[0-9@*\#?$!_-])
      |\{(?P<sign>[!\#]?)(?P<name>[A-Za-z_]\w*|[0-9]+|[@*\#?$!-])(?:\[(?P<item>[^\]]*)\])?
         (?:(?P<operator>:[-=?+]|[-=?+]|\#\#?|%%?|//?|\^\^?|,,?|:|@)(?P<rest>.*))?\}
    )""",
    re.VERBOSE | re.DOTALL,
)
CASES: Mapping[str, Callable[[str], str]] = {
    "^^": str.upper,
    ",,": str.lower,
    "^": lambda text: text[:1].upper() + text[1:],
    ",": lambda text: text[:1].lower() + text[1:],
}


class Asked(NamedTuple):
    """`item` is what stands in brackets after the name, `sign` the # of a length or the ! of a name in a variable."""

    name: str
    sign: str = ""
    item: str | None = None
    operator: str = ""
    rest: str = ""

    @property
    def star(self) -> bool:
        return "*" in (self.name, self.item)


def parsed(spelled: str) -> Asked | None:
    """What `spelled` asks; None for what is not read."""
    match = ASKED.fullmatch(spelled)
    if match is None:
        return None
    if match["plain"]:
        return Asked(match["plain"])
    return Asked(match["name"], match["sign"], match["item"], match["operator"] or "", match["rest"] or "")


def look_up(shell: Shell, asked: Asked, place: Position) -> Value | None:
    """The value before its operator, None when it is not set."""
    name = asked.name
    if asked.sign == "!" and asked.item is not None:
        return Unresolved(f"${{!{name}[{asked.item}]}}", name, "command")
    if asked.sign == "!":
        pointed = shell.get(name)
        if not isinstance(pointed, str) or isinstance(pointed, Unresolved):
            return Unresolved(f"${{!{name}}}", name, pointed.reason if isinstance(pointed, Unresolved) else "unset")
        name = pointed
    value = _item(shell, name, asked.item, place)
    if asked.sign == "#" and value is not None and not isinstance(value, Unresolved):
        return str(len(value))
    return value


def _item(shell: Shell, name: str, item: str | None, place: Position) -> Value | None:
    value = shell.get(name)
    if value is None and item in ("@", "*"):
        return ()  # an array is never in the environment
    if name in ("@", "*") or value is None or isinstance(value, Unresolved):
        return value
    if item in ("@", "*"):
        return value if isinstance(value, tuple) else (Word(value, place),)
    if not isinstance(value, tuple):
        return value if item in (None, "0") else None
    if item is not None and not re.fullmatch(r"-?[0-9]{1,6}", item):
        known = shell.get(item.strip("${}"))
        item = known if isinstance(known, str) and re.fullmatch(r"-?[0-9]{1,6}", known) else None
        if item is None:
            return Unresolved(f"${{{name}[…]}}", name, "command")
    number = int(item or 0)
    return value[number].text if -len(value) <= number < len(value) else None


def changed(value: Value, asked: Asked, pattern: str, spelled: str) -> Value:
    """`value` after its operator, each item of an array on its own but for a slice."""
    if isinstance(value, tuple):
        if asked.operator == ":":
            bounds = _bounds(pattern, len(value))
            return Unresolved(spelled, asked.name, "command") if bounds is None else value[slice(*bounds)]
        return tuple(Word(_changed(word.text, asked.operator, pattern, spelled), word.place) for word in value)
    return _changed(value, asked.operator, pattern, spelled)


def _changed(text: str, operator: str, pattern: str, spelled: str) -> str:
    for part in (text, pattern):
        if isinstance(part, Unresolved):
            return Unresolved(spelled, part.variable, part.reason)
    if operator in CASES and not pattern:
        return CASES[operator](text)
    if operator in ("#", "##", "%", "%%"):
        return _trimmed(text, operator, pattern)
    if operator in ("/", "//") and not set("*?[\\") & set(pattern.partition("/")[0]):
        return _replaced(text, operator, pattern)
    if operator == ":":
        bounds = _bounds(pattern, len(text))
        if bounds is not None:
            return text[slice(*bounds)]
    return Unresolved(spelled, spelled, "command")


def _trimmed(text: str, operator: str, pattern: str) -> str:
    """The shortest (doubled: longest) match of the pattern taken off the beginning (#) or the end (%)."""
    match = re.compile(translate(pattern)).match
    ends = range(len(text) + 1)
    for end in reversed(ends) if len(operator) == 2 else ends:
        if operator[0] == "#" and match(text[:end]):
            return text[end:]
        if operator[0] == "%" and match(text[len(text) - end :]):
            return text[: len(text) - end]
    return text


def _replaced(text: str, operator: str, pattern: str) -> str:
    """The first match of a text, or every one (//); after # or % only one at the beginning or the end."""
    old, _, new = pattern.partition("/")
    if old[:1] == "#":
        return new + text.removeprefix(old[1:]) if text.startswith(old[1:]) else text
    if old[:1] == "%":
        return text.removesuffix(old[1:]) + new if text.endswith(old[1:]) else text
    return text.replace(old, new, -1 if operator == "//" else 1) if old else text


def _bounds(pattern: str, length: int) -> tuple[int, int] | None:
    match = re.fullmatch(r"\s*(-?[0-9]{1,6})\s*(?::\s*(-?[0-9]{1,6})\s*)?", pattern)
    if match is None:
        return None
    first = int(match[1])
    first = max(0, length + first) if first < 0 else min(first, length)
    if match[2] is None:
        return first, length
    count = int(match[2])
    return first, max(first, length + count if count < 0 else min(length, first + count))
