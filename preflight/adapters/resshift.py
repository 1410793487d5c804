"""ResShift: diffusion between a degraded and a clean image's latents, one YAML with the blocks trainer, model, diffusion and train.

What is read, and what holds without a key, is the trainer's own code: main.py, trainer.py and models/gaussian_diffusion.py of
github.com/zsyOAOA/ResShift, commit 3ce1d81.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from preflight.adapters.conversions import COUNT, RANKS, SIDE, SILENT, Conversion, RefusedError, flag, real, text, whole
from preflight.adapters.draft import Draft, draft
from preflight.adapters.reading import Adapter, Reading
from preflight.adapters.run_values import count, place
from preflight.adapters.sr3 import square
from preflight.adapters.table import HARDWARE, Field, Table
from preflight.document import Document
from preflight.finding import ConfigError

NETWORKS = {"models.unet.UNetModelSwin": "resshift-latent"}
#: trainer.py's classes that are modelled, and whether their loss looks at the decoded image.
TRAINERS = {"trainer.TrainerDifIR": False, "trainer.TrainerDifIRLPIPS": True}
AUTOENCODERS = ("ldm.models.autoencoder.VQModelTorch",)


def _batches() -> Conversion:
    """`train.batch`: all GPUs' samples of a step, and the samples of a validation pass."""
    expected = "two whole numbers, of training and of validation, such as [96, 8]"

    def read(value: Any) -> tuple[int, Any]:
        if not isinstance(value, list) or not 1 <= len(value) <= 2:
            raise RefusedError(expected)
        first, *more = (whole().read(number) for number in value)
        return first, more[0] if more else SILENT

    def write(value: tuple[int, int], _: Any) -> Any:
        return list(value)

    schema = {"type": "array", "items": {"type": "integer", "minimum": 1, "maximum": COUNT}, "minItems": 1, "maxItems": 2}
    return Conversion(name="batches", read=read, write=write, schema=schema)


FIELDS = (
    Field(path="_target", keys=("model.target",), convert=text("the path of a class such as models.unet.UNetModelSwin")),
    Field(path="_trainer", keys=("trainer.target",), convert=text("the path of a class such as trainer.TrainerDifIR")),
    Field(path="_coder", keys=("autoencoder.target",),
          convert=text("the path of a class such as ldm.models.autoencoder.VQModelTorch")),
    Field(path=("_batch", "sample.batch"), keys=("train.batch",), convert=_batches()),
    Field(path="_micro", keys=("train.microbatch",), convert=whole()),
    Field(path=("_crop_width", "_crop_height"), keys=("degradation.gt_size",), convert=square()),
    Field(path=("_gt_width", "_gt_height"), keys=("data.train.params.gt_size", "data.train.params.out_size"), convert=square()),
    Field(path="_type", keys=("data.train.type",), convert=text("the name of a data set such as realesrgan")),
    Field(path="_lq", keys=("model.params.lq_size",), convert=whole(1, SIDE)),
    Field(path="_factor", keys=("diffusion.params.sf",), convert=whole(1, 64), default=4, source="models/script_util.py: sf"),
    Field(path="_queue", keys=("degradation.queue_size",), convert=whole(1, COUNT)),
    Field(path="_amp", keys=("train.use_amp",), convert=flag()),
    Field(path="_rate", keys=("train.ema_rate",), convert=real(0, 1)),
    Field(path="_compiled", keys=("train.compile.flag",), convert=flag(), default=False, source="configs: compile.flag"),
    Field(path="parallel.gpus", keys=("hardware.gpus",), convert=whole(1, RANKS)),
    Field(path="sample.steps", keys=("diffusion.params.steps",), convert=whole(1, 10_000)),
    Field(path="sample.every", keys=("train.val_freq",), convert=count(), default=10_000, source="trainer.py: val_freq"),
    Field(path="_tested", keys=("train.val_resolution",), convert=whole(1, SIDE), default=256, source="trainer.py: val_resolution"),
    Field(path="save.every", keys=("train.save_freq",), convert=count()),
    Field(path="schedule.steps", keys=("train.iterations",), convert=count()),
    Field(path="schedule.warmup", keys=("train.warmup_iterations",), convert=count(0)),
    Field(path="_workers", keys=("train.num_workers",), convert=count(0, COUNT)),
    Field(path="data.prefetch", keys=("train.prefetch_factor",), convert=whole(1, 1000)),
    Field(path="paths.model", keys=("model.ckpt_path",), convert=place()),
    *HARDWARE,
)  # fmt: skip

#: Read by the trainer without effect on memory. The networks' own arguments are read apart from this table.
NO_EFFECT = (
    "save_dir",
    "resume",
    "cfg_path",
    "model.params.*",
    "autoencoder.ckpt_path",
    "autoencoder.use_fp16",
    "autoencoder.params.*",
    "diffusion.target",
    "diffusion.params.*",
    "degradation.*",
    "data.train.params.*",
    "data.val.*",
    "train.lr",
    "train.lr_min",
    "train.lr_schedule",
    "train.weight_decay",
    "train.log_freq",
    "train.loss_coef",
    "train.local_logging",
    "train.tf_logging",
    "train.use_ema_val",
    "train.val_y_channel",
    "train.val_padding_mode",
    "train.seed",
    "train.global_seeding",
    "train.compile.mode",
    "train.milestones",
)

TABLE = Table(
    unread="{key} is not read by ResShift's trainer, so it changes nothing",
    fields=FIELDS,
    no_effect=NO_EFFECT,
)


def matches(document: Document) -> bool:
    """A `model` and a `diffusion` that name their classes by `target`, and the pair of batches."""
    blocks = [document.data.get(name) for name in ("trainer", "model", "diffusion")]
    return all(isinstance(block, Mapping) and "target" in block for block in blocks)


def read(document: Document) -> Reading:
    """Raises ConfigError for values that cannot be understood, what the trainer asks for, and what is not modelled."""
    run = draft(document, TABLE)
    for path, key, expected in (
        ("_batch", "train.batch", "two whole numbers such as [96, 8]"),
        ("_micro", "train.microbatch", "the samples of one forward pass"),
        ("_amp", "train.use_amp", "true or false"),
        ("_target", "model.target", "the network's class"),
        ("_trainer", "trainer.target", "the trainer's class"),
    ):
        if path not in run.settled:
            message = f"{key} is missing, and ResShift's trainer has no default for it; expected {expected}."
            run.findings.append(run.document.finding("missing-key", "error", message, key=key))
    for path, key, known in (
        ("_target", "model.target", tuple(NETWORKS)),
        ("_trainer", "trainer.target", tuple(TRAINERS)),
        ("_coder", "autoencoder.target", AUTOENCODERS),
    ):
        value = run.get(path)
        if value is not None and value not in known:
            message = f"Cannot judge: {key} {value} is not modelled yet, only {', '.join(known)}."
            raise ConfigError(document.finding("not-modelled", "error", message, key=key))
    run.check()
    _size(run)
    _batch(run)
    _dims(run)
    _fixed(run)

    def inverse(changes: dict[str, Any]) -> dict[str, Any]:
        # a smaller microbatch means more of them, and the batch stays what it is
        changes.pop("train.accumulation", None)
        micro = changes.pop("train.batch", None)
        return {**changes, **({"_micro": micro} if micro is not None else {})}

    return run.reading(inverse)


def _size(run: Draft) -> None:
    """The clean image's side: datapipe/datasets.py and trainer.py, prepare_data, by the kind of data set."""
    name = "_crop" if run.get("_type") == "realesrgan" and "_crop_height" in run.settled else "_gt"
    for side in ("width", "height"):
        path = f"{name}_{side}"
        if path in run.settled:
            run.put(f"data.{side}", run.get(path), like=path)
        elif "_lq" in run.settled:
            run.assume(f"data.{side}", run.get("_lq") * run.get("_factor"), "model.params.lq_size times diffusion.params.sf")
    if "data.height" not in run.settled:
        message = (
            "neither degradation.gt_size nor data.train.params.gt_size nor model.params.lq_size says how large the images are."
        )
        run.findings.append(run.document.finding("missing-key", "error", message, key="data.train.params.gt_size"))
    run.check()


def _batch(run: Draft) -> None:
    """trainer.py: each GPU gets its part of train.batch[0], and takes it in passes of `microbatch`."""
    source = "torchrun gives each GPU that it sees a process, and the config does not say how many there are"
    run.assume("parallel.gpus", 1, source)
    gpus = run.get("parallel.gpus")
    run.put("parallel.strategy", "ddp" if gpus > 1 else "none", like="parallel.gpus")
    share = max(1, run.get("_batch") // gpus)
    run.put("train.batch", min(run.get("_micro"), share), like="_micro")
    run.put("train.accumulation", math.ceil(share / run.get("_micro")), like="_batch")
    run.put("model.dims.samples", share, like="_batch")
    if run.get("_type") == "realesrgan":
        run.put("model.dims.pool", run.get("_queue", 10 * share), like="_queue" if "_queue" in run.settled else "_batch")
        if run.get("_queue", share) % share:
            message = f"queue_size {run.get('_queue')} is not a multiple of the {share} samples a GPU, as the trainer asserts."
            run.note("error", "uneven-queue", message, at="_queue")
    if "_workers" in run.settled:
        run.put("data.workers", min(run.get("_workers"), 4), like="_workers")


def _dims(run: Draft) -> None:
    run.put("model.name", NETWORKS[str(run.get("_target"))], like="_target")
    for name, value in run.block("model", "params").items():
        run.settled[f"model.dims.{name}"] = value
        run.origins[f"model.dims.{name}"] = f"model.params.{name}"
    run.put("model.dims.lpips", TRAINERS[str(run.get("_trainer"))], like="_trainer")
    run.put("model.dims.sf", run.get("_factor"), like="_factor")
    coder = run.block("autoencoder")
    if coder:
        run.settled["model.dims.autoencoder"] = dict(run.block("autoencoder", "params"))
        run.origins["model.dims.autoencoder"] = "autoencoder.params"
        if coder.get("use_fp16"):
            message = "autoencoder.use_fp16 is not read by the trainer, which keeps the autoencoder in float32."
            run.findings.append(run.document.finding("unread-precision", "warning", message, key="autoencoder.use_fp16"))
    else:
        message = "Cannot judge: a run without an autoencoder is not modelled yet."
        raise ConfigError(run.document.finding("not-modelled", "error", message, key="autoencoder"))


def _fixed(run: Draft) -> None:
    """What the trainer does whatever the config says: AdamW, and no checkpointing."""
    for path, value in {
        "train.method": "full",
        "train.checkpointing": False,
        "train.optimizer.name": "adamw",
        "train.optimizer.bits": 32,
        "data.frames": 1,
        "data.latents": "cached",
        "data.text": "cached",
        "precision.weights": "fp32",
        "sample.guidance": False,
        "save.optimizer": False,  # trainer.py: save_ckpt
    }.items():
        run.settled[path] = value
    run.put("train.ema", "_rate" in run.settled, like="_rate")
    run.put("precision.autocast", "fp16" if run.get("_amp") else None, like="_amp")  # torch.cuda.amp.autocast's own
    side = run.get("_tested") * run.get("_factor")
    run.put("sample.height", side, like="_tested")
    run.put("sample.width", side, like="_tested")
    data = run.document.data.get("data")
    if not (isinstance(data, Mapping) and data.get("val")):
        run.drop("sample")
    if run.get("_compiled"):
        message = "train.compile.flag compiles the network; it is judged as if it ran without."
        run.note("warning", "compiled", message, at="_compiled")


ADAPTER = Adapter(name="resshift", matches=matches, read=read, tables=(TABLE,))
