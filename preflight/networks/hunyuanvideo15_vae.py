"""HunyuanVideo-1.5's video autoencoder (diffusers: autoencoder_kl_hunyuanvideo15.py): the whole video at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

from preflight.networks.component import VideoVae
from preflight.networks.wan_vae_blocks import RMSNorm
from preflight.tape.activation import silu
from preflight.tape.attention import efficient_attention
from preflight.tape.module import Conv, Module
from preflight.tape.shaping import cat, narrow, pad, sum_over
from preflight.tape.tensor import Tensor

Factors = tuple[int, int, int]


class CausalConv3d(Conv):
    """A kernel of 3 over an input whose edges are repeated around it, and in front in time."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, (3, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, *size = x.shape
        return super().forward(pad(x, batch, channels, *(n + 2 for n in size)))


class AttentionBlock(Module):
    """One head over all pixels of all frames, masked so that none sees later frames; it works for one sample alone."""

    def __init__(self, dim: int) -> None:
        self.norm = RMSNorm(dim)
        self.to_q, self.to_k, self.to_v = (Conv(dim, dim, (1, 1, 1)) for _ in range(3))
        self.proj_out = Conv(dim, dim, (1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        identity = x
        x = self.norm(x)
        query, key, value = self.to_q(x), self.to_k(x), self.to_v(x)
        batch, channels, *size = query.shape
        tokens = prod(size)
        query = query.contiguous()
        key = key.contiguous()
        value = value.contiguous()
        mask = query.tape.empty((tokens, tokens), query.dtype)
        query, key, value = (y.view(batch, 1, tokens, channels) for y in (query, key, value))
        x = efficient_attention(query, key, value, mask)
        x = x.view(batch, channels, *size)
        x = self.proj_out(x)
        return x + identity


class ResnetBlock(Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        self.norm1, self.norm2 = RMSNorm(inputs), RMSNorm(outputs)
        self.conv1, self.conv2 = CausalConv3d(inputs, outputs), CausalConv3d(outputs, outputs)
        self.conv_shortcut = Conv(inputs, outputs, (1, 1, 1)) if inputs != outputs else None

    def forward(self, hidden: Tensor) -> Tensor:
        residual = hidden
        hidden = self.norm1(hidden)
        hidden = silu(hidden)
        hidden = self.conv1(hidden)
        hidden = self.norm2(hidden)
        hidden = silu(hidden)
        hidden = self.conv2(hidden)
        if self.conv_shortcut is not None:
            residual = self.conv_shortcut(residual)
        return hidden + residual


class MidBlock(Module):
    def __init__(self, dim: int) -> None:
        self.resnets = [ResnetBlock(dim, dim), ResnetBlock(dim, dim)]
        self.attentions = [AttentionBlock(dim)]

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = self.resnets[0](hidden)
        hidden = self.attentions[0](hidden)
        return self.resnets[1](hidden)


def rearranged(x: Tensor, channels: int, frames: int, height: int, width: int) -> Tensor:
    """Pixels and frames moved into channels or out of them: a copy."""
    return pad(x, x.shape[0], channels, frames, height, width)


def split_first(x: Tensor) -> tuple[Tensor, Tensor]:
    """Views of the first frame and of those after it."""
    batch, channels, frames, height, width = x.shape
    return narrow(x, batch, channels, 1, height, width), narrow(x, batch, channels, frames - 1, height, width)


class Upsample(Module):
    """More channels, moved into pixels, and into frames after the first; the shortcut repeats channels."""

    def __init__(self, inputs: int, outputs: int, factors: Factors) -> None:
        self.factors, self.outputs = factors, outputs
        self.conv = CausalConv3d(inputs, outputs * prod(factors))

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv(x)
        batch, channels, frames, height, width = x.shape
        time, *space = self.factors
        height, width = height * space[0], width * space[1]
        if time == 1:
            h = rearranged(h, self.outputs, frames, height, width)
            shortcut = rearranged(x, self.outputs * prod(space), *x.shape[2:])  # repeat_interleave
            shortcut = rearranged(shortcut, *h.shape[1:])
            return h + shortcut
        h_first, h_next = split_first(h)
        h_first = rearranged(h_first, self.outputs * time, 1, height, width)
        h_first = narrow(h_first, batch, self.outputs, 1, height, width)
        h_next = rearranged(h_next, self.outputs, (frames - 1) * time, height, width)
        h = cat([h_first, h_next], 2)
        x_first, x_next = split_first(x)
        x_first = rearranged(x_first, channels // prod(space), 1, height, width)
        x_first = rearranged(x_first, *h_first.shape[1:])  # repeat_interleave
        x_next = rearranged(x_next, channels // prod(self.factors), (frames - 1) * time, height, width)
        x_next = rearranged(x_next, *h_next.shape[1:])
        shortcut = cat([x_first, x_next], 2)
        return h + shortcut


class Downsample(Module):
    """Fewer channels, into which pixels are moved, and frames after the first; the shortcut averages channels."""

    def __init__(self, inputs: int, outputs: int, factors: Factors) -> None:
        self.factors, self.outputs = factors, outputs
        self.conv = CausalConv3d(inputs, outputs // prod(factors))

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv(x)
        _, channels, frames, height, width = x.shape
        time, *space = self.factors
        height, width = height // space[0], width // space[1]
        if time == 1:
            h = rearranged(h, self.outputs, frames, height, width)
            shortcut = rearranged(x, channels * prod(space), frames, height, width)
            shortcut = sum_over(shortcut, *h.shape)
            return h + shortcut
        h_first, h_next = split_first(h)
        h_first = rearranged(h_first, self.outputs // time, 1, height, width)
        h_first = cat([h_first] * time, 1)
        h_next = rearranged(h_next, self.outputs, (frames - 1) // time, height, width)
        h = cat([h_first, h_next], 2)
        x_first, x_next = split_first(x)
        x_first = rearranged(x_first, channels * prod(space), 1, height, width)
        x_first = sum_over(x_first, *h_first.shape)
        x_next = rearranged(x_next, channels * prod(self.factors), (frames - 1) // time, height, width)
        x_next = sum_over(x_next, *h_next.shape)
        shortcut = cat([x_first, x_next], 2)
        return h + shortcut


class Block3D(Module):
    """A down or up block."""

    def __init__(self, dim: int, layers: int, sampler: Module | None) -> None:
        self.resnets = [ResnetBlock(dim, dim) for _ in range(layers)]
        self.samplers = [sampler] if sampler is not None else []

    def forward(self, hidden: Tensor) -> Tensor:
        for resnet in self.resnets:
            hidden = resnet(hidden)
        for sampler in self.samplers:
            hidden = sampler(hidden)
        return hidden


class Encoder3D(Module):
    def __init__(self, inputs: int, widths: Sequence[int], outputs: int, layers: int, factors: Sequence[Factors]) -> None:
        self.outputs = outputs
        self.conv_in = CausalConv3d(inputs, widths[0])
        downs = [Downsample(widths[i], widths[i + 1], f) for i, f in enumerate(factors)]
        self.down_blocks = [Block3D(width, layers, down) for width, down in zip(widths, [*downs, None], strict=True)]
        self.mid_block = MidBlock(widths[-1])
        self.norm_out = RMSNorm(widths[-1])
        self.conv_out = CausalConv3d(widths[-1], outputs)

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = self.conv_in(hidden)
        for down_block in self.down_blocks:
            hidden = down_block(hidden)
        hidden = self.mid_block(hidden)
        batch, _, *size = hidden.shape
        short_cut = sum_over(hidden, batch, self.outputs, *size)
        hidden = self.norm_out(hidden)
        hidden = silu(hidden)
        hidden = self.conv_out(hidden)
        hidden += short_cut
        return hidden


class Decoder3D(Module):
    def __init__(self, latents: int, widths: Sequence[int], outputs: int, layers: int, factors: Sequence[Factors]) -> None:
        self.width = widths[0]
        self.conv_in = CausalConv3d(latents, self.width)
        self.mid_block = MidBlock(self.width)
        ups = [Upsample(widths[i], widths[i + 1], f) for i, f in enumerate(factors)]
        self.up_blocks = [Block3D(width, layers + 1, up) for width, up in zip(widths, [*ups, None], strict=True)]
        self.norm_out = RMSNorm(widths[-1])
        self.conv_out = CausalConv3d(widths[-1], outputs)

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = self.conv_in(hidden) + rearranged(hidden, self.width, *hidden.shape[2:])  # repeat_interleave
        hidden = self.mid_block(hidden)
        for up_block in self.up_blocks:
            hidden = up_block(hidden)
        hidden = self.norm_out(hidden)
        hidden = silu(hidden)
        return self.conv_out(hidden)


DEFAULTS: Mapping[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 32,
    "block_out_channels": (128, 256, 512, 1024, 1024),
    "layers_per_block": 2,
    "spatial_compression_ratio": 16,
    "temporal_compression_ratio": 4,
}


class HunyuanVideo15Vae(VideoVae):
    """Without tiling and slicing every size, frames too, may be an array."""

    def __init__(self, dims: Mapping[str, Any]) -> None:
        dims = {**DEFAULTS, **dims}
        widths, layers, self.latents = dims["block_out_channels"], dims["layers_per_block"], dims["latent_channels"]
        self.inputs, self.frames, self.stride = (
            dims["in_channels"],
            dims["temporal_compression_ratio"],
            dims["spatial_compression_ratio"],
        )
        spaces, times = self.stride.bit_length() - 1, self.frames.bit_length() - 1
        factors: list[Factors] = [(2 if i >= spaces - times else 1, 2, 2) for i in range(spaces)]
        self.encoder = Encoder3D(self.inputs, widths, self.latents * 2, layers, factors)
        self.decoder = Decoder3D(self.latents, widths[::-1], dims["out_channels"], layers, factors[::-1])


# hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-720p_t2v, vae/config.json: the constructor's defaults
COMPONENTS = {"hunyuanvideo1.5-vae": (HunyuanVideo15Vae, DEFAULTS)}
