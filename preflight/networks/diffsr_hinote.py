"""DiffSR's HiNOTE_net (models/HiNOTE/HiNOTE.py): frequency upsampling, sampling at four corners, Galerkin attention."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import log2
from typing import Any

from preflight.networks.diffsr_common import (
    ChannelsLastConv,
    SuperResolution,
    interpolate,
    pick,
    to_channels_first,
    to_channels_last,
)
from preflight.networks.diffsr_hinote_attention import GalerkinAttention, depthwise
from preflight.tape.activation import gelu, in_place, keeps_input
from preflight.tape.meter import Size
from preflight.tape.module import Checkpointing, Conv, Module
from preflight.tape.sampling import grid_sample
from preflight.tape.shaping import assign, cat, narrow, pad
from preflight.tape.tensor import Buffer, Call, Grads, Tensor

# non_act_d; only some of them are told to work in place: the first argument of the others is a slope or a bound
ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "ReLU": in_place,
    "LeakyReLU": keeps_input,
    "ELU": keeps_input,
    "SELU": in_place,
    "GELU": gelu,
    "RReLU": keeps_input,
}


class Fuse(Module):
    """amp_fuse and pha_fuse."""

    def __init__(self, channels: int) -> None:
        self.convs = [Conv(channels, channels, (1, 1)), Conv(channels, channels, (1, 1))]

    def forward(self, x: Tensor) -> Tensor:
        x = self.convs[0](x)
        x = keeps_input(x)
        return self.convs[1](x)


class FrequencyUpsampling(Module):
    """freup_Cornerdinterpolation, freup_Periodicpadding and freup_Areadinterpolation.

    The halving of single rows and columns is left out.
    """

    def __init__(self, channels: int, method: str) -> None:
        self.method = method
        self.amp_fuse, self.pha_fuse = Fuse(channels), Fuse(channels)
        self.post = Conv(channels, channels, (1, 1)) if method != "Corner" else None

    def forward(self, x: Tensor) -> Tensor:
        fft_x = fft(x.to("complex64"))
        mag_x = absolute(fft_x)
        pha_x = absolute(fft_x)
        mag = self.amp_fuse(mag_x)
        pha = self.pha_fuse(pha_x)
        amplitude, phase = self._enlarge(mag), self._enlarge(pha)

        real = amplitude * keeps_input(phase)
        imag = amplitude * keeps_input(phase)
        out = combine(real, imag)
        output = fft(out)
        output = absolute(output)
        if self.method == "Area":
            output = self._crop(x, output)
        return output if self.post is None else self.post(output)

    def _enlarge(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        if self.method == "Periodic":
            return pad(x, batch, channels, 2 * height, 2 * width)
        if self.method == "Area":
            return pad(pad(x, batch, channels, 2 * height, width), batch, channels, 2 * height, 2 * width)
        out = x.tape.empty((batch, channels, 2 * height, 2 * width), x.dtype)
        for tall in (height // 2 + 1, height // 2):
            for wide in (width // 2 + 1, width // 2):
                part = narrow(narrow(x, batch, channels, tall, width), batch, channels, tall, wide)
                assign(out, part.shape, part)
        return out

    def _crop(self, x: Tensor, output: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        crop = x.tape.empty(x.shape, x.dtype)
        quarter = (batch, channels, height // 2, width // 2)
        for _ in range(4):
            part = narrow(narrow(output, batch, channels, height // 2, 2 * width), *quarter)
            assign(crop, quarter, part)
        return interpolate(crop, 2 * height, 2 * width)


class FrequencyResidual(Module):
    """fresadd, and frescat with `combine` "cat"."""

    def __init__(self, inputs: int, outputs: int, method: str, how: str, act: Callable[[Tensor], Tensor]) -> None:
        self.Fup = FrequencyUpsampling(inputs, method)
        self.fuse = Conv(inputs * (2 if how == "cat" else 1), outputs, (1, 1), bias=False)
        self.how, self.act = how, act

    def forward(self, x: Tensor) -> Tensor:
        x2 = interpolate(x, 2 * x.shape[2], 2 * x.shape[3])
        x3 = self.Fup(x)
        xm = cat([x2, x3], 1) if self.how == "cat" else x2 + x3
        xn = self.fuse(xm)
        return self.act(xn)


class LIIFEnsemble(Module):
    """The features at the four neighbours of each point, weighted by area, with the distances to them and the cell's size."""

    def forward(self, x: Tensor, coord: Tensor) -> Tensor:
        return self.with_locals(x, coord)[0]

    def with_locals(self, x: Tensor, coord: Tensor) -> tuple[Tensor, tuple[object, ...]]:
        """The result, and what the function's variables hold at its end."""
        batch, height, width, _ = coord.shape
        tape, distances, features, areas = x.tape, [], [], []
        for _ in range(4):
            near = tape.empty((batch, height, width, 2), coord.dtype)
            feat = grid_sample(x, tape.empty(near.shape, coord.dtype))
            old = grid_sample(tape.empty((1, 2, 1, 1), x.dtype), tape.empty(near.shape, coord.dtype))
            old = old.view(batch, 2, height, width).contiguous()
            distance = tape.empty((batch, 2, height, width), coord.dtype)
            area = tape.empty((batch, height, width), coord.dtype)
            areas.append(area * 1.0)
            distances.append(distance)
            features.append(feat)
        total = tape.empty((4, batch, height, width), coord.dtype)
        total = tape.empty((batch, height, width), coord.dtype)
        for index in range(4):
            share = tape.empty((batch, 1, height, width), coord.dtype)
            features[index] = features[index] * share
            del share
        grid = cat([*distances, *features, tape.empty((batch, 2, height, width), x.dtype)], 1)
        return grid, (distances, features, areas, near, feat, old, distance, area, total)


class AliasFreeActivation(Module):
    """Twice as many points, the activation, a 31 by 31 sinc filter, and back."""

    def __init__(self, act: Callable[[Tensor], Tensor]) -> None:
        self.act = act
        self.sinc_filter = Buffer((1, 1, 31, 31))

    def forward(self, x: Tensor) -> Tensor:
        upsampled = interpolate(x, 2 * x.shape[2], 2 * x.shape[3])
        activated = self.act(upsampled)
        filtered = depthwise(activated, self.sinc_filter, 15)
        return interpolate(filtered, *x.shape[2:])


class Resample(Module):
    """A level of the decoder down (a strided convolution) or up (interpolated first)."""

    def __init__(self, channels: int, act: Callable[[Tensor], Tensor], *, down: bool) -> None:
        self.activation = AliasFreeActivation(act)
        self.conv = Conv(channels, channels, (3, 3), stride=2 if down else 1, padding=1)
        self.down = down

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation(x)
        if not self.down:
            x = interpolate(x, 2 * x.shape[2], 2 * x.shape[3])
        return self.conv(x)


class HierarchicalDecoder(Module):
    def __init__(self, width: int, outputs: int, levels: int, heads: int, act: Callable[[Tensor], Tensor]) -> None:
        self.downsample_layers = [Resample(width, act, down=True) for _ in range(levels - 1)]
        self.kernels = [GalerkinAttention(width, heads, act) for _ in range(levels)]
        self.upsample_layers = [Resample(width, act, down=False) for _ in range(levels - 1)]
        self.integrate_layers = [Conv(width * 2, width, (3, 3), padding=1) for _ in range(levels - 1)]
        self.project = ChannelsLastConv(width, outputs, (3, 3), padding=1)

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        for down in self.downsample_layers:
            x = down(x)
            features.append(x)
        processed = [kernel(feature) for kernel, feature in zip(self.kernels, features, strict=True)]
        processed.reverse()
        x = processed[0]
        for i, (up, integrate) in enumerate(zip(self.upsample_layers, self.integrate_layers, strict=True)):
            low = up(x)
            high = processed[i + 1]
            x = integrate(cat((high, low), 1))
        return self.project(x)


class HiNOTE(SuperResolution):
    def __init__(self, dims: Mapping[str, Any], checkpointing: Checkpointing, *, extend: bool = True) -> None:
        del checkpointing, extend  # the original never checkpoints, and no two blocks are alike
        inputs, outputs = dims.get("in_channels", 1), dims.get("out_channels", 1)
        outputs = inputs if outputs is None else outputs
        super().__init__(dims, inputs, outputs)
        act = pick(ACTIVATIONS, dims, "non_act", "ReLU")
        method, how = dims.get("fourier_up", "Corner"), dims.get("feature_combine", "add")
        self.scale: Size = dims.get("scale_factor", 2)
        stages = int(log2(dims.get("feature_up_ratio", 4)))
        self.encoder = [FrequencyResidual(inputs, outputs, method, how, act) for _ in range(stages)]
        self.sampler = LIIFEnsemble()
        width = dims.get("attention_width", 256)
        self.lift = Conv(10 + 4 * inputs, width, (5, 5), padding=2, bias=False)
        levels, heads = dims.get("hierarchical_levels", 1), dims.get("attention_head", 16)
        self.hierarchical_decoder = HierarchicalDecoder(width, outputs, levels, heads, act)

    def forward(self, x: Tensor) -> Tensor:
        x = to_channels_first(x)
        batch, _, height, width = x.shape
        coord = x.tape.empty((batch, height * self.scale, width * self.scale, 2), "fp32")
        y = self._encode(x)
        y = self.sampler(y, coord)
        y = self.lift(y)
        y = self.hierarchical_decoder(y)
        y += grid_sample(x, x.tape.empty(coord.shape, coord.dtype))
        return to_channels_last(y)

    def _encode(self, x: Tensor) -> Tensor:
        for module in self.encoder:
            x = module(x)
        return x


def fft(x: Tensor) -> Tensor:
    """Complex to complex; nothing is kept."""
    return x.contiguous() if not x.requires_grad else pad(x, *x.shape)


def absolute(x: Tensor) -> Tensor:
    """Magnitude or angle of a complex tensor, which is kept."""
    return x.tape.compute((x,), _absolute_backward, x.shape, "fp32", saved=(x,))


def combine(real: Tensor, imag: Tensor) -> Tensor:
    """torch.complex, which keeps both; the gradients are views of the result's."""
    return real.tape.compute((real, imag), _combine_backward, real.shape, "complex64", saved=(real, imag))


def _absolute_backward(call: Call, grad: Tensor | None) -> Grads:
    assert grad is not None
    (x,) = call.saved
    sign = grad.tape.empty(x.shape, x.dtype)
    out = grad.tape.empty(x.shape, x.dtype)
    del sign
    return (out,)


def _combine_backward(_: Call, grad: Tensor | None) -> Grads:
    assert grad is not None
    return tuple(Tensor(grad.tape, grad.shape, "fp32", grad.storage) for _ in range(2))


NETWORK = HiNOTE
