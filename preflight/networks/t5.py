"""T5 v1.1, mT5 and UMT5 encoders (transformers/models/t5/modeling_t5.py, umt5/modeling_umt5.py, integrations/sdpa_attention.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from preflight.networks.component import TextEncoder
from preflight.tape.activation import keeps_result, relu
from preflight.tape.attention import efficient_attention
from preflight.tape.dtypes import LOW
from preflight.tape.lookup import lookup
from preflight.tape.meter import Size
from preflight.tape.module import Blocks, Checkpointing, Linear, Module
from preflight.tape.normalization import mean_of_squares
from preflight.tape.tensor import Parameter, Tape, Tensor


class T5LayerNorm(Module):
    def __init__(self, dim: int) -> None:
        self.weight = Parameter((dim,))

    def forward(self, hidden: Tensor) -> Tensor:
        variance = mean_of_squares(hidden.float())
        hidden = hidden * keeps_result(variance + 0.0)
        if self.weight.dtype in LOW:
            hidden = hidden.to(self.weight.dtype)
        return self.weight * hidden


def new_gelu(x: Tensor) -> Tensor:
    """activations.py: NewGELUActivation, written out."""
    return (x * 0.5) * (keeps_result((x + keeps_result(x) * 1.0) * 1.0) + 1.0)


class GatedFeedForward(Module):
    """T5DenseGatedActDense."""

    def __init__(self, dim: int, inner: int) -> None:
        self.wi_0, self.wi_1 = Linear(dim, inner, bias=False), Linear(dim, inner, bias=False)
        self.wo = Linear(inner, dim, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        hidden_gelu = new_gelu(self.wi_0(hidden))
        hidden_linear = self.wi_1(hidden)
        hidden = hidden_gelu * hidden_linear
        hidden = hidden.to(self.wo.weight.dtype)
        return self.wo(hidden)


class FeedForward(Module):
    """T5DenseActDense."""

    def __init__(self, dim: int, inner: int) -> None:
        self.wi, self.wo = Linear(dim, inner, bias=False), Linear(inner, dim, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = self.wi(hidden)
        hidden = relu(hidden)
        hidden = hidden.to(self.wo.weight.dtype)
        return self.wo(hidden)


class FeedForwardLayer(Module):
    def __init__(self, dim: int, inner: int, *, gated: bool) -> None:
        self.DenseReluDense = GatedFeedForward(dim, inner) if gated else FeedForward(dim, inner)
        self.layer_norm = T5LayerNorm(dim)

    def forward(self, hidden: Tensor) -> Tensor:
        forwarded = self.layer_norm(hidden)
        forwarded = self.DenseReluDense(forwarded)
        return hidden + forwarded


class T5Attention(Module):
    def __init__(self, dims: Mapping[str, Any], *, biased: bool) -> None:
        dim, self.heads, self.width = dims["d_model"], dims["num_heads"], dims["d_kv"]
        inner = self.heads * self.width
        self.q, self.k, self.v = (Linear(dim, inner, bias=False) for _ in range(3))
        self.o = Linear(inner, dim, bias=False)
        self.relative_attention_bias = Parameter((dims["relative_attention_num_buckets"], self.heads)) if biased else None

    def forward(self, hidden: Tensor, position_bias: Tensor | None) -> tuple[Tensor, Tensor]:
        tape, (batch, tokens, _) = hidden.tape, hidden.shape
        query = self._heads(self.q(hidden))
        key = self._heads(self.k(hidden))
        value = self._heads(self.v(hidden))
        if position_bias is None:
            position_bias = self._compute_bias(tokens)
        # sdpa_attention_forward: where(mask, position_bias, lowest) has the batch's size, and is made contiguous
        both = tape.empty((batch, self.heads, tokens, tokens), position_bias.dtype)
        both = both.contiguous()
        out = efficient_attention(query, key, value, both)
        del both
        out = out.view(batch, tokens, self.heads * self.width)
        return self.o(out), position_bias

    def _heads(self, x: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        return x.view(batch, self.heads, tokens, self.width)

    def _compute_bias(self, tokens: Size) -> Tensor:
        """A bucket for each pair of tokens, looked up (what finding the bucket takes is never the peak)."""
        assert self.relative_attention_bias is not None
        bucket = self.relative_attention_bias.tape.empty((tokens, tokens), "int64")
        values = lookup(self.relative_attention_bias, bucket)
        return values.view(1, self.heads, tokens, tokens)


class SelfAttentionLayer(Module):
    def __init__(self, dims: Mapping[str, Any], *, biased: bool) -> None:
        self.SelfAttention = T5Attention(dims, biased=biased)
        self.layer_norm = T5LayerNorm(dims["d_model"])

    def forward(self, hidden: Tensor, position_bias: Tensor | None) -> tuple[Tensor, Tensor]:
        normed = self.layer_norm(hidden)
        out, position_bias = self.SelfAttention(normed, position_bias)
        return hidden + out, position_bias


class T5Block(Module):
    def __init__(self, dims: Mapping[str, Any], *, biased: bool) -> None:
        self.layer = [SelfAttentionLayer(dims, biased=biased), FeedForwardLayer(dims["d_model"], dims["d_ff"], gated=dims["gated"])]

    def forward(self, hidden: Tensor, position_bias: Tensor | None) -> tuple[Tensor, Tensor]:
        hidden, position_bias = self.layer[0](hidden, position_bias)
        hidden = _clamped(hidden)
        hidden = self.layer[1](hidden)
        hidden = _clamped(hidden)
        assert position_bias is not None
        return hidden, position_bias


def _clamped(hidden: Tensor) -> Tensor:
    """Infinite values are cut off in float16."""
    return keeps_result(hidden) if hidden.dtype == "fp16" else hidden


class Stack(Module):
    def __init__(self, dims: Mapping[str, Any]) -> None:
        self.shared_bias = dims["shared_bias"]
        self.embed_tokens = Parameter((dims["vocab_size"], dims["d_model"]))
        self.block = Blocks(
            dims["num_layers"],
            lambda i: T5Block(dims, biased=i == 0 or not self.shared_bias),
            Checkpointing(),
            kind=lambda i: self.shared_bias and i == 0,
        )
        self.final_layer_norm = T5LayerNorm(dims["d_model"])

    def forward(self, ids: Tensor, padding: Tensor) -> Tensor:
        batch, tokens = ids.shape
        embeds = lookup(self.embed_tokens, ids)
        mask = padding.tape.empty((batch, 1, tokens, tokens), "bool")  # create_bidirectional_mask
        position_bias = None
        hidden = embeds
        for block in self.block.walk(ids.tape):
            hidden, bias = block(hidden, position_bias)
            position_bias = bias if self.shared_bias else None
            del bias
        del mask
        return self.final_layer_norm(hidden)


class T5Encoder(TextEncoder):
    """`dims` are T5Config's arguments.

    `shared_bias`: the first layer's position bias serves them all (not in UMT5); `gated`: feed_forward_proj is "gated-gelu", else
    "relu".
    """

    def __init__(self, dims: Mapping[str, Any]) -> None:
        self.encoder = Stack({"relative_attention_num_buckets": 32, "shared_bias": True, "gated": True, **dims})

    def last_hidden(self, tape: Tape, batch: Size, tokens: Size) -> Tensor:
        ids, padding = tape.empty((batch, tokens), "int64"), tape.empty((batch, tokens), "int64")
        return self.encoder(ids, padding)


# config.json of google/t5-v1_1-xxl, google-t5/t5-11b, google/mt5-xl, google/umt5-xxl, google/byt5-small with the vocabulary of
# Glyph-SDXL-v2, and fal/AuraFlow's text_encoder (Pile-T5 is a UMT5)
_XXL = {"d_model": 4096, "d_ff": 10240, "d_kv": 64, "num_layers": 24, "num_heads": 64}
_XL = {"d_model": 2048, "d_ff": 5120, "d_kv": 64, "num_layers": 24, "num_heads": 32}
COMPONENTS: Mapping[str, tuple[type[T5Encoder], Mapping[str, Any]]] = {
    "t5-xxl": (T5Encoder, {**_XXL, "vocab_size": 32128}),
    "t5-11b": (
        T5Encoder,
        {"vocab_size": 32128, "d_model": 1024, "d_ff": 65536, "d_kv": 128, "num_layers": 24, "num_heads": 128, "gated": False},
    ),
    "mt5-xl": (T5Encoder, {**_XL, "vocab_size": 250112}),
    "umt5-xxl": (T5Encoder, {**_XXL, "vocab_size": 256384, "shared_bias": False}),
    "byt5-glyph": (
        T5Encoder,
        {"vocab_size": 1510, "d_model": 1472, "d_ff": 3584, "d_kv": 64, "num_layers": 12, "num_heads": 6},
    ),
    "pile-t5-xl": (T5Encoder, {**_XL, "vocab_size": 32128, "shared_bias": False}),
}
