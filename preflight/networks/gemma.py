"""Gemma 2 and 3 as text encoders (transformers: models/gemma2/modeling_gemma2.py, gemma3/modeling_gemma3.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from preflight.networks.llama import Llama, LlamaAttention, LlamaMLP, repeated
from preflight.networks.siglip import Tower
from preflight.tape.activation import keeps_result
from preflight.tape.linear import matmul
from preflight.tape.lookup import lookup
from preflight.tape.meter import somewhere
from preflight.tape.module import Module
from preflight.tape.normalization import mean_of_squares
from preflight.tape.tensor import Buffer, Parameter, Tensor


class GemmaRMSNorm(Module):
    def __init__(self, dim: int) -> None:
        self.weight = Parameter((dim,))

    def forward(self, x: Tensor) -> Tensor:
        output = self._norm(x.float())
        output = output * (self.weight.float() + 1.0)
        return output.type_as(x)

    def _norm(self, x: Tensor) -> Tensor:
        return x * keeps_result(mean_of_squares(x) + 1e-6)


class GemmaAttention(LlamaAttention):
    norm = GemmaRMSNorm


class CappedAttention(GemmaAttention):
    """Gemma 2's: no kernel caps the scores, so they are made for every pair of tokens (eager_attention_forward)."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> tuple[Tensor, Tensor | None]:
        key = repeated(key, self.heads)
        value = repeated(value, self.heads)
        batch, heads, tokens, width = key.shape
        weights = self._scores(query, key.view(batch, heads, width, tokens)) * 1.0
        weights = weights / 1.0
        weights = keeps_result(weights)
        weights = weights * 1.0
        weights = weights + mask
        weights = keeps_result(weights.to("fp32")).to(query.dtype)  # softmax
        out = matmul(weights, value)
        return out.contiguous(), weights

    def _scores(self, query: Tensor, key: Tensor) -> Tensor:
        return matmul(query.contiguous() if somewhere(query.shape[0] > 1) else query, key)


class GemmaLayer(Module):
    """Norms before and after each half."""

    attention: type[LlamaAttention] = GemmaAttention

    def __init__(self, dims: Mapping[str, Any]) -> None:
        dim = dims["hidden_size"]
        self.self_attn = self.attention(dims)
        self.mlp = LlamaMLP(dim, dims["intermediate_size"])
        self.input_layernorm, self.post_attention_layernorm = GemmaRMSNorm(dim), GemmaRMSNorm(dim)
        self.pre_feedforward_layernorm, self.post_feedforward_layernorm = GemmaRMSNorm(dim), GemmaRMSNorm(dim)

    def forward(self, hidden: Tensor, mask: Tensor, cos: Tensor, sin: Tensor, cache: list[Tensor]) -> Tensor:
        residual = hidden
        hidden = self.input_layernorm(hidden)
        hidden, weights = self.self_attn(hidden, mask, cos, sin, cache)
        hidden = self.post_attention_layernorm(hidden)
        hidden = residual + hidden
        residual = hidden
        hidden = self.pre_feedforward_layernorm(hidden)
        hidden = self.mlp(hidden)
        hidden = self.post_feedforward_layernorm(hidden)
        hidden = residual + hidden
        del weights  # `_` names them to the end
        return hidden


class CappedLayer(GemmaLayer):
    attention = CappedAttention


class Gemma(Llama):
    """Gemma 3: layers that see all and those that see a window have masks and rotary embeddings of their own."""

    masks = rotaries = 2

    layer: type[Module] = GemmaLayer
    norm_class = GemmaRMSNorm

    def __init__(self, dims: Mapping[str, Any]) -> None:
        super().__init__(dims)
        self.embed_scale = Buffer(())
        self.other_inv_freq = [Buffers(self.width // 2) for _ in range(self.rotaries - 1)]

    def embed(self, ids: Tensor) -> Tensor:
        return lookup(self.embed_tokens, ids) * 1.0


class Buffers(Module):
    def __init__(self, width: int) -> None:
        self.inv_freq, self.original_inv_freq = Buffer((width,)), Buffer((width,))


class Gemma2(Gemma):
    layer = CappedLayer
    rotaries = 1

    def mask(self, hidden: Tensor) -> Tensor:
        """Numbers to add, in the scores' dtype."""
        batch, tokens, _ = hidden.shape
        return hidden.tape.empty((batch, 1, tokens, tokens), hidden.dtype)


# Configurations as catalog/components/ says. Called with output_hidden_states, as Lumina-Image 2.0's and LTX-2's pipelines do;
# Sana's asks for the last state alone, which takes less.
COMPONENTS = {
    "gemma-2-2b": (
        Gemma2,
        {
            "vocab_size": 256000,
            "hidden_size": 2304,
            "intermediate_size": 9216,
            "num_hidden_layers": 26,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "head_dim": 256,
        },
    ),
    "gemma-3-12b": (
        Gemma,
        {
            "vocab_size": 262208,
            "hidden_size": 3840,
            "intermediate_size": 15360,
            "num_hidden_layers": 48,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 256,
            "qk_norm": True,
            "head": "tied",
            "tower": Tower,
        },
    ),
}
