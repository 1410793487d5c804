"""Qwen-Image transformers (diffusers/models/transformers/transformer_qwenimage.py).

Editing models read `references` further images of the size that is trained, as tokens after those of the noisy one. What the
last block makes of the text is not used, so no gradient reaches the layers behind it and an optimizer keeps nothing for them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from preflight.networks.common import (
    AdaLayerNormContinuous,
    Dropout,
    FeedForward,
    PlainRMSNorm,
    TimestepEmbedding,
    timesteps,
)
from preflight.networks.network import Network, Shape, check_modelled, constructor_arguments
from preflight.tape.activation import clip, silu
from preflight.tape.complex import apply_complex_rotary
from preflight.tape.loss import mse_loss
from preflight.tape.module import Blocks, Checkpointing, LayerNorm, Linear, Module
from preflight.tape.sequence import gathered, share, shared_attention
from preflight.tape.shaping import cat, chunk, narrow
from preflight.tape.slicing import adjacent, cat_tokens, slice_tokens
from preflight.tape.tensor import Buffer, Tape, Tensor

DEFAULTS: Mapping[str, Any] = {
    "patch_size": 2,
    "in_channels": 64,
    "out_channels": 16,
    "num_layers": 60,
    "attention_head_dim": 128,
    "num_attention_heads": 24,
    "joint_attention_dim": 3584,
    "guidance_embeds": False,
    "axes_dims_rope": (16, 56, 56),
    "zero_cond_t": False,
    "use_additional_t_cond": False,
    "use_layer3d_rope": False,
    "references": 0,
    "stride": (1, 8, 8),
}
MODELLED = {"zero_cond_t": (False,), "use_additional_t_cond": (False,), "use_layer3d_rope": (False,)}
Freqs = tuple[Tensor, Tensor]


class Attention(Module):
    """QwenDoubleStreamAttnProcessor2_0: text and image side by side, the text first."""

    def __init__(self, dim: int, heads: int) -> None:
        self.heads = heads
        self.norm_q, self.norm_k = PlainRMSNorm(dim // heads), PlainRMSNorm(dim // heads)
        self.to_q, self.to_k, self.to_v = Linear(dim, dim), Linear(dim, dim), Linear(dim, dim)
        self.add_k_proj, self.add_v_proj, self.add_q_proj = Linear(dim, dim), Linear(dim, dim), Linear(dim, dim)
        self.to_out = [Linear(dim, dim), Dropout()]
        self.to_add_out = Linear(dim, dim)
        self.norm_added_q, self.norm_added_k = PlainRMSNorm(dim // heads), PlainRMSNorm(dim // heads)

    def forward(self, image: Tensor, text: Tensor, text_mask: Tensor, freqs: Freqs) -> tuple[Tensor, Tensor]:
        (batch, image_tokens, _), text_tokens = image.shape, text.shape[1]
        image_mask = image.tape.empty((batch, image_tokens), "bool")
        mask = cat([text_mask, image_mask], 1)
        mask = mask.view(batch, 1, 1, mask.shape[1])

        image_query, image_key, image_value = self.to_q(image), self.to_k(image), self.to_v(image)
        text_query, text_key, text_value = self.add_q_proj(text), self.add_k_proj(text), self.add_v_proj(text)
        image_query, image_key, image_value = self._heads(image_query), self._heads(image_key), self._heads(image_value)
        text_query, text_key, text_value = self._heads(text_query), self._heads(text_key), self._heads(text_value)
        image_query = self.norm_q(image_query)
        image_key = self.norm_k(image_key)
        text_query = self.norm_added_q(text_query)
        text_key = self.norm_added_k(text_key)

        image_freqs, text_freqs = freqs
        image_query = apply_complex_rotary(image_query, image_freqs)
        image_key = apply_complex_rotary(image_key, image_freqs)
        text_query = apply_complex_rotary(text_query, text_freqs)
        text_key = apply_complex_rotary(text_key, text_freqs)

        query = cat_tokens([text_query, image_query])
        key = cat_tokens([text_key, image_key])
        value = cat_tokens([text_value, image_value])
        hidden = attend(query, key, value, mask)
        hidden = hidden.to(query.dtype)
        text, image = slice_tokens(hidden, text_tokens), slice_tokens(hidden, image_tokens)
        image = self.to_out[0](adjacent(image))
        text = self.to_add_out(adjacent(text))
        return image, text

    def _heads(self, x: Tensor) -> Tensor:
        batch, tokens, dim = x.shape
        return x.view(batch, tokens, self.heads, dim // self.heads)


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """(B, tokens, heads, width) each, giving (B, tokens, heads x width)."""
    out = shared_attention(query, key, value, mask)
    return out.view(*out.shape[:2], out.shape[2] * out.shape[3])


Layers = Sequence[Callable[[Tensor], Tensor]]


def sequential(layers: Layers, x: Tensor) -> Tensor:
    """torch.nn.Sequential."""
    for layer in layers:
        x = layer(x)
    return x


def modulate(x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
    shift, scale, gate = (part.view(part.shape[0], 1, part.shape[1]) for part in chunk(parameters, 3, -1))
    return x * (1 + scale) + shift, gate


class Block(Module):
    def __init__(self, dim: int, heads: int, *, last: bool) -> None:
        self.img_mod: Layers = [silu, Linear(dim, 6 * dim)]
        self.img_norm1 = LayerNorm(dim, affine=False)
        self.attn = Attention(dim, heads)
        self.img_norm2 = LayerNorm(dim, affine=False)
        self.img_mlp = FeedForward(dim, 4 * dim)
        self.txt_mod: Layers = [silu, Linear(dim, 6 * dim)]
        self.txt_norm1 = LayerNorm(dim, affine=False)
        self.txt_norm2 = LayerNorm(dim, affine=False)
        self.txt_mlp = FeedForward(dim, 4 * dim)
        if last:
            for part in (self.attn.to_add_out, self.txt_mlp):
                for _, parameter in part.parameters():
                    parameter.requires_grad = False

    def forward(self, image: Tensor, text: Tensor, mask: Tensor, temb: Tensor, freqs: Freqs) -> tuple[Tensor, Tensor]:
        image_parameters = sequential(self.img_mod, temb)
        text_parameters = sequential(self.txt_mod, temb)
        image_mod1, image_mod2 = chunk(image_parameters, 2, -1)
        text_mod1, text_mod2 = chunk(text_parameters, 2, -1)

        image_normed = self.img_norm1(image)
        image_modulated, image_gate1 = modulate(image_normed, image_mod1)
        text_normed = self.txt_norm1(text)
        text_modulated, text_gate1 = modulate(text_normed, text_mod1)
        outputs = self.attn(image_modulated, text_modulated, mask, freqs)  # the tuple keeps both, as in the original
        image_attended, text_attended = outputs
        image = image + image_gate1 * image_attended
        text = text + text_gate1 * text_attended

        image_normed2 = self.img_norm2(image)
        image_modulated2, image_gate2 = modulate(image_normed2, image_mod2)
        image_fed = self.img_mlp(image_modulated2)
        image = image + image_gate2 * image_fed
        text_normed2 = self.txt_norm2(text)
        text_modulated2, text_gate2 = modulate(text_normed2, text_mod2)
        text_fed = self.txt_mlp(text_modulated2)
        text = text + text_gate2 * text_fed
        if text.dtype == "fp16":
            text = clip(text)
        if image.dtype == "fp16":
            image = clip(image)
        return image, text


class TimeEmbedding(Module):
    """QwenTimestepProjEmbeddings."""

    def __init__(self, dim: int) -> None:
        self.timestep_embedder = TimestepEmbedding(256, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.timestep_embedder(timesteps(x.tape, x.shape[0], 256).to(x.dtype))


class QwenImage(Network):
    divides_sequence = True  # its _cp_plan: image and text are cut before the blocks
    guidance_doubles = False  # pipeline_qwenimage.py calls it twice, one half after the other

    def __init__(self, dims: Mapping[str, Any], checkpointing: Checkpointing, *, extend: bool = True) -> None:
        arguments = constructor_arguments(dims, DEFAULTS, "QwenImageTransformer2DModel")
        check_modelled(arguments, MODELLED, "QwenImageTransformer2DModel")
        heads, width = arguments["num_attention_heads"], arguments["attention_head_dim"]
        dim, patch = heads * width, arguments["patch_size"]
        self.inputs, self.text_dim, self.half = arguments["in_channels"], arguments["joint_attention_dim"], width // 2
        self.references, self.stride, self.patch = arguments["references"], tuple(arguments["stride"]), patch
        # moved to the GPU once, and kept there by a cache
        self.pos_freqs, self.neg_freqs = Buffer((4096, self.half), "complex64"), Buffer((4096, self.half), "complex64")
        self.time_text_embed = TimeEmbedding(dim)
        self.txt_norm = PlainRMSNorm(self.text_dim)
        self.img_in = Linear(self.inputs, dim)
        self.txt_in = Linear(self.text_dim, dim)
        layers = arguments["num_layers"]
        self.transformer_blocks = Blocks(
            layers, lambda i: Block(dim, heads, last=i == layers - 1), checkpointing, kind=lambda i: i == layers - 1, extend=extend
        )
        self.norm_out = AdaLayerNormContinuous(dim, dim)
        self.proj_out = Linear(dim, patch * patch * (arguments["out_channels"] or self.inputs))

    def loss(self, tape: Tape, shape: Shape, dtype: str) -> Tensor:
        batch = shape.batch
        # the pipeline packs the latents two by two into channels
        tokens = (shape.height // (self.patch * self.stride[1])) * (shape.width // (self.patch * self.stride[2]))
        out = self(
            tape.empty((batch, tokens * (1 + self.references), self.inputs), dtype),
            tape.empty((batch, shape.text_tokens, self.text_dim), dtype),
            tape.empty((batch, shape.text_tokens), "bool"),
        )
        if self.references:
            out = slice_tokens(out, tokens)
        return mse_loss(out.float(), tape.empty(out.shape, "fp32"))

    def forward(self, latents: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        tape, image_tokens, text_tokens = latents.tape, latents.shape[1], text.shape[1]
        hidden = self.img_in(latents)
        text = self.txt_norm(text)
        text = self.txt_in(text)
        temb = self.time_text_embed(hidden)
        cached = tape.empty((1, image_tokens, self.half), "complex64")
        freqs = (
            cat([cached], 0),
            Tensor(tape, (1, text_tokens, self.half), "complex64", self.pos_freqs.storage),
        )
        ranks = tape.sharing.ranks
        if ranks > 1:  # views: a part of the tokens, at the first block
            image_tokens, text_tokens = share(image_tokens, ranks), share(text_tokens, ranks)
            hidden, text = (narrow(x, x.shape[0], n, x.shape[2]) for x, n in ((hidden, image_tokens), (text, text_tokens)))
            freqs = (
                Tensor(tape, (1, image_tokens, self.half), "complex64", freqs[0].storage),
                Tensor(tape, (1, text_tokens, self.half), "complex64", freqs[1].storage),
            )
            mask = Tensor(tape, (mask.shape[0], text_tokens), mask.dtype, mask.storage)
        for block in self.transformer_blocks.walk(tape):
            hidden, text = block(hidden, text, mask, temb, freqs)
        hidden = self.norm_out(hidden, temb)
        return gathered(self.proj_out(hidden), ranks)


NETWORK = QwenImage
