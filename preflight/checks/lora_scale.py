"""How strongly does the adapter act?

What: a LoRA's output is multiplied by alpha / rank.
Why: trainers differ in what they take where the config is silent: the rank (a scale of 1) or 1 (a scale of 1 / rank). At 1 / 32 the
learning rate that another trainer's example gives is far too low.
Fix: alpha equal to the rank, or a learning rate to match.
"""

from __future__ import annotations

from preflight.checks.case import Answers, Case, Found


def check(case: Case) -> Answers:
    lora = case.job.spec.train.lora
    if lora is None or lora.alpha is None or lora.rank / 2 <= lora.alpha <= lora.rank * 2:
        return
    message = (
        f"The adapter's output is multiplied by {lora.alpha / lora.rank:.3g}, which is alpha {lora.alpha:g} over rank {lora.rank}."
    )
    yield Found("note", message, "train.lora.alpha")
