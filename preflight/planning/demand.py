"""GPUs for a platform's demand at its peak.

Source: as training.py, for the uploads, the shares and the sum of 720,000 GPUs. How that sum comes about is not printed there:
two candidates and half of the peak speed are assumed here, and the peak factor is what then gives the printed sum.
"""

from __future__ import annotations

from dataclasses import dataclass

CANDIDATES = 2.0
UTILISATION = 0.5
PEAK_FACTOR = 1.454


@dataclass(frozen=True, kw_only=True, slots=True)
class Platform:
    """Minutes uploaded a day, and the share of them that is generated."""

    name: str
    minutes_a_day: float
    share: float = 1.0

    @property
    def generated(self) -> float:
        """Generated minutes a day."""
        return self.minutes_a_day * self.share


PLATFORMS = (
    Platform(name="TikTok", minutes_a_day=17e6, share=0.5),
    Platform(name="YouTube", minutes_a_day=43e6, share=0.15),
)
IMAGES_A_DAY = 95e6  # uploaded to Instagram


def peak_gpus(
    minutes_a_day: float, minutes_per_gpu_hour: float, candidates: float, utilisation: float, peak_factor: float
) -> float:
    """GPUs that serve the busiest hour.

    Each minute that is kept is the best of `candidates`, GPUs reach the share `utilisation` of their peak, and the busiest hour
    asks for `peak_factor` times the average.
    """
    return minutes_a_day / 24 / minutes_per_gpu_hour * candidates * peak_factor / utilisation
