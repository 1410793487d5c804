"""Stable Diffusion's image autoencoder, also FLUX's and HunyuanDiT's (diffusers/models/autoencoders/autoencoder_kl.py, vae.py)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

from preflight.networks.component import Vae, sample_posterior
from preflight.networks.network import Shape
from preflight.tape.activation import silu
from preflight.tape.attention import efficient_attention, flash_attention
from preflight.tape.module import Conv, GroupNorm, Linear, Module
from preflight.tape.shaping import pad, upsample_nearest
from preflight.tape.tensor import Tape, Tensor


class ResnetBlock2D(Module):
    """resnet.py, without a time embedding."""

    def __init__(self, inputs: int, outputs: int, groups: int) -> None:
        self.norm1 = GroupNorm(groups, inputs)
        self.conv1 = Conv(inputs, outputs, (3, 3), padding=1)
        self.norm2 = GroupNorm(groups, outputs)
        self.conv2 = Conv(outputs, outputs, (3, 3), padding=1)
        self.conv_shortcut = Conv(inputs, outputs, (1, 1)) if inputs != outputs else None

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = inputs
        hidden = self.norm1(hidden)
        hidden = silu(hidden)
        hidden = self.conv1(hidden)
        hidden = self.norm2(hidden)
        hidden = silu(hidden)
        hidden = self.conv2(hidden)
        if self.conv_shortcut is not None:
            inputs = self.conv_shortcut(inputs)
        return (inputs + hidden) / 1.0


class Attention(Module):
    """attention_processor.py: one head over the pixels, with a group norm and a residual connection (AttnProcessor2_0)."""

    def __init__(self, dim: int, groups: int) -> None:
        self.group_norm = GroupNorm(groups, dim)
        self.to_q, self.to_k, self.to_v = Linear(dim, dim), Linear(dim, dim), Linear(dim, dim)
        self.to_out = [Linear(dim, dim)]

    def forward(self, hidden: Tensor, mask: Tensor | None = None) -> Tensor:
        residual = hidden
        batch, channels, *size = hidden.shape
        tokens = prod(size)
        hidden = self.group_norm(hidden.view(batch, channels, tokens))
        hidden = hidden.view(batch, tokens, channels)
        query = self.to_q(hidden)
        key = self.to_k(hidden)
        value = self.to_v(hidden)
        query, key, value = (x.view(batch, 1, tokens, channels) for x in (query, key, value))
        hidden = flash_attention(query, key, value) if mask is None else efficient_attention(query, key, value, mask)
        hidden = hidden.view(batch, tokens, channels)
        hidden = self.to_out[0](hidden)
        hidden = hidden.view(batch, channels, *size)
        hidden = hidden + residual
        return hidden / 1.0


class MidBlock2D(Module):
    def __init__(self, dim: int, groups: int, *, attention: bool) -> None:
        self.resnets = [ResnetBlock2D(dim, dim, groups), ResnetBlock2D(dim, dim, groups)]
        self.attentions = [Attention(dim, groups)] if attention else []

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = self.resnets[0](hidden)
        for attention in self.attentions:
            hidden = attention(hidden)
        return self.resnets[1](hidden)


class Downsample2D(Module):
    def __init__(self, dim: int) -> None:
        self.conv = Conv(dim, dim, (3, 3), stride=2)

    def forward(self, hidden: Tensor) -> Tensor:
        batch, channels, height, width = hidden.shape
        hidden = pad(hidden, batch, channels, height + 1, width + 1)
        return self.conv(hidden)


class Upsample2D(Module):
    def __init__(self, dim: int) -> None:
        self.conv = Conv(dim, dim, (3, 3), padding=1)

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = upsample_nearest(hidden, 2)
        return self.conv(hidden)


class CoderBlock2D(Module):
    """unet_2d_blocks.py: DownEncoderBlock2D, UpDecoderBlock2D."""

    def __init__(self, inputs: int, outputs: int, layers: int, groups: int, sampler: type[Module] | None) -> None:
        self.resnets = [ResnetBlock2D(inputs if i == 0 else outputs, outputs, groups) for i in range(layers)]
        self.samplers = [sampler(outputs)] if sampler is not None else []  # type: ignore[call-arg]

    def forward(self, hidden: Tensor) -> Tensor:
        for resnet in self.resnets:
            hidden = resnet(hidden)
        for sampler in self.samplers:
            hidden = sampler(hidden)
        return hidden


class Coder(Module):
    """An Encoder or Decoder (vae.py)."""

    def __init__(
        self, inputs: int, widths: Sequence[int], outputs: int, layers: int, groups: int, *, decodes: bool, attention: bool
    ) -> None:
        self.decodes = decodes
        sampler: type[Module] = Upsample2D if decodes else Downsample2D
        last = len(widths) - 1
        self.conv_in = Conv(inputs, widths[0], (3, 3), padding=1)
        self.mid_block = MidBlock2D(widths[0 if decodes else last], groups, attention=attention)
        self.blocks = [
            CoderBlock2D(widths[max(i - 1, 0)], width, layers, groups, sampler if i < last else None)
            for i, width in enumerate(widths)
        ]
        self.conv_norm_out = GroupNorm(groups, widths[last])
        self.conv_out = Conv(widths[last], outputs, (3, 3), padding=1)

    def forward(self, sample: Tensor) -> Tensor:
        sample = self.conv_in(sample)
        for block in (self.mid_block, *self.blocks) if self.decodes else (*self.blocks, self.mid_block):
            sample = block(sample)
        sample = self.conv_norm_out(sample)
        sample = silu(sample)
        return self.conv_out(sample)


DEFAULTS: Mapping[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "block_out_channels": (64,),
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 32,
    "sample_size": 32,
    "use_quant_conv": True,
    "use_post_quant_conv": True,
    "mid_block_add_attention": True,
}


class AutoencoderKL(Vae):
    """Sizes may be arrays unless it cuts them."""

    def __init__(self, dims: Mapping[str, Any]) -> None:
        dims = {**DEFAULTS, **dims}
        widths, layers, groups = dims["block_out_channels"], dims["layers_per_block"], dims["norm_num_groups"]
        self.inputs, self.latents, self.stride = dims["in_channels"], dims["latent_channels"], 2 ** (len(widths) - 1)
        self.tile_sample_min_size, self.tile_overlap_factor = dims["sample_size"], 0.25
        attention = dims["mid_block_add_attention"]
        double = self.latents * 2
        self.encoder = Coder(self.inputs, widths, double, layers, groups, decodes=False, attention=attention)
        self.decoder = Coder(
            self.latents, widths[::-1], dims["out_channels"], layers + 1, groups, decodes=True, attention=attention
        )
        self.quant_conv = Conv(double, double, (1, 1)) if dims["use_quant_conv"] else None
        self.post_quant_conv = Conv(self.latents, self.latents, (1, 1)) if dims["use_post_quant_conv"] else None

    def encode(self, tape: Tape, shape: Shape, dtype: str) -> Tensor:
        with tape.no_grad():
            pixels = tape.empty((shape.batch * shape.frames, self.inputs, shape.height, shape.width), dtype)
            return sample_posterior(self.sliced(pixels, self._encode))

    def decode(self, tape: Tape, shape: Shape, dtype: str) -> Tensor:
        with tape.no_grad():
            size = (shape.height // self.stride, shape.width // self.stride)
            return self.sliced(tape.empty((shape.batch * shape.frames, self.latents, *size), dtype), self._decode)

    def _encode(self, x: Tensor) -> Tensor:
        window, latent = self.tile_sample_min_size, self.tile_sample_min_size // self.stride
        return self.tiled(x, self._step(window), window, self._kept(latent), self._encode_tile)

    def _decode(self, z: Tensor) -> Tensor:
        window, pixels = self.tile_sample_min_size // self.stride, self.tile_sample_min_size
        return self.tiled(z, self._step(window), window, self._kept(pixels), self._decode_tile)

    def _step(self, window: int) -> int:
        return int(window * (1 - self.tile_overlap_factor))

    def _kept(self, result: int) -> int:
        return result - int(result * self.tile_overlap_factor)

    def _encode_tile(self, x: Tensor) -> Tensor:
        encoded: Tensor = self.encoder(x)
        return self.quant_conv(encoded) if self.quant_conv is not None else encoded

    def _decode_tile(self, z: Tensor) -> Tensor:
        if self.post_quant_conv is not None:
            z = self.post_quant_conv(z)
        return self.decoder(z)


_WIDTHS = {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2}
_SIXTEEN = {**_WIDTHS, "latent_channels": 16, "use_quant_conv": False, "use_post_quant_conv": False, "sample_size": 1024}

# vae/config.json of stabilityai/sd-vae-ft-ema, black-forest-labs/FLUX.1-dev and stabilityai/stable-diffusion-3-medium
COMPONENTS = {
    "sd-vae": (AutoencoderKL, {**_WIDTHS, "sample_size": 256}),
    "flux-vae": (AutoencoderKL, _SIXTEEN),
    "sd3-vae": (AutoencoderKL, _SIXTEEN),
}
