"""Stable Diffusion's UNet: diffusers' UNet2DConditionModel (diffusers/models/unets/unet_2d_condition.py)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from preflight.networks.common import TimestepEmbedding, timesteps
from preflight.networks.diffusers_unet2d_blocks import Downsample2D, ImageConv, ResnetBlock2D, Style, Upsample2D
from preflight.networks.diffusers_unet2d_condition_blocks import DownStage, MidStage, Policy, Stage, Transformer2D, UpStage
from preflight.networks.network import Network, Shape, check_modelled, constructor_arguments
from preflight.tape.activation import silu
from preflight.tape.loss import mse_loss
from preflight.tape.module import Checkpointing, GroupNorm, Linear
from preflight.tape.shaping import cat
from preflight.tape.tensor import Tape, Tensor

CONSTRUCTOR = "diffusers' UNet2DConditionModel"
# unets/unet_2d_condition.py: __init__, less the arguments whose defaults alone are modelled and which no published model sets
ARGUMENTS: Mapping[str, Any] = {
    "stride": (1, 8, 8),
    "sample_size": None,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "cross_attention_dim": 1280,
    "transformer_layers_per_block": 1,
    "encoder_hid_dim": None,
    "encoder_hid_dim_type": None,
    "attention_head_dim": 8,
    "use_linear_projection": False,
    "addition_embed_type": None,
    "addition_time_embed_dim": None,
    "projection_class_embeddings_input_dim": None,
}
MODELLED: Mapping[str, Sequence[Any]] = {
    "mid_block_type": ("UNetMidBlock2DCrossAttn",),
    "encoder_hid_dim_type": (None, "text_proj"),
    "addition_embed_type": (None, "text_time"),
}
DOWN_BLOCKS = {"CrossAttnDownBlock2D": True, "DownBlock2D": False}
UP_BLOCKS = {"CrossAttnUpBlock2D": True, "UpBlock2D": False}
TIME_IDS = 6  # original size, crop and target size: pipelines/stable_diffusion_xl, _get_add_time_ids


class UNet2DCondition(Network):
    """Built from the arguments of UNet2DConditionModel that published models set; raises NotModelled for others."""

    def __init__(self, dims: Mapping[str, Any], checkpointing: Checkpointing, *, extend: bool = True) -> None:
        arguments = constructor_arguments(dims, ARGUMENTS, CONSTRUCTOR)
        _check(arguments)
        self.inputs, self.stride = arguments["in_channels"], tuple(arguments["stride"])
        channels = tuple(arguments["block_out_channels"])
        self.width, temb_channels = channels[0], channels[0] * 4
        self.conv_in = ImageConv(self.inputs, channels[0], 3, padding=1)
        self.time_embedding = TimestepEmbedding(channels[0], temb_channels)
        self._build_conditions(arguments, temb_channels)
        build = _Builder(arguments, temb_channels, (arguments["norm_num_groups"], checkpointing, extend))
        self.down_blocks = build.down_blocks()
        self.mid_block = build.mid_block()
        self.up_blocks = build.up_blocks()
        self.conv_norm_out = GroupNorm(arguments["norm_num_groups"], channels[0])
        self.conv_out = ImageConv(channels[0], arguments["out_channels"], 3, padding=1)
        self._mark_checkpointed(checkpointing)

    def _build_conditions(self, arguments: Mapping[str, Any], temb_channels: int) -> None:
        context_dim, given = arguments["cross_attention_dim"], arguments["encoder_hid_dim"]
        self.encoder_hid_proj = Linear(given, context_dim) if arguments["encoder_hid_dim_type"] == "text_proj" else None
        self.text_dim = context_dim if self.encoder_hid_proj is None else given
        self.add_embedding: TimestepEmbedding | None = None
        if arguments["addition_embed_type"] == "text_time":
            self.time_id_dim, added = arguments["addition_time_embed_dim"], arguments["projection_class_embeddings_input_dim"]
            self.add_embedding = TimestepEmbedding(added, temb_channels)
            self.pooled_dim = added - TIME_IDS * self.time_id_dim

    def _mark_checkpointed(self, checkpointing: Checkpointing) -> None:
        """Each resnet but the first of the middle is checkpointed by itself, as each transformer block is."""
        stages: list[Stage] = [*self.down_blocks, self.mid_block, *self.up_blocks]
        marks = [(stage, i) for stage in stages for i in range(len(stage.resnets)) if stage is not self.mid_block or i > 0]
        for position, (stage, i) in enumerate(marks):
            stage.checkpointed[i] = checkpointing.covers(position, len(marks))

    @staticmethod
    def pixel_step(dims: Mapping[str, Any]) -> int:
        given = {**ARGUMENTS, **dims}
        return int(given["stride"][1] * 2 ** (len(given["block_out_channels"]) - 1))

    def loss(self, tape: Tape, shape: Shape, dtype: str) -> Tensor:
        batch, height, width = shape.batch, shape.height // self.stride[1], shape.width // self.stride[2]
        out = self(
            tape.empty((batch, self.inputs, height, width), dtype),
            tape.empty((batch, shape.text_tokens, self.text_dim), dtype),
            tape.empty((batch, self.pooled_dim), dtype) if self.add_embedding is not None else None,
        )
        return mse_loss(out.float(), tape.empty(out.shape, "fp32"))

    def forward(self, sample: Tensor, context: Tensor, pooled: Tensor | None) -> Tensor:
        tape, batch = sample.tape, sample.shape[0]
        time = timesteps(tape, batch, self.width).to(sample.dtype)
        emb = self.time_embedding(time)
        if self.add_embedding is not None and pooled is not None:
            added = self._added(self.add_embedding, pooled, emb.dtype)
            emb = emb + added
        if self.encoder_hid_proj is not None:
            context = self.encoder_hid_proj(context)

        sample = self.conv_in(sample)
        down_block_res_samples: list[Tensor] = [sample]
        for down in self.down_blocks:
            sample, res_samples = down(sample, emb, context)
            down_block_res_samples += res_samples
        sample = self.mid_block(sample, emb, context)
        for up in self.up_blocks:
            taken = len(up.resnets)
            res_samples, down_block_res_samples = down_block_res_samples[-taken:], down_block_res_samples[:-taken]
            sample = up(sample, res_samples, emb, context)

        sample = self.conv_norm_out(sample)
        sample = silu(sample)
        return self.conv_out(sample)

    def _added(self, embed: TimestepEmbedding, pooled: Tensor, dtype: str) -> Tensor:
        """get_aug_embed: the pooled text and the embedded sizes, side by side."""
        batch = pooled.shape[0]
        sizes = timesteps(pooled.tape, batch * TIME_IDS, self.time_id_dim)
        sizes = sizes.view(batch, TIME_IDS * self.time_id_dim)
        added = cat([pooled, sizes], -1)
        return embed(added.to(dtype))


class _Builder:
    """The stages from the constructor's arguments (unet_2d_condition.py: __init__)."""

    def __init__(self, arguments: Mapping[str, Any], temb_channels: int, policy: Policy) -> None:
        self.arguments, self.policy = arguments, policy
        self.channels = tuple(arguments["block_out_channels"])
        self.layers = arguments["layers_per_block"]
        self.style = Style(
            temb_channels=temb_channels, groups=policy[0], act_fn="silu", dropout=0.0, time_scale_shift=False, head_dim=None
        )

    def down_blocks(self) -> list[DownStage]:
        stages, before = [], self.channels[0]
        for i, (kind, outputs) in enumerate(zip(self.arguments["down_block_types"], self.channels, strict=True)):
            resnets = [ResnetBlock2D(before if layer == 0 else outputs, outputs, self.style) for layer in range(self.layers)]
            attentions = [self._transformer(i) for _ in resnets] if DOWN_BLOCKS[kind] else []
            stages.append(DownStage(resnets, attentions, Downsample2D(outputs, 1) if i < len(self.channels) - 1 else None))
            before = outputs
        return stages

    def mid_block(self) -> MidStage:
        channels = self.channels[-1]
        return MidStage([ResnetBlock2D(channels, channels, self.style) for _ in range(2)], [self._transformer(-1)])

    def up_blocks(self) -> list[UpStage]:
        stages, ascending = [], tuple(reversed(self.channels))
        previous = ascending[0]
        for i, (kind, outputs) in enumerate(zip(self.arguments["up_block_types"], ascending, strict=True)):
            skipped = ascending[min(i + 1, len(ascending) - 1)]
            first, last = [previous] + [outputs] * self.layers, [outputs] * self.layers + [skipped]
            resnets = [ResnetBlock2D(a + b, outputs, self.style) for a, b in zip(first, last, strict=True)]
            attentions = [self._transformer(-1 - i) for _ in resnets] if UP_BLOCKS[kind] else []
            stages.append(UpStage(resnets, attentions, Upsample2D(outputs) if i < len(self.channels) - 1 else None))
            previous = outputs
        return stages

    def _transformer(self, level: int) -> Transformer2D:
        """`attention_head_dim` is the number of heads: a name that diffusers keeps for the sake of published configs."""
        heads, layers = (
            value[level] if isinstance(value, Sequence) else value
            for value in (self.arguments["attention_head_dim"], self.arguments["transformer_layers_per_block"])
        )
        linear, context_dim = self.arguments["use_linear_projection"], self.arguments["cross_attention_dim"]
        return Transformer2D(self.channels[level], heads, layers, context_dim, self.policy, linear=linear)


def _check(arguments: Mapping[str, Any]) -> None:
    check_modelled(arguments, MODELLED, CONSTRUCTOR)
    for name, table in (("down_block_types", DOWN_BLOCKS), ("up_block_types", UP_BLOCKS)):
        for kind in arguments[name]:
            check_modelled({name: kind}, {name: tuple(table)}, CONSTRUCTOR)


NETWORK = UNet2DCondition
