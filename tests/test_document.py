from __future__ import annotations

import json
import math
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from preflight.document import Document, Position, read
from preflight.finding import ConfigError, Finding
from preflight.launching.launch import Unresolved
from preflight.position import MAX_BYTES, MAX_VALUES

CORPUS = Path(__file__).parents[2] / "shared" / "corpus"


def data(text: str, *overrides: str, path: str = "-") -> dict[str, Any]:
    return read(path, text=text, overrides=overrides).data


def refused(text: str, *overrides: str, path: str = "-") -> Finding:
    with pytest.raises(ConfigError) as caught:
        read(path, text=text, overrides=overrides)
    assert all(finding.severity == "error" for finding in caught.value.findings)
    return caught.value.findings[0]


def refused_file(path: Path | str) -> Finding:
    with pytest.raises(ConfigError) as caught:
        read(str(path))
    return caught.value.findings[0]


# Values, as OmegaConf reads them


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("1e-4", 1e-4),
        ("1E4", 1e4),
        ("1_000", 1000),
        ("0x10", 16),
        ("yes", True),
        ("~", None),
        ("2024-01-01", "2024-01-01"),
        ("1280*720", "1280*720"),
        ("'1e-4'", "1e-4"),
        ("[1, 2]", [1, 2]),
        ("$HOME", "$HOME"),
        ("cost $5", "cost $5"),
        ("=", "="),
        ("<<", "<<"),
        ("|\n  two\n  lines", "two\nlines"),
    ],
)
def test_yaml_value(written: str, meant: object) -> None:
    assert data(f"key: {written}") == {"key": meant}


@pytest.mark.parametrize(("written", "meant"), [("1", "1"), ("on", "on"), ("no", "no"), ("1.50", "1.50"), ("~", "~")])
def test_keys_are_strings_as_they_are_written(written: str, meant: str) -> None:
    assert data(f"{written}: x") == {meant: "x"}


def test_infinity_and_nan_stay_floats_in_both_formats() -> None:
    from_yaml = data("a: .inf\nb: .nan\nc: 1e999")
    from_json = data('{"a": Infinity, "b": NaN, "c": 1e999}')
    for values in (from_yaml, from_json):
        assert values["a"] == values["c"] == math.inf
        assert math.isnan(values["b"])


@given(st.text(st.sampled_from("0123456789.eE+-_:xobinfaNTrueysl~ "), max_size=12))
def test_a_scalar_means_what_omegaconf_says(written: str) -> None:
    try:
        theirs = OmegaConf.to_container(OmegaConf.create(f"key: {written}"))
    except (OmegaConfBaseException, yaml.YAMLError, ValueError, IndexError):
        return
    assert isinstance(theirs, dict)
    if all(isinstance(key, str) for key in theirs):
        assert repr(data(f"key: {written}")) == repr(theirs)


KEYS = st.text(st.sampled_from("abcdefgh_-"), min_size=1, max_size=5)
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8).filter(lambda s: "${" not in s and s != "???")
)
TREES = st.dictionaries(
    KEYS,
    st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=9),
    min_size=1,
    max_size=4,
)


def places(value: object, path: tuple[str | int, ...] = ()) -> set[tuple[str | int, ...]]:
    items = list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    return {(*path, key) for key, _ in items}.union(*(places(item, (*path, key)) for key, item in items))


@given(TREES)
def test_json_written_by_python_reads_back_with_every_place(tree: dict[str, Any]) -> None:
    document = read("x.json", text=json.dumps(tree, indent=1))
    assert repr(document.data) == repr(tree)
    assert set(document.positions) == places(tree)


@given(TREES)
def test_yaml_written_by_pyyaml_reads_back_with_every_place(tree: dict[str, Any]) -> None:
    text = yaml.safe_dump(tree, sort_keys=False)
    document = read("x.yaml", text=text)
    assert set(document.positions) == places(tree)
    assert list(document.data) == list(tree)
    lines = text.splitlines()
    assert all(document.positions[(key,)] == Position(1 + lines.index(row), 1) for key in tree for row in lines
               if row.startswith((f"{key}:", f"'{key}':")) and lines.count(row) == 1)  # fmt: skip


# Places


def test_every_key_has_its_line_and_column() -> None:
    document = read("-", text="a: 1\nb:\n  c: 2\n  d: [5, {e: 6}]\n")
    assert document.position("b.c") == Position(3, 3)
    assert document.position("b.d[1].e") == document.position("b.d.1.e") == Position(4, 11)
    assert document.position(("b", "d", 0)) == Position(4, 7)
    assert document.position("b.x") is None


def test_json_keys_have_their_line_and_column() -> None:
    document = read("x.json", text='{ // sizes\n  "a": 1,\n  "b": {"c": [1, 2,]},\n}')
    assert document.position("a") == Position(2, 3)
    assert document.position("b.c") == Position(3, 9)
    assert document.position("b.c[1]") == Position(3, 18)


def test_a_finding_at_a_missing_key_stands_at_its_nearest_parent() -> None:
    document = read("-", text="a: 1\nb:\n  c: 2\n")
    found = document.finding("x", "warning", "Sentence.", key="b.zzz.y", fix="do")
    assert found == Finding(id="x", severity="warning", message="Sentence.", key="b.zzz.y", line=2, column=1, fix="do")
    assert document.finding("x", "error", "Sentence.", key="zzz").line is None
    assert document.finding("x", "error", "Sentence.").key is None


def test_merged_and_aliased_keys_stand_where_they_are_written() -> None:
    document = read("-", text="base: &base\n  a: 1\n  b: 2\nrun:\n  <<: *base\n  b: 3\nagain: *base\n")
    assert document.data["run"] == {"a": 1, "b": 3}
    assert document.data["again"] == {"a": 1, "b": 2}
    assert document.position("run.a") == Position(2, 3)
    assert document.position("run.b") == Position(6, 3)
    assert document.position("again.b") == Position(3, 3)


def test_the_first_of_several_merged_groups_wins() -> None:
    text = "a: &a {x: 1}\nb: &b {x: 2, y: 2}\nc: {<<: [*a, *b]}\n"
    assert data(text)["c"] == OmegaConf.select(OmegaConf.create(text), "c") == {"x": 1, "y": 2}


# Interpolations


def test_interpolations_resolve_and_are_known() -> None:
    document = read(
        "-",
        text="a: {b: 3, c: '${.b}', up: '${..n}'}\nn: 4\nt: ${a.b}x${n}\ncopy: ${a}\nl: [7]\nf: ${l[0]}\nk: b\nd: ${a.${k}}\n",
    )
    assert document.data["a"] == document.data["copy"] == {"b": 3, "c": 3, "up": 4}
    assert document.data["t"] == "3x4"
    assert document.data["f"] == 7
    assert document.data["d"] == 3
    assert document.interpolated == {("a", "c"), ("a", "up"), ("t",), ("copy",), ("f",), ("d",)}


def test_an_escaped_interpolation_stays_text() -> None:
    document = read("-", text="a: '\\${b}'\n")
    assert document.data == {"a": "${b}"}
    assert not document.interpolated


@pytest.mark.parametrize(
    ("text", "id_", "words"),
    [
        ("x: 1\nkey: ???", "missing-value", "key is ???, a value that must be given"),
        ("x: ${key}\nkey: ${x}", "unresolved-value", "refers to itself"),
        ("x: 1\nkey: {a: '${key}'}", "unresolved-value", "refers to itself"),
        ("x: 1\nkey: '${x'", "unresolved-value", "which is no ${key}"),
        ("x: 1\nkey: a${", "unresolved-value", "which is no ${key}"),
        ("x: {a: 1}\nkey: ${x.${x.a}}", "unresolved-value", "leads to no value"),
    ],
)
def test_what_cannot_be_resolved_is_refused_at_its_line(text: str, id_: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read("-", text=text)
    found = caught.value.findings[-1]
    assert found.id == id_
    assert words in found.message
    assert "--set" in found.message
    assert found.line == 2
    assert (found.key or "").startswith("key")


def test_all_unresolved_values_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        read("-", text="a: ???\nb: ${b}\ne: 1\nf: a${\n")
    assert [(f.key, f.line) for f in caught.value.findings] == [("a", 1), ("b", 2), ("f", 4)]


@pytest.mark.parametrize(
    "text",
    [
        "key: ${oc.env:HOME}",
        "key: ${oc.env:HOME,/tmp}",
        "x: oc\nkey: ${${x}.env:HOME}",
        "key: ${oc.decode:'${oc.env:HOME}'}",
        "key: ${oc.env:HOME}/outputs",
        "root: ${oc.env:HOME}\nkey: ${root}/${name}\nname: run",
        "a: {root: '${oc.env:HOME}'}\nb: ${a}\nkey: ${b.root}",
    ],
)
def test_what_needs_a_resolver_stays_open(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/must/not/be/read")
    document = read("-", text=text)
    value = document.data["key"]
    assert isinstance(value, Unresolved)
    assert value.why.endswith("is only known where the training runs")
    assert "${" in value
    assert "/must/not" not in value
    assert ("key",) in document.interpolated


@pytest.mark.parametrize("text", ["key: ${nowhere.b}", "x: {y: 1}\nkey: ${x.z}/a", "x: ${gone}\nkey: ${x}", "l: [1]\nkey: ${l[3]}"])
def test_what_refers_to_nothing_stays_open(text: str) -> None:
    value = read("-", text=text).data["key"]
    assert isinstance(value, Unresolved)
    assert value.why.endswith("refers to a key that is not in the config")


def test_a_long_open_value_that_is_referred_to_often_is_not_copied() -> None:
    text = "x: ${oc.env:" + "A" * 10_000 + "}\n" + "".join(f"k{n}: {'${x}' * 20}\n" for n in range(100))
    assert sum(len(value) for value in read("-", text=text).data.values()) < 200_000


def test_an_override_gives_what_could_not_be_resolved() -> None:
    assert data("a: ???\nb: ${oc.env:HOME}\nc: ${a}", "a=4", "b=here") == {"a": 4, "b": "here", "c": 4}


# Overrides


@pytest.mark.parametrize(
    "override",
    ["a=2", "b.c=1e-3", "l[0].x=5", "l.0.x=5", "b={e: 1}", "b.f={g: 1}", "new.key=yes", "a=", "l=[1]", "b=3", "a=x=y"],
)
def test_an_override_does_what_omegaconf_does(override: str) -> None:
    text = "a: 1\nb: {c: 2, d: 3}\nl: [{x: 1}, 2]\n"
    config = OmegaConf.create(text)
    key, _, value = override.partition("=")
    OmegaConf.update(config, key, OmegaConf.select(OmegaConf.create(f"v: {value}"), "v"), merge=True)
    assert data(text, override) == OmegaConf.to_container(config)


def test_an_overridden_key_has_no_place_and_its_findings_say_why() -> None:
    document = read("-", text="a: 1\nb: {c: 2, d: 3}\n", overrides=["b.c=5"])
    assert document.position("b.c") is None
    assert document.position("b.d") == Position(2, 11)
    assert document.overridden == {("b", "c")}
    found = document.finding("x", "error", "Sentence.", key="b.c")
    assert (found.line, found.message) == (None, "Sentence. (from --set)")
    assert document.finding("x", "error", "Sentence.", key="b.d").message == "Sentence."


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("a", "--set a: expected key=value."),
        ("", "--set : expected key=value."),
        ("=1", "--set =1: expected key=value."),
        ("+a=1", "--set +a=1: expected a=1, without Hydra's '+'."),
        ("a..b=1", "--set a..b=1: expected a dotted key such as data.height or datasets[0].size."),
        ("a b=1", "--set a b=1: expected a dotted key such as data.height or datasets[0].size."),
        ("a.b=1", "--set a.b=1: a is a whole number; expected a group of keys there."),
        ("l[5]=1", "--set l[5]=1: l is a list; expected an item from 0 to 1."),
        (
            "a=[1",
            "--set a=[1: its value cannot be read: This is not valid YAML: a list that is not closed with ']'.",
        ),
    ],
)
def test_a_bad_override_is_one_sentence(override: str, sentence: str) -> None:
    found = refused("a: 1\nl: [1, 2]\n", override)
    assert (found.id, found.message) == ("bad-override", sentence)


def test_a_very_deep_override_is_refused() -> None:
    assert refused("a: 1", ".".join("a" * 5000) + "=1").id == "bad-override"


# Bad text


@pytest.mark.parametrize(
    ("text", "id_", "place"),
    [
        ("", "empty-config", (None, None)),
        ("# only\n# comments\n", "empty-config", (None, None)),
        ("---\n", "empty-config", (None, None)),
        ("- a\n- b", "not-a-mapping", (1, 1)),
        ("four", "not-a-mapping", (1, 1)),
        ("a: 1\n---\nb: 2", "several-documents", (2, 1)),
        ("a: 1\nb:\n  c: 1\n  c: 2\n", "duplicate-key", (4, 3)),
        ("1: a\n'1': b", "duplicate-key", (2, 1)),
        ("a: 1\n\tb: 2", "invalid-yaml", (2, 1)),
        ("a: 1\nb: [1, 2}", "invalid-yaml", (2, 9)),
        ("a: b: c", "invalid-yaml", (1, 5)),
        ("a: *gone", "invalid-yaml", (1, 4)),
        ("a: {<<: 1}", "invalid-yaml", (1, 9)),
        ("? [a]\n: 1", "bad-key", (1, 3)),
        ("'': 1", "bad-key", (1, 1)),
        ("a: &a [*a]", "recursive-anchor", (1, 4)),
        ("a: &a {<<: *a}", "recursive-anchor", (1, 4)),
        ("a: !!python/object/apply:os.system [ls]", "unsafe-tag", (1, 4)),
        ("a: !!binary aGk=", "unsafe-tag", (1, 4)),
        ("a: !mine 1", "unsafe-tag", (1, 4)),
        ("a: !!int four", "invalid-yaml", (1, 4)),
        ("a: 0x_", "invalid-yaml", (1, 4)),
        ("a: " + "9" * 5000, "invalid-yaml", (1, 4)),
        ("a: \x01", "binary-file", (1, 4)),
        ("a: b\nc: \ud800", "binary-file", (2, 4)),
        ("a: " + "[" * 5000, "too-deep", (1, 103)),
    ],
)
def test_bad_yaml(text: str, id_: str, place: tuple[int | None, int | None]) -> None:
    found = refused(text)
    assert (found.id, (found.line, found.column)) == (id_, place)


def test_a_duplicate_key_names_both_lines() -> None:
    found = refused("b:\n  c: 1\n  d: 1\n  c: 2\n")
    assert (found.message, found.key, found.line) == ("b.c is set twice, first on line 2; expected once.", "b.c", 4)


@pytest.mark.parametrize(
    ("text", "id_", "place"),
    [
        ("", "empty-config", (None, None)),
        ("// only\n", "empty-config", (None, None)),
        ("[1]", "not-a-mapping", (1, 1)),
        ('{"a": 1, "a": 2}', "duplicate-key", (1, 10)),
        ('{"a": 1 "b": 2}', "invalid-json", (1, 9)),
        ('{"a": [1 [2]]}', "invalid-json", (1, 10)),
        ('{"a": 1}\nx', "invalid-json", (2, 1)),
        ('{"a": 01}', "invalid-json", (1, 7)),
        ('{"a": tru}', "invalid-json", (1, 7)),
        ('{"a', "invalid-json", (1, 2)),
        ('{"a": [,]}', "invalid-json", (1, 8)),
        ('{"a":', "invalid-json", (1, 6)),
        ('{"a": "\\ud800"}', "invalid-json", (1, 7)),
        ("{a: 1}", "invalid-json", (1, 2)),
        ('{"": 1}', "bad-key", (1, 2)),
        ('{"a": ' + "9" * 5000 + "}", "invalid-json", (1, 7)),
        ('{"a":' + "[" * 5000, "too-deep", (1, 106)),
    ],
)
def test_bad_json(text: str, id_: str, place: tuple[int | None, int | None]) -> None:
    found = refused(text, path="x.json")
    assert (found.id, (found.line, found.column)) == (id_, place)


def test_text_without_a_name_is_read_by_its_content() -> None:
    assert data('{"a": 1e-4, // twice\n}') == {"a": 1e-4}
    assert data("{a: 1}") == {"a": 1}
    assert data("// sizes\n{}") == {}
    assert refused('{"a": 1 "b"}').id == "invalid-json"


@pytest.mark.parametrize("name", ["train.ini", "train.txt", "train.v2.py"])
def test_an_unknown_ending_names_those_that_are_read(name: str) -> None:
    found = refused("a: 1", path=name)
    assert found.id == "unknown-format"
    assert ".yaml, .yml, .json" in found.message


# Costly text


@pytest.mark.parametrize(
    "text",
    [
        "a: &a0 [x, x]\n" + "\n".join(f"b{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)),
        "a: &a0 {x: 1}\n" + "\n".join(f"b{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}" for i in range(1, 12)),
        "\n".join(f"a{i}: ${{a{i + 1}}}${{a{i + 1}}}" for i in range(60)) + "\na60: x",
        "b0: {x: 1}\na0: ${b0}\n"
        + "\n".join(f"b{i}: {{x: '${{a{i - 1}.x}}${{a{i - 1}.x}}'}}\na{i}: ${{b{i}}}" for i in range(1, 60)),
        "- 1\n" * (MAX_VALUES * 3),
        '{"a": [' + "1," * (MAX_VALUES + 1) + "]}",
        "a: " + "x" * MAX_BYTES,
    ],
    ids=["aliases", "merges", "interpolations", "interpolated groups", "yaml items", "json items", "bytes"],
)
def test_a_text_that_expands_is_refused_at_once(text: str) -> None:
    start = time.perf_counter()
    assert refused(text).id == "too-large"
    assert time.perf_counter() - start < 5


def test_a_long_chain_of_interpolations_is_refused() -> None:
    assert refused("\n".join(f"a{i}: ${{a{i + 1}}}" for i in range(3000)) + "\na3000: x").id == "too-deep"


# Files


def test_a_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "train.YAML"
    file.write_text("a: 1\n")
    assert read(str(file)) == Document(path=str(file), data={"a": 1}, positions={("a",): Position(1, 1)})


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_encodings_with_a_byte_order_mark(tmp_path: Path, encoding: str) -> None:
    file = tmp_path / "train.yaml"
    file.write_bytes("naïve: 日本\r\nb: 2\r\n".encode(encoding))
    document = read(str(file))
    assert document.data == {"naïve": "日本", "b": 2}
    assert document.position("b") == Position(2, 1)


@pytest.mark.parametrize(
    ("content", "place"),
    [
        (b"\x7fELF\0\0", (None, None)),
        (b"a: 1\nb: caf\xe9", (2, 7)),
        (b"\xff\xfea", (None, None)),
    ],
)
def test_a_binary_file_is_refused(tmp_path: Path, content: bytes, place: tuple[int | None, int | None]) -> None:
    file = tmp_path / "train.yaml"
    file.write_bytes(content)
    found = refused_file(file)
    assert (found.id, (found.line, found.column)) == ("binary-file", place)


def test_missing_files_and_directories(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a: 1")
    assert refused_file(tmp_path / "gone.yaml").id == "missing-file"
    assert refused_file(tmp_path / "file" / "x.yaml").id == "missing-file"
    assert refused_file(tmp_path).id == "not-a-file"
    assert refused_file("a\0b.yaml").id == "unreadable-file"
    assert str(tmp_path) in refused_file(tmp_path).message


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root reads every file")
def test_a_file_without_permission(tmp_path: Path) -> None:
    file = tmp_path / "train.yaml"
    file.write_text("a: 1")
    file.chmod(0)
    assert refused_file(file).id == "unreadable-file"


def test_a_huge_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    file = tmp_path / "train.yaml"
    with file.open("wb") as out:
        out.truncate(50 * 2**20)
    start = time.perf_counter()
    assert refused_file(file).id == "too-large"
    assert time.perf_counter() - start < 1


# Laws


def attempt(path: str, text: str | None, *overrides: str) -> tuple[Document | None, tuple[Finding, ...]]:
    try:
        return read(path, text=text, overrides=overrides), ()
    except ConfigError as error:
        return None, error.findings


def answers(text: str, path: str, *overrides: str) -> None:
    """Either a document whose places exist and which can be written as JSON, or findings of one sentence."""
    document, findings = attempt(path, text, *overrides)
    if document is None:
        assert findings
        assert all(finding.message.endswith((".", "?")) for finding in findings)
        assert all(finding.line is None or finding.line >= 1 for finding in findings)
        return
    json.dumps(document.data).encode()
    assert set(document.positions) <= places(document.data) | {
        place for place in document.positions if any(place[:n] in document.interpolated for n in range(len(place)))
    }


SNIPPETS = st.lists(
    st.sampled_from(
        ["a", "b: ", ": ", "\n", "\n  ", "- ", "[", "]", "{", "}", ",", "&a ", "*a", "<<: ", "!!int ", "!x ", "'", '"', "|\n",
         "? ", "#", "\t", "---\n", "...", "${", "}", "a.b", "${a}", "${.b}", "${b.${a}}", ":", "???", "1", "1e5", ".inf", "~",
         "//", "/*", "*/", "\\", "\\u0041", "null", "%", "@", "\r", "\x85", "\u2028", "\ufeff", "é", "<<", "="]
    ),
    max_size=25,
).map("".join)  # fmt: skip


@settings(max_examples=300)
@given(SNIPPETS | st.text(), st.sampled_from(["-", "x.yaml", "x.json"]))
def test_any_text_gives_a_document_or_findings(text: str, path: str) -> None:
    answers(text, path)


@settings(max_examples=300)
@given(SNIPPETS | st.text())
def test_any_value_gives_a_document_or_findings(text: str) -> None:
    answers("a: 1\nb: {a: 2}\nc: " + text, "x.yaml")
    answers('{"a": 1, "c": ' + text + "}", "x.json")


@given(SNIPPETS | st.text())
def test_any_override_gives_a_document_or_findings(override: str) -> None:
    answers("a: 1\nb: {a: 2}\nl: [1, {x: 2}]\n", "-", override)
    answers("a: 1\nb: {a: 2}\nl: [1, {x: 2}]\n", "-", f"b.a={override}", f"l[1].{override}=1")


@given(content=st.binary())
def test_any_bytes_give_a_document_or_findings(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    file.write_bytes(content)
    document, findings = attempt(str(file), None)
    assert document is not None or findings


# Real configs

DESERVED = {
    "duplicate-key": 2,  # DeepSpeed files that set stage3_prefetch_bucket_size twice
    "not-a-training-config": 2,  # lists of data backends
}
#: A trainer's own resolver, and a placeholder that the user is to fill in: OmegaConf refuses both.
OPEN = re.compile(r"\$\{(dtype_resolver:|YOUR_)")


@pytest.mark.skipif(not CORPUS.is_dir(), reason="the collection of real configs is not beside the checkout")
def test_every_real_config_is_read_as_omegaconf_reads_it_or_refused_for_a_reason(
    record_property: Callable[[str, object], None],
) -> None:
    counted = dict.fromkeys(DESERVED, 0)
    files = [file for file in sorted(CORPUS.rglob("*")) if file.suffix in (".yaml", ".yml", ".json")]
    for file in files:
        document, findings = attempt(str(file), None)
        if document is None:
            counted[findings[0].id] += 1
        elif file.suffix != ".json" and not OPEN.search(file.read_text(encoding="utf-8")):
            theirs = OmegaConf.to_container(OmegaConf.load(file), resolve=True)
            assert repr(document.data) == repr(theirs), file
    assert counted == DESERVED
    record_property("real configs read", len(files) - sum(counted.values()))
    assert len(files) >= 150
