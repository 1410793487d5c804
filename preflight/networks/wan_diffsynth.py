"""Wan as DiffSynth-Studio runs it (modelscope/DiffSynth-Studio diffsynth/models/wan_video_dit.py and pipelines/wan_video.py).

The modulation stays in the weights' dtype, and rotations are in float64. Where a first frame is given to Wan 2.2's 5B network (the
dimension `token_timesteps`), every token has a time of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from preflight.networks.network import Network, Shape
from preflight.tape.activation import gelu, keeps_result, silu
from preflight.tape.attention import attention
from preflight.tape.complex import view_as_complex, view_as_real
from preflight.tape.loss import mse_loss
from preflight.tape.meter import Size
from preflight.tape.module import Blocks, Checkpointing, Conv, LayerNorm, Linear, Module
from preflight.tape.normalization import mean_of_squares
from preflight.tape.shaping import cat, chunk, narrow
from preflight.tape.tensor import Parameter, Tape, Tensor

IMAGE_TOKENS = 257  # CrossAttention.forward: y[:, :257]


class RMSNorm(Module):
    def __init__(self, dim: int) -> None:
        self.weight = Parameter((dim,))

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        normed = (wide * keeps_result(mean_of_squares(wide) + 1e-6)).to(x.dtype)
        del wide
        return normed * self.weight


class SelfAttention(Module):
    def __init__(self, dim: int, heads: int) -> None:
        self.heads = heads
        self.q, self.k, self.v, self.o = (Linear(dim, dim) for _ in range(4))
        self.norm_q, self.norm_k = RMSNorm(dim), RMSNorm(dim)

    def forward(self, x: Tensor, freqs: Tensor) -> Tensor:
        query = self.norm_q(self.q(x))
        key = self.norm_k(self.k(x))
        value = self.v(x)
        query = _rotate(query, freqs, self.heads)
        key = _rotate(key, freqs, self.heads)
        return self.o(_attend(query, key, value, self.heads))


class CrossAttention(Module):
    def __init__(self, dim: int, heads: int, *, image: bool) -> None:
        self.heads = heads
        self.q, self.k, self.v, self.o = (Linear(dim, dim) for _ in range(4))
        self.norm_q, self.norm_k = RMSNorm(dim), RMSNorm(dim)
        self.image = image
        if image:
            self.k_img, self.v_img, self.norm_k_img = Linear(dim, dim), Linear(dim, dim), RMSNorm(dim)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        image = None
        if self.image:
            batch, tokens, dim = context.shape
            image = narrow(context, batch, IMAGE_TOKENS, dim)
            context = narrow(context, batch, tokens - IMAGE_TOKENS, dim)
        query = self.norm_q(self.q(x))
        key = self.norm_k(self.k(context))
        value = self.v(context)
        x = _attend(query, key, value, self.heads)
        if image is not None:
            key = self.norm_k_img(self.k_img(image))
            x = x + _attend(query, key, self.v_img(image), self.heads)
        return self.o(x)


def _attend(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    batch, tokens, dim = query.shape
    query, key, value = (x.view(batch, heads, x.shape[1], dim // heads) for x in (query, key, value))
    return attention(query, key, value).view(batch, tokens, dim)


def _rotate(x: Tensor, freqs: Tensor, heads: int) -> Tensor:
    """rope_apply."""
    batch, tokens, dim = x.shape
    turned = view_as_complex(x.to("fp64").view(batch, tokens, heads, dim // heads // 2, 2))
    turned = view_as_real(turned * freqs).view(batch, tokens, dim)
    return turned.to(x.dtype)


class DiTBlock(Module):
    def __init__(self, dim: int, ffn_dim: int, heads: int, *, image: bool) -> None:
        self.self_attn, self.cross_attn = SelfAttention(dim, heads), CrossAttention(dim, heads, image=image)
        self.norm1, self.norm2, self.norm3 = LayerNorm(dim, affine=False), LayerNorm(dim, affine=False), LayerNorm(dim)
        self.ffn: list[Module] = [Linear(dim, ffn_dim), Gelu(), Linear(ffn_dim, dim)]
        self.modulation = Parameter((1, 6, dim))

    def forward(self, x: Tensor, context: Tensor, projected: Tensor, freqs: Tensor) -> Tensor:
        """`projected` (1, 6, C), or (1, tokens, 6, C) where every token has its own."""
        shift, scale, gate, ffn_shift, ffn_scale, ffn_gate = chunks(self.modulation.to(projected.dtype) + projected, 6)
        normed = self.norm1(x) * (1 + scale) + shift
        x = x + gate * self.self_attn(normed, freqs)
        x = x + self.cross_attn(self.norm3(x), context)
        normed = self.norm2(x) * (1 + ffn_scale) + ffn_shift
        return x + ffn_gate * sequential(self.ffn, normed)


class Gelu(Module):
    def forward(self, x: Tensor) -> Tensor:
        return gelu(x)


class Silu(Module):
    def forward(self, x: Tensor) -> Tensor:
        return silu(x)


def sequential(modules: list[Module], given: Tensor) -> Tensor:
    """torch.nn.Sequential: what it was called with stays until it returns."""
    x = given
    for module in modules:
        x = module(x)
    return x


def chunks(e: Tensor, pieces: int) -> list[Tensor]:
    """Along the dimension before the last, which is then left out where every token has its own."""
    parts = chunk(e, pieces, -2)
    return [part.view(*part.shape[:2], part.shape[-1]) if len(part.shape) == 4 else part for part in parts]


class ImageEmbedding(Module):
    """MLP: CLIP's tokens to the network's width."""

    def __init__(self, inputs: int, dim: int) -> None:
        self.proj: list[Module] = [LayerNorm(inputs), Linear(inputs, inputs), Gelu(), Linear(inputs, dim), LayerNorm(dim)]

    def forward(self, x: Tensor) -> Tensor:
        return sequential(self.proj, x)


class Head(Module):
    def __init__(self, dim: int, outputs: int) -> None:
        self.norm = LayerNorm(dim, affine=False)
        self.head = Linear(dim, outputs)
        self.modulation = Parameter((1, 2, dim))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """t (1, C), or (1, tokens, C)."""
        t = t.view(*t.shape[:-1], 1, t.shape[-1])
        shift, scale = chunks(self.modulation.to(t.dtype) + t, 2)
        return self.head(self.norm(x) * (1 + scale) + shift)


class WanModel(Network):
    guidance_doubles = False

    def __init__(self, dims: Mapping[str, Any], checkpointing: Checkpointing, *, extend: bool = True) -> None:
        self.heads, self.width = dims["num_attention_heads"], dims["attention_head_dim"]
        dim, self.freq_dim = self.heads * self.width, dims["freq_dim"]
        self.patch, self.stride = tuple(dims["patch_size"]), tuple(dims["stride"])
        self.inputs, self.outputs, self.text_dim = dims["in_channels"], dims["out_channels"], dims["text_dim"]
        self.per_token = bool(dims.get("token_timesteps"))
        self.image_dim = dims.get("image_dim")
        self.patch_embedding = Conv(self.inputs, dim, self.patch, stride=self.patch)
        self.text_embedding: list[Module] = [Linear(self.text_dim, dim), Gelu(), Linear(dim, dim)]
        self.time_embedding: list[Module] = [Linear(self.freq_dim, dim), Silu(), Linear(dim, dim)]
        self.time_projection: list[Module] = [Silu(), Linear(dim, dim * 6)]
        self.img_emb = ImageEmbedding(self.image_dim, dim) if self.image_dim is not None else None
        self.blocks = Blocks(
            dims["num_layers"],
            lambda _: DiTBlock(dim, dims["ffn_dim"], self.heads, image=self.image_dim is not None),
            checkpointing,
            extend=extend,
        )
        self.head = Head(dim, prod(self.patch) * self.outputs)

    def loss(self, tape: Tape, shape: Shape, dtype: str) -> Tensor:
        """FlowMatchSFTLoss of inputs in bfloat16, which a launch without autocast trains in."""
        frames = (shape.frames - 1) // self.stride[0] + 1
        size = (frames, shape.height // self.stride[1], shape.width // self.stride[2])
        batch, given = shape.batch, self.inputs - self.outputs
        sample = tape.empty((batch, self.outputs, *size), dtype)
        context = tape.empty((batch, shape.text_tokens, self.text_dim), dtype)
        y = tape.empty((batch, given, *size), dtype) if given else None
        image = tape.empty((batch, IMAGE_TOKENS, self.image_dim), dtype) if self.image_dim is not None else None
        noise = sample * 1.0
        latents = sample * 1.0 + noise * 1.0
        target = noise - sample
        out = self(latents, context, y, image)
        if self.per_token:  # the first frame is given
            batch, channels, frames, height, width = out.shape
            out = narrow(out, batch, channels, frames - 1, height, width)
            target = narrow(target, *out.shape)
        return mse_loss(out.float(), target.float())

    def forward(self, latents: Tensor, context: Tensor, y: Tensor | None, image: Tensor | None) -> Tensor:
        """model_fn_wan_video."""
        tape, (batch, _, *size) = latents.tape, latents.shape
        frames, height, width = (n // p for n, p in zip(size, self.patch, strict=True))
        tokens = frames * height * width
        t, projected = self._time(latents, batch, tokens)
        context = sequential(self.text_embedding, context)
        x = latents
        if y is not None:
            x = cat([x, y], 1)
        if image is not None and self.img_emb is not None:
            embedded = self.img_emb(image)
            context = cat([embedded, context], 1)
        x = self.patch_embedding(x)
        x = x.view(batch, tokens, x.shape[1]).contiguous()
        freqs = tape.empty((tokens, 1, self.width // 2), "complex128")
        for block in self.blocks.walk(tape):
            x = block(x, context, projected, freqs)
        x = self.head(x, t)
        return x.view(batch, self.outputs, *size).contiguous()

    def _time(self, latents: Tensor, batch: Size, tokens: Size) -> tuple[Tensor, Tensor]:
        lead = (batch, tokens) if self.per_token else (batch,)
        sinusoid = latents.tape.empty((prod(lead, start=1), self.freq_dim // 2), "fp64")
        wide = cat([sinusoid * 1.0, sinusoid * 1.0], -1)
        del sinusoid
        t = sequential(self.time_embedding, wide.to(latents.dtype).view(*lead, self.freq_dim))
        del wide
        projected = sequential(self.time_projection, t)
        return t, projected.view(*lead, 6, t.shape[-1])


NETWORK = WanModel
