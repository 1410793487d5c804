"""LTX-Video's autoencoder, version 0.9.0's (diffusers/models/autoencoders/autoencoder_kl_ltx.py): the whole video at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from preflight.networks.component import VideoVae
from preflight.tape.activation import keeps_result, silu
from preflight.tape.module import Conv, LayerNorm, Module
from preflight.tape.shaping import cat, narrow, sum_over
from preflight.tape.tensor import Buffer, Tensor


class CausalConv3d(Module):
    """Repeats the first frame in front, or without `causal` the first and the last on either side."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, causal: bool, stride: int = 1) -> None:
        self.conv = Conv(inputs, outputs, (kernel,) * 3, stride=stride, padding=(0, kernel // 2, kernel // 2))
        self.before = kernel - 1 if causal else kernel // 2
        self.causal = causal

    def forward(self, hidden: Tensor) -> Tensor:
        batch, channels, _, height, width = hidden.shape
        pad_left = hidden.tape.empty((batch, channels, self.before, height, width), hidden.dtype)
        if self.causal:
            hidden = cat([pad_left, hidden], 2)
        else:
            pad_right = hidden.tape.empty(pad_left.shape, hidden.dtype)
            hidden = cat([pad_left, hidden, pad_right], 2)
        return self.conv(hidden)


class ChannelRMSNorm(Module):
    """normalization.py: RMSNorm over the channels, without a weight."""

    def forward(self, x: Tensor) -> Tensor:
        dtype = x.dtype
        variance = sum_over(keeps_result(x.float()), x.shape[0], 1, *x.shape[2:])
        x = x * keeps_result(variance + 0.0)
        return x.to(dtype)


class ResnetBlock3d(Module):
    def __init__(self, inputs: int, outputs: int, *, causal: bool) -> None:
        self.norm1, self.norm2 = ChannelRMSNorm(), ChannelRMSNorm()
        self.conv1 = CausalConv3d(inputs, outputs, 3, causal=causal)
        self.conv2 = CausalConv3d(outputs, outputs, 3, causal=causal)
        self.norm3 = LayerNorm(inputs) if inputs != outputs else None
        self.conv_shortcut = CausalConv3d(inputs, outputs, 1, causal=causal) if inputs != outputs else None

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = inputs
        hidden = self.norm1(hidden)
        hidden = silu(hidden)
        hidden = self.conv1(hidden)
        hidden = self.norm2(hidden)
        hidden = silu(hidden)
        hidden = self.conv2(hidden)
        if self.norm3 is not None and self.conv_shortcut is not None:
            batch, channels, *size = inputs.shape
            inputs = self.norm3(inputs.view(batch, *size, channels)).view(batch, channels, *size)
            inputs = self.conv_shortcut(inputs)
        return hidden + inputs


class DownBlock3D(Module):
    def __init__(self, inputs: int, outputs: int, layers: int, *, scales: bool, causal: bool) -> None:
        self.resnets = [ResnetBlock3d(inputs, inputs, causal=causal) for _ in range(layers)]
        self.downsamplers = [CausalConv3d(inputs, inputs, 3, causal=causal, stride=2)] if scales else []
        self.conv_out = ResnetBlock3d(inputs, outputs, causal=causal) if inputs != outputs else None

    def forward(self, hidden: Tensor) -> Tensor:
        for resnet in self.resnets:
            hidden = resnet(hidden)
        for downsampler in self.downsamplers:
            hidden = downsampler(hidden)
        return self.conv_out(hidden) if self.conv_out is not None else hidden


class Upsampler3d(Module):
    """Eight times the channels, moved into frames, height and width; the first frame is cut off."""

    def __init__(self, dim: int, *, causal: bool) -> None:
        self.conv = CausalConv3d(dim, dim * 8, 3, causal=causal)

    def forward(self, hidden: Tensor) -> Tensor:
        batch, channels, frames, height, width = hidden.shape
        hidden = self.conv(hidden)
        hidden = hidden.contiguous()
        return narrow(hidden, batch, channels, frames * 2 - 1, height * 2, width * 2)


class UpBlock3d(Module):
    def __init__(self, inputs: int, outputs: int, layers: int, *, scales: bool, causal: bool) -> None:
        self.conv_in = ResnetBlock3d(inputs, outputs, causal=causal) if inputs != outputs else None
        self.upsamplers = [Upsampler3d(outputs, causal=causal)] if scales else []
        self.resnets = [ResnetBlock3d(outputs, outputs, causal=causal) for _ in range(layers)]

    def forward(self, hidden: Tensor) -> Tensor:
        if self.conv_in is not None:
            hidden = self.conv_in(hidden)
        for upsampler in self.upsamplers:
            hidden = upsampler(hidden)
        for resnet in self.resnets:
            hidden = resnet(hidden)
        return hidden


class Encoder3d(Module):
    def __init__(self, dims: Mapping[str, Any]) -> None:
        widths, layers, causal = dims["block_out_channels"], dims["layers_per_block"], dims["encoder_causal"]
        self.patch = dims["patch_size"]
        self.conv_in = CausalConv3d(dims["in_channels"] * self.patch**2, widths[0], 3, causal=causal)
        self.down_blocks = [
            DownBlock3D(width, widths[min(i + 1, len(widths) - 1)], layers[i], scales=scales, causal=causal)
            for i, (width, scales) in enumerate(zip(widths, dims["spatio_temporal_scaling"], strict=True))
        ]
        self.mid_block = [ResnetBlock3d(widths[-1], widths[-1], causal=causal) for _ in range(layers[-1])]
        self.norm_out = ChannelRMSNorm()
        self.conv_out = CausalConv3d(widths[-1], dims["latent_channels"] + 1, 3, causal=causal)

    def forward(self, hidden: Tensor) -> Tensor:
        batch, channels, frames, height, width = hidden.shape
        hidden = hidden.view(batch, channels * self.patch**2, frames, height // self.patch, width // self.patch).contiguous()
        hidden = self.conv_in(hidden)
        for down_block in self.down_blocks:
            hidden = down_block(hidden)
        hidden = run_all(self.mid_block, hidden)
        hidden = self.norm_out(hidden)
        hidden = silu(hidden)
        hidden = self.conv_out(hidden)
        batch, channels, *size = hidden.shape
        last_channel = hidden.tape.empty((batch, channels - 2, *size), hidden.dtype)
        return cat([hidden, last_channel], 1)


class Decoder3d(Module):
    def __init__(self, dims: Mapping[str, Any]) -> None:
        widths, layers = dims["decoder_block_out_channels"][::-1], dims["decoder_layers_per_block"][::-1]
        causal, scaling = dims["decoder_causal"], dims["decoder_spatio_temporal_scaling"][::-1]
        self.patch = dims["patch_size"]
        self.conv_in = CausalConv3d(dims["latent_channels"], widths[0], 3, causal=causal)
        self.mid_block = [ResnetBlock3d(widths[0], widths[0], causal=causal) for _ in range(layers[0])]
        self.up_blocks = [
            UpBlock3d(widths[max(i - 1, 0)], width, layers[i + 1], scales=scales, causal=causal)
            for i, (width, scales) in enumerate(zip(widths, scaling, strict=True))
        ]
        self.norm_out = ChannelRMSNorm()
        self.conv_out = CausalConv3d(widths[-1], dims["out_channels"] * self.patch**2, 3, causal=causal)

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = self.conv_in(hidden)
        hidden = run_all(self.mid_block, hidden)
        for up_block in self.up_blocks:
            hidden = up_block(hidden)
        hidden = self.norm_out(hidden)
        hidden = silu(hidden)
        hidden = self.conv_out(hidden)
        batch, channels, frames, height, width = hidden.shape
        return hidden.view(batch, channels // self.patch**2, frames, height * self.patch, width * self.patch).contiguous()


def run_all(resnets: list[ResnetBlock3d], hidden: Tensor) -> Tensor:
    """LTXVideoMidBlock3d."""
    for resnet in resnets:
        hidden = resnet(hidden)
    return hidden


DEFAULTS: Mapping[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 128,
    "block_out_channels": (128, 256, 512, 512),
    "decoder_block_out_channels": (128, 256, 512, 512),
    "layers_per_block": (4, 3, 3, 3, 4),
    "decoder_layers_per_block": (4, 3, 3, 3, 4),
    "spatio_temporal_scaling": (True, True, True, False),
    "decoder_spatio_temporal_scaling": (True, True, True, False),
    "patch_size": 4,
    "encoder_causal": True,
    "decoder_causal": False,
}


class LTXVideoVae(VideoVae):
    """Without tiling every size, frames too, may be an array."""

    def __init__(self, dims: Mapping[str, Any]) -> None:
        dims = {**DEFAULTS, **dims}
        self.inputs, self.latents = dims["in_channels"], dims["latent_channels"]
        self.frames = 2 ** sum(dims["spatio_temporal_scaling"])
        self.stride = dims["patch_size"] * self.frames
        self.encoder = Encoder3d(dims)
        self.decoder = Decoder3d(dims)
        self.latents_mean, self.latents_std = Buffer((self.latents,)), Buffer((self.latents,))
        self.tile_sample_min, self.tile_sample_stride = 512, 448


# Lightricks/LTX-Video 0.9.0, vae/config.json: the constructor's defaults
COMPONENTS = {"ltx-vae": (LTXVideoVae, DEFAULTS)}
