"""FLUX.1 Kontext: FLUX.1 that reads `references` further images as tokens after those of the noisy one, all of one size.

diffusers/pipelines/flux/pipeline_flux_kontext.py; the prediction is cut to the noisy image's tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from preflight.networks.flux import Flux
from preflight.networks.network import Shape
from preflight.tape.loss import mse_loss
from preflight.tape.module import Checkpointing
from preflight.tape.sequence import gathered, share
from preflight.tape.slicing import slice_tokens
from preflight.tape.tensor import Tape, Tensor


class FluxKontext(Flux):
    def __init__(self, dims: Mapping[str, Any], checkpointing: Checkpointing, *, extend: bool = True) -> None:
        super().__init__(dims, checkpointing, extend=extend)
        self.references = dims["references"]

    def loss(self, tape: Tape, shape: Shape, dtype: str) -> Tensor:
        batch = shape.batch
        # the pipeline packs the latents two by two into channels
        tokens = (shape.height // (2 * self.stride[1])) * (shape.width // (2 * self.stride[2]))
        out = self(
            tape.empty((batch, share(tokens * (1 + self.references), shape.sequence), self.inputs), dtype),
            tape.empty((batch, share(shape.text_tokens, shape.sequence), self.text_dim), dtype),
            tape.empty((batch, self.pooled_dim), dtype),
        )
        out = slice_tokens(gathered(out, shape.sequence), tokens)
        return mse_loss(out.float(), tape.empty(out.shape, "fp32"))


NETWORK = FluxKontext
