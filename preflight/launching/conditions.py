"""Whether a condition holds, where the script alone decides it; a variable that the script does not set counts as unset."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from preflight.launching import arithmetic
from preflight.launching.launch import Unresolved
from preflight.launching.shell import Shell
from preflight.launching.words import Expansion

if TYPE_CHECKING:
    from tree_sitter import Node

NUMBERS: Mapping[str, Callable[[int, int], bool]] = {
    "-eq": lambda a, b: a == b,
    "-ne": lambda a, b: a != b,
    "-lt": lambda a, b: a < b,
    "-le": lambda a, b: a <= b,
    "-gt": lambda a, b: a > b,
    "-ge": lambda a, b: a >= b,
}
INTEGER = re.compile(r"\s*[-+]?[0-9]{1,18}\s*")


def truth(shell: Shell, node: Node | None) -> bool | None:
    """True or False, or None where only the machine knows."""
    if node is None:
        return None
    kind = node.type
    inner = [child for child in node.children if child.is_named and child.type != "comment"]
    if kind in ("test_command", "parenthesized_expression", "compound_statement", "redirected_statement", "subshell") and inner:
        if node.children[0].type == "((":
            return _number(shell, node)
        return truth(shell, inner[-1] if kind == "compound_statement" else inner[0])
    if kind == "negated_command" and inner:
        return _not(truth(shell, inner[0]))
    if kind in ("list", "binary_expression") and len(node.children) == 3 and node.children[1].type in ("&&", "||"):
        return both(truth(shell, node.children[0]), truth(shell, node.children[2]), every=node.children[1].type == "&&")
    if kind == "unary_expression":
        return _unary(shell, node)
    if kind == "binary_expression":
        return _binary(shell, node)
    if kind == "command":
        return _command(shell, node)
    if kind in ("string", "raw_string", "word", "simple_expansion", "expansion", "number", "concatenation"):
        text = _text(shell, node)
        return None if text is None else bool(text)
    return None


def _text(shell: Shell, node: Node) -> str | None:
    text = Expansion(shell, lenient=True).text(node)
    return None if isinstance(text, Unresolved) else text


def _not(value: bool | None) -> bool | None:
    return None if value is None else not value


def both(left: bool | None, right: bool | None, *, every: bool) -> bool | None:
    """Two conditions with && (`every`) or || between them."""
    if left is (not every) or right is (not every):
        return not every
    return None if left is None or right is None else every


def _unary(shell: Shell, node: Node) -> bool | None:
    operator, operand = node.children[0], node.children[-1]
    sign = shell.source.spelled(operator)
    if sign == "!":
        return _not(truth(shell, operand))
    text = _text(shell, operand)
    return None if text is None else _said(shell, sign, text)


def _said(shell: Shell, sign: str, text: str) -> bool | None:
    if sign in ("-z", "-n"):
        return (not text) is (sign == "-z")
    return shell.get(text) is not None if sign == "-v" else None


def _binary(shell: Shell, node: Node) -> bool | None:
    if len(node.children) != 3:
        return None
    left, right = (_text(shell, node.children[i]) for i in (0, 2))
    sign = shell.source.spelled(node.children[1])
    if sign in ("-a", "-o"):
        return both(truth(shell, node.children[0]), truth(shell, node.children[2]), every=sign == "-a")
    if left is None or right is None:
        return None
    return _compared(left, sign, right, pattern=node.children[2].type in ("extglob_pattern", "regex", "word", "concatenation"))


def _compared(left: str, sign: str, right: str, *, pattern: bool) -> bool | None:
    if sign in NUMBERS:
        if not INTEGER.fullmatch(left) or not INTEGER.fullmatch(right):
            return None
        return NUMBERS[sign](int(left), int(right))
    if sign in ("=", "==", "!="):
        same = fnmatchcase(left, right) if pattern else left == right
        return same is (sign != "!=")
    if sign in ("<", ">"):
        return left < right if sign == "<" else left > right
    return None


def _command(shell: Shell, node: Node) -> bool | None:
    words = [word.text for word in Expansion(shell, lenient=True).words(child for child in node.children if child.is_named)]
    if any(isinstance(word, Unresolved) for word in words) or not words:
        return None
    name, *rest = words
    if name in ("true", ":", "false"):
        return name != "false"
    if name not in ("test", "["):
        return None
    rest = rest[:-1] if name == "[" and rest[-1:] == ["]"] else rest
    if rest[:1] == ["!"]:
        return _not(_tested(shell, rest[1:]))
    return _tested(shell, rest)


def _tested(shell: Shell, words: list[str]) -> bool | None:
    if len(words) < 2:
        return bool(words and words[0])
    if len(words) == 2:
        return _said(shell, words[0], words[1])
    return _compared(words[0], words[1], words[2], pattern=False) if len(words) == 3 else None


def _number(shell: Shell, node: Node) -> bool | None:
    inside = re.sub(r"\$\{?([A-Za-z_]\w*|#)\}?", lambda match: match[1].replace("#", "0"), shell.source.spelled(node)[2:-2])

    def variable(name: str) -> str | None:
        value = shell.get(name)
        return "" if value is None else None if isinstance(value, Unresolved | tuple) else value

    number = arithmetic.value(inside, variable)
    return None if number is None else bool(number)
