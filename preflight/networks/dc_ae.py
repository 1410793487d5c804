"""Sana's deep compression autoencoder (diffusers/models/autoencoders/autoencoder_dc.py, models/attention_processor.py)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from preflight.networks import sana
from preflight.networks.component import Vae
from preflight.networks.network import Shape
from preflight.tape.activation import keeps_result, relu, silu
from preflight.tape.dtypes import LOW
from preflight.tape.linear import matmul
from preflight.tape.module import Conv, Linear, Module
from preflight.tape.ratio import divide
from preflight.tape.shaping import cat, chunk, narrow, pad, sum_over, upsample_nearest
from preflight.tape.tensor import Parameter, Tape, Tensor

HEAD = 32  # attention_head_dim


class RMSNorm(Module):
    """normalization.py: RMSNorm with a bias, over the channels of (B, C, H, W)."""

    def __init__(self, dim: int) -> None:
        self.weight, self.bias = Parameter((dim,)), Parameter((dim,))

    def forward(self, hidden: Tensor) -> Tensor:
        batch, channels, height, width = hidden.shape
        hidden = hidden.view(batch, height, width, channels)
        variance = sum_over(keeps_result(hidden.float()), batch, height, width, 1)
        hidden = hidden * keeps_result(variance + 1e-5)
        if self.weight.dtype in LOW:
            hidden = hidden.to(self.weight.dtype)
        hidden = hidden * self.weight
        hidden = hidden + self.bias
        return hidden.view(batch, channels, height, width)


class ResBlock(Module):
    def __init__(self, dim: int) -> None:
        self.conv1 = Conv(dim, dim, (3, 3), padding=1)
        self.conv2 = Conv(dim, dim, (3, 3), padding=1, bias=False)
        self.norm = RMSNorm(dim)

    def forward(self, hidden: Tensor) -> Tensor:
        residual = hidden
        hidden = self.conv1(hidden)
        hidden = silu(hidden)
        hidden = self.conv2(hidden)
        hidden = self.norm(hidden)
        return hidden + residual


class MultiscaleProjection(Module):
    """SanaMultiscaleAttentionProjection: channel by channel, then head by head."""

    def __init__(self, dim: int, kernel: int) -> None:
        self.proj_in = Conv(1, 3 * dim, (kernel, kernel), padding=kernel // 2, bias=False)
        self.proj_out = Conv(HEAD, 3 * dim, (1, 1), bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = self.proj_in(hidden)
        return self.proj_out(hidden)


class MultiscaleLinearAttention(Module):
    """SanaMultiscaleLinearAttention, of more pixels than a head is wide."""

    def __init__(self, dim: int, kernels: Sequence[int]) -> None:
        self.to_q, self.to_k, self.to_v = (Linear(dim, dim, bias=False) for _ in range(3))
        self.to_qkv_multiscale = [MultiscaleProjection(dim, kernel) for kernel in kernels]
        self.to_out = Linear(dim * (1 + len(kernels)), dim, bias=False)
        self.norm_out = RMSNorm(dim)

    def forward(self, hidden: Tensor) -> Tensor:
        residual = hidden
        dtype, (batch, channels, height, width) = hidden.dtype, hidden.shape
        hidden = hidden.view(batch, height, width, channels)
        query, key, value = self.to_q(hidden), self.to_k(hidden), self.to_v(hidden)
        hidden = cat([query, key, value], 3)
        hidden = hidden.view(batch, 3 * channels, height, width)
        scales = [hidden, *(block(hidden) for block in self.to_qkv_multiscale)]
        hidden = cat(scales, 1)
        hidden = hidden.to("fp32")
        hidden = hidden.view(batch, channels * len(scales) // HEAD, 3 * HEAD, height * width)
        query, key, value = chunk(hidden, 3, 2)
        query = relu(query)
        key = relu(key)
        hidden = attend(query, key, value)
        hidden = hidden.to(dtype)
        hidden = hidden.view(batch, height, width, channels * len(scales))
        hidden = self.to_out(hidden).view(batch, channels, height, width)
        hidden = self.norm_out(hidden)
        return hidden + residual


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """apply_linear_attention: keys and values are multiplied first."""
    batch, heads, width, pixels = value.shape
    value = pad(value, batch, heads, width + 1, pixels)
    scores = matmul(value, key.view(batch, heads, pixels, width))
    hidden = matmul(scores, query)
    return divide(narrow(hidden, batch, heads, width, pixels), narrow(hidden, batch, heads, 1, pixels) + 1e-15)


class GLUMBConv(sana.GLUMBConv):
    def __init__(self, dim: int) -> None:
        super().__init__(dim, 4)
        self.norm = RMSNorm(dim)

    def forward(self, hidden: Tensor) -> Tensor:
        residual = hidden
        hidden = self.conv_inverted(hidden)
        hidden = silu(hidden)
        hidden = self.conv_depth(hidden)
        hidden, gate = chunk(hidden, 2, 1)
        hidden = hidden * silu(gate)
        hidden = self.conv_point(hidden)
        hidden = self.norm(hidden)
        hidden = hidden + residual
        del gate
        return hidden


class EfficientViTBlock(Module):
    def __init__(self, dim: int, kernels: Sequence[int]) -> None:
        self.attn = MultiscaleLinearAttention(dim, kernels)
        self.conv_out = GLUMBConv(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.attn(x)
        return self.conv_out(x)


class DownBlock2d(Module):
    """Its shortcut moves pixels into channels and averages groups of them."""

    def __init__(self, inputs: int, outputs: int) -> None:
        self.conv = Conv(inputs, outputs, (3, 3), stride=2, padding=1)

    def forward(self, hidden: Tensor) -> Tensor:
        x = self.conv(hidden)
        batch, channels, height, width = hidden.shape
        y = pad(hidden, batch, channels * 4, height // 2, width // 2)  # pixel_unshuffle, in a new tensor
        y = sum_over(y, *x.shape)
        return x + y


class UpBlock2d(Module):
    """Its shortcut repeats channels and moves them into pixels."""

    def __init__(self, inputs: int, outputs: int) -> None:
        self.repeats = outputs * 4 // inputs
        self.conv = Conv(inputs, outputs, (3, 3), padding=1)

    def forward(self, hidden: Tensor) -> Tensor:
        x = upsample_nearest(hidden, 2)
        x = self.conv(x)
        batch, channels, height, width = hidden.shape
        y = pad(hidden, batch, channels * self.repeats, height, width)  # repeat_interleave
        y = pad(y, *x.shape)  # pixel_shuffle
        return x + y


class Sequential(Module):
    def __init__(self, layers: Sequence[Module]) -> None:
        self.layers = list(layers)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def blocks(kind: str, dim: int, count: int, kernels: Sequence[int]) -> list[Module]:
    """get_block, `count` times."""
    return [ResBlock(dim) if kind == "ResBlock" else EfficientViTBlock(dim, kernels) for _ in range(count)]


class Encoder(Module):
    def __init__(self, dims: Mapping[str, Any]) -> None:
        widths, self.latents = dims["encoder_block_out_channels"], dims["latent_channels"]
        kinds, layers, kernels = (dims[f"encoder_{name}"] for name in ("block_types", "layers_per_block", "qkv_multiscales"))
        self.conv_in = Conv(dims["in_channels"], widths[0], (3, 3), padding=1)
        self.down_blocks = [
            Sequential(
                blocks(kinds[i], width, layers[i], kernels[i]) + [DownBlock2d(width, after) for after in widths[i + 1 : i + 2]]
            )
            for i, width in enumerate(widths)
        ]
        self.conv_out = Conv(widths[-1], self.latents, (3, 3), padding=1)

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = self.conv_in(hidden)
        for down_block in self.down_blocks:
            hidden = down_block(hidden)
        batch, _, height, width = hidden.shape
        x = sum_over(hidden, batch, self.latents, height, width)
        return self.conv_out(hidden) + x


class Decoder(Module):
    def __init__(self, dims: Mapping[str, Any]) -> None:
        widths, inputs = dims["decoder_block_out_channels"], dims["latent_channels"]
        kinds, layers, kernels = (dims[f"decoder_{name}"] for name in ("block_types", "layers_per_block", "qkv_multiscales"))
        self.conv_in = Conv(inputs, widths[-1], (3, 3), padding=1)
        self.up_blocks = [
            Sequential(
                [UpBlock2d(after, width) for after in widths[i + 1 : i + 2]] + blocks(kinds[i], width, layers[i], kernels[i])
            )
            for i, width in enumerate(widths)
        ]
        self.norm_out = RMSNorm(widths[0])
        self.conv_out = Conv(widths[0], dims["in_channels"], (3, 3), padding=1)

    def forward(self, hidden: Tensor) -> Tensor:
        batch, _, height, width = hidden.shape
        x = pad(hidden, batch, self.conv_in.weight.shape[0], height, width)  # repeat_interleave
        hidden = self.conv_in(hidden) + x
        for up_block in reversed(self.up_blocks):
            hidden = up_block(hidden)
        hidden = self.norm_out(hidden)
        hidden = relu(hidden)
        return self.conv_out(hidden)


_WIDTHS = (128, 256, 512, 512, 1024, 1024)
_KINDS = ("ResBlock",) * 3 + ("EfficientViTBlock",) * 3
_SCALES = ((), (), (), (5,), (5,), (5,))
# diffusers scripts/convert_dcae_to_diffusers.py: dc-ae-f32c32-sana-1.0
SANA: Mapping[str, Any] = {
    "in_channels": 3,
    "latent_channels": 32,
    "encoder_block_types": _KINDS,
    "decoder_block_types": _KINDS,
    "encoder_block_out_channels": _WIDTHS,
    "decoder_block_out_channels": _WIDTHS,
    "encoder_qkv_multiscales": _SCALES,
    "decoder_qkv_multiscales": _SCALES,
    "encoder_layers_per_block": (2, 2, 2, 3, 3, 3),
    "decoder_layers_per_block": (3, 3, 3, 3, 3, 3),
}


class AutoencoderDC(Vae):
    """Its encoder gives the latents themselves. Without slicing and tiling every size may be an array."""

    def __init__(self, dims: Mapping[str, Any]) -> None:
        self.inputs, self.latents = dims["in_channels"], dims["latent_channels"]
        self.stride = 2 ** (len(dims["encoder_block_out_channels"]) - 1)
        self.encoder, self.decoder = Encoder(dims), Decoder(dims)
        self.tile_sample_min, self.tile_sample_stride = 512, 448

    def encode(self, tape: Tape, shape: Shape, dtype: str) -> Tensor:
        with tape.no_grad():
            return self.sliced(
                tape.empty((shape.batch * shape.frames, self.inputs, shape.height, shape.width), dtype), self._encode
            )

    def decode(self, tape: Tape, shape: Shape, dtype: str) -> Tensor:
        with tape.no_grad():
            size = (shape.height // self.stride, shape.width // self.stride)
            return self.sliced(tape.empty((shape.batch * shape.frames, self.latents, *size), dtype), self._decode)

    def _encode(self, x: Tensor) -> Tensor:
        step, window = self.tile_sample_stride, self.tile_sample_min
        return self.tiled(x, step, window, step // self.stride, self.encoder)

    def _decode(self, z: Tensor) -> Tensor:
        step, window = self.tile_sample_stride // self.stride, self.tile_sample_min // self.stride
        return self.tiled(z, step, window, self.tile_sample_stride, self.decoder)


COMPONENTS = {"dc-ae-f32c32": (AutoencoderDC, SANA)}
