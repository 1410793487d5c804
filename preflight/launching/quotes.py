"""What `$'…'` and `{1..3}` stand for."""

from __future__ import annotations

import re

from preflight.launching.limits import MAX_TURNS

ESCAPES = {"a": "\a", "b": "\b", "e": "\x1b", "E": "\x1b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
ANSI = re.compile(r"\\(x[0-9a-fA-F]{1,2}|u[0-9a-fA-F]{1,4}|[0-7]{1,3}|.)", re.DOTALL)
RANGE = re.compile(r"\{(-?[0-9]{1,6})\.\.(-?[0-9]{1,6})(?:\.\.(-?[0-9]{1,6}))?\}")


def ansi(text: str) -> str:
    """What stands between the quotes of `$'…'`."""

    def character(match: re.Match[str]) -> str:
        code = match[1]
        if code[0] in "xu" and len(code) > 1:
            return chr(int(code[1:], 16))
        if code[0] in "01234567":
            return chr(int(code, 8) % 256)
        return ESCAPES.get(code, code if code in "\\'\"?" else f"\\{code}")

    return ANSI.sub(character, text)


def braces(spelled: str) -> list[str]:
    """The numbers of `{1..3}`; the text itself where there are too many, or none."""
    match = RANGE.fullmatch(spelled)
    if match is None:
        return [spelled]
    first, last, step = int(match[1]), int(match[2]), abs(int(match[3] or 1)) or 1
    numbers = range(first, last + 1, step) if first <= last else range(first, last - 1, -step)
    return [str(number) for number in numbers] if len(numbers) <= MAX_TURNS else [spelled]
