"""What a shell knows while a script runs: its variables and arguments, and what all the scripts of one reading share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from preflight.finding import Finding
from preflight.launching.grammar import Source
from preflight.launching.launch import Heredoc, Launch, Unresolved
from preflight.launching.limits import MAX_STEPS
from preflight.position import Path, Position, refusal

if TYPE_CHECKING:
    from tree_sitter import Node


class Word(NamedTuple):
    """A word of a command after expansion, and where it is written."""

    text: str
    place: Position


#: A plain text, or the items of an array.
Value: TypeAlias = "str | tuple[Word, ...]"


class Function(NamedTuple):
    body: Node
    source: Source


@dataclass(frozen=True, kw_only=True, slots=True)
class Started:
    """A launch with its flags as data, and where each of them stands."""

    launch: Launch
    data: dict[str, Any]
    positions: Mapping[Path, Position]


@dataclass(kw_only=True, slots=True)
class Reading:
    """What is found, and spent, over all scripts of one reading.

    `load` reads another file or answers None where there is none; `last` is the program that the last command named.
    """

    load: Callable[[str], str | None]
    started: list[Started] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    heredocs: dict[str, Heredoc] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    last: Word | None = None
    scripts: int = 0
    steps: int = 0
    depth: int = 0

    def step(self, place: Position) -> None:
        """Counts one command. Raises ConfigError ("too-large") past what any real script has."""
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise refusal("too-large", f"The script goes through more than {MAX_STEPS:,} commands.", place)

    def say(self, finding: Finding) -> None:
        if finding not in self.findings:
            self.findings.append(finding)


@dataclass(kw_only=True, slots=True)
class Shell:
    """One shell. `name` is `$0`, `folder` where `cd` has led, and `calls` what led here,
    which the script that was asked for did on the line `entered`.

    `over` says that nothing more runs: the script has come to an end, or with `returned` only the function.
    """

    source: Source
    reading: Reading
    name: str
    arguments: tuple[Word, ...] = ()
    variables: dict[str, Value] = field(default_factory=dict)
    exported: set[str] = field(default_factory=set)
    functions: dict[str, Function] = field(default_factory=dict)
    folder: str | None = None
    entered: int | None = None
    calls: tuple[str, ...] = ()
    over: bool = False
    returned: bool = False

    def inside(self, **changes: Any) -> Shell:
        """A subshell: what it sets is gone when it ends."""
        own: dict[str, Any] = {
            "variables": dict(self.variables),
            "exported": set(self.exported),
            "functions": dict(self.functions),
        }
        return replace(self, **{**own, **changes})

    def environment(self) -> dict[str, str]:
        """The exported variables that have a value."""
        return {name: value for name, value in self.variables.items() if name in self.exported and isinstance(value, str)}

    def get(self, name: str) -> Value | None:
        """The value of a variable or parameter; None when the script does not set it."""
        if name == "0":
            return self.name
        if name.isdigit():
            number = int(name) if len(name) < 6 else 0
            return self.arguments[number - 1].text if 0 < number <= len(self.arguments) else None
        if name in ("@", "*"):
            return self.arguments
        if name in SPECIAL:
            return Unresolved(f"${name}", name, "command")
        fixed: dict[str, str] = {"#": str(len(self.arguments)), "?": "0", "BASH_SOURCE": self.source.path}
        if name == "PWD" and self.folder is not None:
            return self.folder
        return fixed.get(name) if name in fixed else self.variables.get(name)

    def put(self, name: str, value: Value, *, more: bool = False) -> None:
        """Sets a variable; with `more` adds to it, as `+=` does."""
        old = self.variables.get(name)
        if more and old is not None:
            value = _joined(old, value)
        self.variables[name] = value

    def become(self, other: Shell) -> None:
        """Goes on as `other`, which began as a copy of this."""
        self.variables, self.exported, self.functions = other.variables, other.exported, other.functions
        self.arguments, self.folder = other.arguments, other.folder
        self.over, self.returned = other.over, other.returned

    def merge(self, other: Shell) -> None:
        """What is left when either this or `other` may have run: what both agree on."""
        for name in self.variables.keys() | other.variables.keys():
            if self.variables.get(name) != other.variables.get(name):
                self.variables[name] = Unresolved(f"${name}", name, "condition")
        self.exported |= other.exported
        self.functions |= other.functions
        self.folder = self.folder if self.folder == other.folder else None


SPECIAL = frozenset({"$", "!", "-", "_", "RANDOM", "SECONDS", "LINENO", "EPOCHSECONDS", "BASHPID", "PPID", "UID", "EUID"})


def _joined(old: Value, new: Value) -> Value:
    if isinstance(old, tuple):
        return (
            (*old, *new)
            if isinstance(new, tuple)
            else (Word(Unresolved.joining((old[0].text, new)), old[0].place), *old[1:])
            if old
            else new
        )
    if isinstance(new, tuple):
        return (*((Word(old, new[0].place),) if new else ()), *new)
    return Unresolved.joining((old, new))
