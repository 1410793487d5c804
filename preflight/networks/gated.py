"""Feed-forward layers that one half of a projection gates (diffusers/models/activations.py)."""

from __future__ import annotations

from preflight.tape.activation import gelu, silu
from preflight.tape.module import Linear, Module
from preflight.tape.shaping import chunk
from preflight.tape.tensor import Tensor


class GEGLU(Module):
    """One projection to twice `outputs`: a half times the gelu of the other."""

    def __init__(self, inputs: int, outputs: int) -> None:
        self.proj = Linear(inputs, 2 * outputs)

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = self.proj(hidden)
        hidden, gate = chunk(hidden, 2, -1)
        return hidden * gelu(gate)


class SwiGLU(Module):
    """The same with silu."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool = True) -> None:
        self.proj = Linear(inputs, 2 * outputs, bias=bias)

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = self.proj(hidden)
        hidden, gate = chunk(hidden, 2, -1)
        return hidden * silu(gate)
