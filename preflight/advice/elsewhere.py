"""Where a run would fit as it is, when nothing makes it fit here: a larger GPU, or more of these."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from preflight import catalog
from preflight.advice.words import words
from preflight.finding import ConfigError, Finding
from preflight.job import Job
from preflight.judge import Judgement, judge_job
from preflight.report import Memory
from preflight.spec import Spec
from preflight.units import gib

MOST_GPUS = 1024
NAMED = {"optimizer": "the optimizer's states"}


def elsewhere(judgement: Judgement, threshold: float, furthest: Spec) -> Finding:
    """The finding `no-reduction`: what fills the memory, the smallest GPU of the catalog that would do, how many of this one.

    `furthest` is the run with all that the trainer has keys for.
    """
    now = judgement.case.job.spec
    memory = judge_job(judgement.case.job.with_spec(furthest), threshold).memory if furthest != now else judgement.memory
    made = f"even with {words(now, furthest)}, " if furthest != now else ""
    message = f"Nothing that this trainer has a key for makes it fit: {made}{_filled(memory)}."
    fixes = tuple(_places(judgement.case.job, threshold))
    fix = (
        f"as it stands it fits {' or '.join(fixes)}"
        if fixes
        else "no GPU of the catalog, and no number of these, holds it as it stands"
    )
    return Finding(id="no-reduction", severity="error", message=message, fix=fix)


def _filled(memory: Memory) -> str:
    """What alone is more than the GPU has, or else the most of what there is."""
    parts, usable, peak = (
        {name: size or 0 for name, size in memory.components.items()},
        memory.usable_bytes or 0,
        memory.peak_bytes or 0,
    )
    name = max(parts, key=lambda part: parts[part])
    alone = f"{NAMED.get(name, name)} alone take {gib(parts[name])}"
    phase = f"in the {memory.peak_phase} phase"
    if parts[name] > usable:
        return f"{phase} {alone}, more than the {gib(usable)} that are usable"
    if peak <= usable:
        limit = memory.activation_limit_bytes or 0
        return f"activations alone take {gib(memory.activation_bytes or 0)}, more than the {gib(limit)} that they may"
    return f"{phase} {alone}, and with the rest it is {gib(peak)} of the {gib(usable)} that are usable"


def _places(job: Job, threshold: float) -> Iterator[str]:
    card = smallest_gpu(job, threshold)
    if card is not None:
        yield f"on {f'{job.spec.parallel.gpus} × ' if job.spec.parallel.gpus > 1 else ''}{card.name} ({gib(card.memory_bytes)})"
    count = fewest_gpus(job, threshold)
    if count is not None:
        yield f"on {count} of these GPUs with the weights sharded over them"


def smallest_gpu(job: Job, threshold: float) -> catalog.Gpu | None:
    """The GPU of the catalog with the least memory on which the job fits as it stands, or None."""
    cards = sorted(catalog.gpus(), key=lambda gpu: (gpu.memory_bytes, gpu.id))
    try:
        least = judge_job(replace(job, gpu=cards[-1]), threshold).memory.peak_bytes or 0  # of a card whose kernels are fused
    except ConfigError:
        return None
    return next((card for card in cards if card.memory_bytes > least and _fits(replace(job, gpu=card), threshold)), None)


def fewest_gpus(job: Job, threshold: float) -> int | None:
    """The smallest number of the job's own GPU with which it fits when its weights are sharded over them, or None."""
    parallel = job.spec.parallel
    group = parallel.sequence * parallel.tensor

    def fits(groups: int) -> bool:
        return _fits(job.with_spec(_spread(job.spec, groups * group)), threshold)

    low, high = parallel.gpus // group, MOST_GPUS // group
    if high <= low or not fits(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high * group


def _spread(spec: Spec, gpus: int) -> Spec:
    parallel = spec.parallel
    strategy = "zero3" if parallel.strategy.startswith("zero") else "fsdp"
    nodes = max(parallel.nodes, -(-gpus // max(8, parallel.gpus // parallel.nodes)))
    return replace(spec, parallel=replace(parallel, gpus=gpus, nodes=nodes, strategy=strategy))  # type: ignore[arg-type]  # of two


def _fits(job: Job, threshold: float) -> bool:
    try:
        return judge_job(job, threshold).verdict == "fits"
    except ConfigError:
        return False
