"""Lightricks' trainers: the YAML of ltx-trainer (LTX-2) and of its forerunner LTX-Video-Trainer.

Names and defaults are packages/ltx-trainer/src/ltx_trainer/config.py of github.com/Lightricks/LTX-2 (commit 400fd31) and
src/ltxv_trainer/config.py of github.com/Lightricks/LTX-Video-Trainer (commit 31b1273), where the two differ by the model's key;
what they do with them is each one's trainer.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from preflight.adapters.conversions import RANKS, SIDE, SILENT, STEPS, Conversion, RefusedError, choice, flag, real, whole, words
from preflight.adapters.draft import Draft, draft
from preflight.adapters.reading import Adapter, Reading
from preflight.adapters.run_values import count, place
from preflight.adapters.table import HARDWARE, Field, Table
from preflight.document import Document

CONFIG = "ltx_trainer/config.py"
OLD_CONFIG = "ltxv_trainer/config.py"
#: LTX-Video-Trainer, model_loader.py: LtxvModelVersion; a network's id by what the version says.
VERSIONS = {"13B": "ltx-video-13b", "2B": "ltx-video-2b"}
#: ltx_trainer/quantization.py and ltxv_trainer/quantization.py: quanto's weights.
QUANTIZATIONS = {name: name for name in ("int8-quanto", "int4-quanto", "int2-quanto", "fp8-quanto", "fp8uz-quanto")}
PRECISIONS = {"bf16": "bf16", "fp16": "fp16", "no": "no"}
#: configs/accelerate: the launcher's files, of which this config says nothing.
STRATEGIES = {"ddp": "ddp", "fsdp": "fsdp"}
OPTIMIZERS = {"adamw": "adamw", "adamw8bit": "adamw8bit"}


def _buckets() -> Conversion:
    """scripts/process_dataset.py: --resolution-buckets, "960x544x49;512x512x81": width, height, frames; the largest counts."""
    expected = 'width, height and frames as scripts/process_dataset.py takes them, such as "960x544x49"'

    def read(value: Any) -> tuple[int, int, int]:
        try:
            buckets = [tuple(int(side) for side in bucket.split("x")) for bucket in str(value).split(";")]
        except ValueError:
            raise RefusedError(expected) from None
        if not buckets or any(len(bucket) != 3 or not all(1 <= side <= SIDE for side in bucket) for bucket in buckets):
            raise RefusedError(expected)
        width, height, frames = max(buckets, key=lambda b: b[0] * b[1] * b[2])
        return width, height, frames

    def write(value: tuple[int, int, int], _: Any) -> Any:
        return "x".join(map(str, value))

    return Conversion(name="resolution buckets", read=read, write=write, schema={"type": "string"})


def _dims() -> Conversion:
    """`validation.video_dims`: [width, height, frames]."""
    side, expected = whole(1, SIDE), "[width, height, frames], such as [960, 544, 89]"

    def read(value: Any) -> tuple[int, int, int]:
        if not isinstance(value, list) or len(value) != 3:
            raise RefusedError(expected)
        width, height, frames = (side.read(part) for part in value)
        return width, height, frames

    schema = {"type": "array", "items": {"type": "integer", "minimum": 1, "maximum": SIDE}, "minItems": 3, "maxItems": 3}
    return Conversion(name="width height frames", read=read, write=lambda value, _: list(value), schema=schema)


def _keep() -> Conversion:
    """`checkpoints.keep_last_n`: -1 keeps all."""
    inner = whole(1, STEPS)

    def read(value: Any) -> Any:
        return SILENT if value == -1 else inner.read(value)

    return Conversion(name="checkpoints kept", read=read, write=lambda value, _: value, schema={"type": "integer", "minimum": -1})


FIELDS = (
    Field(path="_source", keys=("model.model_path", "model.model_source"), convert=place(),
          default="LTXV_13B_097_DEV", source="ltxv_trainer/model_loader.py: LtxvModelVersion.latest"),
    Field(path="train.method", keys=("model.training_mode",), convert=choice("a way to train", {"lora": "lora", "full": "full"}),
          default="lora", source=f"{CONFIG}: ModelConfig"),
    Field(path="train.lora.rank", keys=("lora.rank",), convert=whole(2, SIDE), default=64, source=f"{CONFIG}: LoraConfig"),
    Field(path="train.lora.alpha", keys=("lora.alpha",), convert=real(1, 1e6), default=64, source=f"{CONFIG}: LoraConfig"),
    Field(path="train.lora.dropout", keys=("lora.dropout",), convert=real(0, 1), default=0.0, source=f"{CONFIG}: LoraConfig"),
    Field(path="train.lora.targets", keys=("lora.target_modules",), convert=words("module names", {}),
          default=["to_k", "to_q", "to_v", "to_out.0"], source=f"{CONFIG}: LoraConfig"),
    Field(path="train.batch", keys=("optimization.batch_size",), convert=whole(), default=2,
          source=f"{CONFIG}: OptimizationConfig"),
    Field(path="train.accumulation", keys=("optimization.gradient_accumulation_steps",), convert=whole(1, STEPS), default=1,
          source=f"{CONFIG}: OptimizationConfig"),
    Field(path="train.checkpointing", keys=("optimization.enable_gradient_checkpointing",), convert=flag(), default=False,
          source=f"{CONFIG}: OptimizationConfig"),
    Field(path="train.optimizer.name", keys=("optimization.optimizer_type",), convert=choice("an optimizer", OPTIMIZERS),
          default="adamw", source=f"{CONFIG}: OptimizationConfig"),
    Field(path="_mixed", keys=("acceleration.mixed_precision_mode",), convert=choice("a precision", PRECISIONS),
          default="bf16", source=f"{CONFIG}: AccelerationConfig"),
    Field(path="precision.quantization", keys=("acceleration.quantization",),
          convert=choice("quanto's weights", QUANTIZATIONS, exact=True)),
    Field(path=("data.width", "data.height", "data.frames"), keys=("resolution_buckets",), convert=_buckets()),
    Field(path=("sample.width", "sample.height", "sample.frames"), keys=("validation.video_dims",), convert=_dims()),
    Field(path="sample.every", keys=("validation.interval",), convert=count(), default=100, source=f"{CONFIG}: ValidationConfig"),
    Field(path="sample.steps", keys=("validation.inference_steps",), convert=whole(1, SIDE)),
    Field(path="save.every", keys=("checkpoints.interval",), convert=count()),
    Field(path="save.keep", keys=("checkpoints.keep_last_n",), convert=_keep()),
    Field(path="schedule.steps", keys=("optimization.steps",), convert=count(), default=3000,
          source=f"{CONFIG}: OptimizationConfig"),
    Field(path="data.workers", keys=("data.num_dataloader_workers",), convert=count(0, RANKS), default=2,
          source=f"{CONFIG}: DataConfig"),
    Field(path="paths.train", keys=("data.preprocessed_data_root",), convert=place()),
    Field(path="paths.resume", keys=("model.load_checkpoint",), convert=place()),
    Field(path="paths.output", keys=("output_dir",), convert=place()),
    Field(path="parallel.gpus", keys=("hardware.gpus",), convert=whole(1, RANKS)),
    Field(path="parallel.strategy", keys=("hardware.strategy",), convert=choice("a strategy", STRATEGIES)),
    Field(path="_reference", keys=("conditioning.mode",), convert=choice("a mode", {"none": False, "reference_video": True})),
    *HARDWARE,
)  # fmt: skip

NO_EFFECT = (
    "model.text_encoder_path", "model.video_vae_path", "model.audio_vae_path", "training_strategy", "training_strategy.*",
    "conditioning.*", "optimization.learning_rate", "optimization.max_grad_norm", "optimization.scheduler_*",
    "acceleration.load_text_encoder_in_8bit", "acceleration.compile_with_inductor", "acceleration.compilation_mode",
    "acceleration.offload_optimizer_during_validation", "validation.*", "checkpoints.*", "flow_matching", "flow_matching.*", "hub",
    "hub.*", "wandb", "wandb.*", "seed",
)  # fmt: skip

SIZE = ("data.width", "data.height", "data.frames")
VALIDATION = ("sample.width", "sample.height", "sample.frames")

TABLE = Table(
    unread="{key} is not a key of the LTX trainer, which refuses a config with one it does not know",
    fields=FIELDS,
    no_effect=NO_EFFECT,
    sections=frozenset({"hardware", "lora"}),
)


def matches(document: Document) -> bool:
    """A `model` block with `model_path` or `model_source`, beside `optimization` or `training_strategy`."""
    block = document.data.get("model")
    told = isinstance(block, Mapping) and ("model_path" in block or "model_source" in block)
    return told and bool({"optimization", "training_strategy", "flow_matching"} & set(document.data))


def read(document: Document) -> Reading:
    """Raises ConfigError for values that cannot be understood."""
    run = draft(document, TABLE)
    _model(run)
    _method(run)
    _precision(run)
    _size(run)
    _phases(run)
    if run.get("parallel.gpus", 1) > 1:
        run.assume("parallel.strategy", "ddp", "configs/accelerate/ddp.yaml, as the launcher's file stands in no config")
        _sharded(run)
    return run.reading(partial(_inverse, run))


def _model(run: Draft) -> None:
    """LTX-Video-Trainer names its model by a version; ltx-trainer by a file, whose name says which it is or nothing does."""
    source = str(run.get("_source"))
    if run.origins.get("_source") == "model.model_path":
        name = "ltx-2.3-22b" if "2.3" in source else "ltx-2-19b"
        if name.split("-")[1] not in source.replace("ltx2", "ltx-2"):
            message = f'"{source}" does not say which model it is, so LTX-2 19B is taken; LTX-2.3 22B is larger.'
            run.note("warning", "model-assumed", message, at="_source", fix="a path with 2.3 in it, as ltx-2.3-22b-dev.safetensors")
    else:
        name = next((ours for mark, ours in VERSIONS.items() if mark in source.upper()), source)
    run.put("model.name", name, like="_source")


def _method(run: Draft) -> None:
    if run.get("train.method") == "full":
        if run.get("precision.quantization", "none") != "none":
            message = "acceleration.quantization is not supported by the trainer when training_mode is full, which it refuses."
            run.note("error", "quantized-training", message, at="precision.quantization")
            run.check()
        run.drop("train.lora")
    elif "lora" not in run.document.data:
        message = "lora is missing: the trainer refuses training_mode lora without it."
        run.findings.append(run.document.finding("missing-key", "error", message, key="lora"))
        run.check()


def _precision(run: Draft) -> None:
    """trainer.py, _load_models: the transformer is bfloat16 under LoRA and float32 when it is trained itself.

    peft makes adapters in a bfloat16 network float32 (peft/tuners/tuners_utils.py: cast_adapter_dtype).
    """
    lora = run.get("train.method") == "lora"
    run.put("precision.weights", "bf16" if lora else "fp32", like="train.method")
    if lora:
        run.put("train.lora.dtype", "fp32", like="train.method")
    mixed = run.get("_mixed")
    if mixed in ("bf16", "fp16"):
        run.put("precision.autocast", mixed, like="_mixed")
        run.put("precision.attention", mixed, like="_mixed")
    run.put("precision.vae", "bf16")


def _sharded(run: Draft) -> None:
    """trainer.py, _prepare_models_for_training: under FSDP the frozen network is float32 too, as its adapters are."""
    if run.get("parallel.strategy") != "fsdp":
        return
    run.assume("parallel.fsdp_version", 1, "configs/accelerate/fsdp.yaml: fsdp_version")
    run.assume("parallel.backward_prefetch", "pre", "configs/accelerate/fsdp.yaml: fsdp_backward_prefetch")
    if run.get("train.method") == "lora":
        run.put("precision.weights", "fp32", like="parallel.strategy")


def _size(run: Draft) -> None:
    """Latents are encoded beforehand, so the config does not say their size; the validation's is what the author makes."""
    if "data.width" not in run.settled:
        source = "validation.video_dims, as the encoded data set's size stands in no config"
        old = "model_source" in run.block("model")
        dims = (704, 480, 161) if old else (960, 544, 89)  # ValidationConfig's default in either trainer
        for axis, value in zip(("width", "height", "frames"), dims, strict=True):
            run.assume(f"data.{axis}", run.get(f"sample.{axis}", value), source)
        shown = "x".join(str(run.get(f"data.{axis}")) for axis in ("width", "height", "frames"))
        message = (
            f"the size of the encoded samples stands in no config, so that of the validation, {shown}, is taken;"
            ' give it as --set resolution_buckets=WxHxF, as to "scripts/process_dataset.py --resolution-buckets".'
        )
        run.findings.append(run.document.finding("size-not-in-config", "warning", message, key="validation.video_dims"))
    run.put("data.latents", "cached")
    run.put("data.text", "cached")
    if run.get("_reference"):
        # training_strategies.py: the reference's tokens stand before the target's in one sequence
        run.put("data.frames", 2 * (run.get("data.frames") - 1) + 1 + 8, like="_reference")
        message = "in-context training puts the reference video's latents before the target's: twice the latent frames are counted."
        run.note("note", "reference-tokens", message, at="_reference")


def _phases(run: Draft) -> None:
    """An empty interval is none at all (trainer.py: `if cfg.validation.interval and …`), and a missing one the default."""
    validation = run.document.data.get("validation")
    if isinstance(validation, Mapping) and validation.get("interval", 0) is None:
        run.drop("sample")
    run.put("save.final", True)


def _inverse(run: Draft, changes: dict[str, Any]) -> dict[str, Any]:
    """Canonical changes in the terms of the table: the encoded samples' size only where the user says it, of the target alone."""
    size = {path: value for path, value in changes.items() if path in SIZE}
    answer = {path: value for path, value in changes.items() if path not in SIZE}
    if "data.width" in run.assumed:  # the validation's, which smaller samples of it would not make smaller
        return {path: value for path, value in answer.items() if not size or path not in VALIDATION}
    if not size:
        return answer
    if run.get("_reference"):
        latents, odd = divmod(size.get("data.frames", run.get("data.frames")) - 9, 16)  # of eight frames, in twice as many
        if odd:
            return answer
        size["data.frames"] = 8 * latents + 1
    return answer | size


ADAPTER = Adapter(name="ltx-trainer", matches=matches, read=read, tables=(TABLE,))
