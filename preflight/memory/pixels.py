"""The pixels of a batch that is encoded as it trains: copies that stay on the GPU until the next batch takes their place.

A loop's variables and its data loader's own live through the whole step, the backward pass and the optimizer's too.
"""

from __future__ import annotations

from collections.abc import Mapping

from preflight.networks.network import Shape
from preflight.spec import Data, Dtype
from preflight.tape.dtypes import BYTES
from preflight.tape.meter import Size, rounded
from preflight.tape.tensor import Tape, Tensor

COLOURS = 3  # of what a VAE encodes


def kept(data: Data) -> Mapping[Dtype, int]:
    """Channels by dtype; none where steps see no pixels."""
    return data.pixels_kept if data.latents != "cached" else {}


def keep(tape: Tape, data: Data, shape: Shape) -> list[Tensor]:
    """The copies of a batch of `shape`, for the caller to hold."""
    frames, height, width = shape.frames, shape.height, shape.width
    return [tape.empty((shape.batch, channels, frames, height, width), dtype) for dtype, channels in kept(data).items()]


def kept_bytes(data: Data, shape: Shape, *, read_in: str | None = None) -> Size:
    """Bytes of those copies, less the one that a VAE of dtype `read_in` takes as its input."""
    total: Size = 0
    for dtype, channels in kept(data).items():
        others = channels - (COLOURS if dtype == read_in else 0)
        total = total + rounded(shape.batch * max(0, others) * shape.frames * shape.height * shape.width * BYTES[dtype])
    return total
