"""diffusers' UNet2DModel (diffusers/models/unets/unet_2d.py)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from preflight.networks.common import TimestepEmbedding, timesteps
from preflight.networks.diffusers_unet2d_blocks import (
    Attention,
    DownBlock,
    Downsample2D,
    Feature,
    ImageConv,
    MidBlock,
    ResnetBlock2D,
    Style,
    UpBlock,
    Upsample2D,
)
from preflight.networks.network import Network, NotModelled, Shape, check_modelled, constructor_arguments
from preflight.tape.activation import BY_NAME, silu
from preflight.tape.lookup import lookup
from preflight.tape.loss import mse_loss
from preflight.tape.meter import Size
from preflight.tape.module import Checkpointing, GroupNorm, Module
from preflight.tape.shaping import avg_pool, upsample_nearest
from preflight.tape.tensor import Parameter, Tape, Tensor

# unets/unet_2d.py: UNet2DModel.__init__
ARGUMENTS: Mapping[str, Any] = {
    "sample_size": None,
    "in_channels": 3,
    "out_channels": 3,
    "center_input_sample": False,
    "time_embedding_type": "positional",
    "time_embedding_dim": None,
    "freq_shift": 0,
    "flip_sin_to_cos": True,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
    "mid_block_type": "UNetMidBlock2D",
    "up_block_types": ("AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (224, 448, 672, 896),
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "downsample_padding": 1,
    "downsample_type": "conv",
    "upsample_type": "conv",
    "dropout": 0.0,
    "act_fn": "silu",
    "attention_head_dim": 8,
    "norm_num_groups": 32,
    "attn_norm_num_groups": None,
    "norm_eps": 1e-5,
    "resnet_time_scale_shift": "default",
    "add_attention": True,
    "class_embed_type": None,
    "num_class_embeds": None,
    "num_train_timesteps": None,
}
# whether a block has attention, and how it changes the resolution: "" is what `downsample_type` or `upsample_type` says
DOWN_BLOCKS = {
    "DownBlock2D": (False, "conv"),
    "ResnetDownsampleBlock2D": (False, "resnet"),
    "AttnDownBlock2D": (True, ""),
}
UP_BLOCKS = {"UpBlock2D": (False, "conv"), "ResnetUpsampleBlock2D": (False, "resnet"), "AttnUpBlock2D": (True, "")}
CONSTRUCTOR = "diffusers' UNet2DModel"
MODELLED: Mapping[str, Sequence[Any]] = {
    "time_embedding_type": ("positional", "fourier", "learned"),
    "mid_block_type": ("UNetMidBlock2D", None),
    "downsample_type": ("conv", "resnet"),
    "upsample_type": ("conv", "resnet"),
    "act_fn": tuple(BY_NAME),
    "resnet_time_scale_shift": ("default", "scale_shift"),
    "class_embed_type": (None, "timestep", "identity"),
}


class UNet2D(Network):
    """Built from the arguments of UNet2DModel; raises NotModelled for the values that MODELLED and the block tables leave out."""

    def __init__(self, dims: Mapping[str, Any], checkpointing: Checkpointing, *, extend: bool = True) -> None:
        del extend  # no two blocks are alike
        arguments = constructor_arguments(dims, ARGUMENTS, CONSTRUCTOR)
        _check(arguments)
        channels = tuple(arguments["block_out_channels"])
        temb_channels = arguments["time_embedding_dim"] or channels[0] * 4
        style = Style(
            temb_channels=temb_channels,
            groups=arguments["norm_num_groups"],
            act_fn=arguments["act_fn"],
            dropout=arguments["dropout"],
            time_scale_shift=arguments["resnet_time_scale_shift"] == "scale_shift",
            head_dim=arguments["attention_head_dim"],
        )
        self.inputs, self.width = arguments["in_channels"], channels[0]
        self.centered = arguments["center_input_sample"]
        self.time_embedding_type, self.class_embed_type = arguments["time_embedding_type"], arguments["class_embed_type"]
        self.conv_in = ImageConv(self.inputs, channels[0], 3, padding=1)
        self._build_embeddings(arguments, temb_channels)
        self.down_blocks = _down_blocks(arguments, channels, style)
        self.mid_block = _mid_block(arguments, channels[-1], style)
        self.up_blocks = _up_blocks(arguments, channels, style)
        self.conv_norm_out = GroupNorm(style.groups, channels[0])
        self.conv_out = ImageConv(channels[0], arguments["out_channels"], 3, padding=1)
        self._mark_checkpointed(checkpointing)

    def _build_embeddings(self, arguments: Mapping[str, Any], temb_channels: int) -> None:
        self.time_proj: Parameter | None = None
        inputs = self.width
        if self.time_embedding_type == "fourier":
            self.time_proj = Parameter((inputs,))
            self.time_proj.requires_grad = False
            inputs = 2 * inputs
        elif self.time_embedding_type == "learned":
            self.time_proj = Parameter((arguments["num_train_timesteps"], inputs))
        self.time_inputs = inputs
        self.time_embedding = TimestepEmbedding(inputs, temb_channels)
        self.temb_channels = temb_channels
        self.class_table: Parameter | None = None
        self.class_embedding = TimestepEmbedding(inputs, temb_channels) if self.class_embed_type == "timestep" else None
        if self.class_embed_type is None and arguments["num_class_embeds"] is not None:
            self.class_table = Parameter((arguments["num_class_embeds"], temb_channels))

    def _mark_checkpointed(self, checkpointing: Checkpointing) -> None:
        """Each resnet but the first of the middle is checkpointed by itself (unet_2d_blocks.py)."""
        marks: list[tuple[list[bool], int]] = []
        for down in self.down_blocks:
            marks += [(down.checkpointed, i) for i in range(len(down.resnets))]
        middle = [False]
        marks.append((middle, 0))
        for up in self.up_blocks:
            marks += [(up.checkpointed, i) for i in range(len(up.resnets))]
        for block, (flags, i) in enumerate(marks):
            flags[i] = checkpointing.covers(block, len(marks))
        if self.mid_block is not None:
            self.mid_block.checkpointed = middle[0]

    @staticmethod
    def pixel_step(dims: Mapping[str, Any]) -> int:
        return int(2 ** (len(dims.get("block_out_channels", ARGUMENTS["block_out_channels"])) - 1))

    def loss(self, tape: Tape, shape: Shape, dtype: str) -> Tensor:
        out = self(tape.empty((shape.batch, self.inputs, shape.height, shape.width), dtype))
        return mse_loss(out.float(), tape.empty(out.shape, "fp32"))

    def forward(self, sample: Tensor) -> Tensor:
        batch = sample.shape[0]
        if self.centered:
            sample = sample * 2.0 + -1.0
        emb = self._embedded(sample.tape, batch)

        sample, last = self.conv_in(sample), False
        down_block_res_samples: list[Feature] = [(sample, last)]
        for down in self.down_blocks:
            sample, last, res_samples = down(sample, emb, last)
            down_block_res_samples += res_samples

        if self.mid_block is not None:
            sample, last = self.mid_block(sample, emb, last)

        for up in self.up_blocks:
            taken = len(up.resnets)
            res_samples, down_block_res_samples = down_block_res_samples[-taken:], down_block_res_samples[:-taken]
            sample, last = up(sample, res_samples, emb, last)

        sample = self.conv_norm_out(sample)
        sample = silu(sample)
        sample = self.conv_out(sample, last)
        if self.time_embedding_type == "fourier":
            sample = sample / 1.0  # by the timestep of each sample
        return sample

    def _embedded(self, tape: Tape, batch: Size) -> Tensor:
        dtype = self.conv_in.weight.dtype
        emb = self.time_embedding(self._time(tape, batch).to(dtype))
        if self.class_embedding is not None:
            return emb + self.class_embedding(self._time(tape, batch)).to(dtype)
        if self.class_table is not None:
            return emb + lookup(self.class_table, tape.empty((batch,), "int64")).to(dtype)
        if self.class_embed_type == "identity":
            return emb + tape.empty((batch, self.temb_channels), dtype)
        return emb

    def _time(self, tape: Tape, batch: Size) -> Tensor:
        if self.time_embedding_type == "learned" and self.time_proj is not None:
            return lookup(self.time_proj, tape.empty((batch,), "int64"))
        return timesteps(tape, batch, self.time_inputs)


def _check(arguments: Mapping[str, Any]) -> None:
    check_modelled(arguments, MODELLED, CONSTRUCTOR)
    for name, table in (("down_block_types", DOWN_BLOCKS), ("up_block_types", UP_BLOCKS)):
        for kind in arguments[name]:
            check_modelled({name: kind.removeprefix("UNetRes")}, {name: tuple(table)}, CONSTRUCTOR)
        if len(arguments[name]) != len(arguments["block_out_channels"]):
            raise ValueError(f"{name} and block_out_channels are not of one length")
    if arguments["norm_num_groups"] is None:
        raise NotModelled(f"{CONSTRUCTOR} without norm_num_groups is not modelled")


def _down_blocks(arguments: Mapping[str, Any], channels: Sequence[int], style: Style) -> list[DownBlock]:
    blocks = []
    before = channels[0]
    for i, (kind, outputs) in enumerate(zip(arguments["down_block_types"], channels, strict=True)):
        attends, change = DOWN_BLOCKS[kind.removeprefix("UNetRes")]
        layers = range(arguments["layers_per_block"])
        resnets = [ResnetBlock2D(before if layer == 0 else outputs, outputs, style) for layer in layers]
        attentions = [Attention(outputs, style, style.groups) for _ in layers] if attends else []
        resampler: Module | None = None
        if i < len(channels) - 1 and (change or arguments["downsample_type"]) == "conv":
            resampler = Downsample2D(outputs, arguments["downsample_padding"])
        elif i < len(channels) - 1:
            resampler = ResnetBlock2D(outputs, outputs, style, avg_pool)
        blocks.append(DownBlock(resnets, attentions, resampler))
        before = outputs
    return blocks


def _mid_block(arguments: Mapping[str, Any], channels: int, style: Style) -> MidBlock | None:
    if arguments["mid_block_type"] is None:
        return None
    groups = arguments["attn_norm_num_groups"]
    if groups is None and not style.time_scale_shift:
        groups = style.groups
    style = replace(style, scale_factor=arguments["mid_block_scale_factor"])
    return MidBlock(channels, style, groups, attention=arguments["add_attention"])


def _up_blocks(arguments: Mapping[str, Any], channels: Sequence[int], style: Style) -> list[UpBlock]:
    blocks = []
    ascending = tuple(reversed(channels))
    previous = ascending[0]
    for i, (kind, outputs) in enumerate(zip(arguments["up_block_types"], ascending, strict=True)):
        attends, change = UP_BLOCKS[kind.removeprefix("UNetRes")]
        skipped = ascending[min(i + 1, len(channels) - 1)]
        layers = arguments["layers_per_block"] + 1
        resnets = []
        for layer in range(layers):
            inputs = (previous if layer == 0 else outputs) + (skipped if layer == layers - 1 else outputs)
            resnets.append(ResnetBlock2D(inputs, outputs, style))
        attentions = [Attention(outputs, style, style.groups) for _ in range(layers)] if attends else []
        resampler: Module | None = None
        if i < len(channels) - 1 and (change or arguments["upsample_type"]) == "conv":
            resampler = Upsample2D(outputs)
        elif i < len(channels) - 1:
            resampler = ResnetBlock2D(outputs, outputs, style, upsample_nearest)
        blocks.append(UpBlock(resnets, attentions, resampler))
        previous = outputs
    return blocks


NETWORK = UNet2D
