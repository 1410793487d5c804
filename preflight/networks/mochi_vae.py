"""Mochi 1's video autoencoder (diffusers/models/autoencoders/autoencoder_kl_mochi.py): the whole video at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import prod
from typing import Any

from preflight.networks.cogvideox_vae_blocks import SafeConv3d
from preflight.networks.component import VideoVae
from preflight.tape.activation import keeps_result, silu
from preflight.tape.attention import flash_attention
from preflight.tape.linear import linear
from preflight.tape.module import Conv, GroupNorm, Linear, Module
from preflight.tape.shaping import cat, narrow, pad, sum_over
from preflight.tape.tensor import Tensor

FRAMES_NORMED, ROWS_ATTENDED = 8, 2**15  # MochiChunkedGroupNorm3D and MochiDownBlock3D: chunk_size
Factors = tuple[int, int, int]


class ChunkedGroupNorm3D(Module):
    """Its input's frames are apart in memory: they are copied, all for several samples, else chunk by chunk for the norm."""

    def __init__(self, channels: int) -> None:
        self.norm_layer = GroupNorm(32, channels)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, frames, height, width = x.shape
        if batch > 1:
            x = x.contiguous()  # flatten
        total, apart = batch * frames, batch == 1 and frames > 1
        lengths = [min(FRAMES_NORMED, total - start) for start in range(0, total, FRAMES_NORMED)]
        chunks = [self._norm(narrow(x, n, channels, height, width), apart=apart) for n in lengths]
        output = cat(chunks, 0)
        del chunks
        return output.view(batch, channels, frames, height, width)

    def _norm(self, chunk: Tensor, *, apart: bool) -> Tensor:
        return self.norm_layer(chunk.contiguous() if apart else chunk)


class CausalConv3d(Module):
    """CogVideoXCausalConv3d that repeats what is at the edges, and remembers nothing."""

    def __init__(self, inputs: int, outputs: int, kernel: Factors, stride: Factors = (1, 1, 1)) -> None:
        self.conv = SafeConv3d(inputs, outputs, kernel, stride=stride)
        self.more = (kernel[0] - 1, *(2 * ((n - 1) // 2) for n in kernel[1:]))

    def forward(self, inputs: Tensor) -> Tensor:
        batch, channels, *size = inputs.shape
        inputs = pad(inputs, batch, channels, *(n + m for n, m in zip(size, self.more, strict=True)))
        return self.conv(inputs)


class ResnetBlock3D(Module):
    def __init__(self, dim: int) -> None:
        self.norm1, self.norm2 = ChunkedGroupNorm3D(dim), ChunkedGroupNorm3D(dim)
        self.conv1, self.conv2 = CausalConv3d(dim, dim, (3, 3, 3)), CausalConv3d(dim, dim, (3, 3, 3))

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = inputs
        hidden = self.norm1(hidden)
        hidden = silu(hidden)
        hidden = self.conv1(hidden)
        hidden = self.norm2(hidden)
        hidden = silu(hidden)
        hidden = self.conv2(hidden)
        return hidden + inputs


class Attention(Module):
    """attention_processor.py: MochiVaeAttnProcessor2_0, over the frames of each pixel (B * H * W, T, C)."""

    def __init__(self, dim: int) -> None:
        self.heads, self.width = dim // 32, 32
        self.to_q, self.to_k, self.to_v = (Linear(dim, dim, bias=False) for _ in range(3))
        self.to_out = [Linear(dim, dim)]

    def forward(self, hidden: Tensor) -> Tensor:
        rows, frames, dim = hidden.shape
        residual = hidden
        if frames == 1:
            hidden = self.to_v(hidden)
            hidden = self.to_out[0](hidden)
            return hidden / 1.0
        query = self.to_q(hidden)
        key = self.to_k(hidden)
        value = self.to_v(hidden)
        query, key, value = (x.view(rows, self.heads, frames, self.width) for x in (query, key, value))
        query = normalize(query)
        key = normalize(key)
        hidden = flash_attention(query, key, value)
        hidden = hidden.view(rows, frames, dim)
        hidden = self.to_out[0](hidden)
        hidden = hidden / 1.0
        del residual
        return hidden


def normalize(x: Tensor) -> Tensor:
    """normalization.py: LpNorm over the last dimension."""
    denominator = keeps_result(sum_over(x, *x.shape[:-1], 1))
    x = x / 1.0
    del denominator
    return x


class Block3D(Module):
    """A middle block, or with `first` a down block."""

    def __init__(self, dim: int, layers: int, *, attention: bool, first: Module | None = None) -> None:
        self.conv_in = first
        self.resnets = [ResnetBlock3D(dim) for _ in range(layers)]
        self.norms = [ChunkedGroupNorm3D(dim) for _ in range(layers if attention else 0)]
        self.attentions = [Attention(dim) for _ in range(layers if attention else 0)]

    def forward(self, hidden: Tensor) -> Tensor:
        chunks: list[Tensor] = []
        if self.conv_in is not None:
            hidden = self.conv_in(hidden)
        for i, resnet in enumerate(self.resnets):
            hidden = resnet(hidden)
            if self.attentions:
                residual = hidden
                hidden = self.norms[i](hidden)
                batch, channels, frames, height, width = hidden.shape
                rows = batch * height * width
                hidden = hidden.view(rows, frames, channels).contiguous()
                if self.conv_in is None or rows <= ROWS_ATTENDED:
                    hidden = self.attentions[i](hidden)
                else:
                    chunks = chunks[-1:]  # the last one has a name of its own
                    hidden, chunks = self._attend(hidden, self.attentions[i], chunks)
                hidden = hidden.view(batch, channels, frames, height, width)
                hidden = residual + hidden
        return hidden

    def _attend(self, hidden: Tensor, attention: Module, last: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        rows, frames, channels = hidden.shape
        chunks = []
        for start in range(0, rows, ROWS_ATTENDED):
            chunk = narrow(hidden, min(ROWS_ATTENDED, rows - start), frames, channels)
            last.clear()
            chunks.append(attention(chunk))
        return cat(chunks, 0), chunks


class UpBlock3D(Module):
    def __init__(self, inputs: int, outputs: int, layers: int, factors: Factors) -> None:
        self.factors, self.outputs = factors, outputs
        self.resnets = [ResnetBlock3D(inputs) for _ in range(layers)]
        self.proj = Linear(inputs, outputs * prod(factors))

    def forward(self, hidden: Tensor) -> Tensor:
        for resnet in self.resnets:
            hidden = resnet(hidden)
        hidden = project(hidden, self.proj)
        batch, _, frames, height, width = hidden.shape
        size = (n * f for n, f in zip((frames, height, width), self.factors, strict=True))
        return hidden.contiguous().view(batch, self.outputs, *size)


def project(hidden: Tensor, layer: Linear) -> Tensor:
    """`layer` over the channels of (B, C, T, H, W), which are apart in memory: Linear.cpp adds the bias to the product."""
    batch, channels, *size = hidden.shape
    product = linear(hidden.view(batch, *size, channels), layer.weight)
    out = product + layer.bias if layer.bias is not None else product
    return out.view(batch, layer.weight.shape[0], *size)


class Encoder3D(Module):
    def __init__(self, dims: Mapping[str, Any], factors: Sequence[Factors]) -> None:
        widths, layers = dims["encoder_block_out_channels"], dims["layers_per_block"]
        attention = dims["add_attention_block"]
        self.proj_in = Linear(dims["in_channels"], widths[0])
        self.block_in = Block3D(widths[0], layers[0], attention=attention[0])
        self.down_blocks = [
            Block3D(
                outputs,
                layers[i + 1],
                attention=attention[i + 1],
                first=CausalConv3d(inputs, outputs, factors[i], factors[i]),
            )
            for i, (inputs, outputs) in enumerate(pairwise(widths))
        ]
        self.block_out = Block3D(widths[-1], layers[-1], attention=attention[-1])
        self.norm_out = ChunkedGroupNorm3D(widths[-1])
        self.proj_out = Linear(widths[-1], 2 * dims["latent_channels"], bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = fourier_features(hidden)
        hidden = project(hidden, self.proj_in)
        hidden = self.block_in(hidden)
        for down_block in self.down_blocks:
            hidden = down_block(hidden)
        hidden = self.block_out(hidden)
        hidden = self.norm_out(hidden)
        hidden = silu(hidden)
        return project(hidden, self.proj_out)


def fourier_features(inputs: Tensor) -> Tensor:
    """FourierFeatures: two frequencies of each channel, in float32."""
    dtype = inputs.dtype
    inputs = inputs.to("fp32")
    batch, channels, *size = inputs.shape
    h = inputs.tape.empty((batch, channels * 2, *size), "fp32")
    h = h * 1.0
    return cat([inputs, keeps_result(h), keeps_result(h)], 1).to(dtype)


class Decoder3D(Module):
    def __init__(self, dims: Mapping[str, Any], factors: Sequence[Factors]) -> None:
        widths, layers = dims["decoder_block_out_channels"][::-1], dims["layers_per_block"][::-1]
        self.conv_in = Conv(dims["latent_channels"], widths[0], (1, 1, 1))
        self.block_in = Block3D(widths[0], layers[0], attention=False)
        self.up_blocks = [
            UpBlock3D(inputs, outputs, layers[i + 1], factors[-1 - i]) for i, (inputs, outputs) in enumerate(pairwise(widths))
        ]
        self.block_out = Block3D(widths[-1], layers[-1], attention=False)
        self.proj_out = Linear(widths[-1], dims["out_channels"])

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = self.conv_in(hidden)
        hidden = self.block_in(hidden)
        for up_block in self.up_blocks:
            hidden = up_block(hidden)
        hidden = self.block_out(hidden)
        hidden = silu(hidden)
        return project(hidden, self.proj_out)


DEFAULTS: Mapping[str, Any] = {
    "in_channels": 15,
    "out_channels": 3,
    "encoder_block_out_channels": (64, 128, 256, 384),
    "decoder_block_out_channels": (128, 256, 512, 768),
    "latent_channels": 12,
    "layers_per_block": (3, 3, 4, 6, 3),
    "temporal_expansions": (1, 2, 3),
    "spatial_expansions": (2, 2, 2),
    "add_attention_block": (False, True, True, True, True),
}


class MochiVae(VideoVae):
    """Every size must be a whole number: norms and attention go over them in chunks."""

    def __init__(self, dims: Mapping[str, Any]) -> None:
        dims = {**DEFAULTS, **dims}
        times, spaces = dims["temporal_expansions"], dims["spatial_expansions"]
        factors = [(time, space, space) for time, space in zip(times, spaces, strict=True)]
        self.latents, self.frames, self.stride = dims["latent_channels"], prod(times), prod(spaces)
        self.encoder, self.decoder = Encoder3D(dims, factors), Decoder3D(dims, factors)

    def _decode_tile(self, z: Tensor) -> Tensor:
        """Without the frames before the first (drop_last_temporal_frames)."""
        dec = self.decoder(z)
        batch, channels, frames, height, width = dec.shape
        return narrow(dec, batch, channels, frames - self.frames + 1, height, width)


# genmo/mochi-1-preview, vae/config.json: the constructor's defaults
COMPONENTS = {"mochi-vae": (MochiVae, DEFAULTS)}
