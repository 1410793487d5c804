"""BasicSR's discriminators (basicsr/archs/discriminator_arch.py)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from preflight.networks.basicsr_common import conv3
from preflight.networks.diffsr_common import BatchNorm, interpolate
from preflight.networks.network import NotModelled, check_modelled, constructor_arguments
from preflight.tape import linear as ops
from preflight.tape.activation import in_place
from preflight.tape.module import Conv, Linear, Module
from preflight.tape.tensor import Buffer, Call, Grads, Tensor


class VGGStyleDiscriminator(Module):
    """For images of 128 or 256 pixels a side."""

    ARGUMENTS: Mapping[str, Any] = {"num_in_ch": ..., "num_feat": ..., "input_size": 128}

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        check_modelled(arguments, {"input_size": (128, 256)}, "VGGStyleDiscriminator")
        features = arguments["num_feat"]
        self.conv0_0 = conv3(arguments["num_in_ch"], features)
        self.conv0_1, self.bn0_1 = halving(features, features), BatchNorm(features)
        self.levels: list[Module] = []
        widths = [1, 2, 4, 8, 8, 8] if arguments["input_size"] == 256 else [1, 2, 4, 8, 8]
        for before, after in pairwise(widths):
            self.levels.append(Level(features * before, features * after))
        self.linear1, self.linear2 = Linear(features * 8 * 4 * 4, 100), Linear(100, 1)

    def forward(self, x: Tensor) -> Tensor:
        feat = in_place(self.conv0_0(x))
        feat = in_place(self.bn0_1(self.conv0_1(feat)))
        for level in self.levels:
            feat = level(feat)
        feat = feat.view(feat.shape[0], self.linear1.weight.shape[1])
        feat = in_place(self.linear1(feat))
        return self.linear2(feat)


class Level(Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        self.conv_0, self.bn_0 = Conv(inputs, outputs, (3, 3), padding=1, bias=False), BatchNorm(outputs)
        self.conv_1, self.bn_1 = halving(outputs, outputs), BatchNorm(outputs)

    def forward(self, feat: Tensor) -> Tensor:
        feat = in_place(self.bn_0(self.conv_0(feat)))
        return in_place(self.bn_1(self.conv_1(feat)))


class SpectralConv(Conv):
    """torch.nn.utils.spectral_norm around a convolution: a weight made anew at each call (nn/utils/spectral_norm.py)."""

    def __init__(self, inputs: int, outputs: int, *, halves: bool = False) -> None:
        side, stride = (4, 2) if halves else (3, 1)
        super().__init__(inputs, outputs, (side, side), stride=stride, padding=1, bias=False)
        self.weight_u, self.weight_v = Buffer((outputs,)), Buffer((inputs * side**2,))
        self.made: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        weight, tape = self.weight, x.tape
        u, v = tape.empty(self.weight_u.shape, "fp32"), tape.empty(self.weight_v.shape, "fp32")  # clones for the gradient
        sigma = tape.compute((weight,), _sigma_backward, (), weight.dtype, saved=(u, v), context=weight.shape)
        divided = (weight if sigma.requires_grad else None, sigma)
        self.made = tape.compute((weight, sigma), _divided_backward, weight.shape, weight.dtype, saved=divided)
        return ops.conv(x, self.made, None, stride=self.stride, padding=self.padding)


def _sigma_backward(call: Call, grad: Tensor | None) -> Grads:
    assert grad is not None
    return (grad.tape.empty(call.context, grad.dtype),)  # of torch.mv: the outer product


def _divided_backward(_: Call, grad: Tensor | None) -> Grads:
    assert grad is not None
    into = grad.tape.empty(grad.shape, grad.dtype)
    first = grad.tape.empty(grad.shape, grad.dtype)
    second = grad.tape.empty(grad.shape, grad.dtype)
    del first, second
    return (into, grad.tape.empty((), grad.dtype))


class UNetDiscriminatorSN(Module):
    ARGUMENTS: Mapping[str, Any] = {"num_in_ch": ..., "num_feat": 64, "skip_connection": True}

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        features = arguments["num_feat"]
        self.skip_connection = arguments["skip_connection"]
        self.conv0 = conv3(arguments["num_in_ch"], features)
        self.conv1 = SpectralConv(features, features * 2, halves=True)
        self.conv2 = SpectralConv(features * 2, features * 4, halves=True)
        self.conv3 = SpectralConv(features * 4, features * 8, halves=True)
        self.conv4 = SpectralConv(features * 8, features * 4)
        self.conv5 = SpectralConv(features * 4, features * 2)
        self.conv6 = SpectralConv(features * 2, features)
        self.conv7, self.conv8 = SpectralConv(features, features), SpectralConv(features, features)
        self.conv9 = conv3(features, 1)

    def forward(self, x: Tensor) -> Tensor:
        x0 = in_place(self.conv0(x))
        x1 = in_place(self.conv1(x0))
        x2 = in_place(self.conv2(x1))
        x3 = in_place(self.conv3(x2))

        x3 = doubled(x3)
        x4 = in_place(self.conv4(x3))
        if self.skip_connection:
            x4 = x4 + x2
        x4 = doubled(x4)
        x5 = in_place(self.conv5(x4))
        if self.skip_connection:
            x5 = x5 + x1
        x5 = doubled(x5)
        x6 = in_place(self.conv6(x5))
        if self.skip_connection:
            x6 = x6 + x0

        out = in_place(self.conv7(x6))
        out = in_place(self.conv8(out))
        return self.conv9(out)


def halving(inputs: int, outputs: int) -> Conv:
    return Conv(inputs, outputs, (4, 4), stride=2, padding=1, bias=False)


def doubled(x: Tensor) -> Tensor:
    return interpolate(x, x.shape[2] * 2, x.shape[3] * 2)


KINDS = {"VGGStyleDiscriminator": VGGStyleDiscriminator, "UNetDiscriminatorSN": UNetDiscriminatorSN}


def discriminator(settings: Mapping[str, Any]) -> Module:
    """The network that `network_d` describes. Raises NotModelled for a type or an argument that is not."""
    kind = settings.get("type")
    if kind not in KINDS:
        raise NotModelled(f"the discriminator {kind!r} is not modelled, only {', '.join(KINDS)}")
    made: Any = KINDS[kind]
    given = {name: value for name, value in settings.items() if name != "type"}
    return made(constructor_arguments(given, made.ARGUMENTS, f"BasicSR's {kind}"))
