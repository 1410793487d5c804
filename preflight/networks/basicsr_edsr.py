"""BasicSR's EDSR (basicsr/archs/edsr_arch.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from preflight.networks.basicsr_common import ResidualBlockNoBN, Restoration, Upsample, conv3, split
from preflight.networks.network import constructor_arguments
from preflight.tape.module import Blocks, Checkpointing
from preflight.tape.tensor import Tensor

ARGUMENTS: Mapping[str, Any] = {
    "num_in_ch": ...,
    "num_out_ch": ...,
    "num_feat": 64,
    "num_block": 16,
    "upscale": 4,
    "res_scale": 1,
    "img_range": 255.0,
    "rgb_mean": (0.4488, 0.4371, 0.4040),
}


class EDSR(Restoration):
    def __init__(self, dims: Mapping[str, Any], checkpointing: Checkpointing, *, extend: bool = True) -> None:
        del checkpointing  # the original never checkpoints
        arguments = constructor_arguments(split(dims), ARGUMENTS, "BasicSR's EDSR")
        self.train_with({"scale": arguments["upscale"], **dims})
        self.inputs, self.outputs = arguments["num_in_ch"], arguments["num_out_ch"]
        features = arguments["num_feat"]
        self.conv_first = conv3(self.inputs, features)
        self.body = Blocks(arguments["num_block"], lambda _: ResidualBlockNoBN(features), Checkpointing(), extend=extend)
        self.conv_after_body = conv3(features, features)
        self.upsample = Upsample(arguments["upscale"], features)
        self.conv_last = conv3(features, self.outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = (x + 1.0) * 1.0  # less its mean, times its range
        x = self.conv_first(x)
        res = self._body(x)
        res += x

        x = self.conv_last(self.upsample(res))
        return x / 1.0 + 1.0

    def _body(self, x: Tensor) -> Tensor:
        for block in self.body.walk(x.tape):
            x = block(x)
        return self.conv_after_body(x)


NETWORK = EDSR
