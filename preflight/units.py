"""Bytes inside, GiB only where a person reads."""

from __future__ import annotations

KIB = 2**10
MIB = 2**20
GIB = 2**30


def gib(n: int) -> str:
    """`n` bytes as a person reads them: "26.81 GiB", or MiB below a tenth of one."""
    return f"{n / GIB:,.2f} GiB" if abs(n) >= GIB // 10 else f"{n / MIB:,.1f} MiB"
