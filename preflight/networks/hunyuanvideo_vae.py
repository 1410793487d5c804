"""HunyuanVideo's video autoencoder (diffusers/models/autoencoders/autoencoder_kl_hunyuan_video.py): 17 frames at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from preflight.networks.component import VideoVae
from preflight.networks.sd_vae import Attention
from preflight.tape.activation import silu
from preflight.tape.module import Conv, GroupNorm, Module
from preflight.tape.shaping import cat, narrow, pad
from preflight.tape.tensor import Tensor

Factors = tuple[int, int, int]


class CausalConv3d(Module):
    def __init__(self, inputs: int, outputs: int, kernel: int, stride: Factors = (1, 1, 1)) -> None:
        self.conv = Conv(inputs, outputs, (kernel,) * 3, stride=stride)
        self.more = kernel - 1

    def forward(self, hidden: Tensor) -> Tensor:
        batch, channels, *size = hidden.shape
        hidden = pad(hidden, batch, channels, *(n + self.more for n in size))
        return self.conv(hidden)


class UpsampleCausal3D(Module):
    def __init__(self, dim: int, factors: Factors) -> None:
        self.factors = factors
        self.conv = CausalConv3d(dim, dim, 3)

    def forward(self, hidden: Tensor) -> Tensor:
        batch, channels, frames, height, width = hidden.shape
        size = (height * self.factors[1], width * self.factors[2])
        first_frame = hidden.tape.empty((batch, channels, 1, *size), hidden.dtype)
        if frames > 1:
            other_frames = narrow(hidden, batch, channels, frames - 1, height, width).contiguous()
            # interpolated: the copy is dropped when the result is there
            other_frames = hidden.tape.empty((batch, channels, (frames - 1) * self.factors[0], *size), hidden.dtype)
            hidden = cat([first_frame, other_frames], 2)
        else:
            hidden = first_frame
        return self.conv(hidden)


class ResnetBlockCausal3D(Module):
    """`strided`: its input is a permuted view, of which it makes a copy."""

    def __init__(self, inputs: int, outputs: int, groups: int, *, strided: bool = False) -> None:
        self.strided = strided
        self.norm1, self.norm2 = GroupNorm(groups, inputs), GroupNorm(groups, outputs)
        self.conv1, self.conv2 = CausalConv3d(inputs, outputs, 3), CausalConv3d(outputs, outputs, 3)
        self.conv_shortcut = CausalConv3d(inputs, outputs, 1) if inputs != outputs else None

    def forward(self, hidden: Tensor) -> Tensor:
        if self.strided:
            hidden = hidden.contiguous()
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


class MidBlock3D(Module):
    def __init__(self, dim: int, groups: int) -> None:
        self.resnets = [ResnetBlockCausal3D(dim, dim, groups), ResnetBlockCausal3D(dim, dim, groups, strided=True)]
        self.attentions = [Attention(dim, groups)]

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = self.resnets[0](hidden)
        _, _, frames, height, width = hidden.shape
        mask = causal_mask(hidden, frames * height * width)  # lives to the end of the block
        hidden = self.attentions[0](hidden, mask)
        hidden = self.resnets[1](hidden)
        del mask
        return hidden


def causal_mask(x: Tensor, tokens: int) -> Tensor:
    """prepare_causal_attention_mask: a comparison, a choice between two float32 numbers, and a cast."""
    compared = x.tape.empty((tokens, tokens), "bool")
    chosen = x.tape.empty((tokens, tokens), "fp32")
    del compared
    return chosen.to(x.dtype)


class Block3D(Module):
    """A down or up block."""

    def __init__(self, inputs: int, outputs: int, layers: int, groups: int, sampler: Module | None) -> None:
        self.resnets = [ResnetBlockCausal3D(inputs if i == 0 else outputs, outputs, groups) for i in range(layers)]
        self.samplers = [sampler] if sampler is not None else []

    def forward(self, hidden: Tensor) -> Tensor:
        for resnet in self.resnets:
            hidden = resnet(hidden)
        for sampler in self.samplers:
            hidden = sampler(hidden)
        return hidden


class Coder3D(Module):
    """An encoder (`samplers` down) or decoder (`samplers` up, the middle block first)."""

    def __init__(
        self,
        inputs: int,
        widths: Sequence[int],
        outputs: int,
        layers: int,
        groups: int,
        samplers: Sequence[Module | None],
        *,
        decodes: bool,
    ) -> None:
        self.decodes = decodes
        last = len(widths) - 1
        self.conv_in = CausalConv3d(inputs, widths[0], 3)
        self.mid_block = MidBlock3D(widths[0 if decodes else last], groups)
        self.blocks = [
            Block3D(widths[max(i - 1, 0)], width, layers, groups, sampler)
            for i, (width, sampler) in enumerate(zip(widths, samplers, strict=True))
        ]
        self.conv_norm_out = GroupNorm(groups, widths[last])
        self.conv_out = CausalConv3d(widths[last], outputs, 3)

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = self.conv_in(hidden)
        for block in (self.mid_block, *self.blocks) if self.decodes else (*self.blocks, self.mid_block):
            hidden = block(hidden)
        hidden = self.conv_norm_out(hidden)
        hidden = silu(hidden)
        return self.conv_out(hidden)


DEFAULTS: Mapping[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 16,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "spatial_compression_ratio": 8,
    "temporal_compression_ratio": 4,
}


class HunyuanVideoVae(VideoVae):
    """Encodes and decodes 17 frames at a time, 12 apart (use_framewise_encoding, on from the start)."""

    def __init__(self, dims: Mapping[str, Any]) -> None:
        dims = {**DEFAULTS, **dims}
        widths, layers, groups = dims["block_out_channels"], dims["layers_per_block"], dims["norm_num_groups"]
        self.inputs, self.latents = dims["in_channels"], dims["latent_channels"]
        self.frames, self.stride = dims["temporal_compression_ratio"], dims["spatial_compression_ratio"]
        factors = [self._factors(i, len(widths)) for i in range(len(widths))]
        double = self.latents * 2
        down = [CausalConv3d(width, width, 3, f) if max(f) > 1 else None for width, f in zip(widths, factors, strict=True)]
        up = [UpsampleCausal3D(width, f) if max(f) > 1 else None for width, f in zip(widths[::-1], factors, strict=True)]
        self.encoder = Coder3D(self.inputs, widths, double, layers, groups, down, decodes=False)
        self.decoder = Coder3D(self.latents, widths[::-1], dims["out_channels"], layers + 1, groups, up, decodes=True)
        self.quant_conv = Conv(double, double, (1, 1, 1))
        self.post_quant_conv = Conv(self.latents, self.latents, (1, 1, 1))
        self.tile_sample_min_frames, self.tile_sample_stride_frames = 16, 12

    def _factors(self, block: int, blocks: int) -> Factors:
        """By how much a block changes frames, height and width: the first ones space, the last but one time."""
        space = 2 if block < self.stride.bit_length() - 1 else 1
        time = 2 if blocks - self.frames.bit_length() <= block < blocks - 1 else 1
        return time, space, space

    def _encode(self, x: Tensor) -> Tensor:
        step, window = self.tile_sample_stride, self.tile_sample_min
        lengths = self.tile_sample_stride_frames, self.tile_sample_min_frames
        kept = self.tile_sample_stride_frames // self.frames
        return self._framewise(x, lengths, kept, lambda x: self.tiled(x, step, window, step // self.stride, self._encode_tile))

    def _decode(self, z: Tensor) -> Tensor:
        step, window = self.tile_sample_stride // self.stride, self.tile_sample_min // self.stride
        lengths = self.tile_sample_stride_frames // self.frames, self.tile_sample_min_frames // self.frames
        kept = self.tile_sample_stride_frames
        return self._framewise(z, lengths, kept, lambda z: self.tiled(z, step, window, self.tile_sample_stride, self._decode_tile))

    def _encode_tile(self, x: Tensor) -> Tensor:
        x = self.encoder(x)
        return self.quant_conv(x)

    def _decode_tile(self, z: Tensor) -> Tensor:
        z = self.post_quant_conv(z)
        return self.decoder(z)

    def _framewise(self, x: Tensor, lengths: tuple[int, int], kept: int, run: Callable[[Tensor], Tensor]) -> Tensor:
        """_temporal_tiled_encode: overlapping runs of frames, each but the first less its first frame."""
        batch, channels, frames, height, width = x.shape
        step, window = lengths
        if frames <= window:
            return run(x)
        row = [run(narrow(x, batch, channels, min(window + 1, frames - i), height, width)) for i in range(0, frames, step)]
        result_row = []
        for i, tile in enumerate(row):
            batch, channels, length, height, width = tile.shape
            length = min(kept, length - 1) if i > 0 else min(kept + 1, length)
            result_row.append(narrow(tile, batch, channels, length, height, width))
        return cat(result_row, 2)


# hunyuanvideo-community/HunyuanVideo, vae/config.json: the constructor's defaults
COMPONENTS = {"hunyuanvideo-vae": (HunyuanVideoVae, DEFAULTS)}
