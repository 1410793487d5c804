"""Do the settings of parallelism and offload go together?

What: settings that are refused or ignored beside the strategy: optimizers that DeepSpeed's ZeRO does not know, 8-bit states of
bitsandbytes under fully_shard, FSDP 1 with adapters and without use_orig_params, a hybrid shard or dtypes of FSDP under another
strategy, ZeRO's settings without ZeRO, offload that nothing carries out.
Why: a refused run stops after the weights have loaded; an ignored setting saves nothing of what it was meant to.
Fix: the strategy that the setting belongs to, or neither.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from preflight.checks.case import Answers, Case, Found
from preflight.memory.zero import known_to_zero
from preflight.spec import Parallel, Spec

DEFAULT = Parallel()


def check(case: Case) -> Answers:
    for question in QUESTIONS:
        yield from question(case.job.spec)


def _optimizer(spec: Spec) -> Answers:
    """runtime/engine.py, _configure_optimizer: an assertion unless zero_allow_untested_optimizer; accelerate sets that."""
    chosen, strategy = spec.train.optimizer, spec.parallel.strategy
    allowed = spec.parallel.zero is not None and spec.parallel.zero.untested
    if strategy.startswith("zero") and not allowed and not known_to_zero(chosen):
        named = f"{chosen.name} in {chosen.bits} bits" if chosen.bits != 32 else chosen.name
        message = f"DeepSpeed's ZeRO refuses {named}, which it was not tested with, unless zero_allow_untested_optimizer is true."
        yield Found("warning", message, "train.optimizer.name", fix="adamw, or the setting, which accelerate makes itself")
    if (
        strategy == "fsdp"
        and spec.parallel.fsdp_version == 2
        and spec.parallel.gpus > 1
        and _bitsandbytes(chosen.name, chosen.bits)
    ):
        # bitsandbytes issue 1633: its states are not made for DTensor
        message = f"bitsandbytes' {chosen.name} in 8 bits reads memory that is not its own under fully_shard."
        yield Found("warning", message, "train.optimizer.bits", fix="32 bits, or torchao's 8-bit optimizer")


def _bitsandbytes(name: str, bits: int) -> bool:
    return (bits == 8 or "8bit" in name.lower()) and "ao" not in name.lower()


def _fsdp(spec: Spec) -> Answers:
    parallel = spec.parallel
    if parallel.strategy != "fsdp" or parallel.fsdp_version != 1 or parallel.use_orig_params or spec.train.method != "lora":
        return
    # _flat_param.py, _validate_tensors_to_flatten
    message = "FSDP 1 refuses units whose parameters train in part, as with adapters, unless use_orig_params is true."
    yield Found("error", message, "parallel.use_orig_params", fix="true")


def _unused(spec: Spec) -> Answers:
    parallel = spec.parallel
    settings = {"fsdp": ("reshard", "compute", "reduce", "shard"), "fsdp 1": ("backward_prefetch", "forward_prefetch")}
    if parallel.strategy == "fsdp":
        settings = {} if parallel.fsdp_version == 1 else {"fsdp 1": settings["fsdp 1"]}
    for owner, names in settings.items():
        for name in names:
            if getattr(parallel, name) != getattr(DEFAULT, name):
                message = f"{name} has no effect: it is a setting of {owner}, and the run's strategy is {_strategy(parallel)}."
                yield Found("warning", message, f"parallel.{name}")
    if parallel.zero is not None and not parallel.strategy.startswith("zero"):
        message = f"The settings of ZeRO have no effect: the run's strategy is {_strategy(parallel)}."
        yield Found("warning", message, "parallel.zero")
    if parallel.partition != DEFAULT.partition and parallel.pipeline == 1:
        yield Found("warning", "partition has no effect: there is one pipeline stage.", "parallel.partition")


def _offload(spec: Spec) -> Answers:
    away, strategy = spec.offload, spec.parallel.strategy
    if away.activations and spec.train.checkpointing is False:
        message = "No activations wait on the host: only the inputs of checkpoints do, and there are none."
        yield Found("warning", message, "offload.activations", fix="checkpointing")
    if away.optimizer and strategy == "fsdp" and not away.parameters:
        message = "FSDP keeps optimizer states where its shards are, so they go to the host only with the parameters."
        yield Found("error", message, "offload.optimizer", fix="offload of the parameters")
    if away.parameters and strategy in ("zero1", "zero2"):
        # deepspeed/runtime/zero/config.py, offload_param: "Valid only with stage 3"
        message = f"{strategy} offloads no parameters: DeepSpeed's offload_param is for stage 3."
        yield Found("error", message, "parallel.strategy", fix="zero3")
    if away.blocks and away.parameters:
        yield Found("warning", "Blocks cannot be swapped while all parameters wait on the host.", "offload.blocks")


def _strategy(parallel: Parallel) -> str:
    return f"fsdp {parallel.fsdp_version}" if parallel.strategy == "fsdp" else parallel.strategy


QUESTIONS: tuple[Callable[[Spec], Iterator[Found]], ...] = (_optimizer, _fsdp, _unused, _offload)
