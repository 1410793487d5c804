"""Are activations within their share of the GPU?

What: saved tensors and transients of one step against 70 % of the GPU's memory (`--threshold`).
Why: the DiffSR rule: weights, gradients and optimizer states need the rest.
Fix: a smaller batch, resolution or number of frames; checkpointing.
"""

from __future__ import annotations

from preflight.checks.case import Answers, Case, Found
from preflight.units import gib


def check(case: Case) -> Answers:
    if case.limits is None or case.budget.activations <= case.limits.activations:
        return
    share = case.limits.activations / case.limits.capacity
    needed, allowed = gib(case.budget.activations), gib(case.limits.activations)
    yield Found("error", f"Activations take {needed}, more than the {allowed} that are {100 * share:g} % of the GPU.")
