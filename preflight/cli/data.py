"""`preflight data CONFIG_OR_INDEX`: what the samples of a data set are."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from preflight.cli.budgets import answer
from preflight.cli.output import progress


def run(words: Sequence[str]) -> int:
    """The exit status of preflight/data/command.py."""
    from preflight.data import command

    def counted(options: argparse.Namespace) -> tuple[str, int]:
        with progress("reading") as options.progress:
            return command.run(options)

    return answer("data", command, words, counted)
