"""Wan 2.1 and 2.2 video transformers (diffusers/models/transformers/transformer_wan.py)."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from preflight.networks.common import FeedForward, TextProjection, TimestepEmbedding, timesteps
from preflight.networks.network import Network, Shape
from preflight.tape.activation import silu
from preflight.tape.attention import attention
from preflight.tape.loss import mse_loss
from preflight.tape.module import Blocks, Checkpointing, Conv, FP32LayerNorm, Linear, Module, RMSNorm
from preflight.tape.sequence import shared_attention
from preflight.tape.shaping import assign, cat, chunk, narrow, unbind
from preflight.tape.tensor import Buffer, Parameter, Tape, Tensor

Rotary = tuple[Tensor, Tensor]


class WanAttention(Module):
    def __init__(self, dim: int, heads: int, *, image_dim: int | None = None) -> None:
        self.heads = heads
        self.to_q, self.to_k, self.to_v = Linear(dim, dim), Linear(dim, dim), Linear(dim, dim)
        self.to_out = [Linear(dim, dim)]
        self.norm_q, self.norm_k = RMSNorm(dim), RMSNorm(dim)
        self.image = image_dim is not None
        if image_dim is not None:
            self.add_k_proj, self.add_v_proj = Linear(image_dim, dim), Linear(image_dim, dim)
            self.norm_added_k = RMSNorm(dim)

    def forward(self, hidden: Tensor, context: Tensor | None, rotary: Rotary | None) -> Tensor:
        image = None
        if self.image and context is not None:
            batch, tokens, dim = context.shape
            image = narrow(context, batch, tokens - TEXT_TOKENS, dim)
            context = narrow(context, batch, TEXT_TOKENS, dim)
        if context is None:
            context = hidden
        query, key, value = self.to_q(hidden), self.to_k(context), self.to_v(context)
        query = self.norm_q(query)
        key = self.norm_k(key)
        query, key, value = self._heads(query), self._heads(key), self._heads(value)
        if rotary is not None:
            query = rotate(query, *rotary)
            key = rotate(key, *rotary)
        attended_image = None
        if image is not None:
            key_image, value_image = self.add_k_proj(image), self.add_v_proj(image)
            key_image = self._heads(self.norm_added_k(key_image))
            attended_image = self._merge(_attend(query, key_image, self._heads(value_image)))
        attend = shared_attention if rotary is not None else _attend
        attended = self._merge(attend(query, key, value)).type_as(query)
        if attended_image is not None:
            attended = attended + attended_image
        return self.to_out[0](attended)

    def _heads(self, x: Tensor) -> Tensor:
        batch, tokens, dim = x.shape
        return x.view(batch, tokens, self.heads, dim // self.heads)

    def _merge(self, x: Tensor) -> Tensor:
        batch, tokens, heads, width = x.shape
        return x.view(batch, tokens, heads * width)


TEXT_TOKENS = 512  # transformer_wan.py: "512 is the context length of the text encoder, hardcoded for now"


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    query, key, value = (x.view(x.shape[0], x.shape[2], x.shape[1], x.shape[3]) for x in (query, key, value))
    out = attention(query, key, value)
    return out.view(out.shape[0], out.shape[2], out.shape[1], out.shape[3])


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding written into an empty tensor, half by half."""
    batch, tokens, heads, width = x.shape
    x1, x2 = unbind(x.view(batch, tokens, heads, width // 2, 2), -1)
    cos = narrow(cos, 1, tokens, 1, width // 2)
    sin = narrow(sin, 1, tokens, 1, width // 2)
    out = x.tape.empty(x.shape, x.dtype)
    assign(out, x1.shape, x1 * cos - x2 * sin)
    assign(out, x1.shape, x1 * sin + x2 * cos)
    return out


class WanBlock(Module):
    def __init__(self, dim: int, ffn_dim: int, heads: int, *, cross_attn_norm: bool, image_dim: int | None) -> None:
        self.norm1 = FP32LayerNorm(dim, affine=False)
        self.attn1 = WanAttention(dim, heads)
        self.attn2 = WanAttention(dim, heads, image_dim=image_dim)
        self.norm2 = FP32LayerNorm(dim) if cross_attn_norm else None
        self.ffn = FeedForward(dim, ffn_dim)
        self.norm3 = FP32LayerNorm(dim, affine=False)
        self.scale_shift_table = Parameter((1, 6, dim))

    def forward(self, hidden: Tensor, context: Tensor, temb: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        shift, scale, gate, ffn_shift, ffn_scale, ffn_gate = chunk(self.scale_shift_table + temb.float(), 6, 1)

        normed = (self.norm1(hidden.float()) * (1 + scale) + shift).type_as(hidden)
        attended = self.attn1(normed, None, (cos, sin))
        hidden = (hidden.float() + attended * gate).type_as(hidden)

        normed = self.norm2(hidden.float()).type_as(hidden) if self.norm2 is not None else hidden
        attended = self.attn2(normed, context, None)
        hidden = hidden + attended

        normed = (self.norm3(hidden.float()) * (1 + ffn_scale) + ffn_shift).type_as(hidden)
        fed = self.ffn(normed)
        return (hidden.float() + fed.float() * ffn_gate).type_as(hidden)


class ImageEmbedding(Module):
    """Wan 2.1 image-to-video: CLIP tokens to the text's width."""

    def __init__(self, inputs: int, dim: int) -> None:
        self.norm1 = FP32LayerNorm(inputs)
        self.ff = FeedForward(inputs, inputs, outputs=dim)
        self.norm2 = FP32LayerNorm(dim)

    def forward(self, image: Tensor) -> Tensor:
        hidden = self.norm1(image)
        hidden = self.ff(hidden)
        return self.norm2(hidden)


class ConditionEmbedder(Module):
    def __init__(self, dim: int, freq_dim: int, text_dim: int, image_dim: int | None) -> None:
        self.freq_dim = freq_dim
        self.time_embedder = TimestepEmbedding(freq_dim, dim)
        self.time_proj = Linear(dim, dim * 6)
        self.text_embedder = TextProjection(text_dim, dim, dim)
        self.image_embedder = ImageEmbedding(image_dim, dim) if image_dim is not None else None

    def forward(self, tape: Tape, batch: Any, text: Tensor, image: Tensor | None) -> tuple[Tensor, ...]:
        time = timesteps(tape, batch, self.freq_dim).to(self.time_embedder.linear_1.weight.dtype)
        temb = self.time_embedder(time).type_as(text)
        projected = self.time_proj(silu(temb))
        text = self.text_embedder(text)
        if image is not None and self.image_embedder is not None:
            text = cat([self.image_embedder(image), text], 1)
        return temb, projected, text


class Wan(Network):
    divides_sequence = True
    guidance_doubles = False  # wan/text2video.py and diffusers' pipeline_wan.py call it twice, one half after the other

    def __init__(self, dims: Mapping[str, Any], checkpointing: Checkpointing, *, extend: bool = True) -> None:
        self.heads, self.width = dims["num_attention_heads"], dims["attention_head_dim"]
        dim = self.heads * self.width
        self.patch = tuple(dims["patch_size"])
        self.stride = tuple(dims["stride"])
        self.inputs, self.outputs, self.text_dim = dims["in_channels"], dims["out_channels"], dims["text_dim"]
        image_dim, added = dims.get("image_dim"), dims.get("added_kv_proj_dim")
        self.image_dim = image_dim
        self.freqs_cos = Buffer((1024, self.width))
        self.freqs_sin = Buffer((1024, self.width))
        self.patch_embedding = Conv(self.inputs, dim, self.patch, stride=self.patch)
        self.condition_embedder = ConditionEmbedder(dim, dims["freq_dim"], self.text_dim, image_dim)
        self.blocks = Blocks(
            dims["num_layers"],
            lambda _: WanBlock(
                dim, dims["ffn_dim"], self.heads, cross_attn_norm=dims.get("cross_attn_norm", True), image_dim=added
            ),
            checkpointing,
            extend=extend,
        )
        self.norm_out = FP32LayerNorm(dim, affine=False)
        self.proj_out = Linear(dim, self.outputs * prod(self.patch))
        self.scale_shift_table = Parameter((1, 2, dim))

    def loss(self, tape: Tape, shape: Shape, dtype: str) -> Tensor:
        frames = (shape.frames - 1) // self.stride[0] + 1
        height, width = shape.height // self.stride[1], shape.width // self.stride[2]
        latents = tape.empty((shape.batch, self.inputs, frames, height, width), dtype)
        text = tape.empty((shape.batch, shape.text_tokens, self.text_dim), dtype)
        image = tape.empty((shape.batch, 257, self.image_dim), dtype) if self.image_dim is not None else None
        out = self(tape, latents, text, image, shape.sequence)
        return mse_loss(out.float(), tape.empty(out.shape, "fp32"))

    def forward(self, tape: Tape, latents: Tensor, text: Tensor, image: Tensor | None, sequence: int) -> Tensor:
        batch, _, *size = latents.shape
        frames, height, width = (n // p for n, p in zip(size, self.patch, strict=True))
        tokens = frames * height * width
        cos = tape.empty((1, tokens, 1, self.width), "fp32")
        sin = tape.empty((1, tokens, 1, self.width), "fp32")

        hidden = self.patch_embedding(latents)
        hidden = hidden.view(batch, tokens, hidden.shape[1]).contiguous()
        temb, projected, text = self.condition_embedder(tape, batch, text, image)
        dim = hidden.shape[2]
        projected = projected.view(batch, 6, dim)
        if sequence > 1:  # Ulysses, first order: each rank keeps its part of the tokens, in attention its part of the heads
            tokens = -(-tokens // sequence)
            hidden = narrow(hidden, batch, tokens, dim)  # views: torch.chunk, as wan/distributed and diffusers' _cp_plan cut
            cos, sin = (narrow(x, 1, tokens, 1, self.width) for x in (cos, sin))
        for block in self.blocks.walk(tape):
            hidden = block(hidden, text, projected, cos, sin)

        shift, scale = chunk(self.scale_shift_table + temb.view(batch, 1, dim), 2, 1)
        hidden = (self.norm_out(hidden.float()) * (1 + scale) + shift).type_as(hidden)
        hidden = self.proj_out(hidden)
        if sequence > 1:  # gathered from all ranks
            hidden = cat([hidden] * sequence, 1)
        return hidden.view(batch, self.outputs, *size).contiguous()


NETWORK = Wan
