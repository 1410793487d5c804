"""Wan 2.2's blocks with averaging and repeating shortcuts (diffusers/models/autoencoders/autoencoder_kl_wan.py)."""

from __future__ import annotations

from preflight.networks.wan_vae_blocks import Features, Resample, ResidualBlock
from preflight.tape.module import Module
from preflight.tape.shaping import narrow, pad, sum_over
from preflight.tape.tensor import Tensor


class AvgDown3D(Module):
    def __init__(self, outputs: int, frames: int, pixels: int) -> None:
        self.outputs, self.frames, self.pixels = outputs, frames, pixels

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, frames, height, width = x.shape
        x = pad(x, batch, channels, frames + -frames % self.frames, height, width)
        frames = x.shape[2]
        x = x.contiguous()
        return sum_over(x, batch, self.outputs, frames // self.frames, height // self.pixels, width // self.pixels)


class DupUp3D(Module):
    def __init__(self, inputs: int, outputs: int, frames: int, pixels: int) -> None:
        self.outputs, self.frames, self.pixels = outputs, frames, pixels
        self.repeats = outputs * frames * pixels**2 // inputs

    def forward(self, x: Tensor, first_chunk: bool) -> Tensor:
        batch, channels, frames, height, width = x.shape
        x = x.tape.empty((batch, channels * self.repeats, frames, height, width), x.dtype)  # repeat_interleave
        x = x.contiguous()
        x = x.view(batch, self.outputs, frames * self.frames, height * self.pixels, width * self.pixels)
        if first_chunk:
            batch, channels, frames, height, width = x.shape
            x = narrow(x, batch, channels, frames - (self.frames - 1), height, width)
        return x


class ResidualDownBlock(Module):
    def __init__(self, inputs: int, outputs: int, blocks: int, *, frames: bool, pixels: bool) -> None:
        self.avg_shortcut = AvgDown3D(outputs, 2 if frames else 1, 2 if pixels else 1)
        self.resnets = [ResidualBlock(inputs if i == 0 else outputs, outputs) for i in range(blocks)]
        self.downsampler = Resample(outputs, "downsample3d" if frames else "downsample2d") if pixels else None

    def forward(self, x: Tensor, features: Features) -> Tensor:
        x_copy = x.contiguous()
        for resnet in self.resnets:
            x = resnet(x, features)
        if self.downsampler is not None:
            x = self.downsampler(x, features)
        return x + self.avg_shortcut(x_copy)


class ResidualUpBlock(Module):
    def __init__(self, inputs: int, outputs: int, blocks: int, *, frames: bool, pixels: bool) -> None:
        self.avg_shortcut = DupUp3D(inputs, outputs, 2 if frames else 1, 2) if pixels else None
        self.resnets = [ResidualBlock(inputs if i == 0 else outputs, outputs) for i in range(blocks + 1)]
        self.upsampler = Resample(outputs, "upsample3d" if frames else "upsample2d", outputs) if pixels else None

    def forward(self, x: Tensor, features: Features, first_chunk: bool) -> Tensor:
        x_copy = x.contiguous()
        for resnet in self.resnets:
            x = resnet(x, features)
        if self.upsampler is not None:
            x = self.upsampler(x, features)
        if self.avg_shortcut is not None:
            x = x + self.avg_shortcut(x_copy, first_chunk)
        return x
