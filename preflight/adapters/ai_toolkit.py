"""ai-toolkit by Ostris: a job of one process, in YAML or in the JSON that its user interface writes.

Names and defaults are toolkit/config_modules.py of github.com/ostris/ai-toolkit (commit 27a03a9); what is done with them is
jobs/process/BaseSDTrainProcess.py, extensions_built_in/sd_trainer/SDTrainer.py and each model's own load_model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from preflight.adapters import ai_toolkit_keys as keys
from preflight.adapters import ai_toolkit_memory, ai_toolkit_sliders
from preflight.adapters import ai_toolkit_run as stages
from preflight.adapters.ai_toolkit_jobs import job
from preflight.adapters.ai_toolkit_models import ARCHS, ELSEWHERE, FLAGS
from preflight.adapters.ai_toolkit_values import network_type, optimizer, patterns, percent, qtype, resolutions
from preflight.adapters.conversions import DTYPE, RANKS, SIDE, choice, flag, real, text, whole
from preflight.adapters.draft import draft
from preflight.adapters.reading import Adapter, Reading
from preflight.adapters.run_values import count, place
from preflight.adapters.table import HARDWARE, Field, Table
from preflight.document import Document

TRAIN, MODEL, DATA = "TrainConfig", "ModelConfig", "DatasetConfig"
ARCH_WORDS = {name: name for name in (*ARCHS, *ELSEWHERE)}


def _arch() -> Any:
    """`arch`, with a tag behind a colon or without (ModelConfig)."""
    inner = choice("an architecture", ARCH_WORDS, exact=True)

    def read(value: Any) -> Any:
        return inner.read(value.partition(":")[0] if isinstance(value, str) else value)

    return type(inner)(name=inner.name, read=read, write=inner.write, schema={"type": "string", "minLength": 1})


FIELDS = (
    Field(path="_arch", keys=("model.arch",), convert=_arch()),
    *(Field(path=f"_flag.{word}", keys=(f"model.{word}",), convert=flag()) for word in FLAGS),
    Field(path="_path", keys=("model.name_or_path",), convert=place()),
    Field(path="_kind", keys=("network.type",), convert=network_type(), default="lora", source="NetworkConfig"),
    Field(path="_rank", keys=("network.linear",), convert=whole(1, SIDE), default=4, source="NetworkConfig"),
    Field(path="_rank", keys=("network.rank",), convert=whole(1, SIDE), precedence=1),
    Field(path="train.lora.alpha", keys=("network.linear_alpha",), convert=real(0, 1e12), precedence=1),
    Field(path="train.lora.alpha", keys=("network.alpha",), convert=real(0, 1e12), default=1.0, source="NetworkConfig"),
    Field(path="_full_rank", keys=("network.lokr_full_rank",), convert=flag(), default=True, source="NetworkConfig"),
    Field(path="_factor", keys=("network.lokr_factor",), convert=whole(-1, SIDE), default=-1, source="NetworkConfig"),
    Field(path="_conv", keys=("network.conv",), convert=whole(0, SIDE)),
    Field(path="_only_blocks", keys=("network.transformer_only",), convert=flag(), default=True, source="NetworkConfig"),
    Field(path="_all_layers", keys=("network.all_layers",), convert=flag(), default=False, source="NetworkConfig"),
    Field(path="_whole", keys=("network.network_kwargs.full_if_contains",), convert=patterns()),
    Field(path="_ignore", keys=("network.network_kwargs.ignore_if_contains",), convert=patterns()),
    Field(path="_only", keys=("network.network_kwargs.only_if_contains",), convert=patterns()),
    Field(path="_resolution", keys=("datasets.*.resolution",), convert=resolutions(), among="largest", default=512, source=DATA),
    Field(path="_anchor", keys=("slider.anchor_class",), convert=text("the words of a class")),
    Field(path="_pair_size", keys=("slider.datasets.*.size",), convert=whole(1, SIDE), among="largest", default=512,
          source="ReferenceDatasetConfig"),
    Field(path="data.frames", keys=("datasets.*.num_frames",), convert=whole(1, SIDE), among="largest", default=1, source=DATA),
    Field(path="_own_batch", keys=("datasets.*.batch_size",), convert=whole(), among="largest"),
    Field(path="_in_memory", keys=("datasets.*.cache_latents",), convert=flag(), among="largest", default=False, source=DATA),
    Field(path="_on_disk", keys=("datasets.*.cache_latents_to_disk",), convert=flag(), among="largest", default=False, source=DATA),
    Field(path="data.workers", keys=("datasets.*.num_workers",), convert=count(0, RANKS), among="first", default=2, source=DATA),
    Field(path="data.prefetch", keys=("datasets.*.prefetch_factor",), convert=whole(1, RANKS), among="first", default=2,
          source=DATA),
    Field(path="_batch", keys=("train.batch_size",), convert=whole(), default=1, source=TRAIN),
    Field(path="train.accumulation", keys=("train.gradient_accumulation",), convert=whole(), default=1, source=TRAIN),
    Field(path="_legacy_accumulation", keys=("train.gradient_accumulation_steps",), convert=whole(-1), default=1, source=TRAIN),
    Field(path="train.checkpointing", keys=("train.gradient_checkpointing",), convert=flag(), default=True, source=TRAIN),
    Field(path=("train.optimizer.name", "train.optimizer.bits"), keys=("train.optimizer",), convert=optimizer(),
          default=("adamw", 32), source=TRAIN),
    Field(path="train.ema", keys=("train.ema_config.use_ema",), convert=flag(), default=False, source="EMAConfig"),
    Field(path="precision.weights", keys=("train.dtype",), convert=DTYPE, default="fp32", source=TRAIN),
    Field(path="_text_dtype", keys=("model.te_dtype",), convert=DTYPE),
    Field(path="_vae_dtype", keys=("model.vae_dtype",), convert=DTYPE),
    Field(path="_unload", keys=("train.unload_text_encoder",), convert=flag(), default=False, source=TRAIN),
    Field(path="_cache_text", keys=("train.cache_text_embeddings",), convert=flag(), default=False, source=TRAIN),
    Field(path="_each_caches_text", keys=("datasets.*.cache_text_embeddings",), convert=flag(), among="largest"),
    Field(path="_steps", keys=("train.steps",), convert=count(), default=1000, source=TRAIN),
    Field(path="_quantize", keys=("model.quantize",), convert=flag(), default=False, source=MODEL),
    Field(path=("_qtype", "_ara"), keys=("model.qtype",), convert=qtype(), default=("qfloat8", False), source=MODEL),
    Field(path="_ara_path", keys=("model.accuracy_recovery_adapter",), convert=place()),
    Field(path="_quantize_te", keys=("model.quantize_te",), convert=flag()),
    Field(path=("_qtype_te", "_ara_te"), keys=("model.qtype_te",), convert=qtype(), default=("qfloat8", False), source=MODEL),
    Field(path="_low_vram", keys=("model.low_vram",), convert=flag(), default=False, source=MODEL),
    Field(path="_layers", keys=("model.layer_offloading", "model.auto_memory"), convert=flag(), default=False, source=MODEL),
    Field(path="_share", keys=("model.layer_offloading_transformer_percent",), convert=percent(), default=1.0, source=MODEL),
    Field(path="_text_share", keys=("model.layer_offloading_text_encoder_percent",), convert=percent(), default=1.0, source=MODEL),
    Field(path="_high", keys=("model.model_kwargs.train_high_noise",), convert=flag(), default=True, source="Wan2214bModel"),
    Field(path="_low", keys=("model.model_kwargs.train_low_noise",), convert=flag(), default=True, source="Wan2214bModel"),
    Field(path="_tiling", keys=("model.model_kwargs.vae_tiling",), convert=flag(), default=False, source="Wan21.use_vae_tiling"),
    Field(path="_compile", keys=("model.compile",), convert=flag(), default=False, source=MODEL),
    Field(path="sample.every", keys=("sample.sample_every",), convert=count(), default=100, source="SampleConfig"),
    Field(path="sample.width", keys=("sample.width", "sample.samples.*.width"), convert=whole(1, SIDE), among="largest",
          default=512, source="SampleConfig"),
    Field(path="sample.height", keys=("sample.height", "sample.samples.*.height"), convert=whole(1, SIDE), among="largest",
          default=512, source="SampleConfig"),
    Field(path="sample.frames", keys=("sample.num_frames", "sample.samples.*.num_frames"), convert=whole(1, SIDE), among="largest",
          default=1, source="SampleConfig"),
    Field(path="sample.steps", keys=("sample.sample_steps",), convert=whole(1, RANKS), default=20, source="SampleConfig"),
    Field(path="_guidance", keys=("sample.guidance_scale",), convert=real(0, 1e6), default=7, source="SampleConfig"),
    Field(path="_flux_cfg", keys=("model.use_flux_cfg",), convert=flag(), default=False, source=MODEL),
    Field(path="_no_samples", keys=("train.disable_sampling",), convert=flag(), default=False, source=TRAIN),
    Field(path="save.every", keys=("save.save_every",), convert=count(), default=1000, source="SaveConfig"),
    Field(path="save.keep", keys=("save.max_step_saves_to_keep",), convert=count(), default=5, source="SaveConfig"),
    Field(path="paths.train", keys=("datasets.*.folder_path", "datasets.*.dataset_path"), convert=place(), among="first"),
    Field(path="paths.resume", keys=("network.pretrained_lora_path",), convert=place()),
    Field(path="paths.output", keys=("training_folder",), convert=place()),
    *(Field(path=f"_asks.{key}", keys=(f"train.{key}",), convert=flag()) for key in stages.TWO_PASSES),
    Field(path="_loss", keys=("train.loss_type",), convert=network_type(), default="mse", source=TRAIN),
    Field(path="_text_trains", keys=("train.train_text_encoder",), convert=flag(), default=False, source=TRAIN),
    Field(path="_network_trains", keys=("train.train_unet",), convert=flag(), default=True, source=TRAIN),
    Field(path="_swapping", keys=("train.do_paramiter_swapping",), convert=flag(), default=False, source=TRAIN),
    Field(path="_extractor", keys=("train.diffusion_feature_extractor_path", "train.latent_feature_extractor_path"),
          convert=place()),
    Field(path="_split", keys=("model.split_model_over_gpus",), convert=flag(), default=False, source=MODEL),
    Field(path="_any_length", keys=("datasets.*.auto_frame_count",), convert=flag(), among="largest"),
    Field(path="parallel.gpus", keys=("hardware.gpus",), convert=whole(1, RANKS)),
    *HARDWARE,
)  # fmt: skip

#: Read by the trainer without effect on a step's memory that is known.
NO_EFFECT = ("job", "meta", "meta.*", "config.name", "config.training_folder", "config.device", *keys.read(), *keys.OPEN)


def _locate(parts: tuple[str, ...]) -> tuple[str, ...]:
    return parts[3:] if parts[:2] == ("config", "process") else parts


def _prefer(key: str, _: Document) -> str:
    if key.startswith("hardware."):
        return key
    return f"config.process.*.{key}" if "*" in key.split(".") else f"config.process[0].{key}"


TABLE = Table(
    unread="{key} is not read by ai-toolkit, so it changes nothing",
    fields=FIELDS,
    no_effect=NO_EFFECT,
    sections=frozenset({"hardware", "model_kwargs", "network_kwargs", "ema_config"}),
    locate=_locate,
    prefer=_prefer,
)


def matches(document: Document) -> bool:
    """`job` beside `config.process`, as run.py asks."""
    config = document.data.get("config")
    return "job" in document.data and isinstance(config, Mapping) and "process" in config


def read(document: Document) -> Reading:
    """Raises ConfigError for values that cannot be understood, for what the trainer refuses, and for what is not modelled."""
    first, findings = job(document)
    run = draft(first, TABLE)
    run.findings += findings
    stages.settle(run)
    run.check()

    def inverse(changes: dict[str, Any]) -> dict[str, Any]:
        return ai_toolkit_memory.inverse(run, ai_toolkit_sliders.inverse(run, changes))

    return run.reading(inverse)


ADAPTER = Adapter(name="ai-toolkit", matches=matches, read=read, tables=(TABLE,))
