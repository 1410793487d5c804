"""argv to calls: the only package that prints, reads the environment or standard input, and chooses the exit status.

0: every config passes. 1: at least one does not fit, is invalid or cannot be judged. 2: the command line is wrong.
One command a file, with `run(words) -> int`, imported when it is called.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module

COMMANDS: Mapping[str, str] = {
    "check": "check",
    "rule": "rule",
    "explain": "explain",
    "list": "listing",
    "plan": "plan",
    "compute": "compute",
    "sweep": "sweep",
    "data": "data",
}


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status of `preflight` with these words; argparse itself exits with 2 on a wrong command line."""
    words = sys.argv[1:] if argv is None else list(argv)
    name = COMMANDS.get(words[0]) if words else None
    try:
        run: Callable[[Sequence[str]], int] = import_module(f"preflight.cli.{name or 'check'}").run
        return run(words[1:] if name else words)
    except KeyboardInterrupt:
        return 130  # 128 + SIGINT, as shells report it
    except Exception as problem:  # noqa: BLE001  # the last resort: one sentence instead of a traceback
        from preflight.cli.output import internal

        print(internal(" ".join(words), problem).message, file=sys.stderr)
        return 1
