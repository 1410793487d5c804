"""FLUX.1 image transformers (diffusers/models/transformers/transformer_flux.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from preflight.networks.common import AdaLayerNormContinuous, Dropout, FeedForward, apply_rotary_emb
from preflight.networks.conditioning import AdaLayerNormZero, TimeTextEmbedding
from preflight.networks.network import Network, Shape
from preflight.tape.activation import clip, gelu
from preflight.tape.loss import mse_loss
from preflight.tape.module import Blocks, Checkpointing, LayerNorm, Linear, Module, RMSNorm
from preflight.tape.sequence import gathered, share, shared_attention
from preflight.tape.shaping import cat
from preflight.tape.slicing import adjacent, cat_tokens, slice_tokens, split_tokens
from preflight.tape.tensor import Tape, Tensor

Rotary = tuple[Tensor, Tensor]


class FluxAttention(Module):
    """Attention of text and image; with `single`, of one sequence that is not projected at the end."""

    def __init__(self, dim: int, heads: int, *, single: bool = False) -> None:
        self.heads = heads
        self.norm_q, self.norm_k = RMSNorm(dim // heads), RMSNorm(dim // heads)
        self.to_q, self.to_k, self.to_v = Linear(dim, dim), Linear(dim, dim), Linear(dim, dim)
        if not single:
            self.to_out = [Linear(dim, dim), Dropout()]
            self.norm_added_q, self.norm_added_k = RMSNorm(dim // heads), RMSNorm(dim // heads)
            self.add_q_proj, self.add_k_proj, self.add_v_proj = Linear(dim, dim), Linear(dim, dim), Linear(dim, dim)
            self.to_add_out = Linear(dim, dim)

    def forward(
        self, hidden: Tensor, context: Tensor | None, rotary: Rotary, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor] | Tensor:
        query, key, value = self.to_q(hidden), self.to_k(hidden), self.to_v(hidden)
        if context is not None:
            query_context, key_context, value_context = (
                self.add_q_proj(context),
                self.add_k_proj(context),
                self.add_v_proj(context),
            )
        query, key, value = self._heads(query), self._heads(key), self._heads(value)
        query = self.norm_q(query)
        key = self.norm_k(key)

        if context is not None:
            query_context, key_context = self._heads(query_context), self._heads(key_context)
            value_context = self._heads(value_context)
            query_context = self.norm_added_q(query_context)
            key_context = self.norm_added_k(key_context)
            query = cat_tokens([query_context, query])
            key = cat_tokens([key_context, key])
            value = cat_tokens([value_context, value])

        query = apply_rotary_emb(query, rotary, tokens_dim=1)
        key = apply_rotary_emb(key, rotary, tokens_dim=1)
        tokens = hidden.shape[1]
        hidden = attend(query, key, value, mask)
        hidden = hidden.to(query.dtype)
        if context is None:
            return hidden
        context, hidden = split_tokens(hidden, [context.shape[1], tokens])
        hidden = self.to_out[0](adjacent(hidden))
        context = self.to_add_out(adjacent(context))
        return hidden, context

    def _heads(self, x: Tensor) -> Tensor:
        batch, tokens, dim = x.shape
        return x.view(batch, tokens, self.heads, dim // self.heads)


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """(B, tokens, heads, width) each, giving (B, tokens, heads x width)."""
    out = shared_attention(query, key, value, mask)
    return out.view(*out.shape[:2], out.shape[2] * out.shape[3])


class DualBlock(Module):
    """FluxTransformerBlock: image and text side by side."""

    def __init__(self, dim: int, heads: int) -> None:
        self.norm1, self.norm1_context = AdaLayerNormZero(dim), AdaLayerNormZero(dim)
        self.attn = FluxAttention(dim, heads)
        self.norm2 = LayerNorm(dim, affine=False)
        self.ff = FeedForward(dim, 4 * dim)
        self.norm2_context = LayerNorm(dim, affine=False)
        self.ff_context = FeedForward(dim, 4 * dim)

    def forward(self, hidden: Tensor, context: Tensor, temb: Tensor, rotary: Rotary) -> tuple[Tensor, Tensor]:
        normed, gate, ff_shift, ff_scale, ff_gate = self.norm1(hidden, temb)
        normed_context, gate_context, ff_shift_context, ff_scale_context, ff_gate_context = self.norm1_context(context, temb)

        outputs = self.attn(normed, normed_context, rotary)  # the tuple keeps both to the end, as in the original
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
    """FluxSingleTransformerBlock: text and image as one sequence."""

    def __init__(self, dim: int, heads: int) -> None:
        self.norm = AdaLayerNormZero(dim, 3)
        self.proj_mlp = Linear(dim, 4 * dim)
        self.proj_out = Linear(5 * dim, dim)
        self.attn = FluxAttention(dim, heads, single=True)

    def forward(self, hidden: Tensor, context: Tensor, temb: Tensor, rotary: Rotary) -> tuple[Tensor, Tensor]:
        text, image = context.shape[1], hidden.shape[1]
        hidden = cat_tokens([context, hidden])
        residual = hidden
        normed, gate = self.norm(hidden, temb)
        fed = gelu(self.proj_mlp(normed))
        attended = self.attn(normed, None, rotary)
        hidden = cat([attended, fed], 2)
        hidden = gate * self.proj_out(hidden)
        hidden = residual + hidden
        if hidden.dtype == "fp16":
            hidden = clip(hidden)
        context, hidden = slice_tokens(hidden, text), slice_tokens(hidden, image)
        return hidden, context


class Flux(Network):
    divides_sequence = True  # its _cp_plan: image and text are cut as they come in

    def __init__(self, dims: Mapping[str, Any], checkpointing: Checkpointing, *, extend: bool = True) -> None:
        heads, self.width = dims["num_attention_heads"], dims["attention_head_dim"]
        dim = heads * self.width
        patch, self.inputs = dims["patch_size"], dims["in_channels"]
        self.text_dim, self.pooled_dim = dims["joint_attention_dim"], dims["pooled_projection_dim"]
        self.stride = tuple(dims["stride"])
        self.time_text_embed = TimeTextEmbedding(dim, self.pooled_dim, guidance=dims["guidance_embeds"])
        self.context_embedder = Linear(self.text_dim, dim)
        self.x_embedder = Linear(self.inputs, dim)
        self.transformer_blocks = Blocks(dims["num_layers"], lambda _: DualBlock(dim, heads), checkpointing, extend=extend)
        self.single_transformer_blocks = Blocks(
            dims["num_single_layers"], lambda _: SingleBlock(dim, heads), checkpointing, extend=extend
        )
        self.norm_out = AdaLayerNormContinuous(dim, dim)
        self.proj_out = Linear(dim, patch * patch * (dims.get("out_channels") or self.inputs))

    def loss(self, tape: Tape, shape: Shape, dtype: str) -> Tensor:
        batch = shape.batch
        # the pipeline packs the latents two by two into channels
        tokens = (shape.height // (2 * self.stride[1])) * (shape.width // (2 * self.stride[2]))
        out = self(
            tape.empty((batch, share(tokens, shape.sequence), self.inputs), dtype),
            tape.empty((batch, share(shape.text_tokens, shape.sequence), self.text_dim), dtype),
            tape.empty((batch, self.pooled_dim), dtype),
        )
        out = gathered(out, shape.sequence)
        return mse_loss(out.float(), tape.empty(out.shape, "fp32"))

    def forward(self, latents: Tensor, text: Tensor, pooled: Tensor) -> Tensor:
        tape = latents.tape
        hidden = self.x_embedder(latents)
        temb = self.time_text_embed(pooled)
        context = self.context_embedder(text)
        tokens = text.shape[1] + latents.shape[1]
        rotary = (tape.empty((tokens, self.width), "fp32"), tape.empty((tokens, self.width), "fp32"))

        for block in self.transformer_blocks.walk(tape):
            hidden, context = block(hidden, context, temb, rotary)
        for block in self.single_transformer_blocks.walk(tape):
            hidden, context = block(hidden, context, temb, rotary)

        hidden = self.norm_out(hidden, temb)
        return self.proj_out(hidden)


NETWORK = Flux
