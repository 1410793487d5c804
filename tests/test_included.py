"""A file that a config names is read as a part of it, says which file it is, and is never edited."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preflight.adapters.conversions import size, whole
from preflight.adapters.draft import draft
from preflight.adapters.reading import Adapter, Reading
from preflight.adapters.table import Field, Table
from preflight.document import Document, Position, read
from preflight.editing.edit import edited
from preflight.finding import ConfigError, Finding
from preflight.position import MAX_BYTES
from preflight.restate import restater

CONFIG = """\
model = 'wan'
dataset = 'dataset.toml'

[train]
batch = 1
"""
DATASET = """\
[general]
caption_extension = '.txt'

[[datasets]]
resolution = [960, 544]
[[datasets]]
resolution = [1280, 720]  # the largest
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with configs/train.toml and the configs/dataset.toml that it names."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "train.toml").write_text(CONFIG, encoding="utf-8")
    (tmp_path / "configs" / "dataset.toml").write_text(DATASET, encoding="utf-8")
    return tmp_path


def whole_config(*overrides: str) -> Document:
    document = read("configs/train.toml", overrides=overrides)
    included = document.including("dataset", str(document.data["dataset"]))
    assert included is not None
    return included


def refused(document: Document, path: str) -> Finding:
    with pytest.raises(ConfigError) as caught:
        document.including("data", path)
    (finding,) = caught.value.findings
    assert "\n" not in finding.message
    return finding


@pytest.mark.usefixtures("folder")
def test_its_data_stand_under_the_key_with_places_that_name_the_file() -> None:
    document = whole_config()
    assert document.data["dataset"]["datasets"][1] == {"resolution": [1280, 720]}
    assert document.data["train"] == {"batch": 1}
    assert document.position("dataset") == Position(2, 1)
    assert document.position("dataset.datasets[1].resolution") == Position(7, 1, "configs/dataset.toml")
    assert document.included == {"dataset": "configs/dataset.toml"}
    found = document.finding("x", "error", "Sentence.", key="dataset.datasets[1].resolution[9]")
    assert (found.line, found.column, found.file) == (7, 1, "configs/dataset.toml")
    assert document.finding("x", "error", "Sentence.", key="train.batch").file is None


@pytest.mark.usefixtures("folder")
def test_what_the_config_was_is_left_as_it_is() -> None:
    document = read("configs/train.toml")
    document.including("dataset", "dataset.toml")
    assert document.data["dataset"] == "dataset.toml"
    assert document == read("configs/train.toml")


def test_it_is_looked_for_beside_the_config_then_in_the_working_directory(folder: Path) -> None:
    document = read("configs/train.toml")
    (folder / "dataset.toml").write_text("here = 1\n", encoding="utf-8")
    (folder / "other.json").write_text('{"here": 2}', encoding="utf-8")

    def included(path: str) -> dict[str, str]:
        found = document.including("data", path)
        return dict(found.included) if found else {}

    assert included("dataset.toml") == {"data": "configs/dataset.toml"}
    assert included("other.json") == {"data": "other.json"}
    assert included("../other.json") == {"data": "configs/../other.json"}
    assert included(str(folder / "other.json")) == {"data": str(folder / "other.json")}
    assert read("-", text="a: 1").including("data", "other.json") is not None


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("path", ["gone.toml", "configs/train.toml/x.toml", "", " ", "a\0b", "x" * 5000, "a\nb"])
def test_what_is_not_there_is_none(path: str) -> None:
    assert read("configs/train.toml").including("data", path) is None


@pytest.mark.parametrize(
    ("name", "content", "id_", "line", "key"),
    [
        ("x.toml", b"a = 1\na = 2\n", "duplicate-key", 2, "data.a"),
        ("x.toml", b"a = thirty\n", "invalid-toml", 1, "data.a"),
        ("x.yaml", b"a: [1\n", "invalid-yaml", 2, "data"),
        ("x.yaml", b"- a: 1\n  a: 2\n", "duplicate-key", 2, "data[0].a"),
        ("x.yaml", b"a: 1\nb: ???\n", "missing-value", 2, "data.b"),
        ("x.yaml", b"a: 1\nb: a${\n", "unresolved-value", 2, "data.b"),
        ("x.yaml", b"- a${\n", "unresolved-value", 1, "data[0]"),
        ("x.yaml", b"four", "not-a-mapping", 1, "data"),
        ("x.json", b"", "empty-config", None, "data"),
        ("x.json", b"null", "not-a-mapping", 1, "data"),
        ("x.jsonl", b'{"a": 1}\n{"a": 1 2}\n', "invalid-json", 2, "data"),
        ("x.jsonl", b'{"a": 1} {"a": 2}\n', "invalid-json", 1, "data"),
        ("x.jsonl", b"\n", "empty-config", None, "data"),
        ("x.py", b"a = 1\n", "unknown-format", None, "data"),
        ("x.yaml", b"\x7fELF\0", "binary-file", None, "data"),
        ("x.yaml", b"a: \x01", "binary-file", 1, "data"),
        ("x.yaml", b" " * (MAX_BYTES + 1), "too-large", None, "data"),
        ("x.jsonl", b"1\n" * 60_000, "too-large", 50_001, "data"),
        ("x.toml", b"a = " + b"[" * 500, "too-deep", 1, "data"),
    ],
)
def test_what_is_wrong_in_it_is_told_as_in_any_config_with_its_name(
    folder: Path, name: str, content: bytes, id_: str, line: int | None, key: str
) -> None:
    (folder / "configs" / name).write_bytes(content)
    found = refused(read("configs/train.toml"), name)
    assert (found.id, found.file, found.line, found.key) == (id_, f"configs/{name}", line, key)


@pytest.mark.usefixtures("folder")
def test_what_is_no_plain_file_is_refused() -> None:
    assert refused(read("configs/train.toml"), "../configs").message == "configs/../configs is a directory; expected a config file."
    assert refused(read("configs/train.toml"), "/dev/zero").message == "/dev/zero is no plain file; expected a config file."


def test_a_list_goes_under_the_name_as_a_list(folder: Path) -> None:
    (folder / "rows.jsonl").write_text('{"path": "a"}\n\n{"path": "b"}\n', encoding="utf-8")
    (folder / "rows.json").write_text('[{"path": "a"},\n{"path": "b"}]', encoding="utf-8")
    for name, line in (("rows.jsonl", 3), ("rows.json", 2)):
        document = read("configs/train.toml").including("rows", name)
        assert document is not None
        assert document.data["rows"] == [{"path": "a"}, {"path": "b"}]
        assert document.position("rows[1].path") == Position(line, 2, name)
        assert document.position("rows") == Position(1, 1, name)


def test_its_interpolations_are_its_own(folder: Path) -> None:
    (folder / "configs" / "data.yaml").write_text("general: {size: 512}\nresolution: ${general.size}\n", encoding="utf-8")
    document = read("configs/train.toml").including("data", "data.yaml")
    assert document is not None
    assert document.data["data"]["resolution"] == 512
    assert document.interpolated == {("data", "resolution")}


# --set


@pytest.mark.usefixtures("folder")
def test_what_set_gives_under_its_name_wins() -> None:
    document = whole_config("dataset.datasets[1].resolution=[640, 480]", "dataset.general={x: 1}", "train.batch=2")
    assert document.data["dataset"]["datasets"] == [{"resolution": [960, 544]}, {"resolution": [640, 480]}]
    assert document.data["dataset"]["general"] == {"caption_extension": ".txt", "x": 1}
    assert document.data["train"]["batch"] == 2
    assert document.is_overridden("dataset.datasets[1].resolution[0]")
    assert not document.is_overridden("dataset.datasets[0].resolution")
    assert document.position("dataset.datasets[1].resolution") is None
    assert document.waiting == ()


@pytest.mark.usefixtures("folder")
def test_what_set_gives_for_a_name_that_the_config_has_not_wins_as_well() -> None:
    document = read("-", overrides=["data.general.y=2", "data={datasets: 4}"], text="a: 1\n").including(
        "data", "configs/dataset.toml"
    )
    assert document is not None
    assert document.data["data"] == {"general": {"caption_extension": ".txt", "y": 2}, "datasets": 4}


def test_set_can_name_the_file_and_speak_of_what_is_in_it(folder: Path) -> None:
    (folder / "configs" / "other.toml").write_text("general = {x = 1, y = 1}\n", encoding="utf-8")
    document = whole_config("dataset=other.toml", "dataset.general.x=2")
    assert document.data["dataset"] == {"general": {"x": 2, "y": 1}}
    assert document.overridden == {("dataset", "general", "x")}


@pytest.mark.usefixtures("folder")
def test_what_set_says_of_no_file_is_refused() -> None:
    with pytest.raises(ConfigError, match="model is a string; expected a group of keys there"):
        read("configs/train.toml", overrides=["model.x=1"])
    with pytest.raises(ConfigError, match=r"datasets is a list; expected an item from 0 to 1"):
        whole_config("dataset.datasets[7].resolution=1")


@pytest.mark.usefixtures("folder")
def test_what_set_says_of_a_file_that_nobody_reads_is_refused() -> None:
    document = read("configs/train.toml", overrides=["dataset.general.x=2"])
    with pytest.raises(ConfigError, match=r"--set dataset.general.x=2: this trainer's adapter reads no file there"):
        draft(document, TABLE)


# What is read from it, changed


TABLE = Table(
    unread="{key} is not read",
    fields=(
        Field(path="train.batch", keys=("train.batch",), convert=whole(), default=1, source="the trainer"),
        Field(path="train.accumulation", keys=("train.accumulation",), convert=whole(), default=1, source="the trainer"),
        Field(path=("data.width", "data.height"), keys=("dataset.datasets.*.resolution",), convert=size("wh"), among="largest"),
    ),
    no_effect=("dataset.general.*", "model"),
)


def _read(document: Document) -> Reading:
    run = draft(document.including("dataset", str(document.data["dataset"])) or document, TABLE)
    run.assume("model.name", "wan2.1-t2v-1.3b", "the test")
    run.assume("train.method", "full", "the test")
    run.assume("data.frames", 17, "the test")
    return run.reading()


ADAPTER = Adapter(name="test", matches=lambda _: True, read=_read)


@pytest.mark.usefixtures("folder")
def test_a_change_is_read_again_over_the_included_data() -> None:
    document = read("configs/train.toml")
    reading = ADAPTER.read(document)
    assert reading.origins["data.width"] == "dataset.datasets[1].resolution"
    assert reading.findings == ()
    restate = restater(document, ADAPTER, reading)
    smaller = restate({"data.width": 832, "data.height": 480, "train.batch": 2})
    assert smaller is not None
    assert smaller.keys == {
        "dataset.datasets[0].resolution": [832, 480],
        "dataset.datasets[1].resolution": [832, 480],
        "train.batch": 2,
    }
    assert (smaller.spec.data.width, smaller.spec.data.height, smaller.spec.train.batch) == (832, 480, 2)


@pytest.mark.usefixtures("folder")
def test_a_new_key_is_not_put_into_the_included_file() -> None:
    document = read("configs/train.toml")
    restate = restater(document, ADAPTER, ADAPTER.read(document))
    more = restate({"train.accumulation": 4})
    assert more is not None
    assert list(more.keys) == ["train.accumulation"]


def test_what_stands_in_another_file_is_not_edited_and_both_are_named(folder: Path) -> None:
    document = whole_config()
    with pytest.raises(ConfigError) as caught:
        edited(document, CONFIG, {"train.batch": 2, "dataset.datasets[1].resolution": [832, 480]})
    (finding,) = caught.value.findings
    assert finding.message == (
        "dataset.datasets[1].resolution stands in configs/dataset.toml, line 7, and not in configs/train.toml,"
        " so it is not edited; change it by hand."
    )
    assert (finding.id, finding.file, finding.line) == ("not-edited", "configs/dataset.toml", 7)
    with pytest.raises(ConfigError, match=r"dataset.general.zz belongs in configs/dataset.toml, line 1, and not in configs/train"):
        edited(document, CONFIG, {"dataset.general.zz": 1})
    with pytest.raises(ConfigError, match="was given with --set"):
        edited(whole_config("dataset.general.zz=3"), CONFIG, {"dataset.general.zz": 1})
    assert edited(document, CONFIG, {"train.batch": 2}) == CONFIG.replace("batch = 1", "batch = 2")
    assert (folder / "configs" / "dataset.toml").read_text(encoding="utf-8") == DATASET


# Laws

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.text(st.sampled_from("abc $.{}"), max_size=4).filter(lambda s: "${" not in s),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcd"), inner, max_size=3),
    max_leaves=8,
)
CONTENTS = st.lists(VALUES, min_size=1, max_size=3) | st.dictionaries(st.sampled_from("abcd"), VALUES, min_size=1)


@given(tree=CONTENTS, name=st.sampled_from(["data", "a", "--dataset_config", "x y"]))
def test_any_file_goes_under_its_name_with_every_place(tmp_path_factory: pytest.TempPathFactory, tree: Any, name: str) -> None:
    file = tmp_path_factory.getbasetemp() / "any.json"
    file.write_text(json.dumps(tree, indent=1), encoding="utf-8")
    document = read("-", text="a: {b: [1]}\nz: 1\n").including(name, str(file))
    assert document is not None
    assert document.data[name] == tree
    assert document.data["z"] == 1
    alone = read("x.json", text=json.dumps({name: tree}, indent=1))
    assert {at for at in document.positions if at[0] == name} == {at for at in alone.positions if at[0] == name}
    assert all(place.file == str(file) for at, place in document.positions.items() if at[0] == name and len(at) > 1)
    assert document.including(name, "anything else") is document


@given(setting=st.text(st.sampled_from("data.ab[]01={}:, "), max_size=12))
def test_any_setting_of_a_file_gives_a_document_or_findings(tmp_path_factory: pytest.TempPathFactory, setting: str) -> None:
    file = tmp_path_factory.getbasetemp() / "some.json"
    file.write_text('{"a": [1, {"b": 2}]}', encoding="utf-8")
    try:
        document = read("-", text=f"data: {file}\n", overrides=[f"data{setting}"])
        if isinstance(document.data["data"], str):
            document.including("data", str(document.data["data"]))
    except ConfigError as error:
        assert all(finding.message.endswith((".", "?")) for finding in error.findings)  # noqa: PT017
