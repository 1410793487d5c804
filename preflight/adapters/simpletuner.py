"""SimpleTuner: a config.json, config.toml or config.env whose keys are its options, with or without dashes, and its data backends.

Names and defaults are simpletuner_sdk/server/services/field_registry and helpers/configuration/cmd_args.py of
github.com/bghira/SimpleTuner (commit bc8e6ab); what it does with them is helpers/training/trainer.py and helpers/models/common.py.
"""

from __future__ import annotations

import shlex
from dataclasses import replace
from functools import partial
from typing import Any

from preflight.adapters import flags, launcher, simpletuner_network, simpletuner_run, simpletuner_shape
from preflight.adapters.draft import Draft
from preflight.adapters.reading import Adapter, Reading
from preflight.adapters.simpletuner_data import BACKENDS
from preflight.adapters.simpletuner_fields import FIELDS
from preflight.adapters.simpletuner_options import ENVIRONMENT, OPTIONS
from preflight.adapters.table import Table
from preflight.document import Document
from preflight.finding import ConfigError

EXTRA = "TRAINER_EXTRA_ARGS"
#: Options of which one makes a config SimpleTuner's, beside `model_family`.
TELLING = frozenset({
    "data_backend_config", "model_flavour", "base_model_precision", "lora_type", "quantize_via", "validation_step_interval",
    "checkpoint_step_interval", "pretrained_model_name_or_path", "train_batch_size", "model_type", "lycoris_config",
})  # fmt: skip
#: What a config.env says of the launch.
ABOUT_LAUNCH = frozenset({
    "TRAINING_NUM_PROCESSES", "TRAINING_NUM_MACHINES", "TRAINING_DYNAMO_BACKEND", "CONFIG_BACKEND", "CONFIG_TYPE", "CONFIG_PATH",
    "SIMPLETUNER_LOG_LEVEL",
})  # fmt: skip
#: What is on unless it is turned off, and that a text "false" does not: cli_utils.py, mapping_to_cli_args, leaves such keys out.
ON = frozenset({"gradient_checkpointing", "fsdp_reshard_after_forward"})


def _option(part: str) -> str:
    """The option that a key names: `--train_batch_size`, `train-batch-size`, or in a config.env TRAIN_BATCH_SIZE."""
    if part.isupper():
        return ENVIRONMENT.get(part, part.lower())
    return part.lstrip("-").replace("-", "_")


def _locate(parts: tuple[str, ...]) -> tuple[str, ...]:
    return (_option(parts[0]), *(part.lstrip("-").replace("-", "_") for part in parts[1:])) if parts else parts


def _prefer(key: str, document: Document) -> str:
    """A key that is new, as the config spells its others."""
    if "." in key:
        return key
    own = [str(name) for name in document.data if not str(name).startswith("_") and name != "launcher"]
    if own and all(name.isupper() for name in own):
        return next((name for name, option in ENVIRONMENT.items() if option == key), key.upper())
    return f"--{key}" if document.launch is not None or any(name.startswith("--") for name in own) else key


TABLE: Table = replace(
    flags.flag_table(
        unread="{key} is no option of SimpleTuner, which stops at it",
        fields=FIELDS,
        no_effect=(*OPTIONS, f"{BACKENDS}.*", "lycoris_config.*", "tread_config.*", "distillation_config.*", "*_config.*", "__*"),
    ),
    locate=_locate,
    prefer=_prefer,
    null_is_unset=True,
)


def matches(document: Document) -> bool:
    """`model_family` beside another option of SimpleTuner's, or what a config.env says of the launch alone."""
    if document.launch is not None and not flags.runs(document, "train.py", "simpletuner", "simpletuner.train"):
        return False
    names = {_option(str(name)) for name in document.data}
    return ("model_family" in names and bool(names & TELLING)) or _is_environment(document)


def _is_environment(document: Document) -> bool:
    """A config.env beside a config.json, which says how many processes there are and where the config is (cli/train.py)."""
    return document.path.endswith(".env") and "MODEL_FAMILY" not in document.data and bool(ABOUT_LAUNCH & set(document.data))


def read(document: Document) -> Reading:
    """Raises ConfigError for values that cannot be understood."""
    if _is_environment(document):
        message = "this says how SimpleTuner is started and nothing of the training; give the config.json or config.toml beside it."
        key = next(name for name in document.data if name in ABOUT_LAUNCH)
        raise ConfigError(document.finding("not-a-training-config", "error", message, key=key))
    document = _including(_expanded(document))
    dropped: list[str] = []
    given = replace(document, data=_given(document, dropped))
    run = flags.draft(given, TABLE)
    run.document = document
    _dropped(run, dropped)
    simpletuner_network.settle(run)
    simpletuner_run.settle(run)
    usual = simpletuner_shape.settle(run)
    run.check()
    reading = run.reading(partial(simpletuner_run.inverse, run))
    return replace(reading, spell=partial(simpletuner_shape.spell, run, usual, reading.spell))


def _expanded(document: Document) -> Document:
    """With the flags of TRAINER_EXTRA_ARGS, which a config.env hands on as they are (env_file.py: load_env_config)."""
    extra = document.data.get(EXTRA)
    if not isinstance(extra, str):
        return document
    try:
        words = shlex.split(extra)
    except ValueError:
        words = extra.split()
    data, positions = dict(document.data), dict(document.positions)
    for number, word in enumerate(words):
        if not word.startswith("--"):
            continue
        name, told, value = word.partition("=")
        following = words[number + 1] if number + 1 < len(words) else "--"
        data.setdefault(name, value if told else True if following.startswith("--") else following)
        if (EXTRA,) in positions:
            positions.setdefault((name,), positions[EXTRA,])
    return replace(document, data=data, positions=positions)


def _including(document: Document) -> Document:
    """With the files that it names: the data sets, the adapter's, accelerate's and DeepSpeed's settings."""
    for name in (BACKENDS, "lycoris_config", launcher.DEEPSPEED):
        document = _file(document, name, name)
    return _file(document, "accelerate_config", launcher.CONFIG)


def _file(document: Document, option: str, name: str) -> Document:
    key = next((key for key in document.data if _option(str(key)) == option), None)
    path = document.data.get(key) if key is not None else None
    if name in document.included or not isinstance(path, str) or path.lstrip().startswith(("{", "[")):
        return document
    found = flags.including(document, name, path)
    if found is document and path.startswith("config/"):  # json_file.py: _resolve_example_path, the package's own examples
        found = flags.including(document, name, path.removeprefix("config/"))
    if found is document and document.path.count("/") > 0:
        found = flags.including(document, name, path.rpartition("/")[2])
    if found is document or name == key:
        return found
    return replace(found, data={given: value for given, value in found.data.items() if given != key or option != name})


def _given(document: Document, dropped: list[str]) -> dict[str, Any]:
    """What reaches SimpleTuner's parser: a value that is empty does not, nor does the text "false" (cli_utils.py)."""
    data: dict[str, Any] = {}
    environment = document.path.endswith(".env") or EXTRA in document.data
    for name, value in document.data.items():
        text = value.strip().lower() if isinstance(value, str) else None
        if environment and str(name).isupper() and TABLE.find((str(name),)) is False and TABLE.suggest((str(name),)) is None:
            continue  # a variable of another program
        if name == EXTRA or text in ("", "none"):
            continue
        if text == "false":
            dropped.append(str(name))
            continue
        data[name] = value
    return data


def _dropped(run: Draft, names: list[str]) -> None:
    for name in names:
        if _option(name) in ON:
            message = f'{name} is the text "false", which SimpleTuner leaves out, so it stays on.'
            fix = f"set {name} to false, without quotes"
            run.findings.append(run.document.finding("text-false", "warning", message, key=name, fix=fix))


ADAPTER = Adapter(name="simpletuner", matches=matches, read=read, tables=(TABLE,))
