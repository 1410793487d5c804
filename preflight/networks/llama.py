"""LLaMA, Qwen and Mistral as text encoders: one pattern of decoder layers (transformers: models/llama/modeling_llama.py).

Where the others differ from LLaMA (models/qwen2_5_vl, qwen3, mistral) is in their configuration: a bias of queries, keys and
values, a norm of each head's queries and keys, and an output head whose scores nobody reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from preflight.networks.component import TextEncoder
from preflight.networks.vision_towers import MistralTower, QwenTower
from preflight.tape.activation import keeps_result, silu
from preflight.tape.attention import efficient_attention
from preflight.tape.linear import linear
from preflight.tape.lookup import lookup
from preflight.tape.meter import Size
from preflight.tape.module import Blocks, Checkpointing, Linear, Module
from preflight.tape.normalization import mean_of_squares
from preflight.tape.shaping import cat, chunk
from preflight.tape.tensor import Buffer, Parameter, Tape, Tensor

DEFAULTS: Mapping[str, Any] = {
    "num_key_value_heads": None,
    "head_dim": None,
    "attention_bias": False,  # of queries, keys and values
    "qk_norm": False,
    "use_cache": True,  # keys and values are kept
    "template": 0,  # tokens before every prompt
    "head": None,  # "tied" to the embedding, or its "own": the class's scores for every token
    "tower": None,  # the vision tower that is loaded too
    "multimodal": False,  # rotary embeddings of each sample
}


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

    norm: type[Module] = LlamaRMSNorm

    def __init__(self, dims: Mapping[str, Any]) -> None:
        dim, self.heads, bias = dims["hidden_size"], dims["num_attention_heads"], dims["attention_bias"]
        self.key_heads = dims["num_key_value_heads"]
        self.width = head_width(dims)
        self.q_proj = Linear(dim, self.heads * self.width, bias=bias)
        self.k_proj = Linear(dim, self.key_heads * self.width, bias=bias)
        self.v_proj = Linear(dim, self.key_heads * self.width, bias=bias)
        self.o_proj = Linear(self.heads * self.width, dim, bias=False)
        self.q_norm = self.norm(self.width) if dims["qk_norm"] else None  # type: ignore[call-arg]
        self.k_norm = self.norm(self.width) if dims["qk_norm"] else None  # type: ignore[call-arg]
        self.use_cache = dims["use_cache"]

    def forward(self, hidden: Tensor, mask: Tensor, cos: Tensor, sin: Tensor, cache: list[Tensor]) -> tuple[Tensor, Tensor | None]:
        """The result, and the weights of each pair of tokens where they were made."""
        batch, tokens, _ = hidden.shape
        query = self._heads(self.q_proj(hidden), self.q_norm)
        key = self._heads(self.k_proj(hidden), self.k_norm)
        value = self._heads(self.v_proj(hidden), None)
        query, key = rotate_both(query, key, cos, sin)
        if self.use_cache:
            key, value = key.contiguous(), value.contiguous()  # DynamicLayer.update: torch.cat with what was cached, nothing
            cache += [kept(key), kept(value)]
        out, weights = self.attend(query, key, value, mask)
        return self.o_proj(out.view(batch, tokens, self.heads * self.width)), weights

    def _heads(self, x: Tensor, norm: Module | None) -> Tensor:
        batch, tokens, width = x.shape
        x = x.view(batch, width // self.width, tokens, self.width)
        return norm(x) if norm is not None else x

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> tuple[Tensor, Tensor | None]:
        key = repeated(key, self.heads)
        value = repeated(value, self.heads)
        return efficient_attention(query, key, value, mask), None


def head_width(dims: Mapping[str, Any]) -> int:
    return int(dims["head_dim"] or dims["hidden_size"] // dims["num_attention_heads"])


def kept(x: Tensor) -> Tensor:
    """`x`, which lives on after its layer in each of the layers that this one stands for."""
    assert x.storage is not None
    x.storage.keep()
    return x


def rotate_both(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """apply_rotary_pos_emb."""
    cos, sin = (x.view(x.shape[0], 1, *x.shape[1:]) for x in (cos, sin))
    rotated_query = (query * cos) + (_rotate_half(query) * sin)
    rotated_key = (key * cos) + (_rotate_half(key) * sin)
    return rotated_query, rotated_key


def _rotate_half(x: Tensor) -> Tensor:
    first, second = chunk(x, 2, -1)
    return cat([-second, first], -1)


def repeated(x: Tensor, heads: int) -> Tensor:
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
        hidden, _ = self.self_attn(hidden, mask, cos, sin, cache)
        hidden = residual + hidden
        residual = hidden
        hidden = self.post_attention_layernorm(hidden)
        hidden = self.mlp(hidden)
        return residual + hidden


class Llama(TextEncoder):
    """`dims` are LlamaConfig's arguments and those of DEFAULTS. Called with output_hidden_states.

    `masks` and `rotaries`: how many there are, one for each kind of layers.
    """

    masks = rotaries = 1
    layer: type[Module] = LlamaLayer
    norm_class: type[Module] = LlamaRMSNorm

    def __init__(self, dims: Mapping[str, Any]) -> None:
        dims = {**DEFAULTS, **dims}
        dim, self.width = dims["hidden_size"], head_width(dims)
        self.template, self.head, self.multimodal = dims["template"], dims["head"], dims["multimodal"]
        self.embed_tokens = Parameter((dims["vocab_size"], dim))
        self.layers = Blocks(dims["num_hidden_layers"], lambda _: self.layer(dims), Checkpointing())  # type: ignore[call-arg]
        self.norm = self.norm_class(dim)  # type: ignore[call-arg]
        self.lm_head = Linear(dim, dims["vocab_size"], bias=False) if self.head == "own" else None
        self.tower = dims["tower"]() if dims["tower"] is not None else None
        self.inv_freq, self.original_inv_freq = Buffer((self.width // 2,)), Buffer((self.width // 2,))

    def last_hidden(self, tape: Tape, batch: Size, tokens: Size) -> Tensor:
        """All hidden states are kept, of which pipelines take one or some, for the prompt alone."""
        tokens = tokens + self.template
        ids, padding = tape.empty((batch, tokens), "int64"), tape.empty((batch, tokens), "int64")
        hidden, states = self._decode(ids)
        if self.lm_head is not None:
            self.lm_head(hidden)
        elif self.head == "tied":
            linear(hidden, self.embed_tokens)
        del padding, states
        return hidden

    def _decode(self, ids: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The last hidden state, and what is kept beside it: the states before, and keys and values."""
        tape, (batch, tokens) = ids.tape, ids.shape
        hidden = self.embed(ids)
        positions, bool_padding = tape.empty((tokens,), "int64"), tape.empty((batch, tokens), "bool")
        masks = [self.mask(hidden) for _ in range(self.masks)]  # create_causal_mask
        rotaries = [self._rotary(tape, batch if self.multimodal else 1, tokens, hidden.dtype) for _ in range(self.rotaries)]
        states, cache = [hidden], list[Tensor]()
        for layer in self.layers.walk(tape):
            hidden = layer(hidden, masks[0], *rotaries[0], cache)
            states.append(kept(hidden))
        del positions, bool_padding
        hidden = self.norm(hidden)
        return hidden, [*states[:-1], *cache]

    def embed(self, ids: Tensor) -> Tensor:
        return lookup(self.embed_tokens, ids)

    def mask(self, hidden: Tensor) -> Tensor:
        batch, tokens, _ = hidden.shape
        return hidden.tape.empty((batch, 1, tokens, tokens), "bool")

    def _rotary(self, tape: Tape, rows: Size, tokens: Size, dtype: str) -> tuple[Tensor, Tensor]:
        half = tape.empty((rows, tokens, self.width // 2), "fp32")
        emb = cat([half, half], -1)
        cos = keeps_result(emb) * 1.0
        sin = keeps_result(emb) * 1.0
        return cos.to(dtype), sin.to(dtype)


_LLAMA = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
}
_QWEN3 = {
    "vocab_size": 151936,
    "hidden_size": 2560,
    "intermediate_size": 9728,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "qk_norm": True,
}
_QWEN25 = {
    "vocab_size": 152064,
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "attention_bias": True,
    "multimodal": True,
}
_MISTRAL = {
    "vocab_size": 131072,
    "hidden_size": 5120,
    "intermediate_size": 32768,
    "num_hidden_layers": 40,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
}
# Configurations as catalog/components/ says; templates and classes as in diffusers/pipelines/: hunyuan_video (crop_start),
# hidream_image, z_image, flux2 (Qwen3ForCausalLM and Mistral, without a cache), hunyuan_video1_5 and qwenimage
# (prompt_template_encode_start_idx)
COMPONENTS = {
    "llama-3-8b": (Llama, {**_LLAMA, "vocab_size": 128320, "template": 95}),
    "llama-3.1-8b": (Llama, {**_LLAMA, "vocab_size": 128256, "head": "own"}),
    "qwen3-4b": (Llama, _QWEN3),
    "qwen3-4b-causal": (Llama, {**_QWEN3, "use_cache": False, "head": "tied"}),
    "qwen2.5-vl-7b-text": (Llama, {**_QWEN25, "template": 108}),
    "qwen2.5-vl-7b": (Llama, {**_QWEN25, "template": 34, "head": "own", "tower": QwenTower}),
    "mistral-small-3.2-24b": (Llama, {**_MISTRAL, "use_cache": False, "head": "own", "tower": MistralTower}),
}
