"""`$((a * b))`: whole numbers, as C counts them."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

LIMIT = 2**63
CONSTANT = re.compile(r"\b0[0-9]+|[0-9]#")  # octal, and a base of one's own: rare enough to leave alone


def _divide(a: int, b: int) -> int:
    quotient = abs(a) // abs(b)
    return quotient if (a < 0) == (b < 0) else -quotient


BINARY: Mapping[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: _divide,
    ast.Mod: lambda a, b: a - b * _divide(a, b),
    ast.Pow: lambda a, b: a**b if 0 <= b < 64 and abs(a) < 2**32 else _refuse(),
    ast.LShift: lambda a, b: a << b if 0 <= b < 64 else _refuse(),
    ast.RShift: lambda a, b: a >> b if 0 <= b < 64 else _refuse(),
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.BitXor: operator.xor,
}
COMPARED: Mapping[type[ast.cmpop], Callable[[int, int], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
UNARY: Mapping[type[ast.unaryop], Callable[[int], int]] = {
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Invert: operator.invert,
    ast.Not: lambda a: int(not a),
}


def value(expression: str, variable: Callable[[str], str | None]) -> int | None:
    """What `expression` comes to; None where it uses what is not known, or more than the operators above.

    `variable` answers with a variable's text, "" when it is set to nothing, None when its value is not known.
    """
    plain = re.sub(r"&&", " and ", re.sub(r"\|\|", " or ", re.sub(r"!(?!=)", " not ", expression))).strip()
    if len(plain) > 256 or CONSTANT.search(plain) or "//" in plain:
        return None
    try:
        return _bounded(_value(ast.parse(plain or "0", mode="eval").body, variable))
    except (SyntaxError, ValueError, ZeroDivisionError, MemoryError, RecursionError):
        return None


def _value(node: Any, variable: Callable[[str], str | None]) -> int:
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return _bounded(node.value)
    if isinstance(node, ast.Name):
        text = variable(node.id)
        if text is None or not re.fullmatch(r"\s*-?([1-9][0-9]{0,18}|0)?\s*", text):
            return _refuse()
        return int(text.strip() or 0)
    if isinstance(node, ast.UnaryOp) and type(node.op) in UNARY:
        return UNARY[type(node.op)](_value(node.operand, variable))
    if isinstance(node, ast.BinOp) and type(node.op) in BINARY:
        return _bounded(BINARY[type(node.op)](_value(node.left, variable), _value(node.right, variable)))
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in COMPARED:
        return int(COMPARED[type(node.ops[0])](_value(node.left, variable), _value(node.comparators[0], variable)))
    if isinstance(node, ast.BoolOp):
        parts = [_value(part, variable) for part in node.values]
        return int(all(parts) if isinstance(node.op, ast.And) else any(parts))
    return _refuse()


def _bounded(number: int) -> int:
    return number if -LIMIT <= number < LIMIT else _refuse()


def _refuse() -> int:
    raise ValueError
