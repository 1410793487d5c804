"""Floating-point operations of a walk: those of the operators that multiply matrices, counted as they run.

The convention is that of torch.utils.flop_counter, so that the two can be compared: a multiply and its add are two operations,
complex ones too; Fourier transforms, normalisations and activations count nothing.
"""

from __future__ import annotations

from typing import Literal

from preflight.tape.meter import Size
from preflight.tape.tensor import Shape, Tape

Pass = Literal["forward", "backward", "recomputed"]


class Flops:
    """Operations by pass; `recomputed` are the forward ones that checkpoints run again. Set as `Tape.flops` to have them counted.

    Sums are whole numbers, or arrays of floats where a size is an array: their products pass the largest int64.
    """

    __slots__ = ("backward", "forward", "recomputed")

    def __init__(self) -> None:
        self.forward: Size = 0
        self.backward: Size = 0
        self.recomputed: Size = 0

    @property
    def total(self) -> Size:
        return self.forward + self.backward + self.recomputed

    def add(self, name: Pass, amount: Size) -> None:
        setattr(self, name, getattr(self, name) + amount)


def multiplied(tape: Tape, shape: Shape, terms: Shape, *, products: int = 1, backward: bool = False) -> None:
    """Count `products` results of `shape`, each of whose elements sums up as many products as `terms` multiply to.

    An operator in a block that stands for several counts for all of them. Without a counter on the tape nothing is done.
    """
    if tape.flops is None or products == 0:
        return
    amount: Size = 2 * products * tape.meter.segment.copies
    for size in (*shape, *terms):
        amount = amount * (size if isinstance(size, int) else size.astype(float))
    again = tape.frame is not None and tape.frame.replaying
    tape.flops.add("backward" if backward else "recomputed" if again else "forward", amount)
