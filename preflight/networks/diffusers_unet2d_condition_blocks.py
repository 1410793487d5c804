"""The stages of diffusers' UNet2DConditionModel (diffusers/models/unets/unet_2d_blocks.py, transformers/transformer_2d.py).

Images keep their order in memory throughout: a transformer hands its result back in the order of its input.
"""

from __future__ import annotations

from collections.abc import Sequence

from preflight.networks.common import Dropout
from preflight.networks.diffusers_unet2d_blocks import Downsample2D, ImageConv, ResnetBlock2D, Upsample2D
from preflight.networks.gated import GEGLU
from preflight.tape.attention import attention
from preflight.tape.checkpoint import checkpoint
from preflight.tape.module import Blocks, Checkpointing, GroupNorm, LayerNorm, Linear, Module
from preflight.tape.shaping import cat, transpose
from preflight.tape.tensor import Tensor

# groups of the normalisations, what is checkpointed, and whether one block may stand for others
Policy = tuple[int, Checkpointing, bool]


class CrossAttention(Module):
    """attention_processor.py: Attention with AttnProcessor2_0, to the image itself or to the text."""

    def __init__(self, dim: int, heads: int, context_dim: int) -> None:
        self.heads = heads
        self.to_q = Linear(dim, dim, bias=False)
        self.to_k, self.to_v = Linear(context_dim, dim, bias=False), Linear(context_dim, dim, bias=False)
        self.to_out = [Linear(dim, dim), Dropout()]

    def forward(self, hidden: Tensor, context: Tensor | None = None) -> Tensor:
        batch, tokens, dim = hidden.shape
        query = self.to_q(hidden)
        if context is None:
            context = hidden
        key, value = self.to_k(context), self.to_v(context)
        query, key, value = self._heads(query), self._heads(key), self._heads(value)
        hidden = attention(query, key, value)
        hidden = hidden.view(batch, tokens, dim)
        hidden = hidden.to(query.dtype)
        hidden = self.to_out[0](hidden)
        return hidden / 1.0

    def _heads(self, x: Tensor) -> Tensor:
        batch, tokens, dim = x.shape
        return x.view(batch, self.heads, tokens, dim // self.heads)


class FeedForward(Module):
    """attention.py: FeedForward with a gated activation."""

    def __init__(self, dim: int) -> None:
        self.net = [GEGLU(dim, 4 * dim), Dropout(), Linear(4 * dim, dim)]

    def forward(self, x: Tensor) -> Tensor:
        for module in self.net:
            x = module(x)
        return x


class TransformerBlock(Module):
    """attention.py: BasicTransformerBlock with layer norms."""

    def __init__(self, dim: int, heads: int, context_dim: int) -> None:
        self.norm1, self.attn1 = LayerNorm(dim), CrossAttention(dim, heads, dim)
        self.norm2, self.attn2 = LayerNorm(dim), CrossAttention(dim, heads, context_dim)
        self.norm3, self.ff = LayerNorm(dim), FeedForward(dim)

    def forward(self, hidden: Tensor, context: Tensor) -> Tensor:
        normed = self.norm1(hidden)
        out = self.attn1(normed)
        hidden = out + hidden
        normed = self.norm2(hidden)
        out = self.attn2(normed, context)
        hidden = out + hidden
        normed = self.norm3(hidden)
        fed = self.ff(normed)
        return fed + hidden


class Transformer2D(Module):
    """transformer_2d.py: Transformer2DModel over the pixels of an image; `linear`: projections of tokens, not of the image."""

    def __init__(self, dim: int, heads: int, layers: int, context_dim: int, policy: Policy, *, linear: bool) -> None:
        groups, checkpointing, extend = policy
        self.norm = GroupNorm(groups, dim)
        self.proj_in: Module = Linear(dim, dim) if linear else ImageConv(dim, dim, 1)
        self.transformer_blocks = Blocks(layers, lambda _: TransformerBlock(dim, heads, context_dim), checkpointing, extend=extend)
        self.proj_out: Module = Linear(dim, dim) if linear else ImageConv(dim, dim, 1)
        self.linear = linear

    def forward(self, hidden: Tensor, context: Tensor) -> Tensor:
        batch, dim, height, width = hidden.shape
        residual = hidden
        hidden = self.norm(hidden)
        if self.linear:
            hidden = self.proj_in(hidden.view(batch, height * width, dim), transposed=True)
        else:
            hidden = self.proj_in(hidden)
            hidden = hidden.view(batch, height * width, dim)
        for block in self.transformer_blocks.walk(hidden.tape):
            hidden = block(hidden, context)
        return self._get_output(hidden, residual)

    def _get_output(self, hidden: Tensor, residual: Tensor) -> Tensor:
        if self.linear:
            hidden = self.proj_out(hidden)
            hidden = transpose(hidden, *residual.shape).contiguous()
        else:
            hidden = transpose(hidden, *residual.shape).contiguous()
            hidden = self.proj_out(hidden)
        return hidden + residual


class Stage(Module):
    """Resnets at one resolution, each with a transformer behind it or without, and then a change of resolution."""

    def __init__(self, resnets: list[ResnetBlock2D], attentions: list[Transformer2D]) -> None:
        self.resnets, self.attentions = resnets, attentions
        self.checkpointed = [False] * len(resnets)

    def layer(self, i: int, hidden: Tensor, temb: Tensor, context: Tensor) -> Tensor:
        resnet = self.resnets[i]
        hidden = checkpoint(resnet, hidden, temb, False) if self.checkpointed[i] else resnet(hidden, temb, False)
        return self.attentions[i](hidden, context) if self.attentions else hidden


class DownStage(Stage):
    """DownBlock2D and CrossAttnDownBlock2D: the last image, and every one on the way."""

    def __init__(self, resnets: list[ResnetBlock2D], attentions: list[Transformer2D], downsampler: Downsample2D | None) -> None:
        super().__init__(resnets, attentions)
        self.downsamplers = [downsampler] if downsampler is not None else []

    def forward(self, hidden: Tensor, temb: Tensor, context: Tensor) -> tuple[Tensor, list[Tensor]]:
        output_states: list[Tensor] = []
        for i in range(len(self.resnets)):
            hidden = self.layer(i, hidden, temb, context)
            output_states.append(hidden)
        for downsampler in self.downsamplers:
            hidden = downsampler(hidden, False)
            output_states.append(hidden)
        return hidden, output_states


class UpStage(Stage):
    """UpBlock2D and CrossAttnUpBlock2D, which take the images of the way down in reverse."""

    def __init__(self, resnets: list[ResnetBlock2D], attentions: list[Transformer2D], upsampler: Upsample2D | None) -> None:
        super().__init__(resnets, attentions)
        self.upsamplers = [upsampler] if upsampler is not None else []

    def forward(self, hidden: Tensor, res_samples: Sequence[Tensor], temb: Tensor, context: Tensor) -> Tensor:
        for i, res_hidden in enumerate(reversed(res_samples)):
            hidden = cat([hidden, res_hidden], 1)
            hidden = self.layer(i, hidden, temb, context)
        for upsampler in self.upsamplers:
            hidden = upsampler(hidden, False)
        return hidden


class MidStage(Stage):
    """UNetMidBlock2DCrossAttn: a resnet, and then a transformer and a resnet."""

    def forward(self, hidden: Tensor, temb: Tensor, context: Tensor) -> Tensor:
        hidden = self.resnets[0](hidden, temb, False)
        hidden = self.attentions[0](hidden, context)
        resnet = self.resnets[1]
        return checkpoint(resnet, hidden, temb, False) if self.checkpointed[1] else resnet(hidden, temb, False)
