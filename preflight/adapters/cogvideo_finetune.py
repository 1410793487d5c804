"""CogVideo's finetune/train.py: what its flags say.

Latents and captions are encoded before the first step. The network is loaded in float32 and runs under accelerate's autocast;
DeepSpeed casts it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from preflight.adapters import flags, launcher
from preflight.adapters.conversions import (
    RANKS,
    SIDE,
    STEPS,
    Conversion,
    RefusedError,
    choice,
    flag,
    flag_text,
    real,
    text,
    whole,
    words,
)
from preflight.adapters.draft import Draft
from preflight.adapters.reading import Reading
from preflight.adapters.run_values import count, place
from preflight.adapters.table import Field
from preflight.document import Document
from preflight.finding import ConfigError

ARGS = "finetune/schemas/args.py"
#: The last part of a model's path, in lower case; what a model_name alone says, and whether it says which size.
NETWORKS = {
    "cogvideox-2b": "cogvideox-2b",
    "cogvideox-5b": "cogvideox-5b",
    "cogvideox-5b-i2v": "cogvideox-5b-i2v",
    "cogvideox1.5-5b": "cogvideox1.5-5b",
    "cogvideox1.5-5b-i2v": "cogvideox1.5-5b-i2v",
}
NAMES = {
    "cogvideox-t2v": ("cogvideox-5b", False),
    "cogvideox-i2v": ("cogvideox-5b-i2v", True),
    "cogvideox1.5-t2v": ("cogvideox1.5-5b", True),
    "cogvideox1.5-i2v": ("cogvideox1.5-5b-i2v", True),
}
#: finetune/utils/optimizer_utils.py: any other is AdamW.
OPTIMIZERS = {"adam": "adam", "adamw": "adamw", "prodigy": "prodigy", "came": "came"}
#: finetune/models/*/lora_trainer.py: what stays on the GPU beside the network.
TRUTHY = ("gradient_checkpointing", "enable_slicing", "enable_tiling", "pin_memory")


def _resolution() -> Conversion:
    """`--train_resolution`: frames x height x width."""
    expected = 'frames, height and width, such as "81x768x1360"'

    def read(value: Any) -> tuple[int, int, int]:
        parts = str(value).split("x")
        if len(parts) != 3 or not all(part.strip().isdigit() and 1 <= int(part) <= SIDE for part in parts):
            raise RefusedError(expected)
        frames, height, width = (int(part) for part in parts)
        return frames, height, width

    return Conversion(name="resolution", read=read, write=lambda value, _: "x".join(map(str, value)), schema={"type": "string"})


def _truthy() -> Conversion:
    """argparse's type=bool, for which any text is true: "False" too."""

    def read(value: Any) -> bool:
        return bool(value)

    return Conversion(
        name="text that is true", read=read, write=lambda value, _: "True" if value else "", schema={"type": ["string", "boolean"]}
    )


number = flag_text(whole())
FIELDS = (
    Field(path="paths.model", keys=("model_path",), convert=place()),
    Field(path="_name", keys=("model_name",), convert=text("a model's name, such as cogvideox-t2v")),
    Field(path="train.method", keys=("training_type",), convert=choice("a way to train", {"lora": "lora", "sft": "full"})),
    Field(path="_type", keys=("model_type",), convert=choice("a type", {"t2v": "t2v", "i2v": "i2v"})),
    Field(path=("data.frames", "data.height", "data.width"), keys=("train_resolution",), convert=_resolution()),
    Field(path="train.batch", keys=("batch_size",), convert=number, default=1, source=ARGS),
    Field(path="train.accumulation", keys=("gradient_accumulation_steps",), convert=flag_text(whole(1, STEPS)), default=1,
          source=ARGS),
    Field(path="train.optimizer.name", keys=("optimizer",), convert=text("an optimizer"), default="adamw", source=ARGS),
    Field(path="_mixed", keys=("mixed_precision",), convert=choice("a precision", {"no": "no", "fp16": "fp16", "bf16": "bf16"}),
          default="no", source=ARGS),
    Field(path="train.checkpointing", keys=("gradient_checkpointing",), convert=_truthy(), default=True, source=ARGS),
    Field(path="sample.tiling", keys=("enable_tiling",), convert=_truthy(), default=True, source=ARGS),
    Field(path="train.lora.rank", keys=("rank",), convert=flag_text(whole(1, SIDE)), default=128, source=ARGS),
    Field(path="train.lora.alpha", keys=("lora_alpha",), convert=flag_text(real(0, 1e6)), default=64, source=ARGS),
    Field(path="train.lora.targets", keys=("target_modules",), convert=words("module names", {}),
          default=["to_q", "to_k", "to_v", "to_out.0"], source=ARGS),
    Field(path="_validates", keys=("do_validation",), convert=flag(), default=False, source=ARGS),
    Field(path="sample.every", keys=("validation_steps",), convert=flag_text(count())),
    Field(path="save.every", keys=("checkpointing_steps",), convert=flag_text(count()), default=200, source=ARGS),
    Field(path="save.keep", keys=("checkpointing_limit",), convert=flag_text(whole(1, STEPS)), default=10, source=ARGS),
    Field(path="schedule.epochs", keys=("train_epochs",), convert=flag_text(count()), default=10, source=ARGS),
    Field(path="schedule.steps", keys=("train_steps",), convert=flag_text(count())),
    Field(path="schedule.warmup", keys=("lr_warmup_steps",), convert=flag_text(count(0))),
    Field(path="data.workers", keys=("num_workers",), convert=flag_text(count(0, RANKS)), default=8, source=ARGS),
    Field(path="paths.train", keys=("data_root",), convert=place()),
    Field(path="paths.output", keys=("output_dir",), convert=place()),
    Field(path="paths.resume", keys=("resume_from_checkpoint",), convert=place()),
    *launcher.FIELDS,
)  # fmt: skip

TABLE = flags.flag_table(
    unread="{key} is not a flag of CogVideo's train.py, whose parser stops at it",
    fields=FIELDS,
    no_effect=(
        "report_to", "caption_column", "video_column", "image_column", "seed", "learning_rate", "beta1", "beta2", "beta3",
        "epsilon", "weight_decay", "max_grad_norm", "lr_scheduler", "lr_num_cycles", "lr_power", "pin_memory", "enable_slicing",
        "nccl_timeout", "validation_dir", "validation_prompts", "validation_images", "validation_videos", "gen_fps",
    ),
)  # fmt: skip


def read(document: Document) -> Reading:
    run = flags.draft(launcher.including(document), TABLE)
    _required(run)
    _model(run)
    launched = launcher.settle(run, accumulates=False)  # trainer.py: accumulate([…]) of a list, which has no no_sync
    _precision(run, launched)
    if run.get("train.method") == "full":
        run.drop("train.lora")
    if (name := str(run.get("train.optimizer.name")).lower()) not in OPTIMIZERS or launched.engine:
        name = "adamw"  # DeepSpeed's files of the trainer name their own, AdamW
    run.put("train.optimizer.name", name, like="train.optimizer.name")
    run.put("data.latents", "cached")
    run.put("data.text", "cached")
    _phases(run, launched)
    _remarks(run)
    return run.reading()


def _required(run: Draft) -> None:
    for path, key in (("train.method", "--training_type"), ("data.frames", "--train_resolution"), ("_name", "--model_name")):
        if path not in run.settled:
            message = f"{key} is missing, and CogVideo's train.py has no default for it."
            run.findings.append(run.document.finding("missing-key", "error", message, key=key))
    run.check()


def _model(run: Draft) -> None:
    folder = str(run.get("paths.model", "")).rstrip("/").rsplit("/", 1)[-1].lower()
    said = str(run.get("_name"))
    name, sure = NAMES.get(said, (None, False))
    if name is None:
        message = f"{run.origins['_name']} is {said}, for which the trainer has no class; expected one of {', '.join(NAMES)}."
        raise ConfigError(run.document.finding("invalid-value", "error", message, key=run.origins["_name"]))
    known = NETWORKS.get(folder)
    if known is None and not sure:
        message = f"neither the folder's name nor {said} says whether the network is CogVideoX-2b or 5b, so {name} is counted."
        run.note("warning", "model-assumed", message, at="_name")
    run.put("model.name", known or name, like="paths.model" if known else "_name")


def _precision(run: Draft, launched: launcher.Launched) -> None:
    """trainer.py: prepare_optimizer makes what is trained float32; accelerate runs the rest under autocast.

    The network is not among what __move_components_to_device casts, so it stays as from_pretrained makes it, float32.
    """
    told = str(run.get("_mixed"))
    mixed = launched.mixed_precision if launched.engine and launched.mixed_precision not in (None, "no") else told
    half = mixed if mixed in ("bf16", "fp16") else None
    like = "_mixed"
    engine = launched.engine and half is not None
    run.put("precision.weights", half if engine else "fp32", like=like)
    run.put("precision.master", "fp32" if engine else None, like=like)
    run.put("precision.autocast", None if engine else half, like=like)
    run.put("precision.attention", None if engine else half, like=like)
    run.put("precision.vae", half or "fp32", like=like)
    run.put("precision.text_encoder", half or "fp32", like=like)
    if run.get("train.method") == "lora":
        run.put("train.lora.dtype", half if engine else "fp32", like=like)
    for path, what, ours in (("train.accumulation", "gradient_accumulation_steps", launched.accumulation),
                             ("train.batch", "train_micro_batch_size_per_gpu", launched.batch)):  # fmt: skip
        if launched.engine and ours is not None and ours != run.get(path):
            key = run.origins.get(path, path)
            message = f"{key} is {run.get(path)} and {what} in DeepSpeed's file {ours}: the trainer asks for the same in both."
            run.note("warning", "batch-differs", message, at=path)


def _phases(run: Draft, launched: launcher.Launched) -> None:
    """trainer.py, validate: pipe.enable_model_cpu_offload, which DeepSpeed cannot have: there all parts are moved to the GPU."""
    run.put("save.final", True)
    if not run.get("_validates"):
        run.drop("sample")
        return
    if "sample.every" not in run.settled:
        message = "--validation_steps is missing, and the trainer stops without it when do_validation is true."
        run.findings.append(run.document.finding("missing-key", "error", message, key="--do_validation"))
        run.check()
    run.put("sample.final", True, like="_validates")
    run.put("sample.text", True, like="_validates")
    run.put("sample.offload", not launched.engine, like="_validates")
    run.put("sample.steps", 50, like="_validates")  # the pipelines' num_inference_steps


def _remarks(run: Draft) -> None:
    data: Mapping[str, Any] = run.document.data
    for name in TRUTHY:
        said = data.get(f"--{name}")
        if isinstance(said, str) and said.strip().lower() in ("false", "no", "0", "off"):
            message = f"--{name} {said} turns it on: the trainer reads it with type=bool, for which any text is true."
            fix = f'--{name} ""'
            run.findings.append(run.document.finding("text-is-true", "warning", message, key=f"--{name}", fix=fix))
    if str(run.get("model.name")).endswith("i2v"):  # models/cogvideox_i2v/lora_trainer.py: UNLOAD_LIST; it encodes first frames
        run.put("data.vae_resident", True)
