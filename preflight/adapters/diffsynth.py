"""DiffSynth-Studio: the launch of a trainer under examples/*/model_training, for Wan, FLUX, Qwen-Image, Z-Image and LTX-2.

Flags and defaults are those of github.com/modelscope/DiffSynth-Studio, commit fed7b18: diffsynth/diffusion/parsers.py, and the
parser of each train.py. Every model that a launch names is loaded in bfloat16 and stays on the GPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from math import isqrt
from typing import Any

from preflight.adapters import diffsynth_run, flags, launcher
from preflight.adapters.conversions import COUNT, SIDE, STEPS, flag, flag_text, text, whole, words
from preflight.adapters.diffsynth_models import Entry, files, ids, listed, network, of, optimizer, quantized
from preflight.adapters.draft import Draft
from preflight.adapters.reading import Adapter, Reading
from preflight.adapters.run_values import count, place
from preflight.adapters.table import Field
from preflight.document import Document
from preflight.finding import ConfigError
from preflight.launching.launch import Unresolved

PARSERS = "diffsynth/diffusion/parsers.py"
#: FLUX's own layers (diffsynth/models/flux_dit.py) in the names of the diffusers network that is modelled; Wan runs in its own.
MODULES = {
    "a_to_qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "b_to_qkv": ("add_q_proj", "add_k_proj", "add_v_proj"),
    "a_to_out": ("to_out.0",),
    "b_to_out": ("to_add_out",),
    "ff_a.0": ("ff.net.0.proj",),
    "ff_a.2": ("ff.net.2",),
    "ff_b.0": ("ff_context.net.0.proj",),
    "ff_b.2": ("ff_context.net.2",),
    "to_qkv_mlp": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
    "norm1_a.linear": ("norm1.linear",),
    "norm1_b.linear": ("norm1_context.linear",),
}
VIDEO = ("wan", "ltx")
MODEL_FLAGS = ("model_id_with_origin_paths", "model_paths")

number, side = flag_text(whole(1, STEPS)), flag_text(whole(1, SIDE))
FIELDS = (
    Field(path="_ids", keys=MODEL_FLAGS[:1], convert=ids()),
    Field(path="_files", keys=MODEL_FLAGS[1:], convert=files()),
    Field(path="_trainable", keys=("trainable_models",), convert=listed("names of models")),
    Field(path="_base", keys=("lora_base_model",), convert=text("the name of a model, such as dit")),
    Field(path="_task", keys=("task",), convert=text("a task, such as sft"), default="sft", source=f"{PARSERS}: --task"),
    Field(path="train.lora.rank", keys=("lora_rank",), convert=side, default=32, source=f"{PARSERS}: --lora_rank"),
    Field(path="train.lora.targets", keys=("lora_target_modules",), convert=diffsynth_run.targets(words("module names", MODULES)),
          default=["q", "k", "v", "o", "ffn.0", "ffn.2"], source=f"{PARSERS}: --lora_target_modules"),
    Field(path="train.accumulation", keys=("gradient_accumulation_steps",), convert=number, default=1,
          source=f"{PARSERS}: --gradient_accumulation_steps"),
    Field(path="train.checkpointing", keys=("use_gradient_checkpointing",), convert=flag(), default=False,
          source=f"{PARSERS}: --use_gradient_checkpointing"),
    Field(path="offload.activations", keys=("use_gradient_checkpointing_offload",), convert=flag(), default=False,
          source=f"{PARSERS}: --use_gradient_checkpointing_offload"),
    Field(path=("train.optimizer.name", "train.optimizer.bits"), keys=("customized_optimizer",), convert=optimizer(),
          default=("adamw", 32), source="diffsynth/diffusion/runner.py: torch.optim.AdamW"),
    Field(path="data.height", keys=("height",), convert=side),
    Field(path="data.width", keys=("width",), convert=side),
    Field(path="_pixels", keys=("max_pixels",), convert=flag_text(whole(1, SIDE**2)), default=1024 * 1024,
          source=f"{PARSERS}: --max_pixels 1024*1024 where --height and --width are not both given"),
    Field(path="data.frames", keys=("num_frames",), convert=flag_text(whole(1, COUNT)), default=81,
          source=f"{PARSERS}: --num_frames"),
    Field(path="data.workers", keys=("dataset_num_workers",), convert=flag_text(count(0, COUNT)), default=0,
          source=f"{PARSERS}: --dataset_num_workers"),
    Field(path="_inputs", keys=("extra_inputs",), convert=listed("inputs")),
    Field(path="_fp8", keys=("fp8_models",), convert=listed("models")),
    Field(path="_quantized", keys=("quant_options",), convert=quantized()),
    Field(path="_away", keys=("offload_models",), convert=listed("models")),
    Field(path="offload.layers", keys=("enable_model_cpu_offload",), convert=flag(), default=False,
          source=f"{PARSERS}: --enable_model_cpu_offload"),
    Field(path="_optimizer_away", keys=("enable_optimizer_cpu_offload",), convert=flag()),
    Field(path="_template", keys=("template_model_id_or_path",), convert=text("a model")),
    Field(path="save.every", keys=("save_steps",), convert=flag_text(count())),
    Field(path="schedule.epochs", keys=("num_epochs",), convert=flag_text(count()), default=1, source=f"{PARSERS}: --num_epochs"),
    Field(path="paths.train", keys=("dataset_metadata_path", "dataset_base_path"), convert=place()),
    Field(path="paths.resume", keys=("lora_checkpoint", "resume_from_checkpoint"), convert=place()),
    Field(path="paths.output", keys=("output_path",), convert=place(), default="./models", source=f"{PARSERS}: --output_path"),
    *launcher.FIELDS,
)  # fmt: skip

NO_EFFECT = (
    "dataset_repeat", "data_file_keys", "learning_rate", "find_unused_parameters", "weight_decay", "remove_prefix_in_ckpt",
    "preset_lora_path", "preset_lora_model", "enable_lora_hot_loading", "cpu_offload_split_threshold", "enable_tensorboard_log",
    "enable_swanlab_log", "swanlab_project", "enable_wandb_log", "wandb_project", "enable_csv_log", "tokenizer_path",
    "tokenizer_1_path", "tokenizer_2_path", "processor_path", "audio_processor_path", "max_timestep_boundary",
    "min_timestep_boundary", "initialize_model_on_cpu", "framewise_decoding", "align_to_opensource_format", "zero_cond_t",
    "enable_npu_patch", "frame_rate",
)  # fmt: skip

TABLE = flags.flag_table(
    unread="{key} is not a flag of DiffSynth-Studio's trainers, whose parser stops at it", fields=FIELDS, no_effect=NO_EFFECT
)


def matches(document: Document) -> bool:
    """A train.py of model_training, or a program that is told its models as DiffSynth-Studio's are."""
    keys = {str(key).lstrip("-") for key in document.data}
    told = "model_id_with_origin_paths" in keys or {"model_paths", "dataset_base_path"} <= keys
    return document.launch is not None and (told or flags.runs(document, "model_training/train.py"))


def trains(document: Document) -> bool:
    """Whether the launch is not the first of two stages, which encodes the data set for the second."""
    told = (value for key, value in document.data.items() if TABLE.locate((str(key),)) == ("task",))
    return not any(str(value).endswith(":data_process") for value in told)


def read(document: Document) -> Reading:
    """Raises ConfigError for values that cannot be understood, and for what is not modelled."""
    run = flags.draft(launcher.including(_named(document)), TABLE)
    _task(run)
    _model(run)
    _method(run)
    _size(run)
    _rest(run)
    started = launcher.settle(run, distributed=not run.get("offload.layers"))
    diffsynth_run.launched(run, started)
    diffsynth_run.remarks(run)
    return run.reading(partial(_inverse, run))


def _named(document: Document) -> Document:
    """The paths of models as they are written: a folder's name often says which model is in it, whatever stands before it."""
    plain = {
        key: str(value)
        for key, value in document.data.items()
        if str(key).lstrip("-") in MODEL_FLAGS and isinstance(value, Unresolved) and _tells(str(value))
    }
    return replace(document, data={**document.data, **plain}) if plain else document


def _tells(value: str) -> bool:
    try:
        entries = files().read(value) if value.lstrip().startswith("[") else ids().read(value)
    except ValueError:
        return False
    return any(network(found) for found in of(entries, "network"))


def _task(run: Draft) -> None:
    task = run.get("_task")
    kind, _, stage = task.partition(":")
    if stage == "data_process":
        message = (
            f"--task {task} encodes the data set and trains nothing: judge the launch with --task {kind}:train, which reads what"
            " this one writes."
        )
        run.note("error", "not-a-training-config", message, at="_task")
    elif kind != "sft":
        message = f"--task {task} is not modelled; expected sft or sft:train."
        run.note("error", "not-modelled", message, at="_task")
    run.check()


def _model(run: Draft) -> None:
    entries: tuple[Entry, ...] = (*run.get("_ids", ()), *run.get("_files", ()))
    like = "_ids" if "_ids" in run.settled else "_files"
    flag_ = run.origins.get(like, "--model_id_with_origin_paths")
    if not entries:
        message = "no models are named; expected --model_id_with_origin_paths or --model_paths."
        raise ConfigError(run.document.finding("missing-key", "error", message, key="--model_id_with_origin_paths"))
    known = [(found, name) for found in of(entries, "network") if (name := network(found))]
    if not known:
        unknown = next(iter(of(entries, "network")), None)
        message = (
            f"{flag_} names no network" if unknown is None else f"{unknown.text} does not say which network it is"
        ) + "; expected a model id, or a path with its name, such as Wan-AI/Wan2.2-T2V-A14B."
        run.note("error", "unknown-model", message, at=like)
    run.check()
    first, name = known[0]
    run.put("model.name", name, like=like)
    if name.startswith("wan"):
        run.put("model.code", "diffsynth")
    run.put("_entry", first)
    run.put("_entries", entries)
    others = [found for found, other in known[1:] if other == name and found.expert and found.expert != first.expert]
    if others:
        run.put("model.experts", "both", like=like)
    extra = [found for found in of(entries, "network") if found not in (first, *others)]
    if extra:
        message = f"{extra[0].text} is loaded beside the network, and is not counted."
        run.note("warning", "not-counted", message, at=like)
    if "input_image" in run.get("_inputs", ()) and name == "wan2.2-ti2v-5b":
        run.put("model.dims.token_timesteps", True, like="_inputs")  # seperated_timestep with fuse_vae_embedding_in_latents


def _method(run: Draft) -> None:
    base, trained = run.get("_base"), run.get("_trainable", ())
    if run.get("_template") is not None:
        run.note("error", "not-modelled", "template models are not modelled.", at="_template")
    elif base is not None and trained:
        message = f"training {', '.join(trained)} beside LoRA on {base} is not modelled; expected one of the two."
        run.note("error", "not-modelled", message, at="_trainable")
    elif base is None and not trained:
        message = "neither --lora_base_model nor --trainable_models says what to train, so the optimizer gets an empty list."
        run.note("error", "nothing-trained", message)
    elif base is None and trained not in (("dit",), ("unet",)):
        run.note("error", "not-modelled", f"training {shown(trained)} is not modelled; expected dit.", at="_trainable")
    elif base is not None and base not in ("dit", "dit2", "unet"):
        run.note("error", "not-modelled", f"LoRA on {base} is not modelled; expected dit.", at="_base")
    elif base is None and run.get("model.experts") == "both":
        message = "training one expert whole while the other is loaded beside it is not modelled; name one of the two."
        run.note("error", "not-modelled", message, at="model.experts")
    run.check()
    run.put("train.method", "full" if base is None else "lora", like="_trainable" if base is None else "_base")
    run.put("train.batch", 1)  # runner.py: DataLoader(collate_fn=lambda x: x[0])
    if base is None:
        run.drop("train.lora")
        return
    run.put("train.lora.alpha", run.get("train.lora.rank"))  # add_lora_to_model: lora_alpha = lora_rank
    run.put("train.lora.dtype", "bf16")  # upcast_dtype=pipe.torch_dtype
    diffsynth_run.adapted(run)


def shown(names: tuple[str, ...]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def _size(run: Draft) -> None:
    """Pictures keep their own size up to --max_pixels, unless height and width are both given."""
    if not run.get("model.name").startswith(VIDEO):
        run.put("data.frames", 1)
        run.assumed.pop("data.frames", None)
    if "data.height" in run.settled and "data.width" in run.settled:
        return
    alone = next((path for path in ("data.height", "data.width") if path in run.settled), None)
    if alone is not None:
        message = f"{run.origins[alone]} alone changes nothing: the size is free up to --max_pixels until both sides are given."
        run.note("warning", "one-side", message, at=alone)
    multiple = 32 if run.get("model.name").startswith(("ltx", "wan2.2-ti2v")) else 16
    for path, length in zip(("data.height", "data.width"), _largest(run.get("_pixels"), multiple), strict=True):
        run.drop(path)
        run.put(path, length, like="_pixels")


def _largest(pixels: int, multiple: int) -> tuple[int, int]:
    """The height and width of most pixels that --max_pixels lets through, up to twice as wide as high."""
    middle = max(multiple, isqrt(pixels) // multiple * multiple)
    sides = [(side, max(multiple, pixels // side // multiple * multiple)) for side in range(middle, middle // 2, -multiple)]
    return max(sides, key=lambda size: size[0] * size[1])


def _rest(run: Draft) -> None:
    diffsynth_run.encoders(run)
    diffsynth_run.precision(run)
    if run.get("model.name").startswith("wan"):
        run.put("train.checkpointing", True)  # wanvideo/model_training/train.py turns it on whatever is asked for
        run.assumed.pop("train.checkpointing", None)
    elif run.get("offload.activations"):
        run.put("train.checkpointing", True, like="offload.activations")
    diffsynth_run.checkpoints(run)
    if run.get("offload.layers"):
        run.put("offload.text_layers", True, like="offload.layers")
    if run.get("offload.layers") and run.get("_optimizer_away"):
        run.put("offload.optimizer", True, like="_optimizer_away")
    if "save.every" not in run.settled:
        run.put("save.every_epochs", 1)  # logger.py: on_epoch_end
    else:
        run.put("save.final", True)
    run.put("save.optimizer", False)
    run.put("schedule.unit", "pass")  # logger.py: on_step_end counts each pass of the loop


def _inverse(run: Draft, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Both sides of a size, and the optimizer's place, which has a flag only where the layers have left."""
    answer = dict(changes)
    for path, other in (("data.height", "data.width"), ("data.width", "data.height")):
        if path in changes:
            answer.setdefault(other, run.get(other))
    if not run.get("model.name").startswith(VIDEO):
        answer.pop("data.frames", None)
    moved = answer.pop("offload.optimizer", None)
    if moved is not None and run.get("offload.layers"):
        answer["_optimizer_away"] = moved
    if not run.get("model.name").startswith(diffsynth_run.SENT):
        answer.pop("offload.activations", None)
    return answer


ADAPTER = Adapter(name="diffsynth", matches=matches, read=read, trains=trains, tables=(TABLE,))
