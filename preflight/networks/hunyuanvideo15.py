"""HunyuanVideo-1.5 transformers (diffusers/models/transformers/transformer_hunyuan_video15.py).

What the last block makes of the text is not used, so no gradient reaches the layers behind it and an optimizer keeps nothing for
them. Every token of the text is taken to be valid.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from preflight.networks.common import AdaLayerNormContinuous, TimestepEmbedding, apply_rotary_emb, timesteps
from preflight.networks.hunyuanvideo import DualBlock, JointAttention, PatchEmbed, TokenRefiner, attend
from preflight.networks.network import Network, NotModelled, Shape
from preflight.tape.activation import gelu
from preflight.tape.lookup import lookup
from preflight.tape.loss import mse_loss
from preflight.tape.module import Blocks, Checkpointing, LayerNorm, Linear, Module
from preflight.tape.shaping import cat, narrow, pad
from preflight.tape.slicing import cat_tokens, slice_tokens
from preflight.tape.tensor import Parameter, Tape, Tensor

GLYPH_TOKENS, IMAGE_TOKENS = 256, 729  # of the second text encoder and of the image encoder
Rotary = tuple[Tensor, Tensor]


class Attention15(JointAttention):
    """HunyuanVideo15AttnProcessor2_0: the same projections, and a mask of every pair of tokens made in each block."""

    def forward(self, hidden: Tensor, context: Tensor, mask: Tensor, rotary: Rotary) -> tuple[Tensor, Tensor]:
        tokens = hidden.shape[1]
        query, key, value = self.to_q(hidden), self.to_k(hidden), self.to_v(hidden)
        query, key, value = self._heads(query), self._heads(key), self._heads(value)
        query = self.norm_q(query)
        key = self.norm_k(key)
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

        batch, both = query.shape[:2]
        mask = pad(mask, batch, both)
        first = mask.tape.empty((batch, 1, both, both), "bool")
        second = first.view(*first.shape)
        mask = mask.tape.empty(first.shape, "bool")
        hidden = attend(query, key, value, mask)
        hidden = hidden.to(query.dtype)
        hidden, context = slice_tokens(hidden, tokens), slice_tokens(hidden, context.shape[1])
        hidden = self.to_out[0](hidden)
        context = self.to_add_out(context)
        del first, second  # kept as long in the original
        return hidden, context


class Block(DualBlock):
    """HunyuanVideo15TransformerBlock: the dual block with attention of its own; the last one's text goes nowhere."""

    def __init__(self, dim: int, heads: int, inner_dim: int, *, last: bool) -> None:
        super().__init__(dim, heads, inner_dim)
        self.attn = Attention15(dim, heads)
        if last:
            for part in (self.attn.to_add_out, self.ff_context):
                for _, parameter in part.parameters():
                    parameter.requires_grad = False


class GlyphProjection(Module):
    """HunyuanVideo15ByT5TextProjection."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        self.norm = LayerNorm(inputs)
        self.linear_1, self.linear_2, self.linear_3 = Linear(inputs, hidden), Linear(hidden, hidden), Linear(hidden, outputs)

    def forward(self, text: Tensor) -> Tensor:
        hidden = self.norm(text)
        hidden = self.linear_1(hidden)
        hidden = gelu(hidden)
        hidden = self.linear_2(hidden)
        hidden = gelu(hidden)
        return self.linear_3(hidden)


class ImageProjection(Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        self.norm_in, self.norm_out = LayerNorm(inputs), LayerNorm(outputs)
        self.linear_1, self.linear_2 = Linear(inputs, inputs), Linear(inputs, outputs)

    def forward(self, image: Tensor) -> Tensor:
        hidden = self.norm_in(image)
        hidden = self.linear_1(hidden)
        hidden = gelu(hidden)
        hidden = self.linear_2(hidden)
        return self.norm_out(hidden)


class TimeEmbedding(Module):
    def __init__(self, dim: int) -> None:
        self.timestep_embedder = TimestepEmbedding(256, dim)


class HunyuanVideo15(Network):
    guidance_doubles = False  # pipeline_hunyuan_video1_5.py calls it twice, one half after the other

    def __init__(self, dims: Mapping[str, Any], checkpointing: Checkpointing, *, extend: bool = True) -> None:
        if dims.get("use_meanflow"):
            raise NotModelled("HunyuanVideo-1.5 with use_meanflow is not modelled")
        heads, self.width = dims["num_attention_heads"], dims["attention_head_dim"]
        dim = heads * self.width
        self.dim, self.inputs, self.outputs = dim, dims["in_channels"], dims["out_channels"]
        self.patch = (dims["patch_size_t"], dims["patch_size"], dims["patch_size"])
        self.stride = tuple(dims["stride"])
        self.text_dim, self.glyph_dim, self.image_dim = dims["text_embed_dim"], dims["text_embed_2_dim"], dims["image_embed_dim"]
        self.x_embedder = PatchEmbed(self.inputs, dim, self.patch)
        self.image_embedder = ImageProjection(self.image_dim, dim)
        self.context_embedder = TokenRefiner(self.text_dim, dim, heads, dims["num_refiner_layers"])
        self.context_embedder_2 = GlyphProjection(self.glyph_dim, 2048, dim)
        self.time_embed = TimeEmbedding(dim)
        self.cond_type_embed = CondType(dim)
        layers = dims["num_layers"]
        self.transformer_blocks = Blocks(
            layers,
            lambda i: Block(dim, heads, int(dim * dims["mlp_ratio"]), last=i == layers - 1),
            checkpointing,
            kind=lambda i: i == layers - 1,
            extend=extend,
        )
        self.norm_out = AdaLayerNormContinuous(dim, dim)
        self.proj_out = Linear(dim, prod(self.patch) * self.outputs)

    def loss(self, tape: Tape, shape: Shape, dtype: str) -> Tensor:
        batch, frames = shape.batch, (shape.frames - 1) // self.stride[0] + 1
        height, width = shape.height // self.stride[1], shape.width // self.stride[2]
        out = self(
            tape.empty((batch, self.inputs, frames, height, width), dtype),
            tape.empty((batch, shape.text_tokens, self.text_dim), dtype),
            tape.empty((batch, GLYPH_TOKENS, self.glyph_dim), dtype),
            tape.empty((batch, IMAGE_TOKENS, self.image_dim), dtype),
        )
        return mse_loss(out.float(), tape.empty(out.shape, "fp32"))

    def forward(self, latents: Tensor, text: Tensor, glyphs: Tensor, image: Tensor) -> Tensor:
        tape, (batch, _, *size) = latents.tape, latents.shape
        frames, height, width = (n // p for n, p in zip(size, self.patch, strict=True))
        tokens = frames * height * width
        rotary = (tape.empty((tokens, self.width), "fp32"), tape.empty((tokens, self.width), "fp32"))
        temb = self.time_embed.timestep_embedder(timesteps(tape, batch, 256).to(latents.dtype))
        hidden = self.x_embedder(latents)
        text = self.context_embedder(text)
        text_type = self.cond_type_embed(text)
        text = text + text_type
        glyphs = self.context_embedder_2(glyphs)
        glyphs_type = self.cond_type_embed(glyphs)
        glyphs = glyphs + glyphs_type
        image = self.image_embedder(image)
        image_type = self.cond_type_embed(image)
        image = image + image_type

        # picked by their masks, sample by sample, in a list that stays
        samples = cat([narrow(image, *image.shape), narrow(glyphs, *glyphs.shape), narrow(text, *text.shape)], 1)
        context = cat([samples], 0)
        mask = tape.empty(context.shape[:2], "bool")
        for block in self.transformer_blocks.walk(tape):
            hidden, context = block(hidden, context, temb, mask, rotary)
        hidden = self.norm_out(hidden, temb)
        hidden = self.proj_out(hidden)
        del samples
        return hidden.view(batch, self.outputs, *size).contiguous()


class CondType(Module):
    """The kind of token, embedded."""

    def __init__(self, dim: int) -> None:
        self.weight = Parameter((3, dim))

    def forward(self, tokens: Tensor) -> Tensor:
        return lookup(self.weight, tokens.tape.empty(tokens.shape[:2], "int64"))


NETWORK = HunyuanVideo15
