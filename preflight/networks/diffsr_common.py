"""What the super-resolution networks of DiffSR share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from preflight.networks.network import Network, NotModelled, Shape
from preflight.tape import linear as ops
from preflight.tape.fourier import alias
from preflight.tape.loss import relative_lp_loss
from preflight.tape.meter import Size
from preflight.tape.module import Conv, Module
from preflight.tape.normalization import batch_norm
from preflight.tape.shaping import narrow, pad
from preflight.tape.tensor import Buffer, Parameter, Tape, Tensor


class SuperResolution(Network):
    """A network from (B, h, w, inputs) to (B, H, W, outputs), h and w being H and W divided by `sample_factor`.

    The step is that of trainers/base.py and the loss that of utils/loss.py: `LpLoss(size_average=False)`.
    """

    def __init__(self, dims: Mapping[str, Any], inputs: int, outputs: int) -> None:
        self.factor: Size = dims.get("sample_factor", 1)
        self.inputs, self.outputs = inputs, outputs

    @staticmethod
    def pixel_step(dims: Mapping[str, Any]) -> int:
        """The high-resolution grid is `sample_factor` times the input's."""
        return int(dims.get("sample_factor", 1))

    def loss(self, tape: Tape, shape: Shape, dtype: str) -> Tensor:
        height, width = shape.height // self.factor, shape.width // self.factor
        x = tape.empty((shape.batch, height, width, self.inputs), dtype)
        y = tape.empty((shape.batch, shape.height, shape.width, self.outputs), dtype)
        prediction = self(x)
        return relative_lp_loss(prediction, y)


class ChannelsLastConv(Conv):
    """A convolution of a tensor whose channels lie last in memory, as `x.permute(0, 3, 1, 2)` leaves them.

    Its weight's gradient comes out with the channels last too, and the parameter takes a copy in its own order.
    """

    def forward(self, x: Tensor) -> Tensor:
        return ops.conv(x, alias(self.weight), self.bias, stride=self.stride, padding=self.padding)


class BatchNorm(Module):
    """torch.nn.BatchNorm2d in training: its running averages are updated in place."""

    def __init__(self, width: int) -> None:
        self.weight, self.bias = Parameter((width,)), Parameter((width,))
        self.running_mean, self.running_var = Buffer((width,)), Buffer((width,))
        self.num_batches_tracked = Buffer((), "int64")

    def forward(self, x: Tensor) -> Tensor:
        return batch_norm(x, self.weight, self.bias)


def need(dims: Mapping[str, Any], *names: str) -> None:
    """Raise NotModelled for the first of `names` that the config leaves out, where the original has no default."""
    for name in names:
        if name not in dims:
            raise NotModelled(f"the network needs the key {name!r}")


def pick(table: Mapping[str, Any], dims: Mapping[str, Any], name: str, default: str) -> Any:
    """The entry that `dims` names under `name`; raises NotModelled for one that the original does not know."""
    value = dims.get(name, default)
    if value not in table:
        raise NotModelled(f"{name} {value!r} is not one of {', '.join(table)}")
    return table[value]


def to_channels_first(x: Tensor) -> Tensor:
    """(B, h, w, C) as (B, C, h, w): `x.permute(0, 3, 1, 2)`, a view."""
    batch, height, width, channels = x.shape
    return x.view(batch, channels, height, width)


def to_channels_last(x: Tensor) -> Tensor:
    """(B, C, h, w) as (B, h, w, C): `x.permute(0, 2, 3, 1)`, a view."""
    batch, channels, height, width = x.shape
    return x.view(batch, height, width, channels)


def interpolate(x: Tensor, height: Size, width: Size) -> Tensor:
    """x (B, C, h, w) at another size, bilinear or nearest; nothing is kept."""
    return pad(x, *x.shape[:2], height, width)


def corner(x_ft: Tensor, height: Size, width: Size) -> Tensor:
    """`x_ft[:, :, :height, :width]`: two views, one dimension each."""
    batch, channels, _, whole = x_ft.shape
    return narrow(narrow(x_ft, batch, channels, height, whole), batch, channels, height, width)


def anywhere(condition: Any) -> bool:
    """Whether a comparison of sizes holds, for arrays anywhere."""
    return bool(condition.any()) if hasattr(condition, "any") else bool(condition)
