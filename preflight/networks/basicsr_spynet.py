"""BasicSR's SPyNet, which estimates the motion between two frames (basicsr/archs/spynet_arch.py, arch_util.py)."""

from __future__ import annotations

from itertools import pairwise

from preflight.networks.diffsr_common import interpolate
from preflight.tape.activation import relu
from preflight.tape.inplace import scale
from preflight.tape.meter import Size
from preflight.tape.module import Conv, Module
from preflight.tape.sampling import grid_sample
from preflight.tape.shaping import assign, avg_pool, cat, narrow, stack
from preflight.tape.tensor import Buffer, Tensor

LEVELS = 6


def flow_warp(x: Tensor, flow: Tensor) -> Tensor:
    """x (B, C, h, w) moved by flow (B, h, w, 2)."""
    batch, height, width, _ = flow.shape
    grid_y, grid_x = x.tape.empty((height, 1), x.dtype).view(height, width), x.tape.empty((1, width), x.dtype).view(height, width)
    grid = stack([grid_x, grid_y]).float()

    vgrid = flow + grid
    vgrid_x = _scaled(vgrid, batch, height, width)
    vgrid_y = _scaled(vgrid, batch, height, width)
    vgrid_scaled = stack([vgrid_x, vgrid_y])
    return grid_sample(x, vgrid_scaled)


def _scaled(vgrid: Tensor, *shape: Size) -> Tensor:
    """2.0 * vgrid[:, :, :, 0] / max(w - 1, 1) - 1.0."""
    return narrow(vgrid, *shape) * 2.0 / 1.0 + 1.0


def channels_last(flow: Tensor) -> Tensor:
    """`flow.permute(0, 2, 3, 1)`: a view."""
    batch, channels, height, width = flow.shape
    return flow.view(batch, height, width, channels)


class BasicModule(Module):
    def __init__(self) -> None:
        widths = (8, 32, 64, 32, 16, 2)
        self.basic_module = [Conv(inputs, outputs, (7, 7), padding=3) for inputs, outputs in pairwise(widths)]

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.basic_module[:-1]:
            x = conv(x)
            x = relu(x)
        return self.basic_module[-1](x)


class SpyNet(Module):
    def __init__(self) -> None:
        self.basic_module = [BasicModule() for _ in range(LEVELS)]
        self.mean, self.std = Buffer((1, 3, 1, 1)), Buffer((1, 3, 1, 1))

    def forward(self, ref: Tensor, supp: Tensor) -> Tensor:
        height, width = ref.shape[2:]
        tall, wide = -(-height // 32) * 32, -(-width // 32) * 32
        ref = interpolate(ref, tall, wide)
        supp = interpolate(supp, tall, wide)
        flow = interpolate(self.process(ref, supp), height, width)
        for _ in range(2):  # flow[:, 0, :, :] *= w / w_floor, and the same for the height
            part = (flow.shape[0], height, width)
            scale(flow, part)
            assign(flow, part, narrow(flow, *part))
        return flow

    def preprocess(self, x: Tensor) -> Tensor:
        return (x - self.mean) / 1.0

    def process(self, ref: Tensor, supp: Tensor) -> Tensor:
        refs, supps = [self.preprocess(ref)], [self.preprocess(supp)]
        for _ in range(LEVELS - 1):
            refs.insert(0, avg_pool(refs[0], 2))
            supps.insert(0, avg_pool(supps[0], 2))
        first = refs[0]
        batch, _, height, width = first.shape
        flow = first.tape.empty((batch, 2, height // 2, width // 2), first.dtype)
        for module, one, other in zip(self.basic_module, refs, supps, strict=True):
            # where the first level's size is odd, the flow is filled up to it
            upsampled_flow = interpolate(flow, *one.shape[2:]) * 2.0
            flow = module(cat([one, flow_warp(other, channels_last(upsampled_flow)), upsampled_flow], 1)) + upsampled_flow
        return flow
