"""Walks that were taken before: a search judges many runs that differ in what no walk looks at."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Any, TypeVar

from preflight.job import Job
from preflight.memory.model import Model
from preflight.memory.pixels import kept
from preflight.networks.network import Shape
from preflight.spec import Data, Hardware, Optimizer, Paths, Schedule

MOST = 256  # walks that are kept, some hundred kilobytes each; the one that was used longest ago goes first

T = TypeVar("T")
_kept: dict[Hashable, Any] = {}


def known(key: Hashable | None, make: Callable[[], T]) -> T:
    """What `make` answers, or answered to the same key before. A key of None is that of nothing else."""
    if key is None:
        return make()
    found: T = _kept.pop(key) if key in _kept else make()
    _kept[key] = found
    while len(_kept) > MOST:
        del _kept[next(iter(_kept))]
    return found


def walk_key(job: Job, model: Model, shape: Shape) -> Hashable | None:
    """All that a walk of the network depends on; None for many shapes at once."""
    if not all(isinstance(size, int) for size in (shape.batch, shape.height, shape.width, shape.frames, shape.text_tokens)):
        return None
    spec = job.spec
    train, parallel, precision, offload = spec.train, spec.parallel, spec.precision, spec.offload
    accumulation = min(train.accumulation, 2) if parallel.pipeline == 1 else train.accumulation
    train = replace(train, batch=1, accumulation=accumulation, ema=False, distillation=None)
    if not parallel.strategy.startswith("zero"):  # which divides and moves states itself
        train, offload = replace(train, optimizer=Optimizer(name="")), replace(offload, optimizer=False)
    seen = replace(
        spec,
        train=train,
        precision=replace(precision, vae=None, text_encoder=None),
        offload=offload,
        data=Data(height=0, width=0, pixels_kept=kept(spec.data), latents="online"),
        sample=None,
        save=None,
        schedule=Schedule(),
        paths=Paths(),
        hardware=Hardware(),
    )
    kernels = None if job.gpu is None else (job.gpu.flash_attention, job.gpu.bf16, job.gpu.architecture)
    # a network written out has more of them than one of three blocks, and a teacher's are all frozen
    tensors = [tensor.requires_grad for tensor in model.tensors]
    return (
        repr(seen),
        repr(job.dims),
        job.network.family,
        job.network.name,
        kernels,
        shape,
        repr(model.stage),
        len(tensors),
        sum(tensors),
    )
