"""Inference compute for a unit of output, and where it overtakes training.

Source: as training.py; for language models, Kaplan et al. 2020 (arXiv 2001.08361): two operations per parameter and token.
"""

from __future__ import annotations

from preflight.planning.numbers import rounded

STEP_FLOP = 524e9  # one diffusion step of DiT-XL at 512 × 512 pixels
SAMPLING_STEPS = 250
DIGITS = 3
"""Significant digits that a minute's compute is carried with. The source goes on from its rounded figures: 2.83e15 a step, 708e15 a
minute, where the product of its factors is 707.4e15."""


def image_flop(step_flop: float, steps: int) -> float:
    """Operations for one image."""
    return step_flop * steps


def clip_flop(step_flop: float, steps: int, model_scale: float, frames: float, digits: int = DIGITS) -> float:
    """Operations for one clip of so many latent frames, carried with `digits` significant digits."""
    return rounded(rounded(step_flop * model_scale * frames, digits) * steps, digits)


def text_flop(parameters: float, tokens: int) -> float:
    """Operations for so many generated tokens; of a mixture of experts only the parameters that are active count."""
    return 2 * parameters * tokens


def units_per_gpu_hour(unit_flop: float, tflops: float) -> float:
    """Units of output that a GPU of `tflops` TFLOP/s makes in an hour at its peak."""
    return tflops * 1e12 * 3600 / unit_flop


def crossover(training: float, unit_flop: float) -> float:
    """Units of output after which inference has taken as many operations as training did."""
    return training / unit_flop
