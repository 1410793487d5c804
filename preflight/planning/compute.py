"""Training against inference of one model: what follows from the assumptions about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from preflight.planning import demand, inference, training

TFLOPS = 989.4
"""Dense bfloat16 of an H100 SXM to its last printed digit (NVIDIA, H100 architecture white paper), as the source has it.
The catalog has the data sheet's 989."""
LANGUAGE_MODELS: Mapping[str, float] = {
    "Llama 2 70B": 70e9,
    "GPT-4": 440e9,  # reported, not confirmed: two active experts of 220 billion parameters each
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Assumptions:
    """Every factor; the modules' constants say where the defaults come from."""

    reference_flop: float = training.REFERENCE_FLOP
    model_scale: float = training.MODEL_SCALE
    data_scale: tuple[float, ...] = training.DATA_SCALE
    video_share: float = training.VIDEO_SHARE
    seconds: float = 60.0
    fps: float = 24.0
    compression: float = 8.0
    tflops: float = TFLOPS
    gpu: str = "h100-80gb"
    training_utilisation: float = 1.0
    month_days: float = training.MONTH_DAYS
    step_flop: float = inference.STEP_FLOP
    sampling_steps: int = inference.SAMPLING_STEPS
    digits: int = inference.DIGITS
    platforms: tuple[demand.Platform, ...] = demand.PLATFORMS
    images_a_day: float = demand.IMAGES_A_DAY
    candidates: float = demand.CANDIDATES
    utilisation: float = demand.UTILISATION
    peak_factor: float = demand.PEAK_FACTOR
    tokens: int = 1000
    language_models: Mapping[str, float] = field(default_factory=lambda: LANGUAGE_MODELS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Compute:
    """What follows. Pairs are the low and the high bound, by the data."""

    taken: Assumptions

    @property
    def frames(self) -> float:
        """Latent frames of a clip."""
        return training.latent_frames(self.taken.seconds, self.taken.fps, self.taken.compression)

    @property
    def training_flop(self) -> tuple[float, ...]:
        t = self.taken
        return tuple(
            training.training_flop(t.reference_flop, t.model_scale, data, self.frames, t.video_share) for data in t.data_scale
        )

    @property
    def gpu_months(self) -> tuple[float, ...]:
        t = self.taken
        return tuple(training.gpu_months(flop, t.tflops, t.training_utilisation, t.month_days) for flop in self.training_flop)

    @property
    def reference_gpu_months(self) -> float:
        t = self.taken
        return training.gpu_months(t.reference_flop, t.tflops, t.training_utilisation, t.month_days)

    @property
    def clip_flop(self) -> float:
        t = self.taken
        return inference.clip_flop(t.step_flop, t.sampling_steps, t.model_scale, self.frames, t.digits)

    @property
    def clip_step_flop(self) -> float:
        return inference.clip_flop(self.taken.step_flop, 1, self.taken.model_scale, self.frames, self.taken.digits)

    @property
    def minute_flop(self) -> float:
        return self.clip_flop * 60 / self.taken.seconds

    @property
    def image_flop(self) -> float:
        return inference.image_flop(self.taken.step_flop, self.taken.sampling_steps)

    @property
    def minutes_per_gpu_hour(self) -> float:
        return inference.units_per_gpu_hour(self.minute_flop, self.taken.tflops)

    @property
    def crossover_minutes(self) -> tuple[float, ...]:
        return tuple(inference.crossover(flop, self.minute_flop) for flop in self.training_flop)

    @property
    def crossover_images(self) -> float:
        return inference.crossover(self.taken.reference_flop, self.image_flop)

    @property
    def crossover_days(self) -> Mapping[str, tuple[float, ...]]:
        """Days of each platform's uploads, were they all generated."""
        return {p.name: tuple(m / p.minutes_a_day for m in self.crossover_minutes) for p in self.taken.platforms}

    @property
    def generated_minutes(self) -> float:
        """Minutes a day over all platforms, by their shares."""
        return sum(platform.generated for platform in self.taken.platforms)

    @property
    def peak_gpus(self) -> float:
        t = self.taken
        return demand.peak_gpus(self.generated_minutes, self.minutes_per_gpu_hour, t.candidates, t.utilisation, t.peak_factor)

    @property
    def outputs(self) -> Mapping[str, tuple[str, float]]:
        """Name: (unit of output, operations for it), the most expensive first."""
        tokens = f"{self.taken.tokens:,} tokens"
        found = {
            "video model": ("1 min of video", self.minute_flop),
            "reference model": ("512 x 512 image", self.image_flop),
            **{name: (tokens, inference.text_flop(n, self.taken.tokens)) for name, n in self.taken.language_models.items()},
        }
        return dict(sorted(found.items(), key=lambda item: -item[1][1]))
