"""What a launch script starts: one program, the launcher that starts it, and where the script says so."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from preflight.finding import Finding

Launcher = Literal["accelerate", "torchrun", "deepspeed", "python"]
Reason = Literal["unset", "command", "condition", "resolver", "absent"]

WHY: Mapping[Reason, str] = {
    "unset": "is not set in this file",
    "command": "is known only where the script runs",
    "condition": "depends on a condition that only the machine decides",
    "resolver": "is only known where the training runs",
    "absent": "refers to a key that is not in the config",
}


class Unresolved(str):
    """A value as the script or config spells it, part of which only the machine that runs it knows.

    `variable` is the first such part, by its name, or as `$(…)` when a command would have to run and `${name:…}` when a resolver
    would; `reason` says why it is not known. `parts` are the stretches of a longer text, those that are known as plain texts.
    """

    __slots__ = ("parts", "reason", "variable")
    variable: str
    reason: Reason
    parts: tuple[str, ...]

    def __new__(cls, spelled: str, variable: str, reason: Reason = "unset", parts: tuple[str, ...] = ()) -> Unresolved:  # noqa: PYI034  # typing has no Self before 3.11
        self = super().__new__(cls, spelled)
        self.variable, self.reason, self.parts = variable, reason, parts or (self,)
        return self

    @classmethod
    def joining(cls, parts: Iterable[str]) -> str:
        """The parts as one text, which is Unresolved if one of them is."""
        flat = [stretch for part in parts for stretch in (part.parts if isinstance(part, Unresolved) else (part,))]
        open_ = next((stretch for stretch in flat if isinstance(stretch, Unresolved)), None)
        if open_ is None:
            return "".join(flat)
        return open_ if len(flat) == 1 else cls("".join(flat), open_.variable, open_.reason, tuple(flat))

    def __reduce__(self) -> tuple[type[Unresolved], tuple[str, str, Reason]]:
        return Unresolved, (str(self), self.variable, self.reason)

    def __deepcopy__(self, memo: dict[int, Any]) -> Unresolved:
        return self

    @property
    def why(self) -> str:
        """The beginning of a sentence: "`$RANK` is not set in this file"."""
        name = self.variable if self.variable.startswith(("$", "`", "<")) else f"${self.variable}"
        return f"`{name.strip('`')}` {WHY[self.reason]}"


class Heredoc(NamedTuple):
    """A file that the script writes: its text, and the line of the script on which the text begins."""

    text: str
    line: int

    @property
    def text_in_place(self) -> str:
        """The text on the lines that it has in the script, with empty ones before it."""
        return "\n" * (self.line - 1) + self.text


@dataclass(frozen=True, kw_only=True, slots=True)
class Launch:
    """One start of a program.

    `program` is its path as the script spells it, variables filled in, or for `python -m` its module's name. `environment` holds
    the variables that the script sets for it, `arguments` its words that belong to no flag. `line` is the line of the script that
    was asked for which leads there; the command itself may be in another, `script`. `findings` are what is wrong with the script.
    """

    program: str
    launcher: Launcher
    line: int
    environment: Mapping[str, str] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    script: str | None = None
    findings: tuple[Finding, ...] = ()
