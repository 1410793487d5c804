"""The shell's own commands that change what later ones mean."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Mapping, Sequence

from preflight.launching.launch import Unresolved
from preflight.launching.shell import Shell, Word


def _cd(shell: Shell, words: Sequence[Word]) -> None:
    target = next((word.text for word in words[1:] if not word.text.startswith("-")), None)
    if target is None or isinstance(target, Unresolved):
        shell.folder = None
    elif target.startswith("/") or shell.folder is None:
        shell.folder = target
    else:
        shell.folder = posixpath.join(shell.folder, target)


def _exit(shell: Shell, words: Sequence[Word]) -> None:
    del words
    shell.over = True


def _return(shell: Shell, words: Sequence[Word]) -> None:
    del words
    shell.over = shell.returned = True


def _set(shell: Shell, words: Sequence[Word]) -> None:
    """`set -- a b`: the arguments."""
    texts = [word.text for word in words]
    if "--" in texts:
        shell.arguments = tuple(words[texts.index("--") + 1 :])


def _shift(shell: Shell, words: Sequence[Word]) -> None:
    count = words[1].text if len(words) > 1 else "1"
    shell.arguments = shell.arguments[int(count) if count.isdigit() and len(count) < 6 else 1 :]


def _read(shell: Shell, words: Sequence[Word]) -> None:
    """`read`, `mapfile`: the values come from outside."""
    for word in words[1:]:
        if word.text.isidentifier():
            shell.put(word.text, Unresolved(f"${word.text}", word.text, "command"))


def _nothing(shell: Shell, words: Sequence[Word]) -> None:
    del shell, words


BUILTINS: Mapping[str, Callable[[Shell, Sequence[Word]], None]] = {
    "cd": _cd,
    "pushd": _cd,
    "exit": _exit,
    "return": _return,
    "set": _set,
    "shift": _shift,
    "read": _read,
    "mapfile": _read,
    "readarray": _read,
    **dict.fromkeys(("echo", "printf", ":", "true", "false", "trap", "alias", "ulimit", "module", "wait", "mkdir", "rm"), _nothing),
}
