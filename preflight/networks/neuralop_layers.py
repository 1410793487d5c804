"""The layers of neuraloperator's Fourier neural operator (neuralop/layers)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

from preflight.tape import activation
from preflight.tape.dropout import dropout
from preflight.tape.fourier import alias, fftshift, irfftn, modes_product, rfftn
from preflight.tape.meter import Size, somewhere
from preflight.tape.module import Conv, GroupNorm, Module
from preflight.tape.normalization import batch_norm
from preflight.tape.shaping import assign, narrow, overwrite
from preflight.tape.tensor import Buffer, Parameter, Shape, Tensor, numel


class ChannelMLP(Module):
    """channel_mlp.py: convolutions of width 1 over the flattened grid."""

    def __init__(
        self, inputs: int, outputs: int, hidden: int, *, layers: int = 2, non_linearity: str = "gelu", probability: float = 0
    ) -> None:
        widths = [inputs, *[hidden] * (layers - 1), outputs]
        self.fcs = [Conv(before, after, (1,)) for before, after in pairwise(widths)]
        self.non_linearity = activation.BY_NAME[non_linearity]
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, *grid = x.shape
        x = x.view(batch, channels, numel(tuple(grid)))
        for i, fc in enumerate(self.fcs):
            x = fc(x)
            if i < len(self.fcs) - 1:
                x = self.non_linearity(x)
            if self.probability:
                x = dropout(x)
        return x.view(batch, x.shape[1], *grid)


class SoftGating(Module):
    """skip_connections.py: one weight a channel."""

    def __init__(self, channels: int, dimensions: int) -> None:
        self.weight = Parameter((1, channels, *(1,) * dimensions))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x


class Flattened1dConv(Module):
    """skip_connections.py: a convolution of width 1 over the flattened grid."""

    def __init__(self, channels: int, _dimensions: int) -> None:
        self.conv = Conv(channels, channels, (1,), bias=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, *grid = x.shape
        x = x.view(batch, channels, numel(tuple(grid)))
        x = self.conv(x)
        return x.view(batch, channels, *grid)


class Identity(Module):
    def __init__(self, _channels: int, _dimensions: int) -> None:
        pass

    def forward(self, x: Tensor) -> Tensor:
        return x


class InstanceNorm(Module):
    """normalization_layers.py: torch's instance_norm, a batch norm over (1, B * C, *grid) without parameters."""

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, *grid = x.shape
        return batch_norm(x.view(1, batch * channels, *grid)).view(*x.shape)


class BatchNorm(Module):
    """normalization_layers.py: torch's batch norm, with its running averages."""

    def __init__(self, channels: int) -> None:
        self.weight, self.bias = Parameter((channels,)), Parameter((channels,))
        self.running_mean, self.running_var = Buffer((channels,)), Buffer((channels,))
        self.num_batches_tracked = Buffer((), "int64")

    def forward(self, x: Tensor) -> Tensor:
        return batch_norm(x, self.weight, self.bias)


SKIPS: Mapping[str, Callable[[int, int], Module]] = {
    "soft-gating": SoftGating,
    "linear": Flattened1dConv,
    "identity": Identity,
}
NORMS: Mapping[str, Callable[[int], Module]] = {
    "group_norm": lambda channels: GroupNorm(1, channels),
    "instance_norm": lambda _: InstanceNorm(),
    "batch_norm": BatchNorm,
}


class SpectralConv(Module):
    """spectral_convolution.py: a product over the kept modes of the transform; one complex weight (in, out, *modes)."""

    def __init__(self, channels: int, n_modes: Sequence[int], max_n_modes: Sequence[int] | None) -> None:
        # the transform of a real field keeps half of its last dimension; `max_n_modes` is taken as it is
        self.n_modes = (*n_modes[:-1], n_modes[-1] // 2 + 1)
        self.max_n_modes = tuple(max_n_modes) if max_n_modes is not None else self.n_modes
        self.weight = Parameter((channels, channels, *self.max_n_modes), "complex64")
        self.bias = Parameter((channels, *(1,) * len(n_modes)))

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, *grid = x.shape
        x = rfftn(x)
        if len(grid) > 1:
            x = fftshift(x)
        out_fft = x.tape.empty(x.shape, x.dtype)

        kept = tuple(_smaller(size, modes) for size, modes in zip(x.shape[2:], self.n_modes, strict=True))
        weight, weight_merges = _cut(self.weight, kept)
        if weight is self.weight:
            weight = alias(weight)
        part, merges = _cut(x, kept)
        if not weight_merges:
            weight = weight.contiguous()
        if part is x:
            overwrite(out_fft, modes_product(part, weight, merges=merges))
        else:
            assign(out_fft, (batch, channels, *kept), modes_product(part, weight, merges=merges))
        del part, weight

        if len(grid) > 1:
            out_fft = fftshift(out_fft)
        x = irfftn(out_fft, grid[-1])
        x = x + self.bias
        return x


def _smaller(size: Size, modes: int) -> Size:
    """The smaller of the two, also for an array of sizes."""
    return size * (size < modes) + modes * (size >= modes)


def _cut(x: Tensor, kept: Shape) -> tuple[Tensor, bool]:
    """x (…, …, *modes) with only `kept` of its modes, cut dimension by dimension, and whether those still lie evenly in memory."""
    merges = True
    for i, size in enumerate(kept, start=2):
        if somewhere(size < x.shape[i]):
            x = narrow(x, *x.shape[:i], size, *x.shape[i + 1 :])
            merges = merges and i == 2
    return x, merges
