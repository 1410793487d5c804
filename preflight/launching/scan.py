"""A word's text taken apart: quotes, and the expressions that begin with a dollar or a backtick."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple, TypeAlias

from preflight.launching.quotes import ansi

Kind: TypeAlias = Literal["text", "quoted", "group", "parameter", "command", "arithmetic", "process"]
NAME = re.compile(r"\$([A-Za-z_]\w*|[0-9@*#?$!_-])")
CLOSING = {"(": ")", "{": "}", "[": "]"}
PLAIN = re.compile(r"""[^\\'"$`<>]+""")
PLAIN_QUOTED = re.compile(r"[^\\$`]+")


class Token(NamedTuple):
    """`text` as it is meant for text and quotes; the inside of a "group", which is in double quotes; else the whole expression."""

    kind: Kind
    text: str


def tokens(text: str, *, quoted: bool = False) -> Iterator[Token]:
    """The tokens of a word, or with `quoted` of what stands between double quotes."""
    at, end = 0, len(text)
    plain = PLAIN_QUOTED if quoted else PLAIN
    while at < end:
        character, following = text[at], text[at + 1 : at + 2]
        if match := plain.match(text, at):
            yield Token("text", match[0])
            at = match.end()
        elif character == "\\":
            kept = "\\" if quoted and following not in ("$", "`", '"', "\\", "\n") else ""
            if following != "\n":
                yield Token("quoted", kept + following)
            at += 2
        elif character in "$`":
            token, at = _dollar(text, at, quoted=quoted)
            yield token
        elif character in "'\"":
            close = past(text, at)
            yield Token("quoted" if character == "'" else "group", text[at + 1 : close - 1])
            at = close
        elif character in "<>" and following == "(":
            close = past(text, at + 1)
            yield Token("process", text[at:close])
            at = close
        else:
            yield Token("text", character)
            at += 1


def _dollar(text: str, at: int, *, quoted: bool) -> tuple[Token, int]:
    following = text[at + 1 : at + 2]
    if text[at] == "`":
        close = past(text, at)
        return Token("command", text[at:close]), close
    if following in ("(", "{", "["):
        close = past(text, at + 1)
        whole = text[at:close]
        sums = (whole.startswith("$((") and whole.endswith("))")) or following == "["
        return Token("arithmetic" if sums else "command" if following == "(" else "parameter", whole), close
    if following in ("'", '"') and not quoted:
        close = past(text, at + 1)
        inside = text[at + 2 : close - 1]
        return (Token("quoted", ansi(inside)) if following == "'" else Token("group", inside)), close
    if match := NAME.match(text, at):
        return Token("parameter", match[0]), match.end()
    return Token("text", "$"), at + 1


def past(text: str, at: int) -> int:
    """The place after what is opened at `at`, by a quote, a backtick or a bracket; the text's end where it is never closed."""
    stack: list[str] = []
    number, end = at, len(text)
    while number < end:
        character = text[number]
        inner = stack[-1] if stack else ""
        if character == "\\" and inner != "'":
            number += 1
        elif inner == "'":
            if character == "'":
                stack.pop()
        elif character == inner:
            stack.pop()
        elif character == "$" and text[number + 1 : number + 2] in CLOSING and inner != "`":
            number += 1
            stack.append(CLOSING[text[number]])
        elif character in '"`' or (character == "'" and inner != '"'):
            stack.append(character)
        elif character in CLOSING and inner not in ('"', "`") and (inner == CLOSING[character] or not stack):
            stack.append(CLOSING[character])
        number += 1
        if not stack:
            return min(number, end)
    return end
