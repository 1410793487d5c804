"""diffusion-pipe's two TOML files as a table: train.py, models/base.py and utils/dataset.py (commit 8f83dbf)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from preflight.adapters.conversions import RANKS, SIDE, STEPS, choice, flag, real, whole
from preflight.adapters.diffusion_pipe_values import (
    buckets,
    checkpoints,
    frames,
    optimizers,
    per_size,
    ranks,
    ratios,
    sides,
    stages,
    types,
)
from preflight.adapters.run_values import count, place
from preflight.adapters.table import HARDWARE, Field, Table
from preflight.document import Document

TRAIN = "train.py: set_config_defaults"
#: What the trainer's own examples/dataset.toml says, for a data set file that is not here.
EXAMPLE: Mapping[str, Any] = {
    "resolutions": [512],
    "enable_ar_bucket": True,
    "min_ar": 0.5,
    "max_ar": 2.0,
    "num_ar_buckets": 7,
    "frame_buckets": [1, 33],
}
#: What may be given with --set where that file is not there.
DATA = (*EXAMPLE, "size_buckets", "ar_buckets")
#: utils/common.py: DTYPE_MAP, and models/hidream.py's nf4.
WIDE = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}
DTYPES = {**WIDE, "float8": "fp8", "float8_e4m3fn": "fp8", "float8_e5m2": "fp8", "nf4": "nf4"}
PARTITIONS = {name: name for name in ("parameters", "uniform", "manual")}
FILES = ("model.transformer_path", "model.diffusion_model", "model.single_file_path", "model.checkpoint_path", "model.ckpt_path",
         "model.diffusers_path")  # fmt: skip
RATIO = real(0.01, 100)


def _data(key: str) -> tuple[str, str]:
    """A setting of the data set, for all its directories and for one."""
    return f"dataset.{key}", f"dataset.directory.*.{key}"


FIELDS = (
    Field(path="_type", keys=("model.type",), convert=types()),
    Field(path="paths.model", keys=FILES, convert=place()),
    Field(path="_dtype", keys=("model.dtype",), convert=choice("a dtype", WIDE, exact=True)),
    Field(path="_stored", keys=("model.transformer_dtype", "model.diffusion_model_dtype"),
          convert=choice("a dtype", DTYPES, exact=True)),
    Field(path="_text_cached", keys=("model.cache_text_embeddings",), convert=flag(), default=True,
          source="train.py: config['model'].get('cache_text_embeddings', True)"),
    Field(path="data.text_tokens", keys=("model.max_sequence_length",), convert=whole(1, SIDE)),
    Field(path="_adapter", keys=("adapter.type",), convert=choice("an adapter", {"lora": "lora", "lokr": "lokr"}, exact=True)),
    Field(path="train.lora.rank", keys=("adapter.rank",), convert=ranks()),
    Field(path="_alpha", keys=("adapter.alpha",), convert=real(0, 1e6)),
    Field(path="train.lora.dropout", keys=("adapter.dropout",), convert=real(0, 1), default=0.0, source=TRAIN),
    Field(path="_adapter_dtype", keys=("adapter.dtype",), convert=choice("a dtype", WIDE, exact=True)),
    Field(path="_batch", keys=("micro_batch_size_per_gpu",), convert=per_size(), default=1,
          source="train.py: config.get('micro_batch_size_per_gpu', 1)"),
    Field(path="_image_batch", keys=("image_micro_batch_size_per_gpu",), convert=per_size()),
    Field(path="_eval_batch", keys=("eval_micro_batch_size_per_gpu",), convert=per_size()),
    Field(path="train.accumulation", keys=("gradient_accumulation_steps",), convert=whole(), default=1,
          source="train.py: ds_config"),
    Field(path=("train.checkpointing", "offload.activations"), keys=("activation_checkpointing",), convert=checkpoints(),
          default=(False, False), source=TRAIN),
    Field(path="train.use_reentrant", keys=("reentrant_activation_checkpointing",), convert=flag(), default=False, source=TRAIN),
    Field(path="offload.blocks", keys=("blocks_to_swap",), convert=whole(0, 1000), default=0,
          source="train.py: config.get('blocks_to_swap', 0)"),
    Field(path="parallel.pipeline", keys=("pipeline_stages",), convert=whole(1, RANKS), default=1, source=TRAIN),
    Field(path="_partition", keys=("partition_method",), convert=choice("a way to divide", PARTITIONS, exact=True),
          default="parameters", source="train.py: config.get('partition_method', 'parameters')"),
    Field(path="_split", keys=("partition_split",), convert=stages()),
    Field(path=("train.optimizer.name", "train.optimizer.bits"), keys=("optimizer.type",), convert=optimizers()),
    Field(path="_momentum", keys=("optimizer.momentum",), convert=real(0, 1), default=0.0, source="torch.optim.SGD"),
    Field(path="_release", keys=("optimizer.gradient_release",), convert=flag(), default=False, source="train.py: get_optimizer"),
    Field(path="_bucket_side", keys=_data("resolutions"), convert=sides(), among="largest"),
    Field(path="_bucket_frames", keys=_data("frame_buckets"), convert=frames(), among="largest"),
    Field(path=("_bucket_width", "_bucket_height", "_bucket_length"), keys=_data("size_buckets"), convert=buckets(),
          among="largest"),
    Field(path="_ratios", keys=_data("enable_ar_bucket"), convert=flag(), among="first"),
    Field(path="_ratio_list", keys=_data("ar_buckets"), convert=ratios(), among="first"),
    Field(path="_lowest_ratio", keys=_data("min_ar"), convert=RATIO, among="first"),
    Field(path="_highest_ratio", keys=_data("max_ar"), convert=RATIO, among="first"),
    Field(path="_ratio_steps", keys=_data("num_ar_buckets"), convert=whole(1, 1000), among="first"),
    Field(path="_control", keys=("dataset.directory.*.control_path",), convert=place(), among="first"),
    Field(path="paths.train", keys=("dataset.directory.*.path", "dataset"), convert=place(), among="first"),
    Field(path="parallel.gpus", keys=("hardware.gpus",), convert=whole(1, RANKS)),
    Field(path="save.every", keys=("save_every_n_steps",), convert=count()),
    Field(path="save.every_epochs", keys=("save_every_n_epochs",), convert=count()),
    Field(path="_save_examples", keys=("save_every_n_examples",), convert=count()),
    Field(path="_checkpoints", keys=("checkpoint_every_n_epochs",), convert=count()),
    Field(path="schedule.epochs", keys=("epochs",), convert=count()),
    Field(path="schedule.steps", keys=("max_steps",), convert=count(1, STEPS)),
    Field(path="schedule.warmup", keys=("warmup_steps",), convert=count(0)),
    Field(path="paths.output", keys=("output_dir",), convert=place()),
    *HARDWARE,
)  # fmt: skip

#: Read by the trainer without effect on the memory of a step.
NO_EFFECT = (
    "eval_datasets", "eval_datasets.*", "eval_every_n_epochs", "eval_every_n_steps", "eval_every_n_examples",
    "eval_before_first_step", "eval_gradient_accumulation_steps", "eval_image_micro_batch_size_per_gpu",
    "disable_block_swap_for_eval", "checkpoint_every_n_minutes", "gradient_clipping", "force_constant_lr", "lr_scheduler",
    "pseudo_huber_c", "huber_delta", "smooth_l1_beta", "save_dtype", "caching_batch_size", "map_num_proc", "compile",
    "steps_per_print", "logging_steps", "video_clip_mode", "x_axis_examples", "uncond_fraction", "resume_from_checkpoint",
    "regenerate_cache", "monitoring", "monitoring.*",
    "model.llm_path", "model.vae", "model.vae_path", "model.clip_path", "model.t5_path", "model.byt5_path", "model.llama3_path",
    "model.llama3_4bit", "model.audio_vae", "model.text_encoder", "model.text_encoder_*", "model.text_encoders",
    "model.text_encoders.*", "model.merge_adapters", "model.min_t", "model.max_t", "model.shift", "model.image_shift",
    "model.flux_shift", "model.lumina_shift", "model.timestep_sample_method", "model.sigmoid_scale", "model.guidance", "model.cfg",
    "model.v_pred", "model.min_snr_gamma", "model.debiased_estimation_loss", "model.*_lr", "model.bypass_guidance_embedding",
    "model.max_llama3_sequence_length", "model.llm_adapter_path", "model.multiscale_loss_weight",
    "model.first_frame_conditioning_p", "adapter.init_from_existing", "adapter.fuse_adapters", "adapter.fuse_adapters.*",
    "adapter.decompose_factor", "adapter.rank_dropout", "adapter.exclude_modules", "adapter.only_double_blocks", "optimizer.*",
    *(key for name in ("num_repeats", "cache_shuffle_num", "cache_shuffle_delimiter", "skip_empty_caption",
                       "shuffle_tags", "shuffle_metadata", "caption_prefix", "online_captions") for key in _data(name)),
    "dataset.subsample_ratio", "dataset.directory.*.mask_path", "dataset.directory.*.default_mask_file",
)  # fmt: skip


def _prefer(key: str, document: Document) -> str:
    """A key of the data set stands in its own file, and beside the others where that is not there."""
    return key if "dataset" in document.included else key.removeprefix("dataset.")


TABLE = Table(
    unread="{key} is not read by diffusion-pipe, so it changes nothing",
    fields=FIELDS,
    no_effect=NO_EFFECT,
    prefer=_prefer,
    sections=frozenset({"dataset"}),
    locate=lambda parts: ("dataset", *parts) if len(parts) == 1 and parts[0] in DATA else parts,
)
