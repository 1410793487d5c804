"""sd-scripts (kohya-ss): a launch of train_network.py, sdxl_train.py and their kin, or the TOML that holds their flags.

Names and defaults are of github.com/kohya-ss/sd-scripts (commit 48d368f): library/train_util.py and the scripts themselves. Unless
it is told to cache them, the trainer encodes pictures and captions in every step, and its LoRA trains the text encoders as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from preflight.adapters import config_flags, flags, kohya_run
from preflight.adapters.draft import Draft
from preflight.adapters.kohya_kinds import KINDS, MODULES, PROGRAMS, XL, Kind, plain
from preflight.adapters.kohya_table import TABLE
from preflight.adapters.reading import Adapter, Reading
from preflight.document import Document
from preflight.finding import ConfigError

#: What no launch of these scripts is without; their names alone could be anyone's.
TELLING = ("train_data_dir", "dataset_config", "config_file", "network_module", "in_json", "pretrained_model_name_or_path")


def matches(document: Document) -> bool:
    """A launch of one of the scripts; a TOML with the model's path beside that of the LoRA or the data; or the data set's TOML."""
    if document.launch is not None:
        known = any(config_flags.value(document, name) is not None for name in TELLING)
        return flags.runs(document, *PROGRAMS) and known
    if config_flags.value(document, "model_family") is not None:  # SimpleTuner's
        return False
    model = config_flags.value(document, "pretrained_model_name_or_path")
    about = ("network_module", "train_data_dir", "dataset_config")
    return (model is not None and any(config_flags.value(document, name) for name in about)) or _is_data(document)


def _is_data(document: Document) -> bool:
    datasets = document.data.get("datasets")
    return isinstance(datasets, list) and any(isinstance(item, Mapping) and "subsets" in item for item in datasets)


def read(document: Document) -> Reading:
    """Raises ConfigError for values that cannot be understood, and for what the trainer itself refuses."""
    if document.launch is None and _is_data(document):
        message = (
            "this is a data set of sd-scripts, not its training config; expected the launch script or the TOML of flags whose"
            " dataset_config names this file."
        )
        raise ConfigError(document.finding("not-a-training-config", "error", message, key="datasets"))
    document = config_flags.including(document)
    run = flags.draft(document, TABLE)
    name, guessed = _script(run)
    kind = KINDS[name]
    kohya_run.missing(run, kind)
    run.check()
    kohya_run.deepspeed(run)
    config_flags.settle(run)
    _model(run, kind, guessed=guessed)
    kohya_run.optimizer(run)
    kohya_run.method(run, kind)
    kohya_run.precision(run, kind)
    kohya_run.encoders(run, kind)
    kohya_run.attention(run, kind)
    bucket = kohya_run.shape(run, kind)
    kohya_run.phases(run, kind)
    run.check()
    reading = run.reading(kohya_run.inverse)
    return replace(reading, spell=partial(kohya_run.spell, reading, bucket))


def _script(run: Draft) -> tuple[str, bool]:
    """Which script trains, and whether that had to be guessed: of a TOML alone the module of its LoRA may say it."""
    launch = run.document.launch
    if launch is not None:
        program = launch.program.replace("\\", "/").rpartition("/")[2].removesuffix(".py")
        return program, False
    module = str(run.get("_module", "")).rpartition(".")[2]
    if module in MODULES:
        return MODULES[module], False
    larger = (
        any(word in plain(str(run.get("paths.model", ""))) for word in XL) or run.get("_text_cached") or run.get("_text_on_disk")
    )
    if config_flags.value(run.document, "t5xxl") is not None:
        clips = config_flags.value(run.document, "clip_g") is not None
        name = "sd3_train" if clips else "flux_train"
    else:
        name = "sdxl_train" if larger else "fine_tune"
    if not module:
        return name, True
    return {"sdxl_train": "sdxl_train_network", "fine_tune": "train_network"}.get(name, f"{name}_network"), True


def _model(run: Draft, kind: Kind, *, guessed: bool) -> None:
    names = plain(str(run.get("paths.model", "")))
    found = next((network for word, network in kind.named if word in names), kind.network)
    if kind.network == "flux.1-dev" and run.get("_model_type") == "chroma":
        found = "chroma1-hd"
    if run.get("_v2") and kind.network == "sd1.5":
        run.note("error", "not-modelled", "Stable Diffusion 2 is not modelled yet; expected 1.5, without v2.", at="_v2")
    run.put("model.name", found, like="paths.model")
    if guessed:
        message = f"which of sd-scripts' programs reads this file only the launch says; {found} is counted."
        run.note("warning", "model-assumed", message, at="paths.model")


ADAPTER = Adapter(name="kohya", matches=matches, read=read, tables=(TABLE,))
