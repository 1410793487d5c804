"""Pieces that several families share (diffusers/models/embeddings.py, attention.py)."""

from __future__ import annotations

from collections.abc import Callable

from preflight.tape.activation import gelu, rsqrt, silu
from preflight.tape.dtypes import LOW
from preflight.tape.meter import Size
from preflight.tape.module import LayerNorm, Linear, Module
from preflight.tape.normalization import mean_of_squares
from preflight.tape.shaping import cat, chunk, stack, unbind
from preflight.tape.tensor import Parameter, Tape, Tensor


def timesteps(tape: Tape, batch: Size, width: int) -> Tensor:
    """Sinusoidal embedding (batch, width) in float32: embeddings.py, get_timestep_embedding."""
    half = tape.empty((batch, width // 2), "fp32")
    return cat([half, half], -1)


class LinearActivation(Module):
    """A linear layer and its activation (activations.py: GELU, LinearActivation)."""

    def __init__(self, inputs: int, outputs: int, activation: Callable[[Tensor], Tensor]) -> None:
        self.proj = Linear(inputs, outputs)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        x = self.proj(x)
        return self.activation(x)


class FeedForward(Module):
    """attention.py: FeedForward with an activation_fn of one projection; names net.0.proj and net.2 as there."""

    def __init__(self, dim: int, inner: int, *, outputs: int | None = None, activation: Callable[[Tensor], Tensor] = gelu) -> None:
        self.net = [LinearActivation(dim, inner, activation), Dropout(), Linear(inner, outputs or dim)]

    def forward(self, x: Tensor) -> Tensor:
        for module in self.net:
            x = module(x)
        return x


class Dropout(Module):
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
    """embeddings.py: PixArtAlphaTextProjection."""

    def __init__(self, inputs: int, hidden: int, outputs: int, *, activation: Callable[[Tensor], Tensor] = gelu) -> None:
        self.linear_1, self.linear_2 = Linear(inputs, hidden), Linear(hidden, outputs)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear_1(x)
        x = self.activation(x)
        return self.linear_2(x)


def silu_fp32(x: Tensor) -> Tensor:
    """activations.py: FP32SiLU."""
    return silu(x.float()).to(x.dtype)


class AdaLayerNormContinuous(Module):
    """normalization.py: a layer norm without parameters of its own, scaled and shifted by a projected condition."""

    def __init__(self, dim: int, condition_dim: int) -> None:
        self.linear = Linear(condition_dim, dim * 2)
        self.norm = LayerNorm(dim, affine=False)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        emb = self.linear(silu(condition).to(x.dtype))
        batch, dim = x.shape[0], x.shape[-1]
        scale, shift = chunk(emb, 2, 1)
        return self.norm(x) * (1 + scale).view(batch, 1, dim) + shift.view(batch, 1, dim)


class PlainRMSNorm(Module):
    """normalization.py: RMSNorm, written out; the result takes a 16-bit weight's dtype."""

    def __init__(self, width: int) -> None:
        self.weight = Parameter((width,))

    def forward(self, x: Tensor) -> Tensor:
        variance = mean_of_squares(x.float())
        x = x * rsqrt(variance + 1e-6)
        if self.weight.dtype in LOW:
            x = x.to(self.weight.dtype)
        return x * self.weight


def apply_rotary_emb(x: Tensor, rotary: tuple[Tensor, Tensor], *, tokens_dim: int = 2) -> Tensor:
    """embeddings.py: apply_rotary_emb of x (B, heads, tokens, width), or (B, tokens, heads, width) with `tokens_dim` 1."""
    tokens, width = x.shape[tokens_dim], x.shape[3]
    shape = (1, 1, tokens, width) if tokens_dim == 2 else (1, tokens, 1, width)
    cos, sin = (part.view(*shape) for part in rotary)
    real, imaginary = unbind(x.view(*x.shape[:3], width // 2, 2), -1)
    rotated = stack([-imaginary, real]).view(*x.shape)
    return (x.float() * cos + rotated.float() * sin).to(x.dtype)
