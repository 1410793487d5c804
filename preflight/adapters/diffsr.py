"""DiffSR: super-resolution of fields, one YAML with the blocks model, data, train, optimize, schedule and log.

What is read, and what holds without a key, is the trainer's own code: trainers/base.py, trainers/resshift.py, trainers/ddpm.py,
datasets/*.py and main_ddp.py of github.com/lizhihao2022/DiffSR, and the older words of its forks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from preflight.adapters.conversions import (
    COUNT,
    RANKS,
    SILENT,
    Conversion,
    RefusedError,
    choice,
    flag,
    show,
    size,
    text,
    whole,
)
from preflight.adapters.draft import Draft, draft
from preflight.adapters.reading import Adapter, Reading
from preflight.adapters.run_values import count, place
from preflight.adapters.table import HARDWARE, Field, Table
from preflight.document import Document
from preflight.finding import ConfigError

OPTIMIZERS = {"Adam": "adam", "AdamW": "adamw", "SGD": "sgd"}
#: The networks of trainers/__init__.py whose blocks stand under `resshift`.
NESTED = ("diffsr-resshift", "diffsr-remg")
#: Every NavierStokes2D template of DiffSR has this grid, and so has its data set, NavierStokes_V1e-5_N1200_T20.
GRIDS = {"NavierStokes2D": (64, 64)}


def _network() -> Conversion:
    inner = text("the name of a DiffSR network such as FNO2d")

    def read(value: Any) -> str:
        return f"diffsr-{inner.read(value).lower().replace('_', '-')}"

    return Conversion(name="network", read=read, write=lambda *_: SILENT, schema=inner.schema)


def _factor() -> Conversion:
    """How many times finer the target is: 4, or [4, 4] in older files."""
    expected = "a whole number from 1 to 1,024, or two equal ones"

    def read(value: Any) -> int:
        sides = value if isinstance(value, list) else [value]
        factors: set[int] = {whole(1, 1024).read(side) for side in sides}
        if len(factors) != 1:
            raise RefusedError(expected)
        return factors.pop()

    def write(value: int, raw: Any) -> Any:
        return [value] * len(raw) if isinstance(raw, list) else value

    one = {"type": "integer", "minimum": 1, "maximum": 1024}
    many = {"type": "array", "items": one, "minItems": 1, "maxItems": 2}
    return Conversion(name="sample factor", read=read, write=write, schema={"anyOf": [one, many]})


def _devices() -> Conversion:
    expected = "a list of GPU numbers such as [0, 1]"

    def read(value: Any) -> int:
        if not isinstance(value, list) or not value:
            raise RefusedError(expected)
        for device in value:
            whole(0).read(device)
        if len({*value}) < len(value):
            raise RefusedError(expected + ", each once")
        return len(value)

    schema = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1, "uniqueItems": True}
    return Conversion(name="devices", read=read, write=lambda *_: SILENT, schema=schema)


FIELDS = (
    Field(path="model.name", keys=("model.name", "train.model_name"), convert=_network()),
    Field(path=("data.width", "data.height"), keys=("data.shape",), convert=size("hw")),
    Field(path="_factor", keys=("data.sample_factor",), convert=_factor(), default=2, source="datasets/*.py: sample_factor"),
    Field(path="train.batch", keys=("data.train_batchsize",), convert=whole(), default=10,
          source="trainers/base.py: train_batchsize"),
    Field(path="sample.batch", keys=("data.eval_batchsize",), convert=whole(), default=10,
          source="trainers/base.py: eval_batchsize"),
    Field(path="train.optimizer.name", keys=("optimize.optimizer",), convert=choice("an optimizer", OPTIMIZERS, exact=True)),
    Field(path="_distribute", keys=("train.distribute", "train.distributed"), convert=flag(), default=False,
          source="trainers/base.py: distribute"),
    Field(path="_mode", keys=("train.distribute_mode",), convert=choice("a mode", {"DDP": "ddp", "DP": "dp"}, exact=True),
          default="ddp", source="trainers/base.py: distribute_mode"),
    Field(path="_devices", keys=("train.device_ids",), convert=_devices()),
    Field(path="_saves", keys=("train.saving_ckpt", "train.saving_checkpoint"), convert=flag(), default=False,
          source="trainers/base.py: saving_ckpt"),
    Field(path="_ckpt_freq", keys=("train.ckpt_freq", "train.checkpoint_freq"), convert=count(), default=100,
          source="trainers/base.py: ckpt_freq, in epochs"),
    Field(path="_best", keys=("train.saving_best",), convert=flag(), default=True, source="trainers/base.py: saving_best"),
    Field(path="sample.every_epochs", keys=("train.eval_freq",), convert=count()),
    Field(path="schedule.epochs", keys=("train.epochs",), convert=count()),
    Field(path="data.workers", keys=("data.num_workers",), convert=count(0, COUNT)),
    Field(path="paths.train", keys=("data.data_path",), convert=place()),
    Field(path="paths.output", keys=("log.log_dir",), convert=place()),
    Field(path="save.keep", keys=("train.ckpt_max",), convert=whole(0), default=5, source="trainers/base.py: ckpt_max"),
    Field(path="parallel.gpus", keys=("hardware.gpus", "world_size", "train.world_size"), convert=whole(1, RANKS)),
    *HARDWARE,
)  # fmt: skip

#: Read by the trainer or written by its templates, without effect on memory. `model.*` are the network's own dimensions.
NO_EFFECT = (
    "model.*", "resshift.*", "beta_schedule.*", "data.name", "data.dataset", "data.data_key",
    "data.train_ratio", "data.valid_ratio", "data.test_ratio", "data.subset", "data.subset_ratio", "data.normalize",
    "data.normalizer_type", "train.random_seed", "train.seed", "train.cuda", "train.device",
    "train.patience", "train.load_ckpt", "train.ckpt_path",
    "train.resume_path", "train.visualize", "train.visual_interval", "train.model_type",
    "train.initializer", "train.local_rank", "train.rank", "train.saving_path", "train.saving_name", "optimize.lr",
    "optimize.weight_decay", "optimize.momentum", "schedule.*", "log.*", "_wandb", "_wandb.*", "device", "distributed",
    "local_rank", "rank", "mode", "config",
)  # fmt: skip


def _locate(parts: tuple[str, ...]) -> tuple[str, ...]:
    """Weights & Biases stores a run's config with each block under `value`."""
    return (parts[0], *parts[2:]) if len(parts) > 1 and parts[1] == "value" else parts


TABLE = Table(
    unread="{key} is not read by DiffSR's trainer, so it changes nothing",
    fields=FIELDS,
    no_effect=NO_EFFECT,
    sections=frozenset({"model", "data", "train", "optimize", "schedule", "log", "hardware", "resshift", "beta_schedule"}),
    locate=_locate,
)


def matches(document: Document) -> bool:
    """A `data` block with the trainer's own `train_batchsize` or `sample_factor`."""
    block = _block(document.data, "data")[0]
    return "train_batchsize" in block or "sample_factor" in block


def _block(data: Mapping[str, Any], name: str) -> tuple[Mapping[str, Any], str]:
    """The block `name` and its dotted key; an empty mapping when there is none."""
    found, key = data.get(name), name
    if isinstance(found, Mapping) and set(found) == {"value"}:
        found, key = found["value"], f"{name}.value"
    return (found, key) if isinstance(found, Mapping) else ({}, key)


def read(document: Document) -> Reading:
    """Raises ConfigError for values that cannot be understood, and when the network, the grid or the optimizer is missing."""
    run = draft(document, TABLE)
    _grid(run)
    _require(run, "model.name", "model.name", "the network's name such as FNO2d")
    _require(run, "train.optimizer.name", "optimize.optimizer", "Adam, AdamW or SGD")
    run.check()
    share = _parallel(run)
    _network_dims(run)
    _fixed(run)
    _cache(run)
    _nonsense(run)

    def inverse(changes: dict[str, Any]) -> dict[str, Any]:
        if "train.batch" in changes:  # DataParallel splits what the config gives
            changes["train.batch"] *= share
        return changes

    return run.reading(inverse)


def _require(run: Draft, path: str, key: str, expected: str) -> None:
    if path not in run.settled:
        message = f"{key} is missing, and DiffSR's trainer has no default for it; expected {expected}."
        run.findings.append(run.document.finding("missing-key", "error", message, key=key))


def _grid(run: Draft) -> None:
    name = _block(run.document.data, "data")[0]
    name = name.get("name", name.get("dataset"))
    if isinstance(name, str) and name in GRIDS:
        height, width = GRIDS[name]
        source = f"every {name} template of DiffSR has this grid"
        run.assume("data.height", height, source)
        run.assume("data.width", width, source)
    _require(run, "data.height", "data.shape", "the high-resolution grid as [height, width]")


def _parallel(run: Draft) -> int:
    """Settles the GPUs and each one's batch; returns what a GPU's batch is multiplied by to give the config's."""
    devices = run.get("_devices")
    if not run.get("_distribute"):
        run.origins.pop("parallel.gpus", None)
        run.put("parallel.gpus", 1, like="_distribute")
        run.put("parallel.strategy", "none", like="_distribute")
        return 1
    if run.get("_mode") == "ddp":
        source = "as many as train.device_ids; under DDP the launcher decides" if devices else "neither devices nor a world size"
        run.assume("parallel.gpus", devices or 1, source)
        run.put("parallel.strategy", "ddp", like="_mode")
        return 1
    # DataParallel takes its devices, or else all that it sees, and splits a batch with torch.chunk: the first gets the ceiling.
    if devices:
        run.put("parallel.gpus", devices, like="_devices")
    run.assume("parallel.gpus", 1, "DataParallel takes every GPU that it sees, and the config does not say how many")
    run.put("parallel.strategy", "dp", like="_mode")
    share = int(run.get("parallel.gpus"))
    run.settled["train.batch"] = math.ceil(run.get("train.batch") / share)
    return share


def _network_dims(run: Draft) -> None:
    block, key = _block(run.document.data, "model")
    if run.get("model.name") in NESTED:
        outer, key = _block(run.document.data, "resshift")
        model = outer.get("model")
        params = model.get("params") if isinstance(model, Mapping) else None
        key = f"{key}.model.params"
        if not isinstance(params, Mapping):
            message = f"{key} is missing; the trainer builds this network from it."
            raise ConfigError(*run.findings, run.document.finding("missing-key", "error", message, key=key))
        block = params
    for name, value in block.items():
        if name != "name":
            run.settled[f"model.dims.{name}"] = value
            run.origins[f"model.dims.{name}"] = f"{key}.{name}"
    run.put("model.dims.sample_factor", run.get("_factor"), like="_factor")


def _fixed(run: Draft) -> None:
    """What the trainer does whatever the config says: it knows neither half precision nor checkpointing nor accumulation."""
    for path, value in {
        "train.method": "full",
        "train.accumulation": 1,
        "train.checkpointing": False,
        "train.zero_grad": "before-backward",  # trainers/base.py: zero_grad() stands between forward and backward
        "train.optimizer.bits": 32,
        "data.frames": 1,
        "data.latents": "cached",
        "data.text": "cached",
        "precision.weights": "fp32",
        "precision.autocast": None,
        "sample.guidance": False,
    }.items():
        run.settled[path] = value
    run.put("sample.final", True)
    if run.get("_saves"):
        run.put("save.every_epochs", run.get("_ckpt_freq"), like="_ckpt_freq")
        run.put("save.optimizer", True)
        run.put("save.final", run.get("_best"))  # best_model.pth, beside the others
        if run.get("save.keep") == 0:  # the trainer keeps all of them
            run.put("save.keep", None, like="save.keep")
    else:
        run.drop("save")


def _cache(run: Draft) -> None:
    """datasets/*.py keep the prepared data at data_path.split(".")[0] with a few words after it."""
    path = run.get("paths.train")
    cut = str(path).split(".", maxsplit=1)[0]
    if path is not None and cut != str(path).rpartition(".")[0]:
        where = f"at {cut}…" if cut else "in the working directory"
        message = (
            f"The trainer keeps the prepared data {where}, as it cuts {path} at its first dot, so other data sets that are cut"
            " to the same are never read."
        )
        run.note("note", "cache-path", message, at="paths.train", fix="a path without a dot before its ending")


def _nonsense(run: Draft) -> None:
    factor, network = run.get("_factor"), run.get("model.name")
    for side in ("height", "width"):
        if run.get(f"data.{side}") % factor:
            message = f"the grid's {side} {run.get(f'data.{side}')} is not a multiple of sample_factor {factor}."
            run.note("error", "uneven-grid", message, at="data.height")
            return
    if network == "diffsr-unet2d" and factor != 2:
        message = f"UNet2d doubles the grid, so with sample_factor {factor} its output is not the size of the target; expected 2."
        run.note("error", "factor-mismatch", message, at="_factor")
    upsample = run.get("model.dims.upsample_factor", [2, 2])
    if network == "diffsr-fno2d" and upsample != [factor, factor]:
        message = (
            f"upsample_factor {show(upsample)} and sample_factor {factor} differ, so FNO2d's output is not the size of the"
            f" target; expected [{factor}, {factor}]."
        )
        at = "model.dims.upsample_factor" if "model.dims.upsample_factor" in run.settled else "_factor"
        run.note("error", "factor-mismatch", message, at=at)


ADAPTER = Adapter(name="diffsr", matches=matches, read=read, tables=(TABLE,))
