"""BasicSR's MSRResNet (basicsr/archs/srresnet_arch.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from preflight.networks.basicsr_common import ResidualBlockNoBN, Restoration, conv3, split
from preflight.networks.diffsr_common import interpolate
from preflight.networks.network import check_modelled, constructor_arguments
from preflight.tape.activation import in_place
from preflight.tape.module import Blocks, Checkpointing
from preflight.tape.shaping import pixel_shuffle
from preflight.tape.tensor import Tensor

ARGUMENTS: Mapping[str, Any] = {"num_in_ch": 3, "num_out_ch": 3, "num_feat": 64, "num_block": 16, "upscale": 4}


class MSRResNet(Restoration):
    def __init__(self, dims: Mapping[str, Any], checkpointing: Checkpointing, *, extend: bool = True) -> None:
        del checkpointing  # the original never checkpoints
        arguments = constructor_arguments(split(dims), ARGUMENTS, "BasicSR's MSRResNet")
        check_modelled(arguments, {"upscale": (2, 3, 4)}, "BasicSR's MSRResNet")
        self.train_with({"scale": arguments["upscale"], **dims})
        self.inputs, self.outputs, features = arguments["num_in_ch"], arguments["num_out_ch"], arguments["num_feat"]
        self.conv_first = conv3(self.inputs, features)
        self.body = Blocks(arguments["num_block"], lambda _: ResidualBlockNoBN(features), Checkpointing(), extend=extend)
        self.factors = [2, 2] if arguments["upscale"] == 4 else [arguments["upscale"]]
        self.upconvs = [conv3(features, features * factor**2) for factor in self.factors]
        self.conv_hr, self.conv_last = conv3(features, features), conv3(features, self.outputs)

    def forward(self, x: Tensor) -> Tensor:
        feat = in_place(self.conv_first(x))
        out = self._body(feat)
        for upconv, factor in zip(self.upconvs, self.factors, strict=True):
            out = in_place(pixel_shuffle(upconv(out), factor))
        out = self.conv_last(in_place(self.conv_hr(out)))
        base = interpolate(x, x.shape[2] * self.scale, x.shape[3] * self.scale)
        out += base
        return out

    def _body(self, x: Tensor) -> Tensor:
        for block in self.body.walk(x.tape):
            x = block(x)
        return x


NETWORK = MSRResNet
