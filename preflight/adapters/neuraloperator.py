"""neuraloperator's scripts: a YAML with the blocks data, opt and the model, as zencfg prints it or as older versions read it.

What is read, and what holds without a key, is the trainer's own code: scripts/train_darcy.py, config/*.py, training/trainer.py and
neuralop/models/base_model.py of github.com/neuraloperator/neuraloperator, commit 93d3f06; the older form, which stands under
`default` and has a block called as `arch` says, that of its tags 0.3.0 and 1.0.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from preflight.adapters.conversions import RANKS, SIDE, SILENT, Conversion, RefusedError, flag, whole
from preflight.adapters.draft import Draft, draft
from preflight.adapters.reading import Adapter, Reading
from preflight.adapters.run_values import count, place
from preflight.adapters.sr3 import square
from preflight.adapters.table import HARDWARE, Field, Table
from preflight.document import Document
from preflight.finding import ConfigError

#: The networks of models/fno.py; the others (uno, gino, fnogno, codano, …) are not modelled.
DIMENSIONS = {f"{letter}fno{word}": n for letter in ("", "t") for word, n in (("", None), ("1d", 1), ("2d", 2), ("3d", 3))}
#: FNO2d's names for `n_modes`, from the first dimension of the grid to the last.
MODES = ("n_modes_height", "n_modes_width", "n_modes_depth")
#: Words of neuraloperator up to 0.3.0 (models/fno.py: FNO2d), which 1.0 dropped.
OLD_WORDS = ("projection_channels", "lifting_channels", "use_mlp", "mlp", "skip", "mlp_dropout", "mlp_expansion")
#: Arguments of older constructors without effect on memory, or without any.
IGNORED = ("fft_norm", "joint_factorization", "tensor_lasso_penalty", "dropout", "skip", "mlp", "domain_padding_mode", "arch",
           "model_arch", "data_channels", *MODES, *OLD_WORDS)  # fmt: skip


def largest(low: int, high: int) -> Conversion:
    """The largest of a list of whole numbers; never written back."""
    inner = whole(low, high)

    def read(value: Any) -> Any:
        values = value if isinstance(value, list) else [value]
        if not values:
            raise RefusedError("a list of whole numbers")
        return max(inner.read(item) for item in values)

    one = {"type": "integer", "minimum": low, "maximum": high}
    schema = {"anyOf": [one, {"type": "array", "items": one, "minItems": 1}]}
    return Conversion(name="largest", read=read, write=lambda *_: SILENT, schema=schema)


FIELDS = (
    Field(path="train.batch", keys=("data.batch_size",), convert=whole()),
    Field(path=("data.width", "data.height"), keys=("data.train_resolution", "data.size"), convert=square()),
    Field(path="sample.batch", keys=("data.test_batch_sizes", "data.test_batch_size"), convert=largest(1, 1_000_000)),
    Field(path="_tested", keys=("data.test_resolutions",), convert=largest(1, SIDE)),
    Field(path="sample.every_epochs", keys=("opt.eval_interval", "wandb.eval_interval"), convert=count()),
    Field(path="_half", keys=("opt.mixed_precision", "opt.amp_autocast"), convert=flag(), default=False,
          source="config/opt.py: OptimizationConfig"),
    Field(path="schedule.epochs", keys=("opt.n_epochs",), convert=count()),
    Field(path="schedule.samples", keys=("data.n_train",), convert=count()),
    Field(path="paths.train", keys=("data.folder",), convert=place()),
    Field(path="_distributed", keys=("distributed.use_distributed",), convert=flag(), default=False,
          source="config/distributed.py: DistributedConfig"),
    Field(path="_ranks_of_model", keys=("distributed.model_parallel_size",), convert=whole(1, RANKS)),
    Field(path="_levels", keys=("patching.levels",), convert=whole(0, 16), default=0, source="config/opt.py: PatchingConfig"),
    Field(path="parallel.gpus", keys=("hardware.gpus",), convert=whole(1, RANKS)),
    *HARDWARE,
)  # fmt: skip

#: Read by the scripts without effect on memory. The network's own arguments are read apart from this table.
NO_EFFECT = (
    "n_params_baseline", "verbose", "arch", "model.*", "wandb.*", "data.n_tests", "data.n_test", "data.encode_input",
    "data.encode_output", "data.encoding", "data.positional_encoding", "data.download", "data.test_*", "data.*_path", "opt.*",
    "patching.*", "distributed.*", *(f"{arch}.*" for arch in DIMENSIONS),
)  # fmt: skip


def _locate(parts: tuple[str, ...]) -> tuple[str, ...]:
    """Older files hold named variants, of which the scripts read `default`."""
    return parts[1:] if parts[0] == "default" and len(parts) > 1 else parts


TABLE = Table(
    unread="{key} is not read by neuraloperator's scripts, so it changes nothing",
    fields=FIELDS,
    no_effect=NO_EFFECT,
    sections=frozenset({"data", "opt", "model", "wandb", "patching", "distributed"}),
    locate=_locate,
)


def matches(document: Document) -> bool:
    """`model.model_arch`, or `arch` with a block of that name; at the top or under `default`."""
    return _architecture(document) is not None


def _architecture(document: Document) -> tuple[str, Mapping[str, Any], str] | None:
    """The network's name, its block, and the block's dotted key."""
    data, above = document.data, ""
    if isinstance(data.get("default"), Mapping):
        data, above = data["default"], "default."
    block = data.get("model")
    if isinstance(block, Mapping) and isinstance(block.get("model_arch"), str):
        return block["model_arch"].lower(), block, f"{above}model"
    arch = data.get("arch")
    if isinstance(arch, str) and isinstance(data.get(arch.lower()), Mapping):
        return arch.lower(), data[arch.lower()], f"{above}{arch.lower()}"
    return None


def read(document: Document) -> Reading:
    """Raises ConfigError for values that cannot be understood, and for networks that are not modelled."""
    run = draft(document, TABLE)
    found = _architecture(document)
    if found is None:
        message = (
            "there is neither model.model_arch nor a block called as arch says; expected the network's arguments in one of them."
        )
        raise ConfigError(document.finding("missing-key", "error", message, key="arch"))
    arch, block, key = found
    if arch not in DIMENSIONS:
        message = f'Cannot judge: the network "{arch}" is not modelled yet, only fno and tfno.'
        raise ConfigError(document.finding("not-modelled", "error", message, key=key))
    if run.get("_levels"):
        message = "Cannot judge: multi-grid patching (patching.levels) is not modelled yet; expected 0."
        run.note("error", "not-modelled", message, at="_levels")
    _require(run, "train.batch", "data.batch_size", "the batch of one GPU")
    _require(run, "data.height", "data.train_resolution", "the side of the grid")
    _dims(run, arch, block, key)
    run.check()
    _parallel(run)
    _fixed(run)
    return run.reading()


def _require(run: Draft, path: str, key: str, expected: str) -> None:
    if path not in run.settled:
        message = f"{key} is missing, and neuraloperator's scripts have no default for it; expected {expected}."
        run.findings.append(run.document.finding("missing-key", "error", message, key=key))


def _dims(run: Draft, arch: str, block: Mapping[str, Any], key: str) -> None:
    """The arguments of models/fno.py: FNO, in the words of 2.0; a bare None is text in YAML, and means null there."""
    run.settled["model.name"] = "neuralop-fno"
    run.origins["model.name"] = key

    def put(name: str, value: Any, source: str) -> None:
        run.settled[f"model.dims.{name}"] = value
        run.origins[f"model.dims.{name}"] = f"{key}.{source}"

    old = [name for name in OLD_WORDS if name in block]
    for name, value in block.items():
        if name not in IGNORED:
            put(name, None if value == "None" else value, name)
    modes = [name for name in MODES if name in block]
    if modes:
        put("n_modes", [block[name] for name in modes], modes[0])
    if "data_channels" in block:
        put("in_channels", block["data_channels"], "data_channels")
    run.assume("model.dims.out_channels", 1, "models/fno.py of 0.3.0 and 1.0.2: FNO2d")
    if "factorization" not in block and arch.startswith("t"):
        run.settled["model.dims.factorization"] = "Tucker"
    if isinstance(run.get("model.dims.domain_padding"), int | float) and block.get("domain_padding_mode") == "one-sided":
        put("domain_padding", run.get("model.dims.domain_padding") / 2, "domain_padding")
    for name in ("use_channel_mlp", "preactivation", "separable"):
        if f"model.dims.{name}" in run.settled:
            run.settled[f"model.dims.{name}"] = bool(run.get(f"model.dims.{name}"))
    if old:
        _old(run, block, put)


def _old(run: Draft, block: Mapping[str, Any], put: Any) -> None:
    """Up to 0.3.0 hidden widths are numbers of channels, no grid is added, and `skip` and `mlp` reach nobody."""
    hidden = block.get("hidden_channels")
    for name in ("lifting", "projection"):
        channels = block.get(f"{name}_channels", 256)
        if isinstance(hidden, int) and isinstance(channels, int) and hidden:
            put(f"{name}_channel_ratio", channels / hidden, f"{name}_channels")
    put("use_channel_mlp", bool(block.get("use_mlp", False)), "use_mlp")
    put("channel_mlp_expansion", block.get("mlp_expansion", 0.5), "mlp_expansion")
    put("channel_mlp_dropout", block.get("mlp_dropout", 0), "mlp_dropout")
    run.settled["model.dims.positional_embedding"] = None
    unread = [name for name in ("skip", "mlp") if name in block]
    if unread:
        key = run.origins["model.dims.use_channel_mlp"].rpartition(".")[0]
        message = f"{key}.{unread[0]} is handed on to FNO, which has no such argument and ignores it."
        run.findings.append(run.document.finding("unread-argument", "warning", message, key=f"{key}.{unread[0]}"))
    message = "This is the form of neuraloperator up to 0.3; its layers are taken to need what those of 2.0 need."
    run.findings.append(run.document.finding("older-version", "note", message, key=run.origins["model.name"]))


def _parallel(run: Draft) -> None:
    if not run.get("_distributed"):
        run.origins.pop("parallel.gpus", None)
        run.put("parallel.gpus", 1, like="_distributed")
        run.put("parallel.strategy", "none", like="_distributed")
        return
    run.assume("parallel.gpus", 1, "torchrun decides, and the config does not say how many")
    run.put("parallel.strategy", "ddp", like="_distributed")


def _fixed(run: Draft) -> None:
    """What the scripts do whatever the config says: they know neither checkpointing nor accumulation, and save nothing."""
    for path, value in {
        "train.method": "full",
        "train.accumulation": 1,
        "train.checkpointing": False,
        "train.optimizer.name": "adamw",
        "train.optimizer.bits": 32,
        "data.frames": 1,
        "data.latents": "cached",
        "data.text": "cached",
        "precision.weights": "fp32",
        "sample.guidance": False,
    }.items():
        run.settled[path] = value
    run.put("precision.autocast", "fp16" if run.get("_half") else None, like="_half")  # torch.autocast's own for CUDA
    if "_tested" in run.settled:
        run.put("sample.height", run.get("_tested"), like="_tested")
        run.put("sample.width", run.get("_tested"), like="_tested")
    run.assume("sample.every_epochs", 1, "training/trainer.py: eval_interval")


ADAPTER = Adapter(name="neuraloperator", matches=matches, read=read, tables=(TABLE,))
