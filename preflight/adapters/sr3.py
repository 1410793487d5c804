"""SR3 and DDPM in Janspiry's trainer: one JSON, comments allowed, with the blocks datasets, model and train.

What is read, and what holds without a key, is the trainer's own code: core/logger.py, model/model.py, model/networks.py, sr.py and
data/__init__.py of github.com/Janspiry/Image-Super-Resolution-via-Iterative-Refinement, commit 01d27a7.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from preflight.adapters.conversions import COUNT, SIDE, SILENT, STEPS, Conversion, RefusedError, choice, flag, whole
from preflight.adapters.draft import Draft, draft
from preflight.adapters.reading import Adapter, Reading
from preflight.adapters.run_values import count, place
from preflight.adapters.table import HARDWARE, Field, Table
from preflight.document import Document

NETWORKS = {"sr3": "sr3-janspiry", "ddpm": "ddpm-janspiry"}
#: model/networks.py: define_G, the arguments of unet.UNet; those it asks for without a default.
UNET = ("in_channel", "out_channel", "inner_channel", "norm_groups", "channel_mults", "attn_res", "res_blocks", "dropout")


def square(low: int = 1, high: int = SIDE) -> Conversion:
    """One number for both sides of a square image; reads to (width, height)."""
    inner = whole(low, high)

    def read(value: Any) -> tuple[int, int]:
        side = inner.read(value)
        return side, side

    def write(value: tuple[int, int], _: Any) -> Any:
        return value[0] if value[0] == value[1] else SILENT

    return Conversion(name="square", read=read, write=write, schema=inner.schema)


def _devices() -> Conversion:
    expected = "a list of GPU numbers such as [0, 1]"

    def read(value: Any) -> int:
        if not isinstance(value, list) or not value:
            raise RefusedError(expected)
        for device in value:
            whole(0).read(device)
        return len(value)

    schema = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1}
    return Conversion(name="devices", read=read, write=lambda *_: SILENT, schema=schema)


FIELDS = (
    Field(path="model.name", keys=("model.which_model_G",), convert=choice("a network", NETWORKS, exact=True)),
    Field(path=("data.width", "data.height"), keys=("datasets.train.r_resolution",), convert=square()),
    Field(path="train.batch", keys=("datasets.train.batch_size",), convert=whole()),
    Field(path="parallel.gpus", keys=("gpu_ids",), convert=_devices(), default=1,
          source="sr.py: --gpu_ids, which takes the place of gpu_ids"),
    Field(path="data.workers", keys=("datasets.train.num_workers",), convert=count(0, COUNT)),
    Field(path=("sample.width", "sample.height"), keys=("datasets.val.r_resolution",), convert=square()),
    Field(path="sample.steps", keys=("model.beta_schedule.val.n_timestep",), convert=whole(1, STEPS)),
    Field(path="sample.every", keys=("train.val_freq",), convert=count()),
    Field(path="save.every", keys=("train.save_checkpoint_freq",), convert=count()),
    Field(path="schedule.steps", keys=("train.n_iter",), convert=count()),
    Field(path="schedule.samples", keys=("datasets.train.data_len",), convert=count()),
    Field(path="paths.train", keys=("datasets.train.dataroot",), convert=place()),
    Field(path="paths.validation", keys=("datasets.val.dataroot",), convert=place()),
    Field(path="paths.resume", keys=("path.resume_state",), convert=place()),
    Field(path="_norms", keys=("model.finetune_norm",), convert=flag(), default=False, source="core/logger.py: NoneDict"),
    Field(path="model.dims.n_timestep", keys=("model.beta_schedule.train.n_timestep",), convert=whole(1, STEPS)),
    Field(path="model.dims.image_size", keys=("model.diffusion.image_size",), convert=whole(1, SIDE)),
    Field(path="_channels", keys=("model.diffusion.channels",), convert=whole()),
    Field(path="model.dims.conditional", keys=("model.diffusion.conditional",), convert=flag()),
    *(field for field in HARDWARE if field.path != "parallel.nodes"),
)  # fmt: skip

#: Read by the trainer without effect on memory. `model.unet.*` are the network's own dimensions.
NO_EFFECT = (
    "name", "phase", "distributed", "debug", "enable_wandb", "log_wandb_ckpt", "log_eval", "path.*", "wandb.*", "datasets.*.name",
    "datasets.*.mode", "datasets.*.dataroot", "datasets.*.datatype", "datasets.*.l_resolution", "datasets.*.use_shuffle",
    "datasets.*.data_len", "datasets.val.*", "datasets.test.*", "model.unet.*", "model.beta_schedule.*.schedule",
    "model.beta_schedule.*.linear_start", "model.beta_schedule.*.linear_end", "train.print_freq", "train.optimizer.*",
    "train.ema_scheduler.*",
)  # fmt: skip

TABLE = Table(
    unread="{key} is not read by SR3's trainer, so it changes nothing",
    fields=FIELDS,
    no_effect=NO_EFFECT,
)


def matches(document: Document) -> bool:
    """A `model` block with the trainer's own `which_model_G`."""
    block = document.data.get("model")
    return isinstance(block, Mapping) and "which_model_G" in block


def read(document: Document) -> Reading:
    """Raises ConfigError for values that cannot be understood, and for what the trainer asks of a config without a default."""
    run = draft(document, TABLE)
    for path, key, expected in (
        ("model.name", "model.which_model_G", "sr3 or ddpm"),
        ("data.height", "datasets.train.r_resolution", "the high resolution in pixels"),
        ("train.batch", "datasets.train.batch_size", "the batch of all GPUs together"),
        ("model.dims.n_timestep", "model.beta_schedule.train.n_timestep", "the number of timesteps"),
        ("model.dims.image_size", "model.diffusion.image_size", "the resolution that attn_res refers to"),
        ("model.dims.conditional", "model.diffusion.conditional", "true or false"),
    ):
        _require(run, path, key, expected)
    _network_dims(run)
    run.check()
    share = _parallel(run)
    _fixed(run)
    _nonsense(run)

    def inverse(changes: dict[str, Any]) -> dict[str, Any]:
        if "train.batch" in changes:  # DataParallel splits what the config gives
            changes["train.batch"] *= share
        return changes

    return run.reading(inverse)


def _require(run: Draft, path: str, key: str, expected: str) -> None:
    if path not in run.settled:
        message = f"{key} is missing, and SR3's trainer has no default for it; expected {expected}."
        run.findings.append(run.document.finding("missing-key", "error", message, key=key))


def _network_dims(run: Draft) -> None:
    """What model/networks.py: define_G reads of `model.unet`."""
    block = run.block("model", "unet")
    found = {"channel_mults" if name == "channel_multiplier" else name: (name, value) for name, value in block.items()}
    for name in UNET:
        if name in found:
            run.settled[f"model.dims.{name}"] = found[name][1]
            run.origins[f"model.dims.{name}"] = f"model.unet.{found[name][0]}"
        elif name == "norm_groups":
            run.assume("model.dims.norm_groups", 32, "model/networks.py: define_G")
        else:
            key = "channel_multiplier" if name == "channel_mults" else name
            _require(run, f"model.dims.{name}", f"model.unet.{key}", "an argument of the U-Net")


def _parallel(run: Draft) -> int:
    """Settles each GPU's batch; returns what it is multiplied by to give the config's.

    torch.nn.DataParallel splits a batch with torch.chunk: the first GPU gets the ceiling.
    """
    gpus = int(run.get("parallel.gpus"))
    run.put("parallel.strategy", "dp" if gpus > 1 else "none", like="parallel.gpus")
    run.settled["train.batch"] = math.ceil(run.get("train.batch") / gpus)
    return gpus


def _fixed(run: Draft) -> None:
    """What the trainer does whatever the config says: it knows neither half precision nor checkpointing, and keeps no average."""
    for path, value in {
        "train.method": "full",
        "train.accumulation": 1,
        "train.checkpointing": False,
        "train.ema": False,
        "train.optimizer.name": "adam",  # model/model.py: torch.optim.Adam
        "train.optimizer.bits": 32,
        "data.frames": 1,
        "data.latents": "cached",
        "data.text": "cached",
        "precision.weights": "fp32",
        "precision.autocast": None,
        "sample.batch": 1,  # data/__init__.py: the validation loader's
        "sample.guidance": False,
        "save.optimizer": True,
    }.items():
        run.settled[path] = value
    block = run.block("train")
    if block.get("ema_scheduler") is not None:
        message = "train.ema_scheduler is not used: the trainer keeps no averaged copy of the network."
        run.findings.append(run.document.finding("unread-average", "note", message, key="train.ema_scheduler"))
    chosen = block.get("optimizer")
    kind = chosen.get("type", "adam") if isinstance(chosen, Mapping) else "adam"
    if str(kind).lower() != "adam":
        message = f'train.optimizer.type is "{kind}", but the trainer always makes an Adam.'
        run.findings.append(run.document.finding("unread-optimizer", "warning", message, key="train.optimizer.type"))


def _nonsense(run: Draft) -> None:
    if run.get("_norms"):
        message = (
            'finetune_norm trains what has "transformer" in its name, of which the U-Net has nothing, so Adam gets an empty list.'
        )
        run.note("error", "nothing-trained", message, at="_norms", fix="finetune_norm: false")
    channels, conditional = run.get("_channels", 3), run.get("model.dims.conditional")
    images = 2 * channels if conditional else channels
    inputs = run.get("model.dims.in_channel")
    if inputs != images:
        fed = "the noisy image and the one to be resolved" if conditional else "the noisy image alone"
        message = f"in_channel is {inputs}, but the U-Net is fed {images} channels: {fed}; expected {images}."
        run.note("error", "channel-mismatch", message, at="model.dims.in_channel")
    levels = run.get("model.dims.channel_mults")
    side, halvings = run.get("data.height"), len(levels) - 1 if isinstance(levels, list) and levels else 0
    if side % 2**halvings:
        message = f"r_resolution {side} cannot be halved {halvings} times; expected a multiple of {2**halvings}."
        run.note("error", "uneven-grid", message, at="data.height")


ADAPTER = Adapter(name="sr3", matches=matches, read=read, tables=(TABLE,))
