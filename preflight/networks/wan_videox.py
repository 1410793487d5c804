"""Wan as VideoX-Fun runs it (aigc-apps/VideoX-Fun videox_fun/models/wan_transformer3d.py), under autocast.

The hidden state keeps the weights' dtype, each sample is rotated by itself in float64, and the head is checkpointed, too.
Attention is scaled_dot_product_attention, as it is where flash_attn is not installed.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from preflight.networks.network import Network, Shape
from preflight.networks.wan_diffsynth import IMAGE_TOKENS, Gelu, ImageEmbedding, RMSNorm, Silu, chunks, sequential
from preflight.tape.attention import attention
from preflight.tape.checkpoint import checkpoint
from preflight.tape.complex import view_as_complex, view_as_real
from preflight.tape.loss import squared_error, summed
from preflight.tape.meter import Size
from preflight.tape.module import Blocks, Checkpointing, Conv, LayerNorm, Linear, Module
from preflight.tape.normalization import layer_norm
from preflight.tape.shaping import cat, narrow
from preflight.tape.tensor import Buffer, Parameter, Tape, Tensor

POSITIONS = 1024  # rope_params(1024, …)


class WanLayerNorm(LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        return layer_norm(x, self.weight, self.bias).type_as(x)


class SelfAttention(Module):
    def __init__(self, dim: int, heads: int) -> None:
        self.heads = heads
        self.q, self.k, self.v, self.o = (Linear(dim, dim) for _ in range(4))
        self.norm_q, self.norm_k = RMSNorm(dim), RMSNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.norm_q(self.q(x)), self.norm_k(self.k(x)), self.v(x)
        query, key = _rotated(query, key, self.heads)
        x = _attend(query, key, value, self.heads)
        return self.o(x)


class CrossAttention(Module):
    """WanT2VCrossAttention, or WanI2VCrossAttention where `image` features stand before the text."""

    def __init__(self, dim: int, heads: int, *, image: bool) -> None:
        self.heads, self.image = heads, image
        self.q, self.k, self.v, self.o = (Linear(dim, dim) for _ in range(4))
        self.norm_q, self.norm_k = RMSNorm(dim), RMSNorm(dim)
        if image:
            self.k_img, self.v_img, self.norm_k_img = Linear(dim, dim), Linear(dim, dim), RMSNorm(dim)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        if not self.image:
            query, key, value = self.norm_q(self.q(x)), self.norm_k(self.k(context)), self.v(context)
            x = _attend(query, key, value, self.heads)
            return self.o(x)
        batch, tokens, dim = context.shape
        image = narrow(context, batch, IMAGE_TOKENS, dim)
        context = narrow(context, batch, tokens - IMAGE_TOKENS, dim)
        query, key, value = self.norm_q(self.q(x)), self.norm_k(self.k(context)), self.v(context)
        key_image, value_image = self.norm_k_img(self.k_img(image)), self.v_img(image)
        attended = _attend(query, key_image, value_image, self.heads)
        x = _attend(query, key, value, self.heads)
        x = x + attended
        return self.o(x)


def _attend(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    batch, tokens, dim = query.shape
    query, key, value = (x.view(batch, heads, x.shape[1], dim // heads) for x in (query, key, value))
    return attention(query, key, value).view(batch, tokens, dim)


def _rotated(query: Tensor, key: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    """rope_apply_qk, whose caller holds what it gives until both are rotated."""
    rotated = _rotate(query, heads)
    return rotated, _rotate(key, heads)


def _rotate(x: Tensor, heads: int) -> Tensor:
    """rope_apply: what stands behind a sample's tokens, which is nothing, is put back, and the samples are stacked."""
    batch, tokens, dim = x.shape
    sample = narrow(x, batch, tokens, dim)
    turned = view_as_complex(sample.float().view(batch, tokens, heads, dim // heads // 2, 2))
    freqs = x.tape.empty((batch, tokens, 1, dim // heads // 2), "complex128")
    turned = view_as_real(turned * freqs).view(batch, tokens, dim)
    rest = narrow(narrow(x, batch, tokens, dim), batch, 0, dim)
    turned = cat([turned, rest], 1)
    return turned.contiguous().to(x.dtype)


class WanAttentionBlock(Module):
    def __init__(self, dim: int, ffn_dim: int, heads: int, *, image: bool) -> None:
        self.norm1, self.norm2 = WanLayerNorm(dim, affine=False), WanLayerNorm(dim, affine=False)
        self.norm3 = WanLayerNorm(dim)
        self.self_attn, self.cross_attn = SelfAttention(dim, heads), CrossAttention(dim, heads, image=image)
        self.ffn: list[Module] = [Linear(dim, ffn_dim), Gelu(), Linear(ffn_dim, dim)]
        self.modulation = Parameter((1, 6, dim))

    def forward(self, x: Tensor, e: Tensor, context: Tensor) -> Tensor:
        """e (B, 6, C), or (B, tokens, 6, C) where every token has its own."""
        parts = chunks(self.modulation + e, 6)
        temp = self.norm1(x) * (1 + parts[1]) + parts[0]
        y = self.self_attn(temp)
        x = x + y * parts[2]
        return self._cross_attn_ffn(x, context, parts)

    def _cross_attn_ffn(self, x: Tensor, context: Tensor, parts: list[Tensor]) -> Tensor:
        x = x + self.cross_attn(self.norm3(x), context)
        temp = self.norm2(x) * (1 + parts[4]) + parts[3]
        y = sequential(self.ffn, temp)
        return x + y * parts[5]


class Head(Module):
    def __init__(self, dim: int, outputs: int) -> None:
        self.norm = WanLayerNorm(dim, affine=False)
        self.head = Linear(dim, outputs)
        self.modulation = Parameter((1, 2, dim))

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        """e (B, C), or (B, tokens, C)."""
        shift, scale = chunks(self.modulation + e.view(*e.shape[:-1], 1, e.shape[-1]), 2)
        return self.head(self.norm(x) * (1 + scale) + shift)


class WanTransformer3DModel(Network):
    guidance_doubles = False

    def __init__(self, dims: Mapping[str, Any], checkpointing: Checkpointing, *, extend: bool = True) -> None:
        self.heads, self.width = dims["num_attention_heads"], dims["attention_head_dim"]
        dim, self.freq_dim = self.heads * self.width, dims["freq_dim"]
        self.patch, self.stride = tuple(dims["patch_size"]), tuple(dims["stride"])
        self.inputs, self.outputs, self.text_dim = dims["in_channels"], dims["out_channels"], dims["text_dim"]
        self.per_token, self.image_dim = bool(dims.get("token_timesteps")), dims.get("image_dim")
        self.checkpointing = checkpointing.fraction > 0
        self.patch_embedding = Conv(self.inputs, dim, self.patch, stride=self.patch)
        self.text_embedding: list[Module] = [Linear(self.text_dim, dim), Gelu(), Linear(dim, dim)]
        self.time_embedding: list[Module] = [Linear(self.freq_dim, dim), Silu(), Linear(dim, dim)]
        self.time_projection: list[Module] = [Silu(), Linear(dim, dim * 6)]
        self.blocks = Blocks(
            dims["num_layers"],
            lambda _: WanAttentionBlock(dim, dims["ffn_dim"], self.heads, image=self.image_dim is not None),
            checkpointing,
            extend=extend,
        )
        self.head = Head(dim, prod(self.patch) * self.outputs)
        self.freqs = Buffer((POSITIONS, self.width // 2), "complex128")
        self.img_emb = ImageEmbedding(self.image_dim, dim) if self.image_dim is not None else None

    def loss(self, tape: Tape, shape: Shape, dtype: str) -> Tensor:
        """The step of scripts/wan2.1/train_lora.py with its custom_mse_loss."""
        frames = (shape.frames - 1) // self.stride[0] + 1
        size = (frames, shape.height // self.stride[1], shape.width // self.stride[2])
        batch, given = shape.batch, self.inputs - self.outputs
        latents = tape.empty((batch, self.outputs, *size), dtype)
        context = tape.empty((batch, shape.text_tokens, self.text_dim), dtype)
        y = tape.empty((batch, given, *size), dtype) if given else None
        clip_fea = tape.empty((batch, IMAGE_TOKENS, self.image_dim), dtype) if self.image_dim is not None else None
        noise = tape.empty(latents.shape, dtype)
        noisy = latents * 1.0 + noise * 1.0
        target = noise - latents
        prediction = self(noisy, context, y, clip_fea).float()  # accelerate's convert_outputs_to_fp32
        error = squared_error(prediction, target.float())
        mask = tape.empty(error.shape, "fp32")
        return summed(error * mask)

    def forward(self, x: Tensor, context: Tensor, y: Tensor | None, clip_fea: Tensor | None) -> Tensor:
        tape, (batch, _, *size) = x.tape, x.shape
        if y is not None:
            x = cat([x, y], 1)
        frames, height, width = (n // p for n, p in zip(size, self.patch, strict=True))
        tokens = frames * height * width
        x = self.patch_embedding(x)
        x = x.view(batch, tokens, x.shape[1])
        padded = x.contiguous()  # each sample, filled up with nothing, and then all together
        x = padded.contiguous()
        del padded
        e, e0 = self._time(context, batch, tokens)
        filled = context.contiguous()
        context = sequential(self.text_embedding, filled.contiguous())
        del filled
        if clip_fea is not None and self.img_emb is not None:
            embedded = self.img_emb(clip_fea)
            context = cat([embedded, context], 1)
        for block in self.blocks.walk(tape):
            x = block(x, e0, context)
        x = checkpoint(self.head, x, e) if self.checkpointing else self.head(x, e)
        x = x.view(batch, self.outputs, *size).contiguous()
        return x.contiguous()

    def _time(self, like: Tensor, batch: Size, tokens: Size) -> tuple[Tensor, Tensor]:
        lead = (batch, tokens) if self.per_token else (batch,)
        sinusoid = like.tape.empty((prod(lead, start=1), self.freq_dim // 2), "fp64")
        wide = cat([sinusoid * 1.0, sinusoid * 1.0], -1).float()
        del sinusoid
        e = sequential(self.time_embedding, wide.view(*lead, self.freq_dim)).to(like.dtype)
        projected = sequential(self.time_projection, e)
        return e, projected.view(*lead, 6, projected.shape[-1] // 6)


NETWORK = WanTransformer3DModel
