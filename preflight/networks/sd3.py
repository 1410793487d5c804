"""Stable Diffusion 3 and 3.5 transformers (diffusers/models/transformers/transformer_sd3.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from preflight.networks.common import AdaLayerNormContinuous, Dropout, FeedForward, PlainRMSNorm
from preflight.networks.conditioning import AdaLayerNormZero, TimeTextEmbedding
from preflight.networks.network import Network, Shape
from preflight.tape.activation import silu
from preflight.tape.attention import attention
from preflight.tape.loss import mse_loss
from preflight.tape.module import Blocks, Checkpointing, Conv, LayerNorm, Linear, Module
from preflight.tape.shaping import cat, chunk, transpose
from preflight.tape.slicing import slice_tokens
from preflight.tape.tensor import Buffer, Tape, Tensor


class JointAttention(Module):
    """attention_processor.py: Attention run by JointAttnProcessor2_0, of the image and, with `joint`, the text.

    `last`: nothing comes back for the text.
    """

    def __init__(self, dim: int, heads: int, *, qk_norm: bool, joint: bool = True, last: bool = False) -> None:
        self.heads, self.last = heads, last
        width = dim // heads
        self.norm_q, self.norm_k = _norm(width, qk_norm), _norm(width, qk_norm)
        self.to_q, self.to_k, self.to_v = Linear(dim, dim), Linear(dim, dim), Linear(dim, dim)
        if joint:
            self.add_k_proj, self.add_v_proj, self.add_q_proj = Linear(dim, dim), Linear(dim, dim), Linear(dim, dim)
            self.norm_added_q, self.norm_added_k = _norm(width, qk_norm), _norm(width, qk_norm)
        self.to_out = [Linear(dim, dim), Dropout()]
        self.to_add_out = Linear(dim, dim) if joint and not last else None

    def forward(self, hidden: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor] | Tensor:
        batch, tokens, dim = hidden.shape
        query, key, value = self.to_q(hidden), self.to_k(hidden), self.to_v(hidden)
        query, key, value = self._heads(query), self._heads(key), self._heads(value)
        if self.norm_q is not None and self.norm_k is not None:
            query = self.norm_q(query)
            key = self.norm_k(key)

        if context is not None:
            query_context, key_context = self.add_q_proj(context), self.add_k_proj(context)
            value_context = self.add_v_proj(context)
            query_context, key_context = self._heads(query_context), self._heads(key_context)
            value_context = self._heads(value_context)
            if self.norm_added_q is not None and self.norm_added_k is not None:
                query_context = self.norm_added_q(query_context)
                key_context = self.norm_added_k(key_context)
            query = cat([query, query_context], 2)
            key = cat([key, key_context], 2)
            value = cat([value, value_context], 2)

        out = attention(query, key, value)
        if context is None:
            return self.to_out[0](out.view(batch, tokens, dim))
        # cat left the heads in front of the tokens, and the kernel gives what it took
        out = out.contiguous().view(batch, query.shape[2], dim)
        out, context = slice_tokens(out, tokens), slice_tokens(out, context.shape[1])
        if self.to_add_out is not None:
            context = self.to_add_out(context)
        out = self.to_out[0](out)
        return out, context

    def _heads(self, x: Tensor) -> Tensor:
        batch, tokens, dim = x.shape
        return transpose(x, batch, self.heads, tokens, dim // self.heads)


def _norm(width: int, wanted: bool) -> PlainRMSNorm | None:
    return PlainRMSNorm(width) if wanted else None


class AdaLayerNormZeroX(Module):
    """normalization.py: SD35AdaLayerNormZeroX, one norm shifted and scaled twice."""

    def __init__(self, dim: int) -> None:
        self.linear = Linear(dim, 9 * dim)
        self.norm = LayerNorm(dim, affine=False)

    def forward(self, hidden: Tensor, emb: Tensor) -> tuple[Tensor, ...]:
        emb = self.linear(silu(emb))
        vectors = chunk(emb.view(emb.shape[0], 1, emb.shape[1]), 9, -1)
        shift, scale, gate, ff_shift, ff_scale, ff_gate, second_shift, second_scale, second_gate = vectors
        normed = self.norm(hidden)
        hidden = normed * (1 + scale) + shift
        second = normed * (1 + second_scale) + second_shift
        return hidden, gate, ff_shift, ff_scale, ff_gate, second, second_gate


class JointBlock(Module):
    """attention.py: JointTransformerBlock; `last` drops the text, `dual` attends to the image once more (SD 3.5)."""

    def __init__(self, dim: int, heads: int, *, qk_norm: bool, last: bool, dual: bool) -> None:
        self.last = last
        self.norm1 = AdaLayerNormZeroX(dim) if dual else AdaLayerNormZero(dim)
        self.norm1_context = AdaLayerNormContinuous(dim, dim) if last else AdaLayerNormZero(dim)
        self.attn = JointAttention(dim, heads, qk_norm=qk_norm, last=last)
        self.attn2 = JointAttention(dim, heads, qk_norm=qk_norm, joint=False) if dual else None
        self.norm2 = LayerNorm(dim, affine=False)
        self.ff = FeedForward(dim, 4 * dim)
        if not last:
            self.norm2_context = LayerNorm(dim, affine=False)
            self.ff_context = FeedForward(dim, 4 * dim)

    def forward(self, hidden: Tensor, context: Tensor, temb: Tensor) -> tuple[Tensor, Tensor | None]:
        normed, gate, ff_shift, ff_scale, ff_gate, *second = self.norm1(hidden, temb)
        if self.last:
            normed_context = self.norm1_context(context, temb)
        else:
            normed_context, *vectors = self.norm1_context(context, temb)
            gate_context, ff_shift_context, ff_scale_context, ff_gate_context = vectors

        attended, attended_context = self.attn(normed, normed_context)
        attended = gate * attended
        hidden = hidden + attended
        if self.attn2 is not None:
            second_normed, second_gate = second
            attended_again = self.attn2(second_normed)
            attended_again = second_gate * attended_again
            hidden = hidden + attended_again
        normed = self.norm2(hidden)
        normed = normed * (1 + ff_scale) + ff_shift
        fed = self.ff(normed)
        fed = ff_gate * fed
        hidden = hidden + fed
        if self.last:
            return hidden, None

        attended_context = gate_context * attended_context
        context = context + attended_context
        normed_context = self.norm2_context(context)
        normed_context = normed_context * (1 + ff_scale_context) + ff_shift_context
        fed_context = self.ff_context(normed_context)
        context = context + ff_gate_context * fed_context
        return hidden, context


class PatchEmbed(Module):
    """embeddings.py: PatchEmbed with a table of positions, from whose middle the image's are cut."""

    def __init__(self, inputs: int, dim: int, patch: int, positions: int) -> None:
        self.proj = Conv(inputs, dim, (patch, patch), stride=(patch, patch))
        self.pos_embed = Buffer((1, positions * positions, dim))

    def forward(self, latents: Tensor) -> Tensor:
        latents = self.proj(latents)
        batch, dim, height, width = latents.shape
        latents = latents.view(batch, height * width, dim)
        positions = latents.tape.empty((1, height * width, dim), self.pos_embed.dtype)
        return (latents + positions).to(latents.dtype)


class StableDiffusion3(Network):
    def __init__(self, dims: Mapping[str, Any], checkpointing: Checkpointing, *, extend: bool = True) -> None:
        heads = dims["num_attention_heads"]
        dim, count = heads * dims["attention_head_dim"], dims["num_layers"]
        dual, qk_norm = dims.get("dual_attention_layers") or (), bool(dims.get("qk_norm"))
        self.inputs, self.outputs, self.patch = dims["in_channels"], dims["out_channels"], dims["patch_size"]
        self.stride = tuple(dims["stride"])
        self.text_dim, self.pooled_dim = dims["joint_attention_dim"], dims["pooled_projection_dim"]
        self.pos_embed = PatchEmbed(self.inputs, dim, self.patch, dims["pos_embed_max_size"])
        self.time_text_embed = TimeTextEmbedding(dim, self.pooled_dim)
        self.context_embedder = Linear(self.text_dim, dims["caption_projection_dim"])
        self.transformer_blocks = Blocks(
            count,
            lambda i: JointBlock(dim, heads, qk_norm=qk_norm, last=i == count - 1, dual=i in dual),
            checkpointing,
            kind=lambda i: (i == count - 1, i in dual),
            extend=extend,
        )
        self.norm_out = AdaLayerNormContinuous(dim, dim)
        self.proj_out = Linear(dim, self.patch * self.patch * self.outputs)

    def loss(self, tape: Tape, shape: Shape, dtype: str) -> Tensor:
        batch, height, width = shape.batch, shape.height // self.stride[1], shape.width // self.stride[2]
        out = self(
            tape.empty((batch, self.inputs, height, width), dtype),
            tape.empty((batch, shape.text_tokens, self.text_dim), dtype),
            tape.empty((batch, self.pooled_dim), dtype),
        )
        return mse_loss(out.float(), tape.empty(out.shape, "fp32"))

    def forward(self, latents: Tensor, text: Tensor, pooled: Tensor) -> Tensor:
        batch, _, height, width = latents.shape
        hidden = self.pos_embed(latents)
        hidden = hidden.contiguous()
        temb = self.time_text_embed(pooled)
        context = self.context_embedder(text)
        for block in self.transformer_blocks.walk(latents.tape):
            hidden, context = block(hidden, context, temb)
        hidden = self.norm_out(hidden, temb)
        hidden = self.proj_out(hidden)
        return hidden.view(batch, self.outputs, height, width).contiguous()


NETWORK = StableDiffusion3
