"""FLUX.2's image autoencoder (diffusers/models/autoencoders/autoencoder_kl_flux2.py): FLUX.1's with 32 channels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from preflight.networks.sd_vae import AutoencoderKL
from preflight.tape.tensor import Buffer

PATCH = 4  # latents of 2 by 2 pixels, which the pipelines pack into the channels


class AutoencoderKLFlux2(AutoencoderKL):
    """Its batch norm is run by the pipelines, whose packed latents it scales."""

    def __init__(self, dims: Mapping[str, Any]) -> None:
        super().__init__(dims)
        channels = PATCH * self.latents
        self.running_mean, self.running_var = Buffer((channels,)), Buffer((channels,))
        self.num_batches_tracked = Buffer((), "int64")


# black-forest-labs/FLUX.2-dev, vae/config.json: the constructor's defaults
COMPONENTS = {
    "flux2-vae": (
        AutoencoderKLFlux2,
        {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": 32, "sample_size": 1024},
    )
}
