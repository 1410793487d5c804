"""Does the GPU compute in bfloat16?

What: cards before compute capability 8.0 have no bfloat16 tensor cores, and torch's fused attention refuses bfloat16 there.
Why: products are emulated, and attention falls back to its quadratic form, which keeps the scores of every pair of tokens in
float32: memory that grows with the square of the tokens. It is counted.
Fix: float16, with loss scaling where weights train in it.
"""

from __future__ import annotations

from preflight.checks.case import Answers, Case, Found


def check(case: Case) -> Answers:
    gpu, precision = case.job.gpu, case.job.spec.precision
    if gpu is None or gpu.bf16 or "bf16" not in (precision.autocast, precision.weights):
        return
    attends = "; attention falls back to the quadratic kernel, which is counted here" if case.attends else ""
    key = "precision.autocast" if precision.autocast == "bf16" else "precision.weights"
    yield Found("warning", f"{gpu.name} has no bfloat16 in hardware{attends}.", key, fix="use float16")
