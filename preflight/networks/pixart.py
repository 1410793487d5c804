"""PixArt-Sigma transformers (diffusers/models/transformers/pixart_transformer_2d.py, attention.py: BasicTransformerBlock)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from preflight.networks.common import FeedForward, TextProjection
from preflight.networks.modulated import AdaLayerNormSingle, MaskedAttention, text_bias, vectors
from preflight.networks.network import Network, NotModelled, Shape
from preflight.tape.loss import mse_loss
from preflight.tape.module import Blocks, Checkpointing, Conv, LayerNorm, Linear, Module
from preflight.tape.shaping import narrow
from preflight.tape.tensor import Buffer, Parameter, Tape, Tensor


class Block(Module):
    """BasicTransformerBlock with norm_type "ada_norm_single"."""

    def __init__(self, dim: int, heads: int) -> None:
        self.norm1, self.norm2 = LayerNorm(dim, affine=False), LayerNorm(dim, affine=False)
        self.attn1, self.attn2 = MaskedAttention(dim, heads, dim), MaskedAttention(dim, heads, dim)
        self.ff = FeedForward(dim, 4 * dim)
        self.scale_shift_table = Parameter((6, dim))

    def forward(self, hidden: Tensor, context: Tensor, bias: Tensor, time: Tensor) -> Tensor:
        shift, scale, gate, ff_shift, ff_scale, ff_gate = vectors(self.scale_shift_table, time)
        normed = self.norm1(hidden)
        normed = normed * (1 + scale) + shift
        out = self.attn1(normed)
        out = gate * out
        hidden = out + hidden
        normed = hidden
        out = self.attn2(normed, context, bias)
        hidden = out + hidden
        normed = self.norm2(hidden)
        normed = normed * (1 + ff_scale) + ff_shift
        fed = self.ff(normed)
        fed = ff_gate * fed
        return fed + hidden


class PatchEmbed(Module):
    """embeddings.py: PatchEmbed; the positions of another size than `sample_size` are made anew."""

    def __init__(self, inputs: int, dim: int, patch: int, tokens: int) -> None:
        self.proj = Conv(inputs, dim, (patch, patch), stride=(patch, patch))
        self.pos_embed = Buffer((1, tokens, dim))

    def forward(self, latents: Tensor) -> Tensor:
        latents = self.proj(latents)
        batch, dim, height, width = latents.shape
        latents = latents.view(batch, height * width, dim)
        positions = latents.tape.empty((1, height * width, dim), "fp32")
        return (latents + positions).to(latents.dtype)


class PixArt(Network):
    def __init__(self, dims: Mapping[str, Any], checkpointing: Checkpointing, *, extend: bool = True) -> None:
        if dims.get("use_additional_conditions"):
            raise NotModelled("PixArt with use_additional_conditions (PixArt-Alpha at 1024 pixels) is not modelled")
        heads = dims["num_attention_heads"]
        dim = heads * dims["attention_head_dim"]
        self.inputs, self.outputs, self.patch = dims["in_channels"], dims["out_channels"], dims["patch_size"]
        self.stride, self.text_dim = tuple(dims["stride"]), dims["caption_channels"]
        self.pos_embed = PatchEmbed(self.inputs, dim, self.patch, (dims["sample_size"] // self.patch) ** 2)
        self.transformer_blocks = Blocks(dims["num_layers"], lambda _: Block(dim, heads), checkpointing, extend=extend)
        self.norm_out = LayerNorm(dim, affine=False)
        self.scale_shift_table = Parameter((2, dim))
        self.proj_out = Linear(dim, self.patch * self.patch * self.outputs)
        self.adaln_single = AdaLayerNormSingle(dim)
        self.caption_projection = TextProjection(self.text_dim, dim, dim)

    def loss(self, tape: Tape, shape: Shape, dtype: str) -> Tensor:
        batch, height, width = shape.batch, shape.height // self.stride[1], shape.width // self.stride[2]
        out = self(
            tape.empty((batch, self.inputs, height, width), dtype),
            tape.empty((batch, shape.text_tokens, self.text_dim), dtype),
            tape.empty((batch, shape.text_tokens), "int64"),
        )
        out = narrow(out, batch, self.inputs, height, width)  # the rest is a variance that no trainer learns
        return mse_loss(out.float(), tape.empty(out.shape, "fp32"))

    def forward(self, latents: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        batch, _, height, width = latents.shape
        bias = text_bias(mask, latents.dtype)
        hidden = self.pos_embed(latents)
        time, embedded = self.adaln_single(hidden)
        context = self.caption_projection(text)
        for block in self.transformer_blocks.walk(latents.tape):
            hidden = block(hidden, context, bias, time)
        shift, scale = self._output_vectors(embedded)
        hidden = self.norm_out(hidden)
        hidden = hidden * (1 + scale) + shift
        hidden = self.proj_out(hidden)
        return hidden.view(batch, self.outputs, height, width).contiguous()

    def _output_vectors(self, embedded: Tensor) -> tuple[Tensor, ...]:
        return vectors(self.scale_shift_table, embedded)


NETWORK = PixArt
