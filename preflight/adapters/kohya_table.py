"""sd-scripts' flags as a table, and the keys of its data set's TOML.

Names and defaults are library/train_util.py, library/config_util.py and the scripts' setup_parser of github.com/kohya-ss/sd-scripts
(commit 48d368f).
"""

from __future__ import annotations

from preflight.adapters import config_flags, launcher
from preflight.adapters.conversions import COUNT, SIDE, choice, flag, flag_text, real, size, text, whole
from preflight.adapters.musubi_values import optimizers, pairs
from preflight.adapters.run_values import count, place
from preflight.adapters.table import Field

TRAINING = "library/train_util.py: add_training_arguments"
DATASET = "library/train_util.py: add_dataset_arguments"
NETWORK = "train_network.py: setup_parser"
TYPES = {"flux": "flux", "chroma": "chroma"}
PRECISIONS = {"no": "fp32", "bf16": "bf16", "fp16": "fp16"}
#: Settings of the data set that stand in its TOML, for all or for one, or are flags.
SIZES = ("enable_bucket", "min_bucket_reso", "max_bucket_reso", "bucket_reso_steps", "bucket_no_upscale")


def _data(key: str, own: str | None = None) -> tuple[str, ...]:
    return f"dataset.datasets.*.{key}", f"dataset.general.{key}", own or key


def _switch(path: str, key: str, source: str = TRAINING) -> Field:
    return Field(path=path, keys=(key,), convert=flag(), default=False, source=source)


FIELDS = (
    Field(path="paths.model", keys=("pretrained_model_name_or_path",), convert=place()),
    _switch("_v2", "v2", "library/train_util.py: add_sd_models_arguments"),
    Field(path="_model_type", keys=("model_type",), convert=choice("a model type", TYPES, exact=True), default="flux",
          source="library/flux_train_utils.py: add_flux_train_arguments"),
    Field(path="_module", keys=("network_module",), convert=text('a module such as "networks.lora"')),
    Field(path="train.lora.rank", keys=("network_dim",), convert=whole(1, SIDE), default=4,
          source="networks/lora.py: create_network"),
    Field(path="train.lora.alpha", keys=("network_alpha",), convert=real(0, 1e6), default=1, source=NETWORK),
    Field(path="train.lora.dropout", keys=("network_dropout",), convert=real(0, 1), default=0.0, source=NETWORK),
    Field(path="_network_args", keys=("network_args",), convert=pairs()),
    Field(path="_dim_from_weights", keys=("dim_from_weights",), convert=flag()),
    _switch("_unet_only", "network_train_unet_only", NETWORK),
    _switch("_text_only", "network_train_text_encoder_only", NETWORK),
    _switch("_train_text", "train_text_encoder", "sdxl_train.py, fine_tune.py: setup_parser"),
    Field(path=("train.optimizer.name", "train.optimizer.bits"), keys=("optimizer_type",), convert=optimizers()),
    _switch("_8bit_adam", "use_8bit_adam", "library/train_util.py: add_optimizer_arguments"),
    _switch("_lion", "use_lion_optimizer", "library/train_util.py: add_optimizer_arguments"),
    Field(path="_optimizer_args", keys=("optimizer_args",), convert=pairs()),
    _switch("_fused_backward", "fused_backward_pass"),
    _switch("_blockwise", "blockwise_fused_optimizers", "flux_train.py, sd3_train.py: setup_parser"),
    Field(path="_groups", keys=("fused_optimizer_groups",), convert=whole(1, 1000)),
    _switch("train.checkpointing", "gradient_checkpointing"),
    _switch("_checkpoints_offloaded", "cpu_offload_checkpointing", NETWORK),
    Field(path="train.accumulation", keys=("gradient_accumulation_steps",), convert=whole(), default=1, source=TRAINING),
    Field(path="_mixed_precision", keys=("mixed_precision",), convert=choice("a precision", PRECISIONS, exact=True), default="fp32",
          source=f"{TRAINING}: --mixed_precision no"),
    _switch("_full_fp16", "full_fp16"),
    _switch("_full_bf16", "full_bf16"),
    _switch("_fp8", "fp8_base"),
    _switch("_fp8_unet", "fp8_base_unet", NETWORK),
    _switch("_no_half_vae", "no_half_vae", NETWORK),
    Field(path="offload.blocks", keys=("blocks_to_swap",), convert=whole(0, 1000), default=0,
          source="library/train_util.py: add_dit_training_arguments"),
    _switch("_split_mode", "split_mode", "flux_train_network.py: setup_parser"),
    _switch("_sdpa", "sdpa"),
    _switch("_xformers", "xformers"),
    _switch("_mem_eff_attn", "mem_eff_attn"),
    _switch("_latents_cached", "cache_latents", DATASET),
    _switch("_latents_on_disk", "cache_latents_to_disk", DATASET),
    _switch("_text_cached", "cache_text_encoder_outputs", "library/train_util.py: add_dit_training_arguments"),
    _switch("_text_on_disk", "cache_text_encoder_outputs_to_disk", "library/train_util.py: add_dit_training_arguments"),
    Field(path="_tokens", keys=("max_token_length",), convert=whole(1, SIDE)),
    Field(path="_t5_tokens", keys=("t5xxl_max_token_length",), convert=whole(1, SIDE)),
    Field(path=("_width", "_height"), keys=_data("resolution"), convert=size("wh", square=True), among="largest"),
    Field(path="_batch", keys=_data("batch_size", "train_batch_size"), convert=whole(), among="largest"),
    *(Field(path=f"_{key}", keys=_data(key), convert=flag() if key in ("enable_bucket", "bucket_no_upscale") else whole(1, SIDE),
            among="first") for key in SIZES),
    Field(path="_vae_batch", keys=_data("vae_batch_size"), convert=whole(), default=1, source=DATASET, among="first"),
    Field(path="paths.train", keys=("dataset.datasets.*.subsets.*.image_dir", "train_data_dir"), convert=place(), among="first"),
    Field(path="data.workers", keys=("max_data_loader_n_workers",), convert=flag_text(count(0, COUNT)), default=8, source=TRAINING),
    _switch("_deepspeed", "deepspeed", "library/deepspeed_utils.py"),
    Field(path="_zero_stage", keys=("zero_stage",), convert=whole(0, 3), default=2, source="library/deepspeed_utils.py"),
    Field(path="_optimizer_device", keys=("offload_optimizer_device",), convert=text("a device")),
    Field(path="_param_device", keys=("offload_param_device",), convert=text("a device")),
    Field(path="save.optimizer", keys=("save_state",), convert=flag(), default=False, source=TRAINING),
    *config_flags.RUN,
    *launcher.FIELDS,
)  # fmt: skip

_SUBSET = (
    "num_repeats", "shuffle_caption", "caption_separator", "keep_tokens", "keep_tokens_separator", "secondary_separator",
    "enable_wildcard", "color_aug", "flip_aug", "face_crop_aug_range", "random_crop", "caption_prefix", "caption_suffix",
    "caption_dropout_rate", "caption_dropout_every_n_epochs", "caption_tag_dropout_rate", "token_warmup_min", "token_warmup_step",
    "custom_attributes", "validation_seed", "validation_split", "resize_interpolation", "is_reg", "class_tokens",
    "caption_extension", "cache_info", "alpha_mask", "metadata_file", "conditioning_data_dir",
)  # fmt: skip
#: Read by the trainer without effect on the memory of a step.
NO_EFFECT = (
    "config_file", "dataset_config", "output_config", "tokenizer_cache_dir", "v_parameterization", "output_name", "huggingface_*",
    "save_state_to_huggingface", "resume_from_huggingface", "async_upload", "save_precision", "save_n_epoch_ratio",
    "save_last_n_epochs_state", "save_last_n_steps_state", "save_state_on_train_end", "torch_compile", "dynamo_backend", "vae",
    "persistent_data_loader_workers", "seed", "ddp_*", "clip_skip", "logging_dir", "log_with", "log_prefix", "log_tracker_name",
    "wandb_run_name", "log_tracker_config", "wandb_api_key", "log_config", "noise_offset", "noise_offset_random_strength",
    "multires_noise_*", "ip_noise_gamma", "ip_noise_gamma_random_strength", "perlin_noise", "adaptive_noise_scale",
    "zero_terminal_snr", "min_timestep", "max_timestep", "loss_type", "huber_*", "lowram", "highvram", "sample_at_first",
    "sample_sampler", "prior_loss_weight", "learning_rate", "learning_rate_te*", "unet_lr", "text_encoder_lr", "max_grad_norm",
    "optimizer_schedulefree_wrapper", "schedulefree_wrapper_args", "lr_scheduler", "lr_scheduler_*", "lr_decay_steps", "block_lr",
    "text_encoder_batch_size", "disable_mmap_load_safetensors", "weighting_scheme", "logit_mean", "logit_std", "mode_scale",
    "reg_data_dir", "in_json", "skip_cache_check", "skip_latents_validity_check", "debug_dataset",
    "dataset_repeats", "dataset_class", "caption_extention", "save_model_as", "use_safetensors", "no_metadata", "training_comment",
    "scale_weight_norms", "base_weights", "base_weights_multiplier", "skip_until_initial_step", "initial_epoch", "initial_step",
    "validate_every_n_steps", "validate_every_n_epochs", "max_validation_steps", "min_snr_gamma",
    "scale_v_pred_loss_like_noise_pred",
    "v_pred_like_loss", "debiased_estimation_loss", "weighted_captions", "masked_loss", "conditioning_data_dir", "metadata_*",
    "diffusers_xformers", "clip_l", "clip_g", "t5xxl", "ae", "gemma2", "qwen_image_vae", "controlnet_model_name_or_path",
    "apply_t5_attn_mask", "apply_lg_attn_mask", "guidance_scale", "timestep_sampling", "sigmoid_scale", "model_prediction_type",
    "discrete_flow_shift", "mem_eff_save", "double_blocks_to_swap", "single_blocks_to_swap", "train_t5xxl",
    "use_t5xxl_cache_only", "num_last_block_to_freeze", "save_clip", "save_t5xxl", "t5xxl_device", "t5xxl_dtype",
    "clip_l_dropout_rate", "clip_g_dropout_rate", "t5_dropout_rate", "pos_emb_random_crop_rate", "enable_scaled_pos_embed",
    "training_shift", "no_token_padding", "stop_text_encoder_training", "offload_optimizer_nvme_path", "offload_param_nvme_path",
    "zero3_init_flag", "zero3_save_16bit_model", "fp16_master_weights_and_gradients", "console_log_level", "console_log_file",
    "console_log_simple", "use_flash_attn", "use_sage_attn", "system_prompt", "gemma2_max_token_length",
    *(key for name in _SUBSET for key in (*_data(name), f"dataset.datasets.*.subsets.*.{name}")),
    "dataset.datasets.*.network_multiplier", "dataset.datasets.*.prior_loss_weight",
)  # fmt: skip

TABLE = config_flags.table(unread="{key} is not read by this script of sd-scripts", fields=FIELDS, no_effect=NO_EFFECT)
