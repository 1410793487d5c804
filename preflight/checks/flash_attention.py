"""Does the GPU run flash attention?

What: flash attention needs compute capability 8.0 (Ampere). torch's own attention takes its memory-efficient kernel on older
cards, which keeps as little and is slower; a trainer that calls the flash-attn package stops there (its releases before 2.0 still
ran on Turing, 7.5).
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
    if spec.train.attention == "flash-attn" and gpu.architecture == "turing":
        message = f"{needs}: the trainer's flash-attn package runs there in releases before 2.0 only."
        yield Found("warning", message, "train.attention", fix="flash-attn 1.0.9, or torch's attention")
    elif spec.train.attention == "flash-attn":
        message = f"{needs}: the trainer's flash-attn package stops in the first step."
        yield Found("error", message, "train.attention", fix="use torch's attention")
    elif "bf16" not in (spec.precision.autocast, spec.precision.weights):
        yield Found("note", f"{needs}: torch takes its memory-efficient kernel, which keeps as little and is slower.")
