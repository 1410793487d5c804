"""TOML is read as Python's parser reads it, with the place of every key, and refused in one sentence."""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preflight import toml_positions
from preflight.document import Position, read
from preflight.finding import ConfigError, Finding
from preflight.position import MAX_BYTES, MAX_VALUES
from tests.test_document import answers, places
from tests.toml_texts import TREES, toml

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CORPUS = Path(__file__).parents[2] / "shared" / "corpus"


def refused(text: str) -> Finding:
    with pytest.raises(ConfigError) as caught:
        read("x.toml", text=text)
    (finding,) = caught.value.findings
    assert finding.severity == "error"
    assert "\n" not in finding.message
    return finding


# Values


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("1e-4", 1e-4),
        ("1_000", 1000),
        ("0x10", 16),
        ("true", True),
        ("'1e-4'", "1e-4"),
        ('"""\n a\n"""', " a\n"),
        ('"""a\\"""""', 'a""'),
        ("'''it's'''", "it's"),
        ("1979-05-27", "1979-05-27"),
        ("1979-05-27 07:32:00.5", "1979-05-27 07:32:00.5"),
        ("1979-05-27T07:32:00Z", "1979-05-27T07:32:00Z"),
        ("07:32:00", "07:32:00"),
        ("[1, # one\n 2,\n]", [1, 2]),
        ("[[512, 4], [1024, 1]]", [[512, 4], [1024, 1]]),
        ("{a = 1, b.c = 'x'}", {"a": 1, "b": {"c": "x"}}),
        ("[{d = 1979-05-27}]", [{"d": "1979-05-27"}]),
    ],
)
def test_a_value(written: str, meant: object) -> None:
    assert read("x.toml", text=f"key = {written}\n").data == {"key": meant}


def test_infinity_and_nan_stay_floats() -> None:
    data = read("x.toml", text="a = inf\nb = nan\nc = 1e999\nd = -inf\n").data
    assert data["a"] == data["c"] == -data["d"] == math.inf
    assert math.isnan(data["b"])


# Places

TRAIN = """\
output_dir = '/out'  # where

[model]
type = 'wan'
lora.rank = 32
optimizer = {type = 'adamw', betas = [0.9, 0.99]}

[[directory]]
path = '/a'
[[directory]]
path = '/b'
  [directory.more]
  x = 1
"""


@pytest.mark.parametrize(
    ("key", "place"),
    [
        ("output_dir", (1, 1)),
        ("model", (3, 2)),
        ("model.type", (4, 1)),
        ("model.lora", (5, 1)),
        ("model.lora.rank", (5, 6)),
        ("model.optimizer.type", (6, 14)),
        ("model.optimizer.betas[1]", (6, 44)),
        ("directory", (8, 3)),
        ("directory[0]", (8, 3)),
        ("directory[0].path", (9, 1)),
        ("directory[1]", (10, 3)),
        ("directory[1].path", (11, 1)),
        ("directory[1].more", (12, 14)),
        ("directory[1].more.x", (13, 3)),
    ],
)
def test_a_key_has_its_line_and_column(key: str, place: tuple[int, int]) -> None:
    assert read("x.toml", text=TRAIN).position(key) == Position(*place)
    assert read("x.toml", text=TRAIN.replace("\n", "\r\n")).position(key) == Position(*place)


@settings(max_examples=300, deadline=None)
@given(tree=TREES, random=st.randoms(use_true_random=False))
def test_whatever_is_written_is_read_with_every_place(tree: dict[str, Any], random: Random) -> None:
    text = toml(tree, random)
    parsed = toml_positions.read(text)
    assert repr(_sorted(parsed.data)) == repr(_sorted(tree))
    assert set(parsed.positions) == places(tree)
    lines = text.split("\n")
    for path, place in parsed.positions.items():
        if isinstance(path[-1], str) and path[-1].isascii() and path[-1].isalnum():
            assert lines[place.line - 1][place.column - 1 :].lstrip("\"'").startswith(path[-1])


@settings(max_examples=200, deadline=None)
@given(tree=TREES, random=st.randoms(use_true_random=False))
def test_the_span_of_a_value_holds_it_and_nothing_else(tree: dict[str, Any], random: Random) -> None:
    text = toml(tree, random)
    for path, span in toml_positions.layout(text).spans.items():
        value: Any = tree
        for step in path:
            value = value[step]
        assert tomllib.loads(f"key = {text[slice(*span.value)]}") == {"key": value}


def _sorted(value: Any) -> Any:
    """Tables come after the pairs of their parent, so the order of keys is not kept."""
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value


# Bad text


@pytest.mark.parametrize(
    ("text", "id_", "place", "key"),
    [
        ("", "empty-config", (None, None), None),
        ("# only\n", "empty-config", (None, None), None),
        ("a = 1\na = 2", "duplicate-key", (2, 1), "a"),
        ("[a]\nb = 1\n[a]\n", "duplicate-key", (3, 2), "a"),
        ("[a]\nb = {c = 1, c = 2}", "duplicate-key", (2, 13), "a.b.c"),
        ("a = []\n[[a]]", "duplicate-key", (2, 3), "a"),
        ("a = 1\n[a.b]", "invalid-toml", (2, None), "a.b"),
        ("a.b = 1\na = 2", "invalid-toml", (2, None), "a"),
        ("[[a]]\n[a]", "invalid-toml", (2, None), "a"),
        ("rank = thirty", "invalid-toml", (1, None), "rank"),
        ("a = 1\nx = 1 2", "invalid-toml", (2, None), "x"),
        ("x = 'abc", "invalid-toml", (1, None), "x"),
        ("[m]\nx = [1, 2", "invalid-toml", (2, None), "m.x"),
        ("x", "invalid-toml", (1, None), "x"),
        ("[a", "invalid-toml", (1, None), None),
        ("a = True", "invalid-toml", (1, None), "a"),
        ("a = 0123", "invalid-toml", (1, None), "a"),
        ("a = 'C:\\x'\nb = \"C:\\x\"", "invalid-toml", (2, None), "b"),
        ('a = "\\ud800"', "invalid-toml", (1, None), "a"),
        ("a = 1979-13-01", "invalid-toml", (1, None), "a"),
        ('"" = 1', "bad-key", (1, 1), None),
        ("[' ']", "bad-key", (1, 2), None),
        ("a = " + "9" * 5000, "invalid-toml", (1, None), "a"),
        ("a = " + "[" * 5000, "too-deep", (1, 105), None),
        ("a = " + "{b=" * 5000, "too-deep", (1, 304), None),
        (".".join("a" * 5000) + " = 1", "too-deep", (1, 202), None),
        ("[" + ".".join("a" * 90) + "]\n" + ".".join("b" * 90) + " = 1", "too-deep", (2, 22), None),
    ],
)
def test_bad_toml(text: str, id_: str, place: tuple[int | None, int | None], key: str | None) -> None:
    found = refused(text)
    column = None if id_ == "invalid-toml" else found.column  # Python's parser says where, and not each version the same
    assert (found.id, (found.line, column), found.key) == (id_, place, key)


def test_a_duplicate_key_names_both_lines() -> None:
    found = refused("[model]\nrank = 1\nx = 2\nrank = 3\n")
    assert found.message == "model.rank is set twice, first on line 2; expected once."


@pytest.mark.parametrize(
    "text",
    [
        "a = [" + "1," * (MAX_VALUES + 1) + "]",
        "\n".join(f"a{n} = 1" for n in range(MAX_VALUES + 1)),
        "[[a]]\n" * (MAX_VALUES + 1),
        "\n".join(f"[a.b{n}]" for n in range(MAX_VALUES)),
        "a = '" + "x" * MAX_BYTES + "'",
    ],
    ids=["items", "keys", "tables", "groups", "bytes"],
)
def test_a_text_that_expands_is_refused_at_once(text: str) -> None:
    start = time.perf_counter()
    assert refused(text).id == "too-large"
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize(
    "text",
    [
        'a = """' + '""x' * 500_000 + '"""',
        'a = "' + "\\n" * 500_000 + '"',
        "a = 1 " + "#" * 1_000_000,
        " \n" * 500_000 + "a = 1",
        '"""' * 200_000,
        "a = [" + "# x\n" * 200_000 + "]",
        "\n".join(f"[a.b{n}.c]\n[a.b{n}]" for n in range(8_000)),
    ],
    ids=["quotes", "escapes", "comment", "lines", "open", "comments", "tables"],
)
def test_a_long_text_takes_no_time(text: str) -> None:
    start = time.perf_counter()
    answers(text, "x.toml")
    assert time.perf_counter() - start < 5


def test_text_without_a_name_is_read_by_its_content() -> None:
    assert read("-", text="# a run\n\nrank = 32\n").data == {"rank": 32}
    assert read("-", text="[model]\ntype = 'wan'\n").data == {"model": {"type": "wan"}}
    assert read("-", text="[[directory]]\npath = '/a'\n").data == {"directory": [{"path": "/a"}]}
    assert read("-", text="rank: 32 # = 5\n").data == {"rank": 32}
    assert read("-", text="rank: a = 5\n").data == {"rank": "a = 5"}


# Laws

SNIPPETS = st.lists(
    st.sampled_from(
        ["a", "b = ", "= ", ".", "\n", "\r\n", "[", "]", "[[", "]]", "{", "}", ", ", "'", '"', "'''", '"""', "#", "\t", " ", "1",
         "_", "inf", "nan", "true", "1979-05-27", "07:32:00", "\\", "\\u0041", "\\U00110000", "\r", "\x0b", "\ufeff", "é", "0x",
         "[a]\n", "[[a]]\n", "a.b = 1\n", "a = 1\n", "b = {a = 1}\n", "[a.b]\n", "???", "'${a}'"]
    ),
    max_size=25,
).map("".join)  # fmt: skip


@settings(max_examples=500)
@given(SNIPPETS | st.text())
def test_any_text_gives_a_document_or_findings(text: str) -> None:
    answers(text, "x.toml")


@settings(max_examples=500)
@given(SNIPPETS | st.text())
def test_what_pythons_parser_takes_is_read_and_nothing_else(text: str) -> None:
    try:
        theirs = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError):
        theirs = None
    try:
        ours = toml_positions.read(text)
    except ConfigError as refusal:
        assert not theirs or refusal.findings[0].id in ("bad-key", "too-deep", "too-large")  # noqa: PT017
        return
    assert theirs is not None
    assert set(ours.positions) == places(theirs)
    json.dumps(ours.data)


@pytest.mark.skipif(not CORPUS.is_dir(), reason="the collection of real configs is not beside the checkout")
def test_every_real_config_is_read() -> None:
    files = sorted(CORPUS.rglob("*.toml"))
    for file in files:
        document = read(str(file))
        assert document.data == tomllib.loads(file.read_text(encoding="utf-8"))
        assert set(document.positions) == places(document.data)
    assert len(files) >= 40
