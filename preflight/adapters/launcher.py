"""What starts the trainer: the flags of `accelerate launch`, `torchrun` and `deepspeed`, and the files that those name.

An adapter adds FIELDS to its table, reads `including(document)` instead of `document`, and calls `settle` when the trainer's own
settings are in place; what `settle` finds there already it leaves alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from preflight.adapters import flags
from preflight.adapters.draft import Draft
from preflight.adapters.launcher_fields import CONFIG, DEEPSPEED, FIELDS, WRAP
from preflight.adapters.reading import Assumed
from preflight.document import Document
from preflight.finding import Finding
from preflight.launching.launch import Unresolved

__all__ = ["CONFIG", "DEEPSPEED", "FIELDS", "WRAP", "Launched", "including", "settle"]

ACCELERATE = "accelerate launch"

Told: TypeAlias = Literal["no", "fp16", "bf16", "fp8"] | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Launched:
    """What the launcher tells the trainer, for the adapter to use where the trainer listens to it.

    `mixed_precision` is "no" where accelerate is told nothing, and None where no accelerate is. `accumulation` and `batch` are
    DeepSpeed's, None where it takes the trainer's. `engine` says whether DeepSpeed runs the step, `zero_init` whether models may be
    built in parts under its zero.Init, and `checkpointing` whether FSDP checkpoints each block.
    """

    processes: int
    mixed_precision: Told = None
    accumulation: int | None = None
    batch: int | None = None
    engine: bool = False
    zero_init: bool = False
    checkpointing: bool = False


def including(document: Document, *, deepspeed: Sequence[str] = ()) -> Document:
    """`document` with the files that its launcher names: accelerate's under "accelerate", DeepSpeed's under "deepspeed_config".

    `deepspeed` are flags of the trainer that name a DeepSpeed file, such as "--deepspeed". What is not there is left out, and
    `settle` says so. Raises ConfigError for a file that cannot be read.
    """
    document = flags.including(document, CONFIG, _named(document, "launcher", "config_file"))
    inside = _named(document, CONFIG, "deepspeed_config", "deepspeed_config_file")
    own = (_named(document, name) for name in deepspeed)
    path = _named(document, "launcher", "deepspeed_config_file") or inside or next(filter(None, own), None)
    return flags.including(document, DEEPSPEED, path)


# docs.pytorch.org/docs/stable/notes/cuda.html, "Optimizing memory usage": the second is the name from torch 2.9 on
ALLOCATOR = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF")


def settle(run: Draft, *, distributed: bool = True, accumulates: bool = True) -> Launched:
    """Puts parallel.gpus, parallel.nodes, parallel.strategy and its options, and offload.* into `run`, where they are not settled.

    `distributed` says that the trainer wraps its model in DDP where there are several processes and nothing else divides them,
    `accumulates` that its micro-batches go through accelerate's `accumulate` of the model, which holds gradients back. A file that
    was named and not found is a warning ("file-not-read").
    """
    launch = run.document.launch
    started = launch.launcher if launch is not None else "python"
    for name, key in ((CONFIG, "config_file"), (DEEPSPEED, "deepspeed_config_file")):
        path = _named(run.document, "launcher", key)
        if path is not None and name not in run.document.included:
            run.findings.append(_missing(run.document, path, f"launcher.--{key}"))
    _processes(run, started)
    if launch is not None and any("expandable_segments:True" in str(launch.environment.get(name)) for name in ALLOCATOR):
        run.put("hardware.expandable_segments", True)
    gpus = int(run.get("parallel.gpus"))
    kind = _kind(run, gpus)
    if "parallel.strategy" not in run.settled:
        STRATEGIES.get(kind, _plain)(run, gpus, distributed)
        if accumulates and run.get("parallel.strategy") == "fsdp" and run.get("train.accumulation", 1) > 1:
            run.put("parallel.no_sync", True, like="train.accumulation")  # accelerator.py: accumulate, no_sync
    for path, name in (("parallel.sequence", "sequence_parallel"), ("parallel.sequence", "context_parallel"),
                       ("parallel.tensor", "tensor_parallel")):  # fmt: skip
        if run.get(f"_launcher.{name}", 1) > 1 and path not in run.settled:
            run.put(path, run.get(f"_launcher.{name}"), like=f"_launcher.{name}")
    written: Told = "bf16" if run.get("_deepspeed.bf16") else "fp16" if run.get("_deepspeed.fp16") else None
    told: Told = run.get("_launcher.mixed_precision", "no") if started == "accelerate" else None
    return Launched(
        processes=gpus,
        mixed_precision=told if told not in (None, "no") else written or told,
        accumulation=run.get("_deepspeed.accumulation", run.get("_launcher.accumulation") if kind == "deepspeed" else None),
        batch=run.get("_deepspeed.batch"),
        engine=kind == "deepspeed",
        zero_init=kind == "deepspeed" and _stage(run)[0] == 3 and bool(run.get("_launcher.zero_init", True)),
        checkpointing=kind == "fsdp" and bool(run.get("_launcher.activation_checkpointing")),
    )


def _processes(run: Draft, started: str) -> None:
    """All processes of the run, each of which has a GPU."""
    nodes = int(run.get("_launcher.machines", 1))
    if nodes > 1 and "parallel.nodes" not in run.settled:
        run.put("parallel.nodes", nodes, like="_launcher.machines")
    if "parallel.gpus" in run.settled:
        return
    visible = _visible(run)
    if started == "accelerate" and "_launcher.processes" in run.settled:
        run.put("parallel.gpus", run.get("_launcher.processes"), like="_launcher.processes")
    elif started in ("torchrun", "deepspeed") and "_launcher.per_node" in run.settled:
        run.put("parallel.gpus", nodes * run.get("_launcher.per_node"), like="_launcher.per_node")
    elif started == "deepspeed" and "_launcher.included" in run.settled:
        run.put("parallel.gpus", run.get("_launcher.included"), like="_launcher.included")
    elif started == "python" or run.get("_launcher.kind") == "no" or (started == "torchrun" and not _everything(run)):
        run.assume("parallel.gpus", nodes, f"{started} starts one process on each node unless it is told otherwise")
    elif visible is not None:
        run.assume("parallel.gpus", nodes * visible, f"{started} takes every GPU that the script lets it see")
    else:
        source = f"{started} takes every GPU of the machine, and the script does not say how many; pass --set hardware.gpus=N"
        run.assume("parallel.gpus", nodes, source)


def _everything(run: Draft) -> bool:
    """Whether torchrun is told to take all GPUs that there are."""
    own = run.document.data.get("launcher")
    given = {name.lstrip("-").replace("-", "_"): value for name, value in own.items()} if isinstance(own, Mapping) else {}
    return given.get("nproc_per_node") in ("gpu", "auto")


def _visible(run: Draft) -> int | None:
    """How many GPUs the script lets a node's processes see."""
    if "_launcher.gpu_ids" in run.settled:
        return int(run.get("_launcher.gpu_ids"))
    launch = run.document.launch
    names = launch.environment.get("CUDA_VISIBLE_DEVICES") if launch is not None else None
    if names is None or isinstance(names, Unresolved) or not names.strip():
        return None
    return len([name for name in names.split(",") if name.strip()])


def _kind(run: Draft, gpus: int) -> str:
    """What divides the model: a flag of accelerate's before its file; DeepSpeed's file alone says so, too."""
    for name in ("deepspeed", "fsdp"):
        if run.get(f"_launcher.use_{name}"):
            return name
    if run.get("_launcher.multi_gpu"):
        return "multi_gpu"
    if "_launcher.kind" in run.settled:
        return str(run.get("_launcher.kind"))
    return "deepspeed" if DEEPSPEED in run.document.included else "multi_gpu" if gpus > 1 else "no"


def _plain(run: Draft, gpus: int, distributed: bool) -> None:  # one of the strategies
    run.put("parallel.strategy", "ddp" if gpus > 1 and distributed else "none", like="parallel.gpus")


def _stage(run: Draft) -> tuple[int, str]:
    """ZeRO's stage, and the path that says so: the file's, else the flag's, else accelerate's 2 (DeepSpeedPlugin.zero_stage)."""
    for path in ("_deepspeed.stage", "_launcher.zero_stage"):
        if path in run.settled:
            return int(run.get(path)), path
    return (0, "") if DEEPSPEED in run.document.included else (2, "")  # zero/config.py: stage = 0


def _deepspeed(run: Draft, gpus: int, distributed: bool) -> None:  # noqa: ARG001  # one of the launchers' table
    stage, like = _stage(run)
    if stage == 0:
        run.put("parallel.strategy", "ddp" if gpus > 1 else "none", like=like)
    else:
        run.put("parallel.strategy", f"zero{stage}", like=like)
        if not like:
            run.assumed["parallel.strategy"] = Assumed(
                value=f"zero{stage}", source=f"{ACCELERATE}: DeepSpeedPlugin.zero_stage is 2"
            )
    for path in [path for path in run.settled if path.startswith("_deepspeed.zero.")]:
        run.put(f"parallel.{path.removeprefix('_deepspeed.')}", run.get(path), like=path)
    named = DEEPSPEED in run.document.included
    for what in ("optimizer", "parameters"):
        path = f"_deepspeed.offload_{what}"
        path = path if named and path in run.settled else "" if named and not _auto(run, what) else f"_launcher.offload_{what}"
        if run.get(path) and (what == "optimizer" or stage == 3) and f"offload.{what}" not in run.settled:
            run.put(f"offload.{what}", True, like=path)


def _auto(run: Draft, what: str) -> bool:
    """Whether DeepSpeed's file leaves the place of `what` to accelerate."""
    name = "offload_optimizer" if what == "optimizer" else "offload_param"
    return bool(run.block(DEEPSPEED, "zero_optimization", name).get("device") == "auto")


def _fsdp_strategy(run: Draft, gpus: int, distributed: bool) -> None:  # noqa: ARG001  # one of the launchers' table
    """Accelerate's plugin: FULL_SHARD, or with FSDP2 whatever reshard_after_forward says, whose default is true.

    For FSDP 1 launch.py always says a sharding strategy, which goes before reshard_after_forward (utils/launch.py, accelerator.py).
    """
    second = run.get("_launcher.version", 1) == 2
    said = "_launcher.reshard_after_forward" if second else "_launcher.sharding_strategy"
    how = run.get(said, "full_shard")
    whole = how == "no_shard" and not second
    run.put("parallel.strategy", "ddp" if whole else "fsdp", like="_launcher.use_fsdp" if "_launcher.use_fsdp" in run.origins
            else "_launcher.kind")  # fmt: skip
    if whole:
        return
    _flat(run, second=second)
    _wrapped(run)
    run.put("parallel.reshard", how not in (False, "shard_grad_op", "hybrid_shard_zero2"), like=said)
    if str(how).startswith("hybrid"):
        run.put("parallel.shard", max(1, gpus // int(run.get("parallel.nodes", 1))), like=said)
    precision = run.get("_launcher.mixed_precision", "no")
    if precision != "no":  # FullyShardedDataParallelPlugin.set_mixed_precision: one dtype for parameters and their reduction
        for path in ("parallel.compute", "parallel.reduce"):
            run.put(path, "fp16" if precision == "fp16" else "bf16", like="_launcher.mixed_precision")
    if run.get("_launcher.offload_params"):
        run.put("offload.parameters", True, like="_launcher.offload_params")


#: Arguments of FSDP 1, and what `accelerate launch` passes on without them (commands/launch.py; NO_PREFETCH: the plugin's own).
FLAT = {"backward_prefetch": "none", "forward_prefetch": False, "use_orig_params": True}


def _flat(run: Draft, *, second: bool) -> None:
    """The version of FSDP, accelerate's first unless it is told, and what only that one heeds."""
    settings = {"fsdp_version": ("version", 1), **({} if second else {name: (name, value) for name, value in FLAT.items()})}
    for name, (own, default) in settings.items():
        if f"parallel.{name}" in run.settled:
            continue
        if f"_launcher.{own}" in run.settled:
            run.put(f"parallel.{name}", run.get(f"_launcher.{own}"), like=f"_launcher.{own}")
        else:
            run.assume(f"parallel.{name}", default, f"{ACCELERATE}: --fsdp_{own}")


def _wrapped(run: Draft) -> None:
    """Without a policy the whole network is one unit (FullyShardedDataParallelPlugin: NO_WRAP), in either version."""
    path = "_launcher.auto_wrap_policy"
    if path in run.settled:
        run.put("parallel.wrap", run.get(path), like=path)
    elif "parallel.wrap" not in run.settled:
        run.assume("parallel.wrap", "whole", f"{ACCELERATE}: --fsdp_auto_wrap_policy")
    if run.get("parallel.wrap") == "whole":
        message = "without a wrap policy FSDP gathers the whole network at once, on every GPU, and its gradients as well."
        at = path if path in run.settled else "parallel.strategy"
        run.note("warning", "wrapped-whole", message, at=at, fix="set fsdp_auto_wrap_policy to TRANSFORMER_BASED_WRAP")


STRATEGIES: Mapping[str, Callable[[Draft, int, bool], None]] = {"deepspeed": _deepspeed, "fsdp": _fsdp_strategy}


def _named(document: Document, *keys: str) -> str | None:
    """The text at `keys` of the data, whichever way its flags are spelt."""
    place: Any = document.data
    for key in keys:
        known = place if isinstance(place, Mapping) else {}
        plain = key.lstrip("-").replace("-", "_")
        place = next((value for name, value in known.items() if str(name).lstrip("-").replace("-", "_") == plain), None)
    return place if isinstance(place, str) else None


def _missing(document: Document, path: str, key: str) -> Finding:
    message = f"{path} is not there, so what it says of the launch is not known; accelerate's and DeepSpeed's defaults are taken."
    return document.finding("file-not-read", "warning", message, key=key)
