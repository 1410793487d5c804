"""What VideoTuna's YAML may say: the keys of both its scripts, as scripts/train.py has them, and what holds without them.

scripts/train_new.py has the blocks `data` and `lightning` inside `train`.
"""

from __future__ import annotations

from preflight.adapters.conversions import RANKS, SIDE, STEPS, Conversion, choice, real, whole, words
from preflight.adapters.run_values import count, place
from preflight.adapters.table import HARDWARE, Field, Table
from preflight.adapters.videotuna_values import PRECISIONS, devices, strategy
from preflight.adapters.wan_values import MODULES
from preflight.document import Document

TRAINER = "lightning.trainer"
DATA = "data.params.train.params"
CALLBACKS = ("metrics_over_trainsteps_checkpoint", "model_checkpoint", "modelcheckpoint")
HALF = {"fp16": "fp16", "bf16": "bf16", "float16": "fp16", "bfloat16": "bf16", "float32": "fp32", "torch.float16": "fp16",
        "torch.bfloat16": "bf16", "torch.float32": "fp32"}  # fmt: skip


def _inner(name: str) -> tuple[str, str]:
    """The key of a part's params in either layout: under `flow` for train_new.py, under `model` for train.py."""
    return f"flow.params.{name}", f"model.params.{name}"


def _lora(name: str) -> tuple[str, str]:
    return f"flow.params.lora_config.{name}", f"model.params.adapter_config.{name}"


def _text(what: str) -> Conversion:
    return choice(what, HALF)


FIELDS = (
    Field(path="_task", keys=("flow.params.task",), convert=place()),
    Field(path="_folder", keys=("model.params.denoiser_config.params.pretrained_model_name_or_path",), convert=place()),
    Field(path="_load", keys=("model.params.denoiser_config.params.load_dtype",), convert=_text("a dtype")),
    Field(path="precision.text_encoder", keys=("model.params.cond_stage_config.params.torch_dtype",), convert=_text("a dtype")),
    Field(path="_adapter", keys=_lora("target"), convert=place()),
    Field(path="train.lora.rank", keys=_lora("params.r"), convert=whole(1, SIDE), default=8, source="peft: LoraConfig"),
    Field(path="train.lora.alpha", keys=_lora("params.lora_alpha"), convert=real(), default=8, source="peft: LoraConfig"),
    Field(path="train.lora.dropout", keys=_lora("params.lora_dropout"), convert=real(0, 1), default=0.0,
          source="peft: LoraConfig"),
    Field(path="train.lora.targets", keys=_lora("params.target_modules"), convert=words("module names", MODULES)),
    *(Field(path=f"_{name}", keys=(f"flow.params.{name}",), convert=whole(1, RANKS)) for name in ("ulysses_size", "ring_size")),
    Field(path="train.batch", keys=("data.params.batch_size",), convert=whole()),
    Field(path="data.workers", keys=("data.params.num_workers",), convert=count(0, RANKS)),
    Field(path="_dataset", keys=("data.params.train.target",), convert=place(),
          default="videotuna.data.datasets.DatasetFromCSV", source="all configs but those of a folder of videos"),
    Field(path="paths.train", keys=(f"{DATA}.csv_path", f"{DATA}.instance_data_root"), convert=place()),
    Field(path="data.height", keys=(f"{DATA}.height",), convert=whole(1, SIDE)),
    Field(path="data.width", keys=(f"{DATA}.width",), convert=whole(1, SIDE)),
    Field(path="_num_frames", keys=(f"{DATA}.num_frames",), convert=whole(1, SIDE)),
    Field(path="_max_num_frames", keys=(f"{DATA}.max_num_frames",), convert=whole(1, SIDE)),
    Field(path="_strategy", keys=("lightning.strategy",), convert=strategy()),
    Field(path="_devices", keys=(f"{TRAINER}.devices",), convert=devices()),
    Field(path="parallel.gpus", keys=("hardware.gpus",), convert=whole(1, RANKS)),
    Field(path="parallel.nodes", keys=(f"{TRAINER}.num_nodes",), convert=whole(1, RANKS), default=1,
          source="Lightning: Trainer"),
    Field(path="train.accumulation", keys=(f"{TRAINER}.accumulate_grad_batches",), convert=whole(1, STEPS), default=1,
          source="Lightning: Trainer"),
    Field(path="_precision", keys=(f"{TRAINER}.precision",), convert=choice("a precision", PRECISIONS), default="32-true",
          source="Lightning: Trainer"),
    Field(path="schedule.epochs", keys=(f"{TRAINER}.max_epochs",), convert=count()),
    Field(path="schedule.steps", keys=(f"{TRAINER}.max_steps",), convert=count()),
    Field(path="_images", keys=("lightning.callbacks.image_logger.params.batch_frequency",), convert=whole(-1, STEPS),
          default=1000, source="utils/train_utils.py: get_trainer_callbacks"),
    *(Field(path="save.every", keys=(f"lightning.callbacks.{name}.params.every_n_train_steps",), convert=count(), precedence=-n)
      for n, name in enumerate(CALLBACKS)),
    *(Field(path="save.every_epochs", keys=(f"lightning.callbacks.{name}.params.every_n_epochs",), convert=count(), precedence=-n)
      for n, name in enumerate(CALLBACKS)),
    *(Field(path="_weights_only", keys=(f"lightning.callbacks.{name}.params.save_weights_only",), precedence=-n,
            convert=choice("true or false", {"true": True, "no": False})) for n, name in enumerate(CALLBACKS)),
    Field(path="paths.model", keys=("flow.params.ckpt_path", "ckpt"), convert=place()),
    Field(path="paths.output", keys=("logdir",), convert=place()),
    *(field for field in HARDWARE if field.path != "parallel.nodes"),
)  # fmt: skip

#: Parts of which nothing is read here; LoraConfig's other arguments; and those of Lightning's Trainer.
PARTS = ("first_stage_config", "cond_stage_2_config", "cond_stage_config_2", "scheduler_config", "tokenizer_config",
         "tokenizer_config_2", "deepspeed_config")  # fmt: skip
LORA = ("ckpt_path", "params.init_lora_weights", "params.bias", "params.task_type", "params.use_rslora")
LIGHTNING = (
    "accelerator", "benchmark", "log_every_n_steps", "val_check_interval", "gradient_clip_*", "check_val_every_n_epoch",
    "num_sanity_val_steps", "deterministic", "detect_anomaly", "limit_*_batches", "enable_*", "min_*", "max_time", "fast_dev_run",
    "sync_batchnorm", "use_distributed_sampler", "default_root_dir", "profiler", "inference_mode", "overfit_batches", "num_workers",
    "barebones", "reload_dataloaders_every_n_epochs",
)  # fmt: skip
NO_EFFECT = (
    "flow.target", "model.target", "model.base_learning_rate", "model.scale_lr", "model.pretrained_checkpoint",
    *(key for name in PARTS for key in _inner(name)), *(f"{key}.*" for name in PARTS for key in _inner(name)),
    *(key for name in ("target", "use_from_pretrained", "freeze", "params.*") for part in ("denoiser_config", "cond_stage_config")
      for key in _inner(f"{part}.{name}")),
    *(key for name in LORA for key in _lora(name)),
    "model.params.noised_image_*", "flow.params.offload_model", "flow.params.t5_fsdp", "flow.params.t5_cpu", "flow.params.dit_fsdp",
    "flow.params.*prompt_extend*", "flow.params.seed", "inference.*", "inference", "name", "seed", "debug", "first_stage_key",
    "cond_stage_key", "mapping", "mapping.*", "lr_config", "lr_config.*", "data.target", "data.params.wrap",
    "data.params.validation", "data.params.validation.*", "data.params.test", "data.params.test.*",
    *(f"{DATA}.{name}" for name in ("frame_interval", "train", "image_to_video", "data_root", "split_val", "fps", "cache_dir",
                                    "id_token", "dataset_*", "*_column", "skip_frames_*", "video_length", "resolution")),
    *(f"{TRAINER}.{name}" for name in LIGHTNING), "lightning.callbacks.*.target", "lightning.callbacks.*.params.*",
    "lightning.logger", "lightning.logger.*", "resume_ckpt", "trained_ckpt", "lorackpt",
)  # fmt: skip


def prefer(key: str, document: Document) -> str:
    """train_new.py's data and lightning stand in the block `train`."""
    return f"train.{key}" if "flow" in document.data and key.startswith(("data.", "lightning.")) else key


TABLE = Table(
    unread="{key} is not a key that VideoTuna reads",
    fields=FIELDS,
    no_effect=NO_EFFECT,
    sections=frozenset({"train"}),
    prefer=prefer,
)
