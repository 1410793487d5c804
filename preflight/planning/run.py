"""A real config as a budget: its operations, how long it takes, what it costs, and the same on other GPUs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from preflight.catalog import Gpu
from preflight.finding import ConfigError
from preflight.job import Job
from preflight.judge import Judgement, judge_job
from preflight.memory.model import build
from preflight.memory.step import attention_kernel
from preflight.planning import cost
from preflight.planning.hardware import peak_tflops
from preflight.planning.schedule import on_gpus, steps_for, steps_in_epochs
from preflight.planning.step_flops import StepFlops, step_flops
from preflight.report import Verdict
from preflight.schedule import course
from preflight.spec import Spec

UNSAID_STEPS = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class Length:
    """Optimizer steps of the run, the samples they show, and in words how we know."""

    steps: int
    samples: int
    source: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """The run on `gpus` GPUs of one kind. Hours, dollars and bytes on each GPU; None where it cannot be run or judged."""

    card: Gpu
    gpus: int
    price: float
    verdict: Verdict | Literal["indivisible"]
    tflops: float
    flop: int | None = None
    hours: float | None = None
    peak_bytes: int | None = None
    effective_batch: int | None = None

    @property
    def runs(self) -> bool:
        return self.verdict in ("fits", "tight") and self.hours is not None

    @property
    def gpu_hours(self) -> float | None:
        return None if self.hours is None else self.hours * self.gpus

    @property
    def cost(self) -> float | None:
        return None if self.gpu_hours is None else cost.cost(self.gpu_hours, self.price)


@dataclass(frozen=True, kw_only=True, slots=True)
class Prices:
    """Dollars a GPU-hour: by catalog id, and for all others."""

    default: float = cost.PRICE
    by_gpu: Mapping[str, float]

    def of(self, card: Gpu) -> float:
        return self.by_gpu.get(card.id, self.default)


@dataclass(frozen=True, kw_only=True, slots=True)
class RunPlan:
    """`step` counts one optimizer step on one GPU; `here` is where the config says, at the first of `utilisations`' middle.

    `elsewhere` holds every kind of GPU in turn, each with every number of them.
    """

    spec: Spec
    step: StepFlops
    length: Length
    utilisations: tuple[float, ...]
    here: Place
    elsewhere: tuple[Place, ...]

    @property
    def mfu(self) -> float:
        """The middle of the range: what single figures are for."""
        return middle(self.utilisations)

    @property
    def step_flop(self) -> int:
        """Operations of one optimizer step on all GPUs together."""
        return self.step.total * self.spec.parallel.gpus

    def hours(self, mfu: float) -> float:
        """Wall hours of the run where the config says, at another utilisation."""
        return cost.hours_for(self.step_flop * self.length.steps, self.here.tflops, mfu, self.here.gpus)

    def affordable_steps(self, place: Place) -> int | None:
        """Steps of the config's effective batch that the money for the run here buys at another place."""
        if not place.runs or not place.cost or self.here.cost is None:
            return None
        return int(self.length.steps * self.here.cost / place.cost)


def middle(utilisations: tuple[float, ...]) -> float:
    return sorted(utilisations)[len(utilisations) // 2]


def length(
    spec: Spec, *, steps: int | None = None, samples: int | None = None, epochs: float | None = None, affordable: int | None = None
) -> Length:
    """How long the run is: as given, else as `affordable` in a given time, else as the config's schedule says."""
    batch, schedule = spec.effective_batch, spec.schedule
    if steps is not None:
        return _length(spec, steps, "given")
    shown = samples if samples is not None or epochs is None else schedule.samples
    if shown is not None:
        words = f"{shown:,} samples, {epochs or 1:g} times, {batch} a step"
        return _length(spec, steps_in_epochs(shown, epochs or 1, batch), words)
    if affordable is not None:
        return _length(spec, max(1, affordable), "what the wall time allows")
    run = course(spec)
    if run.steps is not None:
        return _length(spec, max(1, run.steps), "the config's" if run.exact else "at most, by the config")
    return _length(spec, UNSAID_STEPS, "the config does not say; give --training-steps, or --samples and --epochs")


def _length(spec: Spec, steps: int, source: str) -> Length:
    return Length(steps=steps, samples=steps * spec.effective_batch, source=source)


def plan(
    work: Job,
    judgement: Judgement,
    *,
    utilisations: tuple[float, ...],
    prices: Prices,
    cards: Sequence[Gpu],
    counts: Sequence[int],
    threshold: float,
    wall_hours: float | None = None,
    steps: int | None = None,
    samples: int | None = None,
    epochs: float | None = None,
) -> RunPlan:
    """Plan the run of `work`, which has been judged. Raises ConfigError where its step cannot be walked."""
    card = work.gpu
    assert card is not None, "only what has a GPU is judged as to fitting"
    found = step_flops(work, judgement.case.model)
    mfu, spec = middle(utilisations), work.spec
    tflops = peak_tflops(card, spec.precision)
    affordable = None if wall_hours is None else int(wall_hours / cost.hours_for(found.total, tflops, mfu))
    known = length(spec, steps=steps, samples=samples, epochs=epochs, affordable=affordable)
    here = Place(
        card=card,
        gpus=spec.parallel.gpus,
        price=prices.of(card),
        verdict=judgement.verdict,
        tflops=tflops,
        flop=found.total * spec.parallel.gpus * known.steps,
        hours=cost.hours_for(found.total * known.steps, tflops, mfu),
        peak_bytes=judgement.memory.peak_bytes,
        effective_batch=spec.effective_batch,
    )
    elsewhere = tuple(_places(work, known.samples, cards, counts, mfu=mfu, prices=prices, threshold=threshold))
    return RunPlan(spec=spec, step=found, length=known, utilisations=utilisations, here=here, elsewhere=elsewhere)


def _places(
    work: Job, samples: int, cards: Sequence[Gpu], counts: Sequence[int], *, mfu: float, prices: Prices, threshold: float
) -> Iterator[Place]:
    known: dict[str, StepFlops] = {}
    for card in cards:
        tflops = peak_tflops(card, work.spec.precision)
        for gpus in sorted(set(counts)):
            place = Place(card=card, gpus=gpus, price=prices.of(card), verdict="indivisible", tflops=tflops)
            spec = on_gpus(work.spec, gpus)
            yield place if spec is None else _placed(place, replace(work, spec=spec, gpu=card), samples, mfu, threshold, known)


def _placed(place: Place, work: Job, samples: int, mfu: float, threshold: float, known: dict[str, StepFlops]) -> Place:
    """One place, judged by the engine. Its operations are `known` where only the number of GPUs differs from another place."""
    try:
        judgement = judge_job(work, threshold)
        key = attention_kernel(work)
        if key not in known:
            once = replace(work, spec=replace(work.spec, train=replace(work.spec.train, accumulation=1)))
            known[key] = step_flops(once, build(once))
    except ConfigError:
        return replace(place, verdict="cannot-judge")
    batch = work.spec.effective_batch
    total = known[key].total * work.spec.train.accumulation * steps_for(samples, batch)
    return replace(
        place,
        verdict=judgement.verdict,
        flop=total * place.gpus,
        hours=cost.hours_for(total, place.tflops, mfu),
        peak_bytes=judgement.memory.peak_bytes,
        effective_batch=batch,
    )
