"""`--diff` and `--fix`: an offer as a change of the config's own text, judged again before anything is written."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import unified_diff
from pathlib import Path

from preflight import adapters, document
from preflight.document import Document
from preflight.editing.edit import edited
from preflight.editing.replace import Original, original, refuse_unwritable, replace
from preflight.finding import ConfigError, Finding
from preflight.report import Reduction, Result

Judge = Callable[[str], Result]  # the config's text, judged


@dataclass(frozen=True, kw_only=True, slots=True)
class Mended:
    """The config with the `offer` in it: its text before and after, and how the new one is judged."""

    path: str
    old: str
    new: str
    offer: Reduction
    result: Result
    source: Original | None

    def diff(self) -> str:
        """The unified diff, for `git apply` and `patch -p1`."""
        name = "config" if self.path == "-" else Path(self.path).as_posix().lstrip("/")
        lines = unified_diff(_lines(self.old), _lines(self.new), f"a/{name}", f"b/{name}")
        return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)

    def write(self) -> None:
        """Replaces the file; raises ConfigError, leaving it as it is, where that must not be done."""
        if self.source is not None:
            replace(self.path, self.source, self.source.encoded(self.new))


def mended(
    result: Result, choose: int, judge: Judge, *, overrides: Sequence[str] = (), text: str | None = None, tree: Path | None = None
) -> Mended:
    """The config of `result` with its offer number `choose` (from 1) in its text, which is `text` when it came from standard input.

    With a `tree` it is meant to be written, into that folder. Raises ConfigError with one sentence: no such offer, a file or a
    value that is not edited, or a new text that is not judged to fit.
    """
    path = result.config
    if tree is not None:
        refuse_unwritable(path, tree)
    if not 1 <= choose <= len(result.reductions):
        raise _refused(f"{path} has {_counted(len(result.reductions))}, so there is no number {choose}.")
    offer = result.reductions[choose - 1]
    source = original(path) if text is None else None
    old = source.text if source is not None else text or ""
    new = edited(_whole(document.read(path, overrides=overrides, text=old), result.adapter), old, offer.keys)
    again = judge(new)
    if again.verdict not in ("fits", "tight") or not _errors(again) <= _errors(result):
        raise _refused(f"{path} with offer {choose} in it does not pass when it is read again, so it is not edited.")
    return Mended(path=path, old=old, new=new, offer=offer, result=again, source=source)


def _whole(config: Document, adapter: str | None) -> Document:
    """`config` with the files that its adapter reads for it."""
    return (adapters.by_name(adapter).read(config).document if adapter else None) or config


def _errors(result: Result) -> set[str]:
    return {finding.id for finding in result.findings if finding.severity == "error"}


def _counted(offers: int) -> str:
    return "no offer" if offers == 0 else "one offer" if offers == 1 else f"{offers} offers"


def _lines(text: str) -> list[str]:
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def _refused(message: str) -> ConfigError:
    return ConfigError(Finding(id="not-edited", severity="error", message=message))
