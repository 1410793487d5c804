"""musubi-tuner's flags as a table, and the keys of its data set's TOML.

Names and defaults are training/parser_common.py, the *_setup_parser functions of the scripts and dataset/config_utils.py of
github.com/kohya-ss/musubi-tuner (commit 30c658c).
"""

from __future__ import annotations

from preflight.adapters import config_flags, launcher
from preflight.adapters.conversions import COUNT, SIDE, choice, flag, flag_text, real, size, text, whole
from preflight.adapters.diffusion_pipe_values import frames
from preflight.adapters.musubi_kinds import TASKS
from preflight.adapters.musubi_values import optimizers, pairs
from preflight.adapters.run_values import count, place
from preflight.adapters.table import Field

COMMON = "training/parser_common.py"
DATASET = "dataset/config_utils.py: BaseDatasetParams"
EXAMPLE = "docs/dataset_config.md: the example, as the data set's own file is not there"
PRECISIONS = {"no": "fp32", "bf16": "bf16", "fp16": "fp16"}
DTYPES = {"bfloat16": "bf16", "bf16": "bf16", "float16": "fp16", "fp16": "fp16", "float32": "fp32", "float": "fp32"}


def _data(key: str) -> tuple[str, str]:
    return f"dataset.datasets.*.{key}", f"dataset.general.{key}"


def _switch(path: str, key: str, source: str = COMMON) -> Field:
    return Field(path=path, keys=(key,), convert=flag(), default=False, source=source)


FIELDS = (
    Field(path="_task", keys=("task",), convert=text(f"one of {', '.join(TASKS)}")),
    Field(path="_version", keys=("model_version",), convert=text("a version of the model")),
    _switch("_edit", "edit", "qwen_image/qwen_image_utils.py"),
    _switch("_edit_plus", "edit_plus", "qwen_image/qwen_image_utils.py"),
    Field(path="paths.model", keys=("dit",), convert=place()),
    Field(path="_high_noise", keys=("dit_high_noise",), convert=place()),
    _switch("_offload_inactive", "offload_inactive_dit", "wan_train_network.py"),
    _switch("_one_time", "force_v2_1_time_embedding", "wan_train_network.py"),
    Field(path="_module", keys=("network_module",), convert=text('a module such as "networks.lora_wan"')),
    Field(path="train.lora.rank", keys=("network_dim",), convert=whole(1, SIDE), default=4,
          source="networks/lora.py: create_network"),
    Field(path="train.lora.alpha", keys=("network_alpha",), convert=real(0, 1e6), default=1, source=COMMON),
    Field(path="train.lora.dropout", keys=("network_dropout",), convert=real(0, 1), default=0.0, source=COMMON),
    Field(path="_network_args", keys=("network_args",), convert=pairs()),
    Field(path="_dim_from_weights", keys=("dim_from_weights",), convert=flag()),
    Field(path=("train.optimizer.name", "train.optimizer.bits"), keys=("optimizer_type",), convert=optimizers()),
    Field(path="_optimizer_args", keys=("optimizer_args",), convert=pairs()),
    _switch("train.checkpointing", "gradient_checkpointing"),
    _switch("_checkpoints_offloaded", "gradient_checkpointing_cpu_offload"),
    Field(path="train.accumulation", keys=("gradient_accumulation_steps",), convert=whole(), default=1, source=COMMON),
    Field(path="_mixed_precision", keys=("mixed_precision",), convert=choice("a precision", PRECISIONS, exact=True)),
    Field(path="_dit_dtype", keys=("dit_dtype",), convert=choice("a dtype", DTYPES, exact=True)),
    Field(path="_vae_dtype", keys=("vae_dtype",), convert=choice("a dtype", DTYPES, exact=True)),
    _switch("_fp8", "fp8_base"),
    _switch("_fp8_scaled", "fp8_scaled"),
    _switch("_full_bf16", "full_bf16", "qwen_image_train.py, zimage_train.py"),
    _switch("_fused_backward", "fused_backward_pass", "qwen_image_train.py, zimage_train.py"),
    Field(path="precision.tf32", keys=("cuda_allow_tf32",), convert=flag()),
    Field(path="offload.blocks", keys=("blocks_to_swap",), convert=whole(0, 1000), default=0, source=COMMON),
    _switch("_sdpa", "sdpa"),
    _switch("_flash", "flash_attn"),
    _switch("_sage", "sage_attn"),
    _switch("_xformers", "xformers"),
    _switch("_flash3", "flash3"),
    _switch("_split", "split_attn"),
    Field(path=("_width", "_height"), keys=_data("resolution"), convert=size("wh", square=True), among="largest"),
    Field(path="_buckets", keys=_data("enable_bucket"), convert=flag(), among="first"),
    Field(path="_batch", keys=_data("batch_size"), convert=whole(), among="largest"),
    Field(path="_frames", keys=("dataset.datasets.*.target_frames",), convert=frames(), among="largest"),
    Field(path="_extraction", keys=("dataset.datasets.*.frame_extraction",), convert=text("a way to cut frames"), among="first"),
    Field(path="_longest", keys=("dataset.datasets.*.max_frames",), convert=whole(1, SIDE), among="largest"),
    Field(path="_control", keys=("dataset.datasets.*.control_directory",), convert=place(), among="first"),
    Field(path="paths.train", keys=tuple(f"dataset.datasets.*.{key}" for key in
          ("video_directory", "image_directory", "video_jsonl_file", "image_jsonl_file")), convert=place(), among="first"),
    Field(path="data.workers", keys=("max_data_loader_n_workers",), convert=flag_text(count(0, COUNT)), default=8, source=COMMON),
    Field(path="save.optimizer", keys=("save_state",), convert=flag(), default=False, source=COMMON),
    *config_flags.RUN,
    *launcher.FIELDS,
)  # fmt: skip

#: Read by the trainer without effect on the memory of a step.
NO_EFFECT = (
    "config_file", "dataset_config", "compile", "compile_*", "cuda_cudnn_benchmark", "dynamo_*", "persistent_data_loader_workers",
    "seed", "save_precision", "logging_dir", "log_with", "log_prefix", "log_tracker_name", "wandb_run_name", "log_tracker_config",
    "wandb_api_key", "log_config", "ddp_*", "sample_at_first", "learning_rate", "max_grad_norm", "lr_scheduler", "lr_scheduler_*",
    "lr_decay_steps", "use_pinned_memory_for_block_swap", "block_swap_h2d_only", "block_swap_ring_size", "img_in_txt_in_offloading",
    "disable_numpy_memmap", "guidance_scale", "timestep_sampling", "discrete_flow_shift", "sigmoid_scale", "weighting_scheme",
    "logit_mean", "logit_std", "mode_scale", "min_timestep", "max_timestep", "preserve_distribution_shape", "num_timestep_buckets",
    "show_timesteps", "no_metadata", "training_comment", "scale_weight_norms", "base_weights", "base_weights_multiplier",
    "output_name", "save_last_n_epochs_state", "save_last_n_steps_state", "save_state_on_train_end", "metadata_*", "huggingface_*",
    "save_state_to_huggingface", "resume_from_huggingface", "async_upload", "vae", "t5", "fp8_t5", "clip", "vae_cache_cpu",
    "one_frame", "timestep_boundary", "dit_in_channels", "fp8_llm", "text_encoder", "text_encoder1", "text_encoder2",
    "text_encoder_dtype", "vae_tiling", "vae_chunk_size", "vae_spatial_tile_sample_min_size", "fp8_vl", "byt5", "image_encoder",
    "vae_sample_size", "vae_enable_patch_conv", "latent_window_size", "bulk_decode", "f1", "fp8_text_encoder", "num_layers",
    "remove_first_image_from_target", "use_32bit_attention", "mem_eff_save", "block_swap_optimizer_patch_params",
    "trainable_modules", "full_fp16", "turbo_dit", "turbo_dit_cache", "debug_dataset",
    *(key for name in ("bucket_no_upscale", "caption_extension", "num_repeats") for key in _data(name)),
    *(f"dataset.datasets.*.{name}" for name in (
        "cache_directory", "multiple_target", "fp_latent_window_size", "fp_1f_clean_indices", "fp_1f_target_index", "fp_1f_no_post",
        "no_resize_control", "control_resolution", "frame_stride", "frame_sample", "source_fps")),
)  # fmt: skip

TABLE = config_flags.table(unread="{key} is not read by this script of musubi-tuner", fields=FIELDS, no_effect=NO_EFFECT)
