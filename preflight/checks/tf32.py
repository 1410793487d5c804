"""Are float32 products computed in TF32?

What: from Ampere on, tensor cores multiply float32 in TF32, with 10 bits of mantissa, where the trainer allows it; torch's default
is not to (torch.backends.cuda.matmul.allow_tf32, False since 1.12). Older cards have no such thing.
Why: without it a float32 run leaves the tensor cores idle; with it a field is trained on rounded products.
Fix: torch.set_float32_matmul_precision("high") where rounding to 10 bits does no harm.
"""

from __future__ import annotations

from preflight.checks.case import Answers, Case, Found

OLDER = ("pascal", "volta", "turing")


def check(case: Case) -> Answers:
    gpu, precision = case.job.gpu, case.job.spec.precision
    if gpu is None:
        return
    if gpu.architecture in OLDER:
        if precision.tf32:
            message = f"{gpu.name} has no TF32, so float32 products stay float32, at {gpu.tflops_fp32:g} TFLOP/s."
            yield Found("warning", message, "precision.tf32")
    elif precision.tf32 is None and precision.autocast is None and precision.weights == "fp32":
        message = (
            f"Everything is float32, and torch multiplies that without TF32 unless the trainer allows it:"
            f" {gpu.tflops_fp32:g} TFLOP/s on {gpu.name}."
        )
        yield Found("note", message, "precision.weights", fix='torch.set_float32_matmul_precision("high")')
