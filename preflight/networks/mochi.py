"""Mochi 1 video transformers (diffusers/models/transformers/transformer_mochi.py).

Attention runs on one sample after the other, each with as much of its text as is not padding: taken to be all of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from preflight.networks.common import AdaLayerNormContinuous, Dropout, TimestepEmbedding, timesteps
from preflight.networks.gated import SwiGLU
from preflight.networks.network import Network, Shape
from preflight.tape.activation import keeps_input, rsqrt, silu, tanh
from preflight.tape.attention import attention, efficient_attention
from preflight.tape.linear import matmul
from preflight.tape.loss import mse_loss
from preflight.tape.meter import somewhere
from preflight.tape.module import Blocks, Checkpointing, Conv, Linear, Module
from preflight.tape.normalization import mean_of_squares
from preflight.tape.shaping import cat, chunk, narrow, stack, unbind
from preflight.tape.slicing import split_tokens
from preflight.tape.tensor import Parameter, Tape, Tensor

Rotary = tuple[Tensor, Tensor]


class MochiRMSNorm(Module):
    """normalization.py: MochiRMSNorm, written out."""

    def __init__(self, width: int) -> None:
        self.weight = Parameter((width,))

    def forward(self, x: Tensor) -> Tensor:
        dtype = x.dtype
        variance = mean_of_squares(x.float())
        x = x * rsqrt(variance + 1e-5)
        x = x * self.weight
        return x.to(dtype)


def modulated(x: Tensor, scale: Tensor) -> Tensor:
    """MochiModulatedRMSNorm: normalised and scaled in float32."""
    dtype = x.dtype
    x = x.float()
    x = normed(x)
    x = x * scale
    return x.to(dtype)


def normed(x: Tensor) -> Tensor:
    """normalization.py: RMSNorm without a weight."""
    dtype = x.dtype
    variance = mean_of_squares(x.float())
    x = x * rsqrt(variance + 1e-6)
    return x.to(dtype)


class RMSNormZero(Module):
    """MochiRMSNormZero: x normalised and scaled, and three vectors (B, 1, n)."""

    def __init__(self, dim: int, outputs: int) -> None:
        self.linear = Linear(dim, outputs)

    def forward(self, x: Tensor, emb: Tensor) -> tuple[Tensor, ...]:
        dtype = x.dtype
        emb = self.linear(silu(emb))
        scale, *rest = chunk(emb.view(emb.shape[0], 1, emb.shape[1]), 4, -1)
        x = normed(x.float()) * (1 + scale.float())
        return (x.to(dtype), *rest)


class LayerNormContinuous(Module):
    """MochiLayerNormContinuous."""

    def __init__(self, dim: int, condition_dim: int) -> None:
        self.linear_1 = Linear(condition_dim, dim)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        dtype = x.dtype
        scale = self.linear_1(silu(condition).to(x.dtype))
        x = modulated(x, 1 + scale.view(scale.shape[0], 1, scale.shape[1]).float())
        return x.to(dtype)


class FeedForward(Module):
    def __init__(self, dim: int, inner: int) -> None:
        self.net = [SwiGLU(dim, inner, bias=False), Dropout(), Linear(inner, dim, bias=False)]

    def forward(self, x: Tensor) -> Tensor:
        for module in self.net:
            x = module(x)
        return x


class Attention(Module):
    """attention_processor.py: MochiAttention with MochiAttnProcessor2_0; `last`: nothing is made for the text."""

    def __init__(self, dim: int, heads: int, context_dim: int, *, last: bool) -> None:
        self.heads, width = heads, dim // heads
        self.norm_q, self.norm_k = MochiRMSNorm(width), MochiRMSNorm(width)
        self.norm_added_q, self.norm_added_k = MochiRMSNorm(width), MochiRMSNorm(width)
        self.to_q, self.to_k, self.to_v = (Linear(dim, dim, bias=False) for _ in range(3))
        self.add_k_proj, self.add_v_proj, self.add_q_proj = (Linear(context_dim, dim, bias=False) for _ in range(3))
        self.to_out = [Linear(dim, dim), Dropout()]
        self.to_add_out = None if last else Linear(dim, context_dim)

    def forward(self, hidden: Tensor, context: Tensor, rotary: Rotary) -> tuple[Tensor, Tensor]:
        tokens, context_tokens = hidden.shape[1], context.shape[1]
        query, key, value = self.to_q(hidden), self.to_k(hidden), self.to_v(hidden)
        query, key, value = self._heads(query), self._heads(key), self._heads(value)
        query = self.norm_q(query)
        key = self.norm_k(key)
        context_query, context_key = self.add_q_proj(context), self.add_k_proj(context)
        context_value = self.add_v_proj(context)
        context_query, context_key = self._heads(context_query), self._heads(context_key)
        context_value = self._heads(context_value)
        context_query = self.norm_added_q(context_query)
        context_key = self.norm_added_k(context_key)
        query = apply_rotary_emb(query, rotary)
        key = apply_rotary_emb(key, rotary)

        outputs = []
        several = somewhere(hidden.shape[0] > 1)
        # sample by sample; those after the first are taken together
        for samples in (1, hidden.shape[0] - 1) if several else (hidden.shape[0],):
            text = [_valid(x, samples, several=several) for x in (context_query, context_key, context_value)]
            valid_query = cat([_sample(query, samples, several=several), text[0]], 1)
            valid_key = cat([_sample(key, samples, several=several), text[1]], 1)
            valid_value = cat([_sample(value, samples, several=several), text[2]], 1)
            out = attention(self._first(valid_query), self._first(valid_key), self._first(valid_value))
            out = out.contiguous()  # F.pad by nothing
            outputs.append(out)
        hidden = cat(outputs, 0)
        hidden = hidden.contiguous().view(hidden.shape[0], tokens + context_tokens, hidden.shape[1] * hidden.shape[3])
        hidden, context = split_tokens(hidden, [tokens, context_tokens])
        hidden = self.to_out[0](hidden)
        if self.to_add_out is not None:
            context = self.to_add_out(context)
        return hidden, context

    @staticmethod
    def _first(x: Tensor) -> Tensor:
        """Heads in front of the tokens."""
        return x.view(x.shape[0], x.shape[2], x.shape[1], x.shape[3])

    def _heads(self, x: Tensor) -> Tensor:
        batch, tokens, dim = x.shape
        return x.view(batch, tokens, self.heads, dim // self.heads)


def _sample(x: Tensor, samples: Any, *, several: bool) -> Tensor:
    return narrow(x, samples, *x.shape[1:]) if several else x


def _valid(x: Tensor, samples: Any, *, several: bool) -> Tensor:
    """The tokens that are not padding, looked up."""
    return _sample(x, samples, several=several).contiguous()


def apply_rotary_emb(x: Tensor, rotary: Rotary) -> Tensor:
    """x (B, tokens, heads, width) by (tokens, heads, width / 2) each of cosines and sines."""
    half = (*x.shape[:3], x.shape[3] // 2)
    freqs_cos, freqs_sin = (part.view(1, *part.shape) for part in rotary)
    even, odd = narrow(x, *half).float(), narrow(x, *half).float()
    cos = (even * freqs_cos - odd * freqs_sin).to(x.dtype)
    sin = (even * freqs_sin + odd * freqs_cos).to(x.dtype)
    return stack([cos, sin]).view(*x.shape)


class Block(Module):
    """MochiTransformerBlock."""

    def __init__(self, dim: int, heads: int, context_dim: int, *, last: bool) -> None:
        self.last = last
        self.norm1 = RMSNormZero(dim, 4 * dim)
        self.norm1_context: Module = LayerNormContinuous(context_dim, dim) if last else RMSNormZero(dim, 4 * context_dim)
        self.attn1 = Attention(dim, heads, context_dim, last=last)
        self.ff = FeedForward(dim, (4 * dim * 2) // 3)
        self.ff_context = None if last else FeedForward(context_dim, (4 * context_dim * 2) // 3)

    def forward(self, hidden: Tensor, context: Tensor, temb: Tensor, rotary: Rotary) -> tuple[Tensor, Tensor]:
        out, gate, ff_scale, ff_gate = self.norm1(hidden, temb)
        if self.last:
            context_out = self.norm1_context(context, temb)
        else:
            context_out, context_gate, context_ff_scale, context_ff_gate = self.norm1_context(context, temb)
        attended, attended_context = self.attn1(out, context_out, rotary)
        hidden = hidden + modulated(attended, tanh(gate))
        out = modulated(hidden, 1 + ff_scale.float())
        fed = self.ff(out)
        hidden = hidden + modulated(fed, tanh(ff_gate))
        if self.ff_context is not None:
            context = context + modulated(attended_context, tanh(context_gate))
            context_out = modulated(context, 1 + context_ff_scale.float())
            fed_context = self.ff_context(context_out)
            context = context + modulated(fed_context, tanh(context_ff_gate))
        return hidden, context


class AttentionPool(Module):
    """embeddings.py: MochiAttentionPool, the text's mean asking all of it."""

    def __init__(self, heads: int, dim: int, outputs: int) -> None:
        self.heads = heads
        self.to_kv, self.to_q, self.to_out = Linear(dim, 2 * dim), Linear(dim, dim), Linear(dim, outputs)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, dim = x.shape
        heads, width = self.heads, dim // self.heads
        pooled = x.tape.empty((batch, 1, dim), x.dtype)
        x = cat([pooled, x], 1)
        kv = self.to_kv(x)
        query = self.to_q(narrow(x, batch, dim))
        key, value = unbind(kv.view(batch, heads, 2, tokens + 1, width), 2)
        mask = x.tape.empty((batch, 1, 1, tokens + 1), "bool")
        x = efficient_attention(query.view(batch, heads, 1, width), key, value, mask)
        return self.to_out(x.view(batch, dim))


class TimeCaptionEmbedding(Module):
    """embeddings.py: MochiCombinedTimestepCaptionEmbedding."""

    def __init__(self, dim: int, context_dim: int, text_dim: int, time_dim: int) -> None:
        self.time_dim = time_dim
        self.timestep_embedder = TimestepEmbedding(time_dim, dim)
        self.pooler = AttentionPool(8, text_dim, dim)
        self.caption_proj = Linear(text_dim, context_dim)

    def forward(self, text: Tensor, dtype: str) -> tuple[Tensor, Tensor]:
        time = timesteps(text.tape, text.shape[0], self.time_dim).to(dtype)
        temb = self.timestep_embedder(time)
        pooled = self.pooler(text)
        caption = self.caption_proj(text)
        return temb + pooled, caption


class PatchEmbed(Module):
    def __init__(self, inputs: int, dim: int, patch: int) -> None:
        self.proj = Conv(inputs, dim, (patch, patch), stride=(patch, patch))

    def forward(self, latents: Tensor) -> Tensor:
        return self.proj(latents)


class Mochi(Network):
    def __init__(self, dims: Mapping[str, Any], checkpointing: Checkpointing, *, extend: bool = True) -> None:
        self.heads, self.width = dims["num_attention_heads"], dims["attention_head_dim"]
        dim, count, context_dim = self.heads * self.width, dims["num_layers"], dims["pooled_projection_dim"]
        self.inputs, self.patch, self.text_dim = dims["in_channels"], dims["patch_size"], dims["text_embed_dim"]
        self.stride = tuple(dims["stride"])
        self.patch_embed = PatchEmbed(self.inputs, dim, self.patch)
        self.time_embed = TimeCaptionEmbedding(dim, context_dim, self.text_dim, dims["time_embed_dim"])
        self.pos_frequencies = Parameter((3, self.heads, self.width // 2))
        self.transformer_blocks = Blocks(
            count,
            lambda i: Block(dim, self.heads, context_dim, last=i == count - 1),
            checkpointing,
            kind=lambda i: i == count - 1,
            extend=extend,
        )
        self.norm_out = AdaLayerNormContinuous(dim, dim)
        self.proj_out = Linear(dim, self.patch * self.patch * self.inputs)

    def loss(self, tape: Tape, shape: Shape, dtype: str) -> Tensor:
        frames = (shape.frames - 1) // self.stride[0] + 1
        height, width = shape.height // self.stride[1], shape.width // self.stride[2]
        out = self(
            tape.empty((shape.batch, self.inputs, frames, height, width), dtype),
            tape.empty((shape.batch, shape.text_tokens, self.text_dim), dtype),
        )
        return mse_loss(out.float(), tape.empty(out.shape, "fp32"))

    def forward(self, latents: Tensor, text: Tensor) -> Tensor:
        tape, (batch, channels, frames, height, width) = latents.tape, latents.shape
        temb, context = self.time_embed(text, latents.dtype)
        hidden = latents.contiguous() if somewhere(batch > 1) else latents
        hidden = self.patch_embed(hidden.view(batch * frames, channels, height, width))
        tokens = frames * (height // self.patch) * (width // self.patch)
        hidden = hidden.contiguous().view(batch, tokens, hidden.shape[1])
        rotary = self._rope(tape, tokens)

        for block in self.transformer_blocks.walk(tape):
            hidden, context = block(hidden, context, temb, rotary)
        hidden = self.norm_out(hidden, temb)
        hidden = self.proj_out(hidden)
        return hidden.contiguous().view(*latents.shape)

    def _rope(self, tape: Tape, tokens: Any) -> Rotary:
        """MochiRoPE: positions times learned frequencies, in float32 whatever autocast says."""
        shape = (tokens, self.heads, self.width // 2)
        before, tape.autocast = tape.autocast, None
        positions = tape.empty((tokens, 3), "fp32")
        frequencies = self.pos_frequencies.float().view(3, shape[1] * shape[2])
        angles = matmul(positions, frequencies).view(*shape)
        tape.autocast = before
        return keeps_input(angles), keeps_input(angles)


NETWORK = Mochi
