"""The generator of Cosmos 3 (bghira/SimpleTuner simpletuner/helpers/models/cosmos3/transformer.py, commit bc8e6ab).

Half of diffusers' Cosmos3OmniTransformer: the layers of the tokens that are made. Those of the text (`load_reasoning_layers`) have
run before, and their keys and values wait in host memory. Sound and actions are not among the inputs, so what turns them into
tokens keeps its bytes and does not train. SimpleTuner runs a batch's samples one after another; here all but the last run side by
side, so that of three and more what one needs for a moment is counted for each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from preflight.networks.common import PlainRMSNorm, TimestepEmbedding, timesteps
from preflight.networks.network import Network, Shape, check_modelled, constructor_arguments
from preflight.tape.activation import keeps_result, relu, silu
from preflight.tape.attention import attention
from preflight.tape.loss import mse_loss
from preflight.tape.meter import Size, somewhere
from preflight.tape.module import Blocks, Checkpointing, Linear, Module
from preflight.tape.normalization import mean_of_squares
from preflight.tape.routing import put
from preflight.tape.shaping import cat, narrow
from preflight.tape.tensor import Buffer, Call, Grads, Parameter, Tape, Tensor

DEFAULTS: Mapping[str, Any] = {
    "attention_bias": False,
    "head_dim": 128,
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "latent_channel": 48,
    "latent_patch_size": 2,
    "num_attention_heads": 32,
    "num_hidden_layers": 36,
    "num_key_value_heads": 8,
    "patch_latent_dim": 192,
    "action_dim": None,
    "action_gen": False,
    "num_embodiment_domains": 32,
    "sound_dim": None,
    "sound_gen": False,
    "hidden_act": "silu",
    "qk_norm_for_text": True,
    "use_und_k_norm_for_gen": False,
    "load_reasoning_layers": False,
    "stride": (4, 16, 16),
}
MODELLED = {"load_reasoning_layers": (False,), "hidden_act": ("silu", "relu2")}
Rotary = tuple[Tensor, Tensor]
Norm = Callable[[int], Module]


class NemotronRMSNorm(Module):
    """Cosmos3NemotronRMSNorm."""

    def __init__(self, dim: int) -> None:
        self.weight = Parameter((dim,))

    def forward(self, hidden: Tensor) -> Tensor:
        dtype = hidden.dtype
        hidden = hidden.float()
        variance = mean_of_squares(hidden)
        hidden = hidden * keeps_result(variance + 1e-5)
        return (self.weight.float() * hidden).to(dtype)


class Attention(Module):
    """Cosmos3PackedMoTAttention.forward_gen_only: grouped queries over the text's keys and values and its own."""

    def __init__(self, arguments: Mapping[str, Any], norm: Norm) -> None:
        dim, bias, width = arguments["hidden_size"], arguments["attention_bias"], arguments["head_dim"]
        self.heads, self.key_heads, self.width = arguments["num_attention_heads"], arguments["num_key_value_heads"], width
        if arguments["use_und_k_norm_for_gen"] and not arguments["qk_norm_for_text"]:
            self.k_norm_und_for_gen = _idle(norm(width))  # of the text's keys
        self.add_q_proj = Linear(dim, self.heads * width, bias=bias)
        self.add_k_proj = Linear(dim, self.key_heads * width, bias=bias)
        self.add_v_proj = Linear(dim, self.key_heads * width, bias=bias)
        self.to_add_out = Linear(self.heads * width, dim, bias=bias)
        self.norm_added_q, self.norm_added_k = norm(width), norm(width)

    def forward(self, hidden: Tensor, rotary: Rotary, text_tokens: Size) -> Tensor:
        batch, tokens, _ = hidden.shape
        query, key, value = self.add_q_proj(hidden), self.add_k_proj(hidden), self.add_v_proj(hidden)
        query = query.view(batch, tokens, self.heads, self.width)
        key, value = (x.view(batch, tokens, self.key_heads, self.width) for x in (key, value))
        query = self.norm_added_q(query)
        key = self.norm_added_k(key)
        cos, sin = rotary
        query = query * cos + _rotate_half(query) * sin
        key = key * cos + _rotate_half(key) * sin
        shape = (batch, text_tokens, self.key_heads, self.width)
        text_key, text_value = hidden.tape.empty(shape, key.dtype), hidden.tape.empty(shape, value.dtype)
        all_key = cat([text_key, key], 1)
        all_value = cat([text_value, value], 1)
        out = attention(*(x.view(batch, x.shape[2], x.shape[1], self.width) for x in (query, all_key, all_value)))
        out = out.view(batch, tokens, self.heads * self.width)
        return self.to_add_out(out)


def _rotate_half(x: Tensor) -> Tensor:
    half = (*x.shape[:-1], x.shape[-1] // 2)
    return cat([-narrow(x, *half), narrow(x, *half)], -1)


class MLP(Module):
    """Cosmos3VLTextMLP."""

    def __init__(self, dim: int, inner: int, activation: str) -> None:
        self.gate_proj = Linear(dim, inner, bias=False) if activation == "silu" else None
        self.up_proj, self.down_proj = Linear(dim, inner, bias=False), Linear(inner, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.gate_proj is None:
            return self.down_proj(_square(relu(self.up_proj(x))))
        return self.down_proj(silu(self.gate_proj(x)) * self.up_proj(x))


def _square(x: Tensor) -> Tensor:
    return x.tape.compute((x,), _square_backward, x.shape, x.dtype, saved=(x,))


def _square_backward(call: Call, grad: Tensor | None) -> Grads:
    assert grad is not None
    (x,) = call.saved
    # functions.cpp: pow_backward is grad * (exponent * self.pow(exponent - 1)), kept until the expression ends
    power = x.tape.empty(x.shape, x.dtype)
    scaled = power * 2.0
    return (grad * scaled,)


class Layer(Module):
    """Cosmos3VLTextMoTDecoderLayer.forward_gen_only."""

    def __init__(self, arguments: Mapping[str, Any], norm: Norm) -> None:
        dim = arguments["hidden_size"]
        self.self_attn = Attention(arguments, norm)
        self.mlp_moe_gen = MLP(dim, arguments["intermediate_size"], arguments["hidden_act"])
        self.input_layernorm_moe_gen, self.post_attention_layernorm_moe_gen = norm(dim), norm(dim)

    def forward(self, hidden: Tensor, rotary: Rotary, text_tokens: Size) -> Tensor:
        normed = self.input_layernorm_moe_gen(hidden)
        attended = self.self_attn(normed, rotary, text_tokens)
        residual = hidden + attended
        fed = self.mlp_moe_gen(self.post_attention_layernorm_moe_gen(residual))
        return residual + fed


class DomainLinear(Module):
    """DomainAwareLinear: a matrix for each kind of robot."""

    def __init__(self, inputs: int, outputs: int, domains: int) -> None:
        self.weight, self.bias = Parameter((domains, inputs * outputs)), Parameter((domains, outputs))


def _idle(module: Module) -> Module:
    """Nothing runs through it."""
    for _, parameter in module.parameters():
        parameter.requires_grad = False
    return module


def _idle_parameter(width: int) -> Parameter:
    parameter = Parameter((width,))
    parameter.requires_grad = False
    return parameter


def _pick(x: Tensor, indices: Tensor) -> Tensor:
    """`x[indices]`: every token of it."""
    return x.tape.compute((x,), _whole_backward, x.shape, x.dtype, saved=(indices,))


def _samples(x: Tensor, count: Size) -> Tensor:
    return Tensor(x.tape, (count, *x.shape[1:]), x.dtype, x.storage)


def _scatter_add(x: Tensor, source: Tensor) -> Tensor:
    """Out of place: `x.scatter_add(0, indices, source)`. Keeps the indices. derivatives.yaml: scatter_add."""
    indices = x.tape.empty(x.shape[:2], "int64")
    return x.tape.compute((x, source), _scatter_backward, x.shape, x.dtype, saved=(indices,))


def _whole_backward(_: Call, grad: Tensor | None) -> Grads:
    assert grad is not None
    return (grad.tape.empty(grad.shape, grad.dtype),)


def _scatter_backward(_: Call, grad: Tensor | None) -> Grads:
    assert grad is not None
    return (grad, grad.tape.empty(grad.shape, grad.dtype))


class Cosmos3(Network):
    guidance_doubles = False  # the pipeline calls it twice, one half after the other

    def __init__(self, dims: Mapping[str, Any], checkpointing: Checkpointing, *, extend: bool = True) -> None:
        arguments = constructor_arguments(dims, DEFAULTS, "Cosmos3OmniTransformer")
        check_modelled(arguments, MODELLED, "Cosmos3OmniTransformer")
        dim, channels = arguments["hidden_size"], arguments["patch_latent_dim"]
        norm: Norm = NemotronRMSNorm if arguments["hidden_act"] == "relu2" else PlainRMSNorm
        self.dim, self.width, self.channels = dim, arguments["head_dim"], arguments["latent_channel"]
        self.patch, self.stride = arguments["latent_patch_size"], tuple(arguments["stride"])
        self.layers = Blocks(arguments["num_hidden_layers"], lambda _: Layer(arguments, norm), checkpointing, extend=extend)
        self.norm_moe_gen = norm(dim)
        self.inv_freq = Buffer((self.width // 2,))
        self.proj_in, self.proj_out = Linear(channels, dim), Linear(dim, channels)
        self.time_embedder = TimestepEmbedding(256, dim)
        if arguments["action_gen"]:
            actions, domains = arguments["action_dim"], arguments["num_embodiment_domains"]
            self.action_proj_in = _idle(DomainLinear(actions, dim, domains))
            self.action_proj_out = _idle(DomainLinear(dim, actions, domains))
            self.action_modality_embed = _idle_parameter(dim)
        if arguments["sound_gen"]:
            self.audio_proj_in = _idle(Linear(arguments["sound_dim"], dim))
            self.audio_proj_out = _idle(Linear(dim, arguments["sound_dim"]))
            self.audio_modality_embed = _idle_parameter(dim)

    def loss(self, tape: Tape, shape: Shape, dtype: str) -> Tensor:
        frames = (shape.frames - 1) // self.stride[0] + 1
        height, width = shape.height // self.stride[1], shape.width // self.stride[2]
        batch, size = shape.batch, (self.channels, frames, height, width)
        latents = tape.empty((batch, *size), dtype)
        several = somewhere(batch > 1)
        predicted = [self(_samples(latents, batch - 1), shape.text_tokens)] if several else []
        predicted.append(self(_samples(latents, 1), shape.text_tokens))
        out = cat(predicted, 0)
        del predicted
        return mse_loss(out.float(), tape.empty(out.shape, "fp32"))

    def forward(self, latents: Tensor, text_tokens: Size) -> Tensor:
        tape, (batch, channels, frames, height, width) = latents.tape, latents.shape
        rows, columns = -(-height // self.patch), -(-width // self.patch)
        tokens = frames * rows * columns
        indices = tape.empty((batch, tokens), "int64")
        packed = latents.contiguous().view(batch, tokens, channels * self.patch**2)
        packed = cat([packed], 0)
        packed = self.proj_in(packed)
        hidden = tape.empty((batch, tokens, self.dim), packed.dtype)
        here, there = tape.empty((batch, tokens), "int64"), tape.empty((batch, tokens), "int64")
        times = tape.empty((batch, tokens), "fp32")
        embedded = self.time_embedder(timesteps(tape, batch * tokens, 256))
        embedded = embedded.view(batch, tokens, self.dim).to(packed.dtype)
        packed = _scatter_add(packed, embedded)
        put(hidden, here, packed)
        shape = (batch, text_tokens + tokens, 1, self.width)
        cos, sin = tape.empty(shape, hidden.dtype), tape.empty(shape, hidden.dtype)
        parts = tuple(Tensor(tape, (batch, tokens, 1, self.width), x.dtype, x.storage) for x in (cos, sin))
        out = hidden
        for layer in self.layers.walk(tape):
            out = layer(out, parts, text_tokens)
        normed = self.norm_moe_gen(out)
        predicted = self.proj_out(_pick(normed, there))
        predicted = predicted.view(batch, channels, frames, rows * self.patch, columns * self.patch).contiguous()
        result = tape.empty(latents.shape, predicted.dtype)
        put(result, tape.empty((batch, frames), "int64"), predicted)
        del indices, times, embedded, packed
        return result


NETWORK = Cosmos3
