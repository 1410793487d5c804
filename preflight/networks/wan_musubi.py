"""Wan as musubi-tuner runs it (kohya-ss/musubi-tuner src/musubi_tuner/wan/modules/model.py), close to the authors' own code.

Wan 2.2 has a time embedding for every token there, in float32; `--force_v2_1_time_embedding` (the dimension
`force_v2_1_time_embedding`) makes it one for each sample, as in 2.1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

from preflight.networks.network import Network, NotModelled, Shape
from preflight.tape.activation import gelu, keeps_result, silu
from preflight.tape.arithmetic import addcmul
from preflight.tape.attention import attention
from preflight.tape.complex import view_as_complex, view_as_real
from preflight.tape.linear import linear
from preflight.tape.loss import mse_loss
from preflight.tape.meter import Size
from preflight.tape.module import Blocks, Checkpointing, Conv, LayerNorm, Linear, Module
from preflight.tape.normalization import layer_norm, mean_of_squares
from preflight.tape.reentrant import wanting_gradient
from preflight.tape.shaping import assign, cat, chunk, narrow
from preflight.tape.tensor import Parameter, Tape, Tensor


class WanRMSNorm(Module):
    def __init__(self, dim: int) -> None:
        self.weight = Parameter((dim,))

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        normed = (wide * keeps_result(mean_of_squares(wide) + 1e-6)).type_as(x)
        del wide
        return normed * self.weight.to(x.dtype)


class WanLayerNorm(LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        return layer_norm(x.float(), self.weight, self.bias).type_as(x)


class SelfAttention(Module):
    def __init__(self, dim: int, heads: int) -> None:
        self.heads = heads
        self.q, self.k, self.v, self.o = (Linear(dim, dim) for _ in range(4))
        self.norm_q, self.norm_k = WanRMSNorm(dim), WanRMSNorm(dim)

    def forward(self, x: Tensor, context: Tensor | None, freqs: Tensor | None) -> Tensor:
        """Of x, or with a context from x to it; the self-attention is the one that rotates."""
        batch, tokens, dim = x.shape
        source = x if context is None else context
        query, key, value = self.q(x), self.k(source), self.v(source)
        del x, source, context
        query = self.norm_q(query)
        key = self.norm_k(key)
        query, key, value = (t.view(batch, t.shape[1], self.heads, dim // self.heads) for t in (query, key, value))
        if freqs is not None:
            _rotate(query, freqs)
            _rotate(key, freqs)
        query, key, value = (t.view(batch, self.heads, t.shape[1], t.shape[3]) for t in (query, key, value))
        out = attention(query, key, value)
        del query, key, value
        return self.o(out.view(batch, tokens, dim))


def _rotate(x: Tensor, freqs: Tensor) -> None:
    """rope_apply_inplace_cached: one sample after the other, in float64, written back in place."""
    _, tokens, heads, width = x.shape
    sample = narrow(x, tokens, heads, width).to("fp64").view(tokens, heads, width // 2, 2)
    turned = view_as_real(view_as_complex(sample) * freqs).view(tokens, heads, width)
    del sample
    assign(x, (tokens, heads, width), turned.to(x.dtype))


class WanAttentionBlock(Module):
    def __init__(self, dim: int, ffn_dim: int, heads: int, *, cross_attn_norm: bool) -> None:
        self.norm1, self.norm2 = WanLayerNorm(dim, affine=False), WanLayerNorm(dim, affine=False)
        self.norm3 = WanLayerNorm(dim) if cross_attn_norm else None
        self.self_attn, self.cross_attn = SelfAttention(dim, heads), SelfAttention(dim, heads)
        self.ffn: list[Module] = [Linear(dim, ffn_dim), _Gelu(), Linear(ffn_dim, dim)]
        self.modulation = Parameter((1, 6, dim))

    def forward(self, x: Tensor, e: Tensor, freqs: Tensor, context: Tensor) -> Tensor:
        """e (B, 6, C), or (B, tokens, 6, C) where every token has its own; chunks of it have x's dimensions."""
        dtype = x.dtype
        e = self.modulation.to("fp32") + e
        shift, scale, gate, ffn_shift, ffn_scale, ffn_gate = _chunks(e, 6)

        y = self.self_attn(addcmul(shift, self.norm1(x).float(), 1 + scale).to(dtype), None, freqs)
        x = addcmul(x, y.to("fp32"), gate).to(dtype)
        del y
        x = x + self.cross_attn(self.norm3(x) if self.norm3 is not None else x, context, None)
        del context
        y = _sequential(self.ffn, addcmul(ffn_shift, self.norm2(x).float(), 1 + ffn_scale).to(dtype))
        return addcmul(x, y.to("fp32"), ffn_gate).to(dtype)


class _Gelu(Module):
    def forward(self, x: Tensor) -> Tensor:
        return gelu(x)


def _called(module: Module, x: Tensor) -> Tensor:
    out: Tensor = module(x)
    return out


def _sequential(modules: list[Module], given: Tensor, call: Callable[[Module, Tensor], Tensor] = _called) -> Tensor:
    """torch.nn.Sequential: what it was called with stays until it returns."""
    x = given
    for module in modules:
        x = call(module, x)
    return x


def _chunks(e: Tensor, pieces: int) -> list[Tensor]:
    """Along the dimension before the last, which is then left out where every token has its own."""
    parts = chunk(e, pieces, -2)
    return [part.view(*part.shape[:2], part.shape[-1]) if len(part.shape) == 4 else part for part in parts]


class Head(Module):
    def __init__(self, dim: int, outputs: int) -> None:
        self.norm = WanLayerNorm(dim, affine=False)
        self.head = Linear(dim, outputs)
        self.modulation = Parameter((1, 2, dim))

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        """e (B, C), or (B, tokens, C)."""
        e = e.view(*e.shape[:-1], 1, e.shape[-1])
        shift, scale = _chunks(self.modulation.to("fp32") + e, 2)
        return self.head(addcmul(shift, self.norm(x), 1 + scale))


class WanModel(Network):
    guidance_doubles = False

    def __init__(self, dims: Mapping[str, Any], checkpointing: Checkpointing, *, extend: bool = True) -> None:
        if dims.get("image_dim") is not None:
            raise NotModelled("the image features of Wan 2.1 in musubi-tuner's code are not modelled")
        self.heads, self.width = dims["num_attention_heads"], dims["attention_head_dim"]
        dim, self.freq_dim = self.heads * self.width, dims["freq_dim"]
        self.patch, self.stride = tuple(dims["patch_size"]), tuple(dims["stride"])
        self.inputs, self.outputs, self.text_dim = dims["in_channels"], dims["out_channels"], dims["text_dim"]
        self.per_token = dims.get("model_version") == "2.2"
        self.one_for_all = bool(dims.get("force_v2_1_time_embedding"))
        self.checkpointing = checkpointing.fraction > 0
        self.patch_embedding = Conv(self.inputs, dim, self.patch, stride=self.patch)
        self.text_embedding: list[Module] = [Linear(self.text_dim, dim), _Gelu(), Linear(dim, dim)]
        self.time_embedding: list[Module] = [Linear(self.freq_dim, dim), _Silu(), Linear(dim, dim)]
        self.time_projection: list[Module] = [_Silu(), Linear(dim, dim * 6)]
        self.blocks = Blocks(
            dims["num_layers"],
            lambda _: WanAttentionBlock(dim, dims["ffn_dim"], self.heads, cross_attn_norm=dims.get("cross_attn_norm", True)),
            checkpointing,
            extend=extend,
        )
        self.head = Head(dim, prod(self.patch) * self.outputs)

    def loss(self, tape: Tape, shape: Shape, dtype: str) -> Tensor:
        frames = (shape.frames - 1) // self.stride[0] + 1
        height, width = shape.height // self.stride[1], shape.width // self.stride[2]
        latents = tape.empty((shape.batch, self.inputs, frames, height, width), dtype)
        context = tape.empty((shape.batch, shape.text_tokens, self.text_dim), dtype)
        if self.checkpointing and tape.grad_enabled:  # wan_train_network.py: "ensure the hidden state will require grad"
            latents, context = wanting_gradient(latents), wanting_gradient(context)
        out = self(latents, context)
        return mse_loss(out, tape.empty(out.shape, "fp32"))

    def forward(self, latents: Tensor, context: Tensor) -> Tensor:
        tape, (batch, _, *size) = latents.tape, latents.shape
        frames, height, width = (n // p for n, p in zip(size, self.patch, strict=True))
        tokens = frames * height * width
        freqs = tape.empty((tokens, 1, self.width // 2), "complex128")
        x = self.patch_embedding(latents)
        dim = x.shape[1]
        x = x.view(batch, tokens, dim).contiguous()  # filled up with nothing, each sample and all together
        x = x.contiguous()
        e, projected = self._time(tape, batch, tokens, dim)
        context = context.contiguous()
        context = _sequential(self.text_embedding, context)
        for block in self.blocks.walk(tape):
            x = block(x, projected, freqs, context)
        x = self.head(x, e)
        x = x.view(batch, self.outputs, *size).contiguous()
        return x.float()

    def _time(self, tape: Tape, batch: Size, tokens: Size, dim: int) -> tuple[Tensor, Tensor]:
        """Under autocast to float32, which raises the weights for each product."""
        each = self.per_token and not self.one_for_all
        lead = (batch, tokens) if each else (batch,)
        before, tape.autocast = tape.autocast, None
        try:
            sinusoid = tape.empty((prod(lead, start=1), self.freq_dim // 2), "fp64")
            e = cat([sinusoid * 1.0, sinusoid * 1.0], -1).view(*lead, self.freq_dim).to("fp32")
            del sinusoid
            e = _sequential(self.time_embedding, e, _raised)
            projected = _sequential(self.time_projection, e, _raised)
        finally:
            tape.autocast = before
        if self.per_token and not each:
            return e.view(batch, 1, dim), projected.view(batch, 1, 6, dim)
        return e, projected.view(*lead, 6, dim)


def _raised(module: Module, x: Tensor) -> Tensor:
    """A linear layer on float32 weights, or another module as it is."""
    if not isinstance(module, Linear):
        return _called(module, x)
    bias = module.bias.to("fp32") if module.bias is not None else None
    return linear(x, module.weight.to("fp32"), bias)


class _Silu(Module):
    def forward(self, x: Tensor) -> Tensor:
        return silu(x)


NETWORK = WanModel
