"""musubi-tuner (kohya-ss): a launch of one of its *_train_network.py or *_train.py, or the TOML that holds their flags.

Names and defaults are of github.com/kohya-ss/musubi-tuner (commit 30c658c): training/parser_common.py, training/trainer_base.py and
the scripts themselves. Latents and text are always encoded beforehand, by scripts of their own; the data set's TOML says sizes and
batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from preflight.adapters import config_flags, flags, musubi_run
from preflight.adapters.conversions import whole
from preflight.adapters.draft import Draft
from preflight.adapters.musubi_kinds import EXPERTS, KINDS, MODULES, OWN_CODE, PROGRAMS, Kind
from preflight.adapters.musubi_sizes import EXAMPLE_FRAMES, LENGTHS, LONGEST, RESOLUTION, SIZE, Bucket
from preflight.adapters.musubi_table import TABLE
from preflight.adapters.reading import Adapter, Reading
from preflight.document import Document
from preflight.finding import ConfigError

SHAPE = ("data.width", "data.height", "data.frames", "train.batch")
DIRECTORIES = ("video_directory", "image_directory", "video_jsonl_file", "image_jsonl_file")


def matches(document: Document) -> bool:
    """A launch of one of the scripts; a TOML with the flag dit beside that of the LoRA or the data; or a file that is neither."""
    if document.launch is not None:
        return flags.runs(document, *PROGRAMS)
    trained = config_flags.value(document, "dit") is not None
    about = config_flags.value(document, "network_module") or config_flags.value(document, "dataset_config")
    return (trained and about is not None) or _is_data(document) or _is_preset(document)


def _is_data(document: Document) -> bool:
    datasets = document.data.get("datasets")
    items = [item for item in datasets if isinstance(item, Mapping)] if isinstance(datasets, list) else []
    return bool(items) and all(set(DIRECTORIES) & set(item) for item in items)


def _is_preset(document: Document) -> bool:
    """What the GUI of musubi-tuner-scripts keeps for its step before the training."""
    return {"te_batch_size", "skip_existing", "console_width"} <= set(document.data)


def read(document: Document) -> Reading:
    """Raises ConfigError for values that cannot be understood, and for what the trainer itself refuses."""
    if document.launch is None:
        _refuse(document)
    document = config_flags.including(document)
    run = flags.draft(document, TABLE)
    kind = KINDS[_script(run)]
    example = "{}x{}".format(*RESOLUTION) + (f" and {EXAMPLE_FRAMES} frames" if kind.video else "")
    config_flags.missing(run, instead=f"what the trainer's documentation shows is taken for it: {example}")
    launched = config_flags.settle(run)
    _model(run, kind)
    _required(run)
    musubi_run.method(run, kind)
    musubi_run.precision(run, kind, launched)
    musubi_run.attention(run)
    bucket, length = musubi_run.shape(run, kind)
    musubi_run.experts(run)
    musubi_run.phases(run)
    run.check()
    reading = run.reading(partial(_inverse, run))
    return replace(reading, spell=partial(_spell, reading, bucket, length))


def _refuse(document: Document) -> None:
    if _is_data(document):
        message = (
            "this is a data set of musubi-tuner, not its training config; expected the launch script or the TOML of flags whose"
            " dataset_config names this file."
        )
        raise ConfigError(document.finding("not-a-training-config", "error", message, key="datasets"))
    if _is_preset(document):
        message = (
            "this is a preset for caching latents and text in musubi-tuner, not a training config; expected the launch script or"
            " the TOML of flags of the training that follows."
        )
        raise ConfigError(document.finding("not-a-training-config", "error", message, key="te_batch_size"))


def _script(run: Draft) -> str:
    """Which script trains: the launch says it, and of a TOML alone the module of its LoRA."""
    launch = run.document.launch
    if launch is not None:
        program = launch.program.replace("\\", "/").removesuffix(".py")
        return max((name for name in KINDS if program.endswith(name)), key=len)
    module = str(run.get("_module", "")).rpartition(".")[2]
    if module in MODULES:
        return MODULES[module]
    message = (
        f"network_module {run.get('_module')} does not say which network musubi-tuner trains; expected the launch script that"
        " starts the training."
        if "_module" in run.settled
        else "which network is trained only the launch says; expected the script that starts it, or network_module."
    )
    raise ConfigError(
        run.document.finding("missing-key", "error", message, key=config_flags.spelled(run.document, "network_module"))
    )


def _model(run: Draft, kind: Kind) -> None:
    path = {"task": "_task", "model_version": "_version"}.get(kind.key or "", "")
    word = run.get(path, kind.usual) if path else ""
    if kind.key == "model_version" and path not in run.settled and "edit" in kind.networks:
        path = "_edit_plus" if run.get("_edit_plus") else "_edit"
        word = "edit-2509" if run.get("_edit_plus") else "edit" if run.get("_edit") else word
    if word not in kind.networks:
        key = run.origins.get(path)
        message = f"{key} is {word}; expected one of {', '.join(kind.networks)}."
        raise ConfigError(run.document.finding("invalid-value", "error", message, key=key))
    name = kind.networks[word]
    run.put("model.name", name, like=path or "_module")
    if path and path not in run.origins:
        run.drop("model.name")
        run.assume("model.name", name, f"--{kind.key} is {kind.usual} where nothing is said")
    if name in OWN_CODE:
        run.put("model.code", "musubi")
    elif name.startswith("wan"):
        message = "this variant of Wan is counted as diffusers writes it; musubi-tuner's own code differs a little."
        run.note("note", "not-counted", message, at="model.name")
    if run.get("_one_time") and name in EXPERTS:
        run.put("model.dims.force_v2_1_time_embedding", True, like="_one_time")


def _required(run: Draft) -> None:
    """What trainer_base.py asks for: _validate_args_and_init, get_optimizer."""
    for path, key, expected in (
        ("paths.model", "dit", "the file of the network's weights"),
        ("train.optimizer.name", "optimizer_type", 'an optimizer such as "adamw8bit"'),
    ):
        if path not in run.settled:
            message = f"{key} is missing, and musubi-tuner stops without it; expected {expected}."
            run.findings.append(run.document.finding("missing-key", "error", message, key=config_flags.spelled(run.document, key)))
    if not isinstance(config_flags.value(run.document, "dataset_config"), str) and config_flags.DATASET not in run.document.data:
        message = "dataset_config is missing, and musubi-tuner stops without it; expected the TOML of the data set."
        run.findings.append(run.document.finding("missing-key", "error", message, key="dataset_config"))
    run.check()


def _inverse(run: Draft, changes: dict[str, Any]) -> dict[str, Any]:
    """Dtypes are flags of their own."""
    answer = dict(changes)
    if run.get("_offload_inactive"):
        answer.pop("offload.blocks", None)  # the two exclude each other
    if "offload.activations" in changes:
        answer["_checkpoints_offloaded"] = changes["offload.activations"]
    if str(changes.get("precision.quantization", "")).startswith("fp8"):
        answer["_fp8"], answer["_fp8_scaled"] = True, changes["precision.quantization"] == "fp8-scaled"
    return answer


def _spell(reading: Reading, bucket: Bucket, length: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Sizes and batches are the data set's, which may hold several."""
    document, origins = reading.document, reading.origins
    assert document is not None
    answer = reading.spell({path: value for path, value in changes.items() if path not in SHAPE})
    width, height = (changes.get(f"data.{axis}", getattr(bucket, axis)) for axis in ("width", "height"))
    if (width, height) != (bucket.width, bucket.height):
        answer |= config_flags.rewritten(document, "resolution", SIZE, (width, height), origins.get("data.width"))
    if changes.get("data.frames", bucket.frames) != bucket.frames and "data.frames" in origins:
        convert = LENGTHS if length == "target_frames" else whole(1, LONGEST)
        answer |= config_flags.rewritten(document, length, convert, changes["data.frames"], origins["data.frames"])
    if changes.get("train.batch", bucket.batch) != bucket.batch:
        answer |= config_flags.rewritten(document, "batch_size", whole(), changes["train.batch"], origins.get("train.batch"))
    return answer


ADAPTER = Adapter(name="musubi", matches=matches, read=read, tables=(TABLE,))
