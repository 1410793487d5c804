"""Z-Image transformers: text and image as one sequence (diffusers/models/transformers/transformer_z_image.py).

Samples come as a list, each with tokens of its own; all are taken to be as long as the longest, so that none is masked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from preflight.networks.common import Dropout, PlainRMSNorm, timesteps
from preflight.networks.network import Network, NotModelled, Shape
from preflight.networks.qwen_image import Layers, sequential
from preflight.tape.activation import silu, tanh
from preflight.tape.attention import attention
from preflight.tape.complex import apply_complex_rotary
from preflight.tape.loss import mse_loss
from preflight.tape.meter import Size
from preflight.tape.module import Blocks, Checkpointing, LayerNorm, Linear, Module
from preflight.tape.shaping import cat, chunk, narrow, where
from preflight.tape.tensor import Buffer, Parameter, Tape, Tensor

ADALN_EMBED_DIM = 256
SEQ_MULTI_OF = 32


class Attention(Module):
    """ZSingleStreamAttnProcessor."""

    def __init__(self, dim: int, heads: int) -> None:
        self.heads = heads
        self.norm_q, self.norm_k = PlainRMSNorm(dim // heads), PlainRMSNorm(dim // heads)
        self.to_q, self.to_k, self.to_v = (Linear(dim, dim, bias=False) for _ in range(3))
        self.to_out = [Linear(dim, dim, bias=False), Dropout()]

    def forward(self, hidden: Tensor, freqs: Tensor) -> Tensor:
        batch, tokens, dim = hidden.shape
        query, key, value = self.to_q(hidden), self.to_k(hidden), self.to_v(hidden)
        query, key, value = (x.view(batch, tokens, self.heads, dim // self.heads) for x in (query, key, value))
        query = self.norm_q(query)
        key = self.norm_k(key)
        query = apply_complex_rotary(query, freqs)
        key = apply_complex_rotary(key, freqs)
        heads = (batch, self.heads, tokens, dim // self.heads)
        hidden = attention(query.view(*heads), key.view(*heads), value.view(*heads))
        hidden = hidden.view(batch, tokens, dim)
        return self.to_out[0](hidden)


class FeedForward(Module):
    def __init__(self, dim: int, hidden_dim: int) -> None:
        self.w1, self.w2 = Linear(dim, hidden_dim, bias=False), Linear(hidden_dim, dim, bias=False)
        self.w3 = Linear(dim, hidden_dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.w2(_gated(self.w1(x), self.w3(x)))


def _gated(x1: Tensor, x3: Tensor) -> Tensor:
    return silu(x1) * x3


class Block(Module):
    def __init__(self, dim: int, heads: int, *, modulation: bool) -> None:
        self.attention = Attention(dim, heads)
        self.feed_forward = FeedForward(dim, int(dim / 3 * 8))
        self.attention_norm1, self.ffn_norm1 = PlainRMSNorm(dim), PlainRMSNorm(dim)
        self.attention_norm2, self.ffn_norm2 = PlainRMSNorm(dim), PlainRMSNorm(dim)
        self.modulation = modulation
        if modulation:
            self.adaLN_modulation = [Linear(min(dim, ADALN_EMBED_DIM), 4 * dim)]

    def forward(self, x: Tensor, freqs: Tensor, condition: Tensor | None) -> Tensor:
        if not self.modulation or condition is None:
            attended = self.attention(self.attention_norm1(x), freqs)
            x = x + self.attention_norm2(attended)
            return x + self.ffn_norm2(self.feed_forward(self.ffn_norm1(x)))
        mod = sequential(self.adaLN_modulation, condition)
        scale, gate, ff_scale, ff_gate = chunk(mod.view(mod.shape[0], 1, mod.shape[1]), 4, 2)
        gate, ff_gate = tanh(gate), tanh(ff_gate)
        scale, ff_scale = 1.0 + scale, 1.0 + ff_scale
        attended = self.attention(self.attention_norm1(x) * scale, freqs)
        x = x + gate * self.attention_norm2(attended)
        return x + ff_gate * self.ffn_norm2(self.feed_forward(self.ffn_norm1(x) * ff_scale))


class FinalLayer(Module):
    def __init__(self, dim: int, outputs: int) -> None:
        self.norm_final = LayerNorm(dim, affine=False)
        self.linear = Linear(dim, outputs)
        self.adaLN_modulation: Layers = [silu, Linear(min(dim, ADALN_EMBED_DIM), dim)]

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        scale = 1.0 + sequential(self.adaLN_modulation, condition)
        x = self.norm_final(x) * scale.view(scale.shape[0], 1, scale.shape[1])
        return self.linear(x)


class TimestepEmbedder(Module):
    def __init__(self, outputs: int, middle: int) -> None:
        self.first = Linear(256, middle)
        self.mlp: Layers = [self.first, silu, Linear(middle, outputs)]

    def children(self) -> Any:
        return ((f"mlp.{i}", layer, 1) for i, layer in enumerate(self.mlp) if isinstance(layer, Module))

    def forward(self, tape: Tape, batch: Size) -> Tensor:
        return sequential(self.mlp, timesteps(tape, batch, 256).to(self.first.weight.dtype))


class Table(Module):
    """The turns of one axis (RopeEmbedder)."""

    def __init__(self, length: int, half: int) -> None:
        self.freqs = Buffer((length, half), "complex64")


class ZImage(Network):
    guidance_doubles = True

    def __init__(self, dims: Mapping[str, Any], checkpointing: Checkpointing, *, extend: bool = True) -> None:
        for name, value in (("all_patch_size", [2]), ("all_f_patch_size", [1]), ("qk_norm", True), ("siglip_feat_dim", None)):
            given = dims.get(name, value)
            if (list(given) if isinstance(given, tuple | list) else given) != value:
                raise NotModelled(f"Z-Image with {name} {given!r} is not modelled, only {value!r}")
        dim, heads, self.channels, self.text_dim = dims["dim"], dims["n_heads"], dims["in_channels"], dims["cap_feat_dim"]
        self.dim, self.stride, self.half = dim, tuple(dims["stride"]), dim // heads // 2
        # moved to the GPU once, and kept there
        lengths = zip(dims["axes_dims"], dims["axes_lens"], strict=True)
        self.freqs_cis = [Table(length, width // 2) for width, length in lengths]
        patch = 2 * 2 * self.channels
        self.x_embedder = Linear(patch, dim)
        self.final_layer = FinalLayer(dim, patch)
        refiners = dims["n_refiner_layers"]
        self.noise_refiner = Blocks(refiners, lambda _: Block(dim, heads, modulation=True), checkpointing, extend=extend)
        self.context_refiner = Blocks(refiners, lambda _: Block(dim, heads, modulation=False), checkpointing, extend=extend)
        self.t_embedder = TimestepEmbedder(min(dim, ADALN_EMBED_DIM), 1024)
        self.cap_embedder = [PlainRMSNorm(self.text_dim), Linear(self.text_dim, dim)]
        self.x_pad_token, self.cap_pad_token = Parameter((1, dim)), Parameter((1, dim))
        self.layers = Blocks(dims["n_layers"], lambda _: Block(dim, heads, modulation=True), checkpointing, extend=extend)

    def loss(self, tape: Tape, shape: Shape, dtype: str) -> Tensor:
        batch, height, width = shape.batch, shape.height // self.stride[1], shape.width // self.stride[2]
        latents = tape.empty((batch, self.channels, height, width), dtype)
        text = tape.empty((batch, shape.text_tokens, self.text_dim), dtype)
        out = self(latents, text)
        out = cat([out.float()], 0)
        return mse_loss(-out, tape.empty(out.shape, "fp32"))

    def forward(self, latents: Tensor, text: Tensor) -> Tensor:
        tape, (batch, channels, height, width) = latents.tape, latents.shape
        condition = self.t_embedder(tape, batch).type_as(latents)
        image_tokens = -(-((height // 2) * (width // 2)) // SEQ_MULTI_OF) * SEQ_MULTI_OF
        text_tokens = -(-text.shape[1] // SEQ_MULTI_OF) * SEQ_MULTI_OF
        text = tape.empty((batch * text_tokens, self.text_dim), text.dtype)
        image = tape.empty((batch * image_tokens, 4 * channels), latents.dtype)

        image = self.x_embedder(cat([image], 0))
        image, image_freqs = self._prepare_sequence(image, batch, self.x_pad_token)
        for block in self.noise_refiner.walk(tape):
            image = block(image, image_freqs, condition)

        text = sequential(self.cap_embedder, cat([text], 0))
        text, text_freqs = self._prepare_sequence(text, batch, self.cap_pad_token)
        for block in self.context_refiner.walk(tape):
            text = block(text, text_freqs, None)

        unified = self._unified(image, text)
        freqs = tape.empty((batch, image_tokens + text_tokens, self.half), "complex64")
        for block in self.layers.walk(tape):
            unified = block(unified, freqs, condition)
        unified = self.final_layer(unified, condition)
        image = narrow(unified, batch, (height // 2) * (width // 2), 4 * channels)
        return image.view(batch, channels, height, width).contiguous()

    def _prepare_sequence(self, feats: Tensor, batch: Size, pad_token: Parameter) -> tuple[Tensor, Tensor]:
        tape, (tokens, dim) = feats.tape, feats.shape
        joined = cat([feats], 0)
        mask = tape.empty((tokens, 1), "bool")
        joined = where(joined, pad_token, mask)
        freqs = tape.empty((batch, tokens // batch, self.half), "complex64")
        padded = cat([joined.view(batch, tokens // batch, dim)], 0)
        return padded, freqs

    def _unified(self, image: Tensor, text: Tensor) -> Tensor:
        joined = cat([narrow(image, *image.shape), narrow(text, *text.shape)], 1)
        return cat([joined], 0)


NETWORK = ZImage
