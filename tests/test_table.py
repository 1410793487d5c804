"""Lists of mappings in a trainer's table: what their items say, which of them decides, and where a change is said."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from preflight import document
from preflight.adapters.conversions import size, text, whole
from preflight.adapters.draft import Draft, draft, listen
from preflight.adapters.table import Among, Field, Table
from preflight.editing.keys import with_keys
from preflight.finding import ConfigError

NESTED = """\
job: extension
config:
  name: mine
  process:
    - type: sd_trainer
      train:
        batch_size: 2
      datasets:
        - resolution: [512, 768]
          folder_path: /a
        - resolution: [1280, 720]  # the largest
          num_frames: 41
        - folder_path: /c
"""


def table(among: Among = "largest", **more: Any) -> Table:
    process = "config.process.*."
    fields = (
        Field(path="train.batch", keys=(process + "train.batch_size",), convert=whole()),
        Field(
            path="train.accumulation", keys=(process + "train.gradient_accumulation",), convert=whole(), default=1, source="here"
        ),
        Field(path=("data.width", "data.height"), keys=(process + "datasets.*.resolution",), convert=size("wh"), among=among),
        Field(path="data.frames", keys=(process + "datasets.*.num_frames",), convert=whole(), among="largest"),
        Field(path="data.workers", keys=(process + "datasets.*.num_workers", "num_workers"), convert=whole(), among=among),
        Field(path="paths.train", keys=(process + "datasets.*.folder_path",), convert=text("a folder")),
    )
    return Table(unread="{key} is not read", fields=fields, no_effect=("job", "config.name", process + "type"), **more)


def read(data: str | dict[str, Any], words: Table | None = None) -> Draft:
    content = data if isinstance(data, str) else yaml.safe_dump(data, sort_keys=False)
    return draft(document.read("-", text=content), words or table())


def test_a_key_goes_through_lists_and_is_told_as_the_user_wrote_it() -> None:
    run = read(NESTED)
    assert run.findings == []
    assert run.get("train.batch") == 2
    assert run.origins["train.batch"] == "config.process[0].train.batch_size"
    assert (run.get("data.width"), run.get("data.height")) == (1280, 720)
    assert run.origins["data.height"] == "config.process[0].datasets[1].resolution"
    assert run.origins["data.frames"] == "config.process[0].datasets[1].num_frames"


def test_a_wrong_value_and_an_unknown_key_are_told_in_their_item() -> None:
    words = NESTED.replace("num_frames: 41", "num_frames: many").replace("folder_path: /c", "num_frame: 7")
    heard = listen(document.read("-", text=words), table())
    assert [(finding.id, finding.key, finding.line) for finding in heard.findings] == [
        ("invalid-value", "config.process[0].datasets[1].num_frames", 12),
        ("unknown-key", "config.process[0].datasets[2].num_frame", 13),
    ]
    assert heard.findings[1].message.endswith("did you mean config.process[0].datasets[2].num_frames?")


def test_an_item_without_anything_known_names_its_keys() -> None:
    heard = listen(document.read("-", text="config: {process: [{type: x}, 5, {other: 1}, [], {}, null]}\n"), table())
    assert [finding.key for finding in heard.findings] == [
        "config.process[1]",
        "config.process[2].other",
        "config.process[3]",
    ]


def test_a_list_that_the_table_does_not_walk_is_one_key() -> None:
    heard = listen(document.read("-", text="config: {process: [{save: [{every: 1}], train: [{batch_size: 1}]}]}\n"), table())
    assert [finding.key for finding in heard.findings] == ["config.process[0].save", "config.process[0].train"]


def test_a_locator_may_take_the_way_to_the_settings_away() -> None:
    def located(parts: tuple[str, ...]) -> tuple[str, ...]:
        return (
            parts[3:] if parts[:3] == ("config", "process", "*") else () if parts in (("config",), ("config", "process")) else parts
        )

    words = Table(
        unread="{key} is not read",
        fields=(
            Field(path="train.batch", keys=("train.batch_size",), convert=whole()),
            Field(path="train.accumulation", keys=("train.accumulation",), convert=whole(), default=1, source="here"),
            Field(path="data.frames", keys=("datasets.*.num_frames",), convert=whole(), among="largest"),
        ),
        no_effect=("job", "type", "config.name", "datasets.*.resolution", "datasets.*.folder_path"),
        locate=located,
        prefer=lambda key, _: f"config.process.*.{key}",
    )
    run = read(NESTED, words)
    assert [finding.key for finding in run.findings] == []
    assert run.origins["train.batch"] == "config.process[0].train.batch_size"
    assert run.reading().spell({"train.batch": 1, "train.accumulation": 2, "data.frames": 21}) == {
        "config.process[0].train.batch_size": 1,
        "config.process[0].train.accumulation": 2,
        "config.process[0].datasets[1].num_frames": 21,
    }


def test_items_of_plain_values_speak_too() -> None:
    buckets = Field(path="data.frames", keys=("frame_buckets.*",), convert=whole(), among="largest")
    run = read("frame_buckets: [1, 33, 17]\n", Table(unread="{key} is not read", fields=(buckets,)))
    assert (run.get("data.frames"), run.origins["data.frames"]) == (33, "frame_buckets[1]")
    assert run.reading().spell({"data.frames": 9}) == {"frame_buckets[1]": 9, "frame_buckets[2]": 9}


# Which item decides


def test_items_must_agree_unless_the_field_says_otherwise() -> None:
    heard = listen(document.read("-", text=NESTED), table("agree"))
    (finding,) = heard.findings
    assert finding.id == "conflicting-keys"
    assert "config.process[0].datasets[0].resolution is [512, 768] on line 9" in finding.message
    assert "config.process[0].datasets[1].resolution is [1280, 720] on line 11" in finding.message
    with pytest.raises(ConfigError):
        read(NESTED, table("agree"))


def test_the_first_item_may_decide() -> None:
    run = read(NESTED, table("first"))
    assert (run.get("data.width"), run.origins["data.width"]) == (512, "config.process[0].datasets[0].resolution")
    change = {"data.width": 256, "data.height": 256}
    assert run.reading().spell(change) == {"config.process[0].datasets[0].resolution": [256, 256]}


def test_the_largest_is_one_item_and_no_mixture_of_two() -> None:
    run = read("config: {process: [{datasets: [{resolution: [1280, 256]}, {resolution: [720, 1280]}]}]}\n")
    assert (run.get("data.width"), run.get("data.height")) == (720, 1280)


def test_a_key_outside_of_the_list_must_agree_with_the_one_that_decides() -> None:
    data = {"num_workers": 4, "config": {"process": [{"datasets": [{"num_workers": 2}, {"num_workers": 4}]}]}}
    words = table()
    inside, outside = (
        Field(path="data.workers", keys=(key,), convert=whole(), among="largest")
        for key in ("config.process.*.datasets.*.num_workers", "num_workers")
    )
    both = Table(unread=words.unread, fields=(inside, outside))
    assert read(data, both).get("data.workers") == 4
    with pytest.raises(ConfigError, match=r"num_workers is 8 on line 1 but config.process\[0\].datasets\[1\].num_workers is 4 on"):
        read({**data, "num_workers": 8}, both)


# Where a change is said


def test_a_change_is_said_where_the_value_stands() -> None:
    spelled = read(NESTED).reading().spell({"data.height": 480, "data.width": 832, "train.batch": 1})
    assert spelled == {"config.process[0].datasets[1].resolution": [832, 480], "config.process[0].train.batch_size": 1}


def test_every_item_that_is_larger_than_wanted_is_changed() -> None:
    spelled = read(NESTED).reading().spell({"data.height": 256, "data.width": 512})
    assert spelled == {
        "config.process[0].datasets[0].resolution": [512, 256],
        "config.process[0].datasets[1].resolution": [512, 256],
    }


def test_a_key_that_is_new_is_said_in_each_item() -> None:
    spell = read(NESTED).reading().spell
    assert spell({"train.accumulation": 4}) == {"config.process[0].train.gradient_accumulation": 4}
    assert spell({"data.workers": 2}) == {f"config.process[0].datasets[{index}].num_workers": 2 for index in range(3)}
    first = read(NESTED, table("first")).reading().spell
    assert first({"data.workers": 2}) == {"config.process[0].datasets[0].num_workers": 2}


def test_a_key_in_a_list_that_is_not_there_is_said_by_its_other_name_or_not() -> None:
    spell = read("job: extension\n").reading().spell
    assert spell({"data.workers": 2}) == {"num_workers": 2}
    assert spell({"train.batch": 2}) == {}


SIDE = st.integers(1, 64).map(lambda n: 16 * n)
ITEMS = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "resolution": st.lists(SIDE, min_size=2, max_size=2),
            "num_frames": st.integers(1, 99),
            "folder_path": st.just("/a"),
        },
    ),
    min_size=1,
    max_size=4,
)
CHANGES = st.fixed_dictionaries(
    {"data.width": SIDE, "data.height": SIDE},
    optional={"data.frames": st.integers(1, 99), "train.batch": st.integers(1, 9), "train.accumulation": st.integers(2, 9)},
)


@given(items=ITEMS, among=st.sampled_from(["agree", "first", "largest"]), changes=CHANGES, processes=st.integers(1, 2))
def test_what_is_spelled_reads_back(items: list[dict[str, Any]], among: Among, changes: dict[str, Any], processes: int) -> None:
    data = {"config": {"process": [{"datasets": copy.deepcopy(items)} for _ in range(processes)]}}
    try:
        before = read(data, table(among))
    except ConfigError as error:
        assert among == "agree"
        assert {finding.id for finding in error.findings} == {"conflicting-keys"}  # noqa: PT017
        return
    spelled = before.reading().spell(changes)
    after = with_keys(data, spelled)
    assert after is not None
    again = read(after, table(among))
    assert {path: again.get(path) for path in changes} == changes
    assert again.reading().spell(changes) == {}
    for key in spelled:
        assert with_keys(data, {key: spelled[key]}) is not None


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text("ab", max_size=2),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["config", "process", "datasets", "train", "resolution", "num_frames", "*", "0"]), inner, max_size=3
        )
    ),
    max_leaves=9,
)


@given(process=JUNK, among=st.sampled_from(["agree", "first", "largest"]))
def test_whatever_stands_in_a_list_is_read_or_refused_in_words(process: Any, among: Among) -> None:
    config = document.Document(path="-", data={"config": {"process": process}}, positions={})
    heard = listen(config, table(among))
    assert all(finding.message.endswith((".", "?")) and "\n" not in finding.message for finding in heard.findings)
    heard.reading().spell({"data.width": 16, "data.height": 16, "data.frames": 1, "train.batch": 1, "data.workers": 1})
