"""DiffSR's SR3 (models/sr3/unet.py, diffusion.py): the U-Net of DDPM, told the noise level in place of the timestep."""

from __future__ import annotations

from preflight.networks.diffsr_ddpm import DDPM
from preflight.networks.network import Shape
from preflight.tape.activation import keeps_result
from preflight.tape.module import Linear, Module
from preflight.tape.shaping import cat, chunk
from preflight.tape.tensor import Tape, Tensor


class PositionalEncoding(Module):
    """(B, 1) noise levels to (B, 1, dim)."""

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def forward(self, noise_level: Tensor) -> Tensor:
        step = noise_level.tape.empty((1, self.dim // 2), noise_level.dtype)
        encoding = noise_level.view(noise_level.shape[0], 1, 1) * step
        return cat([keeps_result(encoding), keeps_result(encoding)], -1)


class FeatureWiseAffine(Module):
    def __init__(self, inputs: int, outputs: int, *, use_affine_level: bool = False) -> None:
        self.use_affine_level = use_affine_level
        self.noise_func = [Linear(inputs, outputs * (1 + use_affine_level))]

    def forward(self, x: Tensor, noise_embed: Tensor) -> Tensor:
        batch, channels = x.shape[:2]
        if self.use_affine_level:
            gamma, beta = chunk(self.noise_func[0](noise_embed).view(batch, 2 * channels, 1, 1), 2, 1)
            return (1 + gamma) * x + beta
        return x + self.noise_func[0](noise_embed).view(batch, channels, 1, 1)


class SR3(DDPM):
    embedding_key = "with_noise_level_emb"
    losses = {"lploss": "lp", "l2": "mse"}  # noqa: RUF012  # never changed

    def embedding(self, width: int) -> Module:
        return PositionalEncoding(width)

    def shift(self, time_dim: int, outputs: int) -> Module:
        return FeatureWiseAffine(time_dim, outputs)

    def time(self, tape: Tape, shape: Shape) -> Tensor:
        """The noise level of each sample."""
        return tape.empty((shape.batch, 1), "fp32")


NETWORK = SR3
