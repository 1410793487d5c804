"""What BasicSR's networks for videos share (models/video_recurrent_model.py, edvr_model.py, archs/basicvsr_arch.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from preflight.networks.basicsr_common import ResidualBlockNoBN, Restoration, conv3
from preflight.networks.diffsr_common import interpolate
from preflight.networks.network import NotModelled, Shape
from preflight.tape.activation import in_place
from preflight.tape.meter import Size
from preflight.tape.module import Blocks, Checkpointing, Conv, Module
from preflight.tape.shaping import narrow, pixel_shuffle
from preflight.tape.slicing import adjacent, slice_tokens
from preflight.tape.tensor import Tape, Tensor


class VideoRestoration(Restoration):
    """A network from (B, frames, C, h, w) to as many frames, or to the middle one alone, `scale` times larger.

    It walks frame after frame, so that one walk is of one number of them. Where `train.fix_flow` freezes the motion's network at
    first, or `train.tsa_iter` all but the fusion, the step is one of those after that, when everything trains.
    """

    each_frame = True
    inputs = outputs = 3
    one_frame_out = False

    @staticmethod
    def pixel_step(dims: Mapping[str, Any]) -> int:
        """All enlarge four times, or shrink their inputs as often before they do."""
        return int(max(4, dims.get("scale", 4)))

    def loss(self, tape: Tape, shape: Shape, dtype: str) -> Tensor:
        if not isinstance(shape.frames, int):
            raise NotModelled("several numbers of frames in one walk are not modelled")
        size = (shape.height, shape.width)
        low = tuple(side // self.scale for side in size)
        frames = () if self.one_frame_out else (shape.frames,)
        high = (shape.batch, *frames, self.outputs, *size)
        self.kept = ()
        lq, gt = tape.empty((shape.batch, shape.frames, self.inputs, *low), dtype), tape.empty(high, dtype)
        previous = tape.empty(high, dtype)  # self.output, until this step's takes its place
        output = self(lq)
        del previous
        self.kept = (lq, gt, output.detach())
        return self.pixel_loss(output, gt)


class ConvResidualBlocks(Module):
    def __init__(self, inputs: int, outputs: int, blocks: int, *, extend: bool) -> None:
        self.main_0 = conv3(inputs, outputs)
        self.main_2 = Blocks(blocks, lambda _: ResidualBlockNoBN(outputs), Checkpointing(), extend=extend)

    def forward(self, fea: Tensor) -> Tensor:
        return self._main(fea)

    def _main(self, x: Tensor) -> Tensor:
        x = self.main_0(x)
        x = in_place(x)
        for block in self.main_2.walk(x.tape):
            x = block(x)
        return x


class Reconstruction(Module):
    """Features to an image four times as large: the last layers of each of these networks, under the network's own names."""

    def __init__(self, features: int) -> None:
        self.upconv1, self.upconv2 = conv3(features, features * 4), conv3(features, 64 * 4)
        self.conv_hr, self.conv_last = conv3(64, 64), conv3(64, 3)

    def forward(self, out: Tensor) -> Tensor:
        out = in_place(pixel_shuffle(self.upconv1(out), 2))
        out = in_place(pixel_shuffle(self.upconv2(out), 2))
        out = in_place(self.conv_hr(out))
        return self.conv_last(out)


def frame(x: Tensor, *, clone: bool = False) -> Tensor:
    """`x[:, i]` of x (B, n, C, h, w), a view; or a copy of it."""
    batch, _, *rest = x.shape
    part = narrow(x, batch, *rest)
    return part.contiguous() if clone else part


def together(x: Tensor, frames: Size) -> Tensor:
    """So many frames of each sample, side by side: `x[:, a:b].reshape(-1, c, h, w)`, a copy unless there is one sample."""
    part = slice_tokens(x, frames)
    batch, _, *rest = x.shape
    return adjacent(part).view(batch * frames, *rest)


def flattened(x: Tensor) -> Tensor:
    """`x.view(-1, c, h, w)`."""
    batch, frames, *rest = x.shape
    return x.view(batch * frames, *rest)


def enlarged(x: Tensor) -> Tensor:
    """An image four times as large."""
    return interpolate(x, x.shape[2] * 4, x.shape[3] * 4)


def halves(inputs: int, outputs: int) -> Conv:
    return Conv(inputs, outputs, (3, 3), stride=2, padding=1)
