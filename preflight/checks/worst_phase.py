"""Which phase decides?

What: the phase with the highest peak, where it is not the training step.
Why: cutting the batch or turning on checkpointing does not help a run whose peak is in encoding, sampling or saving.
Fix: what makes that phase smaller.
"""

from __future__ import annotations

from preflight.checks.case import Answers, Case, Found
from preflight.memory.peak import worst
from preflight.units import gib

MENDS = {
    "load": ("precision.weights", "load in the dtype that the run computes in"),
    "encode": ("data.latents", "cache the latents, encode fewer samples at once, or load the VAE in 16 bits"),
    "sample": ("sample.every", "sample smaller, or outside the run"),
    "save": ("save.every", "gather the weights on the host"),
}


def check(case: Case) -> Answers:
    peak = worst(case.budget, case.phases)
    if peak.phase not in MENDS:
        return
    key, fix = MENDS[peak.phase]
    step = int(case.budget.reserved)
    message = f"Not the step but the {peak.phase} phase is the worst: {gib(peak.total)} against {gib(step)}."
    yield Found("note", message, key, fix=fix)
