"""HunyuanDiT image transformers (diffusers/models/transformers/hunyuan_transformer_2d.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from preflight.networks.common import (
    AdaLayerNormContinuous,
    Dropout,
    FeedForward,
    TextProjection,
    TimestepEmbedding,
    apply_rotary_emb,
    silu_fp32,
    timesteps,
)
from preflight.networks.network import Network, Shape
from preflight.tape.activation import silu
from preflight.tape.attention import attention
from preflight.tape.linear import linear
from preflight.tape.lookup import lookup
from preflight.tape.loss import mse_loss
from preflight.tape.meter import Size
from preflight.tape.module import Blocks, Checkpointing, Conv, FP32LayerNorm, LayerNorm, Linear, Module
from preflight.tape.shaping import cat, chunk, narrow, sum_over, transpose, where
from preflight.tape.tensor import Parameter, Tape, Tensor

Rotary = tuple[Tensor, Tensor]


class AdaLayerNormShift(Module):
    def __init__(self, dim: int) -> None:
        self.linear = Linear(dim, dim)
        self.norm = FP32LayerNorm(dim)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        shift = self.linear(silu(emb.float()).to(emb.dtype))
        batch, dim = shift.shape
        return self.norm(x) + shift.view(batch, 1, dim)


class HunyuanAttention(Module):
    """attention_processor.py: Attention run by HunyuanAttnProcessor2_0."""

    def __init__(self, dim: int, heads: int, *, context_dim: int | None = None) -> None:
        self.heads, self.crosses = heads, context_dim is not None
        self.norm_q, self.norm_k = LayerNorm(dim // heads), LayerNorm(dim // heads)
        self.to_q = Linear(dim, dim)
        self.to_k, self.to_v = Linear(context_dim or dim, dim), Linear(context_dim or dim, dim)
        self.to_out = [Linear(dim, dim), Dropout()]

    def forward(self, hidden: Tensor, context: Tensor | None, rotary: Rotary) -> Tensor:
        query = self.to_q(hidden)
        if context is None:
            context = hidden
        key, value = self.to_k(context), self.to_v(context)
        query, key = transpose(query, *self._heads(query)), transpose(key, *self._heads(key))
        value = value.view(*self._heads(value))
        query = self.norm_q(query)
        key = self.norm_k(key)
        query = apply_rotary_emb(query, rotary)
        if not self.crosses:
            key = apply_rotary_emb(key, rotary)
        out = attention(query, key, value)
        batch, heads, tokens, width = out.shape
        # the rotation leaves the query's heads in front of its tokens, and the kernel gives what it took
        out = out.contiguous().view(batch, tokens, heads * width)
        out = out.to(query.dtype)
        out = self.to_out[0](out)
        return out / 1.0  # rescale_output_factor

    def _heads(self, x: Tensor) -> tuple[Size, ...]:
        batch, tokens, dim = x.shape
        return batch, self.heads, tokens, dim // self.heads


class HunyuanDiTBlock(Module):
    def __init__(self, dim: int, heads: int, *, context_dim: int, inner_dim: int, skip: bool) -> None:
        self.norm1 = AdaLayerNormShift(dim)
        self.attn1 = HunyuanAttention(dim, heads)
        self.norm2 = FP32LayerNorm(dim)
        self.attn2 = HunyuanAttention(dim, heads, context_dim=context_dim)
        self.norm3 = FP32LayerNorm(dim)
        self.ff = FeedForward(dim, inner_dim)
        self.skip_norm = FP32LayerNorm(2 * dim) if skip else None
        self.skip_linear = Linear(2 * dim, dim) if skip else None

    def forward(self, hidden: Tensor, context: Tensor, temb: Tensor, rotary: Rotary, skip: Tensor | None = None) -> Tensor:
        both = None
        if skip is not None and self.skip_norm is not None and self.skip_linear is not None:
            both = cat([hidden, skip], -1)
            both = self.skip_norm(both)
            hidden = self.skip_linear(both)
        normed = self.norm1(hidden, temb)
        attended = self.attn1(normed, None, rotary)
        hidden = hidden + attended
        hidden = hidden + self.attn2(self.norm2(hidden), context, rotary)
        normed_again = self.norm3(hidden)
        return hidden + self.ff(normed_again)


class AttentionPool(Module):
    """embeddings.py: HunyuanDiTAttentionPool, the mean of the T5 tokens attending to them."""

    def __init__(self, tokens: int, dim: int, heads: int, outputs: int) -> None:
        self.heads = heads
        self.positional_embedding = Parameter((tokens + 1, dim))
        self.k_proj, self.q_proj, self.v_proj = Linear(dim, dim), Linear(dim, dim), Linear(dim, dim)
        self.c_proj = Linear(dim, outputs)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, dim = x.shape
        x = x.view(tokens, batch, dim)
        x = cat([sum_over(x, 1, batch, dim), x], 0)
        x = x + self.positional_embedding.view(tokens + 1, 1, dim).to(x.dtype)
        biases = [module.bias for module in (self.q_proj, self.k_proj, self.v_proj) if module.bias is not None]
        bias_q, bias_k, bias_v = chunk(cat(biases, 0), 3, 0)
        query = linear(narrow(x, 1, batch, dim), self.q_proj.weight, bias_q)
        key = linear(x, self.k_proj.weight, bias_k)
        value = linear(x, self.v_proj.weight, bias_v)
        query, key, value = self._heads(query), self._heads(key), self._heads(value)
        out = attention(query, key, value)
        del query, key, value
        return self.c_proj(out.view(batch, dim))

    def _heads(self, x: Tensor) -> Tensor:
        tokens, batch, dim = x.shape
        return x.view(batch, self.heads, tokens, dim // self.heads)


class TimeExtraEmbedding(Module):
    """embeddings.py: HunyuanCombinedTimestepTextSizeStyleEmbedding."""

    def __init__(self, dim: int, pooled_dim: int, tokens: int, text_dim: int, *, style_and_size: bool) -> None:
        self.timestep_embedder = TimestepEmbedding(256, dim)
        self.pooler = AttentionPool(tokens, text_dim, 8, pooled_dim)
        self.style_embedder = Style(dim) if style_and_size else None
        extra_dim = 256 * 6 + dim + pooled_dim if style_and_size else pooled_dim
        self.extra_embedder = TextProjection(extra_dim, dim * 4, dim, activation=silu_fp32)

    def forward(self, tape: Tape, text: Tensor) -> Tensor:
        batch = text.shape[0]
        dtype = self.timestep_embedder.linear_1.weight.dtype
        time = self.timestep_embedder(timesteps(tape, batch, 256).to(dtype))
        conditions = [self.pooler(text)]
        if self.style_embedder is not None:
            conditions.append(timesteps(tape, batch * 6, 256).to(dtype).view(batch, 6 * 256))
            conditions.append(self.style_embedder(tape, batch))
        extra = cat(conditions, 1)
        return time + self.extra_embedder(extra)


class Style(Module):
    """torch.nn.Embedding of one style."""

    def __init__(self, dim: int) -> None:
        self.weight = Parameter((1, dim))

    def forward(self, tape: Tape, batch: Size) -> Tensor:
        return lookup(self.weight, tape.empty((batch,), "int64"))


class PatchEmbed(Module):
    def __init__(self, inputs: int, dim: int, patch: int) -> None:
        self.proj = Conv(inputs, dim, (patch, patch), stride=(patch, patch))

    def forward(self, latents: Tensor) -> Tensor:
        latents = self.proj(latents)
        batch, dim, height, width = latents.shape
        return latents.view(batch, height * width, dim)


class HunyuanDiT(Network):
    def __init__(self, dims: Mapping[str, Any], checkpointing: Checkpointing, *, extend: bool = True) -> None:
        heads, self.head_dim = dims["num_attention_heads"], dims["attention_head_dim"]
        dim, count = heads * self.head_dim, dims["num_layers"]
        self.inputs, self.patch = dims["in_channels"], dims["patch_size"]
        self.outputs = self.inputs * 2 if dims["learn_sigma"] else self.inputs
        self.stride = tuple(dims.get("stride", (1, 8, 8)))
        self.text_dim, self.t5_dim = dims["cross_attention_dim"], dims["cross_attention_dim_t5"]
        self.text_len, self.t5_len = dims["text_len"], dims["text_len_t5"]
        self.middle = count // 2
        self.text_embedder = TextProjection(self.t5_dim, self.t5_dim * 4, self.text_dim, activation=silu_fp32)
        self.text_embedding_padding = Parameter((self.text_len + self.t5_len, self.text_dim))
        self.pos_embed = PatchEmbed(self.inputs, dims["hidden_size"], self.patch)
        self.time_extra_emb = TimeExtraEmbedding(
            dims["hidden_size"],
            dims["pooled_projection_dim"],
            self.t5_len,
            self.t5_dim,
            style_and_size=dims["use_style_cond_and_image_meta_size"],
        )
        inner_dim = int(dim * dims["mlp_ratio"])
        self.blocks = Blocks(
            count,
            lambda i: HunyuanDiTBlock(dim, heads, context_dim=self.text_dim, inner_dim=inner_dim, skip=i > self.middle),
            # a skip leaves the network between two blocks, so that no unit holds both
            Checkpointing({"fraction": checkpointing.fraction}),
            kind=lambda i: (self._is_kept(i), i > self.middle),
            mirrored=True,
            extend=extend,
        )
        self.norm_out = AdaLayerNormContinuous(dim, dim)
        self.proj_out = Linear(dim, self.patch * self.patch * self.outputs)

    def _is_kept(self, layer: int) -> bool:
        return layer < self.middle - 1

    def loss(self, tape: Tape, shape: Shape, dtype: str) -> Tensor:
        batch, height, width = shape.batch, shape.height // self.stride[1], shape.width // self.stride[2]
        tokens = (height // self.patch) * (width // self.patch)
        out = self(
            tape,
            tape.empty((batch, self.inputs, height, width), dtype),
            tape.empty((batch, self.text_len, self.text_dim), dtype),
            tape.empty((batch, self.t5_len, self.t5_dim), dtype),
            (tape.empty((tokens, self.head_dim), "fp32"), tape.empty((tokens, self.head_dim), "fp32")),
        )
        prediction = narrow(out, batch, self.inputs, height, width).float()
        return mse_loss(prediction, tape.empty(prediction.shape, "fp32"))

    def forward(self, tape: Tape, latents: Tensor, text: Tensor, t5: Tensor, rotary: Rotary) -> Tensor:
        batch, _, height, width = latents.shape
        hidden = self.pos_embed(latents)
        temb = self.time_extra_emb(tape, t5)
        t5 = self.text_embedder(t5)
        text = cat([text, t5], 1)
        text = where(text, self.text_embedding_padding, tape.empty((batch, self.text_len + self.t5_len, 1), "bool"))

        skips: list[Tensor] = []
        skip = None
        for layer, block in self.blocks.numbered(tape):
            if layer > self.middle:
                skip = skips.pop()
                hidden = block(hidden, text, temb, rotary, skip)
            else:
                hidden = block(hidden, text, temb, rotary)
            if self._is_kept(layer):
                skips.append(hidden)

        hidden = self.norm_out(hidden, temb.float())
        hidden = self.proj_out(hidden)
        return hidden.view(batch, self.outputs, height, width).contiguous()


NETWORK = HunyuanDiT
