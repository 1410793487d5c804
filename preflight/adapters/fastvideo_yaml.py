"""FastVideo's fastvideo/train: a YAML with models, method, training and callbacks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from preflight.adapters import fastvideo_roles as roles
from preflight.adapters import fastvideo_run as shared
from preflight.adapters.conversions import (
    DTYPE,
    RANKS,
    SIDE,
    SILENT,
    STEPS,
    Conversion,
    RefusedError,
    choice,
    flag,
    real,
    whole,
    words,
)
from preflight.adapters.draft import Draft, draft
from preflight.adapters.reading import Reading
from preflight.adapters.run_values import count, place
from preflight.adapters.table import HARDWARE, Field, Table
from preflight.document import Document
from preflight.finding import ConfigError

STUDENT, TRAINING, VALIDATION = "models.student", "training", "callbacks.validation"
CONFIG = "fastvideo/train/utils/training_config.py"


def _steps() -> Conversion:
    """`sampling_steps`: a list, of which each is drawn; the first stands for all, as they differ in time alone."""

    def read(value: Any) -> int:
        first = value[0] if isinstance(value, list) and value else value
        if isinstance(first, bool) or not isinstance(first, int) or not 1 <= first <= SIDE:
            raise RefusedError("a list of numbers of steps, such as [40]")
        return first

    schema = {"type": ["array", "integer"]}
    return Conversion(name="sampling steps", read=read, write=lambda value, _: [value], schema=schema)


def _or_all(inner: Conversion) -> Conversion:
    """`inner`, where 0 and null are as if nothing was said: config.py reads `value or default`."""

    def read(value: Any) -> Any:
        return SILENT if value == 0 and not isinstance(value, bool) else inner.read(value)

    return Conversion(name=f"{inner.name} or 0", read=read, write=inner.write, schema={"anyOf": [inner.schema, {"const": 0}]})


CHECKPOINTING = choice("a type of checkpointing", shared.CHECKPOINTING)
FIELDS = (
    Field(path="_class", keys=(f"{STUDENT}._target_",), convert=place()),
    Field(path="_source", keys=(f"{STUDENT}.init_from",), convert=place()),
    Field(path="_backend", keys=(f"{STUDENT}.attention_backend",), convert=place()),
    Field(path="_lora", keys=(f"{STUDENT}.lora.enable",), convert=flag(), default=False, source="train/utils/lora.py: LoraConfig"),
    Field(path="train.lora.rank", keys=(f"{STUDENT}.lora.rank",), convert=whole(1, SIDE)),
    Field(path="train.lora.alpha", keys=(f"{STUDENT}.lora.alpha",), convert=real(0, 1e6)),
    Field(path="train.lora.targets", keys=(f"{STUDENT}.lora.target_modules",), convert=words("module names", shared.MODULES)),
    Field(path="_method", keys=("method._target_",), convert=place()),
    Field(path="_teacher", keys=("models.teacher.init_from",), convert=place()),
    Field(path="_critic", keys=("models.critic.init_from",), convert=place()),
    Field(path="_critic_checkpointing", keys=("models.critic.enable_gradient_checkpointing_type",), convert=CHECKPOINTING),
    Field(path="_teacher_backend", keys=("models.teacher.attention_backend",), convert=place()),
    Field(path="_critic_backend", keys=("models.critic.attention_backend",), convert=place()),
    Field(path="train.checkpointing", keys=(f"{STUDENT}.enable_gradient_checkpointing_type",), convert=CHECKPOINTING, precedence=1),
    Field(path="train.checkpointing", keys=(f"{TRAINING}.model.enable_gradient_checkpointing_type",), convert=CHECKPOINTING,
          default=False, source=f"{CONFIG}: ModelTrainingConfig, null"),
    Field(path="_dit", keys=(f"{TRAINING}.dit_precision",), convert=DTYPE, default="fp32", source=f"{CONFIG}: TrainingConfig"),
    Field(path="parallel.gpus", keys=(f"{TRAINING}.distributed.num_gpus",), convert=_or_all(whole(1, RANKS)), default=1,
          source=f"{CONFIG}: DistributedConfig"),
    Field(path="parallel.sequence", keys=(f"{TRAINING}.distributed.sp_size",), convert=_or_all(whole(1, RANKS))),
    Field(path="_copies", keys=(f"{TRAINING}.distributed.hsdp_replicate_dim",), convert=_or_all(whole(1, RANKS)), default=1,
          source=f"{CONFIG}: DistributedConfig"),
    Field(path="parallel.shard", keys=(f"{TRAINING}.distributed.hsdp_shard_dim",), convert=_or_all(whole(1, RANKS))),
    Field(path="train.batch", keys=(f"{TRAINING}.data.train_batch_size",), convert=_or_all(whole()), default=1,
          source=f"{CONFIG}: DataConfig"),
    Field(path="data.workers", keys=(f"{TRAINING}.data.dataloader_num_workers",), convert=count(0, RANKS), default=0,
          source=f"{CONFIG}: DataConfig"),
    Field(path="data.height", keys=(f"{TRAINING}.data.num_height",), convert=_or_all(whole(1, SIDE))),
    Field(path="data.width", keys=(f"{TRAINING}.data.num_width",), convert=_or_all(whole(1, SIDE))),
    Field(path="_latents", keys=(f"{TRAINING}.data.num_latent_t",), convert=_or_all(whole(1, SIDE))),
    Field(path="_frames", keys=(f"{TRAINING}.data.num_frames",), convert=_or_all(whole(1, SIDE))),
    Field(path="paths.train", keys=(f"{TRAINING}.data.data_path",), convert=place()),
    Field(path="train.accumulation", keys=(f"{TRAINING}.loop.gradient_accumulation_steps",), convert=_or_all(whole(1, STEPS)),
          default=1, source=f"{CONFIG}: TrainingLoopConfig"),
    Field(path="schedule.steps", keys=(f"{TRAINING}.loop.max_train_steps",), convert=count()),
    Field(path="schedule.warmup", keys=(f"{TRAINING}.optimizer.lr_warmup_steps",), convert=count(0)),
    Field(path="save.every", keys=(f"{TRAINING}.checkpoint.training_state_checkpointing_steps",), convert=count()),
    Field(path="save.keep", keys=(f"{TRAINING}.checkpoint.checkpoints_total_limit",), convert=_or_all(whole(1, STEPS))),
    Field(path="paths.output", keys=(f"{TRAINING}.checkpoint.output_dir",), convert=place()),
    Field(path="paths.resume", keys=(f"{TRAINING}.checkpoint.resume_from_checkpoint",), convert=place()),
    Field(path="_sparsity", keys=(f"{TRAINING}.vsa.sparsity",), convert=real(0, 1), default=0.0, source=CONFIG),
    Field(path="_quant", keys=("pipeline.dit_config.quant_config",), convert=place()),
    Field(path="sample.every", keys=(f"{VALIDATION}.every_steps",), convert=count()),
    Field(path="sample.steps", keys=(f"{VALIDATION}.sampling_steps",), convert=_steps()),
    Field(path="sample.frames", keys=(f"{VALIDATION}.num_frames",), convert=whole(1, SIDE)),
    Field(path="_guidance", keys=(f"{VALIDATION}.guidance_scale",), convert=real(0, 1e3)),
    Field(path="sample.batch", keys=(f"{VALIDATION}.num_videos_per_prompt",), convert=whole(1, SIDE)),
    Field(path="paths.validation", keys=(f"{VALIDATION}.dataset_file",), convert=place()),
    *HARDWARE,
)  # fmt: skip

NO_EFFECT = (
    f"{STUDENT}.trainable", f"{STUDENT}.disable_custom_init_weights", f"{STUDENT}.flow_shift",
    f"{STUDENT}.transformer_override_safetensor", "models.teacher.enable_gradient_checkpointing_type",
    *(f"models.{role}.{name}" for role in ("teacher", "critic") for name in
      ("_target_", "trainable", "disable_custom_init_weights", "flow_shift", "transformer_override_safetensor")),
    "method.*", "callbacks.grad_clip", "callbacks.grad_clip.*", "callbacks.ema", "callbacks.ema.*", f"{VALIDATION}.*",
    "pipeline.flow_shift*", "pipeline.embedded_cfg_scale", "pipeline.vae_*", "pipeline.is_causal", "pipeline.disable_autocast",
    "pipeline", "pipeline.sampler_kind", f"{TRAINING}.distributed.tp_size", f"{TRAINING}.distributed.pin_cpu_memory",
    *(f"{TRAINING}.data.{name}" for name in ("preprocessed_data_type", "training_cfg_rate", "seed")),
    *(f"{TRAINING}.optimizer.{name}" for name in ("learning_rate", "betas", "weight_decay", "lr_*", "min_lr_ratio")),
    f"{TRAINING}.tracker", f"{TRAINING}.tracker.*", f"{TRAINING}.vsa.cache_tile_buf", f"{TRAINING}.model_path",
    *(f"{TRAINING}.model.{name}" for name in ("weighting_scheme", "logit_*", "mode_scale", "precondition_outputs", "moba_config")),
)  # fmt: skip

TABLE = Table(unread="{key} is not a key that FastVideo reads, which ignores it", fields=FIELDS, no_effect=NO_EFFECT)


def matches(document: Document) -> bool:
    """`models` and `method`, of which one names a class of fastvideo's."""
    models, method = document.data.get("models"), document.data.get("method")
    blocks = [*(models.values() if isinstance(models, Mapping) else ()), method]
    named = [block.get("_target_") for block in blocks if isinstance(block, Mapping)]
    return any(isinstance(name, str) and name.startswith("fastvideo.train.") for name in named)


def read(document: Document) -> Reading:
    """Raises ConfigError for values that cannot be understood, and for networks and methods that are not modelled."""
    roles.only_modelled(document)
    run = draft(document, TABLE)
    shared.missing(run, {"_source": f"{STUDENT}.init_from", "_latents": f"{TRAINING}.data.num_latent_t",
                         "data.height": f"{TRAINING}.data.num_height", "data.width": f"{TRAINING}.data.num_width"})  # fmt: skip
    shared.model(run, str(run.get("_source")), "_source", _sparse(run))
    _attention(run)
    _method(run)
    roles.beside(run)
    shared.precision(run, like="_dit")
    run.assume("parallel.sequence", run.get("parallel.gpus"), "sp_size is num_gpus where nothing is said (train/utils/config.py)")
    roles.causal(run)
    shared.shards(run)
    shared.frames(run)
    _phases(run)
    shared.vae(run)
    roles.negative_prompt(run)
    return run.reading(lambda changes: shared.inverse(run, changes))


def _sparse(run: Draft) -> str | None:
    """train/entrypoint/train.py: VSA where a sparsity is set, else SLA for TurboDiffusion's weights. The environment is unknown."""
    source = str(run.get("_source"))
    needs = shared.trained_for(source)
    if run.get("_sparsity"):
        return "vsa"
    if needs == "vsa":
        message = (
            f'"{source}" has layers of video sparse attention, for which {TRAINING}.vsa.sparsity is to be set, and does not load.'
        )
        run.note("error", "weights-differ", message, at="_source", fix=f"{TRAINING}.vsa.sparsity 0.8")
        run.check()
    return needs


def _attention(run: Draft) -> None:
    shared.whole(run, {"_quant": "training in fewer bits"})
    for path in ("_backend", "_teacher_backend", "_critic_backend"):
        if path in run.settled and not str(run.get(path)).upper().startswith(("FLASH", "TORCH", "SDPA")):
            message = f"{run.origins[path]} {run.get(path)} is not modelled; expected FLASH_ATTN or TORCH_SDPA."
            run.note("error", "not-modelled", message, at=path)
    run.check()


def _method(run: Draft) -> None:
    ltx = str(run.get("model.name")).startswith("ltx")
    if ltx and not run.get("_lora"):
        message = (
            f"{STUDENT}._target_ LTX2Model trains the video branch and freezes the rest, which is modelled with adapters only."
        )
        raise ConfigError(run.document.finding("not-modelled", "error", message, key=f"{STUDENT}._target_"))
    if not run.get("_lora"):
        run.put("train.method", "full", like="_lora")
        if "train.lora.rank" in run.settled:
            message = "lora.rank is set and lora.enable is not true, so no adapter is added and the whole network trains."
            run.note("warning", "lora-not-enabled", message, at="train.lora.rank", fix=f"{STUDENT}.lora.enable true")
        run.drop("train.lora")
        return
    run.put("train.method", "lora", like="_lora")
    if ltx:
        message = "the audio branch of LTX-2 is loaded and does not run; it is counted with its own few tokens and adapters."
        run.note("note", "audio-branch", message, at="model.name")
    if "train.lora.rank" not in run.settled:
        message = f"{STUDENT}.lora.rank is missing, and FastVideo stops without it when lora.enable is true."
        run.findings.append(run.document.finding("missing-key", "error", message, key=f"{STUDENT}.lora"))
    if not run.get("train.lora.alpha"):
        run.put("train.lora.alpha", run.get("train.lora.rank"), like="train.lora.rank")
    hunyuan = "hunyuan" in str(run.get("model.name")).lower()
    if "train.lora.targets" not in run.settled and not hunyuan:
        gate = ["to_gate_compress"] if run.get("model.dims.sparse") == "vsa" else []
        run.assume("train.lora.targets", [*shared.TARGETS, *gate], "train/utils/lora.py: DEFAULT_LORA_TARGET_MODULES")
    if run.get("train.lora.targets") and run.get("model.dims.sparse") != "vsa":  # no such layer is there, and none is missed
        run.put(
            "train.lora.targets", [t for t in run.get("train.lora.targets") if t != "to_gate_compress"], like="train.lora.targets"
        )
    if not run.get("train.lora.targets"):
        message = f"{STUDENT}.lora.target_modules names no layer of this network that is known."
        run.findings.append(run.document.finding("missing-key", "error", message, key=f"{STUDENT}.lora"))
    run.check()
    if hunyuan:
        message = "query, key and value are one layer in this trainer and counted as three, whose adapters are somewhat larger."
        run.note("note", "fused-qkv", message, at="train.lora.targets")


def _phases(run: Draft) -> None:
    """callbacks/validation.py: text encoder and VAE are on the host but for their turn; the size is the training's."""
    callbacks = run.document.data.get("callbacks")
    callbacks = callbacks if isinstance(callbacks, Mapping) else {}
    if not isinstance(callbacks.get("validation"), Mapping):
        run.drop("sample")
    else:
        run.assume("sample.every", 100, "callbacks/validation.py: ValidationCallback")
        run.put("sample.guidance", run.get("_guidance", 6.0) > 1, like="_guidance")
        shared.tiling(run)
    if "ema" in callbacks:
        message = "the moving average is kept in host memory (EMA_FSDP), so it takes nothing of the GPU's."
        run.findings.append(run.document.finding("ema-on-host", "note", message, key="callbacks.ema"))
    run.put("save.final", True)
