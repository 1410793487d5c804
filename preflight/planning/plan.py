"""What a budget of GPUs and hours trains best: model size, data, batch and cost."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from preflight.catalog import Gpu
from preflight.memory.limits import Limits
from preflight.planning import chinchilla, cost, fit
from preflight.planning.video import Clip, video_hours


@dataclass(frozen=True, kw_only=True, slots=True)
class Assumptions:
    """What the formulas take for granted; the constants' own comments say from where."""

    tokens_per_parameter: float = chinchilla.TOKENS_PER_PARAMETER
    flop_per_parameter: float = chinchilla.FLOP_PER_PARAMETER
    bytes_per_parameter: float = fit.BYTES_PER_PARAMETER
    bytes_per_activation: float = fit.BYTES_PER_ACTIVATION
    layers: int = chinchilla.LAYERS
    threshold: float = 0.7


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A budget and what follows from it. Hours, dollars, bytes per GPU; parameters and patches are not whole numbers."""

    wall_hours: float
    gpus: int
    card: Gpu
    mfu: float
    price: float
    steps: int
    clip: Clip
    assumptions: Assumptions

    @property
    def gpu_hours(self) -> float:
        return cost.gpu_hours(self.wall_hours, self.gpus)

    @property
    def flop(self) -> float:
        return chinchilla.budget_flop(self.gpu_hours, self.card.tflops, self.mfu)

    @cached_property
    def parameters(self) -> float:
        taken = self.assumptions
        return chinchilla.optimal_parameters(self.flop, self.steps, taken.tokens_per_parameter, taken.flop_per_parameter)

    @property
    def patches(self) -> float:
        return chinchilla.optimal_patches(self.parameters, self.assumptions.tokens_per_parameter)

    @property
    def hidden(self) -> int:
        return chinchilla.hidden_width(self.parameters, self.assumptions.layers)

    @property
    def video_hours(self) -> float:
        return video_hours(self.patches, self.clip)

    @property
    def states_bytes(self) -> float:
        return fit.states_bytes(self.parameters, self.gpus, self.assumptions.bytes_per_parameter)

    @property
    def limits(self) -> Limits:
        return fit.card_limits(self.card, self.gpus, self.assumptions.threshold)

    def activation_bytes(self, batch: int) -> float:
        taken = self.assumptions
        return fit.activation_bytes(batch, self.clip.patches, self.hidden, taken.layers, taken.bytes_per_activation)

    @cached_property
    def largest_batch(self) -> int:
        return fit.largest_batch(self.states_bytes, self.activation_bytes(1), self.limits)

    @property
    def fits(self) -> bool:
        """Whether at least one sample fits beside the states."""
        return self.largest_batch > 0

    @property
    def batch(self) -> fit.Batch:
        return fit.rounded_batch(self.largest_batch, self.gpus)

    @property
    def cost(self) -> float:
        return cost.cost(self.gpu_hours, self.price)

    @cached_property
    def largest_clips(self) -> tuple[Clip, ...]:
        """The largest clips that would fit, where this one does not."""
        per_patch = self.activation_bytes(1) / self.clip.patches
        return () if self.fits else fit.largest_clips(self.clip, per_patch, self.states_bytes, self.limits)
