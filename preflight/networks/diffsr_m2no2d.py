"""DiffSR's M2NO2d (models/m2no/m2no2d.py, grid_operator.py): multigrid cycles with wavelet restriction and prolongation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import lcm
from typing import Any

from preflight.networks.diffsr_common import (
    ChannelsLastConv,
    SuperResolution,
    anywhere,
    need,
    pick,
    to_channels_first,
    to_channels_last,
)
from preflight.tape.activation import gelu, relu, silu, tanh
from preflight.tape.linear import matmul
from preflight.tape.module import Blocks, Checkpointing, Conv, Linear, Module
from preflight.tape.normalization import layer_norm_whole
from preflight.tape.shaping import assign, chunk, narrow, transpose
from preflight.tape.tensor import Call, Grads, Parameter, Tensor

ACTIVATIONS = {"gelu": gelu, "relu": relu, "tanh": tanh}


class PaddedConv(Conv):
    """torch.nn.Conv2d with a kernel of 3, a padding of 1 and another padding mode than zeros: the padded input is a new tensor."""

    def __init__(self, inputs: int, outputs: int, *, mode: str, bias: bool) -> None:
        super().__init__(inputs, outputs, (3, 3), bias=bias)
        self.pad = pad_circular if mode == "circular" else pad_otherwise

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.pad(x))


def conv(inputs: int, outputs: int, *, mode: str = "zeros", bias: bool = True) -> Conv:
    if mode == "zeros":
        return ChannelsLastConv(inputs, outputs, (3, 3), padding=1, bias=bias)
    return PaddedConv(inputs, outputs, mode=mode, bias=bias)


def pad_circular(x: Tensor) -> Tensor:
    """aten/src/ATen/native/PadNd.cpp: _pad_circular_symint, written out as views and assignments of each border."""
    batch, channels, height, width = x.shape
    tall, wide = height + 2, width + 2
    out = x.tape.empty((batch, channels, tall, wide), x.dtype)
    assign(out, x.shape, narrow(narrow(x, *x.shape), *x.shape))
    for border in ((batch, channels, tall, 1), (batch, channels, 1, wide)):
        for _ in range(2):
            assign(out, border, narrow(out, *border))
    return out


def pad_otherwise(x: Tensor) -> Tensor:
    """Reflected or replicated borders: one operator, which keeps x (derivatives.yaml: reflection_pad2d, replication_pad2d)."""
    batch, channels, height, width = x.shape
    return x.tape.compute((x,), _pad_backward, (batch, channels, height + 2, width + 2), x.dtype, saved=(x,))


def _pad_backward(call: Call, grad: Tensor | None) -> Grads:
    assert grad is not None
    return (grad.tape.empty(call.saved[0].shape, grad.dtype),)


class WholeLayerNorm(Module):
    def __init__(self, *shape: int) -> None:
        self.weight, self.bias = Parameter(shape), Parameter(shape)

    def forward(self, x: Tensor) -> Tensor:
        return layer_norm_whole(x, self.weight, self.bias)


class WaveletOperator(Module):
    """grid_operator.py: LPFOperator2d. `first` says that x has its channels first in memory, so that taking it apart copies it."""

    def __init__(self, c: int, k: int) -> None:
        self.c, self.k = c, k

    def restrict(self, x: Tensor, *, first: bool) -> Tensor:
        batch, channels, height, width = x.shape
        shape = (batch, height // 2, width // 2, self.c, 4 * self.k**2)
        x = x.contiguous().view(*shape) if first else x.view(*shape)
        x = matmul(x, self._filter(x, 4 * self.k**2, self.k**2))
        return x.view(batch, channels, height // 2, width // 2)

    def prolongate(self, x: Tensor, *, first: bool) -> Tensor:
        batch, channels, height, width = x.shape
        x = x.view(batch, height, width, self.c, self.k**2)
        x = self._product(x, first=first)
        shape = (batch, channels, height * 2, width * 2)
        return transpose(x, *shape) if first else x.view(*shape)

    def _product(self, x: Tensor, *, first: bool) -> Tensor:
        x = x.contiguous() if first else x
        return matmul(x, self._filter(x, self.k**2, 4 * self.k**2))

    def _filter(self, x: Tensor, *shape: int) -> Tensor:
        """H: an attribute that is neither parameter nor buffer, of a few KiB."""
        return Tensor(x.tape, shape, x.dtype, None)


class GridBlock(Module):
    """With `time_dim`, as in MG-DDPM, what each iteration finds is scaled and shifted by the time."""

    def __init__(
        self, channels: int, iterations: int, *, mode: str = "zeros", bias: bool = True, time_dim: int | None = None
    ) -> None:
        self.S = [conv(channels, channels, mode=mode, bias=bias) for _ in range(iterations)]
        self.time_mlp = [Linear(time_dim, channels * 2)] if time_dim is not None else []

    def forward(self, A: Module, f: Tensor, u: Tensor | None, time: Tensor | None) -> tuple[Tensor, Tensor]:
        for smooth in self.S:
            u = smooth(f) if u is None else u + smooth(f - A(u))
            r = f - A(u)
            if time is not None:
                gamma, beta = chunk(self._modulate(time), 2, -1)
                gamma = gamma.view(*u.shape[:2], 1, 1)
                beta = beta.view(*u.shape[:2], 1, 1)
                u = u * (1 + gamma) + beta
        assert u is not None
        return u, r

    def _modulate(self, time: Tensor) -> Tensor:
        time = silu(time)
        return self.time_mlp[0](time)


class MultiGrid(Module):
    """Inputs of another size than `resolutions`, if any, are brought to it first. The residuals r are kept, but lead nowhere."""

    def __init__(
        self,
        channels: int,
        levels: Sequence[int],
        operator: WaveletOperator,
        *,
        mode: str,
        bias: bool,
        norm: bool,
        resolutions: Sequence[int] | None,
        time_dim: int | None = None,
    ) -> None:
        self.operator = operator
        self.resolution = resolutions[0] if resolutions is not None else None
        self.first = norm or mode != "zeros"
        self.A = conv(channels, channels, mode=mode, bias=bias)
        self.pre_S = GridBlock(channels, 1, mode=mode, bias=bias, time_dim=time_dim)
        self.post_S = GridBlock(channels, 1, mode=mode, bias=bias, time_dim=time_dim)
        self.grid_list = [GridBlock(channels, iterations, time_dim=time_dim) for iterations in levels]
        self.norm_list: list[WholeLayerNorm] = []
        if norm and resolutions is not None:
            height, width = resolutions
            self.norm_list = [WholeLayerNorm(channels, height // 2**i, width // 2**i) for i in range(len(levels))]

    def forward(self, f: Tensor, time: Tensor | None = None) -> Tensor:
        while self.resolution is not None and anywhere(f.shape[2] > self.resolution):
            f = self.operator.restrict(f, first=False)
        while self.resolution is not None and anywhere(f.shape[2] < self.resolution):
            f = self.operator.prolongate(f, first=False)

        u_n, r_n = self.pre_S(self.A, f, None, time)
        u_list, r_list = [u_n], [r_n]

        for i, grid in enumerate(self.grid_list):
            u = self.operator.restrict(u_list[i], first=self.first and i == 0)
            u, r = grid(self.A, u, None, time)
            r_list.append(r)
            u_list.append(u)

        last = len(self.grid_list)
        for i in range(last, 0, -1):
            # out of a normalisation the channels come first
            prolongated = self.operator.prolongate
            if self.norm_list:
                u_list[i - 1] = self.norm_list[i - 1](u_list[i - 1] + prolongated(u_list[i], first=i < last))
            else:
                u_list[i - 1] = u_list[i - 1] + prolongated(u_list[i], first=False)

        u_n = u_list[0]
        u_n, r_n = self.post_S(self.A, f, u_n, time)
        return u_n


class M2NO2d(SuperResolution):
    @staticmethod
    def pixel_step(dims: Mapping[str, Any]) -> int:
        """Each level of the grid halves it. With `norm`, no other size than `resolutions` works at all."""
        return lcm(2 ** len(dims.get("grid_levels", ())), SuperResolution.pixel_step(dims))

    def __init__(self, dims: Mapping[str, Any], checkpointing: Checkpointing, *, extend: bool = True) -> None:
        del checkpointing  # the original never checkpoints
        need(dims, "in_channels", "out_channels", "k", "c", "num_layer", "grid_levels")
        inputs, outputs = dims["in_channels"], dims["out_channels"]
        super().__init__(dims, inputs, outputs)
        c, k = dims["c"], dims["k"]
        hidden, layers = c * k**2, dims["num_layer"]
        self.last = layers - 1
        operator = WaveletOperator(c, k)

        def grid(_: int) -> MultiGrid:
            return MultiGrid(
                hidden,
                dims["grid_levels"],
                operator,
                mode=dims.get("padding_mode", "zeros"),
                bias=dims.get("bias", True),
                norm=dims.get("norm", False),
                resolutions=dims.get("resolutions", [64, 64]),
            )

        self.L_in, self.L_hidden, self.L_out = Linear(inputs, hidden), Linear(hidden, hidden), Linear(hidden, outputs)
        self.conv_list = Blocks(layers, grid, Checkpointing(), lambda i: (i == 0, i == layers - 1), extend=extend)
        self.activate = pick(ACTIVATIONS, dims, "activation", "gelu")

    def forward(self, x: Tensor) -> Tensor:
        u = self.L_in(x)
        u = to_channels_first(u)
        for i, layer in self.conv_list.numbered(x.tape):
            u = layer(u)
            if i != self.last:
                u = self.activate(u)
        u = to_channels_last(u)
        u = self.activate(self.L_hidden(u, transposed=True))
        return self.L_out(u)


NETWORK = M2NO2d
