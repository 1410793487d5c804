"""DiffSR's EDSR_net (models/EDSR/EDSR.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from preflight.networks.diffsr_common import ChannelsLastConv, SuperResolution, to_channels_first, to_channels_last
from preflight.networks.network import NotModelled
from preflight.tape.activation import in_place
from preflight.tape.module import Blocks, Checkpointing, Conv, Module
from preflight.tape.shaping import pixel_shuffle
from preflight.tape.tensor import Tensor


class ResBlock(Module):
    def __init__(self, features: int) -> None:
        self.body = [conv(features, features), conv(features, features)]

    def forward(self, x: Tensor) -> Tensor:
        res = self._body(x) * 0.1
        res += x
        return res

    def _body(self, x: Tensor) -> Tensor:
        x = self.body[0](x)
        x = in_place(x)
        return self.body[1](x)


class Upsampler(Module):
    """Doubled as often as the scale says, or tripled."""

    def __init__(self, scale: int, features: int) -> None:
        if scale != 3 and scale & (scale - 1):
            raise NotModelled(f"upscale_factor {scale} is neither a power of two nor 3")
        self.factors = [3] if scale == 3 else [2] * (scale.bit_length() - 1)
        self.convs = [conv(features, factor**2 * features) for factor in self.factors]

    def forward(self, x: Tensor) -> Tensor:
        for module, factor in zip(self.convs, self.factors, strict=True):
            x = module(x)
            x = pixel_shuffle(x, factor)
        return x


class EDSR(SuperResolution):
    def __init__(self, dims: Mapping[str, Any], checkpointing: Checkpointing, *, extend: bool = True) -> None:
        del checkpointing  # the original never checkpoints
        inputs = dims.get("in_channels", 1)
        outputs = dims.get("out_channels", 1)
        outputs = inputs if outputs is None else outputs
        super().__init__(dims, inputs, outputs)
        features = dims.get("n_feats", 64)
        self.head = [Conv(inputs, features, (3, 3), padding=1) if inputs == 1 else conv(inputs, features)]
        self.body = Blocks(dims.get("n_res_blocks", 16), lambda _: ResBlock(features), Checkpointing(), extend=extend)
        self.body_end = conv(features, features)
        self.tail = [Upsampler(dims.get("upscale_factor", 4), features), conv(features, outputs)]

    def forward(self, x: Tensor) -> Tensor:
        x = to_channels_first(x)
        x = self.head[0](x)

        res = self._body(x)
        res += x

        x = self._tail(res)
        return to_channels_last(x)

    def _body(self, x: Tensor) -> Tensor:
        for block in self.body.walk(x.tape):
            x = block(x)
        return self.body_end(x)

    def _tail(self, x: Tensor) -> Tensor:
        for module in self.tail:
            x = module(x)
        return x


def conv(inputs: int, outputs: int) -> Conv:
    """EDSR.py: default_conv with a kernel of 3."""
    return ChannelsLastConv(inputs, outputs, (3, 3), padding=1)


NETWORK = EDSR
