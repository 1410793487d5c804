"""`preflight plan`: a budget of compute."""

from __future__ import annotations

from collections.abc import Sequence

from preflight.cli.budgets import answer


def run(words: Sequence[str]) -> int:
    """The exit status of preflight/planning/plan_command.py."""
    from preflight.planning import plan_command as command

    return answer("plan", command, words, command.run)
