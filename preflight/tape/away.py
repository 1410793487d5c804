"""A checkpoint's input that waits in host memory."""

from __future__ import annotations

from preflight.tape.dtypes import BYTES
from preflight.tape.meter import rounded
from preflight.tape.tensor import Tensor, numel


class Away:
    """A tensor in host memory: what it takes to bring it back."""

    __slots__ = ("dtype", "requires_grad", "shape", "tape")

    def __init__(self, x: Tensor) -> None:
        self.tape, self.shape, self.dtype, self.requires_grad = x.tape, x.shape, x.dtype, x.requires_grad
        tape = x.tape
        tape.away = tape.away + rounded(numel(x.shape) * BYTES[x.dtype]) * tape.meter.segment.copies

    def detach_like(self) -> Tensor:
        back = self.tape.empty(self.shape, self.dtype)
        back.requires_grad = self.requires_grad
        return back
