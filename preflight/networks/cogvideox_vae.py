"""CogVideoX's video autoencoder (diffusers/models/autoencoders/autoencoder_kl_cogvideox.py): eight frames at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from preflight.networks.cogvideox_vae_blocks import CausalConv3d, ConvCache, Downsample3D, ResnetBlock3D, SpatialNorm3D, Upsample3D
from preflight.networks.component import Tiles, VideoVae, result_rows
from preflight.tape.activation import silu
from preflight.tape.module import GroupNorm, Module
from preflight.tape.shaping import cat, narrow
from preflight.tape.tensor import Tensor


class Block3D(Module):
    """A down, middle or up block."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        layers: int,
        groups: int,
        latents: int | None,
        *,
        after_sampler: bool,
        sampler: Module | None,
    ) -> None:
        self.resnets = [
            ResnetBlock3D(inputs if i == 0 else outputs, outputs, groups, latents, after_sampler=after_sampler and i == 0)
            for i in range(layers)
        ]
        self.samplers = [sampler] if sampler is not None else []

    def forward(self, hidden: Tensor, zq: Tensor | None, cache: ConvCache) -> Tensor:
        for resnet in self.resnets:
            hidden = resnet(hidden, zq, cache)
        for sampler in self.samplers:
            hidden = sampler(hidden)
        return hidden


class Encoder3D(Module):
    def __init__(self, inputs: int, widths: Sequence[int], outputs: int, layers: int, groups: int, compressed: int) -> None:
        last = len(widths) - 1
        self.conv_in = CausalConv3d(inputs, widths[0], 3)
        self.down_blocks = [
            Block3D(
                widths[max(i - 1, 0)],
                width,
                layers,
                groups,
                None,
                after_sampler=i > 0,
                sampler=Downsample3D(width, compress_time=i < compressed) if i < last else None,
            )
            for i, width in enumerate(widths)
        ]
        self.mid_block = Block3D(widths[last], widths[last], 2, groups, None, after_sampler=False, sampler=None)
        self.norm_out = GroupNorm(groups, widths[last])
        self.conv_out = CausalConv3d(widths[last], outputs, 3)

    def forward(self, sample: Tensor, cache: ConvCache) -> Tensor:
        hidden = self.conv_in(sample, cache)
        for block in self.down_blocks:
            hidden = block(hidden, None, cache)
        hidden = self.mid_block(hidden, None, cache)
        hidden = self.norm_out(hidden)
        hidden = silu(hidden)
        return self.conv_out(hidden, cache)


class Decoder3D(Module):
    def __init__(self, latents: int, widths: Sequence[int], outputs: int, layers: int, groups: int, compressed: int) -> None:
        last = len(widths) - 1
        self.conv_in = CausalConv3d(latents, widths[0], 3)
        self.mid_block = Block3D(widths[0], widths[0], 2, groups, latents, after_sampler=False, sampler=None)
        self.up_blocks = [
            Block3D(
                widths[max(i - 1, 0)],
                width,
                layers + 1,
                groups,
                latents,
                after_sampler=i > 0,
                sampler=Upsample3D(width, compress_time=i < compressed) if i < last else None,
            )
            for i, width in enumerate(widths)
        ]
        self.norm_out = SpatialNorm3D(widths[last], latents, groups)
        self.conv_out = CausalConv3d(widths[last], outputs, 3)

    def forward(self, sample: Tensor, cache: ConvCache) -> Tensor:
        hidden = self.conv_in(sample, cache)
        hidden = self.mid_block(hidden, sample, cache)
        for block in self.up_blocks:
            hidden = block(hidden, sample, cache)
        hidden = self.norm_out(hidden, sample, cache, False)
        hidden = silu(hidden)
        return self.conv_out(hidden, cache)


DEFAULTS: Mapping[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "block_out_channels": (128, 256, 256, 512),
    "latent_channels": 16,
    "layers_per_block": 3,
    "norm_num_groups": 32,
    "temporal_compression_ratio": 4,
    "sample_height": 480,
    "sample_width": 720,
}
PIXEL_FRAMES, LATENT_FRAMES = 8, 2  # num_sample_frames_batch_size, num_latent_frames_batch_size


class CogVideoXVae(VideoVae):
    """Every size must be a whole number: large convolutions are split by their size in bytes."""

    def __init__(self, dims: Mapping[str, Any]) -> None:
        dims = {**DEFAULTS, **dims}
        widths, layers, groups = dims["block_out_channels"], dims["layers_per_block"], dims["norm_num_groups"]
        self.inputs, self.latents = dims["in_channels"], dims["latent_channels"]
        self.stride, self.frames = 2 ** (len(widths) - 1), dims["temporal_compression_ratio"]
        compressed = self.frames.bit_length() - 1
        self.encoder = Encoder3D(self.inputs, widths, self.latents * 2, layers, groups, compressed)
        self.decoder = Decoder3D(self.latents, widths[::-1], dims["out_channels"], layers, groups, compressed)
        self.tile = (dims["sample_height"] // 2, dims["sample_width"] // 2)
        self.overlap = (1 / 6, 1 / 5)

    def _encode(self, x: Tensor) -> Tensor:
        latent = (self.tile[0] // self.stride, self.tile[1] // self.stride)
        return self._run(x, self.encoder, PIXEL_FRAMES, self.tile, latent)

    def _decode(self, z: Tensor) -> Tensor:
        latent = (self.tile[0] // self.stride, self.tile[1] // self.stride)
        return self._run(z, self.decoder, LATENT_FRAMES, latent, self.tile)

    def _run(self, x: Tensor, coder: Module, length: int, window: tuple[int, int], result: tuple[int, int]) -> Tensor:
        batch, channels, frames, height, width = x.shape
        if not self.use_tiling or (height <= window[0] and width <= window[1]):
            return cat(_chunks(x, coder, length), 2)
        step_height, step_width = (int(n * (1 - overlap)) for n, overlap in zip(window, self.overlap, strict=True))
        kept_height, kept_width = (n - int(n * overlap) for n, overlap in zip(result, self.overlap, strict=True))
        rows: Tiles = []
        time: list[Tensor] = []  # of the last tile; it lives to the end
        for i in range(0, height, step_height):
            row = []
            for j in range(0, width, step_width):
                tile = narrow(x, batch, channels, frames, min(window[0], height - i), min(window[1], width - j))
                time = []
                time = _chunks(tile, coder, length)
                row.append(cat(time, 2))
            rows.append(row)
        return cat(result_rows(rows, kept_height, kept_width), -2)


def _chunks(x: Tensor, coder: Callable[..., Tensor], length: int) -> list[Tensor]:
    """`coder` over `length` frames at a time, the first chunk with the remainder.

    All but the first are alike save for the results so far, which only grow: the second and the last are walked, and one
    tensor stands for the results between them.
    """
    batch, channels, frames, height, width = x.shape
    count, remaining = max(frames // length, 1), frames % length
    cache = ConvCache()
    results: list[Tensor] = []
    walked = [0, 1, count - 1] if count > 2 else range(count)
    for i in walked:
        if i == count - 1 and count > 3:
            *rest, size, rows, columns = results[1].shape
            results.append(x.tape.empty((*rest, size * (count - 3), rows, columns), x.dtype))
        size = length + remaining if i == 0 else length
        part = narrow(x, batch, channels, min(size, frames), height, width)
        results.append(coder(part, cache))
        cache.turn()
    return results


# THUDM/CogVideoX-5b, vae/config.json: the constructor's defaults
COMPONENTS = {"cogvideox-vae": (CogVideoXVae, DEFAULTS)}
