"""AuraFlow transformers (diffusers/models/transformers/auraflow_transformer_2d.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from preflight.networks.common import Dropout, TimestepEmbedding, timesteps
from preflight.networks.network import Network, Shape
from preflight.tape.activation import silu
from preflight.tape.attention import attention
from preflight.tape.loss import mse_loss
from preflight.tape.module import Blocks, Checkpointing, FP32LayerNorm, Linear, Module
from preflight.tape.routing import pick
from preflight.tape.shaping import chunk, sum_over
from preflight.tape.slicing import cat_tokens, slice_tokens
from preflight.tape.tensor import Parameter, Tape, Tensor

REGISTER_TOKENS = 8


class FeedForward(Module):
    """AuraFlowFeedForward."""

    def __init__(self, dim: int) -> None:
        inner = -(-int(2 * 4 * dim / 3) // 256) * 256
        self.linear_1, self.linear_2 = Linear(dim, inner, bias=False), Linear(dim, inner, bias=False)
        self.out_projection = Linear(inner, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = silu(self.linear_1(x)) * self.linear_2(x)
        return self.out_projection(x)


class AdaLayerNormZero(Module):
    """normalization.py: AdaLayerNormZero in float32 and without a bias."""

    def __init__(self, dim: int) -> None:
        self.linear = Linear(dim, 6 * dim, bias=False)
        self.norm = FP32LayerNorm(dim, affine=False)

    def forward(self, x: Tensor, emb: Tensor) -> tuple[Tensor, ...]:
        emb = self.linear(silu(emb))
        shift, scale, *rest = chunk(emb.view(emb.shape[0], 1, emb.shape[1]), 6, -1)
        x = self.norm(x) * (1 + scale) + shift
        return (x, *rest)


class Attention(Module):
    """attention_processor.py: Attention with AuraFlowAttnProcessor2_0, of the image and, with `joint`, the text."""

    def __init__(self, dim: int, heads: int, *, joint: bool) -> None:
        self.heads, width = heads, dim // heads
        self.norm_q, self.norm_k = FP32LayerNorm(width, affine=False), FP32LayerNorm(width, affine=False)
        self.to_q, self.to_k, self.to_v = (Linear(dim, dim, bias=False) for _ in range(3))
        self.to_out = [Linear(dim, dim, bias=False), Dropout()]
        if joint:
            self.norm_added_q, self.norm_added_k = FP32LayerNorm(width, affine=False), FP32LayerNorm(width, affine=False)
            self.add_k_proj, self.add_v_proj, self.add_q_proj = (Linear(dim, dim, bias=False) for _ in range(3))
            self.to_add_out = Linear(dim, dim, bias=False)

    def forward(self, hidden: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor] | Tensor:
        batch, tokens, dim = hidden.shape
        query, key, value = self.to_q(hidden), self.to_k(hidden), self.to_v(hidden)
        if context is not None:
            context_query, context_key = self.add_q_proj(context), self.add_k_proj(context)
            context_value = self.add_v_proj(context)
        query, key, value = self._heads(query), self._heads(key), self._heads(value)
        query = self.norm_q(query)
        key = self.norm_k(key)
        if context is not None:
            context_query, context_key = self._heads(context_query), self._heads(context_key)
            context_value = self._heads(context_value)
            context_query = self.norm_added_q(context_query)
            context_key = self.norm_added_k(context_key)
            query = cat_tokens([context_query, query])
            key = cat_tokens([context_key, key])
            value = cat_tokens([context_value, value])
        total = query.shape[1]
        query, key, value = (x.view(batch, self.heads, total, dim // self.heads) for x in (query, key, value))
        out = attention(query, key, value)
        out = out.view(batch, total, dim).to(query.dtype)
        if context is None:
            return self.to_out[0](out)
        out, context = slice_tokens(out, tokens), slice_tokens(out, context.shape[1])
        out = self.to_out[0](out)
        context = self.to_add_out(context)
        return out, context

    def _heads(self, x: Tensor) -> Tensor:
        batch, tokens, dim = x.shape
        return x.view(batch, tokens, self.heads, dim // self.heads)


class SingleBlock(Module):
    """AuraFlowSingleTransformerBlock."""

    def __init__(self, dim: int, heads: int) -> None:
        self.norm1 = AdaLayerNormZero(dim)
        self.attn = Attention(dim, heads, joint=False)
        self.norm2 = FP32LayerNorm(dim, affine=False)
        self.ff = FeedForward(dim)

    def forward(self, hidden: Tensor, temb: Tensor) -> Tensor:
        residual = hidden
        normed, gate, ff_shift, ff_scale, ff_gate = self.norm1(hidden, temb)
        attended = self.attn(normed)
        hidden = self.norm2(residual + gate * attended)
        hidden = hidden * (1 + ff_scale) + ff_shift
        fed = self.ff(hidden)
        hidden = ff_gate * fed
        return residual + hidden


class JointBlock(Module):
    """AuraFlowJointTransformerBlock."""

    def __init__(self, dim: int, heads: int) -> None:
        self.norm1, self.norm1_context = AdaLayerNormZero(dim), AdaLayerNormZero(dim)
        self.attn = Attention(dim, heads, joint=True)
        self.norm2, self.ff = FP32LayerNorm(dim, affine=False), FeedForward(dim)
        self.norm2_context, self.ff_context = FP32LayerNorm(dim, affine=False), FeedForward(dim)

    def forward(self, hidden: Tensor, context: Tensor, temb: Tensor) -> tuple[Tensor, Tensor]:
        residual, residual_context = hidden, context
        normed, gate, ff_shift, ff_scale, ff_gate = self.norm1(hidden, temb)
        normed_context, gate_context, ff_shift_context, ff_scale_context, ff_gate_context = self.norm1_context(context, temb)
        attended, attended_context = self.attn(normed, normed_context)

        hidden = self.norm2(residual + gate * attended)
        hidden = hidden * (1 + ff_scale) + ff_shift
        hidden = ff_gate * self.ff(hidden)
        hidden = residual + hidden

        context = self.norm2_context(residual_context + gate_context * attended_context)
        context = context * (1 + ff_scale_context) + ff_shift_context
        context = ff_gate_context * self.ff_context(context)
        context = residual_context + context
        return context, hidden


class PatchEmbed(Module):
    """AuraFlowPatchEmbed: a projection, and positions picked from the middle of a learned table."""

    def __init__(self, pixels: int, dim: int, positions: int) -> None:
        self.proj = Linear(pixels, dim)
        self.pos_embed = Parameter((1, positions, dim))

    def forward(self, patches: Tensor) -> Tensor:
        latent = self.proj(patches)
        _, positions, dim = self.pos_embed.shape
        tokens = latent.shape[1]
        index = latent.tape.empty((tokens,), "int64")
        picked = pick(self.pos_embed.view(positions, dim), index, tokens)
        return latent + picked.view(1, tokens, dim)


class PreFinalBlock(Module):
    """AuraFlowPreFinalBlock."""

    def __init__(self, dim: int) -> None:
        self.linear = Linear(dim, 2 * dim, bias=False)

    def forward(self, x: Tensor, temb: Tensor) -> Tensor:
        emb = self.linear(silu(temb).to(x.dtype))
        scale, shift = chunk(emb.view(emb.shape[0], 1, emb.shape[1]), 2, -1)
        return x * (1 + scale) + shift


class AuraFlow(Network):
    def __init__(self, dims: Mapping[str, Any], checkpointing: Checkpointing, *, extend: bool = True) -> None:
        heads = dims["num_attention_heads"]
        dim = heads * dims["attention_head_dim"]
        self.inputs, self.patch, self.text_dim = dims["in_channels"], dims["patch_size"], dims["joint_attention_dim"]
        self.stride, pixels = tuple(dims["stride"]), self.patch * self.patch * self.inputs
        self.pos_embed = PatchEmbed(pixels, dim, dims["pos_embed_max_size"])
        self.context_embedder = Linear(self.text_dim, dim, bias=False)
        self.time_step_proj = TimestepEmbedding(256, dim)
        self.joint_transformer_blocks = Blocks(
            dims["num_mmdit_layers"], lambda _: JointBlock(dim, heads), checkpointing, extend=extend
        )
        self.single_transformer_blocks = Blocks(
            dims["num_single_dit_layers"], lambda _: SingleBlock(dim, heads), checkpointing, extend=extend
        )
        self.norm_out = PreFinalBlock(dim)
        self.proj_out = Linear(dim, pixels, bias=False)
        self.register_tokens = Parameter((1, REGISTER_TOKENS, dim))

    def loss(self, tape: Tape, shape: Shape, dtype: str) -> Tensor:
        batch, height, width = shape.batch, shape.height // self.stride[1], shape.width // self.stride[2]
        out = self(
            tape.empty((batch, self.inputs, height, width), dtype),
            tape.empty((batch, shape.text_tokens, self.text_dim), dtype),
        )
        return mse_loss(out.float(), tape.empty(out.shape, "fp32"))

    def forward(self, latents: Tensor, text: Tensor) -> Tensor:
        tape, (batch, channels, height, width) = latents.tape, latents.shape
        image = (height // self.patch) * (width // self.patch)
        hidden = self.pos_embed(latents.contiguous().view(batch, image, self.patch * self.patch * channels))
        temb = timesteps(tape, batch, 256).to(self.pos_embed.pos_embed.dtype)
        temb = self.time_step_proj(temb)
        context = self.context_embedder(text)
        registers = self.register_tokens.to(context.dtype)
        context = cat_tokens([sum_over(registers, batch, *registers.shape[1:]), context])

        for block in self.joint_transformer_blocks.walk(tape):
            context, hidden = block(hidden, context, temb)
        combined = cat_tokens([context, hidden])
        for block in self.single_transformer_blocks.walk(tape):
            combined = block(combined, temb)
        hidden = slice_tokens(combined, image)
        hidden = self.norm_out(hidden, temb)
        hidden = self.proj_out(hidden)
        return hidden.view(*latents.shape).contiguous()


NETWORK = AuraFlow
