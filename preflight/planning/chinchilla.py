"""The model size and the amount of data that spend a compute budget best.

Hoffmann et al. 2022 (arXiv 2203.15556): parameters and training tokens grow together, about 20 tokens for each parameter.
Kaplan et al. 2020 (arXiv 2001.08361): training takes about 6 operations per parameter and token. Here a token is a patch of the
video's latent, and every patch is seen at each of `steps` noise levels.
"""

from __future__ import annotations

from math import isqrt, sqrt

TOKENS_PER_PARAMETER = 20.0
FLOP_PER_PARAMETER = 6.0
LAYERS = 24


def budget_flop(gpu_hours: float, tflops: float, mfu: float) -> float:
    """Operations that `gpu_hours` give on a GPU of `tflops` TFLOP/s, of which the share `mfu` is reached."""
    return gpu_hours * tflops * 1e12 * mfu * 3600


def optimal_parameters(
    flop: float, steps: int, tokens_per_parameter: float = TOKENS_PER_PARAMETER, flop_per_parameter: float = FLOP_PER_PARAMETER
) -> float:
    """N of C = 6 · N · D · steps with D = 20 · N: the square root of C / 120 / steps."""
    return sqrt(flop / (flop_per_parameter * tokens_per_parameter) / steps)


def optimal_patches(parameters: float, tokens_per_parameter: float = TOKENS_PER_PARAMETER) -> float:
    """D = 20 · N, in patches."""
    return tokens_per_parameter * parameters


def hidden_width(parameters: float, layers: int = LAYERS) -> int:
    """Width of a transformer of so many parameters, 12 · width² a layer (Kaplan et al. 2020, section 2.1), rounded down."""
    return max(1, isqrt(int(parameters / (12 * layers))))
