"""What musubi-tuner does with a run: its adapters, dtypes, attention, sizes, experts and phases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from preflight.adapters import config_flags
from preflight.adapters.draft import Draft
from preflight.adapters.launcher import Launched
from preflight.adapters.musubi_kinds import EXPERTS, MODULES, Kind, targets
from preflight.adapters.musubi_sizes import Bucket, largest
from preflight.adapters.musubi_table import COMMON, DATASET, EXAMPLE

#: In the order in which the trainer asks for them (trainer_base.py: _load_dit_and_swap), with what each means.
ATTENTION = {"_sdpa": "torch", "_flash": "flash-attn", "_sage": "", "_xformers": "flash-attn", "_flash3": "flash-attn"}


def method(run: Draft, kind: Kind) -> None:
    if run.get("_checkpoints_offloaded"):
        if run.get("train.checkpointing"):
            run.put("offload.activations", True, like="_checkpoints_offloaded")
        else:
            message = "gradient_checkpointing_cpu_offload does nothing without gradient_checkpointing."
            run.note("warning", "no-checkpointing", message, at="_checkpoints_offloaded", fix="add gradient_checkpointing")
    if run.get("_fused_backward"):
        message = "fused_backward_pass frees each gradient as soon as it is there, which is not modelled: all are counted."
        run.note("note", "not-counted", message, at="_fused_backward")
    if kind.full:
        run.put("train.method", "full")
        run.drop("train.lora")
        return
    run.put("train.method", "lora", like="_module")
    run.put("train.lora.dtype", "fp32")  # trainer_base.py: network_dtype, as full_bf16 is turned off
    module = str(run.get("_module", "")).rpartition(".")[2]
    if "_module" not in run.settled:
        message = f"network_module is missing, and musubi-tuner stops without it; expected networks.{kind.module}."
        run.findings.append(run.document.finding("missing-key", "error", message, key="network_module"))
    elif module not in MODULES:
        message = f"adapters of {run.get('_module')} are not modelled; expected networks.{kind.module}."
        run.note("error", "not-modelled", message, at="_module")
    elif module != kind.module:
        message = f"networks.{module} finds none of this network's blocks; expected networks.{kind.module}."
        run.note("error", "invalid-value", message, at="_module", fix=f"set network_module to networks.{kind.module}")
    if found := targets(kind, run.get("model.name")):
        run.put("train.lora.targets", found)
    if kind.fused:
        message = (
            "query, key and value are one layer in this trainer; they are counted as three, whose adapters are somewhat larger."
        )
        run.note("note", "fused-qkv", message, at="_module")
    if patterns := sorted({"exclude_patterns", "include_patterns"} & set(run.get("_network_args", {}))):
        message = (
            f"{patterns[0]} chooses layers by name, which is not modelled: all that the trainer adapts without it are counted."
        )
        run.note("warning", "not-counted", message, at="_network_args")
    if run.get("_dim_from_weights"):
        message = (
            f"the rank comes from the weights that are named, which are not read; rank {run.get('train.lora.rank')} is counted."
        )
        run.note("warning", "not-counted", message, at="_dim_from_weights")


def precision(run: Draft, kind: Kind, launched: Launched) -> None:
    """Autocast is accelerate's; the weights stay as they are stored, or in 8 bits."""
    told, like = run.get("_mixed_precision"), "_mixed_precision"
    if told is None:
        told, like = {"bf16": "bf16", "fp16": "fp16"}.get(launched.mixed_precision or "no", "fp32"), "_launcher.mixed_precision"
    usual = "fp32" if kind.full and not run.get("_full_bf16") else "fp16" if told == "fp16" else "bf16"
    run.put("precision.weights", run.get("_dit_dtype", usual), like="_dit_dtype" if "_dit_dtype" in run.settled else
            "_full_bf16" if kind.full else None)  # fmt: skip
    if told == "fp32":
        message = (
            "mixed_precision is not set, here or for accelerate launch, so the network runs without autocast on inputs in float32;"
            " expected bf16."
        )
        key = run.origins.get("_mixed_precision") or config_flags.spelled(run.document, "mixed_precision")
        run.findings.append(run.document.finding("no-autocast", "warning", message, key=key, fix="set mixed_precision to bf16"))
    else:
        run.put("precision.autocast", told, like=like)
        run.put("precision.attention", told, like=like)
    run.put("precision.vae", run.get("_vae_dtype", kind.vae), like="_vae_dtype")
    run.put("data.latents", "cached")
    run.put("data.text", "cached")
    if kind.full and run.get("_fp8"):
        run.note("warning", "fp8-ignored", "fp8_base is turned off where the whole network trains.", at="_fp8")
    elif run.get("_fp8_scaled") and not run.get("_fp8"):
        message = "fp8_scaled works with fp8_base only, and musubi-tuner stops."
        run.note("error", "invalid-value", message, at="_fp8_scaled", fix="add fp8_base")
    elif run.get("_fp8"):
        scaled = run.get("_fp8_scaled") and not kind.unscaled
        run.put("precision.quantization", "fp8-scaled" if scaled else "fp8", like="_fp8_scaled" if scaled else "_fp8")


def attention(run: Draft) -> None:
    chosen = next((path for path in ATTENTION if run.get(path)), "")
    if not chosen:
        message = "musubi-tuner stops without one of sdpa, flash_attn, flash3 and xformers."
        run.findings.append(run.document.finding("missing-key", "error", message, key="sdpa", fix="add sdpa"))
        return
    if run.get("_sage"):
        run.note("error", "invalid-value", "sage_attn cannot train, and musubi-tuner stops; expected sdpa.", at="_sage",
                 fix="replace sage_attn with sdpa")  # fmt: skip
        return
    run.put("train.attention", ATTENTION[chosen], like=chosen)
    if chosen == "_xformers" and not run.get("_split") and run.get("model.name") == "hunyuanvideo":
        message = "musubi-tuner's documentation asks for split_attn beside xformers in HunyuanVideo."
        run.note("warning", "split-attention", message, at=chosen, fix="add split_attn")
    if run.get("_split"):
        message = "split_attn runs attention sample by sample, which needs no more than is counted."
        run.note("note", "not-counted", message, at="_split")


def shape(run: Draft, kind: Kind) -> tuple[Bucket, str]:
    """The bucket that asks most of a step, and which key says how many frames it has."""
    group = run.document.data.get(config_flags.DATASET)
    bucket = largest(group if isinstance(group, Mapping) else {}, video=kind.video, multiple=kind.multiple)
    length = "max_frames" if run.get("_extraction") == "full" else "target_frames"
    for path, value, key in (
        ("data.width", bucket.width, "resolution"),
        ("data.height", bucket.height, "resolution"),
        ("data.frames", bucket.frames, length),
        ("train.batch", bucket.batch, "batch_size"),
    ):
        if place := _place(group, bucket.number, key):
            run.put(path, value)
            run.origins[path] = place
        elif path != "data.frames" or kind.video:
            run.assume(path, value, DATASET if config_flags.DATASET in run.document.included else EXAMPLE)
    if run.get("_extraction") == "full" and kind.video:
        message = f"frame_extraction full takes whole clips; {bucket.frames} frames are counted, the most that it allows."
        run.note("note", "longest-clip", message, at="_extraction")
    return bucket, length


def _place(group: Any, number: int, key: str) -> str | None:
    """Where the data set's TOML says `key` of its data set of that number."""
    items = group.get("datasets") if isinstance(group, Mapping) else None
    if isinstance(items, list) and number < len(items) and isinstance(items[number], Mapping) and key in items[number]:
        return f"{config_flags.DATASET}.datasets[{number}].{key}"
    general = group.get("general") if isinstance(group, Mapping) else None
    return f"{config_flags.DATASET}.general.{key}" if isinstance(general, Mapping) and key in general else None


def experts(run: Draft) -> None:
    """wan_train_network.py: load_transformer, swap_high_low_weights; one LoRA serves both."""
    if "_high_noise" not in run.settled:
        if run.get("_offload_inactive"):
            message = "offload_inactive_dit does nothing without dit_high_noise."
            run.note("warning", "one-expert", message, at="_offload_inactive")
        return
    if run.get("model.name") not in EXPERTS:
        message = "dit_high_noise needs a task of Wan 2.2, and musubi-tuner stops; expected t2v-A14B or i2v-A14B."
        run.note("error", "invalid-value", message, at="_high_noise")
    swapped = run.get("_offload_inactive")
    if swapped and run.get("offload.blocks"):
        message = "offload_inactive_dit and blocks_to_swap exclude each other, and musubi-tuner stops."
        run.note("error", "conflicting-keys", message, at="_offload_inactive", fix="remove offload_inactive_dit")
    run.put("model.experts", "swapped" if swapped else "both", like="_offload_inactive" if swapped else "_high_noise")
    run.put("train.lora.shared", True, like="_high_noise")


def phases(run: Draft) -> None:
    if "schedule.epochs" not in run.settled:
        run.assume("schedule.steps", 1600, COMMON)
    else:
        run.drop("schedule.steps")  # max_train_epochs goes before it
    run.put("save.final", True)
    for kept, every in (("_keep_steps", "save.every"), ("_keep_epochs", "save.every_epochs")):
        if kept in run.settled and every in run.settled:
            run.put("save.keep", max(1, run.get(kept) // run.get(every)), like=kept)
    if "_prompts" not in run.settled or not {"sample.every", "sample.every_epochs"} & set(run.settled):
        run.drop("sample")
        return
    run.put("sample.guidance", False)  # one pass after the other
    message = f"the sizes of the samples stand in {run.get('_prompts')}, which is not read; they are taken to be those of training."
    run.note("note", "sample-size", message, at="_prompts")
