"""OmniGen 2's transformer (VectorSpaceLab/OmniGen2 omnigen2/models/transformers/transformer_omnigen2.py), close to Lumina 2's.

Without images of reference: the layers for those run on no tokens at all, so that their gradients are zeros of full size. Attention
has a mask, as where flash-attn is not installed, and norms and gates are those of torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from preflight.networks import lumina2
from preflight.networks.common import Dropout, PlainRMSNorm, TimestepEmbedding, silu_fp32, timesteps
from preflight.networks.lumina2 import TIME_DIM, LayerNormContinuous
from preflight.networks.network import Network, NotModelled, Shape, constructor_arguments
from preflight.tape.attention import attention
from preflight.tape.complex import apply_complex_rotary
from preflight.tape.loss import mse_loss
from preflight.tape.meter import Size, somewhere
from preflight.tape.module import Blocks, Checkpointing, Linear, Module, RMSNorm
from preflight.tape.shaping import assign, narrow, sum_over
from preflight.tape.tensor import Parameter, Tape, Tensor

DEFAULTS: Mapping[str, Any] = {
    "patch_size": 2,
    "in_channels": 16,
    "out_channels": None,
    "hidden_size": 2304,
    "num_layers": 26,
    "num_refiner_layers": 2,
    "num_attention_heads": 24,
    "num_kv_heads": 8,
    "multiple_of": 256,
    "ffn_dim_multiplier": None,
    "axes_dim_rope": (32, 32, 32),
    "text_feat_dim": 1024,
    "stride": (1, 8, 8),
}
REFERENCES = 5  # images that can be told apart


class Attention(Module):
    """Attention with OmniGen2AttnProcessor: fewer heads of keys and values, each repeated for its queries."""

    def __init__(self, dim: int, heads: int, kv_heads: int) -> None:
        self.heads, self.kv_heads, self.width = heads, kv_heads, dim // heads
        kv_dim = kv_heads * self.width
        self.norm_q, self.norm_k = PlainRMSNorm(self.width), PlainRMSNorm(self.width)
        self.to_q = Linear(dim, dim, bias=False)
        self.to_k, self.to_v = Linear(dim, kv_dim, bias=False), Linear(dim, kv_dim, bias=False)
        self.to_out = [Linear(dim, dim, bias=False), Dropout()]

    def forward(self, hidden: Tensor, mask: Tensor, rotary: Tensor) -> Tensor:
        batch, tokens, dim = hidden.shape
        query, key, value = self.to_q(hidden), self.to_k(hidden), self.to_v(hidden)
        dtype = query.dtype
        query = query.view(batch, tokens, self.heads, self.width)
        key, value = key.view(batch, tokens, self.kv_heads, self.width), value.view(batch, tokens, self.kv_heads, self.width)
        query = self.norm_q(query)
        key = self.norm_k(key)
        query = apply_complex_rotary(query, rotary)
        key = apply_complex_rotary(key, rotary)
        query, key = query.to(dtype), key.to(dtype)
        mask = mask.view(batch, 1, 1, tokens)
        query = query.view(batch, self.heads, tokens, self.width)
        key = self._repeated(key)
        value = self._repeated(value)
        hidden = attention(query, key, value, mask)
        hidden = hidden.view(batch, tokens, dim).type_as(query)
        return self.to_out[0](hidden)

    def _repeated(self, x: Tensor) -> Tensor:
        """repeat_interleave: a new tensor, whose gradient is summed up again."""
        batch, tokens, _, width = x.shape
        return sum_over(x, batch, self.heads, tokens, width)


class FeedForward(Module):
    """LuminaFeedForward."""

    def __init__(self, dim: int, inner: int) -> None:
        self.linear_1, self.linear_2, self.linear_3 = (
            Linear(dim, inner, bias=False),
            Linear(inner, dim, bias=False),
            Linear(dim, inner, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.linear_1(x), self.linear_3(x)
        return self.linear_2(silu_fp32(first) * second)


class RMSNormZero(lumina2.RMSNormZero):
    """Lumina's, with torch's own norm."""

    def __init__(self, dim: int) -> None:
        self.linear = Linear(TIME_DIM, 4 * dim)
        self.norm = RMSNorm(dim)


class Block(lumina2.Block):
    """OmniGen2TransformerBlock: Lumina's, of this one's parts."""

    def __init__(self, arguments: Mapping[str, Any], *, modulated: bool) -> None:
        dim = arguments["hidden_size"]
        self.attn = Attention(dim, arguments["num_attention_heads"], arguments["num_kv_heads"])
        self.feed_forward = FeedForward(dim, _inner(4 * dim, arguments["multiple_of"], arguments["ffn_dim_multiplier"]))
        self.norm1: Module = RMSNormZero(dim) if modulated else RMSNorm(dim)
        self.ffn_norm1, self.norm2, self.ffn_norm2 = RMSNorm(dim), RMSNorm(dim), RMSNorm(dim)
        self.modulated = modulated


def _inner(inner: int, multiple_of: int, multiplier: float | None) -> int:
    if multiplier is not None:
        inner = int(multiplier * inner)
    return -(-inner // multiple_of) * multiple_of


class TimeCaptionEmbedding(Module):
    """Lumina2CombinedTimestepCaptionEmbedding."""

    def __init__(self, dim: int, text_dim: int) -> None:
        self.timestep_embedder = TimestepEmbedding(256, TIME_DIM)
        self.caption_embedder = [RMSNorm(text_dim), Linear(text_dim, dim)]

    def forward(self, latents: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        time = timesteps(latents.tape, latents.shape[0], 256).to(latents.dtype)
        temb = self.timestep_embedder(time)
        return temb, self.caption_embedder[1](self.caption_embedder[0](text))


class OmniGen2(Network):
    def __init__(self, dims: Mapping[str, Any], checkpointing: Checkpointing, *, extend: bool = True) -> None:
        arguments = constructor_arguments(dims, DEFAULTS, "OmniGen2Transformer2DModel")
        self.dim, self.text_dim = arguments["hidden_size"], arguments["text_feat_dim"]
        if self.dim < TIME_DIM:
            raise NotModelled(f"OmniGen2Transformer2DModel with a hidden_size below {TIME_DIM} is not modelled")
        self.inputs, self.patch = arguments["in_channels"], arguments["patch_size"]
        self.outputs = arguments["out_channels"] or self.inputs
        self.stride, self.rotary_width = tuple(arguments["stride"]), sum(arguments["axes_dim_rope"]) // 2
        pixels, layers = self.patch * self.patch * self.inputs, arguments["num_refiner_layers"]
        self.x_embedder, self.ref_image_patch_embedder = Linear(pixels, self.dim), Linear(pixels, self.dim)
        self.time_caption_embed = TimeCaptionEmbedding(self.dim, self.text_dim)

        def modulated(_: int) -> Module:
            return Block(arguments, modulated=True)

        # only the layers are ever checkpointed
        self.noise_refiner = Blocks(layers, modulated, Checkpointing(), extend=extend)
        self.ref_image_refiner = Blocks(layers, modulated, Checkpointing(), extend=extend)
        self.context_refiner = Blocks(layers, lambda _: Block(arguments, modulated=False), Checkpointing(), extend=extend)
        self.layers = Blocks(arguments["num_layers"], modulated, checkpointing, extend=extend)
        self.norm_out = LayerNormContinuous(self.dim, self.patch * self.patch * self.outputs)
        self.image_index_embedding = Parameter((REFERENCES, self.dim))

    def loss(self, tape: Tape, shape: Shape, dtype: str) -> Tensor:
        batch, height, width = shape.batch, shape.height // self.stride[1], shape.width // self.stride[2]
        out = self(
            tape.empty((batch, self.inputs, height, width), dtype),
            tape.empty((batch, shape.text_tokens, self.text_dim), dtype),
            tape.empty((batch, shape.text_tokens), "bool"),
        )
        return mse_loss(out.float(), tape.empty(out.shape, "fp32"))

    def forward(self, latents: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        tape, (batch, channels, height, width) = latents.tape, latents.shape
        temb, context = self.time_caption_embed(latents, text)
        tokens, image = context.shape[1], (height // self.patch) * (width // self.patch)
        patches = latents.contiguous().view(batch, image, self.patch * self.patch * channels)
        image_mask = tape.empty((batch, image), "bool")
        rotary, context_rotary, noise_rotary = (
            tape.empty((batch, n, self.rotary_width), "complex128") for n in (tokens + image, tokens, image)
        )
        for layer in self.context_refiner.walk(tape):
            context = layer(context, mask, context_rotary)
        combined = self._refined(patches, image_mask, noise_rotary, temb)
        both_mask = tape.empty((batch, tokens + image), "bool")
        joint = tape.empty((batch, tokens + image, self.dim), patches.dtype)
        _write(joint, context, combined)
        hidden = joint
        for layer in self.layers.walk(tape):
            hidden = layer(hidden, both_mask, rotary, temb)
        hidden = self.norm_out(hidden, temb)
        output = narrow(hidden, batch, image, hidden.shape[2]).contiguous()
        return output.view(batch, self.outputs, height, width).contiguous()

    def _refined(self, patches: Tensor, mask: Tensor, rotary: Tensor, temb: Tensor) -> Tensor:
        """img_patch_embed_and_refine."""
        tape, (batch, _, pixels) = patches.tape, patches.shape
        hidden = self.x_embedder(patches)
        reference = self.ref_image_patch_embedder(tape.empty((batch, 0, pixels), patches.dtype))
        reference = reference + narrow(self.image_index_embedding, 1, 1, self.dim)
        for layer in self.noise_refiner.walk(tape):
            hidden = layer(hidden, mask, rotary, temb)
        no_mask, no_rotary = tape.empty((batch, 0), "bool"), tape.empty((batch, 0, self.rotary_width), "complex128")
        references = tape.empty(temb.shape, temb.dtype)
        _write(references, temb)
        for layer in self.ref_image_refiner.walk(tape):
            reference = layer(reference, no_mask, no_rotary, references)
        combined = tape.empty(hidden.shape, hidden.dtype)
        _write(combined, reference, hidden)
        return combined


def _write(target: Tensor, *parts: Tensor) -> None:
    """Each sample's tokens of all `parts` written into `target`; from the second sample on, the others do as it does."""
    batch: Size = target.shape[0]
    for _ in range(2 if somewhere(batch > 1) else 1):
        for part in parts:
            assign(target, part.shape[1:], narrow(part, *part.shape[1:]))


NETWORK = OmniGen2
