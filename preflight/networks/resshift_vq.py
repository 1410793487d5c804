"""The frozen autoencoder of ResShift, with a quantizer.

ldm/models/autoencoder.py: VQModelTorch, ldm/modules/diffusionmodules/model.py, ldm/modules/vqvae/quantize.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from preflight.networks.diffsr_ddpm import swish
from preflight.networks.lpips import squared
from preflight.networks.network import NotModelled, check_modelled, constructor_arguments
from preflight.networks.sd_vae import Downsample2D, Upsample2D
from preflight.tape.linear import matmul
from preflight.tape.module import Conv, GroupNorm, Module
from preflight.tape.shaping import sum_over, transpose
from preflight.tape.tensor import Call, Grads, Parameter, Tensor

ARGUMENTS: Mapping[str, Any] = {"ddconfig": ..., "n_embed": ..., "embed_dim": ..., "remap": None, "sane_index_shape": False}
CODER: Mapping[str, Any] = {
    "ch": ...,
    "out_ch": ...,
    "ch_mult": (1, 2, 4, 8),
    "num_res_blocks": ...,
    "attn_resolutions": ...,
    "dropout": 0.0,
    "resamp_with_conv": True,
    "in_channels": ...,
    "resolution": ...,
    "z_channels": ...,
    "double_z": True,
    "attn_type": "vanilla",
    "padding_mode": "zeros",
    "give_pre_end": False,
    "tanh_out": False,
}


class ResnetBlock(Module):
    """Without a time embedding."""

    def __init__(self, inputs: int, outputs: int) -> None:
        self.norm1, self.conv1 = GroupNorm(32, inputs), Conv(inputs, outputs, (3, 3), padding=1)
        self.norm2, self.conv2 = GroupNorm(32, outputs), Conv(outputs, outputs, (3, 3), padding=1)
        self.nin_shortcut = Conv(inputs, outputs, (1, 1)) if inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        h = x
        h = self.norm1(h)
        h = swish(h)
        h = self.conv1(h)
        h = self.norm2(h)
        h = swish(h)
        h = self.conv2(h)
        if self.nin_shortcut is not None:
            x = self.nin_shortcut(x)
        return x + h


class AttnBlock(Module):
    """One head over all pixels, written out."""

    def __init__(self, channels: int) -> None:
        self.norm = GroupNorm(32, channels)
        self.q, self.k, self.v, self.proj_out = (Conv(channels, channels, (1, 1)) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        h_ = x
        h_ = self.norm(h_)
        q = self.q(h_)
        k = self.k(h_)
        v = self.v(h_)
        b, c, h, w = q.shape
        q = q.view(b, h * w, c)
        k = k.view(b, c, h * w)
        w_ = matmul(q, k)
        w_ = w_ * c**-0.5
        w_ = softmax(w_)
        v = v.view(b, c, h * w)
        w_ = w_.view(b, h * w, h * w)
        h_ = matmul(v, w_)
        h_ = h_.view(b, c, h, w)
        h_ = self.proj_out(h_)
        return x + h_


def softmax(x: Tensor) -> Tensor:
    """In float32 under autocast, whose input the kernel converts itself (autocast_mode.h: fp32_set_opt_dtype)."""
    return x.tape.compute(
        (x,), _softmax_backward, x.shape, "fp32" if x.tape.autocast else x.dtype, keeps_result=True, context=x.dtype
    )


def _softmax_backward(call: Call, grad: Tensor | None) -> Grads:
    assert grad is not None
    return (grad.tape.empty(grad.shape, call.context),)


class Coder(Module):
    """Encoder and Decoder."""

    def __init__(self, arguments: Mapping[str, Any], *, decodes: bool) -> None:
        ch, mults, z = arguments["ch"], arguments["ch_mult"], arguments["z_channels"]
        counts = arguments["num_res_blocks"]
        counts = [counts] * len(mults) if isinstance(counts, int) else counts
        self.decodes = decodes
        deepest = ch * mults[-1]
        self.conv_in = Conv(z, deepest, (3, 3), padding=1) if decodes else Conv(arguments["in_channels"], ch, (3, 3), padding=1)
        self.levels: list[Level] = []
        width, last = (deepest, 0) if decodes else (ch, len(mults) - 1)
        for level, mult in reversed(list(enumerate(mults))) if decodes else enumerate(mults):
            sampler = (Upsample2D if decodes else Downsample2D) if level != last else None
            self.levels.append(Level(width, ch * mult, counts[level] + decodes, sampler))
            width = ch * mult
        self.block_1, self.attn_1, self.block_2 = ResnetBlock(deepest, deepest), AttnBlock(deepest), ResnetBlock(deepest, deepest)
        outputs = arguments["out_ch"] if decodes else z * (2 if arguments["double_z"] else 1)
        self.norm_out, self.conv_out = GroupNorm(32, width), Conv(width, outputs, (3, 3), padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv_in(x)
        if self.decodes:
            h = self._middle(h)
        kept: list[Tensor] = []  # the encoder's hs
        for level in self.levels:
            h = level(h, kept if not self.decodes else [])
        if not self.decodes:
            h = self._middle(h)
        h = self.norm_out(h)
        h = swish(h)
        return self.conv_out(h)

    def _middle(self, h: Tensor) -> Tensor:
        h = self.block_1(h)
        h = self.attn_1(h)
        return self.block_2(h)


class Level(Module):
    def __init__(self, inputs: int, outputs: int, count: int, sampler: type[Module] | None) -> None:
        self.block = [ResnetBlock(inputs if i == 0 else outputs, outputs) for i in range(count)]
        self.sampler = sampler(outputs) if sampler is not None else None  # type: ignore[call-arg]

    def forward(self, h: Tensor, kept: list[Tensor]) -> Tensor:
        kept.append(h)
        for block in self.block:
            h = block(h)
            kept.append(h)
        if self.sampler is not None:
            h = self.sampler(h)
        return h


class VectorQuantizer(Module):
    """VectorQuantizer2: the nearest of `count` vectors for each pixel, by a table of all distances."""

    def __init__(self, count: int, width: int) -> None:
        self.embedding = Parameter((count, width))

    def forward(self, z: Tensor) -> Tensor:
        batch, channels, height, width = z.shape
        z = transpose(z, batch, height, width, channels).contiguous()
        flat = z.view(batch * height * width, channels)
        d = self._distances(flat)
        indices = z.tape.empty((batch * height * width,), "int64")
        z_q = z.tape.empty(z.shape, self.embedding.dtype)
        loss = self._commitment(z, z_q)
        z_q = z + (z_q - z).detach()
        z_q = transpose(z_q, batch, channels, height, width).contiguous()
        del loss, indices, d
        return z_q

    def _distances(self, flat: Tensor) -> Tensor:
        squares = squared(flat)
        rows = sum_over(squares, flat.shape[0], 1)
        del squares
        columns = sum_over(squared(self.embedding), self.embedding.shape[0])
        table = (flat.shape[0], self.embedding.shape[0])
        both = rows.tape.compute((rows,), _table_backward, table, rows.dtype, context=rows.shape)
        del rows, columns
        product = matmul(flat, self.embedding.view(self.embedding.shape[1], self.embedding.shape[0]))
        return both - product * 2.0

    def _commitment(self, z: Tensor, z_q: Tensor) -> Tensor:
        return sum_over(squared(z_q.detach() - z)) + sum_over(squared(z_q - z.detach()))


def _table_backward(call: Call, grad: Tensor | None) -> Grads:
    assert grad is not None
    return (grad.tape.empty(call.context, grad.dtype),)


class VQModel(Module):
    """VQModelTorch, frozen."""

    def __init__(self, dims: Mapping[str, Any]) -> None:
        arguments = constructor_arguments(dims, ARGUMENTS, "VQModelTorch")
        settings = constructor_arguments(arguments["ddconfig"], CODER, "the coder of VQModelTorch")
        check_modelled(settings, {"resamp_with_conv": (True,), "attn_type": ("vanilla",), "give_pre_end": (False,)}, "VQModelTorch")
        if settings["attn_resolutions"] or settings["dropout"] or settings["tanh_out"]:
            raise NotModelled("VQModelTorch with attention between its levels, dropout or tanh_out is not modelled")
        z, embed = settings["z_channels"], arguments["embed_dim"]
        self.stride, self.embed = 2 ** (len(settings["ch_mult"]) - 1), embed
        self.encoder, self.decoder = Coder(settings, decodes=False), Coder(settings, decodes=True)
        self.quantize = VectorQuantizer(arguments["n_embed"], embed)
        self.quant_conv, self.post_quant_conv = Conv(z, embed, (1, 1)), Conv(embed, z, (1, 1))
        for _, parameter in self.parameters():
            parameter.requires_grad = False

    def encode(self, x: Tensor) -> Tensor:
        h = self.encoder(x)
        return self.quant_conv(h)

    def decode(self, h: Tensor) -> Tensor:
        quant = self.quantize(h)
        quant = self.post_quant_conv(quant)
        return self.decoder(quant)
