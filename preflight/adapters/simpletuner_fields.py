"""SimpleTuner's options that decide memory, and those that a run is described by.

Defaults are those of simpletuner_sdk/server/services/field_registry/sections in github.com/bghira/SimpleTuner (commit bc8e6ab).
"""

from __future__ import annotations

import json
import re
from typing import Any

from preflight.adapters import launcher
from preflight.adapters.conversions import (
    COUNT,
    RANKS,
    SIDE,
    SILENT,
    STEPS,
    Conversion,
    RefusedError,
    choice,
    flag,
    flag_text,
    real,
    size,
    text,
    whole,
)
from preflight.adapters.run_values import ANYTHING, count, place
from preflight.adapters.table import HARDWARE, Field

TRAINING, MODEL, LORA = "sections/training.py", "sections/model.py", "sections/lora.py"
ADVANCED, DATA, VALIDATION, LOGGING = (
    "sections/advanced.py",
    "sections/data.py",
    "sections/validation.py",
    "sections/logging_fields.py",
)

MIXED = {"bf16": "bf16", "no": "no", "fp16": "fp16", "fp8": "fp8"}
BACKENDS = {name: name for name in ("torch", "unsloth", "torch-ffn", "unsloth-ffn")}
DTYPES = {"bf16": "bf16", "fp32": "fp32", "fp16": "fp16", "default": "default"}
RESOLUTIONS = {name: name for name in ("pixel_area", "pixel", "area")}
ADAPTERS = {"standard": "standard", "lycoris": "lycoris"}


def anything() -> Conversion:
    """A value that other functions look at."""
    return Conversion(name="anything", read=lambda value: value, write=lambda _value, _raw: SILENT, schema=ANYTHING)


def modules() -> Conversion:
    """`peft_lora_target_modules`: a list of names, or one as the text of a JSON list; a file says nothing here."""
    expected = 'module names such as ["to_k", "to_q", "to_v", "to_out.0"]'

    def read(value: Any) -> Any:
        if isinstance(value, str) and not value.lstrip().startswith("["):
            return SILENT
        try:
            names = json.loads(value) if isinstance(value, str) else value
        except ValueError:
            raise RefusedError(expected) from None
        if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
            raise RefusedError(expected)
        return list(dict.fromkeys(names))

    schema = {"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "string"}]}
    return Conversion(name="module names", read=read, write=lambda value, _: list(value), schema=schema)


def positive() -> Conversion:
    """An interval in steps or epochs, which 0 and below turn off."""
    inner = count(1, STEPS)

    def read(value: Any) -> Any:
        return SILENT if isinstance(value, int | float) and value <= 0 else inner.read(value)

    return Conversion(name="interval", read=read, write=lambda value, _: value, schema=ANYTHING)


def resolutions() -> Conversion:
    """`validation_resolution`: 1024, "832x480", or several with commas, of which the largest counts."""
    inner = size("wh", square=True)

    def read(value: Any) -> tuple[int, int]:
        parts = [part for part in value.split(",") if part.strip()] if isinstance(value, str) else [value]
        sizes = [inner.read(_number(part)) for part in parts] or [inner.read(value)]
        width, height = max(sizes, key=lambda sides: sides[0] * sides[1])
        return width, height

    def _number(part: Any) -> Any:
        """Up to 127 are thousands of pixels, and one of them 1024 (cmd_args.py: validation_resolution)."""
        if isinstance(part, str) and re.fullmatch(r"\s*\d+(\.0*)?\s*", part):
            part = int(float(part))
        if isinstance(part, float) and part.is_integer():
            part = int(part)
        if isinstance(part, int) and not isinstance(part, bool) and 0 < part < 128:
            return 1024 if part == 1 else part * 1000 // 8 * 8
        return part

    def write(value: tuple[int, int], _: Any) -> Any:
        return f"{value[0]}x{value[1]}"

    return Conversion(name="resolutions", read=read, write=write, schema={"type": ["string", "number"]})


EVERY = flag_text(positive())
FIELDS = (
    Field(path="_family", keys=("model_family",), convert=text('a family such as "wan"')),
    Field(path="_flavour", keys=("model_flavour",), convert=text('a flavour such as "t2v-480p-1.3b-2.1"')),
    Field(path="_name", keys=("pretrained_model_name_or_path",), convert=place()),
    Field(path="_type", keys=("model_type",), convert=choice("what to train", {"lora": "lora", "full": "full"}, exact=True),
          default="full", source=f"{MODEL}: model_type"),
    Field(path="_lora_type", keys=("lora_type",), convert=choice("an adapter's kind", ADAPTERS), default="standard",
          source=f"{LORA}: lora_type"),
    Field(path="train.lora.rank", keys=("lora_rank",), convert=whole(1, SIDE), default=16, source=f"{LORA}: lora_rank"),
    Field(path="train.lora.alpha", keys=("lora_alpha",), convert=real(0, 1e6)),
    Field(path="train.lora.dropout", keys=("lora_dropout",), convert=real(0, 1), default=0.1, source=f"{LORA}: lora_dropout"),
    Field(path="train.lora.targets", keys=("peft_lora_target_modules",), convert=modules()),
    Field(path="_flux_target", keys=("flux_lora_target",), convert=text("a set of layers such as all+ffs")),
    Field(path="_slider", keys=("slider_lora_target",), convert=flag()),
    Field(path="_dora", keys=("use_dora",), convert=flag()),
    Field(path="train.batch", keys=("train_batch_size",), convert=whole(), default=4, source=f"{TRAINING}: train_batch_size"),
    Field(path="train.accumulation", keys=("gradient_accumulation_steps",), convert=whole(1, STEPS), default=1,
          source=f"{TRAINING}: gradient_accumulation_steps"),
    Field(path="_checkpointing", keys=("gradient_checkpointing",), convert=flag(), default=True,
          source=f"{TRAINING}: gradient_checkpointing"),
    Field(path="_interval", keys=("gradient_checkpointing_interval",), convert=whole(1, COUNT)),
    Field(path="_stride", keys=("gradient_checkpointing_segment_stride",), convert=whole(1, COUNT)),
    Field(path="_backend", keys=("gradient_checkpointing_backend",), convert=choice("a way to checkpoint", BACKENDS),
          default="torch", source=f"{TRAINING}: gradient_checkpointing_backend"),
    Field(path="_attention_away", keys=("gradient_checkpointing_offload_attention",), convert=flag()),
    Field(path="train.optimizer.name", keys=("optimizer",), convert=text('an optimizer such as "adamw_bf16"'),
          default="adamw_bf16", source=f"{TRAINING}: optimizer"),
    Field(path="_optimizer_away", keys=("optimizer_cpu_offload_method",),
          convert=choice("a way to offload", {"torchao": True, "none": False})),
    Field(path="_none", keys=("set_grads_to_none",), convert=flag(), default=False, source=f"{ADVANCED}: set_grads_to_none"),
    Field(path="_ema", keys=("use_ema",), convert=flag(), default=False, source=f"{TRAINING}: use_ema"),
    Field(path="_ema_device", keys=("ema_device",), convert=choice("a device", {"accelerator": "gpu", "cpu": "cpu"}),
          default="cpu", source=f"{TRAINING}: ema_device"),
    Field(path="_ema_host", keys=("ema_cpu_only",), convert=flag()),
    Field(path="_mixed", keys=("mixed_precision",), convert=choice("a precision", MIXED), default="bf16",
          source=f"{ADVANCED}: mixed_precision"),
    Field(path="_base_dtype", keys=("base_model_default_dtype",), convert=choice("a dtype", DTYPES), default="bf16",
          source=f"{MODEL}: base_model_default_dtype"),
    Field(path="precision.quantization", keys=("base_model_precision",), convert=text('a precision such as "int8-quanto"'),
          default="no_change", source=f"{MODEL}: base_model_precision"),
    Field(path="_quantized_on", keys=("quantize_via",),
          convert=choice("a place", {"accelerator": "gpu", "cpu": "host", "pipeline": "host"}), default="gpu",
          source=f"{MODEL}: quantize_via"),
    *(Field(path=f"_text_precision.{number}", keys=(f"text_encoder_{number}_precision",),
            convert=text('a precision such as "int8-quanto"')) for number in (1, 2, 3, 4)),
    Field(path="precision.vae", keys=("vae_dtype",),
          convert=choice("a dtype", {"bf16": "bf16", "fp32": "fp32", "fp16": "fp16", "default": "bf16"}), default="bf16",
          source=f"{MODEL}: vae_dtype"),
    Field(path="_tf32_off", keys=("disable_tf32",), convert=flag()),
    Field(path="_attention", keys=("attention_mechanism",), convert=text('a mechanism such as "diffusers"')),
    Field(path="_resolution", keys=("resolution",), convert=real(0.01, SIDE), default=1024, source=f"{DATA}: resolution"),
    Field(path="_resolution_type", keys=("resolution_type",), convert=choice("a kind of resolution", RESOLUTIONS),
          default="pixel_area", source=f"{DATA}: resolution_type"),
    Field(path="_alignment", keys=("aspect_bucket_alignment",), convert=whole(1, 1024), default=64,
          source=f"{ADVANCED}: aspect_bucket_alignment"),
    Field(path="_clip", keys=("video.num_frames",), convert=whole(1, SIDE)),
    Field(path="_framerate", keys=("framerate",), convert=real(1, 1000)),
    Field(path="_vae_loaded", keys=("keep_vae_loaded",), convert=flag()),
    Field(path="_vae_ondemand", keys=("vae_cache_ondemand", "vae_cache_disable"), convert=flag()),
    Field(path="_text_ondemand", keys=("text_cache_ondemand", "text_cache_disable"), convert=flag()),
    Field(path="sample.tiling", keys=("vae_enable_tiling",), convert=flag(), default=False,
          source=f"{DATA}: vae_enable_tiling"),
    Field(path="_ramtorch", keys=("ramtorch",), convert=flag(), default=False, source=f"{TRAINING}: ramtorch"),
    Field(path="_ramtorch_share", keys=("ramtorch_transformer_percent",), convert=real(0, 100), default=100,
          source=f"{TRAINING}: ramtorch_transformer_percent"),
    Field(path="_ramtorch_targets", keys=("ramtorch_target_modules",), convert=text("module names with commas")),
    Field(path="_ramtorch_text", keys=("ramtorch_text_encoder",), convert=flag()),
    Field(path="offload.blocks", keys=("musubi_blocks_to_swap",), convert=whole(0, COUNT), default=0,
          source=f"{TRAINING}: musubi_blocks_to_swap"),
    Field(path="_group", keys=("enable_group_offload",), convert=flag()),
    Field(path="_group_leaf", keys=("group_offload_type",),
          convert=choice("a kind of group", {"block_level": False, "leaf_level": True})),
    Field(path="_group_blocks", keys=("group_offload_blocks_per_group",), convert=whole(1, COUNT)),
    Field(path="parallel.sequence", keys=("context_parallel_size",), convert=whole(1, RANKS), default=1,
          source=f"{ADVANCED}: context_parallel_size"),
    Field(path="_rotation", keys=("context_parallel_comm_strategy",),
          convert=choice("a way to share a sample", {"allgather": "allgather", "alltoall": "alltoall"}), default="allgather",
          source=f"{ADVANCED}: context_parallel_comm_strategy"),
    Field(path="parallel.gpus", keys=("num_processes", "hardware.gpus"), convert=whole(1, RANKS)),
    Field(path="parallel.nodes", keys=("num_machines",), convert=whole(1, RANKS)),
    Field(path="_launcher.use_fsdp", keys=("fsdp_enable",), convert=flag()),
    Field(path="_fsdp_version", keys=("fsdp_version",), convert=choice("a version of FSDP", {"1": 1, "2": 2})),
    Field(path="_launcher.auto_wrap_policy", keys=("fsdp_auto_wrap_policy",), convert=choice("a wrap policy", launcher.WRAP)),
    Field(path="_launcher.reshard_after_forward", keys=("fsdp_reshard_after_forward",), convert=flag()),
    Field(path="_launcher.offload_params", keys=("fsdp_cpu_offload",), convert=flag()),
    Field(path="_fsdp_checkpointing", keys=("fsdp_activation_checkpointing",), convert=flag()),
    Field(path="sample.every", keys=("validation_step_interval", "validation_steps"), convert=EVERY, default=100,
          source=f"{VALIDATION}: validation_step_interval"),
    Field(path="sample.every_epochs", keys=("validation_epoch_interval",), convert=EVERY),
    Field(path="_validates_not", keys=("validation_disable",), convert=flag()),
    Field(path="_prompt", keys=("validation_prompt", "user_prompt_library", "validation_using_datasets"), convert=anything(),
          among="first"),
    Field(path="_library", keys=("validation_prompt_library",), convert=anything()),
    Field(path="_no_unconditional", keys=("validation_disable_unconditional",), convert=flag()),
    Field(path="_method", keys=("validation_method",), convert=text("a method such as simpletuner-local")),
    Field(path=("sample.width", "sample.height"), keys=("validation_resolution",), convert=resolutions(), default=(256, 256),
          source=f"{VALIDATION}: validation_resolution"),
    Field(path="sample.frames", keys=("validation_num_video_frames",), convert=whole(1, SIDE)),
    Field(path="sample.steps", keys=("validation_num_inference_steps",), convert=whole(1, SIDE), default=30,
          source=f"{VALIDATION}: validation_num_inference_steps"),
    Field(path="sample.batch", keys=("num_validation_images",), convert=whole(), default=1,
          source=f"{VALIDATION}: num_validation_images"),
    Field(path="_guidance", keys=("validation_guidance",), convert=real(0, 1e3), default=7.5,
          source=f"{VALIDATION}: validation_guidance"),
    Field(path="_guidance_real", keys=("validation_guidance_real",), convert=real(0, 1e3), default=1.0,
          source="models/field_registry/flux.py: validation_guidance_real"),
    Field(path="save.every", keys=("checkpoint_step_interval", "checkpointing_steps"), convert=EVERY, default=500,
          source=f"{LOGGING}: checkpoint_step_interval"),
    Field(path="save.every_epochs", keys=("checkpoint_epoch_interval",), convert=EVERY),
    Field(path="save.latest_every", keys=("checkpointing_rolling_steps",), convert=EVERY),
    Field(path="save.keep", keys=("checkpoints_total_limit", "save_total_limit"), convert=EVERY, default=5,
          source=f"{LOGGING}: checkpoints_total_limit"),
    Field(path="schedule.epochs", keys=("num_train_epochs",), convert=EVERY),
    Field(path="schedule.steps", keys=("max_train_steps",), convert=EVERY),
    Field(path="schedule.warmup", keys=("lr_warmup_steps",), convert=flag_text(count(0))),
    Field(path="paths.train", keys=("data_backend_config",), convert=place()),
    Field(path="paths.resume", keys=("resume_from_checkpoint",), convert=place(local=True)),
    Field(path="paths.output", keys=("output_dir",), convert=place()),
    Field(path="_lycoris", keys=("lycoris_config",), convert=anything()),
    Field(path="_controlnet", keys=("controlnet", "control"), convert=flag()),
    Field(path="_text_training", keys=("train_text_encoder",), convert=flag()),
    Field(path="_distillation", keys=("distillation_method",), convert=text("a method such as anyflow")),
    Field(path="_tread", keys=("tread_config",), convert=anything()),
    *(Field(path=f"_loss.{name}", keys=(f"{name}_enabled",), convert=flag()) for name in
      ("crepa", "urepa", "irepa", "layersync", "internal_guidance", "twinflow", "xm", "nextlat", "diff2flow")),
    *launcher.FIELDS,
    *(entry for entry in HARDWARE if entry.path != "parallel.nodes"),
)  # fmt: skip
