"""Would it fit but for the allocator's fragmentation?"""

from __future__ import annotations

from collections.abc import Iterator

from preflight.finding import Finding
from preflight.report import Memory
from preflight.units import gib

# docs.pytorch.org/docs/stable/notes/cuda.html, "Optimizing memory usage": segments that grow leave no gaps between blocks
SETTING = "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True"


def segments(memory: Memory) -> Iterator[Finding]:
    """A note where what torch hands out would fit, and only what its allocator takes beyond that does not.

    No offer, as no trainer has a key for it and how much it saves is not known before the run.
    """
    allocated = max((phase.allocated_bytes or 0 for phase in memory.phases), default=0)
    peak, usable = memory.peak_bytes or 0, memory.usable_bytes or 0
    activations, limit = memory.activation_bytes or 0, memory.activation_limit_bytes or 0
    if allocated <= usable < peak and activations <= limit:
        message = (
            f"The tensors alone would fit, {gib(allocated)} of them; the other {gib(peak - allocated)} are mostly gaps between "
            f"blocks, which {SETTING} avoids for the most part."
        )
        yield Finding(id="fragmentation", severity="note", message=message)
