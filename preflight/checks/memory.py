"""Does the worst phase fit the GPU?

What: the peak of the worst phase, with everything resident and the overhead, against what a run may use of the card: its memory
less the CUDA context, NCCL's buffers and the error band. Between that and what torch can reach at all the config is `tight`.
Why: beyond it, CUDA runs out of memory.
Fix: take one of the reductions, offload or cache what need not stay on the GPU, or shard over more GPUs.
"""

from __future__ import annotations

from preflight.checks.case import Answers, Case, Found
from preflight.memory.overhead import TOLERANCE
from preflight.memory.peak import worst
from preflight.units import gib


def check(case: Case) -> Answers:
    if case.limits is None:
        return
    peak = worst(case.budget, case.phases)
    if peak.total <= case.limits.usable:
        return
    tokens = case.job.tokens
    shape = f" of {tokens:,} tokens" if tokens and peak.phase in ("step", "sample") else ""
    parts = {
        f"activations{shape}": peak.components["activations"],
        "weights": peak.components["weights"],
        "optimizer states": peak.components["optimizer"],
        "gradients": peak.components["gradients"],
    }
    largest = sorted((name for name, held in parts.items() if held), key=lambda name: -parts[name])[:2]
    filling = " and ".join(f"{gib(parts[name])} of {name}" for name in largest)
    if peak.total <= case.limits.reachable:
        room = gib(case.limits.reachable - peak.total)
        message = f"The {peak.phase} phase leaves {room} of what torch can reach, inside the error band of {100 * TOLERANCE:g} %."
        yield Found("warning", message)
        return
    over = gib(peak.total - case.limits.reachable)
    yield Found("error", f"The {peak.phase} phase needs {over} more than torch can reach: {filling}.")
