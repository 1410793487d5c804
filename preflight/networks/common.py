"""Pieces that several families share (diffusers/models/embeddings.py, attention.py)."""

from __future__ import annotations

from preflight.tape.activation import gelu, silu
from preflight.tape.meter import Size
from preflight.tape.module import Linear, Module
from preflight.tape.shaping import cat
from preflight.tape.tensor import Tape, Tensor


def timesteps(tape: Tape, batch: Size, width: int) -> Tensor:
    """Sinusoidal embedding (batch, width) in float32: embeddings.py, get_timestep_embedding."""
    half = tape.empty((batch, width // 2), "fp32")
    return cat([half, half], -1)


class GELU(Module):
    """A linear layer and its activation (activations.py: GELU)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        self.proj = Linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.proj(x)
        return gelu(x)


class FeedForward(Module):
    """attention.py: FeedForward with activation_fn "gelu" or "gelu-approximate"; names net.0.proj and net.2 as there."""

    def __init__(self, dim: int, inner: int, *, outputs: int | None = None) -> None:
        self.net = [GELU(dim, inner), _Dropout(), Linear(inner, outputs or dim)]

    def forward(self, x: Tensor) -> Tensor:
        for module in self.net:
            x = module(x)
        return x


class _Dropout(Module):
    """Probability 0: torch returns its input."""

    def forward(self, x: Tensor) -> Tensor:
        return x


class TimestepEmbedding(Module):
    def __init__(self, inputs: int, dim: int) -> None:
        self.linear_1, self.linear_2 = Linear(inputs, dim), Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear_1(x)
        x = silu(x)
        return self.linear_2(x)


class TextProjection(Module):
    """embeddings.py: PixArtAlphaTextProjection with gelu."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        self.linear_1, self.linear_2 = Linear(inputs, hidden), Linear(hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear_1(x)
        x = gelu(x)
        return self.linear_2(x)
