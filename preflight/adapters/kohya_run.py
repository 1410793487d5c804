"""What sd-scripts does with a run: its adapters, dtypes, attention, encoders, sizes and phases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from preflight.adapters import config_flags
from preflight.adapters.conversions import whole
from preflight.adapters.draft import Draft
from preflight.adapters.flags import spoken
from preflight.adapters.kohya_kinds import Kind, targets
from preflight.adapters.kohya_sizes import SIZE, Bucket, Source, largest
from preflight.adapters.kohya_table import DATASET, SIZES, TRAINING
from preflight.adapters.reading import Reading
from preflight.finding import ConfigError

SHAPE = ("data.width", "data.height", "train.batch")
BATCH = spoken(whole())

#: networks/lora.py reads these as well: other ranks for some layers, or layers that are left out.
CHOOSING = ("block_dims", "conv_block_dims", "train_blocks", "train_double_block_indices", "train_single_block_indices", "in_dims",
            "single_dim", "img_attn_dim", "txt_attn_dim", "img_mlp_dim", "txt_mlp_dim", "img_mod_dim", "txt_mod_dim",
            "single_mod_dim", "emb_dims", "train_block_indices", "x_attn_dim", "context_attn_dim")  # fmt: skip


def optimizer(run: Draft) -> None:
    """library/train_util.py: get_optimizer."""
    for path, name, bits in (("_8bit_adam", "adamw", 8), ("_lion", "lion", 32)):
        if run.get(path) and "train.optimizer.name" in run.origins:
            message = "this flag and optimizer_type exclude each other, and sd-scripts stops."
            run.note("error", "conflicting-keys", message, at=path)
        elif run.get(path):
            run.put("train.optimizer.name", name, like=path)
            run.put("train.optimizer.bits", bits, like=path)
    run.assume("train.optimizer.name", "adamw", "library/train_util.py: get_optimizer")
    run.assume("train.optimizer.bits", 32, "library/train_util.py: get_optimizer")
    if run.get("_fused_backward") and run.get("train.optimizer.name") != "adafactor":
        message = (
            f"fused_backward_pass works with Adafactor only, not with {run.get('train.optimizer.name')}, and sd-scripts stops."
        )
        run.note("error", "invalid-value", message, at="_fused_backward", fix="set optimizer_type to adafactor")
    if run.get("_fused_backward") and run.get("train.accumulation") > 1:
        message = "fused_backward_pass and gradient_accumulation_steps exclude each other, and sd-scripts stops."
        run.note("error", "conflicting-keys", message, at="_fused_backward")
    fused = next((path for path in ("_fused_backward", "_blockwise", "_groups") if run.get(path)), None)
    if fused:
        message = "gradients are freed as soon as they are there, which is not modelled: all are counted."
        run.note("note", "not-counted", message, at=fused)


def method(run: Draft, kind: Kind) -> None:
    if run.get("_checkpoints_offloaded"):
        if run.get("offload.blocks"):
            message = "cpu_offload_checkpointing and blocks_to_swap exclude each other, and sd-scripts stops."
            run.note("error", "conflicting-keys", message, at="_checkpoints_offloaded")
        run.put("offload.activations", True, like="_checkpoints_offloaded")
        if kind.full:
            run.put("train.checkpointing", True, like="_checkpoints_offloaded")
    if run.get("_split_mode") and not run.get("offload.blocks"):
        run.put("offload.blocks", 18, like="_split_mode")
    if kind.unet:
        run.put("train.use_reentrant", True)  # library/sdxl_original_unet.py: USE_REENTRANT
    if kind.full:
        run.put("train.method", "full")
        run.drop("train.lora")
        return
    run.put("train.method", "lora", like="_module")
    module = str(run.get("_module", "")).rpartition(".")[2]
    if "_module" not in run.settled:
        message = f"network_module is missing, and sd-scripts stops without it; expected networks.{kind.module}."
        run.findings.append(run.document.finding("missing-key", "error", message, key="network_module"))
    elif module != kind.module:
        message = f"adapters of {run.get('_module')} are not modelled for this network; expected networks.{kind.module}."
        run.note("error", "not-modelled", message, at="_module")
    if run.get("_text_only"):
        message = "training the text encoders alone is not modelled; expected network_train_unet_only."
        run.note("error", "not-modelled", message, at="_text_only")
    if found := targets(run.get("model.name")):
        run.put("train.lora.targets", found)
    if kind.fused:
        message = (
            "query, key and value are one layer in this trainer; they are counted as three, whose adapters are somewhat larger."
        )
        run.note("note", "fused-qkv", message, at="_module")
    said = run.get("_network_args", {})
    if run.get("model.name") == "sd1.5":
        message = "the 1x1 convolutions around each transformer have adapters as well; only those of linear layers are counted."
        run.note("note", "convolutions", message, at="_module")
    if "conv_dim" in said:
        message = "conv_dim gives the 3x3 convolutions adapters as well; only those of linear layers are counted."
        run.note("warning", "convolutions", message, at="_network_args")
    if chosen := next((name for name in CHOOSING if name in said), None):
        message = f"{chosen} gives some layers another rank or none; all are counted with rank {run.get('train.lora.rank')}."
        run.note("warning", "not-counted", message, at="_network_args")
    if run.get("_dim_from_weights"):
        message = (
            f"the rank comes from the weights that are named, which are not read; rank {run.get('train.lora.rank')} is counted."
        )
        run.note("warning", "not-counted", message, at="_dim_from_weights")


def precision(run: Draft, kind: Kind) -> None:
    """train_util.prepare_dtype: the mixed precision is that of frozen weights; a network that trains is float32 unless told."""
    low = run.get("_mixed_precision")
    whole = next((path for path in ("_full_bf16", "_full_fp16") if run.get(path)), None)
    if whole and low != whole.removeprefix("_full_"):
        name = whole.removeprefix("_")
        message = f"{name} works with mixed_precision {name.removeprefix('full_')} only, and sd-scripts stops."
        run.note("error", "invalid-value", message, at=whole, fix=f"set mixed_precision to {name.removeprefix('full_')}")
    wide = kind.full and kind.loads == "float32" and whole is None
    run.put("precision.weights", "fp32" if wide else low, like=whole or "_mixed_precision")
    if low != "fp32":
        run.put("precision.autocast", low, like="_mixed_precision")
        run.put("precision.attention", low, like="_mixed_precision")
    if not kind.full:
        run.put("train.lora.dtype", low if whole else "fp32", like=whole)
    run.put("precision.vae", "fp32" if run.get("_no_half_vae") else low, like="_no_half_vae" if run.get("_no_half_vae") else
            "_mixed_precision")  # fmt: skip
    run.put("precision.text_encoder", low, like="_mixed_precision")
    narrow = next((path for path in ("_fp8_unet", "_fp8") if run.get(path)), None)
    if narrow and kind.full:
        message = "fp8_base is for LoRA alone, and does nothing where the whole network trains."
        run.note("warning", "fp8-ignored", message, at=narrow)
    elif narrow:
        if low == "fp32":
            message = "fp8_base works with mixed_precision fp16 or bf16 only, and sd-scripts stops."
            run.note("error", "invalid-value", message, at=narrow, fix="set mixed_precision to bf16")
        run.put("precision.quantization", "fp8", like=narrow)


def encoders(run: Draft, kind: Kind) -> None:
    """Where the VAE and the text encoders are during a step, and which of those train."""
    cached = next((path for path in ("_latents_cached", "_latents_on_disk") if run.get(path)), None)
    run.put("data.latents", "cached" if cached else "online", like=cached or "_latents_cached")
    if not cached:
        run.put("data.pixels_kept.fp32", 3)  # train_network.py: batch["images"], on the GPU where accelerate's loader put it
    told = next((path for path in ("_text_cached", "_text_on_disk") if run.get(path)), None)
    if not cached and run.get("_batch", 1) > run.get("_vae_batch"):
        message = "pictures are encoded vae_batch_size at a time; the whole batch at once is counted, which is more."
        run.note("note", "not-counted", message, at="_batch")
    if told and not kind.cached:
        message = "cache_text_encoder_outputs is not read by this script: its text encoder runs in every step."
        run.note("warning", "text-not-cached", message, at=told)
        told = None
    trained = run.get("_train_text") if kind.full and "_train_text" in run.origins else kind.encoders and not run.get("_unet_only")
    if told and trained and kind.unet:
        message = "cache_text_encoder_outputs needs network_train_unet_only, and sd-scripts stops."
        run.note("error", "invalid-value", message, at=told, fix="add network_train_unet_only")
    run.put("data.text", "cached" if told else "online", like=told or "_text_cached")
    if run.get("_fp8") and not run.get("_fp8_unet") and not told and not kind.full:
        run.put("precision.text_encoder_quantization", "fp8", like="_fp8")
    if trained:
        what = "whole" if kind.full else "by adapters of their own"
        message = f"text encoders train as well, {what}; their adapters, states and activations are not counted."
        run.note("warning", "text-encoders-train", message, at="_train_text" if kind.full else "_module",
                 fix=None if kind.full else "add network_train_unet_only")  # fmt: skip
    if kind.unet and run.get("_tokens"):
        message = "longer captions are encoded in parts of 75 tokens; one part is counted."
        run.note("note", "not-counted", message, at="_tokens")
    elif run.get("_t5_tokens"):
        run.put("data.text_tokens", run.get("_t5_tokens"), like="_t5_tokens")


def attention(run: Draft, kind: Kind) -> None:
    chosen = next((path for path in ("_xformers", "_sdpa", "_mem_eff_attn") if run.get(path)), None)
    if chosen:
        run.put("train.attention", "flash-attn" if chosen == "_xformers" else "torch", like=chosen)
    elif kind.unet:
        message = (
            "without sdpa or xformers every head of the UNet keeps its whole score matrix, which is not modelled; expected one of"
            " them."
        )
        key = config_flags.spelled(run.document, "sdpa")
        run.findings.append(run.document.finding("no-flash", "error", message, key=key, fix="add sdpa"))


def shape(run: Draft, kind: Kind) -> Bucket:
    """Sizes and batch: the data set's TOML says them, for one or for all, else the flags."""
    values: dict[str, Any] = {}
    keys: dict[str, str] = {}
    for name, own in (("resolution", "resolution"), ("batch_size", "train_batch_size"), *((key, key) for key in SIZES)):
        value = config_flags.value(run.document, own)
        if value is not None:
            values[name] = value
            keys[name] = config_flags.spelled(run.document, own)
    group = run.document.data.get(config_flags.DATASET)
    try:
        bucket = largest(group, Source(values, keys), kind.side)
    except ConfigError as problem:
        run.findings += [run.document.finding(found.id, "error", found.message, key=found.key) for found in problem.findings]
        run.check()
        raise
    there = config_flags.DATASET in run.document.included
    if "resolution" not in bucket.places and (there or not isinstance(config_flags.value(run.document, "dataset_config"), str)):
        message = "resolution is missing, here and in the data set's TOML, and sd-scripts stops without it."
        run.findings.append(run.document.finding("missing-key", "error", message, key="resolution"))
    for path, value, key in (
        ("data.width", bucket.width, "resolution"),
        ("data.height", bucket.height, "resolution"),
        ("train.batch", bucket.batch, "batch_size"),
    ):
        if key in bucket.places:
            run.put(path, value)
            run.origins[path] = bucket.places[key]
        else:
            run.assume(path, value, DATASET if key == "batch_size" else "the side of the pictures that this network was trained on")
    return bucket


def deepspeed(run: Draft) -> None:
    """library/deepspeed_utils.py: the trainer's own flags make accelerate's plugin."""
    if not run.get("_deepspeed") or not run.get("_zero_stage"):
        return
    run.put("parallel.strategy", f"zero{run.get('_zero_stage')}", like="_deepspeed")
    for path, device in (("offload.optimizer", "_optimizer_device"), ("offload.parameters", "_param_device")):
        if str(run.get(device, "none")).lower() not in ("none", ""):
            run.put(path, True, like=device)


def phases(run: Draft, kind: Kind) -> None:
    if "schedule.epochs" not in run.settled:
        run.assume("schedule.steps", 1600, TRAINING)
    else:
        run.drop("schedule.steps")  # max_train_epochs goes before it
    run.put("save.final", True)
    for kept, every in (("_keep_steps", "save.every"), ("_keep_epochs", "save.every_epochs")):
        if kept in run.settled and every in run.settled:
            run.put("save.keep", max(1, run.get(kept) // run.get(every)), like=kept)
    if "_prompts" not in run.settled or not {"sample.every", "sample.every_epochs"} & set(run.settled):
        run.drop("sample")
        return
    run.put("sample.guidance", kind.unet)
    message = f"the sizes of the samples stand in {run.get('_prompts')}, which is not read; they are taken to be those of training."
    run.note("note", "sample-size", message, at="_prompts")


def inverse(changes: dict[str, Any]) -> dict[str, Any]:
    """What is cached, and dtypes, are flags of their own."""
    answer = dict(changes)
    if "offload.activations" in changes:
        answer["_checkpoints_offloaded"] = changes["offload.activations"]
    for path, own in (("data.latents", "_latents_cached"), ("data.text", "_text_cached")):
        if path in changes:
            answer[own] = changes[path] == "cached"
    if changes.get("precision.quantization") == "fp8":
        answer["_fp8"] = True
    return answer


def spell(reading: Reading, bucket: Bucket, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Sizes and batches are those of the data set's TOML, which may hold several, or flags."""
    document, origins = reading.document, reading.origins
    assert document is not None
    answer = reading.spell({path: value for path, value in changes.items() if path not in SHAPE})
    own = config_flags.DATASET not in document.data
    width, height = (changes.get(f"data.{axis}", getattr(bucket, axis)) for axis in ("width", "height"))
    if (width, height) != (bucket.width, bucket.height):
        name = "resolution" if own or origins.get("data.width", "").lstrip("-") == "resolution" else None
        answer |= config_flags.rewritten(document, "resolution", SIZE, (width, height), origins.get("data.width"), own=name)
    if changes.get("train.batch", bucket.batch) != bucket.batch:
        place = origins.get("train.batch", "")
        name = "train_batch_size" if own or not place.startswith("dataset.") else None
        answer |= config_flags.rewritten(document, "batch_size", BATCH, changes["train.batch"], place, own=name)
    return answer


def missing(run: Draft, kind: Kind) -> None:
    """What the trainer asks for, and files that are not there."""
    if "paths.model" not in run.settled:
        message = "pretrained_model_name_or_path is missing, and sd-scripts stops without it."
        run.findings.append(run.document.finding("missing-key", "error", message, key="pretrained_model_name_or_path"))
    instead = f"pictures of {kind.side}x{kind.side} and the flags beside it are taken; pass --set dataset.general.resolution=N"
    config_flags.missing(run, instead=instead)
