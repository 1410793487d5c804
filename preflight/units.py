"""Bytes inside, GiB only where a person reads."""

from __future__ import annotations

KIB = 2**10
MIB = 2**20
GIB = 2**30


def gib(n: int) -> str:
    """`n` bytes as a person reads them: "26.81 GiB", or MiB below a tenth of one."""
    return f"{n / GIB:,.2f} GiB" if abs(n) >= GIB // 10 else f"{n / MIB:,.1f} MiB"


def size(n: int) -> str:
    """`n` bytes of a file: "200.0 MiB", GiB from one on, and KiB below a tenth of a MiB."""
    if n >= GIB:
        return gib(n)
    return f"{n / MIB:,.1f} MiB" if n >= MIB // 10 else f"{n / KIB:,.1f} KiB"


def count(n: int, word: str) -> str:
    """As in "1 step" and "5,318 steps"."""
    return f"{n:,} {word}{'' if n == 1 else 'es' if word.endswith('s') else 's'}"
