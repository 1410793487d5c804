"""`preflight compute`: a budget of compute."""

from __future__ import annotations

from collections.abc import Sequence

from preflight.cli.budgets import answer


def run(words: Sequence[str]) -> int:
    """The exit status of preflight/planning/compute_command.py."""
    from preflight.planning import compute_command as command

    return answer("compute", command, words, command.run)
