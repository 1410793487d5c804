"""What does the adapter train?

What: how many linear layers the LoRA targets match, and the parameters that makes.
Why: a name is matched wherever it occurs: Wan's blocks have a self- and a cross-attention, so four names are eight layers a block,
twice what counting one attention gives.
Fix: longer names (attn1.to_q) where only some of the layers were meant.
"""

from __future__ import annotations

from preflight.checks.case import Answers, Case, Found
from preflight.tape.module import Linear
from preflight.units import count


def check(case: Case) -> Answers:
    lora = case.job.spec.train.lora
    if lora is None or not case.model.adapters:
        return
    hit = [(name, copies) for name, m, copies in case.model.network.modules() if isinstance(m, Linear) and m.adapted]
    layers = sum(copies for _, copies in hit)
    kind = f"LoRA of rank {lora.rank}" if lora.factor is None else "LoKr"
    message = f"{kind} on {layers} layers trains {case.model.trainable_count:,} parameters"
    blocks = case.job.dims.get("num_layers")
    several = [target for target in lora.targets if isinstance(blocks, int) and _matched(target, hit) > blocks]
    if several and isinstance(blocks, int):
        message += f": {several[0]} alone is {_matched(several[0], hit)} layers in {count(blocks, 'block')}"
    yield Found("note", f"{message}.", "train.lora.targets")


def _matched(target: str, hit: list[tuple[str, int]]) -> int:
    return sum(copies for name, copies in hit if name == target or name.endswith(f".{target}"))
