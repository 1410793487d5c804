"""Qwen-Image's autoencoder, Wan 2.1's of images too (diffusers/models/autoencoders/autoencoder_kl_qwenimage.py)."""

from __future__ import annotations

from preflight.networks.wan_vae import DEFAULTS, WanVae
from preflight.tape.tensor import Tensor


class QwenImageVae(WanVae):
    """tiled_decode does not clamp what it put together."""

    def _finish_tiles(self, out: Tensor) -> Tensor:
        return out


# Qwen/Qwen-Image, vae/config.json: the constructor's defaults, which are those of Wan 2.1
COMPONENTS = {"qwen-image-vae": (QwenImageVae, DEFAULTS)}
