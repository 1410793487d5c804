"""Files around a script: those that it writes from a here-document, and those that it names."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from preflight.launching.grammar import Source
from preflight.launching.launch import Heredoc, Unresolved
from preflight.launching.programs import SHELLS
from preflight.launching.shell import Shell, Word
from preflight.launching.words import Expansion

if TYPE_CHECKING:
    from tree_sitter import Node

#: How far above its script's folder a path may be meant from: `configs/x.yaml` in `examples/wan/train.sh`.
ABOVE = 4


def heredoc(shell: Shell, command: Node | None, redirect: Node, redirects: Sequence[Node], script: Callable[[Shell], None]) -> None:
    """`cat > x.yaml <<EOF` writes a file, `bash <<EOF` is a script; any other command reads it as it likes."""
    body = next((child for child in redirect.children if child.type == "heredoc_body"), None)
    start = next((child for child in redirect.children if child.type == "heredoc_start"), None)
    if body is None or start is None:
        return
    text = Expansion(shell).document(body, literal=bool(set("'\"\\") & set(shell.source.spelled(start))))
    if redirect.children[0].type == "<<-":
        text = re.sub(r"^\t+", "", text, flags=re.MULTILINE)
    words = [] if command is None or command.type != "command" else Expansion(shell).words(command.named_children)
    name = words[0].text if words else "cat"
    place = shell.source.place(body)
    if name.rpartition("/")[2] in SHELLS - {"source", "."} and not _program(words):
        outer = shell.inside(source=Source(text, shell.source.path, shell.source.file, place), arguments=())
        script(outer)
        return
    for path, more in _targets(shell, name, words, redirect, redirects):
        if not isinstance(path, Unresolved):
            key = posixpath.normpath(path)
            before = shell.reading.heredocs.get(key) if more else None
            shell.reading.heredocs[key] = before._replace(text=before.text + text) if before else Heredoc(str(text), place.line)


def _program(words: Sequence[Word]) -> bool:
    return any(not word.text.startswith("-") for word in words[1:])


def _targets(
    shell: Shell, name: str, words: Sequence[Word], redirect: Node, redirects: Sequence[Node]
) -> Iterator[tuple[str, bool]]:
    """The files that the document is written to, and whether it is added to them."""
    if name == "tee":
        yield from (
            (word.text, any(option.text in ("-a", "--append") for option in words)) for word in words[1:] if word.text[:1] != "-"
        )
    if name != "cat":
        return
    for node in (*redirects, *redirect.children):
        if node.type == "file_redirect" and any(child.type in (">", ">>", ">|") for child in node.children):
            target = node.child_by_field_name("destination")
            if target is not None:
                yield Expansion(shell).text(target), any(child.type == ">>" for child in node.children)


def places(shell: Shell, path: str) -> list[str]:
    """Where the file that a script names as `path` may be: from where `cd` led, the script's folder, and those above it."""
    if posixpath.isabs(path):
        return [path]
    folder = posixpath.dirname(shell.source.path.replace("\\", "/")) or "."
    above = [posixpath.join(folder, *[".."] * n) for n in range(ABOVE)]
    led = [] if shell.folder is None else [shell.folder, *(posixpath.join(base, shell.folder) for base in above)]
    return list(dict.fromkeys(posixpath.normpath(posixpath.join(base, path)) for base in (*led, ".", *above)))
