"""Lumina-Image 2.0 transformers (diffusers/models/transformers/transformer_lumina2.py).

Every sample's caption is taken to have the same length, so that no mask is needed where text and image run together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from preflight.networks.common import Dropout, PlainRMSNorm, TimestepEmbedding, silu_fp32, timesteps
from preflight.networks.network import Network, NotModelled, Shape
from preflight.tape.activation import silu, tanh
from preflight.tape.attention import attention
from preflight.tape.complex import apply_complex_rotary
from preflight.tape.loss import mse_loss
from preflight.tape.meter import Size, somewhere
from preflight.tape.module import Blocks, Checkpointing, LayerNorm, Linear, Module
from preflight.tape.shaping import assign, chunk, narrow, sum_over
from preflight.tape.tensor import Tape, Tensor

TIME_DIM = 1024  # min(hidden_size, 1024)


class Attention(Module):
    """Attention with Lumina2AttnProcessor2_0: fewer heads of keys and values, each repeated for its queries."""

    def __init__(self, dim: int, heads: int, kv_heads: int) -> None:
        self.heads, self.kv_heads, self.width = heads, kv_heads, dim // heads
        kv_dim = kv_heads * self.width
        self.norm_q, self.norm_k = PlainRMSNorm(self.width), PlainRMSNorm(self.width)
        self.to_q = Linear(dim, dim, bias=False)
        self.to_k, self.to_v = Linear(dim, kv_dim, bias=False), Linear(dim, kv_dim, bias=False)
        self.to_out = [Linear(dim, dim, bias=False), Dropout()]

    def forward(self, hidden: Tensor, mask: Tensor | None, rotary: Tensor) -> Tensor:
        batch, tokens, dim = hidden.shape
        query, key, value = self.to_q(hidden), self.to_k(hidden), self.to_v(hidden)
        dtype = query.dtype
        query = query.view(batch, tokens, self.heads, self.width)
        key, value = key.view(batch, tokens, self.kv_heads, self.width), value.view(batch, tokens, self.kv_heads, self.width)
        query = self.norm_q(query)
        key = self.norm_k(key)
        query = apply_complex_rotary(query, rotary)
        key = apply_complex_rotary(key, rotary)
        query, key = query.to(dtype), key.to(dtype)
        key = self._repeated(key)
        value = self._repeated(value)
        if mask is not None:
            mask = mask.to("bool").view(batch, 1, 1, tokens)
        query, key, value = (x.view(batch, self.heads, tokens, self.width) for x in (query, key, value))
        hidden = attention(query, key, value, mask)
        hidden = hidden.view(batch, tokens, dim).type_as(query)
        return self.to_out[0](hidden)

    def _repeated(self, x: Tensor) -> Tensor:
        """`x.unsqueeze(3).repeat(…).flatten(2, 3)`: a new tensor, whose gradient is summed up again."""
        batch, tokens, _, width = x.shape
        return sum_over(x, batch, tokens, self.heads, width)


class FeedForward(Module):
    """attention.py: LuminaFeedForward."""

    def __init__(self, dim: int, inner: int) -> None:
        self.linear_1, self.linear_2, self.linear_3 = (
            Linear(dim, inner, bias=False),
            Linear(inner, dim, bias=False),
            Linear(dim, inner, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.linear_2(silu_fp32(self.linear_1(x)) * self.linear_3(x))


class RMSNormZero(Module):
    """normalization.py: LuminaRMSNormZero."""

    def __init__(self, dim: int) -> None:
        self.linear = Linear(TIME_DIM, 4 * dim)
        self.norm: Module = PlainRMSNorm(dim)

    def forward(self, x: Tensor, emb: Tensor) -> tuple[Tensor, ...]:
        emb = self.linear(silu(emb))
        scale, *rest = chunk(emb.view(emb.shape[0], 1, emb.shape[1]), 4, -1)
        x = self.norm(x) * (1 + scale)
        return (x, *rest)


class Block(Module):
    """Lumina2TransformerBlock; `modulated` by the time, or not."""

    def __init__(self, dims: Mapping[str, Any], inner: int, *, modulated: bool) -> None:
        dim = dims["hidden_size"]
        self.attn: Module = Attention(dim, dims["num_attention_heads"], dims["num_kv_heads"])
        self.feed_forward: Module = FeedForward(dim, inner)
        self.norm1: Module = RMSNormZero(dim) if modulated else PlainRMSNorm(dim)
        self.ffn_norm1: Module = PlainRMSNorm(dim)
        self.norm2: Module = PlainRMSNorm(dim)
        self.ffn_norm2: Module = PlainRMSNorm(dim)
        self.modulated = modulated

    def forward(self, hidden: Tensor, mask: Tensor | None, rotary: Tensor, temb: Tensor | None = None) -> Tensor:
        if self.modulated:
            normed, gate, ff_scale, ff_gate = self.norm1(hidden, temb)
            attended = self.attn(normed, mask, rotary)
            hidden = hidden + tanh(gate) * self.norm2(attended)
            fed = self.feed_forward(self.ffn_norm1(hidden) * (1 + ff_scale))
            return hidden + tanh(ff_gate) * self.ffn_norm2(fed)
        normed = self.norm1(hidden)
        attended = self.attn(normed, mask, rotary)
        hidden = hidden + self.norm2(attended)
        fed = self.feed_forward(self.ffn_norm1(hidden))
        return hidden + self.ffn_norm2(fed)


class TimeCaptionEmbedding(Module):
    """Lumina2CombinedTimestepCaptionEmbedding."""

    def __init__(self, dim: int, text_dim: int) -> None:
        self.timestep_embedder = TimestepEmbedding(256, TIME_DIM)
        self.caption_embedder = [PlainRMSNorm(text_dim), Linear(text_dim, dim)]

    def forward(self, hidden: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        time = timesteps(hidden.tape, hidden.shape[0], 256).to(hidden.dtype)
        temb = self.timestep_embedder(time)
        return temb, self.caption_embedder[1](self.caption_embedder[0](text))


class LayerNormContinuous(Module):
    """normalization.py: LuminaLayerNormContinuous."""

    def __init__(self, dim: int, outputs: int) -> None:
        self.linear_1, self.linear_2 = Linear(TIME_DIM, dim), Linear(dim, outputs)
        self.norm = LayerNorm(dim, affine=False)

    def forward(self, x: Tensor, temb: Tensor) -> Tensor:
        scale = self.linear_1(silu(temb).to(x.dtype))
        x = self.norm(x) * (1 + scale).view(scale.shape[0], 1, scale.shape[1])
        return self.linear_2(x)


class Lumina2(Network):
    def __init__(self, dims: Mapping[str, Any], checkpointing: Checkpointing, *, extend: bool = True) -> None:
        self.dim, self.text_dim = dims["hidden_size"], dims["cap_feat_dim"]
        if self.dim < TIME_DIM:
            raise NotModelled(f"Lumina2 with a hidden_size below {TIME_DIM} is not modelled")
        self.inputs, self.patch = dims["in_channels"], dims["patch_size"]
        self.stride, self.rotary_width = tuple(dims["stride"]), sum(dims["axes_dim_rope"]) // 2
        pixels, layers = self.patch * self.patch * self.inputs, dims["num_refiner_layers"]
        inner = _inner(4 * self.dim, dims["multiple_of"], dims["ffn_dim_multiplier"])
        self.x_embedder = Linear(pixels, self.dim)
        self.time_caption_embed = TimeCaptionEmbedding(self.dim, self.text_dim)
        # only the layers are ever checkpointed
        self.noise_refiner = Blocks(layers, lambda _: Block(dims, inner, modulated=True), Checkpointing(), extend=extend)
        self.context_refiner = Blocks(layers, lambda _: Block(dims, inner, modulated=False), Checkpointing(), extend=extend)
        self.layers = Blocks(dims["num_layers"], lambda _: Block(dims, inner, modulated=True), checkpointing, extend=extend)
        self.norm_out = LayerNormContinuous(self.dim, pixels)

    def loss(self, tape: Tape, shape: Shape, dtype: str) -> Tensor:
        batch, height, width = shape.batch, shape.height // self.stride[1], shape.width // self.stride[2]
        out = self(
            tape.empty((batch, self.inputs, height, width), dtype),
            tape.empty((batch, shape.text_tokens, self.text_dim), dtype),
            tape.empty((batch, shape.text_tokens), "bool"),
        )
        return mse_loss(out.float(), tape.empty(out.shape, "fp32"))

    def forward(self, latents: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        tape, (batch, channels, height, width) = latents.tape, latents.shape
        temb, context = self.time_caption_embed(latents, text)
        tokens, image = context.shape[1], (height // self.patch) * (width // self.patch)
        rotary, context_rotary, noise_rotary = (
            tape.empty((batch, n, self.rotary_width), "complex128") for n in (tokens + image, tokens, image)
        )
        hidden = latents.contiguous().view(batch, image, self.patch * self.patch * channels)
        hidden = self.x_embedder(hidden)
        for layer in self.context_refiner.walk(tape):
            context = layer(context, mask, context_rotary)
        for layer in self.noise_refiner.walk(tape):
            hidden = layer(hidden, None, noise_rotary, temb)

        joint = self._joined(hidden, context)
        hidden = joint
        for layer in self.layers.walk(tape):
            hidden = layer(hidden, None, rotary, temb)
        hidden = self.norm_out(hidden, temb)
        return self._unpatched(hidden, image, height, width)

    def _joined(self, hidden: Tensor, context: Tensor) -> Tensor:
        """Each sample's text and image written into one tensor; from the second sample on, the others do as it does."""
        batch, image, tokens = hidden.shape[0], hidden.shape[1], context.shape[1]
        joint = hidden.tape.empty((batch, tokens + image, self.dim), hidden.dtype)
        for _ in range(2 if somewhere(batch > 1) else 1):
            assign(joint, (tokens, self.dim), narrow(context, tokens, self.dim))
            assign(joint, (image, self.dim), narrow(hidden, image, self.dim))
        return joint

    def _unpatched(self, hidden: Tensor, image: Size, height: Size, width: Size) -> Tensor:
        batch, pixels = hidden.shape[0], hidden.shape[2]
        output = narrow(hidden, batch, image, pixels).contiguous()
        return output.view(batch, self.inputs, height, width).contiguous()


def _inner(inner: int, multiple_of: int, multiplier: float | None) -> int:
    if multiplier is not None:
        inner = int(multiplier * inner)
    return multiple_of * ((inner + multiple_of - 1) // multiple_of)


NETWORK = Lumina2
