"""Keys of accelerate's and DeepSpeed's files that change no memory that is counted.

Of accelerate: ClusterConfig (commands/config/config_args.py); of DeepSpeed: docs/_pages/config-json.md and DeepSpeedZeroConfig.
"""

from __future__ import annotations

#: What stands beside the trainer's own flags: the launcher's, and the files that it names.
FILES = ("launcher", "accelerate", "deepspeed_config")

_ACCELERATE = (
    "compute_environment", "debug", "downcast_bf16", "enable_cpu_affinity", "machine_rank", "main_process_ip", "main_process_port",
    "main_training_function", "rdzv_backend", "same_network", "tpu_*", "use_cpu", "command_file", "commands", "dynamo_backend",
    "fp16", "fp8_config", "dynamo_config", "megatron_lm_config", "mpirun_config", "deepspeed_config.*", "fsdp_config.*",
    "parallelism_config.*",
)  # fmt: skip
_DEEPSPEED = (
    "activation_checkpointing", "aio", "amp", "autotuning", "checkpoint", "comms_logger", "communication_data_type", "comet",
    "compression_training", "csv_monitor", "curriculum_learning", "data_efficiency", "data_types", "dump_state", "elasticity",
    "flops_profiler", "gradient_allreduce_op", "gradient_clipping", "gradient_predivide_factor", "optimizer", "prescale_gradients",
    "scheduler", "seq_parallel_communication_data_type", "sparse_attention", "sparse_gradients", "steps_per_print", "tensorboard",
    "train_batch_size", "torch_autocast", "timers", "wall_clock_breakdown", "wandb",
    "zero_force_ds_cpu_optimizer", "memory_breakdown", "bf16.*", "fp16.*", "use_data_before_expert_parallel_",
)  # fmt: skip
_ZERO = (
    "allgather_bucket_size", "allgather_partitions", "elastic_checkpoint", "ignore_unused_parameters", "legacy_stage1",
    "load_from_fp32_weights", "memory_efficient_linear", "mics_*", "round_robin_gradients", "stage3_*", "zero_*", "zeropp_*",
    "use_multi_rank_bucket_allreduce", "offload_optimizer.*", "offload_param.*", "leaf_module", "log_trace_cache_warnings",
    "override_module_apply", "pipeline_loading_checkpoint", "cpu_offload_use_pin_memory",
)  # fmt: skip

NO_EFFECT = (
    "launcher.*",
    *(f"accelerate.{key}" for key in _ACCELERATE),
    *(f"deepspeed_config.{key}" for key in _DEEPSPEED),
    *(f"deepspeed_config.zero_optimization.{key}" for key in _ZERO),
)
