"""All candidates at once: one walk of the step over arrays of shapes."""

from __future__ import annotations

from dataclasses import replace

from preflight.advice.candidates import Candidate
from preflight.checks.case import Case
from preflight.memory.budget import budget

LIMIT = 20_000  # candidates a walk; more would only be finer than anybody asks


def fitting(case: Case, candidates: list[Candidate]) -> list[Candidate]:
    """Those whose training step meets both rules, in the order given."""
    import numpy as np

    if not candidates or case.limits is None:
        return []
    candidates = candidates[:: -(-len(candidates) // LIMIT)]
    batch, frames, height, width = (
        np.array([getattr(candidate, name) for candidate in candidates], dtype=np.int64)
        for name in ("batch", "frames", "height", "width")
    )
    shape = replace(case.job.shape, batch=batch, frames=frames, height=height, width=width)
    need = budget(case.job, case.model, shape)
    fits = np.broadcast_to(case.limits.hold(need.reserved, need.activations), batch.shape)
    return [candidate for candidate, ok in zip(candidates, fits, strict=True) if ok]
