"""LongCat Video's transformer (bghira/SimpleTuner simpletuner/helpers/models/longcat_video/transformer.py, commit bc8e6ab).

Its modulation, gates and feed-forward layers run under an autocast to float32, which widens weights too; in the original's code the
feed-forward layers do not, and need less. Its scores are taken to be those of flash attention over all tokens; every token of the
text is taken to be valid.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

from preflight.networks.network import Network, Shape, check_modelled, constructor_arguments
from preflight.networks.qwen_image import Layers, sequential
from preflight.tape.activation import gelu, rsqrt, silu
from preflight.tape.attention import attention
from preflight.tape.loss import mse_loss
from preflight.tape.meter import somewhere
from preflight.tape.module import Blocks, Checkpointing, Conv, FP32LayerNorm, Linear, Module
from preflight.tape.normalization import mean_of_squares
from preflight.tape.shaping import cat, chunk, stack, unbind
from preflight.tape.tensor import Buffer, Parameter, Tape, Tensor

DEFAULTS: Mapping[str, Any] = {
    "in_channels": 16,
    "out_channels": 16,
    "hidden_size": 4096,
    "depth": 48,
    "num_heads": 32,
    "caption_channels": 4096,
    "mlp_ratio": 4,
    "adaln_tembed_dim": 512,
    "frequency_embedding_size": 256,
    "patch_size": (1, 2, 2),
    "enable_bsa": False,
    "text_tokens_zero_pad": False,
    "stride": (4, 8, 8),
}
MODELLED = {"enable_bsa": (False,)}


class RMSNorm(Module):
    """RMSNorm_FP32."""

    def __init__(self, width: int) -> None:
        self.weight = Parameter((width,))

    def forward(self, x: Tensor) -> Tensor:
        return self._norm(x.float()).type_as(x) * self.weight

    def _norm(self, x: Tensor) -> Tensor:
        return x * rsqrt(mean_of_squares(x) + 1e-6)


def modulate(norm: Callable[[Tensor], Tensor], x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """modulate_fp32."""
    dtype = x.dtype
    x = norm(x.float())
    x = x * (scale + 1) + shift
    return x.to(dtype)


class FeedForward(Module):
    """FeedForwardSwiGLU."""

    def __init__(self, dim: int, inner: int) -> None:
        self.w1, self.w2, self.w3 = Linear(dim, inner, bias=False), Linear(inner, dim, bias=False), Linear(dim, inner, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.w2(silu(self.w1(x)) * self.w3(x))


class Attention(Module):
    def __init__(self, dim: int, heads: int) -> None:
        self.heads = heads
        self.qkv = Linear(dim, dim * 3)
        self.q_norm, self.k_norm = RMSNorm(dim // heads), RMSNorm(dim // heads)
        self.proj = Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, dim = x.shape
        qkv = self.qkv(x)
        qkv = qkv.view(3, batch, self.heads, tokens, dim // self.heads)
        query, key, value = unbind(qkv, 0)
        query, key = self.q_norm(query), self.k_norm(key)
        query, key = _rotated(query, key)
        x = attention(query, key, value)
        x = x.view(batch, tokens, dim)
        return self.proj(x)


def _rotated(query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
    """RotaryPositionalEmbedding: angles that wait in host memory, their cosines and sines made for each call."""
    tape, shape = query.tape, (1, 1, *query.shape[2:])
    angles = tape.empty(shape, "fp32")
    wide_query, wide_key = query.float(), key.float()
    cos, sin = tape.empty(shape, "fp32"), tape.empty(shape, "fp32")
    wide_query = (wide_query * cos) + (_rotate_half(wide_query) * sin)
    wide_key = (wide_key * cos) + (_rotate_half(wide_key) * sin)
    del angles
    return wide_query.type_as(query), wide_key.type_as(key)


def _rotate_half(x: Tensor) -> Tensor:
    first, second = unbind(x.view(*x.shape[:-1], x.shape[-1] // 2, 2), -1)
    return stack([-second, first]).view(*x.shape)


class CrossAttention(Module):
    """MultiHeadCrossAttention: sample by sample, the results put together in a new tensor."""

    def __init__(self, dim: int, heads: int) -> None:
        self.heads = heads
        self.q_linear, self.kv_linear = Linear(dim, dim), Linear(dim, dim * 2)
        self.proj = Linear(dim, dim)
        self.q_norm, self.k_norm = RMSNorm(dim // heads), RMSNorm(dim // heads)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        batch, tokens, dim = x.shape
        width, text_tokens = dim // self.heads, context.shape[1] // batch
        # the text of all samples lies in one row, which several samples copy apart
        context = context.contiguous() if somewhere(batch > 1) else context
        query = self.q_linear(x).view(batch, self.heads, tokens, width)
        key_value = self.kv_linear(context.view(batch, text_tokens, dim)).view(batch, text_tokens, 2, self.heads, width)
        key, value = unbind(key_value, 2)
        query = self.q_norm(query)
        key = self.k_norm(key)
        key = key.view(batch, self.heads, text_tokens, width).contiguous()
        value = value.view(batch, self.heads, text_tokens, width).contiguous()
        out = attention(query, key, value)
        out = cat([out], 0)
        out = out.view(batch, tokens, dim).contiguous()
        return self.proj(out)


class Block(Module):
    """LongCatSingleStreamBlock."""

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        dim, heads = arguments["hidden_size"], arguments["num_heads"]
        inner = int(2 * int(dim * arguments["mlp_ratio"]) / 3)
        self.adaLN_modulation: Layers = [silu, Linear(arguments["adaln_tembed_dim"], 6 * dim)]
        self.mod_norm_attn, self.mod_norm_ffn = FP32LayerNorm(dim, affine=False), FP32LayerNorm(dim, affine=False)
        self.pre_crs_attn_norm = FP32LayerNorm(dim)
        self.attn, self.cross_attn = Attention(dim, heads), CrossAttention(dim, heads)
        self.ffn = FeedForward(dim, -(-inner // 256) * 256)

    def forward(self, x: Tensor, context: Tensor, time: Tensor) -> Tensor:
        tape, dtype, (batch, tokens, dim) = x.tape, x.dtype, x.shape
        frames = time.shape[1]
        spread, flat = (batch, frames, tokens // frames, dim), (batch, tokens, dim)
        with tape.autocasting("fp32"):
            modulation = sequential(self.adaLN_modulation, time)
            modulation = modulation.view(batch, frames, 1, modulation.shape[2])
            shift, scale, gate, ff_shift, ff_scale, ff_gate = chunk(modulation, 6, -1)
            del modulation
        modulated = modulate(self.mod_norm_attn, x.view(*spread), shift, scale).view(*flat)
        attended = self.attn(modulated)
        with tape.autocasting("fp32"):
            x = x + (gate * attended.view(*spread)).view(*flat)
        x = x.to(dtype)
        x = x + self.cross_attn(self.pre_crs_attn_norm(x), context)
        x = modulate(self.mod_norm_ffn, x.view(*spread), ff_shift, ff_scale).view(*flat)
        with tape.autocasting("fp32"):
            x = x + (ff_gate * self.ffn(x.view(*spread))).view(*flat)
        return x.to(dtype)


class FinalLayer(Module):
    """FinalLayer_FP32."""

    def __init__(self, dim: int, outputs: int, time_dim: int) -> None:
        self.norm_final = FP32LayerNorm(dim, affine=False)
        self.linear = Linear(dim, outputs)
        self.adaLN_modulation: Layers = [silu, Linear(time_dim, 2 * dim)]

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        batch, tokens, dim = x.shape
        frames = time.shape[1]
        with x.tape.autocasting("fp32"):
            modulation = sequential(self.adaLN_modulation, time)
            shift, scale = chunk(modulation.view(batch, frames, 1, 2 * dim), 2, -1)
            x = modulate(self.norm_final, x.view(batch, frames, tokens // frames, dim), shift, scale).view(batch, tokens, dim)
            return self.linear(x)


class TimestepEmbedder(Module):
    def __init__(self, width: int, dim: int) -> None:
        self.width = width
        self.mlp: Layers = [Linear(width, dim), silu, Linear(dim, dim)]
        self.flowmap_delta_emb_gate = Buffer((1,))

    def forward(self, time: Tensor) -> Tensor:
        batch, frames = time.shape
        angles = time.tape.empty((batch * frames, self.width // 2), "fp32")
        embedded = sequential(self.mlp, cat([angles * 1.0, angles * 1.0], -1))
        return embedded.view(batch, frames, embedded.shape[1])


class Embedder(Module):
    def __init__(self, inputs: int, dim: int, patch: tuple[int, ...]) -> None:
        self.proj = Conv(inputs, dim, patch, stride=patch)

    def forward(self, x: Tensor) -> Tensor:
        x = self.proj(x)
        return x.view(x.shape[0], prod(x.shape[2:]), x.shape[1])


class CaptionEmbedder(Module):
    def __init__(self, inputs: int, dim: int) -> None:
        self.y_proj: Layers = [Linear(inputs, dim), gelu, Linear(dim, dim)]

    def forward(self, x: Tensor) -> Tensor:
        return sequential(self.y_proj, x)


class LongCatVideo(Network):
    def __init__(self, dims: Mapping[str, Any], checkpointing: Checkpointing, *, extend: bool = True) -> None:
        arguments = constructor_arguments(dims, DEFAULTS, "LongCatVideoTransformer3DModel")
        check_modelled(arguments, MODELLED, "LongCatVideoTransformer3DModel")
        dim, time_dim = arguments["hidden_size"], arguments["adaln_tembed_dim"]
        self.inputs, self.outputs, self.text_dim = (arguments[f"{name}_channels"] for name in ("in", "out", "caption"))
        self.patch, self.stride = tuple(arguments["patch_size"]), tuple(arguments["stride"])
        self.x_embedder = Embedder(self.inputs, dim, self.patch)
        self.t_embedder = TimestepEmbedder(arguments["frequency_embedding_size"], time_dim)
        self.y_embedder = CaptionEmbedder(self.text_dim, dim)
        self.blocks = Blocks(arguments["depth"], lambda _: Block(arguments), checkpointing, extend=extend)
        self.final_layer = FinalLayer(dim, prod(self.patch) * self.outputs, time_dim)

    def loss(self, tape: Tape, shape: Shape, dtype: str) -> Tensor:
        frames = (shape.frames - 1) // self.stride[0] + 1
        height, width = shape.height // self.stride[1], shape.width // self.stride[2]
        out = self(
            tape.empty((shape.batch, self.inputs, frames, height, width), dtype),
            tape.empty((shape.batch, shape.text_tokens, self.text_dim), dtype),
        )
        return mse_loss(out.float(), tape.empty(out.shape, "fp32"))

    def forward(self, latents: Tensor, text: Tensor) -> Tensor:
        tape, (batch, _, *size) = latents.tape, latents.shape
        hidden = self.x_embedder(latents)
        with tape.autocasting("fp32"):
            time = self.t_embedder(tape.empty((batch, size[0] // self.patch[0]), "fp32"))
        context = self.y_embedder(text)
        context = context.view(1, batch * text.shape[1], context.shape[2])
        for block in self.blocks.walk(tape):
            hidden = block(hidden, context, time)
        hidden = self.final_layer(hidden, time)
        hidden = hidden.view(batch, self.outputs, *size).contiguous()
        return hidden.float()


NETWORK = LongCatVideo
