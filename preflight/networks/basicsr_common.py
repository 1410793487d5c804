"""What the networks of BasicSR share: blocks, losses and the step (basicsr/archs/arch_util.py, models/sr_model.py)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from preflight.networks.network import Network, NotModelled, Shape
from preflight.tape.activation import absolute, in_place, root, square
from preflight.tape.loss import squared_error, summed
from preflight.tape.module import Conv, Module
from preflight.tape.shaping import pixel_shuffle, sum_over
from preflight.tape.tensor import Tape, Tensor

Reduction = Callable[[Tensor], Tensor]

#: Keys of `dims` that say how the network is trained, beside the constructor's arguments.
TRAINING: Mapping[str, Any] = {
    "scale": 4,
    "model_type": "SRModel",
    "pixel_opt": "L1Loss",
    "reduction": "mean",
    "perceptual_opt": None,
    "gan_opt": None,
    "ldl_opt": None,
    "network_d": None,
    "queue_size": 0,
    "mirrored": False,
}


def charbonnier_loss(prediction: Tensor, target: Tensor, reduce: Reduction = sum_over) -> Tensor:
    """losses/basic_loss.py: sqrt((prediction - target)**2 + eps)."""
    return reduce(root(square(prediction - target) + 1e-12))


def l1_loss(prediction: Tensor, target: Tensor, reduce: Reduction = sum_over) -> Tensor:
    """losses/basic_loss.py: F.l1_loss of each element."""
    return reduce(absolute(prediction - target))


def mse_loss(prediction: Tensor, target: Tensor, reduce: Reduction = sum_over) -> Tensor:
    """losses/basic_loss.py: F.mse_loss of each element."""
    return reduce(squared_error(prediction, target))


#: losses/loss_util.py: the mean's gradient is spread over a tensor of its own, the sum's is one number seen everywhere.
REDUCTIONS: Mapping[str, Reduction] = {"mean": sum_over, "sum": summed}
LOSSES: Mapping[str, Callable[[Tensor, Tensor, Reduction], Tensor]] = {
    "L1Loss": l1_loss,
    "MSELoss": mse_loss,
    "CharbonnierLoss": charbonnier_loss,
}


def conv3(inputs: int, outputs: int) -> Conv:
    return Conv(inputs, outputs, (3, 3), padding=1)


class ResidualBlockNoBN(Module):
    def __init__(self, features: int) -> None:
        self.conv1, self.conv2 = conv3(features, features), conv3(features, features)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv2(in_place(self.conv1(x)))
        return x + out * 1.0


class Upsample(Module):
    """Doubled as often as the scale says, or tripled."""

    def __init__(self, scale: int, features: int) -> None:
        if scale != 3 and scale & (scale - 1):
            raise NotModelled(f"scale {scale} is neither a power of two nor 3")
        self.factors = [3] if scale == 3 else [2] * (scale.bit_length() - 1)
        self.convs = [conv3(features, factor**2 * features) for factor in self.factors]

    def forward(self, x: Tensor) -> Tensor:
        for module, factor in zip(self.convs, self.factors, strict=True):
            x = module(x)
            x = pixel_shuffle(x, factor)
        return x


class Restoration(Network):
    """A network from (B, C, h, w) to (B, C, h * scale, w * scale), trained by models/sr_model.py: SRModel.

    `shape` is that of the high-resolution target, `datasets.train.gt_size`.
    """

    inputs: int
    outputs: int
    kept: tuple[Tensor, ...] = ()  # attributes of the original's model, which the next step's batch takes the place of

    def train_with(self, dims: Mapping[str, Any]) -> None:
        """Read the keys of TRAINING. Raises NotModelled for what the step does not do."""
        asked = {**TRAINING, **dims}
        self.scale: int = asked["scale"]
        self.mirrored: bool = asked["mirrored"]
        if asked["pixel_opt"] not in LOSSES:
            raise NotModelled(f"the pixel loss {asked['pixel_opt']!r} is not modelled, only {', '.join(LOSSES)}")
        if asked["reduction"] not in REDUCTIONS:
            raise NotModelled(f"the reduction {asked['reduction']!r} of the pixel loss is not modelled, only mean and sum")
        loss, reduce = LOSSES[asked["pixel_opt"]], REDUCTIONS[asked["reduction"]]
        self.pixel_loss: Callable[[Tensor, Tensor], Tensor] = lambda output, target: loss(output, target, reduce)

    @staticmethod
    def pixel_step(dims: Mapping[str, Any]) -> int:
        """The target is `scale` times the input."""
        return int(dims.get("scale", 4))

    def loss(self, tape: Tape, shape: Shape, dtype: str) -> Tensor:
        low = (shape.batch, self.inputs, shape.height // self.scale, shape.width // self.scale)
        high = (shape.batch, self.outputs, shape.height, shape.width)
        self.kept = ()
        lq, gt = tape.empty(low, dtype), tape.empty(high, dtype)
        previous = tape.empty(high, dtype)  # self.output, until this step's takes its place
        output = self(lq)
        del previous
        self.kept = (lq, gt, output.detach())
        return self.pixel_loss(output, gt)


def split(dims: Mapping[str, Any]) -> dict[str, Any]:
    """The constructor's own arguments among `dims`."""
    return {name: value for name, value in dims.items() if name not in TRAINING}
