"""DiffSR's Galerkin_Transformer (models/galerkin/Galerkin_Transformer.py, layers/Basic.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from preflight.networks.diffsr_common import SuperResolution, pick
from preflight.networks.diffsr_swinir import dropped
from preflight.tape.activation import BY_NAME, keeps_input, keeps_result
from preflight.tape.linear import matmul
from preflight.tape.module import Blocks, Checkpointing, LayerNorm, Linear, Module
from preflight.tape.shaping import cat, transpose
from preflight.tape.tensor import Parameter, Tensor

ACTIVATIONS = {**BY_NAME, "softplus": keeps_input, "ELU": keeps_input}  # Basic.py: ACTIVATION


class MLP(Module):
    """Basic.py: MLP; each of the `layers` between the first and the last adds to what it is given."""

    def __init__(self, inputs: int, hidden: int, outputs: int, act: str, *, layers: int = 0) -> None:
        self.linear_pre, self.linear_post = [Linear(inputs, hidden)], Linear(hidden, outputs)
        self.linears = [Linear(hidden, hidden) for _ in range(layers)]
        self.act = pick(ACTIVATIONS, {"act": act}, "act", act)

    def forward(self, x: Tensor) -> Tensor:
        x = self._activated(self.linear_pre[0], x)
        for linear in self.linears:
            x = self._activated(linear, x) + x
        return self.linear_post(x)

    def _activated(self, linear: Linear, x: Tensor) -> Tensor:
        x = linear(x)
        return self.act(x)


class LinearAttention(Module):
    """Basic.py: LinearAttention of the type "galerkin"."""

    def __init__(self, dim: int, heads: int, width: int, dropout: float) -> None:
        self.key, self.query, self.value = Linear(dim, dim), Linear(dim, dim), Linear(dim, dim)
        self.proj = Linear(dim, dim)
        self.heads, self.width, self.dropout = heads, width, dropout

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        batch, tokens, dim = x.shape
        q = self._heads(self.query(x))
        k = self._heads(self.key(y))
        v = self._heads(self.value(y))

        q = keeps_result(q)
        k = keeps_result(k)
        context = matmul(k.view(batch, self.heads, self.width, tokens), v.contiguous())
        # the scores' gradient comes with the heads and tokens exchanged, and is put in order before the product takes it
        attended = dropped(transpose(matmul(q, context), *q.shape) * 1.0 + q, self.dropout)

        attended = attended.view(batch, tokens, dim).contiguous()
        return self.proj(attended)

    def _heads(self, x: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        return transpose(x, batch, self.heads, tokens, self.width)


class Block(Module):
    def __init__(self, heads: int, dim: int, dropout: float, act: str, mlp_ratio: int, outputs: int | None) -> None:
        self.ln_1, self.ln_1a = LayerNorm(dim), LayerNorm(dim)
        self.Attn = LinearAttention(dim, heads, dim // heads, dropout)
        self.ln_2 = LayerNorm(dim)
        self.mlp = MLP(dim, dim * mlp_ratio, dim, act)
        self.ln_3 = LayerNorm(dim) if outputs is not None else None
        self.mlp2 = Linear(dim, outputs) if outputs is not None else None

    def forward(self, fx: Tensor) -> Tensor:
        fx = self.Attn(self.ln_1(fx), self.ln_1a(fx)) + fx
        fx = self.mlp(self.ln_2(fx)) + fx
        if self.ln_3 is not None and self.mlp2 is not None:
            return self.mlp2(self.ln_3(fx))
        return fx


class GalerkinTransformer(SuperResolution):
    def __init__(self, dims: Mapping[str, Any], checkpointing: Checkpointing, *, extend: bool = True) -> None:
        del checkpointing  # the original never checkpoints
        inputs, outputs = dims.get("in_dim", 1), dims.get("out_dim", 1)
        super().__init__(dims, inputs, outputs)
        self.ref = dims.get("ref", 8)
        hidden, layers = dims.get("n_hidden", 256), dims.get("n_layers", 6)
        act = dims.get("act", "gelu")
        factor = dims.get("upsample_factor", [2, 2])
        self.upsample_factor = [factor, factor] if isinstance(factor, int) else factor
        self.pos_embedding: Tensor | None = None

        def is_last(i: int) -> bool:
            return i == layers - 1

        def block(i: int) -> Block:
            heads, dropout, ratio = dims.get("n_heads", 8), dims.get("dropout", 0.0), dims.get("mlp_ratio", 4)
            return Block(heads, hidden, dropout, act, ratio, outputs if is_last(i) else None)

        self.preprocess = MLP(inputs + self.ref**2, hidden * 2, hidden, act)
        self.blocks = Blocks(layers, block, Checkpointing(), is_last, extend=extend)
        self.placeholder = Parameter((hidden,))

    def forward(self, x: Tensor) -> Tensor:
        batch, height, width, channels = x.shape
        height, width = height * self.upsample_factor[0], width * self.upsample_factor[1]
        # made at the first step and kept from then on
        self.pos_embedding = x.tape.empty((1, height * width, self.ref**2), "fp32")

        x = x.tape.empty((batch, height, width, channels), x.dtype)  # bilinear
        fx = x.view(batch, height * width, channels)
        pos_emb = x.tape.empty((batch, *self.pos_embedding.shape[1:]), self.pos_embedding.dtype)
        fx = cat([fx, pos_emb], -1)

        fx = self.preprocess(fx)
        fx = fx + self.placeholder.view(1, 1, self.placeholder.shape[0])
        for block in self.blocks.walk(x.tape):
            fx = block(fx)
        return fx.view(batch, height, width, self.outputs)


NETWORK = GalerkinTransformer
