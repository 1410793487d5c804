"""LTX-2 video and audio transformers (diffusers/models/transformers/transformer_ltx2.py).

Both modalities are generated, the audio as long as the video at 24 frames a second. `token_timesteps`: every token has a timestep
of its own, as Lightricks' trainer writes it, and so its own modulation; else there is one a sample.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from preflight.networks.common import TextProjection, TimestepEmbedding, timesteps
from preflight.networks.ltx2_block import Block, Conditions, Rotary, Stream
from preflight.networks.network import Network, Shape, check_modelled
from preflight.tape.activation import silu
from preflight.tape.loss import mse_loss
from preflight.tape.meter import Size
from preflight.tape.module import Blocks, Checkpointing, LayerNorm, Linear, Module
from preflight.tape.sequence import gathered, share
from preflight.tape.shaping import narrow
from preflight.tape.tensor import Parameter, Tape, Tensor

FPS = 24
MODELLED = {
    "patch_size": (1,),
    "patch_size_t": (1,),
    "norm_elementwise_affine": (False,),
    "rope_type": ("split",),
    "ff_bias": (True,),
    "audio_ff_bias": (True,),
    "use_prompt_adaln_single": (True,),
    "use_keyframes_abs_pos_embedding": (False,),
}
DEFAULTS = {
    "ff_bias": True,
    "audio_ff_bias": True,
    "use_prompt_adaln_single": True,
    "use_keyframes_abs_pos_embedding": False,
    "gated_attn": False,
    "cross_attn_mod": False,
    "audio_gated_attn": False,
    "audio_cross_attn_mod": False,
    "use_prompt_embeddings": True,
    "perturbed_attn": False,
    "token_timesteps": False,
}


class Embedder(Module):
    """PixArtAlphaCombinedTimestepSizeEmbeddings without further conditions."""

    def __init__(self, dim: int) -> None:
        self.timestep_embedder = TimestepEmbedding(256, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.timestep_embedder(x)


class AdaLayerNormSingle(Module):
    """LTX2AdaLayerNormSingle: `rows` vectors of modulation (B, times, rows x dim), and the embedded timesteps (B, times, dim)."""

    def __init__(self, dim: int, rows: int) -> None:
        self.emb = Embedder(dim)
        self.linear = Linear(dim, rows * dim)

    def forward(self, tape: Tape, batch: Size, dtype: str, times: Size = 1) -> tuple[Tensor, Tensor]:
        embedded = self.emb(timesteps(tape, batch * times, 256).to(dtype))
        out = self.linear(silu(embedded))
        return out.view(batch, times, out.shape[1]), embedded.view(batch, times, embedded.shape[1])


class LTX2(Network):
    divides_sequence = True  # as SimpleTuner has it: both streams are cut as they come in, texts stay whole

    def __init__(self, dims: Mapping[str, Any], checkpointing: Checkpointing, *, extend: bool = True) -> None:
        dims = {**DEFAULTS, **dims}
        check_modelled(dims, MODELLED, "LTX2VideoTransformer3DModel")
        video = Stream(
            dim=dims["num_attention_heads"] * dims["attention_head_dim"],
            heads=dims["num_attention_heads"],
            width=dims["attention_head_dim"],
            text_dim=dims["cross_attention_dim"],
            gated=dims["gated_attn"],
            text_mod=dims["cross_attn_mod"],
        )
        audio = Stream(
            dim=dims["audio_num_attention_heads"] * dims["audio_attention_head_dim"],
            heads=dims["audio_num_attention_heads"],
            width=dims["audio_attention_head_dim"],
            text_dim=dims["audio_cross_attention_dim"],
            gated=dims["audio_gated_attn"],
            text_mod=dims["audio_cross_attn_mod"],
        )
        self.video, self.audio, self.stride = video, audio, tuple(dims["stride"])
        self.inputs, self.audio_inputs, self.text_dim = dims["in_channels"], dims["audio_in_channels"], dims["caption_channels"]
        self.audio_rate = dims["audio_sampling_rate"] // dims["audio_hop_length"] // dims["audio_scale_factor"]
        self.projects_text, self.token_timesteps = dims["use_prompt_embeddings"], dims["token_timesteps"]
        self.proj_in, self.audio_proj_in = Linear(self.inputs, video.dim), Linear(self.audio_inputs, audio.dim)
        if self.projects_text:
            self.caption_projection = TextProjection(self.text_dim, video.dim, video.dim)
            self.audio_caption_projection = TextProjection(self.text_dim, audio.dim, audio.dim)
        self.time_embed = AdaLayerNormSingle(video.dim, 9 if video.text_mod else 6)
        self.audio_time_embed = AdaLayerNormSingle(audio.dim, 9 if audio.text_mod else 6)
        self.av_cross_attn_video_scale_shift = AdaLayerNormSingle(video.dim, 4)
        self.av_cross_attn_audio_scale_shift = AdaLayerNormSingle(audio.dim, 4)
        self.av_cross_attn_video_a2v_gate = AdaLayerNormSingle(video.dim, 1)
        self.av_cross_attn_audio_v2a_gate = AdaLayerNormSingle(audio.dim, 1)
        self.scale_shift_table, self.audio_scale_shift_table = Parameter((2, video.dim)), Parameter((2, audio.dim))
        self.modulates_prompt = video.text_mod or audio.text_mod
        if self.modulates_prompt:
            self.prompt_adaln, self.audio_prompt_adaln = AdaLayerNormSingle(video.dim, 2), AdaLayerNormSingle(audio.dim, 2)
        self.transformer_blocks = Blocks(
            dims["num_layers"], lambda _: Block(video, audio, perturbed=dims["perturbed_attn"]), checkpointing, extend=extend
        )
        self.norm_out, self.audio_norm_out = LayerNorm(video.dim, affine=False), LayerNorm(audio.dim, affine=False)
        self.proj_out = Linear(video.dim, dims["out_channels"])
        self.audio_proj_out = Linear(audio.dim, dims["audio_out_channels"])

    def loss(self, tape: Tape, shape: Shape, dtype: str) -> Tensor:
        batch, texts = shape.batch, shape.text_tokens
        frames = (shape.frames - 1) // self.stride[0] + 1
        tokens = frames * (shape.height // self.stride[1]) * (shape.width // self.stride[2])
        audio_tokens = (shape.frames * self.audio_rate + FPS // 2) // FPS
        widths = (self.text_dim, self.text_dim) if self.projects_text else (self.video.text_dim, self.audio.text_dim)
        out, audio_out = self(
            tape.empty((batch, share(tokens, shape.sequence), self.inputs), dtype),
            tape.empty((batch, share(audio_tokens, shape.sequence), self.audio_inputs), dtype),
            tape.empty((batch, texts, widths[0]), dtype),
            tape.empty((batch, texts, widths[1]), dtype),
        )
        out, audio_out = gathered(out, shape.sequence), gathered(audio_out, shape.sequence)
        loss = mse_loss(out.float(), tape.empty(out.shape, "fp32"))
        return loss + mse_loss(audio_out.float(), tape.empty(audio_out.shape, "fp32"))

    def forward(self, hidden: Tensor, audio: Tensor, text: Tensor, audio_text: Tensor) -> tuple[Tensor, Tensor]:
        tape, (batch, tokens, _), (_, audio_tokens, _) = hidden.tape, hidden.shape, audio.shape
        masks = [tape.empty((batch, 1, text.shape[1]), hidden.dtype) for _ in range(2)]
        coords = tape.empty((batch, 3, tokens * tape.sharing.ranks, 2), "fp32")
        rotary, cross_rotary = self._rope(tape, batch, tokens, self.video.width), self._rope(tape, batch, tokens, self.audio.width)
        audio_rotary = self._rope(tape, batch, audio_tokens, self.audio.width)
        audio_cross_rotary = self._rope(tape, batch, audio_tokens, self.audio.width)

        hidden = self.proj_in(hidden)
        audio = self.audio_proj_in(audio)
        dtype, audio_dtype = hidden.dtype, audio.dtype
        times, audio_times = (tokens, audio_tokens) if self.token_timesteps else (1, 1)
        temb, embedded = self.time_embed(tape, batch, dtype, times)
        audio_temb, audio_embedded = self.audio_time_embed(tape, batch, audio_dtype, audio_times)
        prompt = audio_prompt = None
        if self.modulates_prompt:
            prompt, _ = self.prompt_adaln(tape, batch, dtype)
            audio_prompt, _ = self.audio_prompt_adaln(tape, batch, audio_dtype)
            times = audio_times = 1  # version 2.3 takes one noise level of the other modality
        scale_shift, _ = self.av_cross_attn_video_scale_shift(tape, batch, dtype, times)
        gate, _ = self.av_cross_attn_video_a2v_gate(tape, batch, dtype, times)
        audio_scale_shift, _ = self.av_cross_attn_audio_scale_shift(tape, batch, audio_dtype, audio_times)
        audio_gate, _ = self.av_cross_attn_audio_v2a_gate(tape, batch, audio_dtype, audio_times)
        if self.projects_text:
            text = self.caption_projection(text)
            audio_text = self.audio_caption_projection(audio_text)

        shared = Conditions(
            temb=temb, cross_scale_shift=scale_shift, cross_gate=gate, prompt=prompt, mask=masks[0],
            rotary=rotary, cross_rotary=cross_rotary,
        )  # fmt: skip
        audio_shared = Conditions(
            temb=audio_temb, cross_scale_shift=audio_scale_shift, cross_gate=audio_gate, prompt=audio_prompt, mask=masks[1],
            rotary=audio_rotary, cross_rotary=audio_cross_rotary,
        )  # fmt: skip
        for block in self.transformer_blocks.walk(tape):
            hidden, audio = block(hidden, audio, text, audio_text, shared, audio_shared)
        del coords
        hidden = self.norm_out(hidden)
        output = self.proj_out(_modulated(hidden, self.scale_shift_table, embedded))
        audio = self.audio_norm_out(audio)
        return output, self.audio_proj_out(_modulated(audio, self.audio_scale_shift_table, audio_embedded))

    def _rope(self, tape: Tape, batch: Size, tokens: Size, width: int) -> Rotary:
        whole = (batch, self.video.heads, tokens * tape.sharing.ranks, width // 2)
        made = tape.empty(whole, "fp32"), tape.empty(whole, "fp32")
        part = (batch, self.video.heads, tokens, width // 2)
        return made[0].view(*part), made[1].view(*part)


def _modulated(x: Tensor, table: Parameter, embedded: Tensor) -> Tensor:
    batch, ones, dim = embedded.shape
    values = table.view(1, 1, 2, dim) + embedded.view(batch, ones, 1, dim)
    shift, scale = narrow(values, batch, ones, dim), narrow(values, batch, ones, dim)
    return x * (1 + scale) + shift


NETWORK = LTX2
