"""What PixArt and Sana share: one time embedding that a table in each block adds to (diffusers/models/normalization.py)."""

from __future__ import annotations

from preflight.networks.common import Dropout, TimestepEmbedding, timesteps
from preflight.tape.activation import silu
from preflight.tape.attention import attention
from preflight.tape.module import Linear, Module
from preflight.tape.shaping import chunk
from preflight.tape.tensor import Parameter, Tensor


class TimestepEmbedder(Module):
    """embeddings.py: PixArtAlphaCombinedTimestepSizeEmbeddings without sizes."""

    def __init__(self, dim: int) -> None:
        self.timestep_embedder = TimestepEmbedding(256, dim)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.timestep_embedder(timesteps(hidden.tape, hidden.shape[0], 256).to(hidden.dtype))


class AdaLayerNormSingle(Module):
    """The time as six vectors (B, 6 x dim), and as one."""

    def __init__(self, dim: int) -> None:
        self.emb = TimestepEmbedder(dim)
        self.linear = Linear(dim, 6 * dim)

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        embedded = self.emb(hidden)
        return self.linear(silu(embedded)), embedded


def vectors(table: Parameter, time: Tensor) -> tuple[Tensor, ...]:
    """Each row of the table (n, dim) and the time's vector for it, as (B, 1, dim)."""
    pieces, dim = table.shape
    time = time.view(time.shape[0], time.shape[1] // dim, dim)
    return chunk(table.view(1, pieces, dim) + time, pieces, 1)


def text_bias(mask: Tensor, dtype: str) -> Tensor:
    """A mask (B, tokens) as what is added to attention scores (B, 1, tokens)."""
    kept = (mask.to(dtype) * -1.0) + 1
    return (kept * -10000.0).view(mask.shape[0], 1, mask.shape[1])


class MaskedAttention(Module):
    """attention_processor.py: Attention with AttnProcessor2_0 to the image itself, or to the text under a bias."""

    def __init__(self, dim: int, heads: int, context_dim: int) -> None:
        self.heads = heads
        self.to_q, self.to_k, self.to_v = Linear(dim, dim), Linear(context_dim, dim), Linear(context_dim, dim)
        self.to_out = [Linear(dim, dim), Dropout()]
        self.norm_q: Module | None = None
        self.norm_k: Module | None = None

    def forward(
        self, hidden: Tensor, context: Tensor | None = None, bias: Tensor | None = None, *, transposed: bool = False
    ) -> Tensor:
        batch, tokens, dim = hidden.shape
        if bias is not None:
            bias = hidden.tape.empty((batch, self.heads, 1, bias.shape[2]), bias.dtype)  # prepare_attention_mask
        query = self.to_q(hidden, transposed=transposed)
        if context is None:
            context = hidden
        key, value = self.to_k(context), self.to_v(context)
        query = self.norm_q(query) if self.norm_q is not None else query
        key = self.norm_k(key) if self.norm_k is not None else key
        query, key, value = self._heads(query), self._heads(key), self._heads(value)
        hidden = attention(query, key, value, bias)
        hidden = hidden.view(batch, tokens, dim).to(query.dtype)
        hidden = self.to_out[0](hidden)
        return hidden / 1.0

    def _heads(self, x: Tensor) -> Tensor:
        batch, tokens, dim = x.shape
        return x.view(batch, self.heads, tokens, dim // self.heads)
