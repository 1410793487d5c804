"""SR3 as its own trainer has it (Janspiry's model/sr3_modules): the U-Net that DiffSR copied, fed images of the target's size."""

from __future__ import annotations

from preflight.networks import diffsr_sr3
from preflight.networks.diffsr_diffusion import Diffusion
from preflight.networks.network import Shape
from preflight.tape.loss import l1_loss
from preflight.tape.shaping import cat
from preflight.tape.tensor import Tape, Tensor


class WholeImages(Diffusion):
    """diffusion.py: p_losses, in the step of model/model.py: optimize_parameters.

    `HR` and `SR`, which the data set has brought to the target's size, stay on the GPU whether the network is told of SR or not.
    """

    kept: tuple[Tensor, ...] = ()

    def loss(self, tape: Tape, shape: Shape, dtype: str) -> Tensor:
        self.kept = ()
        size = (shape.batch, self.outputs, shape.height, shape.width)
        high, low = tape.empty(size, dtype), tape.empty(size, dtype)
        self.kept = (high, low)  # self.data, until the next batch
        time = self.time(tape, shape)
        noise = tape.empty(size, dtype)
        noisy = high * tape.empty((shape.batch, 1, 1, 1), dtype) + noise * tape.empty((shape.batch, 1, 1, 1), dtype)
        recon = self(cat([low, noisy], 1) if self.conditional else noisy, time)
        return l1_loss(noise, recon)


class SR3(WholeImages, diffsr_sr3.SR3):
    pass


NETWORK = SR3
