"""CogVideoX video transformers (diffusers/models/transformers/cogvideox_transformer_3d.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from preflight.networks.common import Dropout, FeedForward, TimestepEmbedding, apply_rotary_emb, timesteps
from preflight.networks.network import Network, Shape
from preflight.tape.activation import silu
from preflight.tape.attention import attention
from preflight.tape.loss import mse_loss
from preflight.tape.meter import Size
from preflight.tape.module import Blocks, Checkpointing, Conv, LayerNorm, Linear, Module
from preflight.tape.shaping import assign, cat, chunk, narrow, transpose
from preflight.tape.slicing import slice_tokens, split_tokens
from preflight.tape.tensor import Buffer, Tape, Tensor

STRIDE = (4, 8, 8)  # autoencoder_kl_cogvideox.py: frames, height, width of a latent


class LayerNormZero(Module):
    """normalization.py: CogVideoXLayerNormZero, of the video and the text."""

    def __init__(self, condition_dim: int, dim: int, *, affine: bool) -> None:
        self.linear = Linear(condition_dim, dim * 6)
        self.norm = LayerNorm(dim, affine=affine)

    def forward(self, hidden: Tensor, text: Tensor, temb: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        shift, scale, gate, text_shift, text_scale, text_gate = chunk(self.linear(silu(temb)), 6, 1)
        hidden = self.norm(hidden) * _row(1 + scale) + _row(shift)
        text = self.norm(text) * _row(1 + text_scale) + _row(text_shift)
        return hidden, text, _row(gate), _row(text_gate)


def _row(x: Tensor) -> Tensor:
    """`x[:, None, :]`."""
    batch, dim = x.shape
    return x.view(batch, 1, dim)


class Attention(Module):
    """attention_processor.py: CogVideoXAttnProcessor2_0, over text and video together."""

    def __init__(self, dim: int, heads: int, *, bias: bool) -> None:
        self.heads = heads
        self.norm_q, self.norm_k = LayerNorm(dim // heads), LayerNorm(dim // heads)
        self.to_q, self.to_k, self.to_v = Linear(dim, dim, bias=bias), Linear(dim, dim, bias=bias), Linear(dim, dim, bias=bias)
        self.to_out = [Linear(dim, dim), Dropout()]

    def forward(self, hidden: Tensor, text: Tensor, rotary: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
        text_tokens, video_tokens = text.shape[1], hidden.shape[1]
        hidden = cat([text, hidden], 1)
        batch, tokens, dim = hidden.shape
        query, key, value = self.to_q(hidden), self.to_k(hidden), self.to_v(hidden)
        heads = (batch, self.heads, tokens, dim // self.heads)
        # the norms write their results, and so their gradients, head by head
        query, key, value = transpose(query, *heads), transpose(key, *heads), value.view(*heads)
        query = self.norm_q(query)
        key = self.norm_k(key)
        if rotary is not None:
            _rotate_video(query, video_tokens, rotary)
            _rotate_video(key, video_tokens, rotary)
        hidden = attention(query, key, value)
        hidden = hidden.contiguous().view(batch, tokens, dim)
        hidden = self.to_out[0](hidden)
        text, hidden = split_tokens(hidden, (text_tokens, video_tokens))
        return hidden, text


def _rotate_video(x: Tensor, tokens: Size, rotary: tuple[Tensor, Tensor]) -> None:
    """`x[:, :, text:] = apply_rotary_emb(x[:, :, text:], …)` in place."""
    batch, heads, _, width = x.shape
    part = (batch, heads, tokens, width)
    assign(x, part, apply_rotary_emb(narrow(x, *part), rotary))


class Block(Module):
    def __init__(self, dim: int, heads: int, condition_dim: int, *, attention_bias: bool, affine: bool) -> None:
        self.norm1 = LayerNormZero(condition_dim, dim, affine=affine)
        self.attn1 = Attention(dim, heads, bias=attention_bias)
        self.norm2 = LayerNormZero(condition_dim, dim, affine=affine)
        self.ff = FeedForward(dim, dim * 4)

    def forward(self, hidden: Tensor, text: Tensor, temb: Tensor, *rotary: Tensor) -> tuple[Tensor, Tensor]:
        text_tokens, video_tokens = text.shape[1], hidden.shape[1]
        normed, normed_text, gate, text_gate = self.norm1(hidden, text, temb)
        attended, attended_text = self.attn1(normed, normed_text, (rotary[0], rotary[1]) if rotary else None)
        hidden = hidden + gate * attended
        text = text + text_gate * attended_text

        normed, normed_text, gate, text_gate = self.norm2(hidden, text, temb)
        normed = cat([normed_text, normed], 1)
        fed = self.ff(normed)
        hidden = hidden + gate * slice_tokens(fed, video_tokens)
        text = text + text_gate * slice_tokens(fed, text_tokens)
        return hidden, text


class PatchEmbed(Module):
    """embeddings.py: CogVideoXPatchEmbed, with its table of positions where there is no rotary embedding.

    Patches of several frames (`patch_size_t`, CogVideoX 1.5) go through a linear layer, those of one through a convolution.
    """

    def __init__(self, dims: Mapping[str, Any], dim: int) -> None:
        self.patch, self.frames = dims.get("patch_size", 2), dims.get("patch_size_t")
        inputs, kernel = dims.get("in_channels", 16), (self.patch, self.patch)
        self.proj: Conv | Linear = (
            Conv(inputs, dim, kernel, stride=kernel, bias=dims.get("patch_bias", True))
            if self.frames is None
            else Linear(inputs * self.patch * self.patch * self.frames, dim)
        )
        self.text_proj = Linear(dims.get("text_embed_dim", 4096), dim)
        self.pos_embedding: Buffer | None = None
        if not dims.get("use_rotary_positional_embeddings") or dims.get("use_learned_positional_embeddings"):
            frames = (dims.get("sample_frames", 49) - 1) // STRIDE[0] + 1
            patches = frames * (dims.get("sample_height", 60) // self.patch) * (dims.get("sample_width", 90) // self.patch)
            # get_3d_sincos_pos_embed counts in float64
            self.pos_embedding = Buffer((1, dims.get("max_text_seq_length", 226) + patches, dim), "fp64")

    def forward(self, text: Tensor, image: Tensor) -> Tensor:
        text = self.text_proj(text)
        batch, frames, channels, height, width = image.shape
        if self.frames is None:
            image = image.view(batch * frames, channels, height, width)
            image = self.proj(image)
            _, dim, rows, columns = image.shape
            image = image.view(batch, frames * rows * columns, dim).contiguous()
        else:
            patches = (frames // self.frames) * (height // self.patch) * (width // self.patch)
            image = image.contiguous().view(batch, patches, channels * self.frames * self.patch * self.patch)
            image = self.proj(image)
        embeds = cat([text, image], 1)
        if self.pos_embedding is not None:
            embeds = embeds + embeds.tape.empty((1, *embeds.shape[1:]), embeds.dtype)
        return embeds


class NormOut(Module):
    """normalization.py: AdaLayerNorm with chunk_dim 1."""

    def __init__(self, condition_dim: int, dim: int, *, affine: bool) -> None:
        self.linear = Linear(condition_dim, dim * 2)
        self.norm = LayerNorm(dim, affine=affine)

    def forward(self, x: Tensor, temb: Tensor) -> Tensor:
        temb = self.linear(silu(temb))
        shift, scale = chunk(temb, 2, 1)
        return self.norm(x) * _row(1 + scale) + _row(shift)


class CogVideoX(Network):
    def __init__(self, dims: Mapping[str, Any], checkpointing: Checkpointing, *, extend: bool = True) -> None:
        heads, width = dims.get("num_attention_heads", 30), dims.get("attention_head_dim", 64)
        dim, condition_dim = heads * width, dims.get("time_embed_dim", 512)
        affine = dims.get("norm_elementwise_affine", True)
        self.stride = tuple(dims.get("stride", STRIDE))
        self.width, self.patch = width, dims.get("patch_size", 2)
        self.inputs, self.text_dim = dims.get("in_channels", 16), dims.get("text_embed_dim", 4096)
        self.outputs = dims.get("out_channels", 16)
        self.rotary = bool(dims.get("use_rotary_positional_embeddings"))
        self.patch_frames = dims.get("patch_size_t") or 1
        self.patch_embed = PatchEmbed(dims, dim)
        self.time_embedding = TimestepEmbedding(dim, condition_dim)
        self.ofs: int = dims.get("ofs_embed_dim") or 0
        self.ofs_embedding = TimestepEmbedding(self.ofs, self.ofs) if self.ofs else None
        self.transformer_blocks = Blocks(
            dims.get("num_layers", 30),
            lambda _: Block(dim, heads, condition_dim, attention_bias=dims.get("attention_bias", True), affine=affine),
            checkpointing,
            extend=extend,
        )
        self.norm_final = LayerNorm(dim, affine=affine)
        self.norm_out = NormOut(condition_dim, dim, affine=affine)
        self.proj_out = Linear(dim, self.patch * self.patch * self.patch_frames * self.outputs)
        self.dim = dim

    def loss(self, tape: Tape, shape: Shape, dtype: str) -> Tensor:
        frames = (shape.frames - 1) // self.stride[0] + 1
        frames = -(-frames // self.patch_frames) * self.patch_frames  # filled up to whole patches (pipeline_cogvideox.py)
        height, width = shape.height // self.stride[1], shape.width // self.stride[2]
        tokens = (frames // self.patch_frames) * (height // self.patch) * (width // self.patch)
        rotary = [tape.empty((tokens, self.width), "fp32") for _ in range(2)] if self.rotary else []
        latents = tape.empty((shape.batch, frames, self.inputs, height, width), dtype)
        out = self(latents, tape.empty((shape.batch, shape.text_tokens, self.text_dim), dtype), *rotary)
        del latents
        return mse_loss(out.float(), tape.empty(out.shape, "fp32"))

    def forward(self, hidden: Tensor, text: Tensor, *rotary: Tensor) -> Tensor:
        batch, frames, _, height, width = hidden.shape
        emb = self.time_embedding(timesteps(hidden.tape, batch, self.dim).to(hidden.dtype))
        if self.ofs_embedding is not None:
            ofs_emb = timesteps(hidden.tape, 1, self.ofs).to(hidden.dtype)
            ofs_emb = self.ofs_embedding(ofs_emb)
            emb = emb + ofs_emb
        text_tokens = text.shape[1]
        hidden = self.patch_embed(text, hidden)
        video_tokens = hidden.shape[1] - text_tokens
        text, hidden = slice_tokens(hidden, text_tokens), slice_tokens(hidden, video_tokens)
        for block in self.transformer_blocks.walk(hidden.tape):
            hidden, text = block(hidden, text, emb, *rotary)
        hidden = self.norm_final(hidden)
        hidden = self.norm_out(hidden, emb)
        hidden = self.proj_out(hidden)
        return hidden.view(batch, frames, self.outputs, height, width).contiguous()


NETWORK = CogVideoX
