"""What a check may look at: the judged run. Never the raw config."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from preflight.finding import Severity
from preflight.job import Job
from preflight.memory.budget import Budget
from preflight.memory.limits import Limits
from preflight.memory.model import Model
from preflight.memory.phases import Phase


class Found(NamedTuple):
    """One answer of a check: how bad, the sentence, the canonical key it is about, and what would mend it."""

    severity: Severity
    message: str
    key: str | None = None
    fix: str | None = None


Answers = Iterator[Found]


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """A run with its memory. `limits` is None while nobody has named a GPU."""

    job: Job
    model: Model
    budget: Budget
    phases: tuple[Phase, ...]
    limits: Limits | None

    @property
    def attends(self) -> bool:
        """Whether the network has attention over its tokens."""
        return "num_attention_heads" in self.job.dims
