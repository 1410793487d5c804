"""The step that DiffSR's diffusion models share (models/ddpm/diffusion.py and its copies: GaussianDiffusion.p_losses)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from preflight.networks.diffsr_common import SuperResolution
from preflight.networks.network import Shape
from preflight.tape.loss import l1_loss, mse_loss, relative_lp_loss
from preflight.tape.shaping import cat
from preflight.tape.tensor import Buffer, Tape, Tensor

SCHEDULE = (  # set_new_noise_schedule: a number a timestep in each
    "betas",
    "alphas_cumprod",
    "alphas_cumprod_prev",
    "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod",
    "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod",
    "posterior_variance",
    "posterior_log_variance_clipped",
    "posterior_mean_coef1",
    "posterior_mean_coef2",
)


class Diffusion(SuperResolution):
    """Predicts the noise in the high-resolution field from it, the low-resolution one brought to its size, and the time.

    `n_timestep` is the key of the config's `beta_schedule`, 2,000 in every template.
    """

    losses: Mapping[str, str] = {"lploss": "lp", "l2": "lp"}  # set_loss

    def __init__(self, dims: Mapping[str, Any], inputs: int, outputs: int) -> None:
        super().__init__(dims, inputs, outputs)
        self.conditional = dims.get("conditional", True)
        self.loss_type = dims.get("loss_type", "l1")
        for name in SCHEDULE:
            vars(self)[name] = Buffer((dims.get("n_timestep", 2000),))

    def time(self, tape: Tape, shape: Shape) -> Tensor:
        """The timestep of each sample."""
        return tape.empty((shape.batch,), "int64")

    def loss(self, tape: Tape, shape: Shape, dtype: str) -> Tensor:
        conditions = self.inputs - self.outputs
        low = (shape.batch, conditions, shape.height // self.factor, shape.width // self.factor)
        high = (shape.batch, self.outputs, shape.height, shape.width)
        x, y = tape.empty(low, dtype), tape.empty(high, dtype)
        time = self.time(tape, shape)
        noise = tape.empty(high, dtype)
        noisy = y * tape.empty((shape.batch, 1, 1, 1), dtype) + noise * tape.empty((shape.batch, 1, 1, 1), dtype)
        if not self.conditional:
            return self.distance(noise, self(noisy, time))
        # x, bilinear to the high resolution
        x_sr = tape.empty((shape.batch, conditions, shape.height, shape.width), x.dtype)
        recon = self(cat([x_sr, noisy], 1), time)
        return self.distance(noise, recon)

    def distance(self, noise: Tensor, recon: Tensor) -> Tensor:
        """LpLoss, or the sum of squares or absolute values."""
        how = self.losses.get(self.loss_type, "lp")
        return _LOSSES[how](noise, recon)


_LOSSES = {"lp": relative_lp_loss, "l1": l1_loss, "mse": mse_loss}
