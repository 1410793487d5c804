"""Conditions and loops: the branch that the script itself decides for, or all that the machine might take.

A branch that ends the script without starting anything, as usage messages do, is not the one that is judged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from preflight.launching.conditions import both, truth
from preflight.launching.launch import Unresolved
from preflight.launching.limits import MAX_TURNS
from preflight.launching.shell import Shell
from preflight.launching.words import Expansion

if TYPE_CHECKING:
    from tree_sitter import Node

Statements: TypeAlias = "Callable[[Shell, Sequence[Node]], None]"
Arm: TypeAlias = "tuple[list[Node], list[Node]]"


def success(shell: Shell, node: Node) -> bool | None:
    """Whether `node` succeeds: a condition as far as it is known, any other command for certain."""
    if node.type == "list" and len(node.children) == 3 and node.children[1].type in ("&&", "||"):
        return both(success(shell, node.children[0]), success(shell, node.children[2]), every=node.children[1].type == "&&")
    known = truth(shell, node)
    condition = node.type in ("test_command", "negated_command") or shell.source.spelled(node).startswith(("test ", "[ ", "(("))
    return known if condition or known is not None else True


def perhaps(shell: Shell, taken: bool | None, body: Callable[[Shell], None]) -> bool:
    """Runs `body` if it is taken; where nobody knows, what both ways agree on is kept. Answers whether it ran for certain."""
    if taken is False:
        return False
    inner, useful = _tried(shell, body)
    if not useful:
        return False
    if taken:
        shell.become(inner)
        return True
    if not inner.over:
        shell.merge(inner)
    return False


def _tried(shell: Shell, body: Callable[[Shell], None]) -> tuple[Shell, bool]:
    """A copy of the shell after `body`, and whether that did more than to end the script."""
    inner, before = shell.inside(), len(shell.reading.started)
    body(inner)
    return inner, not inner.over or inner.returned or len(shell.reading.started) > before


def if_(shell: Shell, node: Node, statements: Statements) -> None:
    _take(shell, list(_arms(node)), statements)


def _take(shell: Shell, arms: list[Arm], statements: Statements) -> None:
    if not arms:
        return None
    (condition, body), *rest = arms
    statements(shell, condition)
    taken = truth(shell, condition[-1]) if condition else True
    if taken is False:
        return _take(shell, rest, statements)
    inner, useful = _tried(shell, lambda copy: statements(copy, body))
    if taken and useful:
        return shell.become(inner)
    _take(shell, rest, statements)
    if useful and shell.over:
        shell.become(inner)
    elif useful and not inner.over:
        shell.merge(inner)
    return None


def _arms(node: Node) -> Iterator[Arm]:
    """The conditions and bodies of `if`, each `elif`, and `else`, whose condition is empty."""
    condition: list[Node] = []
    body: list[Node] = []
    there = condition
    for child in node.children:
        if child.type == "then":
            there = body
        elif child.type in ("elif_clause", "else_clause"):
            break
        elif child.is_named and child.type != "comment":
            there.append(child)
    yield condition, body
    for child in node.children:
        if child.type == "elif_clause":
            yield next(_arms(child))
        elif child.type == "else_clause":
            yield [], list(child.named_children)


def case(shell: Shell, node: Node, statements: Statements) -> None:
    subject = Expansion(shell, lenient=True).text(node.child_by_field_name("value"))
    items = [_item(child) for child in node.children if child.type == "case_item"]
    expansion = Expansion(shell, lenient=True)
    patterns = [[expansion.text(pattern) for pattern in several] for several, _ in items]
    taken: int | None = None
    if not isinstance(subject, Unresolved):
        taken = next((n for n, several in enumerate(patterns) if any(fnmatchcase(subject, p) for p in several)), -1)
        if taken < 0 or perhaps(shell, taken=True, body=lambda inner: statements(inner, items[taken or 0][1])):
            return
    ways = [_tried(shell, partial(_run, statements, body)) for n, (_, body) in enumerate(items) if n != taken]
    left = [inner for inner, useful in ways if useful and not inner.over]
    if any(pattern == ["*"] for pattern in patterns) and left:
        shell.become(left.pop(0))
    for inner in left:
        shell.merge(inner)


def _run(statements: Statements, body: Sequence[Node], shell: Shell) -> None:
    statements(shell, body)


def _item(node: Node) -> Arm:
    """The patterns of `a|b)` and what follows them."""
    patterns: list[Node] = []
    body: list[Node] = []
    there = patterns
    for child in node.children:
        if child.type == ")":
            there = body
        elif child.is_named and child.type != "comment":
            there.append(child)
    return patterns, body


def for_(shell: Shell, node: Node, statements: Statements) -> None:
    """Each turn, where the script says over what; else one, with a value that only the machine knows."""
    name, body = node.child_by_field_name("variable"), node.child_by_field_name("body")
    if name is None or body is None:
        return
    variable = shell.source.spelled(name)
    values = [child for child in node.children if child.is_named and child not in (name, body) and child.type != "comment"]
    spoken = any(child.type == "in" for child in node.children)
    words = Expansion(shell).words(values) if spoken else list(shell.arguments)
    for word in words[:MAX_TURNS]:
        shell.put(variable, Unresolved(f"${variable}", variable, "command") if set("*?") & set(word.text) else word.text)
        statements(shell, [body])
        if shell.over:
            return


def count(shell: Shell, node: Node, statements: Statements) -> None:
    """`for ((…))`: one turn, its counter unknown."""
    body = node.child_by_field_name("body")
    for child in node.children:
        name = child.child_by_field_name("name") if child.type == "variable_assignment" else None
        if name is not None:
            shell.put(
                shell.source.spelled(name), Unresolved(f"${shell.source.spelled(name)}", shell.source.spelled(name), "command")
            )
    if body is not None:
        statements(shell, [body])


def while_(shell: Shell, node: Node, statements: Statements) -> None:
    """One turn, unless it is known that there is none."""
    condition, body = node.child_by_field_name("condition"), node.child_by_field_name("body")
    if body is None:
        return
    goes_on = truth(shell, condition)
    if node.children[0].type == "until" and goes_on is not None:
        goes_on = not goes_on
    if condition is not None:
        statements(shell, [condition])
    perhaps(shell, goes_on, lambda inner: statements(inner, [body]))
