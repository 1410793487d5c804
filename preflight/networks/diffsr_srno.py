"""DiffSR's SRNO (models/sronet/sronet.py, edsr.py, galerkin.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from preflight.networks.diffsr_common import SuperResolution, to_channels_first, to_channels_last
from preflight.networks.diffsr_edsr import ResBlock, conv
from preflight.networks.diffsr_hinote import LIIFEnsemble
from preflight.networks.diffsr_hinote_attention import GalerkinAttention
from preflight.tape.activation import gelu
from preflight.tape.module import Blocks, Checkpointing, Conv, Module
from preflight.tape.sampling import grid_sample
from preflight.tape.tensor import Tensor


class Encoder(Module):
    """edsr.py: EDSR without upsampling."""

    def __init__(self, inputs: int, features: int, blocks: int, *, extend: bool) -> None:
        self.head = [Conv(inputs, features, (3, 3), padding=1)]
        self.body = Blocks(blocks, lambda _: ResBlock(features), Checkpointing(), extend=extend)
        self.body_end = conv(features, features)

    def forward(self, x: Tensor) -> Tensor:
        x = self.head[0](x)
        res = self._body(x)
        res += x
        return res

    def _body(self, x: Tensor) -> Tensor:
        for block in self.body.walk(x.tape):
            x = block(x)
        return self.body_end(x)


class SRNO(SuperResolution):
    """The encoder's features and its input stay attributes of the network until the next step replaces them."""

    def __init__(self, dims: Mapping[str, Any], checkpointing: Checkpointing, *, extend: bool = True) -> None:
        del checkpointing  # the original never checkpoints
        inputs, outputs = dims.get("input_channels", 1), dims.get("output_channels", 1)
        super().__init__(dims, inputs, outputs)
        width, heads = dims.get("width", 256), dims.get("blocks", 16)
        factor = dims.get("upsample_factor", [2, 2])
        self.upsample_factor = [factor, factor] if isinstance(factor, int) else factor
        encoder = dims.get("encoder_config", {})
        features = encoder.get("n_feats", 64)
        self.encoder = Encoder(encoder.get("input_channels", 3), features, encoder.get("n_resblocks", 16), extend=extend)
        self.feat: Tensor | None = None
        self.inp: Tensor | None = None
        self.sampler = LIIFEnsemble()
        self.conv00 = Conv((features + 2) * 4 + 2, width, (1, 1))
        self.conv0 = GalerkinAttention(width, heads, gelu, simple=True)
        self.conv1 = GalerkinAttention(width, heads, gelu, simple=True, last=True)
        self.fc1, self.fc2 = Conv(width, 256, (1, 1)), Conv(256, outputs, (1, 1))

    def forward(self, inp: Tensor) -> Tensor:
        batch, height, width, channels = inp.shape
        tall, wide = (size * factor for size, factor in zip((height, width), self.upsample_factor, strict=True))
        x = to_channels_first(inp)
        self.inp = x if channels == 1 else x.contiguous()
        self.feat = self.encoder(self.inp)
        out = self._query(self.feat, self.inp, inp.tape.empty((1, tall, wide, 2), "fp32").view(batch, tall, wide, 2))
        return to_channels_last(out)

    def _query(self, feat: Tensor, inp: Tensor, coord: Tensor) -> Tensor:
        x, variables = self.sampler.with_locals(feat, coord)
        x = self.conv00(x)
        x = self.conv0(x)
        x = self.conv1(x)
        feat = x
        ret = self.fc2(gelu(self.fc1(feat)))
        ret = ret + grid_sample(inp, coord.tape.empty(coord.shape, coord.dtype))
        del variables  # one function in the original
        return ret


NETWORK = SRNO
