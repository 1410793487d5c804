"""What must the host hold to save a checkpoint?

What: where every GPU has a shard of the weights, a full checkpoint is gathered on one rank, in the memory of its host.
Why: the rank is killed by its host's kernel at the first checkpoint, and the others wait for it until NCCL's timeout.
Fix: sharded checkpoints (torch.distributed.checkpoint, stage3_gather_16bit_weights_on_model_save: false).
"""

from __future__ import annotations

from preflight.checkpoints import checkpoint
from preflight.checks.case import Answers, Case, Found
from preflight.units import GIB, gib


def check(case: Case) -> Answers:
    spec = case.job.spec
    host = spec.hardware.host_memory_gib
    if spec.save is None or host is None or spec.parallel.strategy not in ("fsdp", "zero3") or spec.parallel.gpus == 1:
        return
    gathered = checkpoint(case.job, case.model).total
    if gathered > host * GIB:
        message = f"A whole checkpoint is {gib(gathered)}, more than the {host:g} GiB of the host that gathers it."
        yield Found("warning", message, "save.every", fix="save sharded checkpoints")
