"""BasicSR: restoration of images, one YAML with the blocks datasets, network_g, train and val.

What is read, and what holds without a key, is the trainer's own code: basicsr/train.py, utils/options.py, data/__init__.py and
models/*.py of github.com/XPixelGroup/BasicSR, commit 8d56e3a.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from preflight.adapters import basicsr_video as video
from preflight.adapters.conversions import COUNT, RANKS, Conversion, RefusedError, choice, flag, real, text, whole
from preflight.adapters.draft import Draft, draft
from preflight.adapters.reading import Adapter, Reading
from preflight.adapters.run_values import count, place
from preflight.adapters.sr3 import square
from preflight.adapters.table import HARDWARE, Field, Table
from preflight.document import Document
from preflight.finding import ConfigError

IMAGES = {"EDSR": "basicsr-edsr", "MSRResNet": "basicsr-msrresnet", "RRDBNet": "basicsr-rrdbnet"}
NETWORKS = {**IMAGES, **video.NETWORKS}
#: models/*.py whose optimize_parameters is modelled; the adversarial ones train network_d in turn.
ADVERSARIAL = ("SRGANModel", "ESRGANModel", "RealESRGANModel")
MODELS = ("SRModel", "RealESRNetModel", *ADVERSARIAL, *video.MODELS)
SYNTHETIC = ("RealESRNetModel", "RealESRGANModel")
#: models/base_model.py: get_optimizer.
OPTIMIZERS = {name: name.lower() for name in ("Adam", "AdamW", "Adamax", "SGD", "ASGD", "RMSprop", "Rprop")}


def _gpus() -> Conversion:
    """`num_gpu`: a number, 0 for the CPU, or "auto"."""
    expected = 'a whole number, or "auto" for as many GPUs as are seen'

    def read(value: Any) -> int | str:
        if value == "auto":
            return "auto"
        try:
            return int(whole(0, RANKS).read(value))
        except RefusedError as refused:
            raise RefusedError(expected, refused.why) from None

    schema = {"anyOf": [{"type": "integer", "minimum": 0, "maximum": RANKS}, {"const": "auto"}]}
    return Conversion(name="number of GPUs", read=read, write=lambda value, _: value, schema=schema)


FIELDS = (
    Field(path="_type", keys=("network_g.type",), convert=text("the name of a network such as EDSR")),
    Field(path="_model", keys=("model_type",), convert=text("the name of a model such as SRModel")),
    Field(path="_scale", keys=("scale",), convert=whole(1, 64)),
    Field(path=("_gt_width", "_gt_height"), keys=("datasets.train.gt_size",), convert=square()),
    Field(path=("_crop_width", "_crop_height"), keys=("gt_size",), convert=square()),
    Field(path="_queue", keys=("queue_size",), convert=whole(1, COUNT), default=180,
          source="models/realesrgan_model.py: queue_size"),
    Field(path="_dataset", keys=("datasets.train.type",), convert=text("the name of a data set such as REDSRecurrentDataset")),
    Field(path="_frames", keys=("datasets.train.num_frame",), convert=whole(-1, COUNT)),
    Field(path="_flipped", keys=("datasets.train.flip_sequence",), convert=flag()),
    Field(path="train.batch", keys=("datasets.train.batch_size_per_gpu",), convert=whole()),
    Field(path="data.workers", keys=("datasets.train.num_worker_per_gpu",), convert=count(0, COUNT)),
    Field(path="_gpus", keys=("num_gpu",), convert=_gpus(), default="auto", source="nothing: the trainer asks for it"),
    Field(path="parallel.gpus", keys=("hardware.gpus",), convert=whole(1, RANKS)),
    Field(path="train.optimizer.name", keys=("train.optim_g.type",), convert=choice("an optimizer", OPTIMIZERS, exact=True)),
    Field(path="_momentum", keys=("train.optim_g.momentum",), convert=real(0, 1)),
    Field(path="_decay", keys=("train.ema_decay",), convert=real(0, 1), default=0, source="models/sr_model.py: ema_decay"),
    Field(path="sample.every", keys=("val.val_freq",), convert=count()),
    Field(path="save.every", keys=("logger.save_checkpoint_freq",), convert=count()),
    Field(path="schedule.steps", keys=("train.total_iter",), convert=count()),
    Field(path="schedule.warmup", keys=("train.warmup_iter",), convert=count(0)),
    Field(path="paths.train", keys=("datasets.train.dataroot_gt",), convert=place()),
    Field(path="paths.validation", keys=("datasets.val.dataroot_gt", "datasets.val.dataroot_lq"), convert=place()),
    Field(path="paths.model", keys=("path.pretrain_network_g",), convert=place()),
    Field(path="paths.resume", keys=("path.resume_state",), convert=place()),
    *HARDWARE,
)  # fmt: skip

#: Read by the trainer without effect on memory. The networks' and the losses' own settings are read apart from this table.
NO_EFFECT = (
    "name", "manual_seed", "dist_params.*", "find_unused_parameters", "is_train", "high_order_degradation", "*_prob",
    "*_prob2", "*_range", "*_range2", "gt_usm", "l1_gt_usm", "percep_gt_usm", "gan_gt_usm", "resize_*", "network_g.*",
    "network_d.*", "datasets.train.*", "datasets.val.*", "datasets.val_*.*", "datasets.test.*", "datasets.test_*.*", "path.*",
    "val.*", "logger.*", "train.optim_g.*", "train.optim_d.*", "train.scheduler.*", "train.pixel_opt.*",
    "train.perceptual_opt.*", "train.gan_opt.*", "train.ldl_opt.*", "train.net_d_iters", "train.net_d_init_iters",
    "train.net_d_reg_every", "train.fix_flow", "train.flow_lr_mul", "train.tsa_iter", "train.dcn_lr_mul",
)  # fmt: skip

TABLE = Table(unread="{key} is not read by BasicSR's trainer, so it changes nothing", fields=FIELDS, no_effect=NO_EFFECT)


def matches(document: Document) -> bool:
    """The trainer's own `network_g` beside `datasets`."""
    return isinstance(document.data.get("network_g"), Mapping) and "datasets" in document.data


def read(document: Document) -> Reading:
    """Raises ConfigError for values that cannot be understood, what the trainer asks for, and what is not modelled."""
    run = draft(document, TABLE)
    _require(run, "_type", "network_g.type", "the name of a network such as EDSR")
    _require(run, "_model", "model_type", "the name of a model such as SRModel")
    _require(run, "train.batch", "datasets.train.batch_size_per_gpu", "the batch of one GPU")
    _require(run, "_scale", "scale", "how many times finer the target is")
    _require(run, "train.optimizer.name", "train.optim_g.type", "one of " + ", ".join(OPTIMIZERS))
    _modelled(run)
    _size(run)
    if video.is_video(run):
        video.frames(run)
    run.check()
    _dims(run)
    _parallel(run)
    _fixed(run)
    _validation(run)
    _nonsense(run)
    synthetic = run.get("_model") in SYNTHETIC

    def inverse(changes: dict[str, Any]) -> dict[str, Any]:
        sides = {path: changes.pop(path) for path in ("data.width", "data.height") if path in changes}
        name = "_crop" if synthetic else "_gt"
        if "data.frames" in changes:
            count = changes.pop("data.frames")
            changes = {**changes, "_frames": count} if video.is_video(run) and video.free(run) else changes
        return {**changes, **{f"{name}_{path.rpartition('.')[2]}": side for path, side in sides.items()}}

    return run.reading(inverse)


def _require(run: Draft, path: str, key: str, expected: str) -> None:
    if path not in run.settled:
        message = f"{key} is missing, and BasicSR's trainer has no default for it; expected {expected}."
        run.findings.append(run.document.finding("missing-key", "error", message, key=key))


def _modelled(run: Draft) -> None:
    for path, key, known in (("_type", "network_g.type", tuple(NETWORKS)), ("_model", "model_type", MODELS)):
        value = run.get(path)
        if value is not None and value not in known:
            message = f"Cannot judge: {key} {value} is not modelled yet, only {', '.join(known)}."
            raise ConfigError(run.document.finding("not-modelled", "error", message, key=key))

    kind, model = run.get("_type"), run.get("_model")
    if None not in (kind, model) and model != "SRModel" and (kind in video.NETWORKS) != (model in video.MODELS):
        message = f"Cannot judge: network_g.type {kind} trained by model_type {model} is not modelled."
        raise ConfigError(run.document.finding("not-modelled", "error", message, key="model_type"))


def _size(run: Draft) -> None:
    """The target's side. models/realesr*_model.py crop what the data set gives to the size at the top of the file."""
    name, key = ("_crop", "gt_size") if run.get("_model") in SYNTHETIC else ("_gt", "datasets.train.gt_size")
    for side in ("width", "height"):
        path = f"{name}_{side}"
        if path in run.settled:
            run.put(f"data.{side}", run.get(path), like=path)
    _require(run, "data.height", key, "the side of the high-resolution crop in pixels")


def _block(run: Draft, *names: str) -> Mapping[str, Any] | None:
    found: Any = run.document.data
    for name in names:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else None


def _dims(run: Draft) -> None:
    """The generator's own arguments, and the losses that the model's optimize_parameters walks."""
    model = run.get("_model")
    run.put("model.name", NETWORKS[run.get("_type")], like="_type")
    for name, value in (_block(run, "network_g") or {}).items():
        if name != "type":
            ours = "unshuffled" if name == "scale" else name  # RRDBNet's
            run.settled[f"model.dims.{ours}"] = value
            run.origins[f"model.dims.{ours}"] = f"network_g.{name}"
    run.put("model.dims.scale", run.get("_scale"), like="_scale")
    run.settled["model.dims.model_type"] = model
    run.origins["model.dims.model_type"] = "model_type"
    pixel = _block(run, "train", "pixel_opt")
    if pixel is None:
        message = "Cannot judge: without train.pixel_opt the loss is not modelled yet."
        raise ConfigError(run.document.finding("not-modelled", "error", message, key="train"), *run.findings)
    for name, key in (("pixel_opt", "type"), ("reduction", "reduction")):
        if key in pixel:
            run.settled[f"model.dims.{name}"] = pixel[key]
            run.origins[f"model.dims.{name}"] = f"train.pixel_opt.{key}"
    wanted = ["perceptual_opt", *(["gan_opt"] if model in ADVERSARIAL else [])]
    wanted += ["ldl_opt"] if model == "RealESRGANModel" else []  # the other models build its loss and never ask for it
    for name in wanted:
        if (settings := _block(run, "train", name)) is not None:
            run.settled[f"model.dims.{name}"] = dict(settings)
            run.origins[f"model.dims.{name}"] = f"train.{name}"
    if model in SYNTHETIC:
        run.put("model.dims.queue_size", run.get("_queue"), like="_queue")
    if "model.dims.ldl_opt" in run.settled and not run.get("_decay") > 0:
        message = "train.ldl_opt compares with the averaged generator, which train.ema_decay 0 leaves out; expected one above 0."
        run.note("error", "missing-key", message, at="model.dims.ldl_opt", fix="train.ema_decay: 0.999")
    if video.is_video(run):
        video.arguments(run)
    adversary = _block(run, "network_d")
    if model in ADVERSARIAL:
        for name, block in (("network_d", adversary), ("train.gan_opt", _block(run, "train", "gan_opt"))):
            if block is None:
                message = f"{name} is missing, and {model} has no default for it."
                run.findings.append(run.document.finding("missing-key", "error", message, key=name))
        run.settled["model.dims.network_d"] = dict(adversary or {})
        run.origins["model.dims.network_d"] = "network_d"
    elif adversary is not None:
        message = f"network_d is not read by {model}, so no discriminator is trained."
        run.findings.append(run.document.finding("unread-network", "warning", message, key="network_d"))
    if run.get("_type") != "RRDBNet" and any(f"model.dims.{name}" in run.settled for name in (*wanted, "network_d", "queue_size")):
        message = f"Cannot judge: {run.get('_type')} with a perceptual or adversarial loss is not modelled yet."
        raise ConfigError(run.document.finding("not-modelled", "error", message, key="network_g.type"), *run.findings)


def _parallel(run: Draft) -> None:
    """`--launcher` is a flag, and several GPUs are launched with it (docs/TrainTest.md); without it there is DataParallel."""
    said = run.get("_gpus")
    if said not in ("auto", 0):
        run.settled.setdefault("parallel.gpus", said)
        run.origins.setdefault("parallel.gpus", "num_gpu")
    run.assume("parallel.gpus", 1, "num_gpu: auto takes every GPU that it sees, and the config does not say how many")
    gpus = run.get("parallel.gpus")
    if gpus > 1:
        run.assume("parallel.strategy", "ddp", "docs/TrainTest.md launches several GPUs with --launcher pytorch")
    else:
        run.settled["parallel.strategy"] = "none"


def _fixed(run: Draft) -> None:
    """What the trainer does whatever the config says: it knows neither half precision nor checkpointing nor accumulation."""
    for path, value in {
        "train.method": "full",
        "train.accumulation": 1,
        "train.checkpointing": False,
        "train.optimizer.bits": 32,
        "data.frames": run.get("data.frames", 1),
        "data.latents": "cached",
        "data.text": "cached",
        "precision.weights": "fp32",
        "precision.autocast": None,
        "save.optimizer": True,  # models/base_model.py: save_training_state
        "save.final": True,
    }.items():
        run.settled[path] = value
    run.put("train.ema", run.get("_decay") > 0, like="_decay")
    if run.get("train.optimizer.name") == "sgd":
        run.put("train.optimizer.momentum", bool(run.get("_momentum", 0)), like="_momentum")


def _validation(run: Draft) -> None:
    """Whole images of the validation sets, one at a time, whose sizes no key gives."""
    run.drop("sample")
    sets = [name for name in run.document.data.get("datasets", {}) if str(name).split("_")[0] == "val"]
    if sets and run.document.data.get("val") is not None:
        each = "clip by clip" if video.is_video(run) else "image by image"
        message = (
            f"datasets.{sets[0]} is validated {each}, whole, and the config does not say how large they are:"
            " validation is not judged."
        )
        run.findings.append(run.document.finding("validation-size", "warning", message, key=f"datasets.{sets[0]}"))


def _nonsense(run: Draft) -> None:
    scale, side = run.get("_scale"), run.get("data.height")
    if side % scale:
        message = f"gt_size {side} is not a multiple of scale {scale}."
        run.note("error", "uneven-grid", message, at="data.height")
    argument = {"RRDBNet": "unshuffled"}.get(run.get("_type"), "upscale")
    factor = run.get(f"model.dims.{argument}", 4)
    if video.is_video(run):
        factor, argument = video.factor(run)
        video.nonsense(run)
    if factor != scale:
        at = f"model.dims.{argument}" if f"model.dims.{argument}" in run.settled else "_scale"
        word = "scale" if argument == "unshuffled" else argument
        message = (
            f"the network enlarges {factor} times (network_g.{word}), but scale is {scale}: its output is not the target's size."
        )
        run.note("error", "factor-mismatch", message, at=at)
    if run.get("_model") in SYNTHETIC and run.get("_queue") % run.get("train.batch"):
        batch = run.get("train.batch")
        message = f"queue_size {run.get('_queue')} is not a multiple of batch_size_per_gpu {batch}, as the trainer asserts."
        run.note("error", "uneven-queue", message, at="train.batch")
    adversary = run.get("model.dims.network_d") or {}
    if adversary.get("type") == "VGGStyleDiscriminator" and adversary.get("input_size", 128) != side:
        message = f"the discriminator takes images of {adversary.get('input_size', 128)} pixels, but gt_size is {side}."
        run.note("error", "factor-mismatch", message, at="model.dims.network_d", fix=f"network_d.input_size: {side}")


ADAPTER = Adapter(name="basicsr", matches=matches, read=read, tables=(TABLE,))
