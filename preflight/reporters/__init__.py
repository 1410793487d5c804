"""How a report is written down: one output format a file, whose name is the word after `--format`.

A reporter is a module with `render(report, style) -> str`. It writes what it is given and computes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module

from preflight.report import Report


@dataclass(frozen=True, kw_only=True, slots=True)
class Style:
    """What the reader wants and how wide their terminal is; a machine format ignores it.

    `tolerance` is the error band that the tests against traces enforce, for the page to state.
    """

    colour: bool = False
    width: int = 80
    quiet: bool = False
    verbose: bool = False
    strict: bool = False
    tolerance: float | None = None


PLAIN = Style()

# Modules by name, so that a format is imported only when it is asked for.
FORMATS: Mapping[str, str] = {"text": "preflight.reporters.text", "json": "preflight.reporters.json"}


def render(report: Report, form: str, style: Style = PLAIN) -> str:
    """`report` in the format `form`, a key of FORMATS, ending in a line break unless there is nothing to say."""
    write: Callable[[Report, Style], str] = import_module(FORMATS[form]).render
    return write(report, style)
