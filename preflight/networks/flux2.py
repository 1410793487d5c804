"""FLUX.2 image transformers (diffusers/models/transformers/transformer_flux2.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from preflight.networks.common import Dropout, apply_rotary_emb, timesteps
from preflight.networks.flux import attend
from preflight.networks.network import Network, Shape
from preflight.tape.activation import clip, silu
from preflight.tape.loss import mse_loss
from preflight.tape.module import Blocks, Checkpointing, LayerNorm, Linear, Module, RMSNorm
from preflight.tape.sequence import gathered, share
from preflight.tape.shaping import cat, chunk, narrow
from preflight.tape.slicing import cat_tokens, slice_tokens, split_tokens
from preflight.tape.tensor import Tape, Tensor

Rotary = tuple[Tensor, Tensor]


def swiglu(x: Tensor) -> Tensor:
    """Flux2SwiGLU."""
    half = (*x.shape[:-1], x.shape[-1] // 2)
    return silu(narrow(x, *half)) * narrow(x, *half)


class FeedForward(Module):
    def __init__(self, dim: int, inner_dim: int) -> None:
        self.linear_in, self.linear_out = Linear(dim, inner_dim * 2, bias=False), Linear(inner_dim, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear_in(x)
        x = swiglu(x)
        return self.linear_out(x)


def _heads(x: Tensor, width: int) -> Tensor:
    batch, tokens, dim = x.shape
    return x.view(batch, tokens, dim // width, width)


class Attention(Module):
    """Flux2Attention run by Flux2AttnProcessor."""

    def __init__(self, dim: int, width: int) -> None:
        self.width = width
        self.norm_q, self.norm_k = RMSNorm(width), RMSNorm(width)
        self.to_q, self.to_k, self.to_v = (Linear(dim, dim, bias=False) for _ in range(3))
        self.to_out = [Linear(dim, dim, bias=False), Dropout()]
        self.norm_added_q, self.norm_added_k = RMSNorm(width), RMSNorm(width)
        self.add_q_proj, self.add_k_proj, self.add_v_proj = (Linear(dim, dim, bias=False) for _ in range(3))
        self.to_add_out = Linear(dim, dim, bias=False)

    def forward(self, hidden: Tensor, context: Tensor, rotary: Rotary) -> tuple[Tensor, Tensor]:
        query, key, value = self.to_q(hidden), self.to_k(hidden), self.to_v(hidden)
        query_context, key_context, value_context = self.add_q_proj(context), self.add_k_proj(context), self.add_v_proj(context)
        query, key, value = _heads(query, self.width), _heads(key, self.width), _heads(value, self.width)
        query = self.norm_q(query)
        key = self.norm_k(key)
        query_context, key_context = _heads(query_context, self.width), _heads(key_context, self.width)
        value_context = _heads(value_context, self.width)
        query_context = self.norm_added_q(query_context)
        key_context = self.norm_added_k(key_context)
        query = cat_tokens([query_context, query])
        key = cat_tokens([key_context, key])
        value = cat_tokens([value_context, value])

        query = apply_rotary_emb(query, rotary, tokens_dim=1)
        key = apply_rotary_emb(key, rotary, tokens_dim=1)
        tokens = hidden.shape[1]
        hidden = attend(query, key, value)
        hidden = hidden.to(query.dtype)
        context, hidden = split_tokens(hidden, [context.shape[1], tokens])
        context = self.to_add_out(context)
        hidden = self.to_out[0](hidden)
        return hidden, context


class ParallelAttention(Module):
    """Flux2ParallelSelfAttention: attention and feed-forward between two joint projections."""

    def __init__(self, dim: int, width: int, inner_dim: int) -> None:
        self.dim, self.width, self.inner_dim = dim, width, inner_dim
        self.to_qkv_mlp_proj = Linear(dim, dim * 3 + inner_dim * 2, bias=False)
        self.norm_q, self.norm_k = RMSNorm(width), RMSNorm(width)
        self.to_out = Linear(dim + inner_dim, dim, bias=False)

    def forward(self, hidden: Tensor, rotary: Rotary) -> Tensor:
        hidden = self.to_qkv_mlp_proj(hidden)
        qkv, fed = split_last(hidden, 3 * self.dim)
        query, key, value = chunk(qkv, 3, -1)
        query, key, value = _heads(query, self.width), _heads(key, self.width), _heads(value, self.width)
        query = self.norm_q(query)
        key = self.norm_k(key)
        query = apply_rotary_emb(query, rotary, tokens_dim=1)
        key = apply_rotary_emb(key, rotary, tokens_dim=1)
        hidden = attend(query, key, value)
        hidden = hidden.to(query.dtype)
        fed = swiglu(fed)
        hidden = cat([hidden, fed], -1)
        return self.to_out(hidden)


def split_last(x: Tensor, width: int) -> tuple[Tensor, ...]:
    """Two views along the last dimension, the first `width` wide; their gradients are put together in one new tensor."""
    turned = x.view(x.shape[0], x.shape[2], x.shape[1])
    parts = split_tokens(turned, [width, x.shape[2] - width])
    return tuple(Tensor.view(part, part.shape[0], part.shape[2], part.shape[1]) for part in parts)


def split_modulation(mod: Tensor, sets: int) -> tuple[Tensor, ...]:
    """Flux2Modulation.split: `sets` of shift, scale and gate."""
    return chunk(mod.view(mod.shape[0], 1, mod.shape[1]), 3 * sets, -1)


class DualBlock(Module):
    """Flux2TransformerBlock: image and text side by side."""

    def __init__(self, dim: int, width: int, inner_dim: int) -> None:
        self.norm1, self.norm1_context = LayerNorm(dim, affine=False), LayerNorm(dim, affine=False)
        self.attn = Attention(dim, width)
        self.norm2 = LayerNorm(dim, affine=False)
        self.ff = FeedForward(dim, inner_dim)
        self.norm2_context = LayerNorm(dim, affine=False)
        self.ff_context = FeedForward(dim, inner_dim)

    def forward(
        self, hidden: Tensor, context: Tensor, mod_image: Tensor, mod_text: Tensor, rotary: Rotary
    ) -> tuple[Tensor, Tensor]:
        shift, scale, gate, ff_shift, ff_scale, ff_gate = split_modulation(mod_image, 2)
        shift_context, scale_context, gate_context, ff_shift_context, ff_scale_context, ff_gate_context = split_modulation(
            mod_text, 2
        )

        normed = self.norm1(hidden)
        normed = (1 + scale) * normed + shift
        normed_context = self.norm1_context(context)
        normed_context = (1 + scale_context) * normed_context + shift_context
        outputs = self.attn(normed, normed_context, rotary)  # the tuple keeps both to the end, as in the original
        attended, attended_context = outputs

        attended = gate * attended
        hidden = hidden + attended
        normed = self.norm2(hidden)
        normed = normed * (1 + ff_scale) + ff_shift
        fed = self.ff(normed)
        hidden = hidden + ff_gate * fed

        attended_context = gate_context * attended_context
        context = context + attended_context
        normed_context = self.norm2_context(context)
        normed_context = normed_context * (1 + ff_scale_context) + ff_shift_context
        fed_context = self.ff_context(normed_context)
        context = context + ff_gate_context * fed_context
        if context.dtype == "fp16":
            context = clip(context)
        return hidden, context


class SingleBlock(Module):
    """Flux2SingleTransformerBlock: text and image as one sequence."""

    def __init__(self, dim: int, width: int, inner_dim: int) -> None:
        self.norm = LayerNorm(dim, affine=False)
        self.attn = ParallelAttention(dim, width, inner_dim)

    def forward(self, hidden: Tensor, mod: Tensor, rotary: Rotary) -> Tensor:
        shift, scale, gate = split_modulation(mod, 1)
        normed = self.norm(hidden)
        normed = (1 + scale) * normed + shift
        attended = self.attn(normed, rotary)
        hidden = hidden + gate * attended
        return clip(hidden) if hidden.dtype == "fp16" else hidden


class TimestepEmbedding(Module):
    """embeddings.py: TimestepEmbedding without biases."""

    def __init__(self, inputs: int, dim: int) -> None:
        self.linear_1, self.linear_2 = Linear(inputs, dim, bias=False), Linear(dim, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear_1(x)
        x = silu(x)
        return self.linear_2(x)


class TimeGuidance(Module):
    """Flux2TimestepGuidanceEmbeddings."""

    def __init__(self, inputs: int, dim: int, *, guidance: bool) -> None:
        self.inputs = inputs
        self.timestep_embedder = TimestepEmbedding(inputs, dim)
        self.guidance_embedder = TimestepEmbedding(inputs, dim) if guidance else None

    def forward(self, x: Tensor) -> Tensor:
        tape, batch = x.tape, x.shape[0]
        temb = self.timestep_embedder(timesteps(tape, batch, self.inputs).to(x.dtype))
        if self.guidance_embedder is not None:
            temb = temb + self.guidance_embedder(timesteps(tape, batch, self.inputs).to(x.dtype))
        return temb


class Modulation(Module):
    def __init__(self, dim: int, sets: int) -> None:
        self.linear = Linear(dim, dim * 3 * sets, bias=False)

    def forward(self, temb: Tensor) -> Tensor:
        return self.linear(silu(temb))


class NormOut(Module):
    """normalization.py: AdaLayerNormContinuous without biases."""

    def __init__(self, dim: int) -> None:
        self.linear = Linear(dim, dim * 2, bias=False)
        self.norm = LayerNorm(dim, affine=False)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        emb = self.linear(silu(condition).to(x.dtype))
        batch, dim = x.shape[0], x.shape[-1]
        scale, shift = chunk(emb, 2, 1)
        return self.norm(x) * (1 + scale).view(batch, 1, dim) + shift.view(batch, 1, dim)


class Flux2(Network):
    divides_sequence = True  # its _cp_plan: image and text are cut as they come in

    def __init__(self, dims: Mapping[str, Any], checkpointing: Checkpointing, *, extend: bool = True) -> None:
        self.width = dims["attention_head_dim"]
        dim = dims["num_attention_heads"] * self.width
        inner_dim = int(dim * dims["mlp_ratio"])
        patch, self.inputs, self.text_dim = dims["patch_size"], dims["in_channels"], dims["joint_attention_dim"]
        self.stride = tuple(dims["stride"])
        guidance = dims.get("guidance_embeds", True)
        self.time_guidance_embed = TimeGuidance(dims["timestep_guidance_channels"], dim, guidance=guidance)
        self.double_stream_modulation_img, self.double_stream_modulation_txt = Modulation(dim, 2), Modulation(dim, 2)
        self.single_stream_modulation = Modulation(dim, 1)
        self.x_embedder, self.context_embedder = Linear(self.inputs, dim, bias=False), Linear(self.text_dim, dim, bias=False)
        self.transformer_blocks = Blocks(
            dims["num_layers"], lambda _: DualBlock(dim, self.width, inner_dim), checkpointing, extend=extend
        )
        self.single_transformer_blocks = Blocks(
            dims["num_single_layers"], lambda _: SingleBlock(dim, self.width, inner_dim), checkpointing, extend=extend
        )
        self.norm_out = NormOut(dim)
        self.proj_out = Linear(dim, patch * patch * (dims.get("out_channels") or self.inputs), bias=False)

    def loss(self, tape: Tape, shape: Shape, dtype: str) -> Tensor:
        batch = shape.batch
        # the pipeline packs the latents two by two into channels
        tokens = (shape.height // (2 * self.stride[1])) * (shape.width // (2 * self.stride[2]))
        out = self(
            tape.empty((batch, share(tokens, shape.sequence), self.inputs), dtype),
            tape.empty((batch, share(shape.text_tokens, shape.sequence), self.text_dim), dtype),
        )
        out = gathered(out, shape.sequence)
        return mse_loss(out.float(), tape.empty(out.shape, "fp32"))

    def forward(self, latents: Tensor, text: Tensor) -> Tensor:
        tape, image_tokens = latents.tape, latents.shape[1]
        temb = self.time_guidance_embed(latents)
        mod_image, mod_text = self.double_stream_modulation_img(temb), self.double_stream_modulation_txt(temb)
        mod_single = self.single_stream_modulation(temb)
        hidden = self.x_embedder(latents)
        context = self.context_embedder(text)
        tokens = text.shape[1] + image_tokens
        parts = [tape.empty((n, self.width), "fp32") for n in (image_tokens, image_tokens, text.shape[1], text.shape[1])]
        rotary = (tape.empty((tokens, self.width), "fp32"), tape.empty((tokens, self.width), "fp32"))

        for block in self.transformer_blocks.walk(tape):
            hidden, context = block(hidden, context, mod_image, mod_text, rotary)
        hidden = cat_tokens([context, hidden])
        for block in self.single_transformer_blocks.walk(tape):
            hidden = block(hidden, mod_single, rotary)
        hidden = slice_tokens(hidden, image_tokens)
        hidden = self.norm_out(hidden, temb)
        del parts
        return self.proj_out(hidden)


NETWORK = Flux2
