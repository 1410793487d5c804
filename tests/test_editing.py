"""A config's text with an offer in it: only the values change, and what comes out is what was meant."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from preflight import document, json_positions, toml_positions, yaml_positions
from preflight.editing import json_text, toml_text, yaml_text
from preflight.editing.edit import edited
from preflight.editing.keys import locate, with_keys
from preflight.editing.replace import original, refuse_unwritable, replace
from preflight.finding import ConfigError
from tests.toml_texts import TREES as TOML_TREES
from tests.toml_texts import toml

TOMLS = sorted((Path(__file__).parents[2] / "shared" / "corpus").rglob("*.toml"))
CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*.yaml"))


def edit(text: str, keys: Mapping[str, Any], path: str = "a.yaml", overrides: tuple[str, ...] = ()) -> str:
    return edited(document.read(path, overrides=overrides, text=text), text, keys)


# name: (before, keys, after)
YAML: dict[str, tuple[str, dict[str, Any], str]] = {
    "a value beside a comment": ("a: 1   # one\nb: 2\n", {"a": 3}, "a: 3   # one\nb: 2\n"),
    "double quotes stay": ('size: "1280*720"\n', {"size": "832*480"}, 'size: "832*480"\n'),
    "single quotes stay": ("size: '1280*720' # w*h\n", {"size": "832*480"}, "size: '832*480' # w*h\n"),
    "a text that needs quotes gets them": ("a: b\n", {"a": "yes"}, 'a: "yes"\n'),
    "the case of a boolean stays": ("a: False\nb: FALSE\n", {"a": True, "b": True}, "a: True\nb: TRUE\n"),
    "line endings stay": ("a: 1\r\nb:\r\n  c: 2\r\n", {"b.c": 5, "b.d": 6}, "a: 1\r\nb:\r\n  c: 5\r\n  d: 6\r\n"),
    "no line break at the end": ("a: 1", {"b": 2}, "a: 1\nb: 2"),
    "an anchor stays": ("a: &n 1\nb: 2\n", {"a": 3}, "a: &n 3\nb: 2\n"),
    "an alias becomes a value": ("a: &n 1\nb: *n # same\n", {"b": 3}, "a: &n 1\nb: 3 # same\n"),
    "a merged key is overruled": (
        "base: &base {x: 1}\nrun:\n  <<: *base\n  y: 2\n",
        {"run.x": 5},
        "base: &base {x: 1}\nrun:\n  <<: *base\n  y: 2\n  x: 5\n",
    ),
    "items of a list": ("shape: [ 128,128 ]  # hw\n", {"shape": [64, 80]}, "shape: [ 64,80 ]  # hw\n"),
    "items of a block": ("shape:\n- 128 # h\n- 128 # w\n", {"shape": [64, 128]}, "shape:\n- 64 # h\n- 128 # w\n"),
    "a list for a number": ("size: 1024\n", {"size": [512, 768]}, "size: [512, 768]\n"),
    "a group in braces": ("a: {b: 1, c: 2}\n", {"a.b": 5, "a.d": True}, "a: {b: 5, c: 2, d: true}\n"),
    "an empty group": ("a: {}\nb:\n", {"a.x": 1, "b.y": 2}, "a: {x: 1}\nb: {y: 2}\n"),
    "a new group": ("a: 1\nb:\n    c: 2\n", {"d.e": 3}, "a: 1\nb:\n    c: 2\nd:\n  e: 3\n"),
    "a new key beside its like": (
        "cpu_offload_vae: true\nseed: 1\nhardware:\n  gpu: x\n",
        {"cpu_offload_params": True},
        "cpu_offload_vae: true\ncpu_offload_params: true\nseed: 1\nhardware:\n  gpu: x\n",
    ),
    "a new key before the groups": (
        "seed: 1\nhardware: # ours\n  gpu: x\n",
        {"zz": 4},
        "seed: 1\nzz: 4\nhardware: # ours\n  gpu: x\n",
    ),
    "a flat key with a dot": ("lora.r: 16\nx: 1\n", {"lora.r": 8}, "lora.r: 8\nx: 1\n"),
    "a flag with dashes": (
        "--batch-size: 2\n",
        {"--batch-size": 1, "--cpu-offloading": True},
        "--batch-size: 1\n--cpu-offloading: true\n",
    ),
    "beyond the basic plane": ("# 😀 é\na: 1 # 😀\nb: 2\n", {"b": 3}, "# 😀 é\na: 1 # 😀\nb: 3\n"),
    "an empty value": ("a:   # nothing yet\nb: 1\n", {"a": 3}, "a: 3   # nothing yet\nb: 1\n"),
    "after a text of several lines": (
        "b:\n  t: |\n    one\n    two\nc: 1\n",
        {"b.d": 2},
        "b:\n  t: |\n    one\n    two\n  d: 2\nc: 1\n",
    ),
    "items of a list of groups": (
        "p:\n- d:  # data\n  - r: [1, 2]  # first\n  - r: 3 # last\n    s: 4\n  t: {b: 1}\n",
        {"p[0].d[0].r": [5, 2], "p[0].d[1].r": 6, "p[0].d[1].v": 7, "p[0].t.b": 8},
        "p:\n- d:  # data\n  - r: [5, 2]  # first\n  - r: 6 # last\n    s: 4\n    v: 7\n  t: {b: 8}\n",
    ),
    "nothing to change": ("a: 1 # one\n", {"a": 1}, "a: 1 # one\n"),
}


@pytest.mark.parametrize(("before", "keys", "after"), YAML.values(), ids=YAML)
def test_yaml(before: str, keys: dict[str, Any], after: str) -> None:
    assert edit(before, keys) == after
    assert edit(after, keys) == after


JSON: dict[str, tuple[str, dict[str, Any], str]] = {
    "a value": ('{"a": 1, "b": [2,  3]}', {"a": 5, "b": [7, 3]}, '{"a": 5, "b": [7,  3]}'),
    "a comment stays": ('{\n  "a": 1, // one\n  "b": 2\n}\n', {"a": 3}, '{\n  "a": 3, // one\n  "b": 2\n}\n'),
    "a new member": ('{\n  "a": 1 // one\n}\n', {"b": True}, '{\n  "a": 1, // one\n  "b": true\n}\n'),
    "a trailing comma": ('{\n\t"a": 1, // one\n}\n', {"b": 2}, '{\n\t"a": 1, // one\n\t"b": 2,\n}\n'),
    "on one line": ('{"a": {"x": 1}}', {"a.y": "z"}, '{"a": {"x": 1, "y": "z"}}'),
    "an empty object": ('{"a": {}}', {"a.y": 1}, '{"a": {"y": 1}}'),
    "a new object": ('{\n  "a": 1\n}\n', {"b.c": 1}, '{\n  "a": 1,\n  "b": {"c": 1}\n}\n'),
    "items of a list of objects": (
        '{"p": [{"d": [{"r": 1}, {"r": 2}]}]}',
        {"p[0].d[1].r": 3, "p[0].d[0].s": 4, "p[0].t.b": 5},
        '{"p": [{"d": [{"r": 1, "s": 4}, {"r": 3}], "t": {"b": 5}}]}',
    ),
    "line endings stay": ('{\r\n  "a": 1\r\n}\r\n', {"b": 2}, '{\r\n  "a": 1,\r\n  "b": 2\r\n}\r\n'),
}


@pytest.mark.parametrize(("before", "keys", "after"), JSON.values(), ids=JSON)
def test_json(before: str, keys: dict[str, Any], after: str) -> None:
    assert edit(before, keys, "a.json") == after
    assert edit(after, keys, "a.json") == after


TOML: dict[str, tuple[str, dict[str, Any], str]] = {
    "a value beside a comment": ("a = 1   # one\nb=2\n", {"a": 3, "b": 4}, "a = 3   # one\nb=4\n"),
    "literal quotes stay": ("size = '1280*720' # w*h\n", {"size": "832*480"}, "size = '832*480' # w*h\n"),
    "double quotes stay": ('size = "a"\n', {"size": 'it\'s "b"'}, 'size = "it\'s \\"b\\""\n'),
    "a text of several lines": ('a = """\nx\ny"""  # xy\nb = 1\n', {"a": "z"}, 'a = "z"  # xy\nb = 1\n'),
    "line endings stay": ("a = 1\r\n[b]\r\nc = 2\r\n", {"b.c": 5, "b.d": 6}, "a = 1\r\n[b]\r\nc = 5\r\nd = 6\r\n"),
    "no line break at the end": ("a = 1", {"b": 2}, "a = 1\nb = 2"),
    "items of a list": ("shape = [ 0x80,128, ]  # hw\n", {"shape": [64, 128]}, "shape = [ 64,128, ]  # hw\n"),
    "items of a list on several lines": (
        "shape = [\n  128, # h\n  0x80, # w\n]\n",
        {"shape": [64, 128]},
        "shape = [\n  64, # h\n  0x80, # w\n]\n",
    ),
    "a list for a number": ("size = 1024\n", {"size": [512, 768]}, "size = [512, 768]\n"),
    "a longer list": ("size = [1024]\n", {"size": [512, 768]}, "size = [512, 768]\n"),
    "a list of lists": ("b = [[512, 4], [1024, 1]]\n", {"b": [[512, 2], [1024, 1]]}, "b = [[512, 2], [1024, 1]]\n"),
    "a group in braces": ("a = { b = 1, c = 2 } # g\n", {"a.b": 5, "a.d": True}, "a = { b = 5, c = 2, d = true } # g\n"),
    "an empty group": ("a = {}\n", {"a.x": 1}, "a = { x = 1 }\n"),
    "a dotted key": ("a.b.c = 1\nz = 1\n", {"a.b.c": 2, "a.b.d": 3, "a.e": 4}, "a.b.c = 2\na.e = 4\na.b.d = 3\nz = 1\n"),
    "a dotted key in braces": ("a = {b.c = 1}\n", {"a.b.d": 2}, "a = {b.c = 1, b.d = 2}\n"),
    "a key of one of several tables": (
        "[[d]]\nx = 1\n\n[[d]]\nx = 2 # two\n\n[[d]]\n",
        {"d[1].x": 5, "d[1].y": 6, "d[2].x": 7},
        "[[d]]\nx = 1\n\n[[d]]\nx = 5 # two\ny = 6\n\n[[d]]\nx = 7\n",
    ),
    "a key beside its like": (
        "# ours\ncpu_offload_vae = true\nseed = 1\n\n[hardware]\ngpu = 'x'\n",
        {"cpu_offload_params": True},
        "# ours\ncpu_offload_vae = true\ncpu_offload_params = true\nseed = 1\n\n[hardware]\ngpu = 'x'\n",
    ),
    "indented tables": (
        "[a]\n  b = 1\n  [a.c]\n\n[e]\n",
        {"a.d": 2, "a.c.x": 3},
        "[a]\n  b = 1\n  d = 2\n  [a.c]\n  x = 3\n\n[e]\n",
    ),
    "a first key before the tables": (
        "# a run\n\n# the model\n[model]\nrank = 8\n",
        {"batch": 2},
        "# a run\n\nbatch = 2\n\n# the model\n[model]\nrank = 8\n",
    ),
    "a new table": ("a = 1\n\n[b]\nc = 2\n", {"d.e": 3}, "a = 1\n\n[b]\nc = 2\n\n[d]\ne = 3\n"),
    "a table of which only parts are there": (
        "[a.b]\nx = 1\n\n# the second\n[c.d]\ny = 1\n",
        {"c.z": 2},
        "[a.b]\nx = 1\n\n[c]\nz = 2\n\n# the second\n[c.d]\ny = 1\n",
    ),
    "a group inside a table": ("[a]\nb = 1\n[c]\n", {"a.d.e": 2}, "[a]\nb = 1\nd.e = 2\n[c]\n"),
    "a key that needs quotes": ("a = 1\n", {"é b": 2}, 'a = 1\n"é b" = 2\n'),
    "numbers": ("a = 1_000\nb = 1.5\nc = 5e-5\n", {"a": 500, "b": 0.25, "c": 1e-4}, "a = 500\nb = 0.25\nc = 0.0001\n"),
    "nothing to change": ("a = 0x1 # one\n", {"a": 1}, "a = 0x1 # one\n"),
}


@pytest.mark.parametrize(("before", "keys", "after"), TOML.values(), ids=TOML)
def test_toml(before: str, keys: dict[str, Any], after: str) -> None:
    assert edit(before, keys, "a.toml") == after
    assert edit(after, keys, "a.toml") == after


# name: (text, keys, what is said)
TOML_REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "a table for a value": ("[a]\nb = 1\n", {"a": True}, "a is a table"),
    "inside a value": ("x = 1\na = 1\n", {"a.b": 2}, "a is no group of keys"),
    "a list with comments": ("a = [\n 1, # one\n]\n", {"a": [1, 2]}, "a holds comments, which would be lost"),
    "no value": ("a = 1\n", {"a": None}, "a would be empty, for which TOML has no word"),
    "no such table": ("[[a]]\nb = 1\n", {"a[1].b": 2}, "a is a list without such an item"),
    "several tables": ("[[a]]\nb = 1\n", {"a.b": 2}, "a is a list without such an item"),
}


@pytest.mark.parametrize(("text", "keys", "said"), TOML_REFUSED.values(), ids=TOML_REFUSED)
def test_toml_that_cannot_be_changed_alone_is_refused(text: str, keys: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        edit(text, keys, "a.toml")
    (finding,) = caught.value.findings
    assert said in finding.message
    assert finding.key == "a"


# name: (text, keys, what is said)
REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "an interpolation": ("n: 2\na: ${n}\n", {"a": 3}, "a takes its value from ${n}"),
    "an anchor that is shared": ("a: &n 1\nb: *n\n", {"a": 3}, "a cannot be set without changing another value"),
    "a text of several lines": ("a: |\n  x\n", {"a": "y"}, "a is a text of several lines"),
    "a block for a value": ("a:\n  b: 1\n", {"a": True}, "a is a block of several lines"),
    "inside an alias": ("a: &x {n: 1}\nb: *x\n", {"b.n": 2}, "b is an alias"),
    "inside a value": ("a: 1\n", {"a.b": 2}, "a"),
    "an item that is not there": ("a: [{b: 1}]\n", {"a[1].b": 2}, "a"),
}


@pytest.mark.parametrize(("text", "keys", "said"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_changed_alone_is_refused_in_one_sentence(text: str, keys: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        edit(text, keys)
    (finding,) = caught.value.findings
    assert said in finding.message
    assert "\n" not in finding.message


def test_what_the_command_line_set_is_not_the_files_to_change() -> None:
    with pytest.raises(ConfigError, match="--set"):
        edit("a: 1\n", {"a": 3}, overrides=("a=2",))


SCALARS = st.one_of(
    st.booleans(), st.integers(-(10**6), 10**6), st.text(max_size=8), st.floats(allow_nan=False, allow_infinity=False)
)
NAMES = st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=1, max_size=6)
LEAVES = SCALARS | st.lists(st.integers(0, 9), min_size=1, max_size=3)
TREES = st.dictionaries(
    NAMES, st.recursive(LEAVES, lambda inner: st.dictionaries(NAMES, inner, max_size=4), max_leaves=8), min_size=1
)
Tree = dict[str, Any]


def paths(tree: Tree, above: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    for key, value in tree.items():
        found += paths(value, (*above, key)) if isinstance(value, dict) and value else [(*above, key)]
    return found


def put(tree: Tree, path: tuple[str, ...], value: Any) -> Tree:
    changed: Tree = json.loads(json.dumps(tree))
    place = changed
    for step in path[:-1]:
        place = place.setdefault(step, {})
    place[path[-1]] = value
    return changed


@given(tree=TREES, data=st.data(), value=LEAVES, indent=st.integers(2, 4), flow=st.sampled_from([False, None, True]))
def test_an_edit_of_any_yaml_reads_as_the_data_with_that_value(
    tree: Tree, data: st.DataObject, value: Any, indent: int, flow: Any
) -> None:
    path = data.draw(st.sampled_from(paths(tree)))
    path = data.draw(st.sampled_from([path, (*path[:-1], "another")]))
    text = yaml.safe_dump(tree, indent=indent, default_flow_style=flow, allow_unicode=True, width=40)
    before = yaml_positions.read(text).data
    try:
        after = yaml_text.edited(text, path, value)
    except ConfigError as refused:
        assert refused.findings[0].id == "not-edited"  # noqa: PT017
        return
    assert yaml_positions.read(after).data == put(before, path, value)


@given(tree=TREES, data=st.data(), value=LEAVES, indent=st.sampled_from([None, 2, "\t"]))
def test_an_edit_of_any_json_reads_as_the_data_with_that_value(tree: Tree, data: st.DataObject, value: Any, indent: Any) -> None:
    path = data.draw(st.sampled_from(paths(tree)))
    path = data.draw(st.sampled_from([path, (*path[:-1], "another")]))
    text = json.dumps(tree, indent=indent)
    assert json_positions.read(json_text.edited(text, path, value)).data == put(tree, path, value)


@settings(max_examples=300, deadline=None)
@given(tree=TOML_TREES, data=st.data(), value=LEAVES, random=st.randoms(use_true_random=False))
def test_an_edit_of_any_toml_reads_as_the_data_with_that_value(tree: Tree, data: st.DataObject, value: Any, random: Random) -> None:
    path = data.draw(st.sampled_from(paths(tree)))
    path = data.draw(st.sampled_from([path, (*path[:-1], "another"), ("new", "another")]))
    text = toml(tree, random)
    try:
        after = toml_text.edited(text, path, value)
    except ConfigError as refused:
        assert refused.findings[0].id == "not-edited"  # noqa: PT017
        assert path in paths(tree)  # a new key always finds a place
        return
    assert toml_positions.read(after).data == put(tree, path, value)
    assert _comments(after) == _comments(text)
    assert ("\r\n" in text) == ("\r\n" in after)


def _comments(text: str) -> list[str]:
    return sorted(re.findall(r"# (?:a comment = \[1\]|another|why, 'not' \"so\" = 1)", text))


@pytest.mark.parametrize("path", TOMLS, ids=lambda path: path.stem[-40:])
def test_every_other_line_of_a_real_toml_stays(path: Path) -> None:
    text = path.read_bytes().decode()
    for place, span in toml_positions.layout(text).spans.items():
        if text[slice(*span.value)].isdigit():
            after = toml_text.edited(text, place, 7_777)
            assert after == text[: span.value[0]] + "7777" + text[span.value[1] :]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_other_line_of_an_example_stays(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    data = yaml_positions.read(text).data
    for place in paths(data):
        if isinstance(_at(data, place), bool | int):
            after = yaml_text.edited(text, place, 7)
            changed = [(a, b) for a, b in zip(text.splitlines(), after.splitlines(), strict=True) if a != b]
            assert len(changed) == 1
            assert changed[0][0].partition("#")[2] == changed[0][1].partition("#")[2]


def _at(data: Any, path: tuple[str, ...]) -> Any:
    for step in path:
        data = data[step]
    return data


@given(tree=TREES, data=st.data())
def test_a_key_is_located_where_it_stands(tree: Tree, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(paths(tree)))
    assert locate(tree, ".".join(path)) == path
    changed = with_keys(tree, {".".join(path): 5})
    assert changed == put(tree, path, 5)


def test_a_file_keeps_its_mode_and_its_byte_order_mark(tmp_path: Path) -> None:
    for encoding, mark in (("utf-8", b"\xef\xbb\xbf"), ("utf-16-be", b"\xfe\xff"), ("utf-16-le", b"\xff\xfe"), ("utf-8", b"")):
        config = tmp_path / "a.yaml"
        config.write_bytes(mark + "é: 1\n".encode(encoding))
        config.chmod(0o640)
        old = original(str(config))
        assert old.text == "é: 1\n"
        replace(str(config), old, old.encoded("é: 2\n"))
        assert config.read_bytes() == mark + "é: 2\n".encode(encoding)
        assert stat.S_IMODE(config.stat().st_mode) == 0o640
        assert [file.name for file in tmp_path.iterdir()] == ["a.yaml"]


def test_a_file_that_changed_meanwhile_is_left_alone(tmp_path: Path) -> None:
    config = tmp_path / "a.yaml"
    config.write_text("a: 1\n", encoding="utf-8")
    old = original(str(config))
    config.write_text("a: 2\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="has changed meanwhile"):
        replace(str(config), old, b"a: 3\n")
    assert config.read_text(encoding="utf-8") == "a: 2\n"
    assert [file.name for file in tmp_path.iterdir()] == ["a.yaml"]


def test_what_must_not_be_written_is_refused(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    outside, inside = tmp_path / "b.yaml", tree / "c.yaml"
    for file in (outside, inside):
        file.write_text("a: 1\n", encoding="utf-8")
    (tree / "out.yaml").symlink_to(outside)
    (tree / "in.yaml").symlink_to(inside)
    refuse_unwritable(str(tree / "in.yaml"), tree)
    refuse_unwritable(str(outside), tree)
    with pytest.raises(ConfigError, match="symbolic link"):
        refuse_unwritable(str(tree / "out.yaml"), tree)
    inside.chmod(0o444)
    with pytest.raises(ConfigError, match="read-only"):
        refuse_unwritable(str(inside), tree)
    with pytest.raises(ConfigError, match="no plain file"):
        refuse_unwritable(str(tree), tree)
    with pytest.raises(ConfigError, match="standard input"):
        refuse_unwritable("-", tree)


def test_a_link_inside_the_tree_stays_a_link(tmp_path: Path) -> None:
    target, link = tmp_path / "a.yaml", tmp_path / "link.yaml"
    target.write_text("a: 1\n", encoding="utf-8")
    link.symlink_to(target)
    replace(str(link), original(str(link)), b"a: 2\n")
    assert link.is_symlink()
    assert target.read_text(encoding="utf-8") == "a: 2\n"
