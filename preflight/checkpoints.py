"""What a run writes to disk: bytes of one checkpoint, how many there are at once, and the images it samples."""

from __future__ import annotations

from dataclasses import dataclass

from preflight.job import Job
from preflight.memory.distillation import critic_saved
from preflight.memory.model import Model, build
from preflight.memory.optimizer import optimizer
from preflight.schedule import Course
from preflight.spec import Spec
from preflight.tape.dtypes import BYTES

# A sample of 256 x 256 pixels takes about 100 KB as a PNG (measured on driving scenes by the trainer that saves them); PNG keeps
# photographs at a nearly constant number of bytes a pixel, so larger ones are in proportion.
PNG_BYTES, PNG_PIXELS = 100_000, 256 * 256


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """Bytes of one, all ranks' files together."""

    weights: int
    optimizer: int = 0
    ema: int = 0

    @property
    def total(self) -> int:
        return self.weights + self.optimizer + self.ema


def checkpoint(job: Job, model: Model) -> Checkpoint:
    """What is saved: the adapters or all weights in the dtype they are trained in, and what the config adds to them."""
    spec = job.spec
    model = model if model.stage is None else build(job)
    saved = model.trainable if model.adapters else model.parameters
    states = optimizer(job, model) if spec.save is not None and spec.save.optimizer else None
    averaged = spec.train.ema_dtype
    weights, others = critic_saved(job)
    return Checkpoint(
        weights=sum(p.numel * BYTES[p.dtype] * p.copies for p in saved) + weights,
        optimizer=states.states + states.master + others if states is not None else 0,
        ema=sum(p.numel * BYTES[averaged or p.dtype] * p.copies for p in model.trainable) if spec.train.ema else 0,
    )


def most(spec: Spec, run: Course) -> int | None:
    """How many checkpoints are on disk when there are most of them; None where the run's length is not known."""
    save = spec.save
    if save is None:
        return 0
    beside = int(save.latest_every is not None) + int(save.final)
    written = run.times(save.every, save.every_epochs)
    if written is None:
        return None if save.keep is None else save.keep + beside
    return (written if save.keep is None else min(save.keep, written)) + beside or 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Images:
    """Sampled images: how many there will be, and the bytes of one."""

    number: int
    each: int

    @property
    def nbytes(self) -> int:
        """Of all."""
        return self.number * self.each


def images(job: Job, run: Course) -> Images | None:
    """What sampling writes over the run: `batch` images on every GPU each time. None for clips, and where it is not known."""
    spec, sample = job.spec, job.spec.sample
    if sample is None or job.vae is None or (sample.frames or spec.data.frames) > 1:
        return None
    times = run.times(sample.every, sample.every_epochs)
    if times is None:
        return None
    number = (times + int(sample.final)) * sample.batch * spec.parallel.gpus
    pixels = (sample.height or spec.data.height) * (sample.width or spec.data.width)
    return Images(number=number, each=pixels * PNG_BYTES // PNG_PIXELS)
