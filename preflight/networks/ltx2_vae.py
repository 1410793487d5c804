"""LTX-2's video autoencoder (diffusers/models/autoencoders/autoencoder_kl_ltx2.py): the whole video at once."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from preflight.networks.component import VideoVae
from preflight.networks.ltx_vae import CausalConv3d
from preflight.tape.activation import keeps_result, silu
from preflight.tape.module import Conv, Module
from preflight.tape.shaping import cat, narrow, pad, sum_over
from preflight.tape.tensor import Buffer, Tensor

Stride = tuple[int, int, int]
STRIDES: Mapping[str, Stride] = {"spatial": (1, 2, 2), "temporal": (2, 1, 1), "spatiotemporal": (2, 2, 2)}


class ReflectingConv(Conv):
    """nn.Conv3d with padding_mode "reflect": the padded input is a tensor of its own."""

    def forward(self, x: Tensor) -> Tensor:
        *outer, height, width = x.shape
        return super().forward(pad(x, *outer, height + 2, width + 2))


class Convolution(CausalConv3d):
    """LTX2VideoCausalConv3d, of kernel 3."""

    def __init__(self, inputs: int, outputs: int, *, causal: bool, reflects: bool) -> None:
        super().__init__(inputs, outputs, 3, causal=causal)
        if reflects:
            self.conv = ReflectingConv(inputs, outputs, (3, 3, 3))


class PerChannelRMSNorm(Module):
    def forward(self, x: Tensor) -> Tensor:
        mean_sq = sum_over(keeps_result(x), x.shape[0], 1, *x.shape[2:])
        rms = keeps_result(mean_sq + 1e-8)
        out = x / 1.0
        del mean_sq, rms
        return out


class ResnetBlock3d(Module):
    """Its input is as wide as its output in every published model."""

    def __init__(self, dim: int, *, causal: bool, reflects: bool) -> None:
        self.norm1, self.norm2 = PerChannelRMSNorm(), PerChannelRMSNorm()
        self.conv1 = Convolution(dim, dim, causal=causal, reflects=reflects)
        self.conv2 = Convolution(dim, dim, causal=causal, reflects=reflects)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = inputs
        hidden = self.norm1(hidden)
        hidden = silu(hidden)
        hidden = self.conv1(hidden)
        hidden = self.norm2(hidden)
        hidden = silu(hidden)
        hidden = self.conv2(hidden)
        return hidden + inputs


class Downsampler3d(Module):
    """Fewer channels, into which frames and pixels are moved; the shortcut is a mean over groups of them."""

    def __init__(self, inputs: int, outputs: int, stride: Stride, *, causal: bool, reflects: bool) -> None:
        self.stride, self.outputs = stride, outputs
        self.conv = Convolution(inputs, outputs // prod(stride), causal=causal, reflects=reflects)

    def forward(self, hidden: Tensor) -> Tensor:
        batch, channels, frames, height, width = hidden.shape
        frames = frames + self.stride[0] - 1
        hidden = hidden.tape.empty((batch, channels, frames, height, width), hidden.dtype)  # the first frames again
        size = (frames // self.stride[0], height // self.stride[1], width // self.stride[2])
        residual = hidden.contiguous()
        residual = sum_over(residual, batch, self.outputs, *size)
        hidden = self.conv(hidden)
        hidden = hidden.contiguous().view(batch, self.outputs, *size)
        return hidden + residual


class Upsampler3d(Module):
    """More channels, moved into frames and pixels; the first frames are cut off."""

    def __init__(self, inputs: int, stride: Stride, factor: int, *, residual: bool, causal: bool, reflects: bool) -> None:
        self.stride, self.repeats, self.outputs = stride, prod(stride) // factor, inputs // factor
        self.residual = residual
        self.conv = Convolution(inputs, inputs * prod(stride) // factor, causal=causal, reflects=reflects)

    def forward(self, hidden: Tensor) -> Tensor:
        batch, channels, frames, height, width = hidden.shape
        size = tuple(n * s for n, s in zip((frames, height, width), self.stride, strict=True))
        kept = (batch, self.outputs, size[0] - self.stride[0] + 1, *size[1:])
        residual = None
        if self.residual:
            residual = hidden.contiguous()
            residual = residual.tape.empty((batch, channels * self.repeats // prod(self.stride), *size), hidden.dtype)
            residual = narrow(residual, *kept)
        hidden = self.conv(hidden)
        hidden = hidden.contiguous()
        hidden = narrow(hidden, *kept)
        return hidden if residual is None else hidden + residual


class Block3d(Module):
    """A down block, whose sampler comes last, a middle block without one, or an up block, whose sampler comes first."""

    def __init__(
        self, dim: int, layers: int, *, causal: bool, reflects: bool, sampler: Module | None = None, up: bool = False
    ) -> None:
        self.resnets = [ResnetBlock3d(dim, causal=causal, reflects=reflects) for _ in range(layers)]
        self.before = sampler if up else None
        self.after = None if up else sampler

    def forward(self, hidden: Tensor) -> Tensor:
        if self.before is not None:
            hidden = self.before(hidden)
        for resnet in self.resnets:
            hidden = resnet(hidden)
        return self.after(hidden) if self.after is not None else hidden


class Encoder3d(Module):
    def __init__(self, dims: Mapping[str, Any]) -> None:
        widths, layers = dims["block_out_channels"], dims["layers_per_block"]
        how = {"causal": dims["encoder_causal"], "reflects": dims["encoder_spatial_padding_mode"] == "reflect"}
        self.patch, width = dims["patch_size"], dims["latent_channels"]
        self.conv_in = Convolution(dims["in_channels"] * self.patch**2, width, **how)
        self.down_blocks = []
        for i, outputs in enumerate(widths):
            downsampler = Downsampler3d(width, outputs, STRIDES[dims["downsample_type"][i]], **how)
            self.down_blocks.append(Block3d(width, layers[i], sampler=downsampler, **how))
            width = outputs
        self.mid_block = Block3d(width, layers[-1], **how)
        self.norm_out = PerChannelRMSNorm()
        self.conv_out = Convolution(width, dims["latent_channels"] + 1, **how)

    def forward(self, hidden: Tensor) -> Tensor:
        batch, channels, frames, height, width = hidden.shape
        hidden = hidden.view(batch, channels * self.patch**2, frames, height // self.patch, width // self.patch).contiguous()
        hidden = self.conv_in(hidden)
        for down_block in self.down_blocks:
            hidden = down_block(hidden)
        hidden = self.mid_block(hidden)
        hidden = self.norm_out(hidden)
        hidden = silu(hidden)
        hidden = self.conv_out(hidden)
        batch, channels, *size = hidden.shape
        last_channel = hidden.tape.empty((batch, channels - 2, *size), hidden.dtype)
        return cat([hidden, last_channel], 1)


class Decoder3d(Module):
    def __init__(self, dims: Mapping[str, Any]) -> None:
        widths, layers = dims["decoder_block_out_channels"][::-1], dims["decoder_layers_per_block"][::-1]
        residuals, factors = dims["upsample_residual"][::-1], dims["upsample_factor"][::-1]
        how = {"causal": dims["decoder_causal"], "reflects": dims["decoder_spatial_padding_mode"] == "reflect"}
        self.patch = dims["patch_size"]
        self.conv_in = Convolution(dims["latent_channels"], widths[0], **how)
        self.mid_block = Block3d(widths[0], layers[0], **how)
        self.up_blocks = []
        for i, (width, factor) in enumerate(zip(widths, factors, strict=True)):
            stride = STRIDES[dims["upsample_type"][i]]
            upsampler = Upsampler3d(width, stride, factor, residual=residuals[i], **how)
            self.up_blocks.append(Block3d(width // factor, layers[i + 1], sampler=upsampler, up=True, **how))
        self.norm_out = PerChannelRMSNorm()
        self.conv_out = Convolution(widths[-1] // factors[-1], dims["out_channels"] * self.patch**2, **how)

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = self.conv_in(hidden)
        hidden = self.mid_block(hidden)
        for up_block in self.up_blocks:
            hidden = up_block(hidden)
        hidden = self.norm_out(hidden)
        hidden = silu(hidden)
        hidden = self.conv_out(hidden)
        batch, channels, frames, height, width = hidden.shape
        return hidden.view(batch, channels // self.patch**2, frames, height * self.patch, width * self.patch).contiguous()


# scripts/convert_ltx2_to_diffusers.py: get_ltx2_video_vae_config of version 2.0
DEFAULTS: Mapping[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 128,
    "block_out_channels": (256, 512, 1024, 2048),
    "decoder_block_out_channels": (256, 512, 1024),
    "layers_per_block": (4, 6, 6, 2, 2),
    "decoder_layers_per_block": (5, 5, 5, 5),
    "downsample_type": ("spatial", "temporal", "spatiotemporal", "spatiotemporal"),
    "upsample_type": ("spatiotemporal", "spatiotemporal", "spatiotemporal"),
    "upsample_residual": (True, True, True),
    "upsample_factor": (2, 2, 2),
    "patch_size": 4,
    "encoder_causal": True,
    "decoder_causal": False,
    "encoder_spatial_padding_mode": "zeros",
    "decoder_spatial_padding_mode": "reflect",
}


class LTX2VideoVae(VideoVae):
    """Without tiling every size, frames too, may be an array."""

    stride, frames = 32, 8

    def __init__(self, dims: Mapping[str, Any]) -> None:
        dims = {**DEFAULTS, **dims}
        self.inputs, self.latents = dims["in_channels"], dims["latent_channels"]
        self.encoder = Encoder3d(dims)
        self.decoder = Decoder3d(dims)
        self.latents_mean, self.latents_std = Buffer((self.latents,)), Buffer((self.latents,))
        self.tile_sample_min, self.tile_sample_stride = 512, 448


# the same of version 2.3
_2_3: Mapping[str, Any] = {
    "block_out_channels": (256, 512, 1024, 1024),
    "decoder_block_out_channels": (256, 512, 512, 1024),
    "layers_per_block": (4, 6, 4, 2, 2),
    "decoder_layers_per_block": (4, 6, 4, 2, 2),
    "upsample_type": ("spatiotemporal", "spatiotemporal", "temporal", "spatial"),
    "upsample_residual": (False, False, False, False),
    "upsample_factor": (2, 2, 1, 2),
    "decoder_spatial_padding_mode": "zeros",
}
COMPONENTS = {"ltx2-vae": (LTX2VideoVae, DEFAULTS), "ltx2.3-vae": (LTX2VideoVae, _2_3)}
