from __future__ import annotations

import copy
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from preflight import paths, schema
from preflight.document import read
from preflight.spec import Spec

SMALLEST: dict[str, Any] = {
    "preflight": 1,
    "model": {"name": "wan2.1-t2v-1.3b"},
    "train": {"method": "full"},
    "data": {"height": 480, "width": 832},
}


def changed(key: str, value: object) -> dict[str, Any]:
    """The smallest spec with one dotted key set, or removed when `value` is `...`."""
    spec = copy.deepcopy(SMALLEST)
    *groups, last = key.split(".")
    at = spec
    for group in groups:
        at = at.setdefault(group, {})
    if value is ...:
        del at[last]
    else:
        at[last] = value
    return spec


def messages(spec: dict[str, Any]) -> list[str]:
    return [violation.message for violation in schema.check(spec, "spec")]


def test_every_schema_is_a_schema() -> None:
    names = sorted(item.name for item in paths.schemas().iterdir() if item.name.endswith(".schema.json"))
    assert "spec.schema.json" in names
    for name in names:
        Draft202012Validator.check_schema(schema.load(name.removesuffix(".schema.json")))


def test_every_key_of_the_spec_is_described() -> None:
    def undescribed(node: Any, path: str) -> list[str]:
        if not isinstance(node, dict):
            return []
        here = [] if path == "" or {"title", "description"} <= set(node) else [path]
        inner = node.get("properties", {})
        return here + [bad for key, value in inner.items() for bad in undescribed(value, f"{path}.{key}")]

    assert undescribed(schema.load("spec"), "") == []


def test_an_unknown_schema_is_a_programming_error() -> None:
    with pytest.raises(FileNotFoundError):
        schema.load("nothing")


# Messages

WHOLE = "expected a whole number from 1 to 1,000,000."
WAYS = "expected true or false, a group of keys (every, stride) or a group of keys (fraction)."
GIB = "expected a number above 0 and at most 1,000,000 or null."
TEXTS = "expected a list of 1 or more values, each a text that is not empty."


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("train.batch", "four", f"train.batch is 'four' (a string); {WHOLE}"),
        ("train.batch", 0, f"train.batch is 0; {WHOLE}"),
        ("train.batch", -1, f"train.batch is -1; {WHOLE}"),
        ("train.batch", 4.0, f"train.batch is 4.0 (not written as a whole number); {WHOLE}"),
        ("train.batch", 4.5, f"train.batch is 4.5; {WHOLE}"),
        ("train.batch", True, f"train.batch is true; {WHOLE}"),
        ("train.batch", None, f"train.batch is null; {WHOLE}"),
        ("train.batch", math.nan, f"train.batch is nan (not a finite number); {WHOLE}"),
        ("train.batch", math.inf, f"train.batch is inf (not a finite number); {WHOLE}"),
        ("train.batch", 10**9, f"train.batch is 1000000000; {WHOLE}"),
        ("train.batch", [1], f"train.batch is a list of 1; {WHOLE}"),
        ("train.batch", {"a": 1}, f"train.batch is a group of keys (a); {WHOLE}"),
        ("data.height", 65537, "data.height is 65537; expected a whole number from 1 to 65,536."),
        ("data.text_tokens", "x", "data.text_tokens is 'x' (a string); expected a whole number from 1 to 1,048,576 or null."),
        ("train.method", "lorra", "train.method is 'lorra' (a string); expected lora or full; did you mean lora?"),
        ("train.method", "lora", "train.lora is missing; expected a group of keys (rank)."),
        ("train.optimizer.bits", 8.0, "train.optimizer.bits is 8.0 (not written as a whole number); expected one of 8, 16 or 32."),
        ("train.checkpointing.fraction", 2, "train.checkpointing.fraction is 2; expected a number from 0 to 1."),
        ("train.checkpointing.every", 0, "train.checkpointing.every is 0; expected a whole number from 1 to 65,536."),
        ("train.checkpointing", "yes", f"train.checkpointing is 'yes' (a string); {WAYS}"),
        ("train.checkpointing.evry", 2, f"train.checkpointing is a group of keys (evry); {WAYS}"),
        ("train.ema", "yes", "train.ema is 'yes' (a string); expected true or false."),
        ("precision.autocast", "none", "precision.autocast is 'none' (a string); expected one of bf16, fp16 or null."),
        ("hardware.host_memory_gib", 0, f"hardware.host_memory_gib is 0; {GIB}"),
        ("hardware.host_memory_gib", math.nan, f"hardware.host_memory_gib is nan (not a finite number); {GIB}"),
        ("model.name", "", "model.name is '' (a string); expected a text that is not empty."),
        ("model", "wan", "model is 'wan' (a string); expected a group of keys (name, experts, code, dims)."),
        ("model.name", ..., "model.name is missing; expected a text that is not empty."),
        ("preflight", 2, "preflight is 2; expected 1."),
        ("data.hieght", 8, "data.hieght is not a key that is read; did you mean height?"),
        ("train.lora", {"rank": 4, "targets": []}, f"train.lora.targets is an empty list; {TEXTS}"),
        ("train.lora", {"rank": 4, "targets": [1]}, "train.lora.targets[0] is 1; expected a text that is not empty."),
    ],
)  # fmt: skip
def test_a_wrong_value_is_one_sentence(key: str, value: object, message: str) -> None:
    assert messages(changed(key, value)) == [message]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model.dims", {"anything": [1, {"goes": None}]}),
        ("train.checkpointing", {"every": 2}),
        ("train.checkpointing", {"fraction": 0.5}),
        ("train.lora", None),
        ("train.lora", {"rank": 4, "targets": ("q", "k")}),
        ("sample", None),
        ("save", {}),
        ("parallel.strategy", "dp"),
        ("offload.blocks", 0),
    ],
)
def test_legal_values(key: str, value: object) -> None:
    assert messages(changed(key, value)) == []


def test_an_unknown_key_without_a_likeness_lists_the_legal_ones() -> None:
    [message] = messages(changed("offload.zzz", 1))
    expected = "expected one of optimizer, parameters, activations, blocks, layers or text_layers."
    assert message == f"offload.zzz is not a key that is read; {expected}"


def test_a_slip_carries_its_fix() -> None:
    [violation] = schema.check(changed("data.hieght", 8), "spec")
    assert (violation.id, violation.path, violation.fix) == ("unknown-key", ("data", "hieght"), "rename it to height")


def test_every_missing_key_is_told() -> None:
    assert [violation.path for violation in schema.check({}, "spec")] == [
        ("preflight",),
        ("model",),
        ("train",),
        ("data",),
    ]


# Findings


def test_findings_stand_at_the_users_own_line() -> None:
    document = read("-", text="preflight: 1\nmodel: {name: x}\ntrain:\n  method: full\n  batch: four\ndata: {width: 8}\n")
    found = schema.findings(schema.check(document.data, "spec"), document)
    assert [(f.id, f.severity, f.key, f.line, f.column) for f in found] == [
        ("invalid-value", "error", "train.batch", 5, 3),
        ("missing-key", "error", "data.height", 6, 1),
    ]


def test_findings_speak_the_users_words() -> None:
    document = read("-", text="lr: 1\nbatch_size: four\ngc-rate: 2\ntarget: 3\n")
    spec = changed("train.batch", "four")
    spec["train"] |= {"checkpointing": {"fraction": 2}, "lora": {"rank": 4, "targets": [3]}}
    del spec["data"]["height"]
    origins = {"train.batch": "batch_size", "train.checkpointing": "gc-rate", "train.lora.targets": "target"}
    found = {f.key: f for f in schema.findings(schema.check(spec, "spec"), document, origins)}
    assert found["batch_size"].message == f"batch_size is 'four' (a string); {WHOLE}"
    assert found["batch_size"].line == 2
    assert found["gc-rate"].message == "gc-rate is 2; expected a number from 0 to 1."
    assert found["target"].message == "target is 3; expected a text that is not empty."
    assert found[None].message == "data.height is missing; expected a whole number from 1 to 65,536."


def test_unknown_keys_can_be_warnings() -> None:
    document = read("-", text="preflight: 1\nmodel: {name: x}\ntrain: {method: full}\ndata: {height: 8, width: 8}\nzz: 1\n")
    [found] = schema.findings(schema.check(document.data, "spec"), document, unknown_keys="warning")
    assert (found.severity, found.key, found.line) == ("warning", "zz", 5)


def test_an_overridden_value_is_named_as_such() -> None:
    document = read("-", text=json.dumps(SMALLEST), overrides=["train.batch=0"])
    [found] = schema.findings(schema.check(document.data, "spec"), document)
    assert found.message == f"train.batch is 0; {WHOLE} (from --set)"
    assert found.line is None


# Laws


def values(node: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Everything that a part of the spec's schema takes, drawn from the schema itself."""
    if "enum" in node:
        return st.sampled_from(node["enum"])
    if "const" in node:
        return st.just(node["const"])
    if "oneOf" in node:
        return st.one_of(*(values(option) for option in node["oneOf"]))
    kinds = [node["type"]] if isinstance(node["type"], str) else node["type"]
    return st.one_of(*(KINDS[kind](node) for kind in kinds))


def group(node: dict[str, Any]) -> st.SearchStrategy[Any]:
    if "properties" not in node:
        return st.dictionaries(st.text(max_size=4), st.none() | st.integers() | st.text(max_size=4), max_size=3)
    required = {key: values(node["properties"][key]) for key in node.get("required", [])}
    optional = {key: values(value) for key, value in node["properties"].items() if key not in required}
    return st.fixed_dictionaries(required, optional=optional)


KINDS: dict[str, Any] = {
    "integer": lambda node: st.integers(node.get("minimum"), node.get("maximum")),
    "number": lambda node: st.floats(
        node.get("minimum", node.get("exclusiveMinimum")),
        node.get("maximum"),
        exclude_min="exclusiveMinimum" in node,
        allow_nan=False,
        allow_infinity=False,
    ),
    "string": lambda node: st.text(min_size=node.get("minLength", 0), max_size=6),
    "boolean": lambda _: st.booleans(),
    "null": lambda _: st.none(),
    "array": lambda node: st.lists(values(node["items"]), min_size=node.get("minItems", 0), max_size=3),
    "object": group,
}
SPECS = values(schema.load("spec")).map(
    lambda spec: spec if spec["train"].get("lora") else {**spec, "train": {**spec["train"], "method": "full"}}
)


@given(SPECS)
def test_a_legal_spec_is_read_and_written_back_legal(spec: dict[str, Any]) -> None:
    assert schema.check(spec, "spec") == []
    built = Spec.from_mapping(spec)
    written = built.to_mapping()
    assert schema.check(written, "spec") == []
    assert Spec.from_mapping(written) == built
    assert Spec.from_mapping(json.loads(json.dumps(written))) == built


@given(SPECS, st.data())
def test_a_spec_survives_yaml_and_json(spec: dict[str, Any], data: st.DataObject) -> None:
    import yaml

    name, write = data.draw(st.sampled_from([("x.json", json.dumps), ("x.yaml", yaml.safe_dump)]))
    text = write(spec)
    if "${" not in text and "???" not in text and all(key.strip() for key in spec["model"].get("dims", {})):
        assert read(name, text=text).data == spec


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["preflight", "model", "train", "data", "lora", "rank", "batch", "zz"]), inner),
    max_leaves=12,
))  # fmt: skip
def test_any_data_gives_violations_of_one_sentence(data: Any) -> None:
    violations = schema.check({"train": data, "sample": data} if not isinstance(data, dict) else data, "spec")
    assert violations
    for violation in violations:
        assert violation.message.endswith((".", "?"))
        assert "\n" not in violation.message
    assert len({violation.path for violation in violations}) == len(violations)
