"""HunyuanVideo transformers (diffusers/models/transformers/transformer_hunyuan_video.py)."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from preflight.networks.common import AdaLayerNormContinuous, Dropout, FeedForward, PlainRMSNorm, apply_rotary_emb
from preflight.networks.conditioning import AdaLayerNormZero, TimeTextEmbedding
from preflight.networks.network import Network, NotModelled, Shape
from preflight.tape.activation import gelu, silu
from preflight.tape.attention import attention
from preflight.tape.loss import mse_loss
from preflight.tape.meter import Size
from preflight.tape.module import Blocks, Checkpointing, Conv, LayerNorm, Linear, Module
from preflight.tape.sequence import gathered, joint_attention, share
from preflight.tape.shaping import cat, chunk, narrow, sum_over
from preflight.tape.slicing import cat_tokens, slice_tokens
from preflight.tape.tensor import Tape, Tensor

Rotary = tuple[Tensor, Tensor]


class JointAttention(Module):
    """Attention of video and text by HunyuanVideoAttnProcessor2_0; with `single`, of both through the same projections."""

    def __init__(self, dim: int, heads: int, *, single: bool = False) -> None:
        self.heads, self.single = heads, single
        self.norm_q, self.norm_k = PlainRMSNorm(dim // heads), PlainRMSNorm(dim // heads)
        self.to_q, self.to_k, self.to_v = Linear(dim, dim), Linear(dim, dim), Linear(dim, dim)
        if not single:
            self.add_k_proj, self.add_v_proj, self.add_q_proj = Linear(dim, dim), Linear(dim, dim), Linear(dim, dim)
            self.to_out = [Linear(dim, dim), Dropout()]
            self.to_add_out = Linear(dim, dim)
            self.norm_added_q, self.norm_added_k = PlainRMSNorm(dim // heads), PlainRMSNorm(dim // heads)

    def forward(self, hidden: Tensor, context: Tensor, mask: Tensor, rotary: Rotary) -> tuple[Tensor, Tensor]:
        tokens = hidden.shape[1]
        if self.single:
            hidden = cat_tokens([hidden, context])
        query, key, value = self.to_q(hidden), self.to_k(hidden), self.to_v(hidden)
        query, key, value = self._heads(query), self._heads(key), self._heads(value)
        query = self.norm_q(query)
        key = self.norm_k(key)
        if query.tape.sharing.ranks > 1:
            return self._shared((query, key, value), context, tokens, mask, rotary)

        if self.single:
            query = self._rotate_first(query, tokens, rotary)
            key = self._rotate_first(key, tokens, rotary)
        else:
            query = apply_rotary_emb(query, rotary, tokens_dim=1)
            key = apply_rotary_emb(key, rotary, tokens_dim=1)
            query_context = self._heads(self.add_q_proj(context))
            key_context = self._heads(self.add_k_proj(context))
            value_context = self._heads(self.add_v_proj(context))
            query_context = self.norm_added_q(query_context)
            key_context = self.norm_added_k(key_context)
            query = cat_tokens([query, query_context])
            key = cat_tokens([key, key_context])
            value = cat_tokens([value, value_context])

        hidden = attend(query, key, value, mask)
        hidden = hidden.to(query.dtype)
        hidden, context = slice_tokens(hidden, tokens), slice_tokens(hidden, context.shape[1])
        if not self.single:
            hidden = self.to_out[0](hidden)
            context = self.to_add_out(context)
        return hidden, context

    def _shared(
        self, found: tuple[Tensor, Tensor, Tensor], context: Tensor, tokens: Size, mask: Tensor, rotary: Rotary
    ) -> tuple[Tensor, Tensor]:
        """As FastVideo has it (fastvideo/models/dits/hunyuanvideo.py): tokens of the video are shared, the text is whole."""
        video: list[Tensor] = list(found)
        if self.single:
            text: list[Tensor] = [slice_tokens(x, context.shape[1]) for x in video]
            video = [slice_tokens(x, tokens) for x in found]
        else:
            text = [self._heads(to(context)) for to in (self.add_q_proj, self.add_k_proj, self.add_v_proj)]
            text[0] = self.norm_added_q(text[0])
            text[1] = self.norm_added_k(text[1])
        del found
        video[0] = apply_rotary_emb(video[0], rotary, tokens_dim=1)
        video[1] = apply_rotary_emb(video[1], rotary, tokens_dim=1)
        hidden, context = (x.view(*x.shape[:2], x.shape[2] * x.shape[3]) for x in joint_attention(video, text, mask))
        return (hidden, context) if self.single else (self.to_out[0](hidden), self.to_add_out(context))

    def _heads(self, x: Tensor) -> Tensor:
        batch, tokens, dim = x.shape
        return x.view(batch, tokens, self.heads, dim // self.heads)

    def _rotate_first(self, x: Tensor, tokens: Any, rotary: Rotary) -> Tensor:
        video = apply_rotary_emb(slice_tokens(x, tokens), rotary, tokens_dim=1)
        return cat_tokens([video, slice_tokens(x, x.shape[1] - tokens)])


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """(B, tokens, heads, width) each, giving (B, tokens, heads x width)."""
    query, key, value = (x.view(x.shape[0], x.shape[2], x.shape[1], x.shape[3]) for x in (query, key, value))
    out = attention(query, key, value, mask)
    return out.view(out.shape[0], out.shape[2], out.shape[1] * out.shape[3])


class DualBlock(Module):
    """HunyuanVideoTransformerBlock: video and text side by side."""

    def __init__(self, dim: int, heads: int, inner_dim: int) -> None:
        self.norm1, self.norm1_context = AdaLayerNormZero(dim), AdaLayerNormZero(dim)
        self.attn = JointAttention(dim, heads)
        self.norm2 = LayerNorm(dim, affine=False)
        self.ff = FeedForward(dim, inner_dim)
        self.norm2_context = LayerNorm(dim, affine=False)
        self.ff_context = FeedForward(dim, inner_dim)

    def forward(self, hidden: Tensor, context: Tensor, temb: Tensor, mask: Tensor, rotary: Rotary) -> tuple[Tensor, Tensor]:
        normed, gate, ff_shift, ff_scale, ff_gate = self.norm1(hidden, temb)
        normed_context, gate_context, ff_shift_context, ff_scale_context, ff_gate_context = self.norm1_context(context, temb)

        attended, attended_context = self.attn(normed, normed_context, mask, rotary)
        hidden = hidden + attended * gate
        context = context + attended_context * gate_context

        normed = self.norm2(hidden)
        normed_context = self.norm2_context(context)
        normed = normed * (1 + ff_scale) + ff_shift
        normed_context = normed_context * (1 + ff_scale_context) + ff_shift_context

        fed = self.ff(normed)
        fed_context = self.ff_context(normed_context)
        hidden = hidden + ff_gate * fed
        context = context + ff_gate_context * fed_context
        return hidden, context


class SingleBlock(Module):
    """HunyuanVideoSingleTransformerBlock: video and text as one sequence."""

    def __init__(self, dim: int, heads: int, inner_dim: int) -> None:
        self.attn = JointAttention(dim, heads, single=True)
        self.norm = AdaLayerNormZero(dim, 3)
        self.proj_mlp = Linear(dim, inner_dim)
        self.proj_out = Linear(dim + inner_dim, dim)

    def forward(self, hidden: Tensor, context: Tensor, temb: Tensor, mask: Tensor, rotary: Rotary) -> tuple[Tensor, Tensor]:
        video, text = hidden.shape[1], context.shape[1]
        hidden = cat_tokens([hidden, context])
        residual = hidden
        normed, gate = self.norm(hidden, temb)
        fed = gelu(self.proj_mlp(normed))
        normed, normed_context = slice_tokens(normed, video), slice_tokens(normed, text)
        attended, attended_context = self.attn(normed, normed_context, mask, rotary)
        attended = cat_tokens([attended, attended_context])
        hidden = cat([attended, fed], 2)
        hidden = gate * self.proj_out(hidden)
        hidden = hidden + residual
        return slice_tokens(hidden, video), slice_tokens(hidden, text)


class RefinerAttention(Module):
    """attention_processor.py: Attention run by AttnProcessor2_0."""

    def __init__(self, dim: int, heads: int) -> None:
        self.heads = heads
        self.to_q, self.to_k, self.to_v = Linear(dim, dim), Linear(dim, dim), Linear(dim, dim)
        self.to_out = [Linear(dim, dim), Dropout()]

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        batch, tokens, dim = hidden.shape
        mask = mask.tape.empty((batch, self.heads, tokens, tokens), "bool")  # repeated for every head
        query, key, value = self.to_q(hidden), self.to_k(hidden), self.to_v(hidden)
        query, key, value = (x.view(batch, tokens, self.heads, dim // self.heads) for x in (query, key, value))
        hidden = attend(query, key, value, mask)
        hidden = self.to_out[0](hidden)
        return hidden / 1.0  # rescale_output_factor


class AdaNorm(Module):
    def __init__(self, dim: int) -> None:
        self.linear = Linear(dim, 2 * dim)

    def forward(self, temb: Tensor) -> tuple[Tensor, ...]:
        temb = self.linear(silu(temb))
        return chunk(temb.view(temb.shape[0], 1, temb.shape[1]), 2, -1)


class RefinerBlock(Module):
    def __init__(self, dim: int, heads: int) -> None:
        self.norm1 = LayerNorm(dim)
        self.attn = RefinerAttention(dim, heads)
        self.norm2 = LayerNorm(dim)
        self.ff = FeedForward(dim, 4 * dim, activation=silu)
        self.norm_out = AdaNorm(dim)

    def forward(self, hidden: Tensor, temb: Tensor, mask: Tensor) -> Tensor:
        normed = self.norm1(hidden)
        attended = self.attn(normed, mask)
        gate, ff_gate = self.norm_out(temb)
        hidden = hidden + attended * gate
        fed = self.ff(self.norm2(hidden))
        return hidden + fed * ff_gate


class Refiner(Module):
    """HunyuanVideoIndividualTokenRefiner."""

    def __init__(self, dim: int, heads: int, layers: int) -> None:
        self.refiner_blocks = [RefinerBlock(dim, heads) for _ in range(layers)]

    def forward(self, hidden: Tensor, temb: Tensor) -> Tensor:
        batch, tokens, _ = hidden.shape
        mask = hidden.tape.empty((batch, 1, tokens, tokens), "bool")
        for block in self.refiner_blocks:
            hidden = block(hidden, temb, mask)
        return hidden


class TokenRefiner(Module):
    def __init__(self, text_dim: int, dim: int, heads: int, layers: int) -> None:
        self.time_text_embed = TimeTextEmbedding(dim, text_dim)
        self.proj_in = Linear(text_dim, dim)
        self.token_refiner = Refiner(dim, heads, layers)

    def forward(self, text: Tensor) -> Tensor:
        batch, tokens, text_dim = text.shape
        pooled = sum_over(text * text.tape.empty((batch, tokens, 1), "fp32"), batch, text_dim)
        pooled = (pooled / 1.0).to(text.dtype)
        temb = self.time_text_embed(pooled)
        text = self.proj_in(text)
        return self.token_refiner(text, temb)


class PatchEmbed(Module):
    def __init__(self, inputs: int, dim: int, patch: tuple[int, ...]) -> None:
        self.proj = Conv(inputs, dim, patch, stride=patch)

    def forward(self, latents: Tensor) -> Tensor:
        latents = self.proj(latents)
        batch, dim, *size = latents.shape
        return latents.view(batch, size[0] * size[1] * size[2], dim)


class HunyuanVideo(Network):
    divides_sequence = True

    def __init__(self, dims: Mapping[str, Any], checkpointing: Checkpointing, *, extend: bool = True) -> None:
        if dims.get("image_condition_type") == "token_replace":
            raise NotModelled("HunyuanVideo with image_condition_type 'token_replace' is not modelled")
        heads, self.width = dims["num_attention_heads"], dims["attention_head_dim"]
        dim = heads * self.width
        inner_dim = int(dim * dims["mlp_ratio"])
        self.inputs, self.outputs = dims["in_channels"], dims["out_channels"]
        self.patch = (dims["patch_size_t"], dims["patch_size"], dims["patch_size"])
        self.stride = tuple(dims["stride"])
        self.text_dim, self.pooled_dim = dims["text_embed_dim"], dims["pooled_projection_dim"]
        self.x_embedder = PatchEmbed(self.inputs, dim, self.patch)
        self.context_embedder = TokenRefiner(self.text_dim, dim, heads, dims["num_refiner_layers"])
        self.time_text_embed = TimeTextEmbedding(dim, self.pooled_dim, guidance=dims["guidance_embeds"])
        self.transformer_blocks = Blocks(
            dims["num_layers"], lambda _: DualBlock(dim, heads, inner_dim), checkpointing, extend=extend
        )
        self.single_transformer_blocks = Blocks(
            dims["num_single_layers"], lambda _: SingleBlock(dim, heads, inner_dim), checkpointing, extend=extend
        )
        self.norm_out = AdaLayerNormContinuous(dim, dim)
        self.proj_out = Linear(dim, prod(self.patch) * self.outputs)

    def loss(self, tape: Tape, shape: Shape, dtype: str) -> Tensor:
        batch, frames = shape.batch, (shape.frames - 1) // self.stride[0] + 1
        height, width = shape.height // self.stride[1], shape.width // self.stride[2]
        out = self(
            tape.empty((batch, self.inputs, frames, height, width), dtype),
            tape.empty((batch, shape.text_tokens, self.text_dim), dtype),
            tape.empty((batch, self.pooled_dim), dtype),
        )
        return mse_loss(out.float(), tape.empty(out.shape, "fp32"))

    def forward(self, latents: Tensor, text: Tensor, pooled: Tensor) -> Tensor:
        tape, (batch, _, *size) = latents.tape, latents.shape
        frames, height, width = (n // p for n, p in zip(size, self.patch, strict=True))
        tokens = frames * height * width
        rotary = (tape.empty((tokens, self.width), "fp32"), tape.empty((tokens, self.width), "fp32"))
        temb = self.time_text_embed(pooled)
        hidden = self.x_embedder(latents)
        context = self.context_embedder(text)
        mask = tape.empty((batch, 1, 1, tokens + text.shape[1]), "bool")
        ranks = tape.sharing.ranks
        if ranks > 1:  # views, as the loop over the blocks begins
            tokens = share(tokens, ranks)
            hidden = narrow(hidden, batch, tokens, hidden.shape[2])
            rotary = (narrow(rotary[0], tokens, self.width), narrow(rotary[1], tokens, self.width))

        for block in self.transformer_blocks.walk(tape):
            hidden, context = block(hidden, context, temb, mask, rotary)
        for block in self.single_transformer_blocks.walk(tape):
            hidden, context = block(hidden, context, temb, mask, rotary)

        hidden = self.norm_out(hidden, temb)
        hidden = gathered(self.proj_out(hidden), ranks)
        return hidden.view(batch, self.outputs, *size).contiguous()


NETWORK = HunyuanVideo
