"""LTX-Video transformers (diffusers/models/transformers/transformer_ltx.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from preflight.networks.common import Dropout, FeedForward, TextProjection, TimestepEmbedding, timesteps
from preflight.networks.network import Network, NotModelled, Shape
from preflight.tape.activation import rsqrt, silu
from preflight.tape.attention import attention
from preflight.tape.loss import mse_loss
from preflight.tape.meter import Size
from preflight.tape.module import Blocks, Checkpointing, LayerNorm, Linear, Module, RMSNorm
from preflight.tape.normalization import mean_of_squares
from preflight.tape.shaping import cat, narrow, stack, unbind
from preflight.tape.tensor import Parameter, Tape, Tensor

STRIDE = (8, 32, 32)  # autoencoder_kl_ltx.py: frames, height, width of a latent


def rms_norm(x: Tensor) -> Tensor:
    """normalization.py: RMSNorm without a weight."""
    dtype = x.dtype
    variance = mean_of_squares(x.float())
    x = x * rsqrt(variance + 1e-6)
    return x.to(dtype)


def apply_rotary_emb(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Neighbours of x (B, tokens, dim) turned as pairs."""
    batch, tokens, dim = x.shape
    real, imaginary = unbind(x.view(batch, tokens, dim // 2, 2), -1)
    rotated = stack([-imaginary, real]).view(batch, tokens, dim)
    return (x.float() * cos + rotated.float() * sin).to(x.dtype)


class Attention(Module):
    def __init__(self, dim: int, heads: int, *, context_dim: int, bias: bool, out_bias: bool) -> None:
        self.heads = heads
        self.norm_q, self.norm_k = RMSNorm(dim), RMSNorm(dim)
        self.to_q = Linear(dim, dim, bias=bias)
        self.to_k, self.to_v = Linear(context_dim, dim, bias=bias), Linear(context_dim, dim, bias=bias)
        self.to_out = [Linear(dim, dim, bias=out_bias), Dropout()]

    def forward(self, hidden: Tensor, context: Tensor | None, rotary: tuple[Tensor, Tensor] | None, mask: Tensor | None) -> Tensor:
        if mask is not None:
            batch, _, tokens = mask.shape
            mask = mask.tape.empty((batch, self.heads, 1, tokens), mask.dtype)  # repeated for every head
        if context is None:
            context = hidden
        query, key, value = self.to_q(hidden), self.to_k(context), self.to_v(context)
        query = self.norm_q(query)
        key = self.norm_k(key)
        if rotary is not None:
            query = apply_rotary_emb(query, *rotary)
            key = apply_rotary_emb(key, *rotary)
        query, key, value = self._heads(query), self._heads(key), self._heads(value)
        hidden = attention(query, key, value, mask)
        hidden = hidden.view(hidden.shape[0], hidden.shape[2], hidden.shape[1] * hidden.shape[3])
        return self.to_out[0](hidden)

    def _heads(self, x: Tensor) -> Tensor:
        batch, tokens, dim = x.shape
        return x.view(batch, self.heads, tokens, dim // self.heads)


class Block(Module):
    def __init__(self, dim: int, heads: int, context_dim: int, *, bias: bool, out_bias: bool) -> None:
        self.attn1 = Attention(dim, heads, context_dim=dim, bias=bias, out_bias=out_bias)
        self.attn2 = Attention(dim, heads, context_dim=context_dim, bias=bias, out_bias=out_bias)
        self.ff = FeedForward(dim, dim * 4)
        self.scale_shift_table = Parameter((6, dim))

    def forward(self, hidden: Tensor, text: Tensor, temb: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
        batch, ones, _ = temb.shape
        _, dim = self.scale_shift_table.shape
        normed = rms_norm(hidden)

        values = self.scale_shift_table.view(1, 1, 6, dim) + temb.view(batch, ones, 6, dim)
        shift, scale, gate, ff_shift, ff_scale, ff_gate = unbind(values, 2)
        normed = normed * (1 + scale) + shift
        attended = self.attn1(normed, None, (cos, sin), None)
        hidden = hidden + attended * gate

        attended = self.attn2(hidden, text, None, mask)
        hidden = hidden + attended
        normed = rms_norm(hidden) * (1 + ff_scale) + ff_shift

        fed = self.ff(normed)
        return hidden + fed * ff_gate


class TimeEmbed(Module):
    """normalization.py: AdaLayerNormSingle; names emb.timestep_embedder and linear as there."""

    def __init__(self, dim: int) -> None:
        self.emb = _Embedder(dim)
        self.linear = Linear(dim, dim * 6)

    def forward(self, tape: Tape, batch: Size, dtype: str) -> tuple[Tensor, Tensor]:
        embedded = self.emb(timesteps(tape, batch, 256).to(dtype))
        return self.linear(silu(embedded)), embedded


class _Embedder(Module):
    def __init__(self, dim: int) -> None:
        self.timestep_embedder = TimestepEmbedding(256, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.timestep_embedder(x)


class LTXVideo(Network):
    def __init__(self, dims: Mapping[str, Any], checkpointing: Checkpointing, *, extend: bool = True) -> None:
        for name, value in (("patch_size", 1), ("patch_size_t", 1), ("norm_elementwise_affine", False)):
            if dims.get(name, value) != value:
                raise NotModelled(f"LTX-Video with {name} {dims[name]!r} is not modelled, only {value!r}")
        heads, width = dims.get("num_attention_heads", 32), dims.get("attention_head_dim", 64)
        dim = heads * width
        self.stride = tuple(dims.get("stride", STRIDE))
        self.inputs, self.text_dim = dims.get("in_channels", 128), dims.get("caption_channels", 4096)
        self.proj_in = Linear(self.inputs, dim)
        self.scale_shift_table = Parameter((2, dim))
        self.time_embed = TimeEmbed(dim)
        self.caption_projection = TextProjection(self.text_dim, dim, dim)
        context_dim = dims.get("cross_attention_dim", 2048)
        bias, out_bias = dims.get("attention_bias", True), dims.get("attention_out_bias", True)
        self.transformer_blocks = Blocks(
            dims.get("num_layers", 28),
            lambda _: Block(dim, heads, context_dim, bias=bias, out_bias=out_bias),
            checkpointing,
            extend=extend,
        )
        self.norm_out = LayerNorm(dim, affine=False)
        self.proj_out = Linear(dim, dims.get("out_channels") or self.inputs)
        self.dim = dim

    def loss(self, tape: Tape, shape: Shape, dtype: str) -> Tensor:
        frames = (shape.frames - 1) // self.stride[0] + 1
        tokens = frames * (shape.height // self.stride[1]) * (shape.width // self.stride[2])
        out = self(
            tape.empty((shape.batch, tokens, self.inputs), dtype),
            tape.empty((shape.batch, shape.text_tokens, self.text_dim), dtype),
            tape.empty((shape.batch, shape.text_tokens), "bool"),
        )
        return mse_loss(out.float(), tape.empty(out.shape, "fp32"))

    def forward(self, hidden: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        tape, (batch, tokens, _) = hidden.tape, hidden.shape
        cos, sin = self._rope(tape, batch, tokens)
        mask = mask.to(hidden.dtype).view(batch, 1, mask.shape[1])
        hidden = self.proj_in(hidden)
        temb, embedded = self.time_embed(tape, batch, hidden.dtype)
        temb, embedded = temb.view(batch, 1, 6 * self.dim), embedded.view(batch, 1, 1, self.dim)
        text = self.caption_projection(text)
        for block in self.transformer_blocks.walk(tape):
            hidden = block(hidden, text, temb, cos, sin, mask)

        values = self.scale_shift_table.view(1, 1, 2, self.dim) + embedded
        shift, scale = narrow(values, batch, 1, self.dim), narrow(values, batch, 1, self.dim)
        hidden = self.norm_out(hidden)
        hidden = hidden * (1 + scale) + shift
        return self.proj_out(hidden)

    def _rope(self, tape: Tape, batch: Size, tokens: Size) -> tuple[Tensor, Tensor]:
        """LTXVideoRotaryPosEmbed: three axes share the width; what is left over is padded."""
        third, rest = self.dim // 6, self.dim % 6
        angles = tape.empty((batch, tokens, 3, third), "fp32")
        angles = angles.contiguous().view(batch, tokens, 3 * third)
        parts = []
        for _ in ("cos", "sin"):
            part = angles.contiguous()
            part = tape.empty((batch, tokens, 6 * third), "fp32")
            parts.append(part)
        del part
        if rest:
            padding = tape.empty((batch, tokens, rest), "fp32")
            parts[0] = cat([padding, parts[0]], -1)
            parts[1] = cat([padding, parts[1]], -1)
        return parts[0], parts[1]


NETWORK = LTXVideo
