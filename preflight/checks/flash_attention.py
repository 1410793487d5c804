"""Does the GPU run flash attention?

What: flash attention needs compute capability 8.0 (Ampere). torch's own attention takes its memory-efficient kernel on older
cards, which keeps as little and is slower; a trainer that calls the flash-attn package stops there.
Why: "FlashAttention only supports Ampere GPUs or newer" comes in the first step, after everything is loaded.
Fix: torch's attention, where the trainer has a switch for it.
"""

from __future__ import annotations

from preflight.checks.case import Answers, Case, Found


def check(case: Case) -> Answers:
    gpu, spec = case.job.gpu, case.job.spec
    if gpu is None or gpu.flash_attention or not case.attends:
        return
    needs = f"{gpu.name} has compute capability {gpu.compute_capability}, and flash attention needs 8.0"
    if spec.train.attention == "flash-attn":
        message = f"{needs}: the trainer's flash-attn package stops in the first step."
        yield Found("error", message, "train.attention", fix="use torch's attention")
    elif "bf16" not in (spec.precision.autocast, spec.precision.weights):
        yield Found("note", f"{needs}: torch takes its memory-efficient kernel, which keeps as little and is slower.")
