"""`$(…)`: what a command would print, for the few that only take a path apart or say a word; no other is known."""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING

from preflight.launching.grammar import Source
from preflight.launching.launch import Unresolved
from preflight.launching.limits import MAX_DEPTH
from preflight.position import Position

if TYPE_CHECKING:
    from tree_sitter import Node

    from preflight.launching.words import Expansion

KNOWN = re.compile(r"\s*(cd|pwd|dirname|basename|realpath|readlink|echo|#|$)")
OPTIONS = ("-f", "-n", "-e", "-m", "--", "-P", "-s")


def output(expansion: Expansion, spelled: str, place: Position) -> str:
    """What the substitution `spelled`, `$(…)` or in backticks, comes to."""
    code = spelled[2:-1] if spelled.startswith("$(") else spelled[1:-1]
    reading = expansion.shell.reading
    unknown = Unresolved(spelled, spelled, "command")
    if not KNOWN.match(code) or reading.depth > MAX_DEPTH:
        return unknown
    own = expansion.shell.source
    inner = type(expansion)(expansion.shell.inside(source=Source(code, own.path, own.file, place)), lenient=expansion.lenient)
    body = [child for child in inner.source.root.named_children if child.type != "comment"]
    if not body:
        return ""
    answer = _printed(inner, body[0]) if len(body) == 1 else None
    return unknown if answer is None else answer


def _printed(expansion: Expansion, node: Node) -> str | None:
    if node.type == "redirected_statement" and node.named_children:
        return _printed(expansion, node.named_children[0])
    if node.type == "list" and len(node.children) == 3 and node.children[1].type == "&&":
        went, where = _words(expansion, node.children[0]), _words(expansion, node.children[2])
        if len(went) != 2 or went[0] != "cd" or where != ["pwd"]:
            return None
        return went[1] if isinstance(went[1], Unresolved) else posixpath.normpath(went[1])
    words = _words(expansion, node)
    if not words:
        return None
    name, *rest = words
    if name == "pwd" and not rest:
        return expansion.shell.folder
    if name == "echo":
        return Unresolved.joining([part for word in rest for part in (" ", word)][1:])
    if not rest or (len(rest) > 1 and name != "basename"):
        return None
    path = rest[0]
    if isinstance(path, Unresolved):
        return Unresolved(f"$({name} {path})", path.variable, path.reason)
    if name == "dirname":
        return posixpath.dirname(path.rstrip("/")) or ("/" if path.startswith("/") else ".")
    if name == "basename":
        last = posixpath.basename(path.rstrip("/"))
        return last.removesuffix(rest[1]) if len(rest) > 1 and last != rest[1] else last
    return path if name in ("realpath", "readlink") else None


def _words(expansion: Expansion, node: Node) -> list[str]:
    """The words of a plain command without its options."""
    if node.type == "redirected_statement" and node.named_children:
        return _words(expansion, node.named_children[0])
    if node.type != "command" or any(child.type == "variable_assignment" for child in node.children):
        return []
    words = [word.text for word in expansion.words(child for child in node.named_children if not child.type.endswith("redirect"))]
    return words[:1] + [word for word in words[1:] if word not in OPTIONS]
