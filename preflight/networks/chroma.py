"""Chroma image transformers: FLUX whose modulation is made once for all blocks (diffusers/…/transformer_chroma.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from preflight.networks.common import FeedForward, TextProjection
from preflight.networks.flux import FluxAttention
from preflight.networks.network import Network, Shape
from preflight.tape.activation import clip, gelu, silu
from preflight.tape.loss import mse_loss
from preflight.tape.module import Blocks, Checkpointing, LayerNorm, Linear, Module, RMSNorm
from preflight.tape.shaping import cat, chunk, narrow
from preflight.tape.slicing import cat_tokens, slice_tokens
from preflight.tape.tensor import Buffer, Tape, Tensor

Rotary = tuple[Tensor, Tensor]


class PrunedNorm(Module):
    """ChromaAdaLayerNormZeroPruned and, of three pieces, ChromaAdaLayerNormZeroSinglePruned: x normed, and the pieces left over."""

    def __init__(self, dim: int, pieces: int) -> None:
        self.pieces = pieces
        self.norm = LayerNorm(dim, affine=False)

    def forward(self, x: Tensor, temb: Tensor) -> tuple[Tensor, ...]:
        batch, pieces, dim = temb.shape
        vectors = chunk(temb.view(batch, pieces * dim), self.pieces, 1)
        shift, scale, *rest = (vector.view(batch, 1, dim) for vector in vectors)
        return (self.norm(x) * (1 + scale) + shift, *rest)


class Approximator(Module):
    def __init__(self, inputs: int, dim: int, hidden: int, layers: int) -> None:
        self.in_proj = Linear(inputs, hidden)
        self.layers = [TextProjection(hidden, hidden, hidden, activation=silu) for _ in range(layers)]
        self.norms = [RMSNorm(hidden) for _ in range(layers)]
        self.out_proj = Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.in_proj(x)
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = x + layer(norm(x))
        return self.out_proj(x)


def square(mask: Tensor) -> Tensor:
    """`mask[:, None, None, :] * mask[:, None, :, None]`."""
    batch, tokens = mask.shape
    return mask.tape.empty((batch, 1, tokens, tokens), "bool")


class DualBlock(Module):
    """ChromaTransformerBlock: image and text side by side."""

    def __init__(self, dim: int, heads: int) -> None:
        self.norm1, self.norm1_context = PrunedNorm(dim, 6), PrunedNorm(dim, 6)
        self.attn = FluxAttention(dim, heads)
        self.norm2 = LayerNorm(dim, affine=False)
        self.ff = FeedForward(dim, 4 * dim)
        self.norm2_context = LayerNorm(dim, affine=False)
        self.ff_context = FeedForward(dim, 4 * dim)

    def forward(self, hidden: Tensor, context: Tensor, temb: Tensor, rotary: Rotary, mask: Tensor) -> tuple[Tensor, Tensor]:
        batch, _, dim = temb.shape
        temb_image, temb_text = narrow(temb, batch, 6, dim), narrow(temb, batch, 6, dim)
        normed, gate, ff_shift, ff_scale, ff_gate = self.norm1(hidden, temb_image)
        normed_context, gate_context, ff_shift_context, ff_scale_context, ff_gate_context = self.norm1_context(context, temb_text)
        mask = square(mask)

        outputs = self.attn(normed, normed_context, rotary, mask)  # the tuple keeps both to the end, as in the original
        attended, attended_context = outputs
        attended = gate * attended
        hidden = hidden + attended
        normed = self.norm2(hidden)
        normed = normed * (1 + ff_scale) + ff_shift
        fed = self.ff(normed)
        fed = ff_gate * fed
        hidden = hidden + fed

        attended_context = gate_context * attended_context
        context = context + attended_context
        normed_context = self.norm2_context(context)
        normed_context = normed_context * (1 + ff_scale_context) + ff_shift_context
        fed_context = self.ff_context(normed_context)
        context = context + ff_gate_context * fed_context
        if context.dtype == "fp16":
            context = clip(context)
        return hidden, context


class SingleBlock(Module):
    """ChromaSingleTransformerBlock: text and image as one sequence. Checkpointed, it is called without the mask."""

    def __init__(self, dim: int, heads: int) -> None:
        self.norm = PrunedNorm(dim, 3)
        self.proj_mlp = Linear(dim, 4 * dim)
        self.proj_out = Linear(5 * dim, dim)
        self.attn = FluxAttention(dim, heads, single=True)

    def forward(self, hidden: Tensor, temb: Tensor, rotary: Rotary, mask: Tensor) -> Tensor:
        residual = hidden
        normed, gate = self.norm(hidden, temb)
        fed = gelu(self.proj_mlp(normed))
        squared = square(mask) if hidden.tape.frame is None else None
        attended = self.attn(normed, None, rotary, squared)
        hidden = cat([attended, fed], 2)
        hidden = gate * self.proj_out(hidden)
        hidden = residual + hidden
        if hidden.dtype == "fp16":
            hidden = clip(hidden)
        return hidden


class Chroma(Network):
    guidance_doubles = False  # pipeline_chroma.py calls it twice, one half after the other

    def __init__(self, dims: Mapping[str, Any], checkpointing: Checkpointing, *, extend: bool = True) -> None:
        heads, self.width = dims["num_attention_heads"], dims["attention_head_dim"]
        dim = heads * self.width
        patch, self.inputs, self.text_dim = dims["patch_size"], dims["in_channels"], dims["joint_attention_dim"]
        self.stride = tuple(dims["stride"])
        duals, singles, self.channels = dims["num_layers"], dims["num_single_layers"], dims["approximator_num_channels"]
        self.vectors = 3 * singles + 2 * 6 * duals + 2
        self.mod_proj = Buffer((self.vectors, self.channels // 2))
        self.distilled_guidance_layer = Approximator(
            self.channels, dim, dims["approximator_hidden_dim"], dims["approximator_layers"]
        )
        self.context_embedder = Linear(self.text_dim, dim)
        self.x_embedder = Linear(self.inputs, dim)
        self.transformer_blocks = Blocks(duals, lambda _: DualBlock(dim, heads), checkpointing, extend=extend)
        self.single_transformer_blocks = Blocks(singles, lambda _: SingleBlock(dim, heads), checkpointing, extend=extend)
        self.norm_out = PrunedNorm(dim, 2)
        self.proj_out = Linear(dim, patch * patch * (dims.get("out_channels") or self.inputs))

    def loss(self, tape: Tape, shape: Shape, dtype: str) -> Tensor:
        batch = shape.batch
        # the pipeline packs the latents two by two into channels
        tokens = (shape.height // (2 * self.stride[1])) * (shape.width // (2 * self.stride[2]))
        out = self(
            tape.empty((batch, tokens, self.inputs), dtype),
            tape.empty((batch, shape.text_tokens, self.text_dim), dtype),
            tape.empty((batch, shape.text_tokens + tokens), "bool"),
        )
        return mse_loss(out.float(), tape.empty(out.shape, "fp32"))

    def forward(self, latents: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        tape, (batch, image_tokens, _) = latents.tape, latents.shape
        hidden = self.x_embedder(latents)
        dtype, dim = hidden.dtype, hidden.shape[2]
        inputs = tape.empty((batch, self.vectors, self.channels), dtype)
        pooled = self.distilled_guidance_layer(inputs)
        context = self.context_embedder(text)
        tokens = text.shape[1] + image_tokens
        rotary = (tape.empty((tokens, self.width), "fp32"), tape.empty((tokens, self.width), "fp32"))

        for block in self.transformer_blocks.walk(tape):
            temb = cat([narrow(pooled, batch, 6, dim), narrow(pooled, batch, 6, dim)], 1)
            hidden, context = block(hidden, context, temb, rotary, mask)
        hidden = cat_tokens([context, hidden])
        for block in self.single_transformer_blocks.walk(tape):
            temb = narrow(pooled, batch, 3, dim)
            hidden = block(hidden, temb, rotary, mask)
        hidden = slice_tokens(hidden, image_tokens)
        temb = narrow(pooled, batch, 2, dim)
        (hidden,) = self.norm_out(hidden, temb.to(hidden.dtype))
        return self.proj_out(hidden)


NETWORK = Chroma
