"""DDPM in the trainer of SR3 (Janspiry's model/ddpm_modules)."""

from __future__ import annotations

from preflight.networks import diffsr_ddpm
from preflight.networks.sr3 import WholeImages


class DDPM(WholeImages, diffsr_ddpm.DDPM):
    pass


NETWORK = DDPM
