"""Is there a second expert, and where is it?

What: a network of two experts (Wan2.2's A14B) beside what the config says of them.
Why: each step runs one of the two, for high or for low noise; where one is trained alone the other one needs a run of its own, and
where both are loaded the idle one takes as much memory as the one at work.
Fix: keep the idle expert on the host, or train one at a time.
"""

from __future__ import annotations

from preflight.checks.case import Answers, Case, Found
from preflight.memory.experts import EXPERTS
from preflight.units import gib

DECIDES = True


def check(case: Case) -> Answers:
    network, where = case.job.network, case.job.spec.model.experts
    if network.experts < EXPERTS and where != "one":
        message = f"{network.name} has no second expert that could be {'swapped' if where == 'swapped' else 'beside it'}."
        yield Found("error", message, "model.experts")
    elif network.experts == EXPERTS and where == "both":
        idle = gib(case.budget.resident.network // EXPERTS)
        message = f"Both experts are on the GPU, and each step runs one: the idle one takes {idle}."
        yield Found("note", message, "model.experts", fix="swap the idle one to the host")
