"""Wan 2.1 VACE video transformers: Wan and blocks for a conditioning video (diffusers/…/transformer_wan_vace.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from preflight.networks.network import Shape
from preflight.networks.wan import Wan, WanBlock
from preflight.tape.loss import mse_loss
from preflight.tape.module import Blocks, Checkpointing, Conv, Linear
from preflight.tape.shaping import cat, chunk
from preflight.tape.tensor import Tape, Tensor


class VaceBlock(WanBlock):
    """A block of Wan over the conditioning video; the first one projects it and adds the noisy video, each makes a hint."""

    def __init__(self, dim: int, ffn_dim: int, heads: int, *, cross_attn_norm: bool, first: bool) -> None:
        super().__init__(dim, ffn_dim, heads, cross_attn_norm=cross_attn_norm, image_dim=None)
        self.proj_in = Linear(dim, dim) if first else None
        self.proj_out = Linear(dim, dim)

    def forward(self, *arguments: Any) -> Any:
        hidden, context, control, temb, cos, sin = arguments
        if self.proj_in is not None:
            control = self.proj_in(control)
            control = control + hidden
        shift, scale, gate, ffn_shift, ffn_scale, ffn_gate = chunk(self.scale_shift_table + temb.float(), 6, 1)

        normed = (self.norm1(control.float()) * (1 + scale) + shift).type_as(control)
        attended = self.attn1(normed, None, (cos, sin))
        control = (control.float() + attended * gate).type_as(control)

        normed = self.norm2(control.float()).type_as(control) if self.norm2 is not None else control
        attended = self.attn2(normed, context, None)
        control = control + attended

        normed = (self.norm3(control.float()) * (1 + ffn_scale) + ffn_shift).type_as(control)
        fed = self.ffn(normed)
        control = (control.float() + fed.float() * ffn_gate).type_as(control)
        return self.proj_out(control), control


class WanVace(Wan):
    divides_sequence = False
    in_order = False  # hints go from the second list to the first

    def __init__(self, dims: Mapping[str, Any], checkpointing: Checkpointing, *, extend: bool = True) -> None:
        self.layers = frozenset(dims["vace_layers"])
        dim = dims["num_attention_heads"] * dims["attention_head_dim"]
        super().__init__(dims, checkpointing, extend=extend)
        self.controls = dims["vace_in_channels"]
        self.vace_patch_embedding = Conv(self.controls, dim, self.patch, stride=self.patch)
        norm = dims.get("cross_attn_norm", True)
        self.blocks = Blocks(
            dims["num_layers"],
            lambda _: WanBlock(dim, dims["ffn_dim"], self.heads, cross_attn_norm=norm, image_dim=None),
            checkpointing,
            kind=lambda i: i in self.layers,
            extend=extend,
        )
        # every hint is kept until its block, so none of these blocks stands for another
        self.vace_blocks = Blocks(
            len(self.layers),
            lambda i: VaceBlock(dim, dims["ffn_dim"], self.heads, cross_attn_norm=norm, first=i == 0),
            checkpointing,
            extend=False,
        )

    def loss(self, tape: Tape, shape: Shape, dtype: str) -> Tensor:
        frames = (shape.frames - 1) // self.stride[0] + 1
        height, width = shape.height // self.stride[1], shape.width // self.stride[2]
        latents = tape.empty((shape.batch, self.inputs, frames, height, width), dtype)
        text = tape.empty((shape.batch, shape.text_tokens, self.text_dim), dtype)
        controls = tape.empty((shape.batch, self.controls, frames, height, width), dtype)
        out = self(tape, latents, text, controls)
        return mse_loss(out.float(), tape.empty(out.shape, "fp32"))

    def forward(self, *arguments: Any) -> Tensor:
        tape, latents, text, controls = arguments
        batch, _, *size = latents.shape
        frames, height, width = (n // p for n, p in zip(size, self.patch, strict=True))
        tokens = frames * height * width
        cos = tape.empty((1, tokens, 1, self.width), "fp32")
        sin = tape.empty((1, tokens, 1, self.width), "fp32")

        hidden = self.patch_embedding(latents)
        hidden = hidden.view(batch, tokens, hidden.shape[1])
        control = self.vace_patch_embedding(controls)
        control = cat([control.view(batch, tokens, control.shape[1])], 1)
        temb, projected, text = self.condition_embedder(tape, batch, text, None)
        dim = hidden.shape[2]
        projected = projected.view(batch, 6, dim)

        hints = []
        for block in self.vace_blocks.walk(tape):
            hint, control = block(hidden, text, control, projected, cos, sin)
            hints.append(hint)
        hints.reverse()
        for number, block in self.blocks.numbered(tape):
            hidden = block(hidden, text, projected, cos, sin)
            if number in self.layers:
                hint = hints.pop()
                hidden = hidden + hint * 1.0

        shift, scale = chunk(self.scale_shift_table + temb.view(batch, 1, dim), 2, 1)
        hidden = (self.norm_out(hidden.float()) * (1 + scale) + shift).type_as(hidden)
        hidden = self.proj_out(hidden)
        return hidden.view(batch, self.outputs, *size).contiguous()


NETWORK = WanVace
