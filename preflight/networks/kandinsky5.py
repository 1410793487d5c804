"""Kandinsky 5's video transformers (bghira/SimpleTuner helpers/models/kandinsky5_video/transformer_kandinsky5.py, commit bc8e6ab).

diffusers' transformer_kandinsky.py differs in that its embedding of time and its modulation heed the autocast. Attention is full,
as of clips of five seconds; the longer ones' sparse attention is not modelled.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from preflight.networks.network import Network, Shape, check_modelled, constructor_arguments
from preflight.tape.activation import gelu, silu
from preflight.tape.attention import attention
from preflight.tape.loss import mse_loss
from preflight.tape.module import Blocks, Checkpointing, LayerNorm, Linear, Module, RMSNorm
from preflight.tape.routing import summed
from preflight.tape.shaping import cat, chunk
from preflight.tape.tensor import Buffer, Tape, Tensor

DEFAULTS: Mapping[str, Any] = {
    "in_visual_dim": 4,
    "in_text_dim": 3584,
    "in_text_dim2": 768,
    "time_dim": 512,
    "out_visual_dim": 4,
    "patch_size": (1, 2, 2),
    "model_dim": 2048,
    "ff_dim": 5120,
    "num_text_blocks": 2,
    "num_visual_blocks": 32,
    "axes_dims": (16, 24, 24),
    "visual_cond": False,
    "attention_type": "regular",
    "stride": (4, 8, 8),
}
MODELLED = {"attention_type": ("regular",)}
TEXT_POSITIONS, POSITIONS = 1024, 128  # max_pos of the tables


class TimeEmbeddings(Module):
    def __init__(self, dim: int, time_dim: int) -> None:
        self.dim = dim
        self.in_layer, self.out_layer = Linear(dim, time_dim), Linear(time_dim, time_dim)
        self.flowmap_delta_emb_gate = Buffer((1,))

    def forward(self, time: Tensor) -> Tensor:
        tape, batch = time.tape, time.shape[0]
        with tape.autocasting("fp32"):
            angles = tape.empty((batch, self.dim // 2), "fp32")
            embedded = cat([angles * 1.0, angles * 1.0], -1)
            return self.out_layer(silu(self.in_layer(embedded)))


class TextEmbeddings(Module):
    def __init__(self, text_dim: int, dim: int) -> None:
        self.in_layer, self.norm = Linear(text_dim, dim), LayerNorm(dim)

    def forward(self, text: Tensor) -> Tensor:
        text = self.in_layer(text)
        return self.norm(text).type_as(text)


class VisualEmbeddings(Module):
    def __init__(self, inputs: int, dim: int) -> None:
        self.in_layer = Linear(inputs, dim)

    def forward(self, x: Tensor, *shape: Any) -> Tensor:
        return self.in_layer(x.contiguous().view(*shape))


class Modulation(Module):
    def __init__(self, time_dim: int, dim: int, pieces: int) -> None:
        self.out_layer = Linear(time_dim, pieces * dim)

    def forward(self, time: Tensor) -> Tensor:
        with time.tape.autocasting("fp32"):
            return self.out_layer(silu(time))


def _modulated(norm: Module, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return (norm(x.float()) * (scale.float() + 1.0) + shift.float()).type_as(x)


def _gated(x: Tensor, gate: Tensor, out: Tensor) -> Tensor:
    return (x.float() + gate.float() * out.float()).type_as(x)


def _vectors(parameters: Tensor, pieces: int) -> tuple[Tensor, ...]:
    return chunk(parameters.view(parameters.shape[0], 1, parameters.shape[1]), pieces, -1)


class Attention(Module):
    """Kandinsky5AttnProcessor."""

    def __init__(self, dim: int, width: int) -> None:
        self.heads, self.width = dim // width, width
        self.to_query, self.to_key, self.to_value = Linear(dim, dim), Linear(dim, dim), Linear(dim, dim)
        self.query_norm, self.key_norm = RMSNorm(width), RMSNorm(width)
        self.out_layer = Linear(dim, dim)

    def forward(self, hidden: Tensor, context: Tensor | None = None, rotary: Tensor | None = None) -> Tensor:
        query = self.to_query(hidden)
        key, value = (layer(hidden if context is None else context) for layer in (self.to_key, self.to_value))
        query, key, value = self._heads(query), self._heads(key), self._heads(value)
        query = self.query_norm(query.float()).type_as(query)
        key = self.key_norm(key.float()).type_as(key)
        if rotary is not None:
            query = _rotate(query, rotary).type_as(query)
            key = _rotate(key, rotary).type_as(key)
        out = attention(*(x.view(x.shape[0], self.heads, x.shape[1], self.width) for x in (query, key, value)))
        return self.out_layer(out.view(*hidden.shape))

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, self.width)


def _rotate(x: Tensor, rotary: Tensor) -> Tensor:
    pairs = x.view(*x.shape[:-1], x.shape[-1] // 2, 1, 2).float()
    return summed(rotary * pairs, 5).view(*x.shape).to("bf16")


class FeedForward(Module):
    def __init__(self, dim: int, inner: int) -> None:
        self.in_layer, self.out_layer = Linear(dim, inner, bias=False), Linear(inner, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.out_layer(gelu(self.in_layer(x)))


class TextBlock(Module):
    """Kandinsky5TransformerEncoderBlock."""

    def __init__(self, dim: int, time_dim: int, inner: int, width: int) -> None:
        self.text_modulation = Modulation(time_dim, dim, 6)
        self.self_attention_norm, self.self_attention = LayerNorm(dim, affine=False), Attention(dim, width)
        self.feed_forward_norm, self.feed_forward = LayerNorm(dim, affine=False), FeedForward(dim, inner)

    def forward(self, x: Tensor, time: Tensor, rotary: Tensor) -> Tensor:
        attention_vectors, ff_vectors = _vectors(self.text_modulation(time), 2)
        shift, scale, gate = chunk(attention_vectors, 3, -1)
        out = _modulated(self.self_attention_norm, x, shift, scale)
        out = self.self_attention(out, rotary=rotary)
        x = _gated(x, gate, out)
        shift, scale, gate = chunk(ff_vectors, 3, -1)
        out = _modulated(self.feed_forward_norm, x, shift, scale)
        out = self.feed_forward(out)
        return _gated(x, gate, out)


class VisualBlock(Module):
    """Kandinsky5TransformerDecoderBlock."""

    def __init__(self, dim: int, time_dim: int, inner: int, width: int) -> None:
        self.visual_modulation = Modulation(time_dim, dim, 9)
        self.self_attention_norm, self.self_attention = LayerNorm(dim, affine=False), Attention(dim, width)
        self.cross_attention_norm, self.cross_attention = LayerNorm(dim, affine=False), Attention(dim, width)
        self.feed_forward_norm, self.feed_forward = LayerNorm(dim, affine=False), FeedForward(dim, inner)

    def forward(self, visual: Tensor, text: Tensor, time: Tensor, rotary: Tensor) -> Tensor:
        attention_vectors, cross_vectors, ff_vectors = _vectors(self.visual_modulation(time), 3)
        shift, scale, gate = chunk(attention_vectors, 3, -1)
        out = _modulated(self.self_attention_norm, visual, shift, scale)
        out = self.self_attention(out, rotary=rotary)
        visual = _gated(visual, gate, out)
        shift, scale, gate = chunk(cross_vectors, 3, -1)
        out = _modulated(self.cross_attention_norm, visual, shift, scale)
        out = self.cross_attention(out, text)
        visual = _gated(visual, gate, out)
        shift, scale, gate = chunk(ff_vectors, 3, -1)
        out = _modulated(self.feed_forward_norm, visual, shift, scale)
        out = self.feed_forward(out)
        return _gated(visual, gate, out)


class OutLayer(Module):
    def __init__(self, dim: int, time_dim: int, outputs: int) -> None:
        self.modulation = Modulation(time_dim, dim, 2)
        self.norm, self.out_layer = LayerNorm(dim, affine=False), Linear(dim, outputs)

    def forward(self, visual: Tensor, time: Tensor) -> Tensor:
        shift, scale = _vectors(self.modulation(time), 2)
        visual = _modulated(self.norm, visual, shift, scale)
        return self.out_layer(visual)


class Kandinsky5(Network):
    guidance_doubles = False  # the pipeline calls it twice, one half after the other

    def __init__(self, dims: Mapping[str, Any], checkpointing: Checkpointing, *, extend: bool = True) -> None:
        arguments = constructor_arguments(dims, DEFAULTS, "Kandinsky5Transformer3DModel")
        check_modelled(arguments, MODELLED, "Kandinsky5Transformer3DModel")
        dim, time_dim, inner = arguments["model_dim"], arguments["time_dim"], arguments["ff_dim"]
        axes = arguments["axes_dims"]
        width = sum(axes)
        self.width, self.dim = width, dim
        self.patch, self.stride = tuple(arguments["patch_size"]), tuple(arguments["stride"])
        self.inputs, self.conditioned = arguments["in_visual_dim"], arguments["visual_cond"]
        self.outputs = arguments["out_visual_dim"]
        self.text_dim, self.pooled_dim = arguments["in_text_dim"], arguments["in_text_dim2"]
        self.channels = prod(self.patch) * (2 * self.inputs + 1 if self.conditioned else self.inputs)
        self.time_embeddings = TimeEmbeddings(dim, time_dim)
        self.text_embeddings = TextEmbeddings(self.text_dim, dim)
        self.pooled_text_embeddings = TextEmbeddings(self.pooled_dim, time_dim)
        self.visual_embeddings = VisualEmbeddings(self.channels, dim)
        self.text_positions = Buffer((TEXT_POSITIONS, width // 2))
        self.args_0, self.args_1, self.args_2 = (Buffer((POSITIONS, axis // 2)) for axis in axes)
        self.text_transformer_blocks = Blocks(
            arguments["num_text_blocks"], lambda _: TextBlock(dim, time_dim, inner, width), checkpointing, extend=extend
        )
        self.visual_transformer_blocks = Blocks(
            arguments["num_visual_blocks"], lambda _: VisualBlock(dim, time_dim, inner, width), checkpointing, extend=extend
        )
        self.out_layer = OutLayer(dim, time_dim, prod(self.patch) * self.outputs)

    def loss(self, tape: Tape, shape: Shape, dtype: str) -> Tensor:
        batch, frames = shape.batch, (shape.frames - 1) // self.stride[0] + 1
        size = (batch, frames, shape.height // self.stride[1], shape.width // self.stride[2])
        latents = tape.empty((*size, self.inputs), dtype)
        condition, mask = tape.empty(latents.shape, dtype), tape.empty((*size, 1), dtype)
        inputs = cat([latents, condition, mask], -1) if self.conditioned else latents
        out = self(
            inputs,
            tape.empty((batch, shape.text_tokens, self.text_dim), dtype),
            tape.empty((batch,), "fp32"),
            tape.empty((batch, self.pooled_dim), dtype),
        )
        del condition, mask
        return mse_loss(out.float(), tape.empty(out.shape, "fp32"))

    def forward(self, latents: Tensor, text: Tensor, time: Tensor, pooled: Tensor) -> Tensor:
        tape, (batch, *pixels, _) = latents.tape, latents.shape
        size = tuple(n // p for n, p in zip(pixels, self.patch, strict=True))
        text_embedded = self.text_embeddings(text)
        time_embedded = self.time_embeddings(time)
        pooled_embedded = self.pooled_text_embeddings(pooled)
        embedded = time_embedded + pooled_embedded
        visual = self.visual_embeddings(latents, batch, prod(size), self.channels)
        text_rotary = tape.empty((1, text.shape[1], 1, self.width // 2, 2, 2), "fp32")
        for block in self.text_transformer_blocks.walk(tape):
            text_embedded = block(text_embedded, embedded, text_rotary)
        angles = tape.empty((batch, prod(size), self.width // 2), "fp32")
        parts = [angles * 1.0, angles * 1.0]  # cosine and sine
        rotary = tape.empty((batch, prod(size), 1, self.width // 2, 2, 2), "fp32")
        del angles, parts
        for block in self.visual_transformer_blocks.walk(tape):
            visual = block(visual, text_embedded, embedded, rotary)
        out = self.out_layer(visual, embedded)
        return out.view(batch, *pixels, self.outputs).contiguous()


NETWORK = Kandinsky5
