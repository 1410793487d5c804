"""SANA-Video transformers (diffusers/models/transformers/transformer_sana_video.py): Sana with rotary positions and time."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from preflight.networks import sana
from preflight.networks.common import Dropout, PlainRMSNorm, TextProjection
from preflight.networks.modulated import AdaLayerNormSingle, MaskedAttention, text_bias, vectors
from preflight.networks.network import Network, NotModelled, Shape
from preflight.networks.sana import ModulatedNorm
from preflight.networks.wan import rotate
from preflight.tape.activation import keeps_result, relu, silu
from preflight.tape.linear import matmul
from preflight.tape.loss import mse_loss
from preflight.tape.meter import somewhere
from preflight.tape.module import Blocks, Checkpointing, Conv, LayerNorm, Linear, Module
from preflight.tape.shaping import chunk, sum_over
from preflight.tape.tensor import Buffer, Parameter, Tape, Tensor

POSITIONS = 1024  # rope_max_seq_len


class LinearAttention(Module):
    """Attention with SanaLinearAttnProcessor3_0: rotated in what is multiplied, not in what it is divided by."""

    def __init__(self, dim: int, heads: int) -> None:
        self.heads = heads
        self.norm_q, self.norm_k = PlainRMSNorm(dim), PlainRMSNorm(dim)
        self.to_q, self.to_k, self.to_v = (Linear(dim, dim, bias=False) for _ in range(3))
        self.to_out = [Linear(dim, dim), Dropout()]

    def forward(self, hidden: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        dtype, (batch, tokens, dim) = hidden.dtype, hidden.shape
        width = dim // self.heads
        query, key, value = self.to_q(hidden), self.to_k(hidden), self.to_v(hidden)
        query = self.norm_q(query)
        key = self.norm_k(key)
        query, key, value = (x.view(batch, tokens, self.heads, width) for x in (query, key, value))
        query = relu(query)
        key = relu(key)
        rotated_query = rotate(query, cos, sin)
        rotated_key = rotate(key, cos, sin)
        query, rotated_query, value = (x.view(batch, self.heads, width, tokens) for x in (query, rotated_query, value))
        rotated_key = rotated_key.view(batch, self.heads, tokens, width)
        rotated_query, rotated_key, value = rotated_query.float(), rotated_key.float(), value.float()
        sums = sum_over(key, batch, self.heads, 1, width)
        z = keeps_result(matmul(sums, _apart(query)) + 1e-15) * 1.0
        scores = matmul(_apart(value), _apart(rotated_key))
        hidden = matmul(scores, _apart(rotated_query))
        hidden = hidden * z
        hidden = hidden.view(batch, tokens, dim)
        hidden = hidden.to(dtype)
        return self.to_out[0](hidden, transposed=True)


def _apart(x: Tensor) -> Tensor:
    """torch.matmul: samples and heads do not merge into one batch as they lie, so several samples are copied first."""
    return x.contiguous() if somewhere(x.shape[0] > 1) else x


class CrossAttention(MaskedAttention):
    """SanaAttnProcessor2_0 with normed queries and keys."""

    def __init__(self, dim: int, heads: int, context_dim: int) -> None:
        super().__init__(dim, heads, context_dim)
        self.norm_q, self.norm_k = PlainRMSNorm(dim), PlainRMSNorm(dim)


class GLUMBTempConv(sana.GLUMBConv):
    """A convolution over time after those over pixels."""

    def __init__(self, dim: int, ratio: float) -> None:
        super().__init__(dim, ratio)
        self.conv_temp = Conv(dim, dim, (3, 1), padding=(1, 0), bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        batch, frames, height, width, channels = hidden.shape
        hidden = hidden.view(batch * frames, channels, height, width)
        hidden = self.conv_inverted(hidden)
        hidden = silu(hidden)
        hidden = self.conv_depth(hidden)
        hidden, gate = chunk(hidden, 2, 1)
        hidden = hidden * silu(gate)
        hidden = self.conv_point(hidden)
        temporal = hidden.view(batch, channels, frames, height * width)
        hidden = temporal + self.conv_temp(temporal)
        del gate
        return hidden.view(batch, frames, height, width, channels)


class Block(Module):
    """SanaVideoTransformerBlock; the video comes to the `first` as the convolution left it, pixels behind channels."""

    def __init__(self, dim: int, heads: int, cross_heads: int, ratio: float, *, first: bool) -> None:
        self.first = first
        self.norm1, self.attn1 = LayerNorm(dim, affine=False), LinearAttention(dim, heads)
        self.norm2, self.attn2 = LayerNorm(dim, affine=False), CrossAttention(dim, cross_heads, dim)
        self.ff = GLUMBTempConv(dim, ratio)
        self.scale_shift_table = Parameter((6, dim))

    def forward(
        self, hidden: Tensor, context: Tensor, bias: Tensor, time: Tensor, size: tuple[Any, ...], cos: Tensor, sin: Tensor
    ) -> Tensor:
        batch, tokens, dim = hidden.shape
        shift, scale, gate, ff_shift, ff_scale, ff_gate = vectors(self.scale_shift_table, time)
        normed = self.norm1(hidden)
        normed = normed * (1 + scale) + shift
        normed = normed.to(hidden.dtype)
        attended = self.attn1(normed, cos, sin)
        hidden = hidden + gate * attended
        attended = self.attn2(hidden, context, bias, transposed=self.first)
        hidden = attended + hidden
        normed = self.norm2(hidden)
        normed = normed * (1 + ff_scale) + ff_shift
        normed = normed.view(batch, *size, dim)
        fed = self.ff(normed)
        fed = fed.view(batch, tokens, dim)
        return hidden + ff_gate * fed


class SanaVideo(Network):
    def __init__(self, dims: Mapping[str, Any], checkpointing: Checkpointing, *, extend: bool = True) -> None:
        if dims.get("guidance_embeds") or dims.get("qk_norm", "") != "rms_norm_across_heads":
            raise NotModelled("only SANA-Video without guidance_embeds and with qk_norm rms_norm_across_heads is modelled")
        heads, self.width = dims["num_attention_heads"], dims["attention_head_dim"]
        dim = heads * self.width
        self.inputs, self.outputs, self.text_dim = dims["in_channels"], dims["out_channels"], dims["caption_channels"]
        self.patch, self.stride = tuple(dims["patch_size"]), tuple(dims["stride"])
        self.freqs_cos, self.freqs_sin = Buffer((POSITIONS, self.width)), Buffer((POSITIONS, self.width))
        self.patch_embedding = Conv(self.inputs, dim, self.patch, stride=self.patch)
        self.time_embed = AdaLayerNormSingle(dim)
        self.caption_projection = TextProjection(self.text_dim, dim, dim)
        self.caption_norm = PlainRMSNorm(dim)
        self.transformer_blocks = Blocks(
            dims["num_layers"],
            lambda i: Block(dim, heads, dims["num_cross_attention_heads"], dims["mlp_ratio"], first=i == 0),
            checkpointing,
            kind=lambda i: i == 0,
            extend=extend,
        )
        self.scale_shift_table = Parameter((2, dim))
        self.norm_out = ModulatedNorm(dim)
        self.proj_out = Linear(dim, self.outputs * prod(self.patch))

    def loss(self, tape: Tape, shape: Shape, dtype: str) -> Tensor:
        frames = (shape.frames - 1) // self.stride[0] + 1
        height, width = shape.height // self.stride[1], shape.width // self.stride[2]
        out = self(
            tape.empty((shape.batch, self.inputs, frames, height, width), dtype),
            tape.empty((shape.batch, shape.text_tokens, self.text_dim), dtype),
            tape.empty((shape.batch, shape.text_tokens), "int64"),
        )
        return mse_loss(out.float(), tape.empty(out.shape, "fp32"))

    def forward(self, latents: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        tape, (batch, _, *pixels) = latents.tape, latents.shape
        size = tuple(n // p for n, p in zip(pixels, self.patch, strict=True))
        tokens = prod(size)
        bias = text_bias(mask, latents.dtype)
        cos, sin = (tape.empty((1, tokens, 1, self.width), "fp32") for _ in range(2))
        hidden = self.patch_embedding(latents)
        hidden = hidden.view(batch, tokens, hidden.shape[1])
        time, embedded = self.time_embed(hidden)
        context = self.caption_projection(text)
        context = self.caption_norm(context)
        for block in self.transformer_blocks.walk(tape):
            hidden = block(hidden, context, bias, time, size, cos, sin)
        hidden = self.norm_out(hidden, embedded, self.scale_shift_table)
        hidden = self.proj_out(hidden)
        return hidden.view(batch, self.outputs, *pixels).contiguous()


NETWORK = SanaVideo
