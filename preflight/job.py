"""A spec together with the facts it names: what the memory model works on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import lcm
from typing import Any

from preflight import catalog
from preflight.finding import ConfigError, Finding
from preflight.networks.network import Shape
from preflight.spec import Spec


@dataclass(frozen=True, kw_only=True, slots=True)
class Steps:
    """Height and width come in multiples of `pixels`, frames as `frames` x n + `frames_offset`."""

    pixels: int = 1
    frames: int = 1
    frames_offset: int = 1

    def frames_below(self, frames: int) -> int:
        """The largest legal number of frames that is at most `frames`, or the smallest there is."""
        return max(self.frames_offset, frames - (frames - self.frames_offset) % self.frames)


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One run on one kind of GPU. `gpu` is None while nobody has named one; then only bytes can be said, no verdict."""

    spec: Spec
    network: catalog.Network
    vae: catalog.Component | None
    encoders: tuple[tuple[catalog.Component, catalog.Dtype], ...]
    gpu: catalog.Gpu | None = None

    @property
    def dims(self) -> dict[str, Any]:
        """The network's dimensions with the spec's overrides, and the VAE's stride where it works on latents."""
        stride = self.vae.stride if self.vae is not None else None
        latent = {} if stride is None else {"stride": (stride.frames, stride.height, stride.width)}
        return {**latent, **self.network.dims, **self.spec.model.dims}

    @property
    def shape(self) -> Shape:
        """One GPU's share of a training step."""
        data = self.spec.data
        return Shape(
            batch=self.spec.train.batch,
            height=data.height,
            width=data.width,
            frames=data.frames,
            text_tokens=self.text_tokens,
            sequence=self.spec.parallel.sequence,
        )

    @property
    def text_tokens(self) -> int:
        """The spec's, else the network's own length."""
        return self.spec.data.text_tokens or self.network.text_tokens or 0

    @property
    def tokens(self) -> int | None:
        """Tokens of one sample in the network, where it works on patches of latents; before any sequence parallelism."""
        dims, data = self.dims, self.spec.data
        if "stride" not in dims or "patch_size" not in dims:
            return None
        stride = dims["stride"]
        size = dims["patch_size"]
        patch = size if isinstance(size, tuple | list) else (dims.get("patch_size_t") or 1, size, size)
        latent = ((data.frames - 1) // stride[0] + 1, data.height // stride[1], data.width // stride[2])
        frames, height, width = (n // p for n, p in zip(latent, patch, strict=True))
        frames += latent[0] % patch[0] > 0  # filled up to whole patches
        return int(frames * height * width)

    @property
    def steps(self) -> Steps:
        """The steps in which the network takes sizes, and the trainer makes them."""
        from preflight.memory.model import family

        facts = self.network
        made = family(facts.family)
        pixels = facts.pixel_multiple or (made.pixel_step(self.dims) if made is not None else 1)
        return Steps(pixels=lcm(pixels, self.spec.data.pixel_step), frames=facts.frame_step or 1, frames_offset=facts.frame_offset)

    def with_spec(self, spec: Spec) -> Job:
        return replace(self, spec=spec)


def job(spec: Spec, gpu: catalog.Gpu | None) -> Job:
    """Look up what `spec` names. Raises ConfigError for a model the catalog lacks, or one whose memory is not modelled yet."""
    from preflight.memory.model import family

    try:
        network = catalog.network(spec.model.name)
    except ConfigError as problem:
        raise problem.about("model.name") from None
    if spec.model.code is not None:
        network = _in_code(network, spec.model.code)
    if family(network.family) is None:
        message = f"Cannot judge: {network.name} is not modelled yet."
        raise ConfigError(Finding(id="not-modelled", severity="error", message=message, key="model.name"))
    vae = catalog.component(network.vae) if network.vae else None
    encoders = tuple((catalog.component(e.component), spec.precision.text_encoder or e.dtype) for e in network.text_encoders)
    image = network.image_encoder
    if image is not None:
        encoders = (*encoders, (catalog.component(image.component), image.dtype))
    return Job(spec=spec, network=network, vae=vae, encoders=encoders, gpu=gpu)


def _in_code(network: catalog.Network, code: str) -> catalog.Network:
    """The network in a trainer's own writing, `networks/FAMILY_CODE.py`."""
    from preflight.memory.model import family

    written = f"{network.family}_{code}"
    if family(written) is None:
        message = f"Cannot judge: {network.name} in the code of {code!r} is not modelled."
        raise ConfigError(Finding(id="not-modelled", severity="error", message=message, key="model.code"))
    return replace(network, family=written)
