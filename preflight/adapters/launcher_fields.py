"""The flags of `accelerate launch`, `torchrun` and `deepspeed`, and the keys of accelerate's and DeepSpeed's files.

Names and defaults are accelerate's (1.15: commands/launch.py, commands/config/config_args.py, utils/dataclasses.py), torch's
(distributed/run.py) and DeepSpeed's (launcher/runner.py, runtime/config.py, runtime/zero/config.py and offload_config.py).
"""

from __future__ import annotations

from typing import Any

from preflight.adapters.conversions import RANKS, STEPS, choice, flag, whole
from preflight.adapters.launcher_values import devices, gpu_ids, nodes, quantity, unless_auto
from preflight.adapters.table import Field

#: The files' names in the data of a launch.
CONFIG, DEEPSPEED = "accelerate", "deepspeed_config"
PRECISIONS = {"no": "no", "fp16": "fp16", "bf16": "bf16", "fp8": "fp8"}
DEVICES = {"none": False, "cpu": True, "nvme": True}
KINDS = {name: name for name in ("no", "multi_gpu", "deepspeed", "fsdp", "multi_cpu", "megatron_lm", "xla", "tpu", "multi_npu")}
#: torch's names, and the numbers that accelerate counts them by from 1 (utils/constants.py: FSDP_SHARDING_STRATEGY).
SHARDING = {
    "1": "full_shard", "2": "shard_grad_op", "3": "no_shard", "4": "hybrid_shard", "5": "hybrid_shard_zero2",
    **{name: name for name in ("full_shard", "shard_grad_op", "no_shard", "hybrid_shard", "hybrid_shard_zero2")},
}  # fmt: skip
#: The same of its prefetch policies (FSDP_BACKWARD_PREFETCH).
PREFETCH = {"backward_pre": "pre", "backward_post": "post", "no_prefetch": "none", "1": "pre", "2": "post"}

#: Its wrap policies (FSDP_AUTO_WRAP_POLICY), by the units that they make.
WRAP = {"transformer_based_wrap": "blocks", "size_based_wrap": "blocks", "no_wrap": "whole"}

PROCESSES, STAGE = whole(1, RANKS), choice("a ZeRO stage", {"0": 0, "1": 1, "2": 2, "3": 3})


def _setting(name: str, convert: Any, *keys: str, group: str = "") -> tuple[Field, ...]:
    """An accelerate setting: as a flag, which decides, and in the file, there in `group` where it belongs to one."""
    flags = tuple(f"launcher.{key}" for key in keys)
    written = tuple(f"{CONFIG}.{group}{key}" for key in keys)
    return (
        Field(path=f"_launcher.{name}", keys=flags, convert=convert, precedence=1),
        Field(path=f"_launcher.{name}", keys=written, convert=convert),
    )


def _fsdp(name: str, convert: Any) -> tuple[Field, ...]:
    """A setting of FSDP, whose prefix may be left out in the file."""
    flagged, written = _setting(name, convert, f"fsdp_{name}", group="fsdp_config.")
    short = Field(path=written.path, keys=(f"{CONFIG}.fsdp_config.{name}",), convert=convert)
    return flagged, written, short


def _zero(name: str, key: str, convert: Any) -> Field:
    return Field(path=f"_deepspeed.{name}", keys=(f"{DEEPSPEED}.{key}",), convert=unless_auto(convert))


FIELDS: tuple[Field, ...] = (
    *_setting("processes", PROCESSES, "num_processes"),
    *_setting("machines", PROCESSES, "num_machines"),
    *_setting("gpu_ids", gpu_ids(), "gpu_ids"),
    *_setting("mixed_precision", choice("a precision", PRECISIONS), "mixed_precision"),
    Field(path="_launcher.kind", keys=(f"{CONFIG}.distributed_type",), convert=choice("a distributed type", KINDS)),
    Field(path="_launcher.multi_gpu", keys=("launcher.multi_gpu",), convert=flag()),
    Field(path="_launcher.use_deepspeed", keys=("launcher.use_deepspeed",), convert=flag()),
    Field(path="_launcher.use_fsdp", keys=("launcher.use_fsdp",), convert=flag()),
    *_setting("zero_stage", STAGE, "zero_stage", group="deepspeed_config."),
    *_setting("offload_optimizer", choice("a device", DEVICES), "offload_optimizer_device", group="deepspeed_config."),
    *_setting("offload_parameters", choice("a device", DEVICES), "offload_param_device", group="deepspeed_config."),
    *_setting("zero_init", flag(), "zero3_init_flag", group="deepspeed_config."),
    *_setting("accumulation", unless_auto(whole(1, STEPS)), "gradient_accumulation_steps", group="deepspeed_config."),
    *_fsdp("version", choice("a version of FSDP", {"1": 1, "2": 2})),
    *_fsdp("sharding_strategy", choice("a sharding strategy", SHARDING)),
    *_fsdp("reshard_after_forward", choice("true, false or a sharding strategy", {"true": True, "false": False, "no": False,
                                                                                  **SHARDING})),
    *_fsdp("backward_prefetch", choice("a prefetch policy", PREFETCH)),
    *_fsdp("auto_wrap_policy", choice("a wrap policy", WRAP)),
    *_fsdp("forward_prefetch", flag()),
    *_fsdp("use_orig_params", flag()),
    *_fsdp("offload_params", flag()),
    *_fsdp("activation_checkpointing", flag()),
    *_setting("context_parallel", PROCESSES, "parallelism_config_cp_size", group="parallelism_config."),
    *_setting("sequence_parallel", PROCESSES, "parallelism_config_sp_size", group="parallelism_config."),
    *_setting("tensor_parallel", PROCESSES, "parallelism_config_tp_size", group="parallelism_config."),
    # torchrun and deepspeed, on each node
    Field(path="_launcher.per_node", keys=("launcher.nproc_per_node", "launcher.num_gpus", "launcher.num_accelerators"),
          convert=devices()),
    Field(path="_launcher.machines", keys=("launcher.nnodes", "launcher.num_nodes"), convert=nodes(), precedence=1),
    Field(path="_launcher.included", keys=("launcher.include", "launcher.i"), convert=gpu_ids(), precedence=1),
    # DeepSpeed's file
    _zero("stage", "zero_optimization.stage", STAGE),
    _zero("offload_optimizer", "zero_optimization.offload_optimizer.device", choice("a device", DEVICES)),
    _zero("offload_parameters", "zero_optimization.offload_param.device", choice("a device", DEVICES)),
    _zero("accumulation", "gradient_accumulation_steps", whole(1, STEPS)),
    _zero("batch", "train_micro_batch_size_per_gpu", whole()),
    _zero("bf16", "bf16.enabled", flag()),
    _zero("fp16", "fp16.enabled", flag()),
    _zero("zero.untested", "zero_allow_untested_optimizer", flag()),
    *(_zero(f"zero.{name}", f"zero_optimization.{name}", flag()) for name in
      ("contiguous_gradients", "reduce_scatter", "overlap_comm")),
    *(_zero(f"zero.{name}", f"zero_optimization.{key}", quantity()) for name, key in (
        ("reduce_bucket_size", "reduce_bucket_size"),
        ("sub_group_size", "sub_group_size"),
        ("prefetch_bucket_size", "stage3_prefetch_bucket_size"),
        ("param_persistence_threshold", "stage3_param_persistence_threshold"),
        ("max_live_parameters", "stage3_max_live_parameters"),
        ("max_reuse_distance", "stage3_max_reuse_distance"),
    )),
)  # fmt: skip
