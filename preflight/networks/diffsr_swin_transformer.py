"""DiffSR's SwinSR (models/swin_Transformer/Swin_Transformer.py, Basic.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from preflight.networks.diffsr_common import SuperResolution, interpolate, to_channels_first, to_channels_last
from preflight.networks.diffsr_galerkin_transformer import MLP
from preflight.networks.diffsr_swinir import SwinTransformerBlock
from preflight.tape.activation import gelu
from preflight.tape.module import Blocks, Checkpointing, LayerNorm, Linear
from preflight.tape.shaping import pixel_shuffle
from preflight.tape.tensor import Parameter, Tensor


class SwinSR(SuperResolution):
    """The original makes its blocks at the first step, after the optimizer, which therefore never trains them.

    They count as trained here: their gradients are there, and the two states that are not are a few MiB.
    """

    @staticmethod
    def pixel_step(dims: Mapping[str, Any]) -> int:
        """Windows fill the input."""
        return int(dims.get("window_size", 4)) * SuperResolution.pixel_step(dims)

    def __init__(self, dims: Mapping[str, Any], checkpointing: Checkpointing, *, extend: bool = True) -> None:
        del checkpointing  # the original never checkpoints
        inputs, outputs = dims.get("in_channels", 3), dims.get("out_channels", 1)
        super().__init__(dims, inputs, outputs)
        hidden, depth, layers = dims.get("n_hidden", 96), dims.get("depth", 2), dims.get("n_layers", 3)
        window, ratio, rate = dims.get("window_size", 4), dims.get("mlp_ratio", 4.0), dims.get("drop_path_rate", 0.1)
        factor = dims.get("upsample_factor", [2, 2])
        self.upsample_factor = [factor, factor] if isinstance(factor, int) else factor

        def kind(i: int) -> tuple[int, float]:
            # every second block of a layer is shifted; linspace from 0 to the rate: the very first drops nothing
            return i % depth % 2, float(rate if i else 0.0)

        def block(i: int) -> SwinTransformerBlock:
            shifted, drop_path = kind(i)
            return SwinTransformerBlock(
                hidden,
                None,
                dims.get("num_heads", 4),
                window=window,
                shift=shifted * (window // 2),
                mlp=MLP(hidden, int(hidden * ratio), hidden, "gelu", layers=1),
                qkv_bias=dims.get("qkv_bias", True),
                drop=dims.get("drop_rate", 0.0),
                attn_drop=dims.get("attn_drop_rate", 0.0),
                drop_path=drop_path,
            )

        self.preprocess = MLP(1, hidden * 2, hidden, dims.get("act", "gelu"))
        self.placeholder = Parameter((hidden,))
        self.cached_layers = Blocks(layers * depth, block, Checkpointing(), kind, extend=extend)
        self.norm = LayerNorm(hidden)
        tall, wide = self.upsample_factor
        self.upsample = [Linear(hidden, hidden * tall * wide)] if tall == wide else []
        self.output_proj = [Linear(hidden, hidden // 2), Linear(hidden // 2, outputs)]

    def forward(self, x: Tensor) -> Tensor:
        batch, height, width, _ = x.shape
        fx = self.preprocess(x.view(batch, height * width, 1))
        fx = fx + self.placeholder.view(1, 1, self.placeholder.shape[0])
        for block in self.cached_layers.walk(x.tape):
            fx = block(fx, height, width)
        fx = self.norm(fx)

        tall, wide = self.upsample_factor
        if self.upsample:
            fx = self._widen(fx)
            fx = to_channels_first(fx.view(batch, height, width, fx.shape[2]))
            fx = pixel_shuffle(fx, tall)
        else:
            fx = to_channels_first(fx.view(batch, height, width, fx.shape[2]))
            fx = interpolate(fx, height * tall, width * wide)
        fx = to_channels_last(fx)

        height, width = fx.shape[1:3]
        fx = fx.view(batch, height * width, fx.shape[3])
        out = self._project(fx)
        return out.view(batch, height, width, self.outputs)

    def _widen(self, x: Tensor) -> Tensor:
        x = self.upsample[0](x)
        return gelu(x)

    def _project(self, x: Tensor) -> Tensor:
        x = self.output_proj[0](x)
        x = gelu(x)
        return self.output_proj[1](x)


NETWORK = SwinSR
