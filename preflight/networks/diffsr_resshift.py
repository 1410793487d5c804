"""DiffSR's Resshift: UNetModelSwin (models/resshift/models/unet.py), in the step of trainers/resshift.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import lcm
from typing import Any

from preflight.networks.diffsr_common import SuperResolution, need
from preflight.networks.diffsr_swin_unet import BasicLayer, Downsample, ResBlock, Upsample, normalization
from preflight.networks.network import Shape
from preflight.tape.activation import keeps_result, silu
from preflight.tape.loss import relative_lp_loss
from preflight.tape.module import Checkpointing, Conv, Linear, Module
from preflight.tape.shaping import cat
from preflight.tape.tensor import Tape, Tensor


class TimeEmbed(Module):
    def __init__(self, width: int) -> None:
        self.width = width
        self.linear_1, self.linear_2 = Linear(width, width * 4), Linear(width * 4, width * 4)

    def forward(self, timesteps: Tensor) -> Tensor:
        arguments = timesteps.tape.empty((timesteps.shape[0], self.width // 2), "fp32")
        x = cat([keeps_result(arguments), keeps_result(arguments)], -1)
        x = self.linear_1(x)
        x = silu(x)
        return self.linear_2(x)


class Sequential(Module):
    """TimestepEmbedSequential: residual blocks are told the time."""

    def __init__(self, *layers: Module) -> None:
        self.layers = layers

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x, emb) if isinstance(layer, ResBlock) else layer(x)
        return x


class Output(Module):
    def __init__(self, width: int, inputs: int, outputs: int) -> None:
        self.norm, self.conv = normalization(width), Conv(inputs, outputs, (3, 3), padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        x = silu(x)
        return self.conv(x)


class UNetModelSwin(SuperResolution):
    """`lq_size` is taken to be `image_size`: with another one the original fails before it is built."""

    @staticmethod
    def pixel_step(dims: Mapping[str, Any]) -> int:
        """Every level but the last halves the grid; windows fill each that is attended."""
        levels = len(dims.get("channel_mult", (1, 2, 4, 8)))
        return lcm(2 ** (levels - 1), dims.get("window_size", 8), SuperResolution.pixel_step(dims))

    def __init__(self, dims: Mapping[str, Any], checkpointing: Checkpointing, *, extend: bool = True) -> None:
        del checkpointing, extend  # the original never checkpoints, and no two blocks are alike
        need(dims, "image_size", "in_channels", "model_channels", "out_channels", "num_res_blocks", "attention_resolutions")
        inputs, outputs = dims["in_channels"], dims["out_channels"]
        super().__init__(dims, inputs, outputs)
        width, mults = dims["model_channels"], dims.get("channel_mult", (1, 2, 4, 8))
        counts = dims["num_res_blocks"]
        counts = [counts] * len(mults) if isinstance(counts, int) else counts
        self.resample, self.conv_resample = dims.get("resblock_updown", False), dims.get("conv_resample", True)
        self.dims, self.time_dim = dims, width * 4
        attended: Sequence[int] = dims["attention_resolutions"]

        self.time_embed = TimeEmbed(width)
        channels = first = int(mults[0] * width)
        blocks = [Sequential(Conv(2 * inputs, channels, (3, 3), padding=1))]
        kept, resolution = [channels], dims["image_size"]
        for level, mult in enumerate(mults):
            for i in range(counts[level]):
                layers: list[Module] = [self._block(channels, int(mult * width))]
                channels = int(mult * width)
                if resolution in attended and i == 0:
                    layers.append(self._attention(channels, resolution))
                blocks.append(Sequential(*layers))
                kept.append(channels)
            if level < len(mults) - 1:
                blocks.append(Sequential(self._resampled(channels, "down")))
                kept.append(channels)
                resolution //= 2
        self.input_blocks = blocks

        self.middle_block = Sequential(
            self._block(channels, channels), self._attention(channels, resolution), self._block(channels, channels)
        )

        self.output_blocks = []
        for level, mult in reversed(list(enumerate(mults))):
            for i in range(counts[level] + 1):
                layers = [self._block(channels + kept.pop(), int(mult * width))]
                channels = int(mult * width)
                if resolution in attended and i == 0:
                    layers.append(self._attention(channels, resolution))
                if level and i == counts[level]:
                    layers.append(self._resampled(channels, "up"))
                    resolution *= 2
                self.output_blocks.append(Sequential(*layers))
        self.out = Output(channels, first, outputs)

    def _block(self, channels: int, outputs: int, resample: str | None = None) -> ResBlock:
        dropout, scale_shift = self.dims.get("dropout", 0), self.dims.get("use_scale_shift_norm", False)
        return ResBlock(channels, self.time_dim, outputs, dropout=dropout, scale_shift=scale_shift, resample=resample)

    def _resampled(self, channels: int, how: str) -> Module:
        if self.resample:
            return self._block(channels, channels, how)
        kind = Downsample if how == "down" else Upsample
        return kind(channels, use_conv=self.conv_resample)

    def _attention(self, channels: int, resolution: int) -> BasicLayer:
        dims, width = self.dims, self.dims.get("swin_embed_dim", 96)
        per_head = dims.get("num_head_channels", -1)
        return BasicLayer(
            channels,
            width,
            heads=dims.get("num_heads", 1) if per_head == -1 else width // per_head,
            window=dims.get("window_size", 8),
            depth=dims.get("swin_depth", 2),
            resolution=resolution,
            mlp_ratio=dims.get("mlp_ratio", 2.0),
            drop=dims.get("dropout", 0),
            patch_norm=dims.get("patch_norm", False),
        )

    def loss(self, tape: Tape, shape: Shape, dtype: str) -> Tensor:
        high = (shape.batch, self.outputs, shape.height, shape.width)
        x, y = tape.empty(high, dtype), tape.empty(high, dtype)  # x brought to the high resolution, bicubic
        timesteps = tape.empty((shape.batch,), "int64")
        noise = tape.empty(high, dtype)
        noisy = (y - x) * tape.empty((shape.batch, 1, 1, 1), "fp32") + y + noise * tape.empty((shape.batch, 1, 1, 1), "fp32")
        output = self(noisy, timesteps, x)
        return relative_lp_loss(output, y)

    def forward(self, x: Tensor, timesteps: Tensor, lq: Tensor) -> Tensor:
        hs = []
        emb = self.time_embed(timesteps)
        x = cat([x, lq], 1)
        h = x
        for module in self.input_blocks:
            h = module(h, emb)
            hs.append(h)
        h = self.middle_block(h, emb)
        for module in self.output_blocks:
            h = cat([h, hs.pop()], 1)
            h = module(h, emb)
        return self.out(h)


NETWORK = UNetModelSwin
