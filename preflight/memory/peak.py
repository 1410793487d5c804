"""The worst phase with its overhead, and what it consists of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from preflight.memory.budget import Budget
from preflight.memory.phases import Phase


@dataclass(frozen=True, kw_only=True, slots=True)
class Worst:
    """`total` bytes in `phase`; `components` sum to it."""

    phase: str
    total: int
    components: Mapping[str, int]


def reserved(phase: Phase, budget: Budget) -> int | None:
    """What torch takes from the card in `phase`."""
    return None if phase.peak is None else int(budget.reserve(phase.peak))


def least(budget: Budget, phases: tuple[Phase, ...]) -> int:
    """What the worst phase needs at the very least: more than the card has is told from this alone."""
    return max(int(budget.least(phase.peak)) for phase in phases if phase.peak)


def worst(budget: Budget, phases: tuple[Phase, ...]) -> Worst:
    """The phase that needs most, of those that could be computed."""
    known = [(int(budget.reserve(phase.peak)), phase.name, phase.peak) for phase in phases if phase.peak]
    total, name, peak = max(known, key=lambda item: item[0])
    resident = budget.resident
    between = not peak.early
    components = {
        "weights": resident.weights + peak.weights,
        "adapters": resident.adapters,
        "gradients": int(peak.gradients) + (resident.buckets if between else 0),
        "optimizer": (resident.optimizer if between else 0) + int(peak.optimizer),
        "activations": int(peak.activations),
    }
    return Worst(phase=name, total=total, components={**components, "overhead": total - sum(components.values())})
