"""DiffSR's UNet2d (models/unet/unet2d.py)."""

from __future__ import annotations

from collections.abc import Mapping
from math import lcm
from typing import Any

from preflight.networks.diffsr_common import BatchNorm, SuperResolution, to_channels_first, to_channels_last
from preflight.tape.activation import tanh
from preflight.tape.module import Checkpointing, Conv, ConvTranspose, Module
from preflight.tape.shaping import cat, max_pool, upsample_nearest
from preflight.tape.tensor import Tensor


class Block(Module):
    """Twice a convolution, its normalisation and tanh; the modules carry the block's name, as in the original."""

    def __init__(self, inputs: int, features: int, name: str) -> None:
        modules = vars(self)
        modules[f"{name}conv1"] = Conv(inputs, features, (3, 3), padding=1, bias=False)
        modules[f"{name}norm1"] = BatchNorm(features)
        modules[f"{name}conv2"] = Conv(features, features, (3, 3), padding=1, bias=False)
        modules[f"{name}norm2"] = BatchNorm(features)

    def forward(self, x: Tensor) -> Tensor:
        for module in vars(self).values():
            x = module(x)
            if isinstance(module, BatchNorm):
                x = tanh(x)
        return x


class UNet2d(SuperResolution):
    @staticmethod
    def pixel_step(dims: Mapping[str, Any]) -> int:
        """Four halvings on the way down meet four doublings on the way up."""
        return lcm(16, SuperResolution.pixel_step(dims))

    def __init__(self, dims: Mapping[str, Any], checkpointing: Checkpointing, *, extend: bool = True) -> None:
        del checkpointing, extend  # the original never checkpoints, and no two blocks are alike
        inputs, outputs = dims.get("in_channels", 3), dims.get("out_channels", 1)
        super().__init__(dims, inputs, outputs)
        features = dims.get("init_features", 32)
        self.encoder1 = Block(inputs, features, "enc1")
        self.encoder2 = Block(features, features * 2, "enc2")
        self.encoder3 = Block(features * 2, features * 4, "enc3")
        self.encoder4 = Block(features * 4, features * 8, "enc4")
        self.bottleneck = Block(features * 8, features * 16, "bottleneck")
        self.upconv4 = ConvTranspose(features * 16, features * 8, (2, 2), stride=2)
        self.decoder4 = Block(features * 16, features * 8, "dec4")
        self.upconv3 = ConvTranspose(features * 8, features * 4, (2, 2), stride=2)
        self.decoder3 = Block(features * 8, features * 4, "dec3")
        self.upconv2 = ConvTranspose(features * 4, features * 2, (2, 2), stride=2)
        self.decoder2 = Block(features * 4, features * 2, "dec2")
        self.upconv1 = ConvTranspose(features * 2, features, (2, 2), stride=2)
        self.decoder1 = Block(features * 2, features, "dec1")
        self.conv = Conv(features, outputs, (1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = to_channels_first(x)
        x = upsample_nearest(x, 2)
        enc1 = self.encoder1(x)
        enc2 = self.encoder2(max_pool(enc1, 2))
        enc3 = self.encoder3(max_pool(enc2, 2))
        enc4 = self.encoder4(max_pool(enc3, 2))

        bottleneck = self.bottleneck(max_pool(enc4, 2))

        dec4 = self.upconv4(bottleneck)
        dec4 = cat((dec4, enc4), 1)
        dec4 = self.decoder4(dec4)
        dec3 = self.upconv3(dec4)
        dec3 = cat((dec3, enc3), 1)
        dec3 = self.decoder3(dec3)
        dec2 = self.upconv2(dec3)
        dec2 = cat((dec2, enc2), 1)
        dec2 = self.decoder2(dec2)
        dec1 = self.upconv1(dec2)
        dec1 = cat((dec1, enc1), 1)
        dec1 = self.decoder1(dec1)
        out = self.conv(dec1)
        return to_channels_last(out)


NETWORK = UNet2d
