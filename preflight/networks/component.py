"""What every frozen component offers: inference without gradients, so that only what is live counts."""

from __future__ import annotations

from collections.abc import Callable

from preflight.networks.network import Shape
from preflight.tape.activation import keeps_result
from preflight.tape.meter import Size
from preflight.tape.module import Module
from preflight.tape.shaping import cat, chunk, narrow
from preflight.tape.tensor import Tape, Tensor


class Component(Module):
    """A text encoder or VAE beside the network, never trained."""

    def load(self, dtype: str) -> None:
        """Freeze every parameter in `dtype`, as `from_pretrained(torch_dtype=…)` loads it."""
        for _, parameter in self.parameters():
            parameter.dtype, parameter.requires_grad = dtype, False


class Vae(Component):
    """An autoencoder. `use_slicing` and `use_tiling` are diffusers' enable_slicing() and enable_tiling().

    `shape.frames` must be a whole number, and with slicing or tiling so must every size that is cut; the others may be arrays.
    """

    use_slicing = False
    use_tiling = False

    def encode(self, tape: Tape, shape: Shape, dtype: str) -> Tensor:
        """Latents drawn for pixels of `shape`: vae.encode(pixels).latent_dist.sample()."""
        raise NotImplementedError

    def decode(self, tape: Tape, shape: Shape, dtype: str) -> Tensor:
        """Pixels of `shape` from its latents: vae.decode(latents).sample."""
        raise NotImplementedError

    def sliced(self, x: Tensor, run: Callable[[Tensor], Tensor]) -> Tensor:
        """`run` over x, or with `use_slicing` over one sample of it at a time."""
        if not self.use_slicing or x.shape[0] == 1:
            return run(x)
        slices = [run(narrow(x, 1, *x.shape[1:])) for _ in range(x.shape[0])]
        return cat(slices, 0)

    def tiled(self, x: Tensor, step: int, window: int, kept: int, run: Callable[[Tensor], Tensor]) -> Tensor:
        """`run` over x, or with `use_tiling` over square windows of it, `step` apart, of whose results `kept` is kept."""
        *rest, height, width = x.shape
        if not self.use_tiling or max(height, width) <= window:
            return run(x)
        rows: Tiles = [
            [run(narrow(x, *rest, min(window, height - i), min(window, width - j))) for j in range(0, width, step)]
            for i in range(0, height, step)
        ]
        return cat(result_rows(rows, kept, kept), -2)


class VideoVae(Vae):
    """A video's autoencoder: `inputs` channels to `latents` of them.

    Height and width are divided by `stride`, the frames after the first by `frames`. Unless it says otherwise its tiles are
    `tile_sample_min` pixels wide and high, `tile_sample_stride` apart.
    """

    inputs = 3
    latents: int
    stride: int
    frames: int
    tile_sample_min = 256
    tile_sample_stride = 192
    encoder: Module
    decoder: Module

    def encode(self, tape: Tape, shape: Shape, dtype: str) -> Tensor:
        with tape.no_grad():
            pixels = tape.empty((shape.batch, self.inputs, shape.frames, shape.height, shape.width), dtype)
            return sample_posterior(self.sliced(pixels, self._encode))

    def decode(self, tape: Tape, shape: Shape, dtype: str) -> Tensor:
        with tape.no_grad():
            frames: Size = (shape.frames - 1) // self.frames + 1
            height, width = shape.height // self.stride, shape.width // self.stride
            return self.sliced(tape.empty((shape.batch, self.latents, frames, height, width), dtype), self._decode)

    def _encode(self, x: Tensor) -> Tensor:
        step, window = self.tile_sample_stride, self.tile_sample_min
        return self.tiled(x, step, window, step // self.stride, self._encode_tile)

    def _decode(self, z: Tensor) -> Tensor:
        step, window = self.tile_sample_stride // self.stride, self.tile_sample_min // self.stride
        return self.tiled(z, step, window, self.tile_sample_stride, self._decode_tile)

    def _encode_tile(self, x: Tensor) -> Tensor:
        encoded: Tensor = self.encoder(x)
        return encoded

    def _decode_tile(self, z: Tensor) -> Tensor:
        decoded: Tensor = self.decoder(z)
        return decoded


class TextEncoder(Component):
    """A text encoder; `batch` and `tokens` may be arrays."""

    def encode(self, tape: Tape, batch: Size, tokens: Size, dtype: str) -> Tensor:
        """The last hidden state (batch, tokens, width), in `dtype`, of `tokens` padded tokens a prompt."""
        with tape.no_grad():
            return self.last_hidden(tape, batch, tokens).to(dtype)

    def last_hidden(self, tape: Tape, batch: Size, tokens: Size) -> Tensor:
        raise NotImplementedError


def frames_as_batch(x: Tensor) -> Tensor:
    """(B, C, T, H, W) as (B * T, C, H, W): a view where there is one sample or one frame, else a copy."""
    batch, channels, frames, height, width = x.shape
    if frames > 1 and not (isinstance(batch, int) and batch == 1):
        x = x.contiguous()
    return x.view(batch * frames, channels, height, width)


Tiles = list[list[Tensor]]


def result_rows(rows: Tiles, height: int, width: int) -> list[Tensor]:
    """Tiles blended into each other in place, cut to `height` and `width`, each row put together (every VAE's tiled_encode)."""
    results = []
    for row in rows:
        result_row = [narrow(x, *x.shape[:-2], min(height, x.shape[-2]), min(width, x.shape[-1])) for x in row]
        results.append(cat(result_row, -1))
    return results


def sample_posterior(parameters: Tensor) -> Tensor:
    """A draw from means and log variances stacked along the channels (autoencoders/vae.py: DiagonalGaussianDistribution)."""
    mean, logvar = chunk(parameters, 2, 1)
    logvar = keeps_result(logvar)  # clamp
    std = keeps_result(logvar * 0.5)
    var = keeps_result(logvar)
    noise = mean.tape.empty(mean.shape, mean.dtype)
    sample = mean + std * noise
    del var
    return sample
