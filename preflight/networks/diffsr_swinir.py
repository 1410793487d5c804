"""DiffSR's SwinIR_net (models/swinIR/SwinIR.py)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from preflight.networks.diffsr_common import ChannelsLastConv, SuperResolution, to_channels_first, to_channels_last
from preflight.networks.diffsr_edsr import Upsampler, conv
from preflight.tape.activation import gelu, in_place, keeps_result
from preflight.tape.dropout import dropout
from preflight.tape.linear import matmul
from preflight.tape.lookup import lookup
from preflight.tape.meter import Size
from preflight.tape.module import Blocks, Checkpointing, LayerNorm, Linear, Module
from preflight.tape.shaping import narrow, pad, pixel_shuffle, roll, transpose, upsample_nearest
from preflight.tape.tensor import Buffer, Parameter, Tensor


class Mlp(Module):
    def __init__(self, dim: int, hidden: int, drop: float) -> None:
        self.fc1, self.fc2 = Linear(dim, hidden), Linear(hidden, dim)
        self.drop = drop

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc1(x)
        x = gelu(x)
        x = dropped(x, self.drop)
        x = self.fc2(x)
        return dropped(x, self.drop)


class WindowAttention(Module):
    """`packed`: query, key and value are brought into one block of memory each before they are taken apart (ResShift's version)."""

    def __init__(
        self, dim: int, window: int, heads: int, *, qkv_bias: bool, drop: float, attn_drop: float, packed: bool = False
    ) -> None:
        self.heads, self.drop, self.attn_drop, self.packed = heads, drop, attn_drop, packed
        self.relative_position_bias_table = Parameter(((2 * window - 1) ** 2, heads))
        self.relative_position_index = Buffer((window**2, window**2), "int64")
        self.qkv = Linear(dim, dim * 3, bias=qkv_bias)
        self.proj = Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        windows, tokens, dim = x.shape
        heads, width = self.heads, dim // self.heads
        qkv = transpose(self.qkv(x), 3, windows, heads, tokens, width)
        qkv = qkv.contiguous() if self.packed else qkv
        q, k, v = (narrow(qkv, windows, heads, tokens, width) for _ in range(3))

        q = q * width**-0.5
        attn = matmul(self._together(q), k.contiguous().view(windows, heads, width, tokens))

        index = self.relative_position_index.view(tokens * tokens)
        relative_position_bias = lookup(self.relative_position_bias_table, index)
        relative_position_bias = relative_position_bias.view(heads, tokens, tokens).contiguous()
        attn = attn + relative_position_bias.view(1, heads, tokens, tokens)

        if mask is not None:
            count = mask.shape[0]
            attn = attn.view(windows // count, count, heads, tokens, tokens) + mask.view(1, count, 1, tokens, tokens)
            attn = attn.view(windows, heads, tokens, tokens)
        attn = keeps_result(attn)
        attn = dropped(attn, self.attn_drop)

        x = transpose(matmul(attn, self._together(v)), windows, tokens, heads, width).contiguous().view(windows, tokens, dim)
        x = self.proj(x)
        return dropped(x, self.drop)

    def _together(self, x: Tensor) -> Tensor:
        return x if self.packed else x.contiguous()


class SwinTransformerBlock(Module):
    """`shift` and `drop_path` say whether there is any of it; `resolution` is that of the mask, None if the first step makes it."""

    def __init__(
        self,
        dim: int,
        resolution: Sequence[int] | None,
        heads: int,
        *,
        window: int,
        shift: int,
        mlp: Module,
        qkv_bias: bool,
        drop: float,
        attn_drop: float,
        drop_path: float,
    ) -> None:
        if resolution is not None and min(resolution) <= window:
            shift, window = 0, min(resolution)
        self.window, self.shift, self.drop_path = window, shift, drop_path
        self.norm1 = LayerNorm(dim)
        self.attn = WindowAttention(dim, window, heads, qkv_bias=qkv_bias, drop=drop, attn_drop=attn_drop)
        self.norm2 = LayerNorm(dim)
        self.mlp = mlp
        self.attn_mask: Tensor | None = None
        if shift and resolution is not None:
            self.attn_mask = Buffer((count_windows(resolution[0], resolution[1], window), window**2, window**2))

    def forward(self, x: Tensor, height: Size, width: Size) -> Tensor:
        batch, tokens, dim = x.shape

        shortcut = x
        x = self.norm1(x)
        x = x.view(batch, height, width, dim)
        shifted = roll(x) if self.shift else x

        if self.shift and not isinstance(self.attn_mask, Buffer):
            self.attn_mask = x.tape.empty((count_windows(height, width, self.window), self.window**2, self.window**2), "fp32")
        windows = window_partition(shifted, self.window)
        attended = self.attn(windows, self.attn_mask)
        shifted = window_reverse(attended, batch, height, width)

        x = roll(shifted) if self.shift else shifted
        x = x.view(batch, tokens, dim)

        x = shortcut + path_dropped(x, self.drop_path)
        return x + path_dropped(self.mlp(self.norm2(x)), self.drop_path)


def window_partition(x: Tensor, window: int) -> Tensor:
    """(B, H, W, C) as a new (windows, tokens, C); the gradient is put back by a copy too."""
    batch, height, width, dim = x.shape
    return transpose(x, batch * count_windows(height, width, window), window**2, dim).contiguous()


def window_reverse(windows: Tensor, batch: Size, height: Size, width: Size) -> Tensor:
    """The opposite."""
    return transpose(windows, batch, height, width, windows.shape[2]).contiguous()


def count_windows(height: Size, width: Size, window: int) -> Size:
    return (height // window) * (width // window)


def dropped(x: Tensor, probability: float) -> Tensor:
    """torch.nn.Dropout."""
    return dropout(x) if probability else x


def path_dropped(x: Tensor, probability: float) -> Tensor:
    """DropPath: one random number a sample."""
    if not probability:
        return x
    random = x.tape.empty((x.shape[0], *(1 for _ in x.shape[1:])), x.dtype)
    return x * random


class ResidualConv(Module):
    """The convolution before a residual connection: one, or three with leaky ReLUs between them."""

    def __init__(self, dim: int, kind: str) -> None:
        if kind == "3conv":
            middle = ChannelsLastConv(dim // 4, dim // 4, (1, 1))
            self.convs = [conv(dim, dim // 4), middle, conv(dim // 4, dim)]
        else:
            self.convs = [conv(dim, dim)]

    def forward(self, x: Tensor) -> Tensor:
        x = self.convs[0](x)
        for module in self.convs[1:]:
            x = module(in_place(x))
        return x


class RSTB(Module):
    """A stage of blocks, a convolution, and the stage's input again."""

    def __init__(self, dim: int, blocks: Blocks, connection: str) -> None:
        self.blocks = blocks
        self.conv = ResidualConv(dim, connection)

    def forward(self, x: Tensor, height: Size, width: Size) -> Tensor:
        return self.conv(self._residual_group(x, height, width)).view(*x.shape) + x

    def _residual_group(self, x: Tensor, height: Size, width: Size) -> Tensor:
        for block in self.blocks.walk(x.tape):
            x = block(x, height, width)
        return x.view(x.shape[0], x.shape[2], height, width)


class SwinIR(SuperResolution):
    """Its masks are kept for inputs of `img_size`; inputs of another size are taken to cost the same."""

    @staticmethod
    def pixel_step(dims: Mapping[str, Any]) -> int:
        """Windows fill the input."""
        return int(dims.get("window_size", 7)) * SuperResolution.pixel_step(dims)

    def __init__(self, dims: Mapping[str, Any], checkpointing: Checkpointing, *, extend: bool = True) -> None:
        inputs, outputs = dims.get("in_channels", 3), dims.get("out_channels")
        outputs = inputs if outputs is None else outputs
        super().__init__(dims, inputs, outputs)
        dim = dims.get("embed_dim", 96)
        depths, heads = dims.get("depths", [6, 6, 6, 6]), dims.get("num_heads", [6, 6, 6, 6])
        self.window = dims.get("window_size", 7)
        self.drop = dims.get("drop_rate", 0.0)
        self.upscale, self.upsampler = dims.get("upscale_factor", 2), dims.get("upsampler", "pixelshuffle")
        connection = dims.get("resi_connection", "1conv")
        resolution = [size // dims.get("patch_size", 1) for size in _pair(dims.get("img_size", 64))]
        if dims.get("use_checkpoint", False):
            checkpointing = Checkpointing(True)

        self.conv_first = conv(inputs, dim)
        self.patch_norm = LayerNorm(dim) if dims.get("patch_norm", True) else None
        self.absolute_pos_embed = Parameter((1, resolution[0] * resolution[1], dim)) if dims.get("ape", False) else None

        def block(stage: int) -> Callable[[int], SwinTransformerBlock]:
            return lambda i: SwinTransformerBlock(
                dim,
                resolution,
                heads[stage],
                window=self.window,
                shift=shifted(i) * (self.window // 2),
                mlp=Mlp(dim, int(dim * dims.get("mlp_ratio", 4.0)), self.drop),
                qkv_bias=dims.get("qkv_bias", True),
                drop=self.drop,
                attn_drop=dims.get("attn_drop_rate", 0.0),
                drop_path=drop_path(stage, i),
            )

        def shifted(i: int) -> int:
            return i % 2

        def drop_path(stage: int, i: int) -> float:
            # linspace from 0 to the rate: the very first block drops nothing
            return float(dims.get("drop_path_rate", 0.1) if stage or i else 0.0)

        def stage(number: int) -> RSTB:
            kind = lambda i: (shifted(i), drop_path(number, i))  # noqa: E731
            return RSTB(dim, Blocks(depths[number], block(number), checkpointing, kind, extend=extend), connection)

        self.layers = [stage(number) for number in range(len(depths))]
        self.norm = LayerNorm(dim)
        self.conv_after_body = ResidualConv(dim, connection)
        self._reconstruction(dim, outputs)

    def _reconstruction(self, dim: int, outputs: int) -> None:
        features = 64
        if self.upsampler == "pixelshuffledirect":
            self.upsample_one_step = conv(dim, self.upscale**2 * outputs)
            return
        if self.upsampler not in ("pixelshuffle", "nearest+conv"):
            self.conv_last = conv(dim, outputs)
            return
        self.conv_before_upsample = conv(dim, features)
        if self.upsampler == "pixelshuffle":
            self.upsample = Upsampler(self.upscale, features)
        else:
            self.conv_up = [conv(features, features) for _ in range(2 if self.upscale == 4 else 1)]
            self.conv_hr = conv(features, features)
        self.conv_last = conv(features, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = to_channels_first(x)
        batch, channels, height, width = x.shape
        x = pad(x, batch, channels, height + -height % self.window, width + -width % self.window)
        if self.upsampler not in ("pixelshuffle", "pixelshuffledirect", "nearest+conv"):
            first = self.conv_first(x)
            res = self.conv_after_body(self._features(first)) + first
            x = x + self.conv_last(res)
            return to_channels_last(x)
        x = self.conv_first(x)
        x = self.conv_after_body(self._features(x)) + x
        if self.upsampler == "pixelshuffledirect":
            return to_channels_last(pixel_shuffle(self.upsample_one_step(x), self.upscale))
        x = in_place(self.conv_before_upsample(x))
        if self.upsampler == "pixelshuffle":
            x = self.conv_last(self.upsample(x))
            return to_channels_last(x)
        for conv_up in self.conv_up:
            x = in_place(conv_up(upsample_nearest(x, 2)))
        x = self.conv_last(in_place(self.conv_hr(x)))
        return to_channels_last(x)

    def _features(self, x: Tensor) -> Tensor:
        batch, dim, height, width = x.shape
        x = x.view(batch, height * width, dim)
        if self.patch_norm is not None:
            x = self.patch_norm(x)
        if self.absolute_pos_embed is not None:
            x = x + self.absolute_pos_embed
        x = dropped(x, self.drop)
        for layer in self.layers:
            x = layer(x, height, width)
        x = self.norm(x)
        return x.view(batch, dim, height, width)


def _pair(size: int | Sequence[int]) -> Sequence[int]:
    return (size, size) if isinstance(size, int) else size


NETWORK = SwinIR
