"""Wan 2.1 and 2.2 video autoencoders (diffusers/models/autoencoders/autoencoder_kl_wan.py).

Frames go through in chunks; causal convolutions remember the last two frames of the chunk before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import Any

from preflight.networks.component import Tiles, VideoVae, result_rows
from preflight.networks.wan_vae_blocks import (
    AttentionBlock,
    CausalConv3d,
    Features,
    MidBlock,
    Resample,
    ResidualBlock,
    RMSNorm,
    causal,
)
from preflight.networks.wan_vae_residual import ResidualDownBlock, ResidualUpBlock
from preflight.tape.activation import keeps_result, silu
from preflight.tape.module import Module
from preflight.tape.shaping import cat, narrow
from preflight.tape.tensor import Tensor


class Encoder(Module):
    def __init__(self, dims: Mapping[str, Any], outputs: int) -> None:
        widths = [dims["base_dim"] * multiple for multiple in (1, *dims["dim_mult"])]
        blocks, last = dims["num_res_blocks"], len(widths) - 2
        self.conv_in = CausalConv3d(dims["in_channels"], widths[0], (3, 3, 3), padding=(1, 1, 1))
        self.down_blocks: list[Module] = []
        scale = 1.0
        for i, (inner, outer) in enumerate(pairwise(widths)):
            frames = i < last and dims["temperal_downsample"][i]
            if dims["is_residual"]:
                self.down_blocks.append(ResidualDownBlock(inner, outer, blocks, frames=frames, pixels=i < last))
                continue
            for block in range(blocks):
                self.down_blocks.append(ResidualBlock(inner if block == 0 else outer, outer))
                if scale in dims["attn_scales"]:
                    self.down_blocks.append(AttentionBlock(outer))
            if i < last:
                self.down_blocks.append(Resample(outer, "downsample3d" if frames else "downsample2d"))
                scale /= 2.0
        self.mid_block = MidBlock(widths[-1])
        self.norm_out = RMSNorm(widths[-1])
        self.conv_out = CausalConv3d(widths[-1], outputs, (3, 3, 3), padding=(1, 1, 1))

    def forward(self, x: Tensor, features: Features) -> Tensor:
        features.rewind()
        x = causal(self.conv_in, x, features)
        for layer in self.down_blocks:
            x = layer(x, features)
        x = self.mid_block(x, features)
        x = self.norm_out(x)
        x = silu(x)
        return causal(self.conv_out, x, features)


class UpBlock(Module):
    def __init__(self, inputs: int, outputs: int, blocks: int, mode: str | None) -> None:
        self.resnets = [ResidualBlock(inputs if i == 0 else outputs, outputs) for i in range(blocks + 1)]
        self.upsamplers = [Resample(outputs, mode)] if mode is not None else []

    def forward(self, x: Tensor, features: Features, _: bool) -> Tensor:
        for resnet in self.resnets:
            x = resnet(x, features)
        for upsampler in self.upsamplers:
            x = upsampler(x, features)
        return x


class Decoder(Module):
    def __init__(self, dims: Mapping[str, Any], base: int) -> None:
        multiples = dims["dim_mult"][::-1]
        widths = [base * multiple for multiple in (multiples[0], *multiples)]
        blocks, last = dims["num_res_blocks"], len(widths) - 2
        self.conv_in = CausalConv3d(dims["z_dim"], widths[0], (3, 3, 3), padding=(1, 1, 1))
        self.mid_block = MidBlock(widths[0])
        self.up_blocks: list[Module] = []
        for i, (inner, outer) in enumerate(pairwise(widths)):
            frames = i < last and dims["temperal_downsample"][::-1][i]
            if dims["is_residual"]:
                self.up_blocks.append(ResidualUpBlock(inner, outer, blocks, frames=frames, pixels=i < last))
                continue
            mode = ("upsample3d" if frames else "upsample2d") if i < last else None
            self.up_blocks.append(UpBlock(inner // 2 if i > 0 else inner, outer, blocks, mode))
        self.norm_out = RMSNorm(widths[-1])
        self.conv_out = CausalConv3d(widths[-1], dims["out_channels"], (3, 3, 3), padding=(1, 1, 1))

    def forward(self, x: Tensor, features: Features, first_chunk: bool) -> Tensor:
        features.rewind()
        x = causal(self.conv_in, x, features)
        x = self.mid_block(x, features)
        for up_block in self.up_blocks:
            x = up_block(x, features, first_chunk)
        x = self.norm_out(x)
        x = silu(x)
        return causal(self.conv_out, x, features)


FRAMES = 4  # of a chunk of pixels; autoencoder_kl_wan.py: _encode


def later_chunks(count: int) -> Iterator[int]:
    """The chunks after the first that are walked, each as how many are left out before it.

    From the third on they are alike but for the output so far, which only grows: the last one stands highest.
    """
    yield from (0,) * min(count, 2)
    if count > 2:
        yield count - 3


def lengthened(out: Tensor, chunk: Tensor | None, times: int) -> Tensor:
    """`out` as it is after `times` more chunks."""
    if chunk is None or times == 0:
        return out
    batch, channels, frames, height, width = out.shape
    return out.tape.empty((batch, channels, frames + times * chunk.shape[2], height, width), out.dtype)


def between(results: list[Tensor], times: int) -> None:
    """Add one tensor that stands for the results of `times` chunks."""
    if times > 0:
        batch, channels, frames, height, width = results[-1].shape
        results.append(results[-1].tape.empty((batch, channels, frames * times, height, width), results[-1].dtype))


DEFAULTS: Mapping[str, Any] = {
    "base_dim": 96,
    "decoder_base_dim": None,
    "z_dim": 16,
    "dim_mult": [1, 2, 4, 4],
    "num_res_blocks": 2,
    "attn_scales": [],
    "temperal_downsample": [False, True, True],
    "is_residual": False,
    "in_channels": 3,
    "out_channels": 3,
    "patch_size": None,
    "scale_factor_temporal": 4,
    "scale_factor_spatial": 8,
}


class WanVae(VideoVae):
    def __init__(self, dims: Mapping[str, Any]) -> None:
        dims = {**DEFAULTS, **dims}
        self.latents, self.stride, self.frames = dims["z_dim"], dims["scale_factor_spatial"], FRAMES
        self.patch = dims["patch_size"] or 1
        self.encoder = Encoder(dims, self.latents * 2)
        self.quant_conv = CausalConv3d(self.latents * 2, self.latents * 2, (1, 1, 1))
        self.post_quant_conv = CausalConv3d(self.latents, self.latents, (1, 1, 1))
        self.decoder = Decoder(dims, dims["decoder_base_dim"] or dims["base_dim"])

    def _encode(self, x: Tensor) -> Tensor:
        batch, channels, frames, height, width = x.shape
        tiled = self.use_tiling and max(height, width) > self.tile_sample_min
        if self.patch > 1:
            channels, height, width = channels * self.patch**2, height // self.patch, width // self.patch
            x = x.view(batch, channels, frames, height, width).contiguous()
        later = (frames - 1) // FRAMES
        if tiled:
            ratio = self.stride // self.patch
            step, window = self.tile_sample_stride, self.tile_sample_min
            return self._tiled(x, step, window, step // ratio, lambda tile: self._encode_parts(tile, later))
        features = Features()
        out = self.encoder(narrow(x, batch, channels, 1, height, width), features)
        out_ = None
        for skipped in later_chunks(later):
            out = lengthened(out, out_, skipped)
            out_ = self.encoder(narrow(x, batch, channels, FRAMES, height, width), features)
            out = cat([out, out_], 2)
        return self.quant_conv(out)

    def _decode(self, z: Tensor) -> Tensor:
        batch, channels, frames, height, width = z.shape
        if self.use_tiling and max(height, width) > self.tile_sample_min // self.stride:
            step, window = self.tile_sample_stride // self.stride, self.tile_sample_min // self.stride
            kept = self.tile_sample_stride // self.patch
            held: list[Tensor] = []
            return self._tiled(z, step, window, kept, lambda tile: self._decode_parts(tile, frames - 1, held), self._finish_tiles)
        features = Features()
        x = self.post_quant_conv(z)
        out = self.decoder(narrow(x, batch, channels, 1, height, width), features, True)
        out_ = None
        for skipped in later_chunks(frames - 1):
            out = lengthened(out, out_, skipped)
            out_ = self.decoder(narrow(x, batch, channels, 1, height, width), features, False)
            out = cat([out, out_], 2)
        return self._finish(out)

    def _finish(self, out: Tensor) -> Tensor:
        """unpatchify and clamp."""
        if self.patch > 1:
            batch, channels, frames, height, width = out.shape
            channels, height, width = channels // self.patch**2, height * self.patch, width * self.patch
            out = out.view(batch, channels, frames, height, width).contiguous()
        return keeps_result(out)

    _finish_tiles = _finish

    def _tiled(
        self,
        x: Tensor,
        step: int,
        window: int,
        kept: int,
        run: Callable[[Tensor], list[Tensor]],
        finish: Callable[[Tensor], Tensor] = lambda out: out,
    ) -> Tensor:
        batch, channels, frames, height, width = x.shape
        rows: Tiles = []
        time: list[Tensor] = []  # of the last tile; it lives to the end
        for i in range(0, height, step):
            row = []
            for j in range(0, width, step):
                time = []
                time = run(narrow(x, batch, channels, frames, min(window, height - i), min(window, width - j)))
                row.append(cat(time, 2))
            rows.append(row)
        results = result_rows(rows, kept, kept)
        return finish(cat(results, -2))

    def _encode_parts(self, x: Tensor, later: int) -> list[Tensor]:
        batch, channels, _, height, width = x.shape
        features = Features()
        time = [self.quant_conv(self.encoder(narrow(x, batch, channels, 1, height, width), features))]
        for skipped in later_chunks(later):
            between(time, skipped)
            time.append(self.quant_conv(self.encoder(narrow(x, batch, channels, FRAMES, height, width), features)))
        return time

    def _decode_parts(self, z: Tensor, later: int, held: list[Tensor]) -> list[Tensor]:
        """`held` is the last tile's last part: a variable names it until this one's first part is there."""
        batch, channels, _, height, width = z.shape
        features = Features()
        time = [self.decoder(self.post_quant_conv(narrow(z, batch, channels, 1, height, width)), features, True)]
        held.clear()
        for skipped in later_chunks(later):
            between(time, skipped)
            time.append(self.decoder(self.post_quant_conv(narrow(z, batch, channels, 1, height, width)), features, False))
        held.append(time[-1])
        return time


# Wan-AI/Wan2.1-T2V-14B-Diffusers (the constructor's defaults) and Wan-AI/Wan2.2-TI2V-5B-Diffusers, vae/config.json
COMPONENTS = {
    "wan2.1-vae": (WanVae, DEFAULTS),
    "wan2.2-vae": (
        WanVae,
        {
            "base_dim": 160,
            "decoder_base_dim": 256,
            "z_dim": 48,
            "is_residual": True,
            "in_channels": 12,
            "out_channels": 12,
            "patch_size": 2,
            "scale_factor_spatial": 16,
        },
    ),
}
