"""The parts of CogVideoX's video autoencoder (diffusers/models/autoencoders/autoencoder_kl_cogvideox.py).

A tensor that a sampler returns has its frames beside the batch in memory; only a group norm minds, and copies it.
"""

from __future__ import annotations

from preflight.networks.component import frames_as_batch
from preflight.tape.activation import silu
from preflight.tape.module import Conv, GroupNorm, Module
from preflight.tape.shaping import cat, narrow, pad, sum_over, upsample_nearest
from preflight.tape.tensor import Shape, Tensor

SAFE_BYTES = 2 * 2**30  # CogVideoXSafeConv3d: larger inputs, counted in two bytes an element, are split


class ConvCache:
    """What causal convolutions kept of the chunk before, and what they keep of this one, in calling order."""

    def __init__(self) -> None:
        self.old: list[Tensor] = []
        self.new: list[Tensor] = []

    def turn(self) -> None:
        """End a chunk."""
        self.old, self.new = self.new, []

    def next(self) -> Tensor | None:
        """What the convolution whose turn it is kept."""
        return self.old[len(self.new)] if self.old else None


class SafeConv3d(Conv):
    def forward(self, x: Tensor) -> Tensor:
        batch, channels, frames, height, width = x.shape
        nbytes = batch * channels * frames * height * width * 2
        if nbytes <= SAFE_BYTES:
            return super().forward(x)
        length = -(-frames // (nbytes // SAFE_BYTES + 1))
        lengths = [min(length, frames - start) for start in range(0, frames, length)]
        chunks = [narrow(x, batch, channels, n, height, width) for n in lengths]
        overlap = self.weight.shape[2] - 1
        if overlap:
            before = narrow(x, batch, channels, overlap, height, width)
            chunks = [chunks[0], *(cat([before, chunk], 2) for chunk in chunks[1:])]
        return cat([super(SafeConv3d, self).forward(chunk) for chunk in chunks], 2)


class CausalConv3d(Module):
    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        self.conv = SafeConv3d(inputs, outputs, (kernel,) * 3, padding=(0, kernel // 2, kernel // 2))
        self.before = kernel - 1

    def forward(self, x: Tensor, cache: ConvCache) -> Tensor:
        batch, channels, _, height, width = x.shape
        if self.before:
            first = narrow(x, batch, channels, 1, height, width)
            cached = cache.next()
            x = cat([cached, x] if cached is not None else [first] * self.before + [x], 2)
            del cached
        # x[:, :, -before:] is all of x where before is 0
        kept = narrow(x, batch, channels, self.before or x.shape[2], height, width).contiguous()
        x = self.conv(x)
        cache.new.append(kept)
        return x


def resized(x: Tensor, size: Shape) -> Tensor:
    """F.interpolate to (frames, height, width)."""
    return x.tape.empty((*x.shape[:2], *size), x.dtype)


class SpatialNorm3D(Module):
    """A group norm scaled and shifted by the latents."""

    def __init__(self, channels: int, latents: int, groups: int) -> None:
        self.norm_layer = GroupNorm(groups, channels)
        self.conv_y, self.conv_b = CausalConv3d(latents, channels, 1), CausalConv3d(latents, channels, 1)

    def forward(self, f: Tensor, zq: Tensor, cache: ConvCache, strided: bool) -> Tensor:
        _, _, frames, height, width = f.shape
        if frames > 1 and frames % 2 == 1:
            z_first = resized(zq, (1, height, width))
            z_rest = resized(zq, (frames - 1, height, width))
            zq = cat([z_first, z_rest], 2)
        else:
            zq = resized(zq, (frames, height, width))
        conv_y = self.conv_y(zq, cache)
        conv_b = self.conv_b(zq, cache)
        norm_f = self.norm_layer(f.contiguous() if strided else f)
        return norm_f * conv_y + conv_b


class ResnetBlock3D(Module):
    """`latents`: the channels of the decoder's spatial norm; `after_sampler`: its input comes from one."""

    def __init__(self, inputs: int, outputs: int, groups: int, latents: int | None, *, after_sampler: bool = False) -> None:
        self.after_sampler = after_sampler
        self.norm1 = SpatialNorm3D(inputs, latents, groups) if latents else GroupNorm(groups, inputs)
        self.norm2 = SpatialNorm3D(outputs, latents, groups) if latents else GroupNorm(groups, outputs)
        self.conv1 = CausalConv3d(inputs, outputs, 3)
        self.conv2 = CausalConv3d(outputs, outputs, 3)
        self.conv_shortcut = SafeConv3d(inputs, outputs, (1, 1, 1)) if inputs != outputs else None

    def forward(self, inputs: Tensor, zq: Tensor | None, cache: ConvCache) -> Tensor:
        hidden = inputs
        strided = self.after_sampler and inputs.shape[2] > 1
        if zq is not None:
            hidden = self.norm1(hidden, zq, cache, strided)
        else:
            hidden = self.norm1(hidden.contiguous() if strided else hidden)
        hidden = silu(hidden)
        hidden = self.conv1(hidden, cache)
        hidden = self.norm2(hidden, zq, cache, False) if zq is not None else self.norm2(hidden)
        hidden = silu(hidden)
        hidden = self.conv2(hidden, cache)
        if self.conv_shortcut is not None:
            inputs = self.conv_shortcut(inputs)
        return hidden + inputs


class Downsample3D(Module):
    def __init__(self, dim: int, *, compress_time: bool) -> None:
        self.conv = Conv(dim, dim, (3, 3), stride=2)
        self.compress_time = compress_time

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, frames, height, width = x.shape
        if self.compress_time:
            x = x if batch == 1 else x.contiguous()
            x = x.view(batch, channels, frames, height, width)
            if frames % 2 == 1:
                x_first = narrow(x, batch, channels, 1, height, width)
                x_rest = sum_over(x, batch, channels, frames // 2, height, width) if frames > 1 else None
                x = cat([x_first, x_rest], 2) if x_rest is not None else cat([x_first], 2)
            else:
                x = sum_over(x, batch, channels, frames // 2, height, width)
        batch, channels, frames, height, width = x.shape
        x = pad(x, batch, channels, frames, height + 1, width + 1)
        x = frames_as_batch(x)
        x = self.conv(x)
        return x.view(batch, channels, frames, *x.shape[2:])


class Upsample3D(Module):
    def __init__(self, dim: int, *, compress_time: bool) -> None:
        self.conv = Conv(dim, dim, (3, 3), padding=1)
        self.compress_time = compress_time

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, frames, height, width = x.shape
        if not self.compress_time:
            x = frames_as_batch(x)
            x = upsample_nearest(x, 2)
        else:
            if frames > 1 and frames % 2 == 1:
                x_first = resized(x, (1, height * 2, width * 2))
                x_rest = resized(x, ((frames - 1) * 2, height * 2, width * 2))
                x = cat([x_first, x_rest], 2)
            else:
                x = resized(x, (frames * 2 if frames > 1 else 1, height * 2, width * 2))
            frames = x.shape[2]
            x = frames_as_batch(x)
        x = self.conv(x)
        return x.view(batch, channels, frames, height * 2, width * 2)
