"""The shapes that the trainer and the network would accept: batch, resolution, frames, each in its own legal steps."""

from __future__ import annotations

from dataclasses import dataclass, replace

from preflight.job import Job
from preflight.spec import Sample, Spec

SQUARENESS = 0.06  # two sizes are of one aspect when their ratios differ by less: 832×480 and 1280×720 do by 0.026
GROWTH = 4  # how many times longer a side or a clip is looked at; nobody asks for more than the nearest step anyway
GROWTH_BATCH = 4096
SHORTEST = 256  # pixels of the shorter side of what an autoencoder is trained with: the lowest of sd-scripts' buckets
FEWEST = 9  # frames; with fewer a clip teaches no motion, and whoever wants images trains on images
FAR = 8  # as many times fewer pixels, and more, are another data set


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A shape to try: samples per GPU, frames, height and width."""

    batch: int
    frames: int
    height: int
    width: int


def present(spec: Spec) -> Candidate:
    """The shape as it is."""
    data = spec.data
    return Candidate(batch=spec.train.batch, frames=data.frames, height=data.height, width=data.width)


def batches(job: Job, *, accumulates: bool) -> list[int]:
    """Smaller batches, largest first; where the trainer accumulates only those that keep the effective batch exactly."""
    train = job.spec.train
    samples = train.batch * train.accumulation
    return [batch for batch in range(train.batch - 1, 0, -1) if not accumulates or samples % batch == 0]


def frames(job: Job, fewest: int = FEWEST) -> list[int]:
    """Smaller numbers of frames in the VAE's steps, largest first, not below `fewest`; none for images."""
    now, steps = job.spec.data.frames, job.steps
    if now <= 1:
        return []
    first = steps.frames_below(now - 1)
    return [count for count in range(first, 0, -steps.frames) if count >= fewest]


def sizes(job: Job) -> list[tuple[int, int]]:
    """Smaller (height, width), largest first, the aspect kept to the nearest legal size.

    From a size that the network's authors trained at these are the other ones of its aspect, and only below them every step of
    the network's grid; from any other size they are all on the grid. None is so small that nobody trains at it.
    """
    data, trained = job.spec.data, _trained(job)
    area = data.height * data.width
    shortest = min(SHORTEST, data.height, data.width) if job.vae is not None else 1
    below = [size for size in trained if size[0] * size[1] < area]
    height, width = below[-1] if below else (data.height, data.width)
    found = below + [size for size in reversed(_grid(job, 1, height - 1)) if size[1] <= width]
    return [size for size in found if min(size) >= shortest and size[0] * size[1] * FAR > area]


def larger_batches(job: Job) -> list[int]:
    """Larger batches, smallest first: those that keep the effective batch where the run accumulates, else every one."""
    train = job.spec.train
    if train.accumulation == 1:
        return list(range(train.batch + 1, max(GROWTH_BATCH, train.batch * GROWTH) + 1))
    samples = train.batch * train.accumulation
    return [batch for batch in range(train.batch + 1, samples + 1) if samples % batch == 0]


def larger_frames(job: Job) -> list[int]:
    """Larger numbers of frames in the VAE's steps, smallest first, up to what the network was trained on; none for images."""
    now, steps = job.spec.data.frames, job.steps
    if now <= 1:
        return []
    most = job.network.max_frames or now * GROWTH
    return list(range(steps.frames_below(now) + steps.frames, most + 1, steps.frames))


def larger_sizes(job: Job) -> list[tuple[int, int]]:
    """Larger (height, width), smallest first; from a size the authors trained at only the other ones of its aspect."""
    data, trained = job.spec.data, _trained(job)
    if trained:
        return [size for size in reversed(trained) if size[0] * size[1] > data.height * data.width]
    return [size for size in _grid(job, data.height + 1, data.height * GROWTH) if size[1] >= data.width]


def _trained(job: Job) -> list[tuple[int, int]]:
    """The authors' sizes of the run's aspect, largest first; none where the run's own is not one of them."""
    data, known = job.spec.data, [tuple(size) for size in job.network.trained_sizes]
    if (data.height, data.width) not in known:
        return []
    aspect = data.width / data.height
    alike = [(height, width) for height, width in known if abs(width / height / aspect - 1) < SQUARENESS]
    return sorted(alike, key=lambda size: size[0] * size[1], reverse=True)


def _grid(job: Job, lowest: int, highest: int) -> list[tuple[int, int]]:
    """Sizes on the network's grid with a height in the range, smallest first, the width nearest to the run's aspect."""
    data, step = job.spec.data, job.steps.pixels
    heights = range(max(step, -(-lowest // step) * step), highest + 1, step)
    return [(height, max(step, round(data.width * height / data.height / step) * step)) for height in heights]


def joint(job: Job, limit: int = 4000) -> list[tuple[int, int, int]]:
    """(frames, height, width) with fewer of all, most pixels first; thinned where there are more than `limit`."""
    found = [(count, *size) for count in frames(job) for size in sizes(job)]
    found.sort(key=lambda shape: (shape[0] * shape[1] * shape[2], shape[0]), reverse=True)
    return found[:: -(-len(found) // limit)] if found else []


def apply(spec: Spec, candidate: Candidate, *, accumulates: bool = True) -> Spec:
    """`spec` at the candidate's shape, with the accumulation that keeps the effective batch where the trainer accumulates.

    Samples drawn during training shrink along: they are never larger than what is trained on.
    """
    train, data = spec.train, spec.data
    accumulation = train.accumulation
    if accumulates and candidate.batch != train.batch:
        accumulation = max(1, train.batch * train.accumulation // candidate.batch)
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
