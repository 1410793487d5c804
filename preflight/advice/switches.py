"""Settings that save memory without making the samples smaller, in order of how little they cost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from preflight.spec import Spec


def switches(spec: Spec) -> Iterator[tuple[str, Spec]]:
    """What to call it, and the spec with every saving up to there: each adds to those before it."""
    for words, change in _CHANGES:
        changed = change(spec)
        if changed != spec:
            spec = changed
            yield words, spec


def _cached(spec: Spec) -> Spec:
    return replace(spec, data=replace(spec.data, latents="cached", text="cached"))


def _checkpointed(spec: Spec) -> Spec:
    return replace(spec, train=replace(spec.train, checkpointing=True))


def _eight_bit(spec: Spec) -> Spec:
    adam = spec.train.optimizer.name in ("adam", "adamw") and spec.parallel.strategy in ("none", "ddp", "dp")
    optimizer = replace(spec.train.optimizer, bits=8) if adam else spec.train.optimizer
    return replace(spec, train=replace(spec.train, optimizer=optimizer))


def _offloaded(spec: Spec) -> Spec:
    return replace(spec, offload=replace(spec.offload, optimizer=True))


def _sharded(spec: Spec) -> Spec:
    many = spec.parallel.gpus > 1 and spec.parallel.strategy in ("none", "ddp")
    return replace(spec, parallel=replace(spec.parallel, strategy="fsdp")) if many else spec


_CHANGES = (
    ("cached latents and text embeddings", _cached),
    ("gradient checkpointing", _checkpointed),
    ("8-bit optimizer states", _eight_bit),
    ("optimizer states on the host", _offloaded),
    ("weights sharded over the GPUs", _sharded),
)
