"""The families' schemas are written from the adapters' tables, so that neither knows a key the other does not."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from preflight import document, schema
from preflight.adapters import ADAPTERS, by_name
from preflight.adapters.conversions import SILENT
from preflight.adapters.table import Table
from preflight.position import dotted

ROOT = Path(__file__).parent.parent
DRAFT = "https://json-schema.org/draft/2020-12/schema"
TITLES = {
    "videox-fun": "VideoX-Fun: the flags of its train.py and train_lora.py as keys; unknown keys are allowed",
    "diffsynth": "DiffSynth-Studio: the flags of its train.py as keys; unknown keys are allowed",
    "finetrainers": "finetrainers: the flags of its train.py as keys; unknown keys are allowed",
    "diffusion-pipe": "A diffusion-pipe run: the tables model, adapter and optimizer; unknown keys are allowed",
    "wan-lora": "LoRA on Wan: flat keys, or keys grouped in sections; unknown keys are allowed",
    "diffsr": "A DiffSR run: the blocks model, data, train and optimize; unknown keys are allowed",
    "hunyuandit": "HunyuanDiT: the flags of hydit/train_deepspeed.py as keys; unknown keys are allowed",
    "sr3": "SR3 or DDPM in Janspiry's trainer: the blocks datasets, model and train; unknown keys are allowed",
    "resshift": "A ResShift run: the blocks trainer, model, diffusion and train; unknown keys are allowed",
    "basicsr": "A BasicSR run: the blocks datasets, network_g, train and val; unknown keys are allowed",
    "ai-toolkit": "A job of ai-toolkit: job and config.process; unknown keys are allowed",
    "ltx-trainer": "Lightricks' trainers: the blocks model, lora, optimization and validation; unknown keys are allowed",
    "simpletuner": "SimpleTuner: its options as keys, with or without dashes; unknown keys are allowed",
    "kohya": "sd-scripts: the flags of its scripts as keys, as its TOML has them; unknown keys are allowed",
    "musubi": "musubi-tuner: the flags of its scripts as keys, as its TOML has them; unknown keys are allowed",
    "neuraloperator": "neuraloperator's scripts: the blocks data, opt and model; unknown keys are allowed",
    "cogvideo": "CogVideo: SAT's blocks args, data, deepspeed and model; unknown keys are allowed",
    "fastvideo": "FastVideo: the blocks models, method, training and callbacks; unknown keys are allowed",
    "videotuna": "VideoTuna: the blocks flow and train, or model, data and lightning; unknown keys are allowed",
}
TABLES = {name: by_name(name).tables[0] for name in ADAPTERS if by_name(name).tables}


def or_null(fragment: dict[str, Any]) -> dict[str, Any]:
    if "anyOf" in fragment:
        return {"anyOf": [*fragment["anyOf"], {"type": "null"}]}
    if "enum" in fragment:
        return {**fragment, "enum": [*fragment["enum"], None]}
    kinds = fragment["type"]
    return {**fragment, "type": [*(kinds if isinstance(kinds, list) else [kinds]), "null"]}


def shared(kinds: dict[str, dict[str, Any]], name: str, fragment: Mapping[str, Any]) -> dict[str, Any]:
    """A reference to `fragment`, which is kept once in `kinds` under a name like `name`."""
    word = name.replace(" ", "-").lower()
    names = [word, *(f"{word}-{n}" for n in range(2, 99))]
    free = next(n for n in names if kinds.get(n, fragment) == fragment)
    kinds[free] = dict(fragment)
    return {"$ref": f"#/$defs/{free}"}


def put(place: dict[str, Any], key: str, fragment: dict[str, Any]) -> None:
    group, _, rest = key.partition(".")
    if group == "*":  # an item of a list
        items = place.setdefault("items", {})
        put(items, rest, fragment) if rest else items.update(fragment)
        return
    properties = place.setdefault("properties", {})
    if not rest:
        properties[group] = {**fragment, **properties.get(group, {})}
        return
    put(properties.setdefault(group, {}), rest, fragment)


def flag_pattern(key: str) -> str:
    return f"^(--)?{key.replace('_', '[-_]')}$"


def family(name: str, table: Table) -> dict[str, Any]:
    """The schema of a family, from its table alone."""
    settings: dict[str, Any] = {}
    patterns: dict[str, Any] = {}
    groups: dict[str, dict[str, Any]] = {section: {"$ref": "#/$defs/settings"} for section in sorted(table.sections)}
    kinds: dict[str, dict[str, Any]] = {}
    for entry in table.fields:
        kept = shared(
            kinds, entry.convert.name, or_null(dict(entry.convert.schema)) if table.null_is_unset else entry.convert.schema
        )
        for key in entry.keys:
            group, _, rest = key.partition(".")
            fragment = kept
            if name == "wan-lora" and "." in key and key.rpartition(".")[2] in groups:  # it may be a group there
                fragment = {"anyOf": [kept, {"type": "object"}]}
            elif name == "diffsr" and not rest:  # Weights & Biases stores each top-level key under `value`
                fragment = {"anyOf": [kept, {"type": "object", "properties": {"value": kept}}]}
            if name == "hunyuandit" and not rest:
                patterns[flag_pattern(key)] = fragment
            elif name == "wan-lora" and rest and group in groups:
                put(groups[group], rest, fragment)
            elif name == "ai-toolkit" and group != "hardware":
                put(settings, f"config.process.*.{key}", fragment)
            else:
                put(settings, key, fragment)
    head = {"$schema": DRAFT, "$id": f"urn:preflight:{name}:1", "title": TITLES[name], "type": "object"}
    if name != "wan-lora":
        return {**head, **settings, **({"patternProperties": patterns} if patterns else {}), "$defs": kinds}
    alone = settings["properties"]
    sections = {
        section: {"if": {"type": "object"}, "then": group, "else": alone.pop(section, True)} for section, group in groups.items()
    }
    return {**head, "$ref": "#/$defs/settings", "properties": sections, "$defs": {"settings": settings, **kinds}}


@pytest.mark.parametrize("name", TABLES)
def test_the_schema_is_the_table(name: str, golden: Callable[[Path, str], None]) -> None:
    written = json.dumps(family(name, TABLES[name]), indent=2) + "\n"
    golden(ROOT / "schemas" / f"{name}.schema.json", written)


@pytest.mark.parametrize("name", TABLES)
def test_the_schema_is_one(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(schema.load(name))


@pytest.mark.parametrize(
    ("name", "path"),
    [
        (name, path)
        for name, stems in {
            "wan-lora": ("configs/train_*.yaml", "tests/adapters/positive/wan_*.yaml"),
            "diffsr": ("configs/fno_*.yaml", "tests/adapters/positive/diffsr_*.yaml"),
            "hunyuandit": ("configs/hunyuandit_*.yaml", "tests/adapters/positive/hunyuandit_*.yaml"),
        }.items()
        for stem in stems
        for path in sorted(ROOT.glob(stem))
    ],
    ids=lambda value: value.stem if isinstance(value, Path) else value,
)
def test_what_the_adapter_reads_the_schema_allows(name: str, path: Path) -> None:
    assert schema.check(document.read(str(path)).data, name) == []


@pytest.mark.parametrize(
    ("name", "stem", "keys"),
    [
        ("wan-lora", "wan_numbers", {"frame_num", "batch_size", "height", "save_steps", "target_modules", "lora_dropout"}),
        ("diffsr", "diffsr_values", {"data.shape[0]", "data.train_batchsize", "train.device_ids", "optimize.optimizer"}),
        ("hunyuandit", "hunyuandit_values", {"model", "training-parts", "gradient-checkpointing"}),
    ],
)
def test_what_the_adapter_refuses_the_schema_refuses(name: str, stem: str, keys: set[str]) -> None:
    data = yaml.safe_load((ROOT / "tests/adapters/negative" / f"{stem}.yaml").read_text(encoding="utf-8"))
    refused = {dotted(violation.path) for violation in schema.check(data, name)}
    assert {key.split("[")[0] for key in keys} <= {key.split("[")[0] for key in refused}


@pytest.mark.parametrize("name", TABLES)
def test_no_key_belongs_to_two_fields(name: str) -> None:
    keys = [key for entry in TABLES[name].fields for key in entry.keys]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize("name", TABLES)
def test_every_default_has_a_source(name: str) -> None:
    for entry in TABLES[name].fields:
        assert (entry.default is SILENT) == (not entry.source), entry.keys[0]
