"""Would it fit but for the allocator's fragmentation?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from preflight.finding import Finding
from preflight.judge import Judgement, judge_job
from preflight.units import gib

# docs.pytorch.org/docs/stable/notes/cuda.html, "Optimizing memory usage": segments that grow leave no gaps between blocks
SETTING = "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True"


def segments(judgement: Judgement, threshold: float) -> Iterator[Finding]:
    """A note where what torch hands out would fit, and only what its allocator takes beyond that does not.

    No offer, as no trainer has a key for it.
    """
    memory, job = judgement.memory, judgement.case.job
    allocated = max((phase.allocated_bytes or 0 for phase in memory.phases), default=0)
    peak, usable = memory.peak_bytes or 0, memory.usable_bytes or 0
    activations, limit = memory.activation_bytes or 0, memory.activation_limit_bytes or 0
    if not allocated <= usable < peak or activations > limit:
        return
    message = (
        f"The tensors alone would fit, {gib(allocated)} of them; the other {gib(peak - allocated)} are mostly gaps between blocks"
    )
    if job.spec.hardware.expandable_segments:
        message += "."
    elif judgement.case.budget.layout is None:
        message += f", which {SETTING} avoids for the most part."
    else:
        grown = replace(job.spec, hardware=replace(job.spec.hardware, expandable_segments=True))
        other = judge_job(job.with_spec(grown), threshold)
        message += f"; with {SETTING} it would take {gib(other.memory.peak_bytes or 0)}"
        message += ", which fits." if other.verdict == "fits" else ", which is too much still."
    yield Finding(id="fragmentation", severity="note", message=message)
