"""The parts of Wan's video autoencoders (diffusers/models/autoencoders/autoencoder_kl_wan.py)."""

from __future__ import annotations

from preflight.networks.component import frames_as_batch
from preflight.tape.activation import keeps_result, silu
from preflight.tape.attention import flash_attention
from preflight.tape.module import Conv, Module
from preflight.tape.shaping import cat, chunk, narrow, pad, stack, sum_over, unbind, upsample_nearest
from preflight.tape.tensor import Parameter, Tensor

CACHED_FRAMES = 2  # autoencoder_kl_wan.py: CACHE_T


class Features:
    """What causal convolutions remember of the chunk before, in calling order (feat_cache and feat_idx)."""

    def __init__(self) -> None:
        self.kept: list[Tensor | None] = []
        self.index = 0

    def rewind(self) -> None:
        """Begin the next chunk."""
        self.index = 0

    def get(self) -> Tensor | None:
        """What the convolution whose turn it is keeps: nothing in the first chunk."""
        if self.index == len(self.kept):
            self.kept.append(None)
        return self.kept[self.index]

    def put(self, x: Tensor | None) -> None:
        """Replace it, and turn to the next convolution."""
        self.kept[self.index] = x
        self.index += 1


class CausalConv3d(Conv):
    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: tuple[int, int, int],
        *,
        stride: tuple[int, int, int] = (1, 1, 1),
        padding: tuple[int, int, int] = (0, 0, 0),
    ) -> None:
        super().__init__(inputs, outputs, kernel, stride=stride)
        self.before, self.around = 2 * padding[0], padding[1:]

    def forward(self, x: Tensor, cache: Tensor | None = None) -> Tensor:
        before = self.before
        if cache is not None and before > 0:
            x = cat([cache, x], 2)
            before -= cache.shape[2]
        batch, channels, frames, height, width = x.shape
        # F.pad copies even where there is nothing to pad
        x = pad(x, batch, channels, frames + before, height + 2 * self.around[0], width + 2 * self.around[1])
        return super().forward(x)


def last_frames(x: Tensor, frames: int) -> Tensor:
    """A view: x[:, :, -frames:]."""
    batch, channels, length, height, width = x.shape
    return narrow(x, batch, channels, min(frames, length), height, width)


def causal(conv: CausalConv3d, x: Tensor, features: Features) -> Tensor:
    """`conv` over what it remembers and x."""
    cached = features.get()
    cache_x = last_frames(x, CACHED_FRAMES).contiguous()
    if cache_x.shape[2] < CACHED_FRAMES and cached is not None:
        cache_x = cat([last_frames(cached, 1), cache_x], 2)
    x = conv(x, cached)
    features.put(cache_x)
    return x


class RMSNorm(Module):
    def __init__(self, dim: int) -> None:
        self.gamma = Parameter((dim,))

    def forward(self, x: Tensor) -> Tensor:
        normalized = normalize(x.float()).to(x.dtype)
        return normalized * 1.0 * 1.0 + 0.0  # times the scale and gamma, and a bias that is the number 0


def normalize(x: Tensor) -> Tensor:
    """torch.nn.functional.normalize over the channels."""
    row = (x.shape[0], 1, *x.shape[2:])
    denominator = sum_over(x, *row)
    denominator = keeps_result(denominator)  # clamp_min
    return x / 1.0


class ResidualBlock(Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        self.norm1 = RMSNorm(inputs)
        self.conv1 = CausalConv3d(inputs, outputs, (3, 3, 3), padding=(1, 1, 1))
        self.norm2 = RMSNorm(outputs)
        self.conv2 = CausalConv3d(outputs, outputs, (3, 3, 3), padding=(1, 1, 1))
        self.conv_shortcut = CausalConv3d(inputs, outputs, (1, 1, 1)) if inputs != outputs else None

    def forward(self, x: Tensor, features: Features) -> Tensor:
        h = self.conv_shortcut(x) if self.conv_shortcut is not None else x
        x = self.norm1(x)
        x = silu(x)
        x = causal(self.conv1, x, features)
        x = self.norm2(x)
        x = silu(x)
        x = causal(self.conv2, x, features)
        return x + h


class AttentionBlock(Module):
    """One head over the pixels of each frame."""

    def __init__(self, dim: int) -> None:
        self.norm = RMSNorm(dim)
        self.to_qkv = Conv(dim, dim * 3, (1, 1))
        self.proj = Conv(dim, dim, (1, 1))

    def forward(self, x: Tensor, _: Features) -> Tensor:
        identity = x
        batch, channels, frames, height, width = x.shape
        x = frames_as_batch(x)
        x = self.norm(x)
        qkv = self.to_qkv(x)
        qkv = qkv.view(batch * frames, 1, height * width, channels * 3).contiguous()
        q, k, v = chunk(qkv, 3, -1)
        x = flash_attention(q, k, v)
        x = x.view(batch * frames, channels, height, width)
        x = self.proj(x)
        x = x.view(batch, channels, frames, height, width)
        return x + identity


class Resample(Module):
    """Half or twice the height and width, and the frames too in the modes that end in 3d."""

    def __init__(self, dim: int, mode: str, outputs: int | None = None) -> None:
        self.mode = mode
        if mode.startswith("up"):
            self.resample = Conv(dim, outputs or dim // 2, (3, 3), padding=1)
        else:
            self.resample = Conv(dim, dim, (3, 3), stride=2)
        if mode == "upsample3d":
            self.time_conv = CausalConv3d(dim, dim * 2, (3, 1, 1), padding=(1, 0, 0))
        elif mode == "downsample3d":
            self.time_conv = CausalConv3d(dim, dim, (3, 1, 1), stride=(2, 1, 1))

    def forward(self, x: Tensor, features: Features) -> Tensor:
        if self.mode == "upsample3d":
            x = self._double_frames(x, features)
        batch, _, frames, _, _ = x.shape
        x = frames_as_batch(x)
        x = self._resize(x)
        x = x.view(batch, x.shape[1], frames, *x.shape[2:])
        if self.mode == "downsample3d":
            x = self._halve_frames(x, features)
        return x

    def _resize(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        if self.mode.startswith("up"):
            x = upsample_nearest(x.float(), 2).type_as(x)
        else:
            x = pad(x, batch, channels, height + 1, width + 1)
        return self.resample(x)

    def _double_frames(self, x: Tensor, features: Features) -> Tensor:
        """From the second chunk on; the first only leaves a mark ("Rep") that the second finds."""
        first = features.index == len(features.kept)
        cached = features.get()
        if first:
            features.put(None)
            return x
        cache_x = last_frames(x, CACHED_FRAMES).contiguous()
        if cache_x.shape[2] < CACHED_FRAMES and cached is not None:
            cache_x = cat([last_frames(cached, 1), cache_x], 2)
        if cache_x.shape[2] < CACHED_FRAMES and cached is None:
            cache_x = cat([x.tape.empty(cache_x.shape, cache_x.dtype), cache_x], 2)
        batch, channels, frames, height, width = x.shape
        x = self.time_conv(x, cached)
        features.put(cache_x)
        x = stack(unbind(x.view(batch, 2, channels, frames, height, width), 1))
        return x.view(batch, channels, frames * 2, height, width)

    def _halve_frames(self, x: Tensor, features: Features) -> Tensor:
        cached = features.get()
        if cached is None:
            features.put(x.contiguous())
            return x
        cache_x = last_frames(x, 1).contiguous()
        x = self.time_conv(cat([last_frames(cached, 1), x], 2))
        features.put(cache_x)
        return x


class MidBlock(Module):
    def __init__(self, dim: int) -> None:
        self.resnets = [ResidualBlock(dim, dim), ResidualBlock(dim, dim)]
        self.attentions = [AttentionBlock(dim)]

    def forward(self, x: Tensor, features: Features) -> Tensor:
        x = self.resnets[0](x, features)
        x = self.attentions[0](x, features)
        return self.resnets[1](x, features)
