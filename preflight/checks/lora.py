"""What does the adapter train?

What: how many linear layers the LoRA targets match, and the parameters that makes.
Why: Wan's blocks have a self- and a cross-attention, so a list of four names matches eight layers a block.
"""

from __future__ import annotations

from preflight.checks.case import Answers, Case, Found
from preflight.tape.module import Linear


def check(case: Case) -> Answers:
    lora = case.job.spec.train.lora
    if lora is None or not case.model.adapters:
        return
    layers = sum(copies for _, m, copies in case.model.network.modules() if isinstance(m, Linear) and m.lora_A is not None)
    message = f"LoRA of rank {lora.rank} on {layers} layers trains {case.model.trainable_count:,} parameters."
    yield Found("note", message, "train.lora.targets")
