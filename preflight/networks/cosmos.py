"""Cosmos-Predict 2 and 2.5 image and video transformers (diffusers/models/transformers/transformer_cosmos.py).

Each sample has one timestep; video2world with a timestep a frame expands the modulation to every token, which is not modelled.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from preflight.networks.common import Dropout, LinearActivation, PlainRMSNorm, timesteps
from preflight.networks.network import Network, Shape, check_modelled
from preflight.networks.qwen_image import Layers, sequential
from preflight.tape.activation import gelu, silu
from preflight.tape.attention import attention
from preflight.tape.loss import mse_loss
from preflight.tape.meter import Size
from preflight.tape.module import Blocks, Checkpointing, LayerNorm, Linear, Module
from preflight.tape.shaping import cat, chunk, narrow, unbind
from preflight.tape.tensor import Tape, Tensor

Rotary = tuple[Tensor, Tensor]
DEFAULTS = {
    "extra_pos_embed_type": None,
    "concat_padding_mask": True,
    "img_context_dim_in": None,
}
MODELLED = {name: (value,) for name, value in DEFAULTS.items()}


class TimestepEmbedding(Module):
    """CosmosTimestepEmbedding."""

    def __init__(self, dim: int) -> None:
        self.linear_1, self.linear_2 = Linear(dim, dim, bias=False), Linear(dim, 3 * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear_2(silu(self.linear_1(x)))


class Embedding(Module):
    def __init__(self, dim: int) -> None:
        self.dim = dim
        self.t_embedder = TimestepEmbedding(dim)
        self.norm = PlainRMSNorm(dim)

    def forward(self, tape: Tape, batch: Size, dtype: str) -> tuple[Tensor, Tensor]:
        projected = timesteps(tape, batch, self.dim).to(dtype)
        temb = self.t_embedder(projected)
        return temb, self.norm(projected)


class AdaLayerNorm(Module):
    """CosmosAdaLayerNormZero and, of two pieces, CosmosAdaLayerNorm: x normed, and the gate where there is one."""

    def __init__(self, dim: int, hidden: int, pieces: int) -> None:
        self.pieces = pieces
        self.norm = LayerNorm(dim, affine=False)
        self.linear_1, self.linear_2 = Linear(dim, hidden, bias=False), Linear(hidden, pieces * dim, bias=False)

    def forward(self, hidden: Tensor, embedded: Tensor, temb: Tensor) -> tuple[Tensor, ...]:
        embedded = silu(embedded)
        embedded = self.linear_1(embedded)
        embedded = self.linear_2(embedded)
        if temb.shape[1] != embedded.shape[1]:
            temb = narrow(temb, *embedded.shape)
        embedded = embedded + temb
        vectors = chunk(embedded, self.pieces, -1)
        hidden = self.norm(hidden)
        shift, scale, *gate = (vector.view(vector.shape[0], 1, vector.shape[1]) for vector in vectors)
        return (hidden * (1 + scale) + shift, *gate)


def apply_rotary_emb(x: Tensor, rotary: Rotary) -> Tensor:
    """embeddings.py: apply_rotary_emb with use_real_unbind_dim=-2; x is (B, heads, tokens, width)."""
    cos, sin = (part.view(1, 1, *part.shape) for part in rotary)
    real, imaginary = unbind(x.view(*x.shape[:3], 2, x.shape[3] // 2), -2)
    rotated = cat([-imaginary, real], -1)
    return (x.float() * cos + rotated.float() * sin).to(x.dtype)


class Attention(Module):
    """CosmosAttnProcessor2_0; keys and values are repeated once, which copies them."""

    def __init__(self, dim: int, heads: int, context_dim: int) -> None:
        self.heads = heads
        self.norm_q, self.norm_k = PlainRMSNorm(dim // heads), PlainRMSNorm(dim // heads)
        self.to_q = Linear(dim, dim, bias=False)
        self.to_k, self.to_v = Linear(context_dim, dim, bias=False), Linear(context_dim, dim, bias=False)
        self.to_out = [Linear(dim, dim, bias=False), Dropout()]

    def forward(self, hidden: Tensor, context: Tensor | None = None, rotary: Rotary | None = None) -> Tensor:
        if context is None:
            context = hidden
        query, key, value = self.to_q(hidden), self.to_k(context), self.to_v(context)
        query, key, value = self._heads(query), self._heads(key), self._heads(value)
        query = self.norm_q(query)
        key = self.norm_k(key)
        if rotary is not None:
            query = apply_rotary_emb(query, rotary)
            key = apply_rotary_emb(key, rotary)
        key = key.contiguous()
        value = value.contiguous()
        hidden = attention(query, key, value)
        batch, heads, tokens, width = hidden.shape
        hidden = hidden.view(batch, tokens, heads * width).type_as(query)
        return self.to_out[0](hidden)

    def _heads(self, x: Tensor) -> Tensor:
        batch, tokens, dim = x.shape
        return x.view(batch, self.heads, tokens, dim // self.heads)


class FeedForward(Module):
    """attention.py: FeedForward without biases."""

    def __init__(self, dim: int, inner: int) -> None:
        first = LinearActivation(dim, inner, gelu)
        first.proj = Linear(dim, inner, bias=False)
        self.net = [first, Dropout(), Linear(inner, dim, bias=False)]

    def forward(self, x: Tensor) -> Tensor:
        for module in self.net:
            x = module(x)
        return x


class Block(Module):
    def __init__(self, dim: int, heads: int, text_dim: int, inner: int, adaln: int) -> None:
        self.norm1, self.attn1 = AdaLayerNorm(dim, adaln, 3), Attention(dim, heads, dim)
        self.norm2, self.attn2 = AdaLayerNorm(dim, adaln, 3), Attention(dim, heads, text_dim)
        self.norm3, self.ff = AdaLayerNorm(dim, adaln, 3), FeedForward(dim, inner)

    def forward(self, hidden: Tensor, text: Tensor, embedded: Tensor, temb: Tensor, rotary: Rotary) -> Tensor:
        normed, gate = self.norm1(hidden, embedded, temb)
        attended = self.attn1(normed, rotary=rotary)
        hidden = hidden + gate * attended
        normed, gate = self.norm2(hidden, embedded, temb)
        attended = self.attn2(normed, text)
        hidden = hidden + gate * attended
        normed, gate = self.norm3(hidden, embedded, temb)
        fed = self.ff(normed)
        return hidden + gate * fed


class PatchEmbed(Module):
    def __init__(self, inputs: int, dim: int) -> None:
        self.proj = Linear(inputs, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x)


class Cosmos(Network):
    guidance_doubles = False  # the pipelines call it twice, one half after the other

    def __init__(self, dims: Mapping[str, Any], checkpointing: Checkpointing, *, extend: bool = True) -> None:
        check_modelled({**DEFAULTS, **dims}, MODELLED, "CosmosTransformer3DModel")
        heads, self.width = dims["num_attention_heads"], dims["attention_head_dim"]
        dim, adaln = heads * self.width, dims["adaln_lora_dim"]
        self.inputs, self.outputs, self.text_dim = dims["in_channels"], dims["out_channels"], dims["text_embed_dim"]
        self.patch, self.stride = tuple(dims["patch_size"]), tuple(dims["stride"])
        self.channels = (self.inputs + 1) * prod(self.patch)  # with the padding mask
        self.patch_embed = PatchEmbed(self.channels, dim)
        self.time_embed = Embedding(dim)
        self.transformer_blocks = Blocks(
            dims["num_layers"],
            lambda _: Block(dim, heads, self.text_dim, int(dim * dims["mlp_ratio"]), adaln),
            checkpointing,
            extend=extend,
        )
        self.text_inputs = self.text_dim
        self.crossattn_proj: Layers | None = None
        if dims.get("use_crossattn_projection"):  # Predict 2.5: all layers of the text encoder side by side
            self.text_inputs = dims["crossattn_proj_in_channels"]
            self.crossattn_proj = [Linear(self.text_inputs, dims["encoder_hidden_states_channels"]), gelu]
        self.norm_out = AdaLayerNorm(dim, adaln, 2)
        self.proj_out = Linear(dim, prod(self.patch) * self.outputs, bias=False)

    def loss(self, tape: Tape, shape: Shape, dtype: str) -> Tensor:
        batch, frames = shape.batch, (shape.frames - 1) // self.stride[0] + 1
        height, width = shape.height // self.stride[1], shape.width // self.stride[2]
        out = self(
            tape.empty((batch, self.outputs, frames, height, width), dtype),
            tape.empty((batch, self.inputs - self.outputs, frames, height, width), dtype),
            tape.empty((batch, shape.text_tokens, self.text_inputs), dtype),
            tape.empty((1, 1, shape.height, shape.width), dtype),
        )
        return mse_loss(out.float(), tape.empty(out.shape, "fp32"))

    def forward(self, latents: Tensor, condition: Tensor, text: Tensor, padding: Tensor) -> Tensor:
        del padding  # the caller keeps it
        tape, (batch, _, *size) = latents.tape, latents.shape
        frames, height, width = (n // p for n, p in zip(size, self.patch, strict=True))
        tokens = frames * height * width
        hidden = cat([latents, condition], 1) if self.inputs > self.outputs else latents
        hidden = cat([hidden, tape.empty((batch, 1, *size), latents.dtype)], 1)
        rotary = (tape.empty((tokens, self.width), "fp32"), tape.empty((tokens, self.width), "fp32"))
        hidden = self.patch_embed(hidden.contiguous().view(batch, tokens, self.channels))
        temb, embedded = self.time_embed(tape, batch, hidden.dtype)
        if self.crossattn_proj is not None:
            text = sequential(self.crossattn_proj, text)
        for block in self.transformer_blocks.walk(tape):
            hidden = block(hidden, text, embedded, temb, rotary)
        (hidden,) = self.norm_out(hidden, embedded, temb)
        hidden = self.proj_out(hidden)
        return hidden.view(batch, self.outputs, *size).contiguous()


NETWORK = Cosmos
