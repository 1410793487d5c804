"""How long a run goes on and how often something happens in it, by the config's own numbers."""

from __future__ import annotations

from dataclasses import dataclass

from preflight.spec import Spec


@dataclass(frozen=True, kw_only=True, slots=True)
class Course:
    """A run's length. `epoch` and `total` are in `unit`s: optimizer steps, or forward passes where the trainer counts those.

    `total` is None where nothing bounds it, and a bound only, not `exact`, where epochs may end the run before. `epochs` are
    those that are gone through to the end.
    """

    unit: str
    accumulation: int
    epoch: int | None
    total: int | None
    exact: bool
    epochs: int | None

    @property
    def steps(self) -> int | None:
        """Optimizer steps of the whole run."""
        if self.total is None:
            return None
        return self.total // self.accumulation if self.unit == "pass" else self.total

    def times(self, every: int | None, every_epochs: int | None = None) -> int | None:
        """How often something happens that comes every so many units or epochs; None where that cannot be known."""
        if (every is not None and self.total is None) or (every_epochs is not None and self.epochs is None):
            return None
        by_steps = self.total // every if every is not None and self.total is not None else 0
        by_epochs = self.epochs // every_epochs if every_epochs is not None and self.epochs is not None else 0
        return by_steps + by_epochs


def course(spec: Spec) -> Course:
    """The run's length. An epoch has as many whole steps as the samples fill, as trainers that drop the last batch count."""
    schedule, accumulation = spec.schedule, spec.train.accumulation
    one = spec.effective_batch if schedule.unit == "step" else spec.effective_batch // accumulation
    epoch = schedule.samples // one if schedule.samples is not None else None
    whole = epoch * schedule.epochs if epoch is not None and schedule.epochs is not None else None
    bounds = [bound for bound in (schedule.steps, whole) if bound is not None]
    total = min(bounds, default=None)
    return Course(
        unit="step" if accumulation == 1 else schedule.unit,
        accumulation=accumulation,
        epoch=epoch,
        total=total,
        exact=total is not None and (schedule.epochs is None or whole is not None),
        epochs=total // epoch if total is not None and epoch else schedule.epochs,
    )
