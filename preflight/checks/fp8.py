"""Does the GPU compute in fp8?

What: fp8 tensor cores came with compute capability 8.9 (Ada, Hopper). Elsewhere weights in fp8 are only stored so, and cast up
before each product.
Why: it saves memory all the same, but no time; kernels that multiply in fp8 (torch._scaled_mm) stop.
Fix: another quantization, if speed was the reason.
"""

from __future__ import annotations

from preflight.checks.case import Answers, Case, Found


def check(case: Case) -> Answers:
    gpu, quantization = case.job.gpu, case.job.spec.precision.quantization
    if gpu is None or gpu.fp8 or not any(word in quantization.lower() for word in ("fp8", "float8", "e4m3", "e5m2")):
        return
    message = f"{gpu.name} has no fp8 in hardware: {quantization} only stores the weights so, and every product is computed wider."
    yield Found("warning", message, "precision.quantization", fix="expect less memory but no more speed, or quantize to int8")
