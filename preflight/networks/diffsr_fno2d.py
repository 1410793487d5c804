"""DiffSR's FNO2d (models/fno/fourier2d.py, basics.py)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from itertools import pairwise
from math import log2
from typing import Any

from preflight.networks.diffsr_common import SuperResolution, anywhere, corner, need, pick, to_channels_first, to_channels_last
from preflight.tape.activation import gelu, in_place, in_place_of_view, tanh
from preflight.tape.fourier import irfftn, modes_product, rfftn
from preflight.tape.meter import Size
from preflight.tape.module import Checkpointing, Conv, ConvTranspose, Linear, Module
from preflight.tape.shaping import assign, narrow, pad
from preflight.tape.tensor import Parameter, Tensor

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "tanh": tanh,
    "gelu": gelu,
    "relu": in_place,
    "elu": in_place,
    "leaky_relu": in_place,
}  # models/fno/utils.py: _get_act


class SpectralConv2d(Module):
    """basics.py: SpectralConv2d, and SpectralUpsampleConv2d where `factors` are not one."""

    def __init__(self, inputs: int, outputs: int, modes1: int, modes2: int, factors: Sequence[int] = (1, 1)) -> None:
        self.outputs, self.modes1, self.modes2, self.factors = outputs, modes1, modes2, factors
        self.weights1 = Parameter((inputs, outputs, modes1, modes2), "complex64")
        self.weights2 = Parameter((inputs, outputs, modes1, modes2), "complex64")

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        x_ft = rfftn(x)

        size = (height * self.factors[0], width // 2 * self.factors[1] + 1)
        out_ft = x.tape.empty((batch, self.outputs, *size), x_ft.dtype)
        for weights in (self.weights1, self.weights2):
            assign(out_ft, (batch, self.outputs, self.modes1, self.modes2), self._multiply(x_ft, weights))

        x = irfftn(out_ft, width * self.factors[1])
        return x

    def _multiply(self, x_ft: Tensor, weights: Parameter) -> Tensor:
        """basics.py: compl_mul2d of `x_ft[:, :, :modes1, :modes2]`, or of its lower corner."""
        low = corner(x_ft, self.modes1, self.modes2)
        return modes_product(low, weights, merges=not anywhere(x_ft.shape[3] != self.modes2))


class FNO2d(SuperResolution):
    @staticmethod
    def pixel_step(dims: Mapping[str, Any]) -> int:
        """The real transform halves the input's width, and the upsampling counts on an even one (basics.py: // 2)."""
        return 2 * SuperResolution.pixel_step(dims)

    def __init__(self, dims: Mapping[str, Any], checkpointing: Checkpointing, *, extend: bool = True) -> None:
        del checkpointing, extend  # the original never checkpoints, and no two blocks are alike
        need(dims, "modes1", "modes2")
        inputs, outputs = dims.get("in_dim", 3), dims.get("out_dim", 1)
        super().__init__(dims, inputs, outputs)
        modes1, modes2 = dims["modes1"], dims["modes2"]
        layers = dims.get("layers", [16, 24, 24, 32, 32])
        if layers is None:
            layers = [dims.get("width", 64)] * (len(modes1) + 1)
        fc_dim = dims.get("fc_dim", 128)
        ratio = dims.get("pad_ratio", [0.0, 0.0])
        self.pad_ratio = [ratio, ratio] if isinstance(ratio, float) else ratio
        self.upsample_factor = dims.get("upsample_factor", [2, 2])
        self.act = pick(ACTIVATIONS, dims, "act", "gelu")

        self.fc0 = Linear(inputs, layers[0])
        spectral = zip(layers, layers[1:], modes1, modes2, strict=False)
        self.sp_convs = [SpectralConv2d(*sizes) for sizes in spectral]
        self.ws = [Conv(before, after, (1,)) for before, after in pairwise(layers)]
        self.up_sp_conv = SpectralConv2d(layers[0], layers[0], modes1[-1], modes2[-1], self.upsample_factor)
        self.up_ws = [
            ConvTranspose(layers[0], layers[0], (3, 3), stride=2, padding=1, output_padding=1)
            for _ in range(int(log2(self.upsample_factor[0])))
        ]
        self.fc1 = Linear(layers[-1], fc_dim)
        self.fc2 = Linear(fc_dim, layers[-1])
        self.fc3 = Linear(layers[-1], outputs)

    def forward(self, x: Tensor) -> Tensor:
        padding = [[rounded_share(size, ratio) for ratio in self.pad_ratio] for size in x.shape[1:3]]
        x = self.fc0(x)
        x = to_channels_first(x)
        x1 = self.up_sp_conv(x)
        x2 = self._upsample(x)
        x = self.act(x1 + x2)
        batch, channels, height, width = unpadded = x.shape
        padded = max(self.pad_ratio) > 0
        if padded:
            height, width = height + sum(padding[0]), width + sum(padding[1])
            x = pad(x, batch, channels, height, width)

        for speconv, w in zip(self.sp_convs, self.ws, strict=False):
            x1 = speconv(x)
            x2 = w(x.view(batch, x.shape[1], height * width))
            x2 = x2.view(batch, x2.shape[1], height, width)
            x = x1 + x2
            x = self.act(x)

        if padded:
            x = narrow(x, *x.shape[:2], unpadded[2], width)
            x = narrow(x, *x.shape[:2], *unpadded[2:])
        x = to_channels_last(x)
        x = self.fc1(x, transposed=True)
        x = self.act(x)
        x = self.fc2(x)
        x = in_place_of_view(x) if self.act is in_place else self.act(x)
        return self.fc3(x)

    def _upsample(self, x: Tensor) -> Tensor:
        for up in self.up_ws:
            x = up(x)
        return x


def rounded_share(size: Size, ratio: float) -> Size:
    """`round(ratio * size)`, halves going to the even neighbour, for arrays of sizes too."""
    share = Fraction(str(ratio))
    twice, whole = 2 * size * share.numerator + share.denominator, 2 * share.denominator
    nearest = twice // whole
    return nearest - (twice % whole == 0) * (nearest % 2)


NETWORK = FNO2d
