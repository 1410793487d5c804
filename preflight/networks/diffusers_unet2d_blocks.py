"""The blocks of diffusers' UNet2DModel (diffusers/models/unets/unet_2d_blocks.py, resnet.py, attention_processor.py).

`last` says of an image (B, C, H, W) whether its channels come last in memory, as attention leaves them: there a normalisation over
tokens or a shortcut's `.contiguous()` makes a copy, and the gradients of convolutions arrive in that order too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from preflight.tape.activation import BY_NAME
from preflight.tape.attention import attention
from preflight.tape.autocast import upper
from preflight.tape.checkpoint import checkpoint
from preflight.tape.dropout import dropout
from preflight.tape.meter import somewhere
from preflight.tape.module import Conv, GroupNorm, Linear, Module
from preflight.tape.normalization import group_norm
from preflight.tape.shaping import cat, chunk, pad, transpose, upsample_nearest
from preflight.tape.tensor import Tensor

Feature = tuple[Tensor, bool]


@dataclass(frozen=True, kw_only=True, slots=True)
class Style:
    """What all the blocks of one network share."""

    temb_channels: int
    groups: int
    act_fn: str
    dropout: float
    time_scale_shift: bool
    head_dim: int | None
    scale_factor: float = 1.0


class ImageConv(Conv):
    """A convolution that keeps its input's order of channels."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, padding: int = 0) -> None:
        super().__init__(inputs, outputs, (kernel, kernel), stride=stride, padding=padding)
        self.kernel = kernel

    def forward(self, x: Tensor, last: bool = False) -> Tensor:
        self.weight.gradient_strided = last and self.kernel > 1
        return super().forward(x)


class Downsample2D(Module):
    """downsampling.py: a convolution of stride 2, or the mean of four."""

    def __init__(self, channels: int, padding: int) -> None:
        self.conv = ImageConv(channels, channels, 3, stride=2, padding=padding)
        self.padded = padding > 0

    def forward(self, hidden: Tensor, last: bool) -> Tensor:
        if not self.padded:
            batch, channels, height, width = hidden.shape
            hidden = pad(hidden, batch, channels, height + 1, width + 1)
        return self.conv(hidden, last)


class Upsample2D(Module):
    """upsampling.py: nearest neighbours, then a convolution."""

    def __init__(self, channels: int) -> None:
        self.conv = ImageConv(channels, channels, 3, padding=1)

    def forward(self, hidden: Tensor, last: bool) -> Tensor:
        hidden = upsample_nearest(hidden, 2)
        return self.conv(hidden, last)


class ResnetBlock2D(Module):
    """resnet.py: ResnetBlock2D; `resample` halves or doubles the image inside it."""

    def __init__(self, inputs: int, outputs: int, style: Style, resample: Callable[[Tensor, int], Tensor] | None = None) -> None:
        self.norm1 = GroupNorm(style.groups, inputs)
        self.conv1 = ImageConv(inputs, outputs, 3, padding=1)
        self.time_emb_proj = Linear(style.temb_channels, outputs * (2 if style.time_scale_shift else 1))
        self.norm2 = GroupNorm(style.groups, outputs)
        self.conv2 = ImageConv(outputs, outputs, 3, padding=1)
        self.conv_shortcut = ImageConv(inputs, outputs, 1) if inputs != outputs else None
        self.nonlinearity = BY_NAME[style.act_fn]
        self.style, self.resample = style, resample

    def keeps_order(self, last: bool) -> bool:
        """Whether its result has the channels last; the shortcut's copy of the input has not."""
        return last and self.conv_shortcut is None

    def forward(self, input_tensor: Tensor, temb: Tensor, last: bool) -> Tensor:
        hidden = input_tensor
        hidden = self.norm1(hidden)
        hidden = self.nonlinearity(hidden)
        if self.resample is not None:
            input_tensor = self.resample(input_tensor, 2)
            hidden = self.resample(hidden, 2)
        hidden = self.conv1(hidden, last)

        temb = self.nonlinearity(temb)
        temb = self.time_emb_proj(temb)
        temb = temb.view(*temb.shape, 1, 1)
        if self.style.time_scale_shift:
            time_scale, time_shift = chunk(temb, 2, 1)
            hidden = self.norm2(hidden)
            hidden = hidden * (1 + time_scale) + time_shift
        else:
            hidden = hidden + temb
            hidden = self.norm2(hidden)
        hidden = self.nonlinearity(hidden)
        if self.style.dropout:
            hidden = dropout(hidden)
        hidden = self.conv2(hidden, last)

        if self.conv_shortcut is not None:
            if last:
                input_tensor = input_tensor.contiguous()
            input_tensor = self.conv_shortcut(input_tensor)
        return (input_tensor + hidden) / self.style.scale_factor


class Attention(Module):
    """attention_processor.py: Attention with AttnProcessor2_0, over the pixels of an image; its result has the channels last."""

    def __init__(self, channels: int, style: Style, groups: int | None) -> None:
        head_dim = style.head_dim if style.head_dim is not None else channels
        self.heads = channels // head_dim
        inner = self.heads * head_dim
        self.group_norm = GroupNorm(groups, channels) if groups is not None else None
        self.to_q, self.to_k, self.to_v = Linear(channels, inner), Linear(channels, inner), Linear(channels, inner)
        self.to_out = [Linear(inner, channels)]
        self.scale_factor = style.scale_factor

    def forward(self, hidden: Tensor, last: bool) -> Tensor:
        residual = hidden
        batch, channels, height, width = hidden.shape
        tokens, several = height * width, somewhere(batch > 1)
        transposed = not last
        if self.group_norm is not None:
            hidden = self._normed(hidden.view(batch, channels, tokens), last=last, several=several)
            transposed = True
        hidden = hidden.view(batch, tokens, channels)
        encoder_hidden = hidden
        query = self.to_q(hidden, transposed=transposed)
        key = self.to_k(encoder_hidden, transposed=transposed)
        value = self.to_v(encoder_hidden, transposed=transposed)
        query, key, value = self._heads(query), self._heads(key), self._heads(value)
        hidden = attention(query, key, value)
        hidden = hidden.view(batch, tokens, hidden.shape[1] * hidden.shape[3])
        hidden = self.to_out[0](hidden)
        # several samples' gradients are copied back into the order of tokens
        image = (batch, channels, height, width)
        hidden = transpose(hidden, *image) if several else hidden.view(*image)
        hidden = hidden + residual
        return hidden / self.scale_factor

    def _normed(self, hidden: Tensor, *, last: bool, several: bool) -> Tensor:
        """aten/src/ATen/native/group_norm.cpp: three dimensions are normalised in a copy where they are not in order."""
        assert self.group_norm is not None
        norm, hidden = self.group_norm, upper(hidden)
        return group_norm(hidden.contiguous() if last else hidden, norm.groups, norm.weight, norm.bias, gradient_strided=several)

    def _heads(self, x: Tensor) -> Tensor:
        batch, tokens, inner = x.shape
        return x.view(batch, self.heads, tokens, inner // self.heads)


class Block(Module):
    """Resnets, each with an attention behind it or without, and then a change of resolution."""

    def __init__(self, resnets: Sequence[ResnetBlock2D], attentions: Sequence[Attention], resampler: Module | None) -> None:
        self.resnets, self.attentions = resnets, attentions
        self.resampler = resampler
        self.checkpointed = [False] * len(resnets)

    def _layer(self, i: int, hidden: Tensor, temb: Tensor, last: bool) -> Feature:
        resnet = self.resnets[i]
        hidden = checkpoint(resnet, hidden, temb, last) if self.checkpointed[i] else resnet(hidden, temb, last)
        last = resnet.keeps_order(last)
        if self.attentions:
            hidden, last = self.attentions[i](hidden, last), True
        return hidden, last

    def _resampled(self, hidden: Tensor, temb: Tensor, last: bool) -> Tensor:
        if isinstance(self.resampler, ResnetBlock2D):
            return self.resampler(hidden, temb, last)
        assert self.resampler is not None
        return self.resampler(hidden, last)


class DownBlock(Block):
    """DownBlock2D, AttnDownBlock2D, ResnetDownsampleBlock2D: the last image, and every one on the way."""

    def forward(self, hidden: Tensor, temb: Tensor, last: bool) -> tuple[Tensor, bool, list[Feature]]:
        output_states: list[Feature] = []
        for i in range(len(self.resnets)):
            hidden, last = self._layer(i, hidden, temb, last)
            output_states.append((hidden, last))
        if self.resampler is not None:
            hidden = self._resampled(hidden, temb, last)
            output_states.append((hidden, last))
        return hidden, last, output_states


class UpBlock(Block):
    """UpBlock2D, AttnUpBlock2D, ResnetUpsampleBlock2D, which take the images of the way down in reverse."""

    def forward(self, hidden: Tensor, res_samples: Sequence[Feature], temb: Tensor, last: bool) -> Feature:
        for i, (res_hidden, res_last) in enumerate(reversed(res_samples)):
            hidden, last = cat([hidden, res_hidden], 1), last and res_last
            hidden, last = self._layer(i, hidden, temb, last)
        if self.resampler is not None:
            # upsampling.py: from 64 samples on, images are put in order first
            last = last and somewhere(hidden.shape[0] < 64)
            hidden = self._resampled(hidden, temb, last)
        return hidden, last


class MidBlock(Module):
    """UNetMidBlock2D: a resnet, and then attention and a resnet."""

    def __init__(self, channels: int, style: Style, groups: int | None, *, attention: bool) -> None:
        self.resnets = [ResnetBlock2D(channels, channels, style) for _ in range(2)]
        self.attentions = [Attention(channels, style, groups)] if attention else []
        self.checkpointed = False

    def forward(self, hidden: Tensor, temb: Tensor, last: bool) -> Feature:
        hidden = self.resnets[0](hidden, temb, last)
        for attend in self.attentions:
            hidden, last = attend(hidden, last), True
        resnet = self.resnets[1]
        hidden = checkpoint(resnet, hidden, temb, last) if self.checkpointed else resnet(hidden, temb, last)
        return hidden, last
