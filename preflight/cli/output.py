"""Standard output, standard input and the terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from preflight.finding import ConfigError, Finding
from preflight.reporters import Style

# What a terminal without these characters is shown instead.
_ASCII = str.maketrans(
    {"·": "-", "█": "#", "▏": "|", "×": "x", "→": "->", "…": "...", "±": "+-", "–": "-", "≤": "<=", "≥": ">=", "÷": "/"}
)


def write(text: str, status: int) -> int:
    """`text` on standard output in characters it can show; a reader who has left early changes nothing."""
    if sys.stdout is None:
        return status
    encoding = sys.stdout.encoding or "ascii"
    try:
        "·█×→…".encode(encoding)
    except (UnicodeEncodeError, LookupError):
        text = text.translate(_ASCII)
    try:
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains at exit
    return status


def say(text: str) -> None:
    """One line on standard error."""
    print(f"preflight: {text}", file=sys.stderr)


def style(*, quiet: bool, verbose: bool, strict: bool) -> Style:
    """How this terminal, or whatever else reads the output, is to be written to."""
    import shutil

    from preflight.memory.overhead import TOLERANCE

    terminal = sys.stdout is not None and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
    return Style(
        colour=terminal and not os.environ.get("NO_COLOR"),
        width=shutil.get_terminal_size().columns if terminal else 80,
        quiet=quiet,
        verbose=verbose,
        strict=strict,
        tolerance=TOLERANCE,
    )


def standard_input() -> str:
    """All of standard input as text; raises ConfigError when it is not UTF-8."""
    if sys.stdin is None:
        return ""
    try:
        return sys.stdin.buffer.read().decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        message = f"standard input is not UTF-8 text (byte {problem.start + 1}), expected a training config"
        raise ConfigError(Finding(id="unreadable", severity="error", message=message)) from None


def gpu_of_the_environment() -> str | None:
    return os.environ.get("PREFLIGHT_GPU")


def internal(what: str, problem: Exception) -> Finding:
    """What is said of a mistake of our own; PREFLIGHT_DEBUG=1 shows where it is."""
    if os.environ.get("PREFLIGHT_DEBUG") == "1":
        import traceback

        traceback.print_exception(problem)
    message = f"preflight could not judge {what}: internal error: {type(problem).__name__}: {problem}; please report"
    return Finding(id="internal-error", severity="error", message=message)


@contextmanager
def progress(what: str = "points") -> Iterator[Callable[[int, int], None]]:
    """What shows how much of so much is done: a bar on a terminal, else nothing."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield lambda done, total: None  # noqa: ARG005
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
