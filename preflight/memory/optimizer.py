"""Optimizer states, and what one update holds on top of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

from preflight import spec
from preflight.finding import ConfigError, Finding, did_you_mean
from preflight.job import Job
from preflight.tape.dtypes import BYTES
from preflight.tape.meter import rounded
from preflight.tape.tensor import Parameter

# bitsandbytes/optim/optimizer.py: Optimizer2State.init_state (blocksize = 256) and __init__ (min_8bit_size=4096);
# get_state_buffer: with is_paged a state of 1e5 elements or more is unified memory, which the driver moves to the host when the
# card is full and torch's allocator never sees
BLOCK_8BIT = 256
MIN_8BIT = 4096
MIN_PAGED = 100_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """What one optimizer keeps of each parameter between steps, and what it holds while it updates them.

    States: `same` of the parameter's shape and dtype, `wide` of its shape in float32, `factored` second moments as one row and one
    column for a matrix and whole for a vector (in float32 where `wide_factors`), and with `kahan` one more beside a 16-bit
    parameter. Update: `copies` of all parameters at once (torch's multi-tensor forms), or `each` bytes an element of the largest
    one (float32 parameter, 16-bit parameter), those of the parameter before it that Python still refers to included.
    `narrow` states are a byte an element. `bits` is how the name itself says its states are kept; `eight` whether bitsandbytes has
    it in 8 bits.
    """

    same: int = 0
    wide: int = 0
    narrow: int = 0
    factored: int = 0
    wide_factors: bool = False
    kahan: bool = False
    shift: bool = False
    copies: int = 0
    each: tuple[int, int] = (0, 0)
    bits: int | None = None
    eight: bool = False
    paged: bool = False


# torch/optim/adam.py, _multi_tensor_adam: exp_avg_sq_sqrt = torch._foreach_sqrt(...), a copy of all; the fused kernel makes none.
# nadam.py, radam.py, adamax.py, rmsprop.py the same way; adagrad.py and adadelta.py hold two
_ADAM = Rule(same=2, copies=1, eight=True)
_FUSED = Rule(same=2, eight=True)
_LION = Rule(
    same=1, each=(8, 4), eight=True
)  # lion-pytorch: update = exp_avg.clone().mul_(beta1).add(grad, …), twice the parameter
_WIDE = replace(_FUSED, same=0, wide=2, eight=False)  # bitsandbytes' own 32-bit form: float32 states, one kernel
_ADAM_8BIT, _LION_8BIT = replace(_FUSED, bits=8), replace(_LION, bits=8, each=(0, 0))
_KAHAN = Rule(same=2, kahan=True, each=(4, 2))  # optimi/adam.py: _single_param_adam; its Triton kernel needs less
_ADAFACTOR = Rule(factored=1, wide_factors=True, each=(12, 20))  # transformers/optimization.py: Adafactor.step

_RULES = {
    "adam": _ADAM,
    "adamw": _ADAM,
    "nadam": replace(_ADAM, eight=False),
    "radam": replace(_ADAM, eight=False),
    "adamax": replace(_ADAM, eight=False),
    "adadelta": Rule(same=2, copies=2),
    "adagrad": Rule(same=1, copies=2, eight=True),
    "rmsprop": Rule(same=1, copies=1, eight=True),
    "sgd": Rule(same=1, eight=True),  # torch/optim/sgd.py: the momentum buffer, which plain SGD has not
    "lion": _LION,
    "adafactor": _ADAFACTOR,
    "torchadafactor": Rule(factored=1, copies=1),  # torch/optim/_adafactor.py: var_estimates of all matrices
    "came": Rule(wide=1, factored=2, wide_factors=True, each=(20, 24)),  # CAME came_pytorch/CAME.py: exp_avg of grad.float()
    "prodigy": Rule(same=4, each=(8, 4)),  # prodigyopt/prodigy.py: s, p0, exp_avg, exp_avg_sq; p0 - p, exp_avg_sq.sqrt()
    # SimpleTuner optimizers/adamw_bfloat16: exp_avg, exp_avg_sq, shift; a square root in bfloat16, a float32 sum, its int32 noise
    "adamwbf16": Rule(same=3, each=(10, 10)),
    # SimpleTuner optimizers/adamw_schedulefree: exp_avg, exp_avg_sq, kahan_comp; denom, step, buffer and a product
    "adamwschedulefreekahan": Rule(same=3, each=(16, 8)),
    # ai-toolkit toolkit/optimizers/adam8bit.py: Auto8bitTensor of both states, widened one parameter at a time
    "adam8": Rule(narrow=2, each=(24, 36)),
    "adamw8": Rule(narrow=2, each=(24, 36)),
    # ai-toolkit toolkit/optimizers/automagic.py: lr_mask, last_polarity and a factored second moment; torch.where of two int64
    "automagic": Rule(factored=1, narrow=2, each=(30, 38)),
    # diffusion-pipe optimizers/automagic.py: the same with Kahan's compensation, and the factors in float32
    "automagickahan": Rule(factored=1, wide_factors=True, narrow=2, kahan=True, each=(30, 38)),
    "adamwkahan": _KAHAN,
    "stableadamw": _KAHAN,
    "lionkahan": replace(_KAHAN, same=1),
    "adamw8bitkahan": Rule(same=2, shift=True, bits=8, each=(4, 2)),  # diffusion-pipe optimizers/adamw_8bit.py: shift, p.clone()
}

# The same optimizers by the names that trainers give them, lower case, letters and digits only.
_ALIASES = {
    # torch and Hugging Face's TrainingArguments.optim
    "adamwtorch": _ADAM,
    "torchadamw": _ADAM,
    "adamwhf": _ADAM,
    "torchadam": _ADAM,
    "adamwfused": _FUSED,
    "adamwtorchfused": _FUSED,
    "adamfused": _FUSED,
    "fusedadam": _FUSED,  # apex and DeepSpeed
    "fusedadamw": _FUSED,
    "deepspeedcpuadam": _FUSED,
    "fusedemaadam": Rule(same=3),  # SwissArmyTransformer csrc/adam/multi_tensor_ema_adam.cu: both moments and the average
    "torchsgd": _RULES["sgd"],
    "sgdnesterov": _RULES["sgd"],
    "transformersadafactor": _ADAFACTOR,
    # bitsandbytes
    **dict.fromkeys(
        ("adam8bit", "adamw8bit", "adamwbnb8bit", "adamw8bitbnb", "adam8bitbnb", "bnbadamw8bit", "aoadamw8bit"), _ADAM_8BIT
    ),
    **dict.fromkeys(("pagedadam8bit", "pagedadamw8bit", "bnbadamw8bitpaged"), replace(_ADAM_8BIT, paged=True)),
    **dict.fromkeys(("adam32bit", "adamw32bit", "bnbadamw"), _WIDE),
    **dict.fromkeys(("pagedadam", "pagedadamw", "pagedadamw32bit", "bnbadamwpaged"), replace(_WIDE, paged=True)),
    **dict.fromkeys(("lion8bit", "bnblion8bit"), _LION_8BIT),
    **dict.fromkeys(("pagedlion8bit", "bnblion8bitpaged"), replace(_LION_8BIT, paged=True)),
    **dict.fromkeys(("lion32bit", "bnblion"), replace(_WIDE, wide=1)),
    **dict.fromkeys(("pagedlion", "pagedlion32bit", "bnblionpaged"), replace(_WIDE, wide=1, paged=True)),
    "sgd8bit": Rule(same=1, bits=8, eight=True),
    "sgdnesterov8bit": Rule(same=1, bits=8, eight=True),
    # optimi
    "optimiadamw": _KAHAN,
    "adamwoptimi": _KAHAN,
    "optimiadam": _KAHAN,
    "optimistableadamw": _KAHAN,
    "optimilion": _RULES["lionkahan"],
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Optimizer:
    """Bytes for the whole network: `states` kept between steps, `update` held during one, `master` copies of the weights."""

    states: int
    update: int
    master: int


def rule(chosen: spec.Optimizer) -> Rule:
    """The rule of the optimizer that the spec names. Raises ConfigError for one that is not known, or not in those bits."""
    plain = re.sub(r"[^a-z0-9]", "", chosen.name.lower())
    plain = re.sub(r"^(torchoptim|bitsandbytesoptim|bnboptim|transformersoptimization)|optimizer$", "", plain)
    found = _RULES.get(plain) or _ALIASES.get(plain)
    if found is None:
        meant = did_you_mean(chosen.name, tuple(_RULES))
        message = f"Cannot judge: the states of optimizer {chosen.name!r} are not modelled yet."
        raise _refusal("unknown-optimizer", message, "train.optimizer.name", f"did you mean {meant}?" if meant else None)
    if chosen.bits == 8 and not (found.eight or found.bits == 8):
        message = f"Cannot judge: optimizer {chosen.name!r} has no 8-bit form that is modelled; expected bits 32."
        raise _refusal("unknown-optimizer", message, "train.optimizer.bits", None)
    if found.same == 1 and chosen.momentum is False and plain.startswith(("sgd", "torchsgd")):
        found = replace(found, same=0)
    if found.eight and chosen.fused:
        found = replace(found, copies=0)
    if chosen.bits != 32 and found.bits is None:
        found = replace(found, bits=chosen.bits, copies=0, each=(0, 0)) if chosen.bits == 8 else replace(found, bits=chosen.bits)
    return found


class Trained(Protocol):
    """What the optimizer updates: a whole model, or one rank's part."""

    @property
    def trainable(self) -> tuple[Parameter, ...]: ...

    @property
    def trainable_bytes(self) -> int: ...


def optimizer(job: Job, model: Trained) -> Optimizer:
    """States of the job's optimizer over the trainable parameters. Raises ConfigError for one that is not known."""
    chosen, precision = rule(job.spec.train.optimizer), job.spec.precision
    strategy = job.spec.parallel.strategy
    deepspeed = strategy.startswith("zero")
    master = precision.master is not None or (deepspeed and (strategy != "zero3" or precision.weights != "fp32"))
    state = _per_parameter(chosen, "fp32" if master else None)
    states = _over(model, state)
    wide = _over(model, lambda p: _bytes(p, "fp32")) if master else 0
    if deepspeed:
        return Optimizer(states=states, update=_flattened(model), master=wide)
    return Optimizer(states=states, update=wide if master else _update(chosen, model), master=wide)


def _flattened(model: Trained) -> int:
    """One group after another: deepspeed/runtime/zero/stage_1_and_2.py, step, and stage3.py, _prepare_fp32_grad_for_sub_group.

    The gradients are flattened in their own dtype, and cast to float32 for the master; DeepSpeed's own optimizers are fused.
    """
    return max((p.nbytes + (_bytes(p, "fp32") if p.dtype != "fp32" else 0) for p in model.trainable), default=0)


def _update(chosen: Rule, model: Trained) -> int:
    largest = max((p.numel * chosen.each[p.dtype != "fp32"] for p in model.trainable), default=0)
    return chosen.copies * model.trainable_bytes + int(rounded(largest))


def _per_parameter(chosen: Rule, dtype: str | None) -> Callable[[Parameter], int]:
    """Bytes of all states of one parameter; `dtype` takes the place of its own (torch: zeros_like)."""
    return lambda p: sum(state_sizes(chosen, p, dtype))


def state_sizes(chosen: Rule, p: Parameter, dtype: str | None = None) -> Iterator[int]:
    """Bytes of each tensor that the optimizer keeps of one parameter."""
    own = dtype or p.dtype
    for _ in range(chosen.same):
        yield from _like(chosen, p, own)
    if not (chosen.paged and p.numel >= MIN_PAGED):
        yield from (_bytes(p, "fp32") for _ in range(chosen.wide))
    yield from (int(rounded(p.numel)) for _ in range(chosen.narrow))
    for _ in range(chosen.factored):
        yield from _factors(p, "fp32" if chosen.wide_factors else own)
    if chosen.shift or (chosen.kahan and own != "fp32"):
        yield _bytes(p, own)


def _like(chosen: Rule, p: Parameter, own: str) -> Iterator[int]:
    """One state of the parameter's shape; in 8 bits also a float32 for each block of it, and small tensors stay in float32."""
    if chosen.bits != 8:
        yield _bytes(p, "bf16" if chosen.bits == 16 else own)
    elif p.numel < MIN_8BIT:
        yield _bytes(p, "fp32")
    else:
        if not (chosen.paged and p.numel >= MIN_PAGED):
            yield int(rounded(p.numel))
        yield int(rounded(-(-p.numel // BLOCK_8BIT) * BYTES["fp32"]))


def _factors(p: Parameter, dtype: str) -> Iterator[int]:
    """A row and a column of the last two dimensions, or the whole of a vector (Shazeer and Stern 2018, arXiv 1804.04235)."""
    if len(p.shape) < 2:
        yield _bytes(p, dtype)
        return
    for elements in (p.numel // p.shape[-1], p.numel // p.shape[-2]):
        yield int(rounded(elements * BYTES[dtype]))


def _bytes(p: Parameter, dtype: str) -> int:
    return p.nbytes if dtype == p.dtype else int(rounded(p.numel * BYTES[dtype]))


def _over(model: Trained, size: Callable[[Parameter], int]) -> int:
    return sum(size(p) * p.copies for p in model.trainable)


def _refusal(id_: str, message: str, key: str, fix: str | None) -> ConfigError:
    return ConfigError(Finding(id=id_, severity="error", message=message, key=key, fix=fix))
