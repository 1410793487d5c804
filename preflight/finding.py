"""What the program has to say about a config: one type from the first read to the last line of output."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One sentence about one place in a config.

    `key` is the user's own dotted key (`data.train_batchsize`), never a canonical one; lines and columns count from 1.
    `file` is the one that they count in when that is not the config itself but one that it names.
    """

    id: str
    severity: Severity
    message: str
    key: str | None = None
    line: int | None = None
    column: int | None = None
    fix: str | None = None
    file: str | None = None


class ConfigError(Exception):
    """The config cannot be read any further; `findings` say why. `pipeline` turns it back into values."""

    def __init__(self, *findings: Finding) -> None:
        super().__init__("; ".join(finding.message for finding in findings))
        self.findings = findings

    def about(self, key: str) -> ConfigError:
        """The same, each finding about `key` where it names none."""
        return ConfigError(*(replace(finding, key=finding.key or key) for finding in self.findings))


def did_you_mean(word: str, known: list[str] | tuple[str, ...]) -> str | None:
    """The one of `known` that `word` is probably a slip of, or None."""
    import difflib

    matches = difflib.get_close_matches(word.lower(), {k.lower(): k for k in known}, n=1, cutoff=0.6)
    return {k.lower(): k for k in known}[matches[0]] if matches else None
