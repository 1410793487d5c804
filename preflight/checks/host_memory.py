"""Does the host's memory hold what is moved there?

What: for every process of a node, the weights while they load, what the config keeps off the GPU (optimizer states, weights,
blocks, checkpoints, text encoder, VAE), decoded batches, and the whole checkpoint when it is gathered, against
`hardware.host_memory_gib`.
Why: the host's kernel kills a process without a word of Python, often while eight of them load the same weights at once, and
page-locked memory cannot be swapped out.
Fix: load on the first rank alone or each rank's part, offload less, fewer workers, or cache text and latents.
"""

from __future__ import annotations

from preflight.checks.case import Answers, Case, Found
from preflight.memory.host import Part, host
from preflight.units import GIB, gib

#: What the largest part is about, and what makes it smaller.
MENDS = (
    ("as they load", "parallel.gpus", "load the weights on one rank a node, or each rank's part alone"),
    ("optimizer states", "offload.optimizer", "shard the optimizer over more nodes, or keep it on the GPU"),
    ("master weights", "offload.optimizer", "shard the optimizer over more nodes, or keep it on the GPU"),
    ("gradients", "offload.optimizer", "shard the optimizer over more nodes, or keep it on the GPU"),
    ("swapped blocks", "offload.blocks", "swap fewer blocks"),
    ("checkpoints", "offload.activations", "keep the checkpoints on the GPU"),
    ("the checkpoint", "save.every", "save sharded checkpoints"),
    ("data loading", "data.workers", "fewer workers"),
    ("layers", "offload.layers", None),
    ("weights", "offload.parameters", None),
)


def check(case: Case) -> Answers:
    stated = case.job.spec.hardware.host_memory_gib
    if stated is None:
        return
    need = host(case.job, case.model, case.budget)
    phase, held = need.worst, need.total(need.worst)
    if held <= stated * GIB:
        return
    parts = sorted(need.phases[phase], key=lambda part: -part.nbytes)
    key, fix = _mend(parts[0])
    said = ", ".join(f"{gib(part.nbytes)} of {part.name}" for part in parts[:3])
    message = f"The {phase} phase needs {gib(held)} of host memory a node, more than its {stated:g} GiB: {said}."
    yield Found("warning", message, key, fix=fix)


def _mend(largest: Part) -> tuple[str, str | None]:
    known = ((key, fix) for words, key, fix in MENDS if words in largest.name)
    return next(known, ("data.text", "cache what the text encoder and the VAE make"))
