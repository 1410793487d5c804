"""`preflight sweep CONFIG --vary NAME=VALUES`: a grid of runs around a config."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from preflight.cli.budgets import answer
from preflight.cli.output import progress


def run(words: Sequence[str]) -> int:
    """The exit status of preflight/sweeping/command.py."""
    from preflight.sweeping import command

    def swept(options: argparse.Namespace) -> tuple[str, int]:
        with progress() as options.progress:
            return command.run(options)

    return answer("sweep", command, words, swept)
