"""The catalog's GPUs as planning sees them: which one a name means, and the speed that a precision reaches on it."""

from __future__ import annotations

from preflight import catalog
from preflight.spec import Precision

# the two names by which the planner's users know a card without its memory size; both are the 80 GB one
SHORT = {"a100": "a100-80gb", "h100": "h100-80gb"}


def gpu(name: str) -> catalog.Gpu:
    """The catalog's GPU; a bare A100 or H100 is the one with 80 GB. Raises ConfigError `unknown-gpu`."""
    return catalog.gpu(SHORT.get(name.strip().lower(), name))


def peak_tflops(card: catalog.Gpu, precision: Precision) -> float:
    """Dense TFLOP/s of the matrix products of a run in this precision.

    float32 products use no tensor cores unless the trainer allows TF32 (torch.backends.cuda.matmul.allow_tf32 is off), which runs
    at half the 16-bit rate where there is any (NVIDIA's data sheets from the A100 on); bfloat16 without hardware for it is computed
    in float32.
    """
    dtype = precision.autocast or precision.weights
    if dtype == "fp32" and precision.tf32 and card.flash_attention:
        return card.tflops / 2
    return card.tflops_fp32 if dtype == "fp32" or (dtype == "bf16" and not card.bf16) else card.tflops
