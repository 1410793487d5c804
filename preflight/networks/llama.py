"""LLaMA as HunyuanVideo's text encoder (transformers: models/llama/modeling_llama.py, cache_utils.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from preflight.networks.component import TextEncoder
from preflight.tape.activation import keeps_result, silu
from preflight.tape.attention import efficient_attention
from preflight.tape.lookup import lookup
from preflight.tape.meter import Size
from preflight.tape.module import Blocks, Checkpointing, Linear, Module
from preflight.tape.normalization import mean_of_squares
from preflight.tape.shaping import cat, chunk
from preflight.tape.tensor import Buffer, Parameter, Tape, Tensor

TEMPLATE = 95  # diffusers/pipelines/hunyuan_video: crop_start, the tokens of DEFAULT_PROMPT_TEMPLATE before every prompt


class LlamaRMSNorm(Module):
    def __init__(self, dim: int) -> None:
        self.weight = Parameter((dim,))

    def forward(self, hidden: Tensor) -> Tensor:
        dtype = hidden.dtype
        hidden = hidden.to("fp32")
        variance = mean_of_squares(hidden)
        hidden = hidden * keeps_result(variance + 0.0)
        return self.weight * hidden.to(dtype)


class LlamaMLP(Module):
    def __init__(self, dim: int, inner: int) -> None:
        self.gate_proj, self.up_proj = Linear(dim, inner, bias=False), Linear(dim, inner, bias=False)
        self.down_proj = Linear(inner, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(silu(self.gate_proj(x)) * self.up_proj(x))


class LlamaAttention(Module):
    """Grouped queries: fewer heads for keys and values, repeated for the kernel because there is a mask."""

    def __init__(self, dims: Mapping[str, Any]) -> None:
        dim, self.heads, self.key_heads = dims["hidden_size"], dims["num_attention_heads"], dims["num_key_value_heads"]
        self.width = dim // self.heads
        self.q_proj, self.o_proj = Linear(dim, dim, bias=False), Linear(dim, dim, bias=False)
        self.k_proj = Linear(dim, self.key_heads * self.width, bias=False)
        self.v_proj = Linear(dim, self.key_heads * self.width, bias=False)

    def forward(self, hidden: Tensor, mask: Tensor, cos: Tensor, sin: Tensor, cache: list[Tensor]) -> Tensor:
        batch, tokens, dim = hidden.shape
        query = self.q_proj(hidden).view(batch, self.heads, tokens, self.width)
        key = self.k_proj(hidden).view(batch, self.key_heads, tokens, self.width)
        value = self.v_proj(hidden).view(batch, self.key_heads, tokens, self.width)
        query, key = _rotate_both(query, key, cos, sin)
        key, value = key.contiguous(), value.contiguous()  # DynamicLayer.update: torch.cat with what was cached, nothing
        for kept in (key, value):
            assert kept.storage is not None
            kept.storage.keep()
            cache.append(kept)
        out = self._attend(query, key, value, mask)
        return self.o_proj(out.view(batch, tokens, dim))

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        key = _repeat(key, self.heads)
        value = _repeat(value, self.heads)
        return efficient_attention(query, key, value, mask)


def _rotate_both(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """apply_rotary_pos_emb."""
    batch, _, tokens, width = query.shape
    cos, sin = cos.view(1, 1, tokens, width), sin.view(1, 1, tokens, width)
    del batch
    rotated_query = (query * cos) + (_rotate_half(query) * sin)
    rotated_key = (key * cos) + (_rotate_half(key) * sin)
    return rotated_query, rotated_key


def _rotate_half(x: Tensor) -> Tensor:
    first, second = chunk(x, 2, -1)
    return cat([-second, first], -1)


def _repeat(x: Tensor, heads: int) -> Tensor:
    """repeat_kv: every head of keys or values as often as queries share it, in a new tensor."""
    batch, _, tokens, width = x.shape
    return x.tape.empty((batch, heads, tokens, width), x.dtype)


class LlamaLayer(Module):
    def __init__(self, dims: Mapping[str, Any]) -> None:
        dim = dims["hidden_size"]
        self.self_attn = LlamaAttention(dims)
        self.mlp = LlamaMLP(dim, dims["intermediate_size"])
        self.input_layernorm, self.post_attention_layernorm = LlamaRMSNorm(dim), LlamaRMSNorm(dim)

    def forward(self, hidden: Tensor, mask: Tensor, cos: Tensor, sin: Tensor, cache: list[Tensor]) -> Tensor:
        residual = hidden
        hidden = self.input_layernorm(hidden)
        hidden = self.self_attn(hidden, mask, cos, sin, cache)
        hidden = residual + hidden
        residual = hidden
        hidden = self.post_attention_layernorm(hidden)
        hidden = self.mlp(hidden)
        return residual + hidden


class Llama(TextEncoder):
    """`dims` are LlamaConfig's arguments. Called with output_hidden_states, and so that it keeps keys and values."""

    def __init__(self, dims: Mapping[str, Any]) -> None:
        dim = dims["hidden_size"]
        self.width = dim // dims["num_attention_heads"]
        self.embed_tokens = Parameter((dims["vocab_size"], dim))
        self.layers = Blocks(dims["num_hidden_layers"], lambda _: LlamaLayer(dims), Checkpointing())
        self.norm = LlamaRMSNorm(dim)
        self.inv_freq, self.original_inv_freq = Buffer((self.width // 2,)), Buffer((self.width // 2,))

    def last_hidden(self, tape: Tape, batch: Size, tokens: Size) -> Tensor:
        """All hidden states are kept, of which the pipeline takes the third from the end, for its prompt alone."""
        tokens = tokens + TEMPLATE
        ids, padding = tape.empty((batch, tokens), "int64"), tape.empty((batch, tokens), "int64")
        hidden = lookup(self.embed_tokens, ids)
        positions, bool_padding = tape.empty((tokens,), "int64"), tape.empty((batch, tokens), "bool")
        mask = tape.empty((batch, 1, tokens, tokens), "bool")  # create_causal_mask
        cos, sin = self._rotary(tape, tokens, hidden.dtype)
        states, cache = [hidden], list[Tensor]()
        for layer in self.layers.walk(tape):
            hidden = layer(hidden, mask, cos, sin, cache)
            assert hidden.storage is not None
            hidden.storage.keep()
            states.append(hidden)
        del positions, bool_padding, padding
        return self.norm(hidden)

    def _rotary(self, tape: Tape, tokens: Size, dtype: str) -> tuple[Tensor, Tensor]:
        half = tape.empty((1, tokens, self.width // 2), "fp32")
        emb = cat([half, half], -1)
        cos = keeps_result(emb) * 1.0
        sin = keeps_result(emb) * 1.0
        return cos.to(dtype), sin.to(dtype)


# hunyuanvideo-community/HunyuanVideo text_encoder/config.json
COMPONENTS = {
    "llama-3-8b": (
        Llama,
        {
            "vocab_size": 128320,
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
        },
    ),
}
