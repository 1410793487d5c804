"""Figures of values; their order changes none of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """Of `count` values."""

    count: int
    mean: float
    least: float
    most: float


def spread(values: Sequence[float]) -> Spread | None:
    """None where there are no values."""
    if not values:
        return None
    least, most = min(values), max(values)
    mean = min(max(fsum(values) / len(values), least), most)  # rounding may lead a hair outside
    return Spread(count=len(values), mean=mean, least=least, most=most)


def pearson(xs: Sequence[float], ys: Sequence[float]) -> float | None:
    """Pearson's r, in [-1, 1]; None of fewer than two pairs, and where either never changes."""
    from statistics import StatisticsError, correlation

    try:
        return max(-1.0, min(1.0, correlation(xs, ys)))
    except (StatisticsError, OverflowError):
        return None
