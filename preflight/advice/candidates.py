"""The smaller runs that the trainer and the network would accept: batch, resolution, frames, each in its own legal steps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from preflight.job import Job
from preflight.spec import Sample, Spec


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A shape to try: samples per GPU, frames, height and width."""

    batch: int
    frames: int
    height: int
    width: int

    @property
    def pixels(self) -> int:
        return self.frames * self.height * self.width


def batches(job: Job, *, accumulates: bool) -> list[int]:
    """Smaller batches, largest first; where the trainer accumulates only those that keep the effective batch exactly."""
    train = job.spec.train
    samples = train.batch * train.accumulation
    return [batch for batch in range(train.batch - 1, 0, -1) if not accumulates or samples % batch == 0]


def frames(job: Job) -> list[int]:
    """Smaller numbers of frames in the VAE's steps, largest first; none for images."""
    now, steps = job.spec.data.frames, job.steps
    if now <= 1:
        return []
    first = steps.frames_below(now - 1)
    return list(range(first, 0, -steps.frames))


def sizes(job: Job) -> list[tuple[int, int]]:
    """Smaller (height, width) on the network's grid, largest first, the aspect kept to the nearest legal width."""
    data, step = job.spec.data, job.steps.pixels
    found = []
    for height in range((data.height - 1) // step * step, 0, -step):
        width = max(step, round(data.width * height / data.height / step) * step)
        if width <= data.width:
            found.append((height, width))
    return found


def grid(job: Job, kinds: tuple[str, ...], *, accumulates: bool) -> list[Candidate]:
    """Every combination of what may change ("batch", "frames", "size"); the rest stays as it is."""
    data, now = job.spec.data, job.spec.train.batch
    return [
        Candidate(batch=b, frames=f, height=h, width=w)
        for b in (batches(job, accumulates=accumulates) if "batch" in kinds else [now])
        for f in (frames(job) if "frames" in kinds else [data.frames])
        for h, w in (sizes(job) if "size" in kinds else [(data.height, data.width)])
    ]


def apply(spec: Spec, candidate: Candidate, *, accumulates: bool = True) -> Spec:
    """`spec` at the candidate's shape, with the accumulation that keeps the effective batch where the trainer accumulates.

    Samples drawn during training shrink along: they are never larger than what is trained on.
    """
    train, data = spec.train, spec.data
    accumulation = train.batch * train.accumulation // candidate.batch if accumulates else train.accumulation
    train = replace(train, batch=candidate.batch, accumulation=accumulation)
    data = replace(data, frames=candidate.frames, height=candidate.height, width=candidate.width)
    return replace(spec, train=train, data=data, sample=_within(spec.sample, candidate))


def _within(sample: Sample | None, candidate: Candidate) -> Sample | None:
    if sample is None:
        return None
    batch = min(sample.batch, max(1, candidate.batch))
    frames = min(sample.frames, candidate.frames) if sample.frames is not None else None
    sample = replace(sample, batch=batch, frames=frames)
    if sample.height is None or sample.width is None or sample.height * sample.width <= candidate.height * candidate.width:
        return sample
    return replace(sample, height=candidate.height, width=candidate.width)


def changes(before: Spec, after: Spec) -> dict[str, Any]:
    """Canonical dotted keys that differ, with their new values."""
    was, now = dict(_leaves(before.to_mapping())), dict(_leaves(after.to_mapping()))
    return {key: value for key, value in now.items() if was.get(key) != value}


def _leaves(data: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in data.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict) and path != "model.dims":
            yield from _leaves(value, f"{path}.")
        else:
            yield path, value
