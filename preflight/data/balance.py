"""How samples are spread over categories."""

from __future__ import annotations

from collections.abc import Iterable


def gini(counts: Iterable[int]) -> float:
    """Gini's coefficient of the counts, in [0, 1): 0 where all are equal, 1 - 1/n where one of n has everything.

    2 Σ i·x_i / (n Σ x) - (n + 1) / n over the counts in ascending order, i from 1 (Gini 1912, as Sen 1973 writes it).
    """
    ascending = sorted(counts)
    n, total = len(ascending), sum(ascending)
    if not total:
        return 0.0
    weighted = sum(rank * count for rank, count in enumerate(ascending, 1))
    return (2 * weighted - (n + 1) * total) / (n * total)


def ratio(counts: Iterable[int]) -> float | None:
    """The largest of the counts by the smallest; None where there are none."""
    there = [count for count in counts if count > 0]
    return max(there) / min(there) if there else None


def share(part: int, whole: int) -> str:
    """As in "93.81 %"."""
    return f"{part / whole * 100:.2f} %" if whole else "-"
