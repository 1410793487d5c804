"""How the multimodal transformers (FLUX, SD3, HunyuanVideo) take in the time, the pooled text and the guidance."""

from __future__ import annotations

from preflight.networks.common import TextProjection, TimestepEmbedding, timesteps
from preflight.tape.activation import silu
from preflight.tape.module import LayerNorm, Linear, Module
from preflight.tape.shaping import chunk
from preflight.tape.tensor import Tensor


class TimeTextEmbedding(Module):
    """embeddings.py: CombinedTimestepTextProjEmbeddings, and CombinedTimestepGuidanceTextProjEmbeddings with `guidance`."""

    def __init__(self, dim: int, pooled_dim: int, *, guidance: bool = False) -> None:
        self.timestep_embedder = TimestepEmbedding(256, dim)
        self.guidance_embedder = TimestepEmbedding(256, dim) if guidance else None
        self.text_embedder = TextProjection(pooled_dim, dim, dim, activation=silu)

    def forward(self, pooled: Tensor) -> Tensor:
        tape, batch = pooled.tape, pooled.shape[0]
        temb = self.timestep_embedder(timesteps(tape, batch, 256).to(pooled.dtype))
        if self.guidance_embedder is not None:
            temb = temb + self.guidance_embedder(timesteps(tape, batch, 256).to(pooled.dtype))
        return temb + self.text_embedder(pooled)


class AdaLayerNormZero(Module):
    """normalization.py: the layer norm of x shifted and scaled, and what is left of `pieces` vectors (B, 1, dim).

    AdaLayerNormZero has six of them, AdaLayerNormZeroSingle three.
    """

    def __init__(self, dim: int, pieces: int = 6) -> None:
        self.pieces = pieces
        self.linear = Linear(dim, pieces * dim)
        self.norm = LayerNorm(dim, affine=False)

    def forward(self, x: Tensor, emb: Tensor) -> tuple[Tensor, ...]:
        emb = self.linear(silu(emb))
        shift, scale, *rest = chunk(emb.view(emb.shape[0], 1, emb.shape[1]), self.pieces, -1)
        x = self.norm(x) * (1 + scale) + shift
        return (x, *rest)
