"""HiDream-I1 image transformers (diffusers/models/transformers/transformer_hidream_image.py).

`text_tokens` are those of each encoder: T5 and Llama come side by side, the latter's layers once more for every block.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from preflight.networks.common import TimestepEmbedding, timesteps
from preflight.networks.hidream_experts import Experts, FeedForwardSwiGLU
from preflight.networks.network import Network, NotModelled, Shape
from preflight.tape.activation import silu
from preflight.tape.attention import attention
from preflight.tape.loss import mse_loss
from preflight.tape.meter import somewhere
from preflight.tape.module import Blocks, Checkpointing, LayerNorm, Linear, Module, RMSNorm
from preflight.tape.shaping import chunk, narrow
from preflight.tape.slicing import cat_tokens, slice_tokens, split_tokens
from preflight.tape.tensor import Tape, Tensor

LLAMA_LAYERS = 32  # of Llama 3.1 8B, all handed in


class Attention(Module):
    """HiDreamAttention with HiDreamAttnProcessor; `single` of one sequence."""

    def __init__(self, dim: int, heads: int, *, single: bool) -> None:
        self.heads, self.single = heads, single
        self.to_q, self.to_k, self.to_v, self.to_out = (Linear(dim, dim) for _ in range(4))
        self.q_rms_norm, self.k_rms_norm = RMSNorm(dim), RMSNorm(dim)
        if not single:
            self.to_q_t, self.to_k_t, self.to_v_t, self.to_out_t = (Linear(dim, dim) for _ in range(4))
            self.q_rms_norm_t, self.k_rms_norm_t = RMSNorm(dim), RMSNorm(dim)

    def forward(
        self, hidden: Tensor, masks: Tensor | None, context: Tensor | None, rotary: Tensor
    ) -> tuple[Tensor, Tensor] | Tensor:
        dtype, (batch, tokens, dim) = hidden.dtype, hidden.shape
        query = self._heads(self.q_rms_norm(self.to_q(hidden)).to(dtype))
        key = self._heads(self.k_rms_norm(self.to_k(hidden)).to(dtype))
        value = self._heads(self.to_v(hidden))
        if masks is not None:
            key = key * masks.view(batch, tokens, 1, 1)
        if context is not None:
            query_t = self._heads(self.q_rms_norm_t(self.to_q_t(context)).to(dtype))
            key_t = self._heads(self.k_rms_norm_t(self.to_k_t(context)).to(dtype))
            value_t = self._heads(self.to_v_t(context))
            query_i, key_i, value_i = query, key, value  # named on their own there, and kept to the end
            query = cat_tokens([query_i, query_t])
            key = cat_tokens([key_i, key_t])
            value = cat_tokens([value_i, value_t])
        else:
            query_i, key_i, value_i = query, key, value
        query, key = apply_rope(query, key, rotary)

        hidden = attention(*(x.view(batch, self.heads, x.shape[1], dim // self.heads) for x in (query, key, value)))
        hidden = hidden.view(batch, query.shape[1], dim).to(query.dtype)
        if context is None:
            return self.to_out(hidden)
        image, text = split_tokens(hidden, [tokens, context.shape[1]])
        image = self.to_out(image)
        text = self.to_out_t(text)
        return image, text

    def _heads(self, x: Tensor) -> Tensor:
        batch, tokens, dim = x.shape
        return x.view(batch, tokens, self.heads, dim // self.heads)


def apply_rope(query: Tensor, key: Tensor, rotary: Tensor) -> tuple[Tensor, Tensor]:
    """query, key (B, tokens, heads, width), rotary (B, tokens, 1, width / 2, 2, 2) in float32."""
    batch, tokens, heads, width = query.shape
    wide = (batch, tokens, heads, width // 2, 1, 2)
    query_, key_ = query.float().view(*wide), key.float().view(*wide)
    query_out = _turned(query_, rotary)
    key_out = _turned(key_, rotary)
    return query_out.view(*query.shape).type_as(query), key_out.view(*key.shape).type_as(key)


def _turned(x: Tensor, rotary: Tensor) -> Tensor:
    part, column = x.shape[:-1], rotary.shape[:-1]
    return narrow(rotary, *column) * narrow(x, *part) + narrow(rotary, *column) * narrow(x, *part)


class SingleBlock(Module):
    """HiDreamImageSingleTransformerBlock."""

    def __init__(self, dim: int, heads: int, experts: int, activated: int) -> None:
        self.adaLN_modulation = [silu, Linear(dim, 6 * dim)]
        self.norm1_i, self.norm3_i = LayerNorm(dim, affine=False), LayerNorm(dim, affine=False)
        self.attn1 = Attention(dim, heads, single=True)
        self.ff_i = _feed_forward(dim, experts, activated)

    def forward(self, hidden: Tensor, masks: Tensor | None, temb: Tensor, rotary: Tensor) -> Tensor:
        wtype = hidden.dtype
        shift, scale, gate, ff_shift, ff_scale, ff_gate = _vectors(self.adaLN_modulation[1], temb, 6)
        normed = self.norm1_i(hidden).to(wtype)
        normed = normed * (1 + scale) + shift
        attended = self.attn1(normed, masks, None, rotary)
        hidden = gate * attended + hidden
        normed = self.norm3_i(hidden).to(wtype)
        normed = normed * (1 + ff_scale) + ff_shift
        fed = ff_gate * self.ff_i(normed.to(wtype))
        return fed + hidden


class DoubleBlock(Module):
    """HiDreamImageTransformerBlock."""

    def __init__(self, dim: int, heads: int, experts: int, activated: int) -> None:
        self.adaLN_modulation = [silu, Linear(dim, 12 * dim)]
        self.norm1_i, self.norm1_t = LayerNorm(dim, affine=False), LayerNorm(dim, affine=False)
        self.attn1 = Attention(dim, heads, single=False)
        self.norm3_i, self.norm3_t = LayerNorm(dim, affine=False), LayerNorm(dim, affine=False)
        self.ff_i = _feed_forward(dim, experts, activated)
        self.ff_t = FeedForwardSwiGLU(dim, 4 * dim)

    def forward(self, hidden: Tensor, masks: Tensor | None, context: Tensor, temb: Tensor, rotary: Tensor) -> tuple[Tensor, Tensor]:
        wtype = hidden.dtype
        vectors = _vectors(self.adaLN_modulation[1], temb, 12)
        shift, scale, gate, ff_shift, ff_scale, ff_gate, *vectors_t = vectors
        shift_t, scale_t, gate_t, ff_shift_t, ff_scale_t, ff_gate_t = vectors_t
        normed = self.norm1_i(hidden).to(wtype)
        normed = normed * (1 + scale) + shift
        normed_t = self.norm1_t(context).to(wtype)
        normed_t = normed_t * (1 + scale_t) + shift_t

        attended, attended_t = self.attn1(normed, masks, normed_t, rotary)
        hidden = gate * attended + hidden
        context = gate_t * attended_t + context

        normed = self.norm3_i(hidden).to(wtype)
        normed = normed * (1 + ff_scale) + ff_shift
        normed_t = self.norm3_t(context).to(wtype)
        normed_t = normed_t * (1 + ff_scale_t) + ff_shift_t
        fed = ff_gate * self.ff_i(normed)
        fed_t = ff_gate_t * self.ff_t(normed_t)
        hidden = fed + hidden
        context = fed_t + context
        return hidden, context


def _feed_forward(dim: int, experts: int, activated: int) -> Module:
    return Experts(dim, 4 * dim, experts, activated) if experts > 0 else FeedForwardSwiGLU(dim, 4 * dim)


def _vectors(projection: Any, temb: Tensor, pieces: int) -> tuple[Tensor, ...]:
    out = projection(silu(temb))
    return chunk(out.view(out.shape[0], 1, out.shape[1]), pieces, -1)


class Wrapped(Module):
    """HiDreamBlock."""

    def __init__(self, block: Module) -> None:
        self.block = block

    def forward(self, *arguments: Any) -> Any:
        return self.block(*arguments)


class TextProjection(Module):
    def __init__(self, inputs: int, dim: int) -> None:
        self.linear = Linear(inputs, dim, bias=False)

    def forward(self, caption: Tensor) -> Tensor:
        return self.linear(caption)


class Embedding(Module):
    """HiDreamImageTimestepEmbed and HiDreamImagePooledEmbed, under the name of its one part."""

    def __init__(self, name: str, inputs: int, dim: int) -> None:
        self.embed = TimestepEmbedding(inputs, dim)
        self.name = name

    def children(self) -> Any:
        yield self.name, self.embed, 1

    def forward(self, x: Tensor) -> Tensor:
        return self.embed(x)


class PatchEmbed(Module):
    def __init__(self, inputs: int, dim: int) -> None:
        self.proj = Linear(inputs, dim)

    def forward(self, latent: Tensor) -> Tensor:
        return self.proj(latent)


class OutEmbed(Module):
    """HiDreamImageOutEmbed."""

    def __init__(self, dim: int, outputs: int) -> None:
        self.norm_final = LayerNorm(dim, affine=False)
        self.linear = Linear(dim, outputs)
        self.adaLN_modulation = [silu, Linear(dim, 2 * dim)]

    def forward(self, hidden: Tensor, temb: Tensor) -> Tensor:
        shift, scale = _vectors(self.adaLN_modulation[1], temb, 2)
        hidden = self.norm_final(hidden) * (1 + scale) + shift
        return self.linear(hidden)


class HiDream(Network):
    def __init__(self, dims: Mapping[str, Any], checkpointing: Checkpointing, *, extend: bool = True) -> None:
        if checkpointing.every > 1 or checkpointing.stride > 1:
            raise NotModelled("HiDream with checkpoints other than of single blocks in a row is not modelled")
        heads, self.width = dims["num_attention_heads"], dims["attention_head_dim"]
        self.dim, self.inputs, self.patch = heads * self.width, dims["in_channels"], dims["patch_size"]
        self.stride, self.pooled_dim = tuple(dims["stride"]), dims["text_emb_dim"]
        self.t5_dim, self.llama_dim = dims["caption_channels"]
        self.max_tokens = dims["max_resolution"][0] * dims["max_resolution"][1] // self.patch**2
        double, single = dims["num_layers"], dims["num_single_layers"]
        experts = (dims["num_routed_experts"], dims["num_activated_experts"])
        pixels = self.patch**2 * self.inputs
        self.t_embedder = Embedding("timestep_embedder", 256, self.dim)
        self.p_embedder = Embedding("pooled_embedder", self.pooled_dim, self.dim)
        self.x_embedder = PatchEmbed(pixels, self.dim)
        self.double_stream_blocks = Blocks(
            double, lambda _: Wrapped(DoubleBlock(self.dim, heads, *experts)), checkpointing, extend=extend
        )
        self.single_stream_blocks = Blocks(
            single, lambda _: Wrapped(SingleBlock(self.dim, heads, *experts)), checkpointing, extend=extend
        )
        self.final_layer = OutEmbed(self.dim, self.patch**2 * (dims.get("out_channels") or self.inputs))

        def kind(i: int) -> tuple[int, bool]:
            """One projection is walked for each block that is, and that of T5."""
            if i < double:
                return 0, checkpointing.covers(i, double)
            return (1, checkpointing.covers(i - double, single)) if i < double + single else (2, False)

        self.t5_projection = double + single
        self.caption_projection = Blocks(
            double + single + 1,
            lambda i: TextProjection(self.llama_dim if i < double + single else self.t5_dim, self.dim),
            Checkpointing(),
            kind=kind,
            extend=extend,
        )

    def loss(self, tape: Tape, shape: Shape, dtype: str) -> Tensor:
        batch, height, width = shape.batch, shape.height // self.stride[1], shape.width // self.stride[2]
        out = self(
            tape.empty((batch, self.inputs, height, width), dtype),
            tape.empty((batch, shape.text_tokens, self.t5_dim), dtype),
            tape.empty((LLAMA_LAYERS, batch, shape.text_tokens, self.llama_dim), dtype),
            tape.empty((batch, self.pooled_dim), dtype),
        )
        return mse_loss(out.float(), tape.empty(out.shape, "fp32"))

    def forward(self, latents: Tensor, t5: Tensor, llama: Tensor, pooled: Tensor) -> Tensor:
        tape, (batch, channels, height, width) = latents.tape, latents.shape
        # an image that is not square is filled up to the largest there is
        other = height != width
        image = (height // self.patch) * (width // self.patch)
        image = image + other * (self.max_tokens - image)
        masks = tape.empty((batch, image), latents.dtype) if somewhere(other) else None
        hidden = tape.empty((batch, image, self.patch**2 * channels), latents.dtype)
        hidden = self.x_embedder(hidden)

        time = self.t_embedder(timesteps(tape, batch, 256).to(latents.dtype))
        embedded = self.p_embedder(pooled)
        temb = time + embedded
        layer = narrow(llama, *llama.shape[1:])
        captions: dict[int, Tensor] = {}
        for i, project in self.caption_projection.numbered(tape):
            caption = project(t5 if i == self.t5_projection else layer)
            caption.storage.keep()
            captions[i] = caption
        del caption
        tokens = t5.shape[1]
        rotary = tape.empty((batch, image + 3 * tokens, 1, self.width // 2, 2, 2), "fp32")

        initial = cat_tokens([captions[self.t5_projection], captions[self.t5_projection - 1]])
        first = 0
        for first, block in self.double_stream_blocks.numbered(tape):
            context = cat_tokens([initial, captions[first]])
            hidden, initial = block(hidden, masks, context, temb, rotary)
            initial = slice_tokens(initial, 2 * tokens)
        hidden = cat_tokens([hidden, initial])
        if masks is not None:
            masks = tape.empty((batch, image + 3 * tokens), masks.dtype)
        for i, block in self.single_stream_blocks.numbered(tape):
            hidden = cat_tokens([hidden, captions[first + 1 + i]])
            hidden = block(hidden, masks, temb, rotary)
            hidden = slice_tokens(hidden, image + 2 * tokens)
        hidden = slice_tokens(hidden, image)
        out = self.final_layer(hidden, temb)
        return out.view(batch, channels, image, self.patch**2).contiguous()


NETWORK = HiDream
