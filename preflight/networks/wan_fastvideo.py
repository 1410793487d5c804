"""Wan as FastVideo runs it (hao-ai-lab/FastVideo fastvideo/models/dits/wanvideo.py and causal_wanvideo.py), under autocast.

The dimension `causal` makes it the network of frames in chunks that see no later ones, through FlexAttention; `teacher_forcing`
puts the clean frames before the noisy ones, so that twice the tokens run. Sizes within a chunk change no memory. `sparse` is the
attention that leaves out most of it: vsa or sla, of which `sparsity` of vsa changes operations alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from preflight.networks.common import FeedForward, TextProjection, TimestepEmbedding, timesteps
from preflight.networks.network import Network, NotModelled, Shape
from preflight.networks.wan_fastvideo_attention import SPARSE, TILE, CausalSelfAttention, CrossAttention, SelfAttention, Tiles
from preflight.tape.activation import silu
from preflight.tape.loss import mse_loss
from preflight.tape.meter import Size
from preflight.tape.module import Blocks, Checkpointing, Conv, LayerNorm, Linear, Module
from preflight.tape.normalization import layer_norm
from preflight.tape.shaping import cat, chunk, narrow
from preflight.tape.tensor import Parameter, Tape, Tensor

MASKS = 7  # create_block_mask without compile: the comparisons of _prepare_teacher_forcing_mask that stand at its last line
MASKS_BLOCKWISE = 3  # the same of _prepare_blockwise_causal_attn_mask


class FP32LayerNorm(LayerNorm):
    """layers/layernorm.py: the weights raised, too, and the result in the input's dtype."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.float() if self.weight is not None else None
        bias = self.bias.float() if self.bias is not None else None
        return layer_norm(x.float(), weight, bias).to(x.dtype)


class Block(Module):
    """WanTransformerBlock, and WanTransformerBlock_VSA."""

    def __init__(self, dim: int, ffn_dim: int, heads: int, sparse: str | None, kept: int) -> None:
        self.norm1 = FP32LayerNorm(dim, affine=False)
        self.attn1 = SPARSE[sparse](dim, heads) if sparse is not None else SelfAttention(dim, heads)
        if sparse == "vsa":
            self.attn1.kept = kept
        self.norm2 = FP32LayerNorm(dim)  # of self_attn_residual_norm
        self.attn2 = CrossAttention(dim, heads)
        self.norm3 = FP32LayerNorm(dim, affine=False)  # of cross_attn_residual_norm
        self.ffn = FeedForward(dim, ffn_dim)
        self.scale_shift_table = Parameter((1, 6, dim))

    def forward(self, hidden: Tensor, context: Tensor, temb: Tensor, cos: Tensor, sin: Tensor, tiles: Tiles) -> Tensor:
        dtype = hidden.dtype
        shift, scale, gate, ffn_shift, ffn_scale, ffn_gate = chunk(self.scale_shift_table + temb.float(), 6, 1)
        normed = (self.norm1(hidden.float()) * (1 + scale) + shift).to(dtype)
        attended, held = self.attn1(normed, cos, sin, tiles)

        null = hidden.tape.empty((1,), "fp32")
        hidden = hidden + attended * gate
        normed = self.norm2(hidden) * null + null
        normed, hidden = normed.to(dtype), hidden.to(dtype)

        attended = self.attn2(normed, context)
        hidden = hidden + attended
        normed = self.norm3(hidden) * (1 + ffn_scale) + ffn_shift
        normed, hidden = normed.to(dtype), hidden.to(dtype)

        fed = self.ffn(normed)
        hidden = hidden + fed * ffn_gate
        hidden = hidden.to(dtype)
        del held
        return hidden


class CausalBlock(Module):
    """CausalWanTransformerBlock: each frame has a modulation of its own, and layer norms are torch's."""

    def __init__(self, dim: int, ffn_dim: int, heads: int) -> None:
        self.norm1 = LayerNorm(dim, affine=False)
        self.attn1 = CausalSelfAttention(dim, heads)
        self.norm2 = LayerNorm(dim)
        self.attn2 = CrossAttention(dim, heads)
        self.norm3 = LayerNorm(dim, affine=False)
        self.ffn = FeedForward(dim, ffn_dim)
        self.scale_shift_table = Parameter((1, 6, dim))

    def forward(self, hidden: Tensor, context: Tensor, temb: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        dtype, (batch, tokens, dim), frames = hidden.dtype, hidden.shape, temb.shape[1]
        by_frame = (batch, frames, tokens // frames, dim)
        e = self.scale_shift_table + temb
        shift, scale, gate, ffn_shift, ffn_scale, ffn_gate = chunk(e, 6, 2)
        normed = (self.norm1(hidden).view(*by_frame) * (1 + scale) + shift).view(batch, tokens, dim)
        attended, held = self.attn1(normed, cos, sin, None)

        null = hidden.tape.empty((1,), "fp32")
        hidden = hidden + (attended.view(*by_frame) * gate).view(batch, tokens, dim)
        normed = self.norm2(hidden) * null + null
        normed, hidden = normed.to(dtype), hidden.to(dtype)

        attended = self.attn2(normed, context)
        hidden = hidden + attended
        normed = (self.norm3(hidden).view(*by_frame) * (1 + ffn_scale) + ffn_shift).view(batch, tokens, dim)

        fed = self.ffn(normed)
        hidden = hidden + (fed.view(*by_frame) * ffn_gate).view(batch, tokens, dim)
        del held
        return hidden


class ConditionEmbedder(Module):
    def __init__(self, dim: int, freq_dim: int, text_dim: int) -> None:
        self.freq_dim = freq_dim
        self.time_embedder = TimestepEmbedding(freq_dim, dim)
        self.time_proj = Linear(dim, dim * 6)
        self.text_embedder = TextProjection(text_dim, dim, dim)

    def forward(self, tape: Tape, times: Size, text: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        time = timesteps(tape, times, self.freq_dim).to(self.time_embedder.linear_1.weight.dtype)
        temb = self.time_embedder(time)
        projected = self.time_proj(silu(temb))
        return temb, projected, self.text_embedder(text)


class Wan(Network):
    divides_sequence = True
    guidance_doubles = False

    def __init__(self, dims: Mapping[str, Any], checkpointing: Checkpointing, *, extend: bool = True) -> None:
        if dims.get("added_kv_proj_dim") is not None:
            raise NotModelled("FastVideo's training of Wan from a first image is not modelled")
        self.heads, self.width = dims["num_attention_heads"], dims["attention_head_dim"]
        dim = self.heads * self.width
        self.patch, self.stride = tuple(dims["patch_size"]), tuple(dims["stride"])
        self.inputs, self.outputs, self.text_dim = dims["in_channels"], dims["out_channels"], dims["text_dim"]
        self.causal, self.teacher_forcing = bool(dims.get("causal")), bool(dims.get("teacher_forcing"))
        self.patch_embedding = Conv(self.inputs, dim, self.patch, stride=self.patch)
        self.condition_embedder = ConditionEmbedder(dim, dims["freq_dim"], self.text_dim)
        sparse = dims.get("sparse")
        if sparse is not None and (sparse not in SPARSE or self.causal):
            raise NotModelled(f"attention {sparse!r} of FastVideo's Wan is not modelled")

        kept = round(100 * (1 - dims.get("sparsity", 0)))

        def block(_: int) -> Module:
            inner = dims["ffn_dim"]
            return CausalBlock(dim, inner, self.heads) if self.causal else Block(dim, inner, self.heads, sparse, kept)

        self.blocks = Blocks(dims["num_layers"], block, checkpointing, extend=extend)
        self.norm_out = LayerNorm(dim, affine=False) if self.causal else FP32LayerNorm(dim, affine=False)
        self.proj_out = Linear(dim, self.outputs * prod(self.patch))
        self.scale_shift_table = Parameter((1, 2, dim))

    def first_pass(self, shape: Shape) -> Size:
        if not self.causal:
            return 0
        frames, height, width = self._grid(*self._latent(shape))
        tokens = frames * height * width * (2 if self.teacher_forcing else 1)
        padded = -(-tokens // TILE) * TILE
        return (MASKS if self.teacher_forcing else MASKS_BLOCKWISE) * padded * padded

    def loss(self, tape: Tape, shape: Shape, dtype: str) -> Tensor:
        size = self._latent(shape)
        latents = tape.empty((shape.batch, self.inputs, *size), dtype)
        text = tape.empty((shape.batch, shape.text_tokens, self.text_dim), dtype)
        if self.causal:
            if shape.sequence > 1:
                raise NotModelled("sequence parallelism of FastVideo's causal Wan is not modelled")
            clean = tape.empty(latents.shape, dtype) if self.teacher_forcing else None
            out = self(tape, latents, text, clean, run="causal")
        else:
            out = self(tape, latents, text, shape.sequence, run="whole")
        return mse_loss(out.float(), tape.empty(out.shape, "fp32"))

    def forward(self, *arguments: Any, run: str) -> Tensor:
        return self._causal(*arguments) if run == "causal" else self._whole(*arguments)

    def _whole(self, tape: Tape, latents: Tensor, text: Tensor, sequence: int) -> Tensor:
        batch, _, *size = latents.shape
        frames, height, width = self._grid(*size)
        tokens = frames * height * width
        cos = tape.empty((tokens, 1, self.width // 2), "fp32")
        sin = tape.empty((tokens, 1, self.width // 2), "fp32")
        hidden = self._tokens(latents)
        dim = hidden.shape[2]
        if sequence > 1:
            hidden = narrow(hidden, batch, -(-tokens // sequence), dim)
        temb, projected, text = self.condition_embedder(tape, batch, text)
        projected = projected.view(batch, 6, dim)
        for block in self.blocks.walk(tape):
            hidden = block(hidden, text, projected, cos, sin, (frames, height, width))
        shift, scale = chunk(self.scale_shift_table + temb.view(batch, 1, dim), 2, 1)
        normed = self.norm_out(hidden).float()
        hidden = (normed * (1 + scale) + shift).to(hidden.dtype)
        del normed
        if sequence > 1:  # gathered from all ranks
            hidden = cat([hidden] * sequence, 1)
        hidden = self.proj_out(hidden)
        return hidden.view(batch, self.outputs, *size).contiguous()

    def _causal(self, tape: Tape, latents: Tensor, text: Tensor, clean: Tensor | None) -> Tensor:
        batch, _, *size = latents.shape
        frames, height, width = self._grid(*size)
        tokens = frames * height * width
        cos = tape.empty((tokens, 1, self.width // 2), "fp64")
        sin = tape.empty((tokens, 1, self.width // 2), "fp64")
        hidden = self._tokens(latents)
        dim = hidden.shape[2]
        temb, projected, context = self.condition_embedder(tape, batch * frames, text)
        projected = projected.view(batch, frames, 6, dim)
        rotary = (cos, sin)
        clean_tokens = projected_clean = None
        if clean is not None:
            clean_tokens = self._tokens(clean)
            hidden = cat([clean_tokens, hidden], 1)
            _, projected_clean, _ = self.condition_embedder(tape, batch * frames, text)
            projected_clean = projected_clean.view(batch, frames, 6, dim)
            projected = cat([projected_clean, projected], 1)
            rotary = (cat([cos, cos], 0), cat([sin, sin], 0))
        for block in self.blocks.walk(tape):
            hidden = block(hidden, context, projected, *rotary)
        if clean is not None:
            hidden = narrow(hidden, batch, tokens, dim)
        shift, scale = chunk(self.scale_shift_table + temb.view(batch, frames, 1, dim), 2, 2)
        normed = self.norm_out(hidden).view(batch, frames, height * width, dim)
        hidden = (normed * (1 + scale) + shift).view(batch, tokens, dim)
        del normed
        hidden = self.proj_out(hidden)
        del clean_tokens, projected_clean
        return hidden.view(batch, self.outputs, *size).contiguous()

    def _tokens(self, latents: Tensor) -> Tensor:
        hidden = self.patch_embedding(latents)
        batch, dim, *size = hidden.shape
        return hidden.view(batch, prod(size), dim).contiguous()

    def _latent(self, shape: Shape) -> tuple[Size, Size, Size]:
        return ((shape.frames - 1) // self.stride[0] + 1, shape.height // self.stride[1], shape.width // self.stride[2])

    def _grid(self, *size: Size) -> tuple[Size, ...]:
        return tuple(n // p for n, p in zip(size, self.patch, strict=True))


NETWORK = Wan
