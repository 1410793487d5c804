"""Hours on so many GPUs, and what they cost."""

from __future__ import annotations

PRICE = 2.0  # dollars for a GPU-hour: the order of what an H100 rents for
HOURS_A_DAY = 24


def gpu_hours(wall_hours: float, gpus: int) -> float:
    """Hours of all GPUs together."""
    return wall_hours * gpus


def cost(hours: float, price: float) -> float:
    """Dollars for so many GPU-hours at `price` dollars each."""
    return hours * price


def hours_for(flop: float, tflops: float, mfu: float, gpus: int = 1) -> float:
    """Wall hours that `gpus` GPUs of `tflops` TFLOP/s need for `flop` operations in all, at the share `mfu` of their peak."""
    return flop / (tflops * 1e12 * mfu * 3600 * gpus)
