"""ResShift in its own trainer: the U-Net that DiffSR copied, on latents (models/unet.py, gaussian_diffusion.py, trainer.py)."""

from __future__ import annotations

from collections.abc import Mapping
from math import lcm, log
from typing import Any

from preflight.networks import diffsr_resshift
from preflight.networks.diffsr_resshift import Sequential
from preflight.networks.lpips import Lpips, squared
from preflight.networks.network import NotModelled, Shape
from preflight.networks.resshift_vq import VQModel
from preflight.tape.activation import clip, silu
from preflight.tape.module import Checkpointing, Conv, Module
from preflight.tape.shaping import cat, narrow, sum_over
from preflight.tape.tensor import Buffer, Tape, Tensor

#: Keys of `dims` that are not the U-Net's: the trainer's, the diffusion's and the autoencoder's.
TRAINING = ("autoencoder", "lpips", "sf", "samples", "pool")


class FeatureExtractor(Module):
    """The degraded image, halved until it has the latents' size."""

    def __init__(self, channels: int, times: int) -> None:
        self.layers: list[Module] = []
        width = 16
        for _ in range(times):
            self.layers += [Conv(channels, width, (3, 3), padding=1), Conv(width, width * 2, (3, 3), stride=2, padding=1)]
            width *= 2
            channels = width
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        for conv, down in zip(self.layers[::2], self.layers[1::2], strict=True):
            x = conv(x)
            x = silu(x)
            x = down(x)
        return x


class ResShift(diffsr_resshift.UNetModelSwin):
    """`shape` is that of the clean image. `samples` of a GPU's part of the batch wait there, and `pool` pairs of earlier ones."""

    kept: tuple[Tensor, ...] = ()

    def __init__(self, dims: Mapping[str, Any], checkpointing: Checkpointing, *, extend: bool = True) -> None:
        network = {name: value for name, value in dims.items() if name not in TRAINING}
        super().__init__(network, checkpointing, extend=extend)
        if network.get("use_fp16") or not network.get("cond_lq", True):
            raise NotModelled("UNetModelSwin with use_fp16, or without cond_lq, is not modelled")
        if dims.get("autoencoder") is None:
            raise NotModelled("ResShift without an autoencoder is not modelled")
        self.image_channels = 4 if network.get("cond_mask", False) else 3
        low, latent = network.get("lq_size", 256), network["image_size"]
        times = int(log(low / latent) / log(2)) if low > latent else 0
        self.feature_extractor = FeatureExtractor(self.image_channels, times) if low != latent else None
        conditions = self.feature_extractor.width if self.feature_extractor is not None else self.image_channels
        first = int(network.get("channel_mult", (1, 2, 4, 8))[0] * network["model_channels"])
        self.input_blocks[0] = Sequential(Conv(self.inputs + conditions, first, (3, 3), padding=1))
        self.state = Buffer((sum(parameter.numel for _, parameter in self.parameters()),))  # ema_state, beside ema_model
        self.sf, self.samples, self.pool = dims.get("sf", 4), dims.get("samples", 0), dims.get("pool", 0)
        self.first_stage = VQModel(dims["autoencoder"])
        self.lpips_loss, self.looks = Lpips(), bool(dims.get("lpips", True))  # it is there to validate with in any case

    @staticmethod
    def pixel_step(dims: Mapping[str, Any]) -> int:
        """The U-Net's own, in latents; the degraded image is `sf` times coarser."""
        mults = dims.get("autoencoder", {}).get("ddconfig", {}).get("ch_mult", (1, 2, 4, 8))
        unet = diffsr_resshift.UNetModelSwin.pixel_step({k: v for k, v in dims.items() if k not in TRAINING})
        return lcm(unet * 2 ** (len(mults) - 1), int(dims.get("sf", 4)))

    def loss(self, tape: Tape, shape: Shape, dtype: str) -> Tensor:
        del dtype  # latents and images are float32 whatever autocast says
        self.kept = ()
        batch, sf = shape.batch, self.sf
        low, high = (shape.height // sf, shape.width // sf), (shape.height, shape.width)
        waiting = self.samples if self.samples and tape.grad_enabled else batch
        pairs = [tape.empty((waiting, 3, *low), "fp32"), tape.empty((waiting, 3, *high), "fp32")]
        mask = tape.empty((waiting, 1, *low), "fp32") if self.image_channels == 4 else None
        if self.pool and tape.grad_enabled:
            pairs += [tape.empty((self.pool, 3, *low), "fp32"), tape.empty((self.pool, 3, *high), "fp32")]
        lq, gt = narrow(pairs[0], batch, 3, *low), narrow(pairs[1], batch, 3, *high)
        self.kept = (*pairs,)
        stride = self.first_stage.stride
        latent = (batch, self.outputs, shape.height // stride, shape.width // stride)
        timesteps, noise = tape.empty((batch,), "int64"), tape.empty(latent, "fp32")

        z_y = self._encoded(tape.empty((batch, 3, *high), "fp32") if sf != 1 else lq)
        z_start = self._encoded(gt)
        one = tape.empty((batch, 1, 1, 1), "fp32")
        z_t = (z_start - z_y) * one + z_y + noise * one
        if mask is not None:
            lq = cat([lq, narrow(mask, batch, 1, *low)], 1)
        z0_pred = self(z_t / 1.0, timesteps, lq)
        mse = sum_over(squared(z_start - z0_pred), batch)
        if not self.looks:
            return sum_over(mse)
        x0_pred = self.first_stage.decode(z0_pred / 1.0)
        self.kept = (*self.kept, x0_pred.detach())
        x0 = clip(x0_pred)
        distance = self.lpips_loss(x0, gt).view(batch)
        return sum_over(mse + distance)

    def _encoded(self, image: Tensor) -> Tensor:
        with image.tape.no_grad():
            return (self.first_stage.encode(image) * 1.0).float()

    def forward(self, x: Tensor, timesteps: Tensor, lq: Tensor) -> Tensor:
        hs = []
        emb = self.time_embed(timesteps).float()
        if self.feature_extractor is not None:
            lq = self.feature_extractor(lq)
        x = cat([x, lq], 1)
        h = x
        for module in self.input_blocks:
            h = module(h, emb)
            hs.append(h)
        h = self.middle_block(h, emb)
        for module in self.output_blocks:
            h = cat([h, hs.pop()], 1)
            h = module(h, emb)
        h = h.type_as(x)
        return self.out(h)


NETWORK = ResShift
