"""The block of LTX-2 transformers: video and audio side by side (diffusers/models/transformers/transformer_ltx2.py)."""

from __future__ import annotations

from dataclasses import dataclass

from preflight.networks.common import Dropout, FeedForward
from preflight.networks.ltx_video import rms_norm
from preflight.tape.activation import sigmoid
from preflight.tape.inplace import addcmul
from preflight.tape.module import Linear, Module, RMSNorm
from preflight.tape.sequence import attended, shared_attention
from preflight.tape.shaping import narrow, unbind
from preflight.tape.tensor import Parameter, Tensor

Rotary = tuple[Tensor, Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class Stream:
    """One of the two modalities: its width, heads and the variants of version 2.3 (gates, modulated text)."""

    dim: int
    heads: int
    width: int
    text_dim: int
    gated: bool
    text_mod: bool
    ff_bias: bool = True


def apply_split_rotary_emb(x: Tensor, rotary: Rotary) -> Tensor:
    """x (B, tokens, dim), each head's first half turned against its second; cos and sin are (B, heads, tokens, width / 2)."""
    cos, sin = rotary
    batch, heads, tokens, half = cos.shape
    dtype, dim, part = x.dtype, x.shape[2], (batch, heads, tokens, 1, half)
    split = x.view(batch, heads, tokens, 2, half).float()
    first, second = narrow(split, *part), narrow(split, *part)
    cos, sin = cos.view(*part), sin.view(*part)
    out = split * cos
    addcmul(out, part, -sin, second)
    addcmul(out, part, sin, first)
    out = out.view(batch, tokens, dim)
    return out.to(dtype)


class Attention(Module):
    """LTX2Attention, of tokens to others `context_dim` wide; `values_first`: version 2.3 projects the values first."""

    def __init__(self, query_dim: int, heads: int, width: int, *, context_dim: int, gated: bool, values_first: bool) -> None:
        inner = heads * width
        self.heads, self.values_first = heads, values_first
        self.norm_q, self.norm_k = RMSNorm(inner), RMSNorm(inner)
        self.to_q, self.to_k, self.to_v = Linear(query_dim, inner), Linear(context_dim, inner), Linear(context_dim, inner)
        self.to_out = [Linear(inner, query_dim), Dropout()]
        self.to_gate_logits = Linear(query_dim, heads) if gated else None

    def forward(
        self,
        hidden: Tensor,
        context: Tensor | None = None,
        mask: Tensor | None = None,
        query_rotary: Rotary | None = None,
        key_rotary: Rotary | None = None,
    ) -> Tensor:
        if mask is not None:
            batch, _, tokens = mask.shape
            mask = mask.tape.empty((batch, self.heads, 1, tokens), mask.dtype)  # repeated for every head
        alone = context is None  # what SimpleTuner exchanges; elsewhere a part of one stream sees a part of the other
        if context is None:
            context = hidden
        logits = self.to_gate_logits(hidden) if self.to_gate_logits is not None else None
        if self.values_first:
            value = self.to_v(context)
            query, key = self.to_q(hidden), self.to_k(context)
        else:
            query, key = self.to_q(hidden), self.to_k(context)
            value = self.to_v(context)
        query = self.norm_q(query)
        key = self.norm_k(key)
        if query_rotary is not None:
            query = apply_split_rotary_emb(query, query_rotary)
            key = apply_split_rotary_emb(key, key_rotary if key_rotary is not None else query_rotary)
        query, key, value = self._heads(query), self._heads(key), self._heads(value)
        hidden = shared_attention(query, key, value, mask) if alone else attended(query, key, value, mask)
        batch, tokens, heads, width = hidden.shape
        hidden = hidden.view(batch, tokens, heads * width).to(query.dtype)
        if logits is not None:
            gates = sigmoid(logits) * 2.0
            hidden = hidden.view(batch, tokens, heads, width) * gates.view(batch, tokens, heads, 1)
            hidden = hidden.view(batch, tokens, heads * width)
        return self.to_out[0](hidden)

    def _heads(self, x: Tensor) -> Tensor:
        batch, tokens, dim = x.shape
        return x.view(batch, tokens, self.heads, dim // self.heads)


def mod_params(table: Tensor, temb: Tensor) -> tuple[Tensor, ...]:
    """LTX2VideoTransformerBlock.get_mod_params: the rows of `table` plus temb (B, 1, rows x dim), each (B, 1, dim)."""
    batch, ones, _ = temb.shape
    rows, dim = table.shape
    return unbind(table.view(1, 1, rows, dim) + temb.view(batch, ones, rows, dim), 2)


@dataclass(frozen=True, kw_only=True, slots=True)
class Conditions:
    """What all blocks share, for one modality."""

    temb: Tensor
    cross_scale_shift: Tensor
    cross_gate: Tensor
    prompt: Tensor | None
    mask: Tensor
    rotary: Rotary
    cross_rotary: Rotary


class Block(Module):
    def __init__(self, video: Stream, audio: Stream, *, perturbed: bool) -> None:
        self.video, self.audio = video, audio

        def attends(stream: Stream, context_dim: int, sizes: Stream | None = None) -> Attention:
            size = sizes or stream
            return Attention(
                stream.dim, size.heads, size.width, context_dim=context_dim, gated=stream.gated, values_first=perturbed
            )

        self.attn1, self.audio_attn1 = attends(video, video.dim), attends(audio, audio.dim)
        self.attn2, self.audio_attn2 = attends(video, video.text_dim), attends(audio, audio.text_dim)
        self.audio_to_video_attn = attends(video, audio.dim, audio)
        self.video_to_audio_attn = attends(audio, video.dim, audio)
        self.ff, self.audio_ff = FeedForward(video.dim, 4 * video.dim), FeedForward(audio.dim, 4 * audio.dim)
        self.scale_shift_table = Parameter((9 if video.text_mod else 6, video.dim))
        self.audio_scale_shift_table = Parameter((9 if audio.text_mod else 6, audio.dim))
        if video.text_mod or audio.text_mod:
            self.prompt_scale_shift_table = Parameter((2, video.dim))
            self.audio_prompt_scale_shift_table = Parameter((2, audio.dim))
        self.video_a2v_cross_attn_scale_shift_table = Parameter((5, video.dim))
        self.audio_a2v_cross_attn_scale_shift_table = Parameter((5, audio.dim))

    def forward(
        self, hidden: Tensor, audio: Tensor, text: Tensor, audio_text: Tensor, shared: Conditions, audio_shared: Conditions
    ) -> tuple[Tensor, Tensor]:
        # self-attention
        params = mod_params(self.scale_shift_table, shared.temb)
        shift, scale, gate, ff_shift, ff_scale, ff_gate = params[:6]
        normed = rms_norm(hidden)
        normed = normed * (1 + scale) + shift
        arguments = normed  # in the original's dict of arguments, to the end
        attended = self.attn1(normed, query_rotary=shared.rotary)
        hidden = hidden + attended * gate

        audio_params = mod_params(self.audio_scale_shift_table, audio_shared.temb)
        audio_shift, audio_scale, audio_gate, audio_ff_shift, audio_ff_scale, audio_ff_gate = audio_params[:6]
        audio_normed = rms_norm(audio)
        audio_normed = audio_normed * (1 + audio_scale) + audio_shift
        audio_arguments = audio_normed
        audio_attended = self.audio_attn1(audio_normed, query_rotary=audio_shared.rotary)
        audio = audio + audio_attended * audio_gate

        # the text
        if shared.prompt is not None and audio_shared.prompt is not None:
            text_shift, text_scale = mod_params(self.prompt_scale_shift_table, shared.prompt)
            audio_text_shift, audio_text_scale = mod_params(self.audio_prompt_scale_shift_table, audio_shared.prompt)
        normed = rms_norm(hidden)
        if self.video.text_mod:
            normed = normed * (1 + params[7]) + params[6]
        if shared.prompt is not None:
            text = text * (1 + text_scale) + text_shift
        attended = self.attn2(normed, text, shared.mask)
        if self.video.text_mod:
            attended = attended * params[8]
        hidden = hidden + attended

        audio_normed = rms_norm(audio)
        if self.audio.text_mod:
            audio_normed = audio_normed * (1 + audio_params[7]) + audio_params[6]
        if shared.prompt is not None:
            audio_text = audio_text * (1 + audio_text_scale) + audio_text_shift
        audio_attended = self.audio_attn2(audio_normed, audio_text, audio_shared.mask)
        if self.audio.text_mod:
            audio_attended = audio_attended * audio_params[8]
        audio = audio + audio_attended

        # each other
        normed = rms_norm(hidden)
        audio_normed = rms_norm(audio)
        cross, cross_gate = self._cross(self.video_a2v_cross_attn_scale_shift_table, shared)
        audio_cross, audio_cross_gate = self._cross(self.audio_a2v_cross_attn_scale_shift_table, audio_shared)
        mod_normed = normed * (1 + cross[0]) + cross[1]
        audio_mod_normed = audio_normed * (1 + audio_cross[0]) + audio_cross[1]
        from_audio = self.audio_to_video_attn(
            mod_normed, audio_mod_normed, query_rotary=shared.cross_rotary, key_rotary=audio_shared.cross_rotary
        )
        hidden = hidden + cross_gate * from_audio
        mod_normed = normed * (1 + cross[2]) + cross[3]
        audio_mod_normed = audio_normed * (1 + audio_cross[2]) + audio_cross[3]
        from_video = self.video_to_audio_attn(
            audio_mod_normed, mod_normed, query_rotary=audio_shared.cross_rotary, key_rotary=shared.cross_rotary
        )
        audio = audio + audio_cross_gate * from_video

        normed = rms_norm(hidden) * (1 + ff_scale) + ff_shift
        fed = self.ff(normed)
        hidden = hidden + fed * ff_gate
        audio_normed = rms_norm(audio) * (1 + audio_ff_scale) + audio_ff_shift
        audio_fed = self.audio_ff(audio_normed)
        audio = audio + audio_fed * audio_ff_gate
        del arguments, audio_arguments
        return hidden, audio

    def _cross(self, table: Parameter, shared: Conditions) -> tuple[tuple[Tensor, ...], Tensor]:
        dim = table.shape[1]
        scales = mod_params(narrow(table, 4, dim), shared.cross_scale_shift)
        (gate,) = mod_params(narrow(table, 1, dim), shared.cross_gate)
        return scales, gate
