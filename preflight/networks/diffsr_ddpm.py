"""DiffSR's DDPM (models/ddpm/unet.py): a U-Net that predicts the noise added to the high-resolution field."""

from __future__ import annotations

from collections.abc import Mapping
from math import lcm, sqrt
from typing import Any

from preflight.networks.diffsr_diffusion import Diffusion
from preflight.tape.activation import keeps_result, sigmoid
from preflight.tape.dropout import dropout
from preflight.tape.fourier import alias
from preflight.tape.linear import matmul
from preflight.tape.module import Checkpointing, Conv, Linear, Module
from preflight.tape.normalization import group_norm
from preflight.tape.shaping import cat, chunk, upsample_nearest
from preflight.tape.tensor import Buffer, Parameter, Tensor


def swish(x: Tensor) -> Tensor:
    return x * sigmoid(x)


class GroupNorm(Module):
    def __init__(self, groups: int, width: int) -> None:
        self.weight, self.bias = Parameter((width,)), Parameter((width,))
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        return group_norm(x, self.groups, self.weight, self.bias)


class TimeEmbedding(Module):
    """(B,) whole numbers to (B, dim) sines and cosines."""

    def __init__(self, dim: int) -> None:
        self.inv_freq = Buffer((dim // 2,))

    def forward(self, time: Tensor) -> Tensor:
        sinusoid = time.float().view(time.shape[0], 1) * self.inv_freq
        return cat([keeps_result(sinusoid), keeps_result(sinusoid)], -1)


class TimeMLP(Module):
    def __init__(self, embedding: Module, dim: int) -> None:
        self.embedding = embedding
        self.linear_1, self.linear_2 = Linear(dim, dim * 4), Linear(dim * 4, dim)

    def forward(self, time: Tensor) -> Tensor:
        x = self.embedding(time)
        x = self.linear_1(x)
        x = swish(x)
        return self.linear_2(x)


class Upsample(Module):
    def __init__(self, dim: int) -> None:
        self.conv = Conv(dim, dim, (3, 3), padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(upsample_nearest(x, 2))


class Downsample(Module):
    def __init__(self, dim: int) -> None:
        self.conv = Conv(dim, dim, (3, 3), stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Block(Module):
    def __init__(self, inputs: int, outputs: int, groups: int, probability: float = 0.0) -> None:
        self.norm = GroupNorm(groups, inputs)
        self.probability = probability
        self.conv = Conv(inputs, outputs, (3, 3), padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        x = swish(x)
        if self.probability:
            x = dropout(x)
        return self.conv(x)


class TimeShift(Module):
    """ResnetBlock.mlp: the time embedding, one number a channel, added in place."""

    def __init__(self, time_dim: int, outputs: int) -> None:
        self.linear = Linear(time_dim, outputs)

    def forward(self, h: Tensor, time: Tensor) -> Tensor:
        h += self.linear(swish(time)).view(*h.shape[:2], 1, 1)
        return h


class SelfAttention(Module):
    """Over all pixels, written out."""

    def __init__(self, channels: int, groups: int) -> None:
        self.norm = GroupNorm(groups, channels)
        self.qkv = Conv(channels, channels * 3, (1, 1), bias=False)
        self.out = Conv(channels, channels, (1, 1))

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        pixels = height * width
        norm = self.norm(x)
        qkv = self.qkv(norm).view(batch, 1, channels * 3, height, width)
        query, key, value = chunk(qkv, 3, 2)

        attn = matmul(query.view(batch, pixels, channels), key.view(batch, channels, pixels)) / sqrt(channels)
        attn = keeps_result(attn)
        # softmax's result is seen transposed by the product below, so that its gradient has to be put back in order by a copy
        attn = alias(attn)
        # einsum "bnhwyx, bncyx -> bnchw": neither operand can be reshaped as it stands
        out = matmul(value.contiguous().view(batch, channels, pixels), attn.contiguous())
        out = self.out(out.view(*x.shape))
        return out + x


class ResnetBlockWithAttention(Module):
    """ResnetBlocWithAttn and its ResnetBlock."""

    def __init__(
        self, inputs: int, outputs: int, *, shift: Module | None, groups: int, probability: float, attention: bool
    ) -> None:
        self.shift = shift
        self.block1 = Block(inputs, outputs, groups)
        self.block2 = Block(outputs, outputs, groups, probability)
        self.res_conv = Conv(inputs, outputs, (1, 1)) if inputs != outputs else None
        self.attn = SelfAttention(outputs, groups) if attention else None

    def forward(self, x: Tensor, time: Tensor | None) -> Tensor:
        x = self._resnet(x, time)
        if self.attn is not None:
            x = self.attn(x)
        return x

    def _resnet(self, x: Tensor, time: Tensor | None) -> Tensor:
        h = self.block1(x)
        if self.shift is not None:
            h = self.shift(h, time)
        h = self.block2(h)
        return h + (x if self.res_conv is None else self.res_conv(x))


class DDPM(Diffusion):
    embedding_key = "with_time_emb"

    @staticmethod
    def pixel_step(dims: Mapping[str, Any]) -> int:
        """Every level but the last halves the grid, and comes back by doubling."""
        levels = len(dims.get("channel_mults", (1, 2, 4, 8, 8)))
        return lcm(2 ** (levels - 1), Diffusion.pixel_step(dims))

    def __init__(self, dims: Mapping[str, Any], checkpointing: Checkpointing, *, extend: bool = True) -> None:
        del checkpointing, extend  # the original never checkpoints, and no two blocks are alike
        inputs, outputs = dims.get("in_channel", 6), dims.get("out_channel", 3)
        super().__init__(dims, inputs, outputs)
        width = dims.get("inner_channel", 32)
        groups = dims.get("norm_groups", 32)
        mults = dims.get("channel_mults", (1, 2, 4, 8, 8))
        attended = dims.get("attn_res", (8,))
        count = dims.get("res_blocks", 3)
        timed = dims.get(self.embedding_key, True)
        self.time_mlp = TimeMLP(self.embedding(width), width) if timed else None

        def block(before: int, after: int, *, attention: bool) -> ResnetBlockWithAttention:
            shift = self.shift(width, after) if timed else None
            probability = dims.get("dropout", 0)
            return ResnetBlockWithAttention(before, after, shift=shift, groups=groups, probability=probability, attention=attention)

        channels, resolution = width, dims.get("image_size", 128)
        kept = [channels]
        self.downs: list[Module] = [Conv(inputs, width, (3, 3), padding=1)]
        for level, mult in enumerate(mults):
            for _ in range(count):
                self.downs.append(block(channels, width * mult, attention=resolution in attended))
                channels = width * mult
                kept.append(channels)
            if level < len(mults) - 1:
                self.downs.append(Downsample(channels))
                kept.append(channels)
                resolution //= 2

        self.mid = [block(channels, channels, attention=True), block(channels, channels, attention=False)]

        self.ups: list[Module] = []
        for level, mult in reversed(list(enumerate(mults))):
            for _ in range(count + 1):
                self.ups.append(block(channels + kept.pop(), width * mult, attention=resolution in attended))
                channels = width * mult
            if level > 0:
                self.ups.append(Upsample(channels))
                resolution *= 2

        self.final_conv = Block(channels, outputs, groups)

    def embedding(self, width: int) -> Module:
        return TimeEmbedding(width)

    def shift(self, time_dim: int, outputs: int) -> Module:
        return TimeShift(time_dim, outputs)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        t = self.time_mlp(time) if self.time_mlp is not None else None

        feats = []
        for layer in self.downs:
            x = layer(x, t) if isinstance(layer, ResnetBlockWithAttention) else layer(x)
            feats.append(x)

        for middle in self.mid:
            x = middle(x, t)

        for layer in self.ups:
            x = layer(cat((x, feats.pop()), 1), t) if isinstance(layer, ResnetBlockWithAttention) else layer(x)

        return self.final_conv(x)


NETWORK = DDPM
