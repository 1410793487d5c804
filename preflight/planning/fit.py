"""What the planned model needs on each GPU, and the batch that leaves room for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import floor

from preflight.catalog import Gpu
from preflight.memory.limits import Limits, limits
from preflight.planning.video import Clip
from preflight.spec import Parallel

BYTES_PER_PARAMETER = 16.0  # Rajbhandari et al. 2020 (ZeRO, arXiv 1910.02054): weights and gradients 2 each, Adam in float32 12
BYTES_PER_ACTIVATION = 2.0  # one 16-bit number per patch, channel and layer: each layer's input, as checkpointing keeps it
BATCH_STEP = 8  # tensor cores want sizes in multiples of 8 (NVIDIA, Deep Learning Performance Guide)


def states_bytes(parameters: float, gpus: int, bytes_per_parameter: float = BYTES_PER_PARAMETER) -> float:
    """Weights, gradients and optimizer states on each of `gpus` GPUs that share them (fully sharded)."""
    return bytes_per_parameter * parameters / gpus


def activation_bytes(
    batch: int, patches: int, hidden: int, layers: int, bytes_per_activation: float = BYTES_PER_ACTIVATION
) -> float:
    """What `batch` samples of so many patches keep on a GPU."""
    return batch * patches * hidden * layers * bytes_per_activation


def card_limits(card: Gpu, gpus: int, threshold: float) -> Limits:
    """What `preflight` lets a fully sharded run take of the card: the two rules of its gate."""
    return limits(card, Parallel(gpus=gpus, strategy="fsdp" if gpus > 1 else "none"), threshold)


def largest_batch(states: float, sample: float, limit: Limits) -> int:
    """Samples whose activations of `sample` bytes each keep both rules beside the states; 0 where not even one does."""
    room = min(limit.usable - states, float(limit.activations))
    return max(0, floor(room / sample))


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """The batch to use, and in words how it was rounded."""

    samples: int
    rounding: str


def rounded_batch(largest: int, gpus: int) -> Batch:
    """`largest` rounded down to a multiple of 8, then of the number of GPUs; to as much of that as is there."""
    eights = largest // BATCH_STEP * BATCH_STEP
    both = eights // gpus * gpus
    if both:
        return Batch(samples=both, rounding=f"{largest} rounded down to a multiple of {BATCH_STEP}, then of {gpus} GPUs")
    if eights:
        return Batch(
            samples=eights, rounding=f"{largest} rounded down to a multiple of {BATCH_STEP}; no multiple of {gpus} GPUs fits"
        )
    return Batch(samples=largest, rounding=f"not rounded: no multiple of {BATCH_STEP} fits")


def largest_clips(clip: Clip, per_patch: float, states: float, limit: Limits) -> tuple[Clip, ...]:
    """The largest clips of which one sample fits, `per_patch` bytes a patch.

    First with the frames kept, then with the resolution kept; where neither exists, with the fewest frames. Empty where none fits.
    """
    kept = tuple(found for found in (_smaller(clip, per_patch, states, limit), _shorter(clip, per_patch, states, limit)) if found)
    if kept:
        return kept
    shortest = _smaller(replace(clip, frames=1), per_patch, states, limit)
    return (shortest,) if shortest else ()


def _smaller(clip: Clip, per_patch: float, states: float, limit: Limits) -> Clip | None:
    return next((c for c in clip.smaller_sizes() if largest_batch(states, per_patch * c.patches, limit)), None)


def _shorter(clip: Clip, per_patch: float, states: float, limit: Limits) -> Clip | None:
    one = replace(clip, frames=1)
    latent_frames = largest_batch(states, per_patch * one.patches, limit)
    return clip.with_latent_frames(min(latent_frames, clip.latent_frames)) if latent_frames else None
