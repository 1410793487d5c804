"""diffusion-pipe (tdrussell): a TOML with the tables model, adapter and optimizer, and the data set's TOML that it names.

Names and defaults are train.py, models/base.py and utils/dataset.py of github.com/tdrussell/diffusion-pipe (commit 8f83dbf).
Latents are always encoded beforehand, and text for every model but SDXL, whose encoders train. A key in
the wrong table is not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from preflight.adapters import diffusion_pipe_sizes as sizes
from preflight.adapters.block_layers import layers
from preflight.adapters.diffusion_pipe_table import DATA, EXAMPLE, FILES, TABLE
from preflight.adapters.diffusion_pipe_values import FORKS, KINDS, Kind, network
from preflight.adapters.draft import Draft, draft
from preflight.adapters.reading import Adapter, Reading
from preflight.document import Document
from preflight.finding import ConfigError, Finding

TABLES = ("model", "adapter", "optimizer", "monitoring")


def matches(document: Document) -> bool:
    """A `model` table with a `type`, beside a data set's file; or that file itself, with its [[directory]] tables."""
    model = document.data.get("model")
    if isinstance(model, Mapping) and isinstance(model.get("type"), str):
        return isinstance(document.data.get("dataset"), str | Mapping) and bool({"dtype", *_tails()} & set(model))
    return _is_data(document)


def _tails() -> set[str]:
    return {name.removeprefix("model.") for name in FILES}


def _is_data(document: Document) -> bool:
    known = {"resolutions", "size_buckets", "frame_buckets"} & set(document.data)
    return isinstance(document.data.get("directory"), list) and bool(known) and "model" not in document.data


def read(document: Document) -> Reading:
    """Raises ConfigError for values that cannot be understood, and for what the trainer asks of a config without a default."""
    if _is_data(document):
        message = (
            "this is a data set of diffusion-pipe, not its training config; expected the TOML with [model] and [optimizer],"
            " whose key `dataset` names this file."
        )
        raise ConfigError(document.finding("not-a-training-config", "error", message, key="directory"))
    path = document.data.get("dataset")
    if isinstance(path, str):
        document = document.including("dataset", path) or document
    run = draft(document, TABLE)
    run.findings[:] = map(_misplaced, run.findings)
    kind = {**KINDS, **FORKS}.get(run.get("_type"), Kind(usual=str(run.get("_type")), swaps=True, video=True))
    _required(run)
    _model(run, kind)
    _method(run, kind)
    _precision(run)
    bucket = _shape(run, kind)
    _parallel(run)
    _swapping(run, kind)
    _phases(run)
    run.check()

    def inverse(changes: dict[str, Any]) -> dict[str, Any]:
        return _inverse(run, kind, bucket, changes)

    return run.reading(inverse)


def _misplaced(finding: Finding) -> Finding:
    """A key that TOML has put into the table above it."""
    *table, key = (finding.key or "").split(".")
    if finding.id != "unknown-key" or len(table) != 1 or table[0] not in TABLES or not TABLE.find((key,)):
        return finding
    message = f"{finding.key} is not read by diffusion-pipe, where {key} belongs before the first [table] of the file."
    return replace(finding, message=message, fix=f"move {key} above [{table[0]}]")


def _required(run: Draft) -> None:
    data = run.document.data
    for path, key, expected in (
        ("_type", "model.type", f"one of {', '.join(KINDS)}"),
        ("_dtype", "model.dtype", 'a dtype such as "bfloat16"'),
        ("train.optimizer.name", "optimizer.type", 'an optimizer such as "adamw_optimi"'),
    ):
        if path not in run.settled:
            message = f"{key} is missing, and diffusion-pipe has no default for it; expected {expected}."
            run.findings.append(run.document.finding("missing-key", "error", message, key=key))
    if not {"save_every_n_epochs", "save_every_n_steps", "save_every_n_examples"} & set(data):
        message = (
            "diffusion-pipe stops without save_every_n_epochs, save_every_n_steps or save_every_n_examples; expected one of them."
        )
        run.findings.append(run.document.finding("missing-key", "error", message, key="save_every_n_epochs"))
    run.check()


def _model(run: Draft, kind: Kind) -> None:
    model = run.document.data["model"]
    named = [str(model.get(key.removeprefix("model."), "")).rstrip("/\\").split("/")[-2:] for key in FILES]
    found, guessed = network(kind, " ".join(part for parts in named for part in parts))
    if "_control" in run.settled and kind.pairs is not None and found == kind.usual:
        found = kind.pairs
    elif "_control" not in run.settled and found == kind.pairs and "dataset" in run.document.included:
        found = kind.usual  # the weights of an editing model, trained on single images
    elif "_control" in run.settled and kind.pairs is None:
        run.note("error", "not-modelled", f"control images for {found} are not modelled.", at="_control")
    run.put("model.name", found, like="_type")
    if guessed:
        message = f"the names of the model's files do not say which of its variants they hold, so {found} is counted."
        run.note("warning", "model-assumed", message, at="paths.model")
    if found == "hidream-i1":
        message = "HiDream's Llama 3.1 8B stays on the GPU and runs in every step of diffusion-pipe, which is not modelled."
        run.note("error", "not-modelled", message, at="_type")
    run.check()


def _method(run: Draft, kind: Kind) -> None:
    name = run.get("train.optimizer.name")
    if name == "sgd":
        run.put("train.optimizer.momentum", run.get("_momentum") > 0, like="_momentum")
    if str(run.document.data["optimizer"]["type"]).lower() == "offload":  # torchao's CPUOffloadOptimizer around AdamW(fused=True)
        run.put("offload.optimizer", True, like="train.optimizer.name")
        run.put("train.optimizer.fused", True, like="train.optimizer.name")
    if run.get("_release"):
        message = "gradient_release frees each gradient as soon as it is there, which is not modelled: all are counted."
        run.note("note", "not-counted", message, at="_release")
    text = run.get("_type") == "sdxl"
    if "adapter" not in run.document.data:
        run.put("train.method", "full")
        run.drop("train.lora")
        if text:
            message = "diffusion-pipe trains SDXL's text encoders with it, which is not modelled; expected an [adapter] table."
            run.note("error", "not-modelled", message, at="_type")
        return
    run.put("train.method", "lora", like="_adapter")
    if "_alpha" in run.settled:
        run.note("error", "alpha-set", "alpha is always the rank in diffusion-pipe, which stops when it is set.", at="_alpha",
                 fix="remove alpha from [adapter]")  # fmt: skip
    if run.get("_adapter") == "lokr":
        message = "peft's lokr makes each layer's change whole before it is applied, which is not modelled; expected lora."
        run.note("error", "not-modelled", message, at="_adapter")
    for path, key in (("_adapter", "adapter.type"), ("train.lora.rank", "adapter.rank")):
        if path not in run.settled:
            message = f"{key} is missing, and diffusion-pipe has no default for it."
            run.findings.append(run.document.finding("missing-key", "error", message, key=key))
    run.put("train.lora.alpha", run.get("train.lora.rank"))
    dtype = "_adapter_dtype" if "_adapter_dtype" in run.settled else "_dtype"
    run.put("train.lora.dtype", run.get(dtype), like=dtype)
    if targets := layers(run.get("model.name")):  # models/base.py: get_target_modules
        run.put("train.lora.targets", targets)
    if text:
        message = "SDXL's text encoders train as well; their own adapters and activations, a few hundred MiB, are not counted."
        run.note("warning", "text-encoders-train", message, at="_type")
    if kind.fused:
        message = (
            "query, key and value are one layer in this trainer; they are counted as three, whose adapters are somewhat larger."
        )
        run.note("note", "fused-qkv", message, at="_adapter")


def _precision(run: Draft) -> None:
    """Every layer runs under autocast to `dtype`; transformer_dtype is how the layers inside the blocks are stored."""
    dtype, stored = run.get("_dtype"), run.get("_stored")
    narrow = stored in ("fp8", "nf4")
    run.put("precision.weights", stored if stored is not None and not narrow else dtype, like="_stored" if "_stored" in run.settled
            and not narrow else "_dtype")  # fmt: skip
    if narrow:
        run.put("precision.quantization", stored, like="_stored")
    if dtype != "fp32":
        run.put("precision.autocast", dtype, like="_dtype")
        run.put("precision.attention", dtype, like="_dtype")
    run.put("data.latents", "cached")
    online = run.get("_type") == "sdxl" or not run.get("_text_cached")
    run.put("data.text", "online" if online else "cached", like="_text_cached" if "_text_cached" in run.origins else None)
    if online:
        run.put("precision.text_encoder", dtype, like="_dtype")
    if run.get("offload.activations"):
        run.assumed.pop("train.use_reentrant", None)
        run.put("train.use_reentrant", True, like="offload.activations")


def _group(document: Document) -> dict[str, Any]:
    """The data set's settings; those that --set gave where its file is not there."""
    inside = document.data.get("dataset")
    if isinstance(inside, Mapping):
        return {key: value for key, value in inside.items() if value is not None}
    return {key: document.data[key] for key in DATA if key in document.data}


def _shape(run: Draft, kind: Kind) -> sizes.Bucket:
    data, document = _group(run.document), run.document
    if "dataset" not in document.included and not isinstance(document.data.get("dataset"), Mapping):
        missing = {} if "size_buckets" in data else {key: value for key, value in EXAMPLE.items() if key not in data}
        data = {**missing, **data}
        if missing.keys() & {"resolutions", "frame_buckets"}:
            said = f"{data['resolutions'][0]} a side" + (f" and {max(data['frame_buckets'])} frames" if kind.video else "")
            message = (
                f"{document.data.get('dataset')} is not there, so the sizes of the data are those of the trainer's example: {said};"
                " pass --set resolutions=[…]" + (" and --set frame_buckets=[…]." if kind.video else ".")
            )
            run.findings.append(document.finding("file-not-read", "warning", message, key="dataset"))
    directories = data.get("directory")
    own = isinstance(directories, list) and all(
        isinstance(d, Mapping) and {"resolutions", "size_buckets"} & set(d) for d in directories
    )
    if not own and not {"resolutions", "size_buckets"} & set(data):
        message = "the data set has neither resolutions nor size_buckets, and diffusion-pipe has no default for them."
        run.findings.append(document.finding("missing-key", "error", message, key="dataset.resolutions"))
        run.check()
    batches = sizes.Batches(run.get("_batch"), run.get("_image_batch", run.get("_batch")))
    bucket = sizes.largest(data, batches, kind)
    side = "_bucket_width" if "_bucket_width" in run.settled else "_bucket_side"
    length = "_bucket_length" if "_bucket_length" in run.settled else "_bucket_frames"
    for path, value, like in (("width", bucket.width, side), ("height", bucket.height, side), ("frames", bucket.frames, length)):
        if like in run.settled or (path == "frames" and not kind.video):
            run.put(f"data.{path}", value, like=like if kind.video or path != "frames" else None)
        else:
            source = "frame_buckets is [1] where nothing is said (utils/dataset.py)" if "dataset" in document.included else (
                "examples/dataset.toml, as the data set's own file is not there")  # fmt: skip
            run.assume(f"data.{path}", value, source)
    run.put("train.batch", bucket.batch, like=_batch_path(run, bucket))
    return bucket


def _batch_path(run: Draft, bucket: sizes.Bucket) -> str:
    return "_image_batch" if bucket.image and "_image_batch" in run.settled else "_batch"


def _parallel(run: Draft) -> None:
    """DeepSpeed's PipelineModule, at ZeRO's stage 0; what the stages leave of the GPUs is data-parallel."""
    stages = int(run.get("parallel.pipeline"))
    source = "deepspeed --num_gpus decides, which no config says, and one GPU for each stage is taken; pass --set hardware.gpus=N"
    run.assume("parallel.gpus", stages, source)
    gpus = int(run.get("parallel.gpus"))
    if gpus % stages:
        message = f"{gpus} GPUs cannot be divided into pipelines of {stages} stages, and DeepSpeed stops."
        run.note("error", "pipeline-stages", message, at="parallel.pipeline")
    run.put("parallel.strategy", "ddp" if gpus > stages else "none", like="parallel.gpus")
    if stages > 1:
        how = run.get("_partition")
        run.put("parallel.partition", run.get("_split", "parameters") if how == "manual" else how, like="_partition")


def _swapping(run: Draft, kind: Kind) -> None:
    if not run.get("offload.blocks"):
        return
    if run.get("train.method") == "full":
        run.note(
            "error", "block-swap", "blocks_to_swap works with an [adapter] only, and diffusion-pipe stops.", at="offload.blocks"
        )
    if run.get("parallel.pipeline") > 1:
        message = "blocks_to_swap works with pipeline_stages = 1 only, and diffusion-pipe stops."
        run.note("error", "block-swap", message, at="offload.blocks")
    if not kind.swaps:
        message = f"blocks_to_swap is not implemented for {run.get('_type')} in diffusion-pipe, which stops."
        run.note("error", "block-swap", message, at="offload.blocks", fix="remove blocks_to_swap")


def _phases(run: Draft) -> None:
    if "_save_examples" in run.settled:
        each = run.get("train.batch") * run.get("train.accumulation") * run.get("parallel.gpus")
        run.put("save.every", max(1, run.get("_save_examples") // each), like="_save_examples")
    run.put("save.final", True)
    run.put("save.optimizer", "_checkpoints" in run.settled, like="_checkpoints")
    said = run.get("_eval_batch")
    if run.document.data.get("eval_datasets") and isinstance(said, int) and said > run.get("train.batch"):
        message = f"evaluation takes batches of {said}, more than training's {run.get('train.batch')}, and is not counted."
        run.note("warning", "evaluation-larger", message, at="_eval_batch")


def _inverse(run: Draft, kind: Kind, bucket: sizes.Bucket, changes: dict[str, Any]) -> dict[str, Any]:
    """A size is an area and a list of lengths here, and a batch may be one of several."""
    width, height = (changes.get(f"data.{axis}", run.get(f"data.{axis}")) for axis in ("width", "height"))
    length = changes.get("data.frames", bucket.frames)
    if "_bucket_width" in run.settled and {"data.width", "data.height", "data.frames"} & set(changes):
        changes |= {"_bucket_width": width, "_bucket_height": height, "_bucket_length": length}
    else:
        if {"data.width", "data.height"} & set(changes):
            known = {} if "dataset" in run.document.included else EXAMPLE
            changes["_bucket_side"] = sizes.side_within(width * height, {**known, **_group(run.document)}, kind.multiple)
        if "data.frames" in changes and kind.video:
            changes["_bucket_frames"] = length
    if changes.get("precision.quantization") == "fp8":
        changes["_stored"] = changes.pop("precision.quantization")
    if "train.batch" in changes:
        path = _batch_path(run, bucket)
        said, wanted = run.get(path), changes["train.batch"]
        if isinstance(said, list):
            side = (bucket.width * bucket.height) ** 0.5
            near = min(said, key=lambda pair: abs(pair[0] - side))
            changes[path] = [[size, wanted if size == near[0] else number] for size, number in said]
        else:
            changes[path] = wanted
    return changes


ADAPTER = Adapter(name="diffusion-pipe", matches=matches, read=read, tables=(TABLE,))
