"""BasicSR's BasicVSR++ (basicsr/archs/basicvsrpp_arch.py)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from preflight.networks.basicsr_common import conv3, split
from preflight.networks.basicsr_spynet import SpyNet, channels_last, flow_warp
from preflight.networks.basicsr_video import (
    ConvResidualBlocks,
    Reconstruction,
    VideoRestoration,
    enlarged,
    flattened,
    frame,
    halves,
    together,
)
from preflight.networks.diffsr_common import interpolate
from preflight.networks.network import NotModelled, constructor_arguments
from preflight.tape.activation import in_place, sigmoid, tanh
from preflight.tape.deformable import deform_conv
from preflight.tape.module import Checkpointing, Module
from preflight.tape.shaping import cat, chunk, roll, sum_over
from preflight.tape.tensor import Parameter, Tensor

GROUPS = 16
BRANCHES = ("backward_1", "forward_1", "backward_2", "forward_2")
ARGUMENTS: Mapping[str, Any] = {
    "mid_channels": 64,
    "num_blocks": 7,
    "max_residue_magnitude": 10,
    "is_low_res_input": True,
    "spynet_path": None,
    "cpu_cache_length": 100,
}


class SecondOrderDeformableAlignment(Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        self.weight, self.bias = Parameter((outputs, inputs, 3, 3)), Parameter((outputs,))
        widths = (3 * outputs + 4, outputs, outputs, outputs, 27 * GROUPS)
        self.conv_offset = [conv3(before, after) for before, after in pairwise(widths)]

    def forward(self, x: Tensor, extra_feat: Tensor, flow_1: Tensor, flow_2: Tensor) -> Tensor:
        extra_feat = cat([extra_feat, flow_1, flow_2], 1)
        out = self._offsets(extra_feat)
        o1, o2, mask = chunk(out, 3, 1)

        offset = tanh(cat((o1, o2), 1)) * 10.0
        offset_1, offset_2 = chunk(offset, 2, 1)
        offset_1 = offset_1 + _repeated(flow_1, offset_1)
        offset_2 = offset_2 + _repeated(flow_2, offset_2)
        offset = cat([offset_1, offset_2], 1)

        mask = sigmoid(mask)
        return deform_conv(x, offset, self.weight, self.bias, mask)

    def _offsets(self, x: Tensor) -> Tensor:
        for conv in self.conv_offset[:-1]:
            x = conv(x)
            x = in_place(x)
        return self.conv_offset[-1](x)


def _repeated(flow: Tensor, like: Tensor) -> Tensor:
    """`flow.flip(1).repeat(1, n, 1, 1)`, whose gradient is summed over the copies."""
    return sum_over(roll(flow), *like.shape)


class BasicVSRPlusPlus(VideoRestoration):
    """Two rounds of features there and back, each aligned to the two frames before by a deformable convolution.

    `mirrored`: the clips are followed by themselves reversed (`flip_sequence`), which the network notices.
    """

    def __init__(self, dims: Mapping[str, Any], checkpointing: Checkpointing, *, extend: bool = True) -> None:
        del checkpointing  # the original never checkpoints
        arguments = constructor_arguments(split(dims), ARGUMENTS, "BasicSR's BasicVSRPlusPlus")
        self.is_low_res_input = arguments["is_low_res_input"]
        self.train_with({"scale": 4 if self.is_low_res_input else 1, **dims})
        self.longest = arguments["cpu_cache_length"]
        mid, blocks = arguments["mid_channels"], arguments["num_blocks"]
        self.mid_channels = mid
        self.spynet = SpyNet()
        self.shrink = [] if self.is_low_res_input else [halves(3, mid), halves(mid, mid)]
        self.feat_extract = ConvResidualBlocks(3 if self.is_low_res_input else mid, mid, 5, extend=extend)
        self.deform_align = [SecondOrderDeformableAlignment(2 * mid, mid) for _ in BRANCHES]
        self.backbone = [ConvResidualBlocks((2 + i) * mid, mid, blocks, extend=extend) for i in range(len(BRANCHES))]
        self.reconstruction_trunk = ConvResidualBlocks(5 * mid, mid, 5, extend=extend)
        self.reconstruction = Reconstruction(mid)

    def forward(self, lqs: Tensor) -> Tensor:
        batch, frames, channels, height, width = lqs.shape
        if frames > self.longest:
            raise NotModelled(f"clips of more than {self.longest} frames, whose features wait on the host, are not modelled")
        if self.is_low_res_input:
            lqs_downsample = lqs.contiguous()
        else:
            small = interpolate(flattened(lqs), height // 4, width // 4)
            lqs_downsample = small.view(batch, frames, channels, height // 4, width // 4)
        self._check_if_mirror_extended(lqs)

        features = self._extracted(flattened(lqs))
        features = features.view(batch, frames, *features.shape[1:])
        spatial = [frame(features) for _ in range(frames)]
        flows_forward, flows_backward = self.compute_flow(lqs_downsample)

        branches: dict[str, list[Tensor]] = {}
        for number, branch in enumerate(BRANCHES):
            branches[branch] = []
            flows = flows_backward if branch.startswith("backward") else flows_forward
            self.propagate(spatial, branches, flows, number)
        return self.upsample(lqs, spatial, branches)

    def _extracted(self, x: Tensor) -> Tensor:
        for conv in self.shrink:
            x = conv(x)
            x = in_place(x)
        return self.feat_extract(x)

    def _check_if_mirror_extended(self, lqs: Tensor) -> None:
        if lqs.shape[1] % 2 == 0:
            lqs_1, lqs_2 = chunk(lqs, 2, 1)
            sum_over(lqs_1 - roll(lqs_2))

    def compute_flow(self, lqs: Tensor) -> tuple[Tensor, Tensor]:
        batch, frames, _, height, width = lqs.shape
        lqs_1 = together(lqs, frames - 1)
        lqs_2 = together(lqs, frames - 1)
        flows_backward = self.spynet(lqs_1, lqs_2).view(batch, frames - 1, 2, height, width)
        if self.mirrored:
            return roll(flows_backward), flows_backward
        flows_forward = self.spynet(lqs_2, lqs_1).view(batch, frames - 1, 2, height, width)
        return flows_forward, flows_backward

    def propagate(self, spatial: list[Tensor], branches: dict[str, list[Tensor]], flows: Tensor, number: int) -> None:
        branch = BRANCHES[number]
        done = branches[branch]
        batch, _, _, height, width = flows.shape
        order = list(range(len(spatial)))
        if branch.startswith("backward"):
            order.reverse()

        feat_prop = flows.tape.empty((batch, self.mid_channels, height, width), flows.dtype)
        for i, idx in enumerate(order):
            feat_current = spatial[idx]
            if i > 0:
                flow_n1 = frame(flows)
                cond_n1 = flow_warp(feat_prop, channels_last(flow_n1))
                feat_n2 = _zeros_like(feat_prop)
                flow_n2 = _zeros_like(flow_n1)
                cond_n2 = _zeros_like(cond_n1)
                if i > 1:
                    feat_n2 = done[-2]
                    flow_n2 = frame(flows)
                    flow_n2 = flow_n1 + flow_warp(flow_n2, channels_last(flow_n1))
                    cond_n2 = flow_warp(feat_n2, channels_last(flow_n2))
                cond = cat([cond_n1, feat_current, cond_n2], 1)
                feat_prop = cat([feat_prop, feat_n2], 1)
                feat_prop = self.deform_align[number](feat_prop, cond, flow_n1, flow_n2)

            others = [branches[name][idx] for name in branches if name != branch]
            feat = cat([feat_current, *others, feat_prop], 1)
            feat_prop = feat_prop + self.backbone[number](feat)
            done.append(feat_prop)
        if branch.startswith("backward"):
            done.reverse()

    def upsample(self, lqs: Tensor, spatial: list[Tensor], branches: dict[str, list[Tensor]]) -> Tensor:
        batch, frames, channels, height, width = lqs.shape
        outputs = []
        for i in range(frames):
            hr = cat([spatial[i], *(branches[name].pop(0) for name in branches)], 1)
            hr = self.reconstruction_trunk(hr)
            hr = self.reconstruction(hr)
            hr += enlarged(frame(lqs)) if self.is_low_res_input else frame(lqs)
            outputs.append(hr)
        size = (height * self.scale, width * self.scale)
        return cat(outputs, 1).view(batch, frames, channels, *size)


def _zeros_like(x: Tensor) -> Tensor:
    return x.tape.empty(x.shape, x.dtype)


NETWORK = BasicVSRPlusPlus
