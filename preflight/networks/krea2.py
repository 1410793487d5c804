"""Krea 2's transformer as the authors' code and its ports have it (kohya-ss/musubi-tuner src/musubi_tuner/krea2/krea2_mmdit.py).

`dims` are those of diffusers' Krea2Transformer2DModel. Every token of the text is taken to be valid, so that attention runs without
a mask, on the tokens before those that pad the sequence to a multiple of 256.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from preflight.networks.network import Network, Shape, constructor_arguments
from preflight.networks.qwen_image import Layers, sequential
from preflight.tape.activation import gelu, sigmoid, silu
from preflight.tape.attention import attention
from preflight.tape.loss import mse_loss
from preflight.tape.meter import Size
from preflight.tape.module import Blocks, Checkpointing, Linear, Module
from preflight.tape.normalization import rms_norm
from preflight.tape.reentrant import wanting_gradient
from preflight.tape.shaping import cat, chunk, narrow, pad
from preflight.tape.slicing import slice_tokens
from preflight.tape.tensor import Parameter, Tape, Tensor

DEFAULTS: Mapping[str, Any] = {
    "in_channels": 64,
    "num_layers": 28,
    "attention_head_dim": 128,
    "num_attention_heads": 48,
    "num_key_value_heads": 12,
    "intermediate_size": 16384,
    "timestep_embed_dim": 256,
    "text_hidden_dim": 2560,
    "num_text_layers": 12,
    "text_num_attention_heads": 20,
    "text_num_key_value_heads": 20,
    "text_intermediate_size": 6912,
    "num_layerwise_text_blocks": 2,
    "num_refiner_text_blocks": 2,
    "stride": (1, 8, 8),
}
MULTIPLE = 256  # of the tokens of a sequence


class RMSNorm(Module):
    """A weight around zero; everything in float32. Heads before their tokens (`apart`) come out one after the other, as a copy."""

    def __init__(self, width: int, *, apart: bool = False) -> None:
        self.scale = Parameter((width,))
        self.apart = apart

    def forward(self, x: Tensor) -> Tensor:
        wide, dtype = x.float(), x.dtype
        wide = rms_norm(wide, self.scale.float() + 1.0)
        if self.apart:
            wide = wide.contiguous()
        return wide.to(dtype)


class SwiGLU(Module):
    def __init__(self, dim: int, inner: int) -> None:
        self.gate, self.up = Linear(dim, inner, bias=False), Linear(dim, inner, bias=False)
        self.down = Linear(inner, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(silu(self.gate(x)) * self.up(x))


class QKNorm(Module):
    def __init__(self, width: int) -> None:
        self.qnorm, self.knorm = RMSNorm(width, apart=True), RMSNorm(width, apart=True)

    def forward(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        return self.qnorm(query), self.knorm(key)


class Attention(Module):
    """Grouped queries, whose keys and values are repeated for the kernel; the result is gated."""

    def __init__(self, dim: int, heads: int, key_heads: int) -> None:
        self.heads, self.key_heads, self.width = heads, key_heads, dim // heads
        self.wq, self.wk = Linear(dim, dim, bias=False), Linear(dim, key_heads * self.width, bias=False)
        self.wv, self.gate = Linear(dim, key_heads * self.width, bias=False), Linear(dim, dim, bias=False)
        self.qknorm = QKNorm(self.width)
        self.wo = Linear(dim, dim, bias=False)

    def forward(self, x: Tensor, freqs: Tensor | None = None, valid: Size | None = None) -> Tensor:
        query, key, value, gate = self.wq(x), self.wk(x), self.wv(x), self.gate(x)
        query, key, value = self._heads(query, self.heads), self._heads(key, self.key_heads), self._heads(value, self.key_heads)
        query, key = self.qknorm(query, key)
        if freqs is not None:
            query, key = _rotated(query, key, freqs)
        out = _attended(query, key, value, valid)
        return self.wo(out * sigmoid(gate))

    def _heads(self, x: Tensor, heads: int) -> Tensor:
        return x.view(x.shape[0], heads, x.shape[1], self.width)


def _rotated(query: Tensor, key: Tensor, freqs: Tensor) -> tuple[Tensor, Tensor]:
    """ropeapply: both in float32 beside each other."""
    wide_query, wide_key = _pairs(query), _pairs(key)
    wide_query = _turned(wide_query, freqs)
    wide_key = _turned(wide_key, freqs)
    return wide_query.view(*query.shape).to(query.dtype), wide_key.view(*key.shape).to(key.dtype)


def _pairs(x: Tensor) -> Tensor:
    return x.float().view(*x.shape[:3], x.shape[3] // 2, 1, 2)


def _turned(x: Tensor, freqs: Tensor) -> Tensor:
    half = (*x.shape[:4], 1)
    parts = (*freqs.shape[:4], 2)
    return narrow(freqs, *parts) * narrow(x, *half) + narrow(freqs, *parts) * narrow(x, *half)


def _attended(query: Tensor, key: Tensor, value: Tensor, valid: Size | None) -> Tensor:
    """modules/attention.py: the `valid` tokens alone, padded again, or all of them; (B, tokens, heads x width)."""
    batch, heads, tokens, width = query.shape
    if valid is not None:
        query, key, value = (_trimmed(x, valid) for x in (query, key, value))
    if key.shape[1] != heads:
        key = _repeated(key, heads)
        value = _repeated(value, heads)
    out = attention(query, key, value)
    del query, key, value
    out = out.contiguous().view(batch, out.shape[2], heads * width)
    return out if valid is None else pad(out, batch, tokens, heads * width)


def _trimmed(x: Tensor, tokens: Size) -> Tensor:
    return narrow(x, *x.shape[:2], tokens, x.shape[3])


def _repeated(x: Tensor, heads: int) -> Tensor:
    """repeat_interleave."""
    shape = (x.shape[0], heads, *x.shape[2:])
    return pad(x, *shape)


class TextFusionBlock(Module):
    def __init__(self, dim: int, heads: int, key_heads: int, inner: int) -> None:
        self.prenorm, self.postnorm = RMSNorm(dim), RMSNorm(dim)
        self.attn, self.mlp = Attention(dim, heads, key_heads), SwiGLU(dim, inner)

    def forward(self, x: Tensor, valid: Size | None = None) -> Tensor:
        x = x + self.attn(self.prenorm(x), None, valid)
        return x + self.mlp(self.postnorm(x))


class TextFusion(Module):
    """TextFusionTransformer: over the layers of each token, then over the tokens."""

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        dim = arguments["text_hidden_dim"]
        heads, key_heads = arguments["text_num_attention_heads"], arguments["text_num_key_value_heads"]
        inner = arguments["text_intermediate_size"]
        self.layerwise_blocks, self.refiner_blocks = (
            [TextFusionBlock(dim, heads, key_heads, inner) for _ in range(arguments[f"num_{name}_text_blocks"])]
            for name in ("layerwise", "refiner")
        )
        self.projector = Linear(arguments["num_text_layers"], 1, bias=False)

    def forward(self, context: Tensor) -> Tensor:
        batch, tokens, layers, dim = context.shape
        x = context.view(batch * tokens, layers, dim)
        for block in self.layerwise_blocks:
            x = block(x)
        x = x.view(batch, tokens, dim, layers)
        x = self.projector(x.contiguous())
        x = x.view(batch, tokens, dim)
        for block in self.refiner_blocks:
            x = block(x, tokens)
        return x


class Modulation(Module):
    def __init__(self, *shape: int) -> None:
        self.lin = Parameter(shape)


class Block(Module):
    """SingleStreamBlock."""

    def __init__(self, arguments: Mapping[str, Any], dim: int) -> None:
        self.mod = Modulation(6 * dim)
        self.prenorm, self.postnorm = RMSNorm(dim), RMSNorm(dim)
        self.attn = Attention(dim, arguments["num_attention_heads"], arguments["num_key_value_heads"])
        self.mlp = SwiGLU(dim, arguments["intermediate_size"])

    def forward(self, x: Tensor, vectors: Tensor, freqs: Tensor, valid: Size) -> Tensor:
        scale, shift, gate, ff_scale, ff_shift, ff_gate = chunk(vectors + self.mod.lin, 6, -1)
        x = x + gate * self.attn((scale + 1) * self.prenorm(x) + shift, freqs, valid)
        return x + ff_gate * self.mlp((ff_scale + 1) * self.postnorm(x) + ff_shift)


class LastLayer(Module):
    def __init__(self, dim: int, outputs: int) -> None:
        self.norm, self.linear = RMSNorm(dim), Linear(dim, outputs)
        self.modulation = Modulation(2, dim)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        scale, shift = chunk(time + self.modulation.lin, 2, 1)
        x = (scale + 1) * self.norm(x) + shift
        return self.linear(x)


class Krea2(Network):
    guidance_doubles = False  # krea2_train_network.py: do_inference calls it twice, one half after the other

    def __init__(self, dims: Mapping[str, Any], checkpointing: Checkpointing, *, extend: bool = True) -> None:
        arguments = constructor_arguments(dims, DEFAULTS, "Krea2Transformer2DModel")
        dim = arguments["num_attention_heads"] * arguments["attention_head_dim"]
        text_dim = arguments["text_hidden_dim"]
        self.channels, self.width, self.stride = arguments["in_channels"], arguments["attention_head_dim"], arguments["stride"]
        self.time_dim, self.text_layers, self.text_dim = arguments["timestep_embed_dim"], arguments["num_text_layers"], text_dim
        self.checkpointing = checkpointing.covers(0, arguments["num_layers"])
        self.first = Linear(self.channels, dim)
        self.blocks = Blocks(arguments["num_layers"], lambda _: Block(arguments, dim), checkpointing, extend=extend)
        self.tmlp: Layers = [Linear(self.time_dim, dim), gelu, Linear(dim, dim)]
        self.txtfusion = TextFusion(arguments)
        self.txtmlp: Layers = [RMSNorm(text_dim), Linear(text_dim, dim), gelu, Linear(dim, dim)]
        self.last = LastLayer(dim, self.channels)
        self.tproj: Layers = [gelu, Linear(dim, dim * 6)]

    def loss(self, tape: Tape, shape: Shape, dtype: str) -> Tensor:
        batch, height, width = shape.batch, shape.height // (2 * self.stride[1]), shape.width // (2 * self.stride[2])
        latents = tape.empty((batch, height * width, self.channels), dtype)
        context = tape.empty((batch, shape.text_tokens, self.text_layers, self.text_dim), dtype)
        if self.checkpointing and tape.grad_enabled:
            latents, context = wanting_gradient(latents), wanting_gradient(context)
        out = self(latents, context)
        out = out.contiguous()
        return mse_loss(out.float(), tape.empty(out.shape, "fp32"))

    def forward(self, latents: Tensor, context: Tensor) -> Tensor:
        tape, (batch, image_tokens, _) = latents.tape, latents.shape
        image = self.first(latents)
        time = sequential(self.tmlp, tape.empty((batch, 1, self.time_dim), image.dtype))
        vectors = sequential(self.tproj, time)
        context = self.txtfusion(context)
        context = sequential(self.txtmlp, context)
        combined = cat([image, context], 1)
        valid = combined.shape[1]
        padded = -(-valid // MULTIPLE) * MULTIPLE
        combined = pad(combined, batch, padded, combined.shape[2])
        freqs = tape.empty((batch, 1, padded, self.width // 2, 2, 2), "fp32")
        for block in self.blocks.walk(tape):
            combined = block(combined, vectors, freqs, valid)
        final = self.last(combined, time)
        return slice_tokens(final, image_tokens)


NETWORK = Krea2
