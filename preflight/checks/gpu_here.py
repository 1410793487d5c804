"""Has the GPU in this machine the memory that is judged?

What: where the GPU that is judged is in this machine, what its driver says of it by NVML (nvidia-ml-py): whether it is divided into
MIG instances, and whether it has less memory than the catalog's, as cards with GDDR memory have with ECC on.
Why: a process sees one MIG instance and never the whole card; ECC keeps a sixteenth of GDDR memory for itself.
Fix: judge for what is there with --gpu-memory, or change the mode of the card.
"""

from __future__ import annotations

from preflight.checks.case import Answers, Case, Found
from preflight.machine import here
from preflight.units import GIB, count, gib


def check(case: Case) -> Answers:
    judged = case.job.gpu
    if judged is None:
        return
    for card in here(judged):
        if card.mig:
            largest = max(card.slices, default=0)
            message = (
                f"GPU {card.index} of this machine, {judged.name}, is divided by MIG into {count(len(card.slices), 'instance')}"
                f"{f', the largest of {gib(largest)}' if largest else ''}, and a process sees one of them."
            )
            yield Found("warning", message, "hardware.gpu", fix=_flag(largest) if largest else None)
            return
        if card.total < judged.memory_bytes:  # NVML counts what torch reports and the driver's own reserve
            why = " with ECC on" if card.ecc else ""
            message = (
                f"GPU {card.index} of this machine, {judged.name}, has {gib(card.total)}{why},"
                f" less than the {gib(judged.memory_bytes)} that are judged."
            )
            yield Found("warning", message, "hardware.gpu", fix=_flag(card.total))
            return


def _flag(size: int) -> str:
    """The flag for `size` bytes, rounded down."""
    return f"--gpu-memory {size * 100 // GIB / 100:.2f}"
