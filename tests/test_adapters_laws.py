"""Laws of the adapters: what is spelled reads back, and nothing that a config can hold makes them fail otherwise than in words."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from preflight import document, schema
from preflight.adapters import by_name, diffsr, hunyuandit, wan_lora
from preflight.adapters.conversions import RefusedError
from preflight.adapters.draft import listen
from preflight.adapters.reading import Reading
from preflight.adapters.table import Field
from preflight.finding import ConfigError

ROOT = Path(__file__).parent.parent
GOOD = [*sorted((ROOT / "configs").glob("*.yaml")), *sorted((ROOT / "tests/adapters/positive").glob("*.yaml"))]
TEXTS = {path.stem: path.read_text(encoding="utf-8") for path in GOOD}
NAMES = {
    stem: next(n for n in ("diffsr", "hunyuandit", "wan-lora") if n.split("-")[0][:4] in stem or n == "wan-lora") for stem in TEXTS
}
NAMES |= {"fno_ocean": "diffsr"}
TABLES = {"wan-lora": wan_lora.TABLE, "diffsr": diffsr.TABLE, "hunyuandit": hunyuandit.TABLE}


def read(name: str, data: dict[str, Any]) -> Reading:
    return by_name(name).read(document.read("-", text=yaml.safe_dump(data, sort_keys=False)))


def value_at(spec: dict[str, Any], path: str) -> Any:
    for group in path.split("."):
        spec = spec[group]
    return spec


def with_value(data: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy of `data` in which the dotted `path` holds `value`."""
    changed = copy.deepcopy(data)
    place = changed
    *groups, last = path.split(".")
    for group in groups:
        place = place.setdefault(group, {})
    place[last] = value
    return changed


SHAPES = st.fixed_dictionaries(
    {},
    optional={
        "data.frames": st.integers(0, 40).map(lambda n: 4 * n + 1),
        "data.height": st.integers(1, 64).map(lambda n: 32 * n),
        "data.width": st.integers(1, 64).map(lambda n: 32 * n),
        "train.batch": st.integers(1, 4096),
        "train.accumulation": st.integers(1, 4096),
    },
)
FIXED = {"diffsr": {"data.frames", "train.accumulation"}, "hunyuandit": {"data.frames"}, "wan-lora": set[str]()}


@pytest.mark.parametrize("stem", TEXTS)
@settings(max_examples=15, deadline=None)
@given(changes=SHAPES)
def test_what_is_spelled_reads_back(stem: str, changes: dict[str, Any]) -> None:
    name, data = NAMES[stem], yaml.safe_load(TEXTS[stem])
    changes = {path: value for path, value in changes.items() if path not in FIXED[name]}
    if "factor" in str(data) and name == "diffsr":  # the grid must stay a multiple of it
        assert all(value % 4 == 0 for path, value in changes.items() if path.startswith("data."))
    before = read(name, data)
    spelled = before.spell(changes)
    for key, value in spelled.items():
        data = with_value(data, key, value)
    expected = before.spec
    for path, value in changes.items():
        expected = with_value(expected, path, value)
    assert read(name, data).spec == expected
    assert before.spell({path: value_at(before.spec, path) for path in changes}) == {}


@pytest.mark.parametrize("stem", [stem for stem in TEXTS if NAMES[stem] == "wan-lora"])
@settings(max_examples=15, deadline=None)
@given(
    changes=st.fixed_dictionaries(
        {},
        optional={
            "train.checkpointing": st.just(True),
            "train.optimizer.bits": st.sampled_from([8, 32]),
            "data.text": st.sampled_from(["offloaded", "cached"]),
            "data.latents": st.sampled_from(["offloaded", "cached"]),
            "parallel.gpus": st.sampled_from([8, 16]),
            "offload.optimizer": st.just(True),
        },
    )
)
def test_what_saves_memory_reads_back(stem: str, changes: dict[str, Any]) -> None:
    data = yaml.safe_load(TEXTS[stem])
    before = read("wan-lora", data)
    changes = {path: value for path, value in changes.items() if value_at_or_none(before.spec, path) != "cached"}
    for key, value in before.spell(changes).items():
        data = with_value(data, key, value)
    after = read("wan-lora", data).spec
    assert {path: value_at(after, path) for path in changes} == changes


def value_at_or_none(spec: dict[str, Any], path: str) -> Any:
    try:
        return value_at(spec, path)
    except KeyError:
        return None


def test_a_size_keeps_the_users_notation() -> None:
    base = {"model": "wan2.2-t2v-a14b", "lora_rank": 16, "frame_num": 49}
    change = {"data.height": 480, "data.width": 832}
    assert read("wan-lora", {**base, "size": "1280*720"}).spell(change) == {"size": "832*480"}
    assert read("wan-lora", {**base, "size": "1280 x 720"}).spell(change) == {"size": "832 x 480"}
    assert read("wan-lora", {**base, "resolution": [1280, 720]}).spell(change) == {"resolution": [832, 480]}
    assert read("wan-lora", {**base, "height": 720, "width": 1280}).spell(change) == {"height": 480, "width": 832}
    assert read("wan-lora", base).spell(change) == {"size": "832*480"}


def test_a_setting_that_is_new_is_spelled_as_the_user_spells() -> None:
    flags = {"model": "DiT-g/2", "use-zero-stage": 2}
    assert read("hunyuandit", flags).spell({"train.accumulation": 4}) == {"grad-accu-steps": 4}
    flags = {"model": "DiT-g/2", "use_zero_stage": 2}
    assert read("hunyuandit", flags).spell({"train.accumulation": 4}) == {"grad_accu_steps": 4}
    flags = {"--model": "DiT-g/2", "--use-zero-stage": 2, "--image-size": "512 512"}
    assert read("hunyuandit", flags).spell({"data.height": 256, "data.width": 256, "train.checkpointing": {"fraction": 0.5}}) == {
        "--image-size": "256 256",
        "--gradient-checkpointing": True,
        "--gc-rate": 0.5,
    }


def test_a_change_that_the_trainer_has_no_key_for_is_left_out() -> None:
    reading = read("diffsr", yaml.safe_load(TEXTS["fno_ocean"]))
    spelled = reading.spell({"train.batch": 64, "train.accumulation": 4, "precision.weights": "bf16", "data.height": 64})
    assert spelled == {"data.train_batchsize": 64, "data.shape": [64, 128]}


def test_a_batch_that_data_parallel_splits_is_spelled_whole() -> None:
    reading = read("diffsr", yaml.safe_load(TEXTS["diffsr_dp"]))
    assert (reading.spec["train"]["batch"], reading.spell({"train.batch": 2})) == (4, {"data.train_batchsize": 6})


def test_target_modules_are_spelled_in_the_names_they_were_read_in() -> None:
    base = {"model": "wan2.2-ti2v-5b", "frames": 17}
    ours = ["to_q", "to_v", "ffn.net.2"]
    wan = read("wan-lora", {**base, "lora_target_modules": "q,k,v,o"})
    assert wan.spell({"train.lora.targets": ours}) == {"lora_target_modules": "q,v,ffn.2"}
    diffusers = read("wan-lora", {**base, "target_modules": ["to_q", "to_k"]})
    assert diffusers.spell({"train.lora.targets": ours}) == {"target_modules": ours}


@pytest.mark.parametrize("name", TABLES)
def test_every_alias_says_what_its_field_says(name: str) -> None:
    for entry in TABLES[name].fields:
        raw, value = sample(entry)
        for key in entry.keys:
            data = with_value({}, key, raw)
            heard = listen(document.read("-", text=yaml.safe_dump(data)), TABLES[name])
            assert heard.findings == [], key
            assert {path: said[0].value for path, said in heard.said.items()} == value, key


def sample(entry: Field) -> tuple[Any, dict[str, Any]]:
    """A value that the field reads, and what it says."""
    for raw in (7, True, 0.5, "Wan2.2-T2V-A14B", "adamw8bit", "fp16", "DiT-g/2", "1280*720", "lora", "all", "2", "torch", "fsdp",
                "AdamW", "DDP", [0, 1], [64, 32], ["q", "k"], "V100 32GB", "./here"):  # fmt: skip
        try:
            said = entry.values(raw)
        except RefusedError:
            continue
        if said:
            return raw, said
    raise AssertionError(f"no sample for {entry.keys[0]}")


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**20), 10**20),
    st.floats(),
    st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "Zs")), max_size=12),
    st.sampled_from(["1280*720", "q,k", "bf16", "no", "adamw8bit", "fsdp", "2", "1e400", "9" * 400, "²", "٣*٤"]),
    st.lists(st.one_of(st.integers(-3, 3000), st.none(), st.text("ab", max_size=2)), max_size=3),
    st.dictionaries(st.sampled_from(["a", "height", "value", "rank", "name"]), st.integers(-1, 9), max_size=2),
)


@pytest.mark.parametrize("name", TABLES)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_value_is_read_or_refused_in_words(name: str, data: st.DataObject) -> None:
    keys = sorted({key for entry in TABLES[name].fields for key in entry.keys} | {"model", "data", "train", "resshift", "optimize"})
    stem = data.draw(st.sampled_from([stem for stem in TEXTS if NAMES[stem] == name]))
    config = yaml.safe_load(TEXTS[stem])
    for key in data.draw(st.lists(st.sampled_from(keys), max_size=3)):
        groups = key.split(".")
        if all(isinstance(value_at_or_none(config, ".".join(groups[:n])), dict | None) for n in range(1, len(groups))):
            try:
                config = with_value(config, key, data.draw(JUNK))
            except (AttributeError, TypeError):  # a scalar stands where the key's group would
                continue
    parsed = document.Document(path="-", data=config, positions={})
    by_name(name).matches(parsed)
    try:
        reading = by_name(name).read(parsed)
        said = reading.findings
    except ConfigError as error:
        reading, said = None, error.findings
    assert reading or said
    assert all(finding.message.endswith((".", "?")) and "\n" not in finding.message for finding in said)
    if reading is None:
        return
    assert schema.check(reading.spec, "spec") == []
    assert schema.check(config, name) == [] or stem == "hunyuandit_index"  # a data index has keys of its own
    reading.spell({"data.height": 64, "data.width": 64, "train.batch": 1, "train.accumulation": 2, "train.checkpointing": True})


@pytest.mark.parametrize("stem", TEXTS)
def test_the_order_of_keys_changes_nothing(stem: str) -> None:
    data = yaml.safe_load(TEXTS[stem])
    turned = dict(reversed(data.items()))
    assert read(NAMES[stem], turned).spec == read(NAMES[stem], data).spec


@pytest.mark.parametrize("stem", TEXTS)
def test_a_key_that_nobody_knows_changes_nothing_and_is_told(stem: str) -> None:
    data = yaml.safe_load(TEXTS[stem])
    before, after = read(NAMES[stem], data), read(NAMES[stem], {**data, "zzqx": 1})
    assert after.spec == before.spec
    assert [f.key for f in after.findings if f not in before.findings and f.id == "unknown-key"][-1] == "zzqx"
