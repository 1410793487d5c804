"""BasicSR's BasicVSR (basicsr/archs/basicvsr_arch.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from preflight.networks.basicsr_common import split
from preflight.networks.basicsr_spynet import SpyNet, channels_last, flow_warp
from preflight.networks.basicsr_video import ConvResidualBlocks, Reconstruction, VideoRestoration, enlarged, frame, together
from preflight.networks.network import constructor_arguments
from preflight.tape.activation import in_place
from preflight.tape.module import Checkpointing, Conv
from preflight.tape.shaping import cat
from preflight.tape.tensor import Tensor

ARGUMENTS: Mapping[str, Any] = {"num_feat": 64, "num_block": 15, "spynet_path": None}


class BasicVSR(VideoRestoration):
    """Features go from the last frame to the first, then from the first to the last, moved along the flow each time."""

    def __init__(self, dims: Mapping[str, Any], checkpointing: Checkpointing, *, extend: bool = True) -> None:
        del checkpointing  # the original never checkpoints
        arguments = constructor_arguments(split(dims), ARGUMENTS, "BasicSR's BasicVSR")
        self.train_with(dims)
        self.num_feat, blocks = arguments["num_feat"], arguments["num_block"]
        self.spynet = SpyNet()
        self.backward_trunk = ConvResidualBlocks(self.num_feat + 3, self.num_feat, blocks, extend=extend)
        self.forward_trunk = ConvResidualBlocks(self.num_feat + 3, self.num_feat, blocks, extend=extend)
        self.fusion = Conv(self.num_feat * 2, self.num_feat, (1, 1))
        self.reconstruction = Reconstruction(self.num_feat)

    def get_flow(self, x: Tensor) -> tuple[Tensor, Tensor]:
        batch, frames, _, height, width = x.shape
        x_1 = together(x, frames - 1)
        x_2 = together(x, frames - 1)
        flows_backward = self.spynet(x_1, x_2).view(batch, frames - 1, 2, height, width)
        flows_forward = self.spynet(x_2, x_1).view(batch, frames - 1, 2, height, width)
        return flows_forward, flows_backward

    def forward(self, x: Tensor) -> Tensor:
        flows_forward, flows_backward = self.get_flow(x)
        batch, frames, _, height, width = x.shape

        out_l: list[Tensor] = []
        feat_prop = x.tape.empty((batch, self.num_feat, height, width), x.dtype)
        for i in reversed(range(frames)):
            x_i = frame(x)
            if i < frames - 1:
                flow = frame(flows_backward)
                feat_prop = flow_warp(feat_prop, channels_last(flow))
            feat_prop = cat([x_i, feat_prop], 1)
            feat_prop = self.backward_trunk(feat_prop)
            out_l.insert(0, feat_prop)

        feat_prop = x.tape.empty(feat_prop.shape, x.dtype)
        for i in range(frames):
            x_i = frame(x)
            if i > 0:
                flow = frame(flows_forward)
                feat_prop = flow_warp(feat_prop, channels_last(flow))
            feat_prop = cat([x_i, feat_prop], 1)
            feat_prop = self.forward_trunk(feat_prop)

            out = cat([out_l[i], feat_prop], 1)
            out = in_place(self.fusion(out))
            out = self.reconstruction(out)
            base = enlarged(x_i)
            out += base
            out_l[i] = out
        return cat(out_l, 1).view(batch, frames, 3, height * 4, width * 4)


NETWORK = BasicVSR
