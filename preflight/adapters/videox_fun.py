"""VideoX-Fun: the launch of a train.py or train_lora.py under scripts/wan*, for Wan 2.1, Wan 2.1 Fun and Wan 2.2.

Flags and defaults are those of scripts/wan2.1_fun/train_lora.py and train.py of github.com/aigc-apps/VideoX-Fun, commit 804a425.
The network is videox_fun/models/wan_transformer3d.py, and without --use_peft_lora adapters are those of utils/lora_utils.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from preflight import catalog
from preflight.adapters import flags, launcher, videox_fun_run
from preflight.adapters.conversions import COUNT, SIDE, STEPS, choice, flag, flag_text, text, whole, words
from preflight.adapters.diffsynth_models import entry, network
from preflight.adapters.draft import Draft
from preflight.adapters.reading import Adapter, Reading
from preflight.adapters.run_values import count, place
from preflight.adapters.table import Field
from preflight.document import Document
from preflight.finding import ConfigError
from preflight.launching.launch import Unresolved

TRAINER = "scripts/wan2.1_fun/train_lora.py"
MODES = {"normal": "normal", "inpaint": "inpaint", "i2v": "i2v", "ti2v": "ti2v", "control": "control",
         "control_ref": "control_ref", "control_camera_ref": "control_camera_ref"}  # fmt: skip
PRECISIONS = {"no": "fp32", "bf16": "bf16", "fp16": "fp16"}

number, steps, side = flag_text(whole()), flag_text(whole(1, STEPS)), flag_text(whole(1, SIDE))


def _flag(path: str, key: str, *, default: bool | None = False) -> Field:
    if default is None:
        return Field(path=path, keys=(key,), convert=flag())
    return Field(path=path, keys=(key,), convert=flag(), default=default, source=f"{TRAINER}: --{key}")


def _number(path: str, key: str, convert: Any, default: int) -> Field:
    return Field(path=path, keys=(key,), convert=convert, default=default, source=f"{TRAINER}: --{key}")


FIELDS = (
    Field(path="_model", keys=("pretrained_model_name_or_path",), convert=text("a model's folder")),
    Field(path="_mode", keys=("train_mode",), convert=choice("a mode", MODES), default="normal", source=f"{TRAINER}: --train_mode"),
    Field(path="_expert", keys=("boundary_type",), convert=choice("an expert", {"low": "low", "high": "high", "full": "full"})),
    _number("train.batch", "train_batch_size", number, 16),
    _number("train.accumulation", "gradient_accumulation_steps", steps, 1),
    _flag("train.checkpointing", "gradient_checkpointing"),
    _number("train.lora.rank", "rank", side, 128),
    _number("train.lora.alpha", "network_alpha", flag_text(whole(0, SIDE)), 64),
    _flag("_peft", "use_peft_lora"),
    Field(path="_targets", keys=("target_name",), convert=words("parts of modules' names", {})),
    Field(path="_skipped", keys=("lora_skip_name",), convert=words("parts of modules' names", {})),
    Field(path="_trainable", keys=("trainable_modules",), convert=words("parts of parameters' names", {})),
    Field(path="_slower", keys=("trainable_modules_low_learning_rate",), convert=words("parts of parameters' names", {})),
    _flag("_text_trains", "train_text_encoder", default=None),
    _flag("_8bit", "use_8bit_adam"),
    _flag("_came", "use_came"),
    _flag("train.ema", "use_ema"),
    Field(path="_precision", keys=("mixed_precision",), convert=choice("a precision", PRECISIONS)),
    _flag("precision.tf32", "allow_tf32"),
    _number("_video", "video_sample_size", side, 512),
    _number("_image", "image_sample_size", side, 512),
    _number("_token", "token_sample_size", side, 512),
    _number("_frames", "video_sample_n_frames", flag_text(whole(1, COUNT)), 17),
    Field(path=("_fixed.height", "_fixed.width"), keys=("fix_sample_size",), convert=videox_fun_run.fixed()),
    _flag("_bucket", "enable_bucket"),
    _flag("_adapts", "random_hw_adapt"),
    _flag("_by_tokens", "training_with_video_token_length"),
    _flag("_tiles", "auto_tile_batch_size", default=None),
    _number("data.text_tokens", "tokenizer_max_length", side, 512),
    _flag("_low_vram", "low_vram"),
    _flag("_text_beside", "enable_text_encoder_in_dataloader"),
    _number("data.workers", "dataloader_num_workers", flag_text(count(0, COUNT)), 0),
    Field(path="_prompts", keys=("validation_prompts",), convert=words("prompts", {})),
    _number("_sample.every", "validation_steps", flag_text(count()), 2000),
    _number("_sample.every_epochs", "validation_epochs", flag_text(count()), 5),
    _number("save.every", "checkpointing_steps", flag_text(count()), 500),
    Field(path="save.keep", keys=("checkpoints_total_limit",), convert=flag_text(count())),
    _flag("save.optimizer", "save_state"),
    _number("schedule.epochs", "num_train_epochs", flag_text(count()), 100),
    Field(path="schedule.steps", keys=("max_train_steps",), convert=flag_text(count())),
    _number("schedule.warmup", "lr_warmup_steps", flag_text(count(0)), 500),
    Field(path="paths.train", keys=("train_data_meta", "train_data_dir"), convert=place()),
    Field(path="paths.resume", keys=("resume_from_checkpoint", "transformer_path"), convert=place()),
    Field(path="paths.output", keys=("output_dir",), convert=place(), default="sd-model-finetuned",
          source=f"{TRAINER}: --output_dir"),
    *launcher.FIELDS,
)  # fmt: skip

NO_EFFECT = (
    "config_path", "vae_path", "vae_mini_batch", "video_sample_stride", "video_repeat", "uniform_sampling", "multi_stream",
    "random_flip", "random_ratio_crop", "random_frame_crop", "max_train_samples", "validation_paths", "cache_dir", "seed",
    "revision", "variant", "non_ema_revision", "input_perturbation", "learning_rate", "scale_lr", "lr_scheduler", "adam_beta1",
    "adam_beta2",
    "adam_weight_decay", "adam_epsilon", "max_grad_norm", "push_to_hub", "hub_token", "hub_model_id", "prediction_type",
    "logging_dir", "report_to", "local_rank", "noise_offset", "tracker_project_name", "snr_loss", "motion_sub_loss",
    "motion_sub_loss_ratio", "train_sampling_steps", "keep_all_node_same_token_length", "use_deepspeed", "use_fsdp",
    "weighting_scheme", "logit_mean", "logit_std", "mode_scale", "abnormal_norm_clip_start", "initial_grad_norm_ratio",
    "report_model_info", "control_ref_image", "add_full_ref_image_in_self_attention",
)  # fmt: skip

TABLE = flags.flag_table(
    unread="{key} is not a flag of VideoX-Fun's trainers, whose parser stops at it", fields=FIELDS, no_effect=NO_EFFECT
)

#: The sections of a network's own file (config/wan2.1/wan_civitai.yaml), which --config_path names.
SECTIONS = frozenset({"transformer_additional_kwargs", "vae_kwargs"})


def matches(document: Document) -> bool:
    """A program that is told its pictures' and clips' sizes as VideoX-Fun's are, or the file of a network that it reads."""
    if document.launch is None:
        return document.data.keys() >= SECTIONS
    keys = {str(key).lstrip("-") for key in document.data}
    return "video_sample_n_frames" in keys or {"train_data_meta", "image_sample_size", "pretrained_model_name_or_path"} <= keys


def read(document: Document) -> Reading:
    """Raises ConfigError for values that cannot be understood, and for what is not modelled."""
    if document.launch is None:
        message = (
            "this is the file of a network, which --config_path names, and no training config; give the launch of the train.py"
            " or train_lora.py that reads it."
        )
        raise ConfigError(
            document.finding("not-a-training-config", "error", message, key=min(SECTIONS & document.data.keys(), default=None))
        )
    run = flags.draft(launcher.including(_named(document)), TABLE)
    _model(run, document.launch.program)
    videox_fun_run.method(run)
    videox_fun_run.size(run)
    videox_fun_run.encoders(run)
    started = launcher.settle(run)
    videox_fun_run.launched(run, started)
    videox_fun_run.phases(run)
    return run.reading(_inverse)


def _named(document: Document) -> Document:
    """The model's folder as it is written, where its last part says which model that is, whatever stands before it."""
    key = next((key for key in document.data if str(key).lstrip("-") == "pretrained_model_name_or_path"), None)
    value = document.data.get(key) if key is not None else None
    if key is None or not isinstance(value, Unresolved) or network(entry(str(value).rstrip("/"))) is None:
        return document
    return replace(document, data={**document.data, key: str(value)})


def _model(run: Draft, program: str) -> None:
    trainer = program.replace("\\", "/").rpartition("/")[2]
    if trainer not in ("train.py", "train_lora.py", "train_control.py", "train_control_lora.py"):
        message = f"{program} is not modelled; expected VideoX-Fun's train.py, train_lora.py or train_control.py."
        raise ConfigError(run.document.finding("not-modelled", "error", message, key="--pretrained_model_name_or_path"))
    run.put("_trainer", trainer)
    if "_model" not in run.settled:
        message = "--pretrained_model_name_or_path is missing; expected the folder of a model, whose name says which it is."
        raise ConfigError(run.document.finding("missing-key", "error", message, key="--pretrained_model_name_or_path"))
    name = network(entry(run.get("_model").rstrip("/")))
    if name is None:
        message = f"{run.get('_model')} does not say which network it is; expected a folder such as models/Wan2.1-T2V-14B."
        run.note("error", "unknown-model", message, at="_model")
    elif name not in {known.id for known in catalog.networks()}:
        run.note("error", "not-modelled", f"{name} is not modelled yet.", at="_model")
    elif not name.startswith("wan2"):
        message = f"{name} in VideoX-Fun's trainers is not modelled; expected Wan 2.1, Wan 2.1 Fun or Wan 2.2."
        run.note("error", "not-modelled", message, at="_model")
    elif name.startswith("wan2.1-vace"):
        run.note("error", "not-modelled", f"{name} in VideoX-Fun's trainers is not modelled.", at="_model")
    run.check()
    run.put("model.name", name, like="_model")
    run.put("model.code", "videox")
    if name == "wan2.2-ti2v-5b" and run.get("_mode") != "normal":
        run.put("model.dims.token_timesteps", True, like="_mode")


def _inverse(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Sizes, frames, the optimizer's bits and the encoders' place have flags of their own."""
    answer = {path: value for path, value in changes.items() if path not in ("data.height", "data.width", "data.frames")}
    if "data.frames" in changes:
        answer["_frames"] = changes["data.frames"]
    if {"data.height", "data.width"} <= changes.keys():
        answer["_fixed.height"], answer["_fixed.width"] = changes["data.height"], changes["data.width"]
    if "offloaded" in (answer.pop("data.latents", None), answer.pop("data.text", None)):
        answer["_low_vram"] = True
    if answer.get("train.optimizer.bits") == 8:
        answer["_8bit"] = True
    return answer


ADAPTER = Adapter(name="videox-fun", matches=matches, read=read, tables=(TABLE,))
