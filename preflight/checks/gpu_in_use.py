"""Is the GPU in this machine free?

What: where the GPU that is judged is in this machine, the memory that other processes hold on it, as NVML tells (nvidia-ml-py).
Why: what they hold is not there for the run; the memory that is judged is that of an empty GPU.
Fix: end those processes, wait, or choose other GPUs with CUDA_VISIBLE_DEVICES.
"""

from __future__ import annotations

from preflight.checks.case import Answers, Case, Found
from preflight.machine import Card, here
from preflight.memory.host import ranks_per_node
from preflight.memory.peak import worst
from preflight.units import MIB, count, gib

LEAST = 256 * MIB  # a desktop and an idle process of torch's are no news


def check(case: Case) -> Answers:
    limits, gpu = case.limits, case.job.gpu
    if limits is None or gpu is None:
        return
    cards = here(gpu)
    taken = [card for card in cards if card.used >= LEAST]
    if not taken:
        return
    fullest = max(taken, key=lambda card: card.used)
    left = limits.usable - fullest.used
    others = f", and {count(len(taken) - 1, 'other GPU')} in use" if len(taken) > 1 else ""
    message = (
        f"{gpu.name} is here, but {gib(fullest.used)} of GPU {fullest.index} are in use{_by(fullest)}, which leaves"
        f" {gib(max(0, left))} usable{others}."
    )
    free = [str(card.index) for card in cards if card.used < LEAST]
    fix = f"CUDA_VISIBLE_DEVICES={','.join(free)}" if len(free) >= ranks_per_node(case.job.spec) else None
    peak = worst(case.budget, case.phases).total
    yield Found("warning" if left < peak <= limits.usable else "note", message, "hardware.gpu", fix)


def _by(card: Card) -> str:
    return f" by {count(card.processes, 'other process')}" if card.processes else ""
