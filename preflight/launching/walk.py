"""A script gone through command by command, in order, without running any: what it sets, calls and starts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from preflight.finding import Finding
from preflight.launching import branches, builtins, calls, files
from preflight.launching.commandline import is_flag
from preflight.launching.grammar import Source, adjoining, broken
from preflight.launching.launch import Unresolved
from preflight.launching.limits import MAX_DEPTH
from preflight.launching.programs import start
from preflight.launching.shell import Function, Shell, Word
from preflight.launching.words import Expansion
from preflight.position import Position, refusal, too_deep

if TYPE_CHECKING:
    from tree_sitter import Node

REDIRECTS = frozenset({"file_redirect", "heredoc_redirect", "herestring_redirect"})
ASSIGNED = re.compile(r"([A-Za-z_]\w*)(\[[^\]]*\])?(\+)?=")


def script(shell: Shell) -> None:
    """Goes through the whole of the shell's source. Raises ConfigError for what is too large, too deep, or no shell."""
    bad = broken(shell.source.root)
    if bad is not None:
        shell.reading.say(_unread(shell, bad))
    statements(shell, shell.source.root.children)


def statements(shell: Shell, nodes: Sequence[Node]) -> None:
    for node in nodes:
        if shell.over:
            return
        if node.is_named:
            statement(shell, node)


def statement(shell: Shell, node: Node) -> None:
    shell.reading.step(shell.source.place(node))
    shell.reading.depth += 1
    if shell.reading.depth > MAX_DEPTH:
        raise too_deep(shell.source.place(node))
    STATEMENTS.get(node.type, _nothing)(shell, node)
    shell.reading.depth -= 1


def _unread(shell: Shell, node: Node) -> Finding:
    place = shell.source.place(node)
    text = " ".join(shell.source.spelled(node).split())[:40]
    near = f" near {text!r}" if text else ""
    message = f"Line {place.line} cannot be read as shell{near}, and what follows may be misread."
    return refusal("invalid-shell", message, place).findings[0]


def _nothing(shell: Shell, node: Node) -> None:
    del shell, node


def _inside(shell: Shell, node: Node) -> None:
    statements(shell, [child for child in node.children if child.type not in REDIRECTS])


def _subshell(shell: Shell, node: Node) -> None:
    _inside(shell.inside(), node)


def _pipeline(shell: Shell, node: Node) -> None:
    for child in node.named_children:
        statement(shell.inside(), child)


def _list(shell: Shell, node: Node) -> None:
    """`a && b`: b runs unless a fails for certain; `a || b`: a command that is no condition is taken to succeed."""
    left, operator, right = node.children[0], node.children[1], node.children[-1]
    statement(shell, left)
    if shell.over:
        return
    succeeds = branches.success(shell, left)
    if operator.type == "&&":
        branches.perhaps(shell, succeeds, lambda inner: statement(inner, right))
    elif operator.type == "||":
        branches.perhaps(shell, None if succeeds is None else not succeeds, lambda inner: statement(inner, right))
    else:
        statement(shell, right)


def _redirected(shell: Shell, node: Node) -> None:
    redirects = [child for child in node.children if child.type in REDIRECTS]
    body = next((child for child in node.children if child.is_named and child.type not in REDIRECTS), None)
    for redirect in redirects:
        if redirect.type == "heredoc_redirect":
            files.heredoc(shell, body, redirect, redirects, script)
            statements(shell.inside(), [child for child in redirect.children if child.type in STATEMENTS])
    if body is not None:
        statement(shell, body)


def _function(shell: Shell, node: Node) -> None:
    name, body = node.child_by_field_name("name"), node.child_by_field_name("body")
    if name is not None and body is not None:
        shell.functions[shell.source.spelled(name)] = Function(body, shell.source)


def _assignment(shell: Shell, node: Node, end: int | None = None) -> str:
    """Sets the variable and answers its name; `end` is where its value ends when that is not where the node does."""
    text, place = shell.source.slice(node.start_byte, node.end_byte if end is None else end), shell.source.place(node)
    match = ASSIGNED.match(text)
    if match is None:
        return ""
    name, item, more = match.groups()
    array = next((child for child in node.children if child.type == "array"), None)
    found = Expansion(shell).whole(text[match.end() :], place) if array is None else Expansion(shell).array(array)
    if item:
        found = Unresolved(f"${name}", name, "command")
    shell.put(name, found, more=bool(more))
    return str(name)


def _assigned(shell: Shell, node: Node) -> None:
    _assignment(shell, node)


def _declaration(shell: Shell, node: Node) -> None:
    exports = node.children[0].type == "export" or any(shell.source.spelled(child) in ("-x", "-gx") for child in node.children)
    for child, end in adjoining(node.named_children):
        name = _assignment(shell, child, end) if child.type == "variable_assignment" else shell.source.spelled(child)
        if exports:
            shell.exported.add(name)


def _unset(shell: Shell, node: Node) -> None:
    for child in node.named_children:
        shell.variables.pop(shell.source.spelled(child), None)


def _command(shell: Shell, node: Node) -> None:
    """The grammar may take assignments on lines of their own for the command's; the line ends between say otherwise."""
    for line in _lines(shell, node):
        number = next((n for n, (child, _) in enumerate(line) if child.type != "variable_assignment"), len(line))
        if number == len(line):
            for child, end in line:
                _assignment(shell, child, end)
        else:
            first, end = line[number][0].start_byte, line[-1][1]
            words = [child for child in node.children if child.is_named and first <= child.start_byte and child.end_byte <= end]
            simple(shell, line[:number], [child for child in words if child.type not in REDIRECTS])


def _lines(shell: Shell, node: Node) -> Iterator[list[tuple[Node, int]]]:
    group: list[tuple[Node, int]] = []
    for child, end in adjoining(child for child in node.children if child.is_named and child.type not in REDIRECTS):
        between = shell.source.slice(group[-1][1], child.start_byte) if group else ""
        if "\n" in between.replace("\\\n", ""):
            yield group
            group = []
        group.append((child, end))
    if group:
        yield group


def simple(shell: Shell, assignments: Sequence[tuple[Node, int]], nodes: Sequence[Node]) -> None:
    """A command with its words: a function, a builtin that matters, another script, or a program."""
    place = shell.source.place(assignments[0][0] if assignments else nodes[0])
    words = Expansion(shell).words(nodes)
    if not words:
        return
    name = words[0].text
    own = shell
    if assignments:
        own = shell.inside()
        own.exported |= {_assignment(own, child, end) for child, end in assignments}
    if name in shell.functions:
        _call(shell, shell.functions[name], words)
    elif name in builtins.BUILTINS:
        builtins.BUILTINS[name](shell, words)
    elif name == "eval":
        text(shell, Unresolved.joining([part for word in words[1:] for part in (" ", word.text)][1:]), words[0].place)
    elif name.startswith("--") and is_flag(name):
        calls.cut_off(shell, words[0])
    else:
        found = start(words)
        shell.reading.last = words[0]._replace(place=place) if found is None else found.program._replace(place=place)
        if found is not None and found.script is not None:
            calls.script(own, shell, found, script)
        elif found is not None:
            calls.launch(own, found, place)
        shell.over = shell.over or name == "exec"


def text(shell: Shell, code: str, place: Position) -> None:
    """A text that is run as if it stood here."""
    if not code.strip() or len(shell.calls) > MAX_DEPTH:
        return
    outer = shell.source
    shell.source = Source(code, outer.path, outer.file, place)
    try:
        script(shell)
    finally:
        shell.source = outer


def _call(shell: Shell, function: Function, words: Sequence[Word]) -> None:
    name = f"{words[0].text}()"
    if shell.calls.count(name) > 1:
        return
    outer = shell.source, shell.arguments, shell.calls, shell.entered
    shell.entered = words[0].place.line if shell.source.file is None else shell.entered
    shell.source, shell.arguments, shell.calls = function.source, tuple(words[1:]), (*shell.calls, name)
    try:
        statement(shell, function.body)
    finally:
        shell.source, shell.arguments, shell.calls, shell.entered = outer
    if shell.returned:
        shell.over = shell.returned = False


STATEMENTS: Mapping[str, Callable[[Shell, Node], None]] = {
    "command": _command,
    "variable_assignment": _assigned,
    "variable_assignments": _inside,
    "declaration_command": _declaration,
    "unset_command": _unset,
    "redirected_statement": _redirected,
    "pipeline": _pipeline,
    "list": _list,
    "subshell": _subshell,
    "compound_statement": _inside,
    "negated_command": _inside,
    "do_group": _inside,
    "function_definition": _function,
    "ERROR": _inside,
    "if_statement": lambda shell, node: branches.if_(shell, node, statements),
    "case_statement": lambda shell, node: branches.case(shell, node, statements),
    "for_statement": lambda shell, node: branches.for_(shell, node, statements),
    "c_style_for_statement": lambda shell, node: branches.count(shell, node, statements),
    "while_statement": lambda shell, node: branches.while_(shell, node, statements),
}
