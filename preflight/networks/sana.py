"""Sana transformers (diffusers/models/transformers/sana_transformer.py): linear attention to the image, full to the text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from preflight.networks.common import Dropout, PlainRMSNorm, TextProjection
from preflight.networks.modulated import AdaLayerNormSingle, MaskedAttention, text_bias, vectors
from preflight.networks.network import Network, NotModelled, Shape
from preflight.tape.activation import clip, relu, silu
from preflight.tape.linear import matmul
from preflight.tape.loss import mse_loss
from preflight.tape.meter import Size, somewhere
from preflight.tape.module import Blocks, Checkpointing, Conv, LayerNorm, Linear, Module
from preflight.tape.ratio import divide
from preflight.tape.shaping import chunk, narrow, pad
from preflight.tape.tensor import Parameter, Tape, Tensor


class LinearAttention(Module):
    """Attention with SanaLinearAttnProcessor2_0: keys and values are multiplied first, so nothing grows with tokens squared."""

    def __init__(self, dim: int, heads: int) -> None:
        self.heads = heads
        self.to_q, self.to_k, self.to_v = (Linear(dim, dim, bias=False) for _ in range(3))
        self.to_out = [Linear(dim, dim), Dropout()]

    def forward(self, hidden: Tensor) -> Tensor:
        dtype, (batch, tokens, dim) = hidden.dtype, hidden.shape
        width = dim // self.heads
        query, key, value = self.to_q(hidden), self.to_k(hidden), self.to_v(hidden)
        query = query.view(batch, self.heads, width, tokens)
        key = key.view(batch, self.heads, tokens, width)
        value = value.view(batch, self.heads, width, tokens)
        query = relu(query)
        key = relu(key)
        query, key, value = query.float(), key.float(), value.float()
        value = pad(value, batch, self.heads, width + 1, tokens)
        scores = _product(value, key)
        hidden = _product(scores, query)
        hidden = divide(narrow(hidden, batch, self.heads, width, tokens), narrow(hidden, batch, self.heads, 1, tokens) + 1e-15)
        hidden = hidden.view(batch, tokens, dim)
        hidden = hidden.to(dtype)
        hidden = self.to_out[0](hidden, transposed=True)
        return clip(hidden) if dtype == "fp16" else hidden


def _product(a: Tensor, b: Tensor) -> Tensor:
    """torch.matmul: samples and heads of b do not merge into one batch as they lie, so several samples are copied first."""
    return matmul(a, b.contiguous() if somewhere(b.shape[0] > 1) else b)


class GLUMBConv(Module):
    """A feed-forward layer of convolutions, the one in the middle channel by channel."""

    def __init__(self, dim: int, ratio: float) -> None:
        inner = int(ratio * dim)
        self.conv_inverted = Conv(dim, 2 * inner, (1, 1))
        self.conv_depth = Conv(1, 2 * inner, (3, 3), padding=1)
        self.conv_point = Conv(inner, dim, (1, 1), bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = self.conv_inverted(hidden)
        hidden = silu(hidden)
        hidden = self.conv_depth(hidden)
        hidden, gate = chunk(hidden, 2, 1)
        hidden = hidden * silu(gate)
        return self.conv_point(hidden)


class Block(Module):
    """SanaTransformerBlock; the image comes to the `first` as the convolution left it, pixels behind channels."""

    def __init__(self, dim: int, heads: int, cross_heads: int, ratio: float, *, first: bool) -> None:
        self.first = first
        self.norm1, self.attn1 = LayerNorm(dim, affine=False), LinearAttention(dim, heads)
        self.norm2, self.attn2 = LayerNorm(dim, affine=False), MaskedAttention(dim, cross_heads, dim)
        self.ff = GLUMBConv(dim, ratio)
        self.scale_shift_table = Parameter((6, dim))

    def forward(self, hidden: Tensor, context: Tensor, bias: Tensor, time: Tensor, height: Size, width: Size) -> Tensor:
        batch, tokens, dim = hidden.shape
        shift, scale, gate, ff_shift, ff_scale, ff_gate = vectors(self.scale_shift_table, time)
        normed = self.norm1(hidden)
        normed = normed * (1 + scale) + shift
        normed = normed.to(hidden.dtype)
        attended = self.attn1(normed)
        hidden = hidden + gate * attended
        attended = self.attn2(hidden, context, bias, transposed=self.first)
        hidden = attended + hidden
        normed = self.norm2(hidden)
        normed = normed * (1 + ff_scale) + ff_shift
        normed = normed.view(batch, dim, height, width)
        fed = self.ff(normed)
        fed = fed.view(batch, tokens, dim)
        return hidden + ff_gate * fed


class PatchEmbed(Module):
    def __init__(self, inputs: int, dim: int, patch: int) -> None:
        self.proj = Conv(inputs, dim, (patch, patch), stride=(patch, patch))

    def forward(self, latents: Tensor) -> Tensor:
        latents = self.proj(latents)
        batch, dim, height, width = latents.shape
        return latents.view(batch, height * width, dim)


class ModulatedNorm(Module):
    """SanaModulatedNorm."""

    def __init__(self, dim: int) -> None:
        self.norm = LayerNorm(dim, affine=False)

    def forward(self, hidden: Tensor, embedded: Tensor, table: Parameter) -> Tensor:
        hidden = self.norm(hidden)
        shift, scale = vectors(table, embedded)
        return hidden * (1 + scale) + shift


class Sana(Network):
    def __init__(self, dims: Mapping[str, Any], checkpointing: Checkpointing, *, extend: bool = True) -> None:
        for name in ("guidance_embeds", "qk_norm", "interpolation_scale"):
            if dims.get(name):
                raise NotModelled(f"Sana with {name} is not modelled")
        heads = dims["num_attention_heads"]
        dim = heads * dims["attention_head_dim"]
        self.inputs, self.patch, self.text_dim = dims["in_channels"], dims["patch_size"], dims["caption_channels"]
        self.stride = tuple(dims["stride"])
        self.patch_embed = PatchEmbed(self.inputs, dim, self.patch)
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
        self.proj_out = Linear(dim, self.patch * self.patch * self.inputs)

    def loss(self, tape: Tape, shape: Shape, dtype: str) -> Tensor:
        batch, height, width = shape.batch, shape.height // self.stride[1], shape.width // self.stride[2]
        out = self(
            tape.empty((batch, self.inputs, height, width), dtype),
            tape.empty((batch, shape.text_tokens, self.text_dim), dtype),
            tape.empty((batch, shape.text_tokens), "int64"),
        )
        return mse_loss(out.float(), tape.empty(out.shape, "fp32"))

    def forward(self, latents: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        height, width = latents.shape[2] // self.patch, latents.shape[3] // self.patch
        bias = text_bias(mask, latents.dtype)
        hidden = self.patch_embed(latents)
        time, embedded = self.time_embed(hidden)
        context = self.caption_projection(text)
        context = self.caption_norm(context)
        for block in self.transformer_blocks.walk(latents.tape):
            hidden = block(hidden, context, bias, time, height, width)
        hidden = self.norm_out(hidden, embedded, self.scale_shift_table)
        hidden = self.proj_out(hidden)
        return hidden.view(*latents.shape).contiguous()


NETWORK = Sana
