"""Optimizer states, and what one update holds on top of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from preflight.finding import ConfigError, Finding, did_you_mean
from preflight.job import Job
from preflight.memory.model import Model
from preflight.tape.dtypes import BYTES
from preflight.tape.meter import rounded
from preflight.tape.tensor import Parameter

# bitsandbytes/optim/optimizer.py: Optimizer2State.init_state and __init__ (min_8bit_size=4096); functional.py: blockwise, 256
BLOCK_8BIT = 256
MIN_8BIT = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """One optimizer: how many states of the parameter's size it keeps, and whether torch's foreach form copies the parameters.

    Torch's multi-tensor Adam holds the square roots of the second moments while it divides by them:
    torch/optim/adam.py, _multi_tensor_adam: exp_avg_sq_sqrt = torch._foreach_sqrt(...).
    """

    states: int
    foreach_copy: bool


_RULES = {
    "adam": Rule(states=2, foreach_copy=True),
    "adamw": Rule(states=2, foreach_copy=True),
    "sgd": Rule(states=1, foreach_copy=False),  # torch/optim/sgd.py: the momentum buffer
    "lion": Rule(states=1, foreach_copy=False),  # Chen et al. 2023, arXiv 2302.06675: one momentum
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Optimizer:
    """Bytes for the whole network: `states` kept between steps, `update` held during one, `master` copies of the weights."""

    states: int
    update: int
    master: int


def optimizer(job: Job, model: Model) -> Optimizer:
    """States of the job's optimizer over the model's trainable parameters. Raises ConfigError for one that is not known."""
    chosen, precision = job.spec.train.optimizer, job.spec.precision
    rule = _RULES.get(chosen.name)
    if rule is None:
        meant = did_you_mean(chosen.name, tuple(_RULES))
        message = f"Cannot judge: the states of optimizer {chosen.name!r} are not modelled yet"
        fix = f"did you mean {meant}?" if meant else None
        raise ConfigError(
            Finding(id="unknown-optimizer", severity="error", message=f"{message}.", key="train.optimizer.name", fix=fix)
        )
    deepspeed = job.spec.parallel.strategy.startswith("zero")
    master = precision.master is not None or (deepspeed and precision.weights != "fp32")
    state = _per_parameter(chosen.bits, "fp32" if master else None)
    states = _over(model, lambda p: rule.states * state(p))
    if master:
        # deepspeed/runtime/zero/stage_1_and_2.py: single_partition_of_fp32_groups, and its float32 gradient during the step
        wide = _over(model, lambda p: int(rounded(p.numel * BYTES["fp32"])))
        return Optimizer(states=states, update=wide, master=wide)
    copied = chosen.bits == 32 and rule.foreach_copy
    return Optimizer(states=states, update=model.trainable_bytes if copied else 0, master=0)


def _per_parameter(bits: int, dtype: str | None) -> Callable[[Parameter], int]:
    """Bytes of one state of one parameter: its own dtype (torch: zeros_like), or quantised by blocks."""

    def full(p: Parameter) -> int:
        return int(rounded(p.numel * BYTES[dtype])) if dtype is not None else p.nbytes

    def eight(p: Parameter) -> int:
        if p.numel < MIN_8BIT:
            return int(rounded(p.numel * BYTES["fp32"]))
        return int(rounded(p.numel) + rounded(-(-p.numel // BLOCK_8BIT) * BYTES["fp32"]))

    def sixteen(p: Parameter) -> int:
        return int(rounded(p.numel * BYTES["bf16"]))

    return {8: eight, 16: sixteen}.get(bits, full)


def _over(model: Model, size: Callable[[Parameter], int]) -> int:
    return sum(size(p) * p.copies for p in model.trainable)
