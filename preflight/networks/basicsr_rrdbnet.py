"""BasicSR's RRDBNet, the generator of ESRGAN and Real-ESRGAN (basicsr/archs/rrdbnet_arch.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from preflight.networks.basicsr_common import conv3, split
from preflight.networks.basicsr_gan import Adversarial
from preflight.networks.network import check_modelled, constructor_arguments
from preflight.tape.activation import in_place
from preflight.tape.module import Blocks, Checkpointing, Module
from preflight.tape.shaping import cat, upsample_nearest
from preflight.tape.tensor import Tensor

# `scale` is written there by nobody: options.py leaves network_g alone, so it is 4 unless network_g itself says otherwise
ARGUMENTS: Mapping[str, Any] = {
    "num_in_ch": ...,
    "num_out_ch": ...,
    "unshuffled": 4,
    "num_feat": 64,
    "num_block": 23,
    "num_grow_ch": 32,
}


class ResidualDenseBlock(Module):
    def __init__(self, features: int, growth: int) -> None:
        self.conv1 = conv3(features, growth)
        self.conv2 = conv3(features + growth, growth)
        self.conv3 = conv3(features + 2 * growth, growth)
        self.conv4 = conv3(features + 3 * growth, growth)
        self.conv5 = conv3(features + 4 * growth, features)

    def forward(self, x: Tensor) -> Tensor:
        x1 = in_place(self.conv1(x))
        x2 = in_place(self.conv2(cat((x, x1), 1)))
        x3 = in_place(self.conv3(cat((x, x1, x2), 1)))
        x4 = in_place(self.conv4(cat((x, x1, x2, x3), 1)))
        x5 = self.conv5(cat((x, x1, x2, x3, x4), 1))
        return x5 * 0.2 + x


class RRDB(Module):
    def __init__(self, features: int, growth: int) -> None:
        self.rdb1 = ResidualDenseBlock(features, growth)
        self.rdb2 = ResidualDenseBlock(features, growth)
        self.rdb3 = ResidualDenseBlock(features, growth)

    def forward(self, x: Tensor) -> Tensor:
        out = self.rdb1(x)
        out = self.rdb2(out)
        out = self.rdb3(out)
        return out * 0.2 + x


class RRDBNet(Adversarial):
    """`unshuffled` is the constructor's `scale`: with 2 and 1 the input is first folded by 2 and 4."""

    def __init__(self, dims: Mapping[str, Any], checkpointing: Checkpointing, *, extend: bool = True) -> None:
        del checkpointing  # the original never checkpoints
        arguments = constructor_arguments(split(dims), ARGUMENTS, "BasicSR's RRDBNet")
        check_modelled(arguments, {"unshuffled": (1, 2, 4)}, "BasicSR's RRDBNet")
        self.train_with(dims)
        self.inputs, self.outputs = arguments["num_in_ch"], arguments["num_out_ch"]
        features, growth = arguments["num_feat"], arguments["num_grow_ch"]
        self.fold = {4: 1, 2: 2, 1: 4}[arguments["unshuffled"]]
        self.conv_first = conv3(self.inputs * self.fold**2, features)
        extend = extend and not self.keeps_graphs
        self.body = Blocks(arguments["num_block"], lambda _: RRDB(features, growth), Checkpointing(), extend=extend)
        self.conv_body = conv3(features, features)
        self.conv_up1, self.conv_up2 = conv3(features, features), conv3(features, features)
        self.conv_hr, self.conv_last = conv3(features, features), conv3(features, self.outputs)

    def forward(self, x: Tensor) -> Tensor:
        feat = x
        if self.fold > 1:  # pixel_unshuffle
            batch, channels, height, width = x.shape
            feat = x.contiguous().view(batch, channels * self.fold**2, height // self.fold, width // self.fold)
        feat = self.conv_first(feat)
        body_feat = self._body(feat)
        feat = feat + body_feat
        feat = in_place(self.conv_up1(upsample_nearest(feat, 2)))
        feat = in_place(self.conv_up2(upsample_nearest(feat, 2)))
        return self.conv_last(in_place(self.conv_hr(feat)))

    def _body(self, x: Tensor) -> Tensor:
        for block in self.body.walk(x.tape):
            x = block(x)
        return self.conv_body(x)


NETWORK = RRDBNet
