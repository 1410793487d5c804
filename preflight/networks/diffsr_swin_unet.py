"""The layers of DiffSR's UNetModelSwin (models/resshift/models/unet.py, swin_transformer.py, basic_ops.py)."""

from __future__ import annotations

from preflight.networks.diffsr_ddpm import GroupNorm
from preflight.networks.diffsr_swinir import WindowAttention, count_windows, dropped
from preflight.tape.activation import gelu, silu
from preflight.tape.module import Conv, Linear, Module
from preflight.tape.shaping import chunk, roll, transpose, upsample_nearest
from preflight.tape.tensor import Buffer, Call, Grads, Tensor


class GroupNorm32(GroupNorm):
    """In float32, whatever comes."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float()).type_as(x)


def normalization(channels: int) -> GroupNorm:
    return GroupNorm32(32, channels)


class Upsample(Module):
    def __init__(self, channels: int, *, use_conv: bool) -> None:
        self.conv = Conv(channels, channels, (3, 3), padding=1) if use_conv else None

    def forward(self, x: Tensor) -> Tensor:
        x = upsample_nearest(x, 2)
        return x if self.conv is None else self.conv(x)


class Downsample(Module):
    def __init__(self, channels: int, *, use_conv: bool) -> None:
        self.op = Conv(channels, channels, (3, 3), stride=2, padding=1) if use_conv else None

    def forward(self, x: Tensor) -> Tensor:
        return average_pool(x) if self.op is None else self.op(x)


class ResBlock(Module):
    """With `resample`, "up" or "down", both paths change their size after the first activation."""

    def __init__(
        self, channels: int, time_dim: int, outputs: int, *, dropout: float, scale_shift: bool, resample: str | None = None
    ) -> None:
        self.in_norm, self.in_conv = normalization(channels), Conv(channels, outputs, (3, 3), padding=1)
        self.h_upd, self.x_upd = _resampler(channels, resample), _resampler(channels, resample)
        self.emb_layers = [Linear(time_dim, 2 * outputs if scale_shift else outputs)]
        self.out_norm, self.out_conv = normalization(outputs), Conv(outputs, outputs, (3, 3), padding=1)
        self.skip_connection = Conv(channels, outputs, (1, 1)) if channels != outputs else None
        self.dropout, self.scale_shift = dropout, scale_shift

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        if self.h_upd is not None and self.x_upd is not None:
            h = self._in_rest(x)
            h = self.h_upd(h)
            x = self.x_upd(x)
            h = self.in_conv(h)
        else:
            h = self._in_layers(x)
        emb_out = self._emb(emb)
        emb_out = emb_out.view(*emb_out.shape, 1, 1)
        if self.scale_shift:
            scale, shift = chunk(emb_out, 2, 1)
            h = self.out_norm(h) * (1 + scale) + shift
            h = self._out_rest(h)
        else:
            h = h + emb_out
            h = self._out_layers(h)
        return (x if self.skip_connection is None else self.skip_connection(x)) + h

    def _in_rest(self, x: Tensor) -> Tensor:
        x = self.in_norm(x)
        return silu(x)

    def _in_layers(self, x: Tensor) -> Tensor:
        x = self._in_rest(x)
        return self.in_conv(x)

    def _emb(self, x: Tensor) -> Tensor:
        x = silu(x)
        return self.emb_layers[0](x)

    def _out_rest(self, x: Tensor) -> Tensor:
        x = silu(x)
        x = dropped(x, self.dropout)
        return self.out_conv(x)

    def _out_layers(self, x: Tensor) -> Tensor:
        x = self.out_norm(x)
        return self._out_rest(x)


class Mlp(Module):
    """Two convolutions of one pixel."""

    def __init__(self, dim: int, hidden: int, drop: float) -> None:
        self.fc1, self.fc2 = Conv(dim, hidden, (1, 1)), Conv(hidden, dim, (1, 1))
        self.drop = drop

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc1(x)
        x = gelu(x)
        x = dropped(x, self.drop)
        x = self.fc2(x)
        return dropped(x, self.drop)


class SwinTransformerBlock(Module):
    """Attention in windows of a field (B, C, H, W).

    The original compares a list with a tuple to see whether its mask fits, so it makes one at every call, shifted or not.
    """

    def __init__(self, dim: int, resolution: int, heads: int, *, window: int, shift: int, hidden: int, drop: float) -> None:
        if resolution <= window:
            shift, window = 0, resolution
        self.window, self.shift = window, shift
        self.norm1, self.norm2 = normalization(dim), normalization(dim)
        self.attn = WindowAttention(dim, window, heads, qkv_bias=True, drop=drop, attn_drop=0.0, packed=True)
        self.mlp = Mlp(dim, hidden, drop)
        self.attn_mask = Buffer((count_windows(resolution, resolution, window), window**2, window**2)) if shift else None

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        shortcut = x
        x = self.norm1(x)
        shifted = roll(x) if self.shift else x

        count, tokens = count_windows(height, width, self.window), self.window**2
        windows = transpose(shifted, batch * count, tokens, channels).contiguous()
        attended = self.attn(windows, x.tape.empty((count, tokens, tokens), x.dtype))
        shifted = transpose(attended, batch, channels, height, width).contiguous()
        x = roll(shifted) if self.shift else shifted

        x = shortcut + x
        return x + self.mlp(self.norm2(x))


class BasicLayer(Module):
    """Blocks between two convolutions that change the width."""

    def __init__(
        self,
        channels: int,
        dim: int,
        *,
        heads: int,
        window: int,
        depth: int,
        resolution: int,
        mlp_ratio: float,
        drop: float,
        patch_norm: bool,
    ) -> None:
        self.embed, self.unembed = Conv(channels, dim, (1, 1)), Conv(dim, channels, (1, 1))
        self.embed_norm = normalization(dim) if patch_norm else None
        self.unembed_norm = normalization(channels) if patch_norm else None
        self.blocks = [
            SwinTransformerBlock(
                dim, resolution, heads, window=window, shift=i % 2 * (window // 2), hidden=int(dim * mlp_ratio), drop=drop
            )
            for i in range(depth)
        ]

    def forward(self, x: Tensor) -> Tensor:
        x = self._normed(self.embed, self.embed_norm, x)
        for block in self.blocks:
            x = block(x)
        return self._normed(self.unembed, self.unembed_norm, x)

    def _normed(self, conv: Conv, norm: GroupNorm | None, x: Tensor) -> Tensor:
        x = conv(x)
        return x if norm is None else norm(x)


def average_pool(x: Tensor) -> Tensor:
    """x (B, C, H, W) halved; keeps its input. derivatives.yaml: avg_pool2d."""
    shape = (*x.shape[:2], *(n // 2 for n in x.shape[2:]))
    return x.tape.compute((x,), _pool_backward, shape, x.dtype, saved=(x,))


def _pool_backward(call: Call, grad: Tensor | None) -> Grads:
    assert grad is not None
    return (grad.tape.empty(call.saved[0].shape, grad.dtype),)


def _resampler(channels: int, how: str | None) -> Module | None:
    if how is None:
        return None
    return Upsample(channels, use_conv=False) if how == "up" else Downsample(channels, use_conv=False)
