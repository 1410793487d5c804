"""The index of a data set: what it holds comes out exactly, however it is written and read, and a bad one is one sentence."""

from __future__ import annotations

import csv
import json
import math
import shutil
import subprocess
import sys
import textwrap
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from preflight.cli import main
from preflight.data import command
from preflight.data.balance import gini, ratio, share
from preflight.data.batch import ROWS, Batch, batch
from preflight.data.columns import NAMES, columns
from preflight.data.gather import Limit, gather
from preflight.data.media import Draw, look
from preflight.data.numbers import pearson
from preflight.data.readers import batches, index
from preflight.data.sample import Reader
from preflight.data.statistics import Statistics, Wanted
from preflight.data.twins import Marks
from preflight.data.words import Vocabulary
from preflight.finding import ConfigError
from preflight.pipeline import inspect

HERE = Path(__file__).parent
CONFIG = HERE.parent / "configs" / "train_v100.yaml"
Golden = Callable[[Path, str], None]

# The data set of the plan that configs/train_v100.yaml is of: its training set, and the sizes of its validation set.
CATEGORIES = {
    "people": 50368, "space": 28710, "history": 28687, "nature": 28525, "events": 18646, "festivals": 12295,
    "tangible heritage": 1854, "intangible heritage": 1095,
}  # fmt: skip
VIDEOS, IMAGES = 80106, 90074
VALIDATION = {(1920, 1080): 15490, (720, 512): 3096, (1280, 720): 1239, (640, 480): 175}
VALIDATION_VIDEOS = 10080
WANTED = Wanted(width=1280, height=720, frames=49, fps=16, tokens=256)
FIELDS = ("media_path", "media_type", "caption", "category", "width", "height", "duration")


def parts(counts: dict[Any, int], scale: int) -> Iterator[Any]:
    for value, count in counts.items():
        yield from [value] * round(count / scale)


def rows(name: str, sizes: Sequence[tuple[int, int]], categories: Sequence[str], videos: int) -> Iterator[dict[str, Any]]:
    random = Random(name)
    for number, (width, height) in enumerate(sizes):
        video = number < videos
        yield {
            "media_path": f"{name}/{number}.{'mp4' if video else 'jpg'}",
            "media_type": "video" if video else "image",
            "caption": " ".join(f"word{random.randrange(500)}" for _ in range(random.randrange(5, 15))),
            "category": categories[number % len(categories)],
            "width": width,
            "height": height,
            "duration": round(random.uniform(2.97, 70), 2) if video else None,
        }


def train(scale: int) -> Iterator[dict[str, Any]]:
    categories = list(parts(CATEGORIES, scale))
    Random(1).shuffle(categories)
    return rows("train", [(1280, 720)] * len(categories), categories, round(VIDEOS / scale))


def validation(scale: int) -> Iterator[dict[str, Any]]:
    sizes = list(parts(VALIDATION, scale))
    Random(2).shuffle(sizes)
    return rows("validation", sizes, list(CATEGORIES), round(VALIDATION_VIDEOS / scale))


def write_csv(path: Path, records: Iterator[dict[str, Any]], separator: str = ",") -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, FIELDS, delimiter=separator)
        table.writeheader()
        table.writerows(records)
    return path


def write_parquet(path: Path, records: Iterator[dict[str, Any]]) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(list(records)), path)
    return path


def write_lines(path: Path, records: Iterator[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def write_list(path: Path, records: Iterator[dict[str, Any]]) -> Path:
    path.write_text(json.dumps(list(records), indent=2), encoding="utf-8")
    return path


WRITERS: dict[str, Callable[[Path, Iterator[dict[str, Any]]], Path]] = {
    "a.csv": write_csv,
    "a.tsv": lambda path, records: write_csv(path, records, "\t"),
    "semicolons.csv": lambda path, records: write_csv(path, records, ";"),
    "a.jsonl": write_lines,
    "lines.json": write_lines,
    "a.json": write_list,
    "a.parquet": write_parquet,
}


def statistics(path: Path, wanted: Wanted = WANTED, **how: Any) -> Statistics:
    return gather(batches(path), wanted, **how)


def run(*words: str) -> str:
    parser = ArgumentParser()
    command.add_arguments(parser)
    options = parser.parse_args(words)
    options.progress = lambda _done, _total: None
    options.standard_input = lambda: ""
    text, status = command.run(options)
    assert status == 0
    return text


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the plan's whole data set."""
    folder = tmp_path_factory.mktemp("plan")
    write_csv(folder / "train.csv", train(1))
    write_csv(folder / "val.csv", validation(1))
    return folder


# ---- the numbers of the plan


def test_gini_and_ratio_of_the_plan() -> None:
    assert f"{gini(CATEGORIES.values()):.4f}" == "0.3954"
    assert f"{ratio(CATEGORIES.values()):.2f}" == "46.00"
    assert sum(CATEGORIES.values()) == VIDEOS + IMAGES == 170180


def test_the_whole_data_set_of_the_plan(plan: Path) -> None:
    trained = statistics(plan / "train.csv", words=False)
    found = statistics(plan / "val.csv", words=False)
    assert (trained.rows, found.rows) == (170180, 20000)
    assert trained.kinds == {"video": VIDEOS, "image": IMAGES}
    assert trained.sizes is not None
    assert trained.categories is not None
    assert found.sizes is not None
    assert trained.sizes.other == 0
    assert (f"{trained.categories.gini:.4f}", f"{trained.categories.ratio:.2f}") == ("0.3954", "46.00")
    assert found.sizes.other == 18761
    assert share(found.sizes.other, found.rows) == "93.81 %"
    assert share(1239, found.rows) == "6.19 %"


def test_the_page(tmp_path: Path, golden: Golden, monkeypatch: pytest.MonkeyPatch) -> None:
    write_csv(tmp_path / "train.csv", train(100))
    write_csv(tmp_path / "val.csv", validation(100))
    monkeypatch.chdir(tmp_path)
    words = ("train.csv", "--validation", "val.csv", "--size", "1280x720", "--frames", "49", "--fps", "16", "--tokens", "12")
    golden(HERE / "data" / "page.txt", run(*words))


def test_the_config_says_what_is_wanted(tmp_path: Path) -> None:
    paths = [
        f"data.train_csv={write_csv(tmp_path / 'train.csv', train(100))}",
        f"data.val_csv={write_csv(tmp_path / 'val.csv', validation(100))}",
    ]
    document = json.loads(run(str(CONFIG), "--set", paths[0], "--set", paths[1], "--format", "json"))
    assert document["schema"] == "preflight.data/1"
    assert document["wanted"] == {"width": 1280, "height": 720, "frames": 49, "fps": None, "tokens": 256}
    train_split, validation_split = document["splits"]
    assert (train_split["name"], train_split["rows"], train_split["sizes"]["other"]) == ("train", 1702, 0)
    assert (validation_split["name"], validation_split["rows"], validation_split["sizes"]["other"]) == ("validation", 200, 188)
    assert round(train_split["categories"]["gini"], 2) == 0.40
    assert document["overlap"] == {"count": 0, "rows": None}


def test_the_checks_tell_of_the_validation_set_that_was_forgotten(tmp_path: Path) -> None:
    write_csv(tmp_path / "train.csv", train(100))
    write_csv(tmp_path / "val.csv", validation(100))
    found = inspect(str(CONFIG), overrides=[f"data.train_csv={tmp_path}/train.csv", f"data.val_csv={tmp_path}/val.csv"]).findings
    said = {finding.id: finding for finding in found if finding.id.startswith("dataset")}
    assert set(said) == {"dataset", "dataset-resolution", "dataset-balance", "dataset-files"}
    assert said["dataset-resolution"].message.startswith(
        "188 of 200 validation samples (94.00 %) are not of the training size 1280×720, 155 of them 1920×1080."
    )
    assert said["dataset-resolution"].key == "data.val_csv"
    assert said["dataset-balance"].message.startswith(
        "Of 1,702 training samples the largest of 8 categories, people (504), has 45.8 times as many as the smallest,"
        " intangible heritage (11): Gini 0.3953."
    )


def test_a_plain_check_reads_the_first_rows_and_says_so(plan: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(plan / "val.csv", tmp_path))
    with path.open("a", encoding="utf-8") as file:
        file.write("validation/last.mp4,video,the last,people,9,9,3\n")
    found = inspect(str(CONFIG), overrides=[f"data.val_csv={path}"]).findings
    (said,) = (finding.message for finding in found if finding.id == "dataset-resolution")
    assert said.startswith(
        "18,761 of the first 20,000 validation samples (93.81 %) are not of the training size 1280×720, 15,490 of"
    )
    assert not statistics(path, limit=Limit(rows=20000, done=2**30)).whole
    assert statistics(path, limit=Limit(rows=20001, done=2**30)).whole


def test_two_hundred_thousand_rows_need_little_time_and_memory(plan: Path) -> None:
    """Linux carries a parent's peak over into ru_maxrss of what it starts (fs/exec.c: exec_mmap), so there VmHWM is read."""
    script = f"""
        import resource, sys, time
        sys.path[:0] = {sys.path!r}
        from pathlib import Path
        from preflight.data.gather import gather
        from preflight.data.readers import batches
        from preflight.data.statistics import Wanted
        began = time.process_time()
        train, val = (gather(batches(Path(name)), Wanted(tokens=9)) for name in ("train.csv", "val.csv"))
        val.marks.shared(train.marks)
        status = Path("/proc/self/status")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        if status.exists():
            peak = next(line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        print(time.process_time() - began, peak)
    """
    pytest.importorskip("resource")
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], cwd=plan, capture_output=True, text=True, check=True)
    seconds, kib = map(float, done.stdout.split())
    assert seconds < 30  # some five times what it takes, for slow machines
    assert kib < 300 * 2**10 or sys.platform == "darwin"  # which counts bytes


# ---- however it is written and read


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_says_the_same(name: str, tmp_path: Path) -> None:
    expected = statistics(write_csv(tmp_path / "expected.csv", train(500)))
    path = WRITERS[name](tmp_path / name, train(500))
    assert index(str(path)) == path
    found = statistics(path)
    assert found == expected
    assert found.rows == 340


def test_media_inside_a_parquet_file_stay_there(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "a.parquet"
    images = [{"bytes": b"x" * 10**6, "path": f"{number}.png"} for number in range(20)]
    parquet.write_table(pyarrow.table({"image": images, "video": [b"x"] * 20, "text": ["a dog"] * 20}), path)
    found = statistics(path)
    assert (found.rows, found.kinds, found.media.count) == (20, {"image": 20}, 0)
    assert found.drawn[3] == "3.png"


def test_a_folder_is_its_index(tmp_path: Path) -> None:
    assert index(str(tmp_path)) is None
    path = write_lines(tmp_path / "metadata.jsonl", train(1000))
    assert index(str(tmp_path)) == path
    assert json.loads(run(str(tmp_path), "--format", "json"))["splits"][0]["rows"] == statistics(path).rows


value = st.one_of(
    st.none(), st.booleans(), st.integers(-10, 10**20), st.floats(), st.text(max_size=8),
    st.sampled_from(["1280", "720", "1:02.5", "1280x720", "video", "a.mp4", "nan", "-1", "1e400"]),
    st.lists(st.integers(), max_size=2),
)  # fmt: skip
record = st.dictionaries(st.sampled_from([name for names in NAMES.values() for name in names[:3]]), value, max_size=8)


@given(st.lists(record, min_size=1, max_size=30), st.integers(1, 29))
def test_streaming_equals_whole(records: list[dict[str, Any]], cut: int) -> None:
    whole = gather([batch(records, first=1, done=1, total=1)], WANTED)
    pieces = [records[:cut], records[cut:]]
    split = [batch(piece, first=1 + cut * n, done=n, total=1) for n, piece in enumerate(pieces) if piece]
    found = gather(split, WANTED)
    assert replace(found, slips=()) == replace(whole, slips=())
    assert [(slip.field, slip.rows, slip.row) for slip in sorted(found.slips, key=str)] == [
        (slip.field, slip.rows, slip.row) for slip in sorted(whole.slips, key=str)
    ]
    json.dumps(whole.kinds)


@given(st.lists(record, min_size=1, max_size=20), st.randoms())
def test_the_order_of_rows_changes_no_figure(records: list[dict[str, Any]], random: Random) -> None:
    def figures(given: list[dict[str, Any]]) -> Statistics:
        found = gather([batch(given, first=1, done=1, total=1)], WANTED)
        media, samples = (replace(twins, rows=None) for twins in (found.media, found.samples))
        return replace(found, media=media, samples=samples, slips=(), drawn=(), correlation=None)

    shuffled = random.sample(records, len(records))
    assert figures(shuffled) == figures(records)


# ---- the laws of the figures

counts = st.lists(st.integers(0, 10**6), min_size=1, max_size=40)


@given(counts, st.integers(1, 1000), st.randoms())
def test_gini_is_a_share_that_neither_scale_nor_order_changes(values: list[int], scale: int, random: Random) -> None:
    found = gini(values)
    assert 0 <= found < 1
    assert math.isclose(found, gini([count * scale for count in values]), abs_tol=1e-12)
    assert found == gini(random.sample(values, len(values)))
    assert gini([7] * len(values)) == 0


@given(st.lists(st.integers(0, 99), min_size=1, max_size=12))
def test_gini_is_half_the_relative_mean_difference(values: list[int]) -> None:
    total = sum(values)
    apart = sum(abs(one - other) for one in values for other in values)
    assert math.isclose(gini(values), apart / (2 * len(values) * total) if total else 0.0, abs_tol=1e-12)


@given(
    st.lists(
        st.tuples(st.floats(0.1, 1e4), st.integers(1, 10**4)), min_size=2, max_size=50, unique_by=(lambda p: p[0], lambda p: p[1])
    )
)
def test_pearson_is_numpys(pairs: list[tuple[float, int]]) -> None:
    xs, ys = [x for x, _ in pairs], [float(y) for _, y in pairs]
    found = pearson(xs, ys)
    assert found is not None
    assert -1 <= found <= 1
    if np.std(xs) > 1e-6 * np.mean(xs):
        assert math.isclose(found, float(np.corrcoef(xs, ys)[0, 1]), abs_tol=1e-6)


@given(st.lists(st.text("ab cD\u00e9", max_size=20), max_size=40), st.integers(1, 9))
def test_words_are_those_of_a_plain_count(captions: list[str], piece: int) -> None:
    vocabulary = Vocabulary()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("preflight.data.words.PIECE", piece)
        vocabulary.add(captions)
    found, split = vocabulary.words(), [caption.lower().split() for caption in captions]
    plain_count = Counter(word for words in split for word in words)
    if found is None:
        assert not plain_count
        return
    assert (found.tokens, found.distinct, found.cut) == (plain_count.total(), len(plain_count), False)
    assert list(found.frequent) == sorted(plain_count.items(), key=lambda item: (-item[1], item[0]))[:10]
    assert math.isclose(found.ratio.mean, float(np.mean([len(set(words)) / len(words) for words in split if words])))


def test_a_vocabulary_without_end_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("preflight.data.words.PIECE", 10)
    vocabulary = Vocabulary(most=25)
    vocabulary.add(f"word{number} the" for number in range(100))
    found = vocabulary.words()
    assert found is not None
    assert (found.distinct, found.cut, found.tokens) == (25, True, 200)
    assert found.frequent[0] == ("the", 100)


@given(st.lists(st.sampled_from([None, *"abcdef"]), max_size=30), st.lists(st.sampled_from([None, *"defghi"]), max_size=30))
def test_twins_are_the_rows_beyond_the_different_ones(mine: list[str | None], others: list[str | None]) -> None:
    named = [key for key in mine if key is not None]
    found = Marks(mine).twins()
    assert found.count == len(named) - len(set(named))
    if found.rows:
        earlier, later = found.rows
        assert mine[earlier - 1] == mine[later - 1]
        assert earlier < later
    shared = Marks(mine).shared(Marks(others))
    assert shared.count == sum(key in others for key in named)
    if shared.rows:
        assert mine[shared.rows[0] - 1] == others[shared.rows[1] - 1]


@given(st.integers(0, 300), st.integers(1, 20), st.integers(1, 50))
def test_a_draw_is_of_the_names_and_no_larger(names: int, size: int, piece: int) -> None:
    given_names = [str(number) for number in range(names)]
    draw = Draw(size)
    for start in range(0, names, piece):
        draw.add(given_names[start : start + piece])
    assert len(draw.names) == len(set(draw.names)) == min(size, names)
    assert set(draw.names) <= set(given_names)
    whole = Draw(size)
    whole.add(given_names)
    assert whole.names == draw.names


def test_every_name_is_drawn_as_often() -> None:
    draw = Draw(2000)
    draw.add([str(number) for number in range(20000)])
    halves = Counter(int(name) < 10000 for name in draw.names)
    assert abs(halves[True] - 1000) < 120  # five standard deviations


def test_missing_files_are_looked_for_where_they_may_be(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").touch()
    found = look(["a.mp4", "b.mp4", "https://example.org/c.mp4"], tmp_path / "metadata.csv")
    assert found is not None
    assert (found.looked, found.missing, found.example, found.base) == (2, 1, "b.mp4", str(tmp_path / "videos"))
    assert look(["https://example.org/c.mp4"], tmp_path / "metadata.csv") is None


def test_no_name_is_known_for_two_columns() -> None:
    names = [name for group in NAMES.values() for name in group]
    assert len(names) == len(set(names))
    assert columns(["Video Path", "num-frames"]) == {"media": ("Video Path",), "frames": ("num-frames",)}


@pytest.mark.parametrize(
    ("values", "field", "expected"),
    [
        ({"duration": "00:23.5"}, "durations", 23.5),
        ({"duration": "01:02:03"}, "durations", 3723.0),
        ({"duration": ""}, "durations", None),
        ({"resolution": "1280*720"}, "widths", 1280.0),
        ({"resolution": "1280x720"}, "heights", 720.0),
        ({"resolution": "720p"}, "heights", None),
        ({"width": "1280.0"}, "widths", 1280.0),
        ({"path": "a.MP4"}, "kinds", "video"),
        ({"path": "a.jpg", "duration": "0"}, "kinds", "image"),
        ({"path": "a", "type": "Images"}, "kinds", "image"),
        ({"path": "a", "frames": 9}, "kinds", "video"),
        ({"captions": ["one", "two"]}, "captions", "one"),
        ({"video": "", "image": "b.png"}, "media", "b.png"),
    ],
)
def test_a_value_is_read(values: dict[str, Any], field: str, expected: object) -> None:
    reader = Reader()
    samples = reader.samples(Batch(names=list(values), rows=[list(values.values())], first=1, done=1, total=1))
    assert getattr(samples, field)[0] == expected
    assert not reader.slips.found


@pytest.mark.parametrize(
    "bad", ["wide", "-480", "0", "inf", "-nan(ind)", "12.5", True and "1e999", [1], {"a": 1}, float("nan"), -1]
)
def test_a_value_that_is_no_size_is_counted(bad: Any) -> None:
    reader = Reader()
    samples = reader.samples(Batch(names=["path", "width"], rows=[["a.mp4", bad]], first=7, done=1, total=1))
    assert list(samples.widths) == [None]
    assert (reader.slips.found["width"].rows, reader.slips.found["width"].row) == (1, 7)


# ---- what cannot be read

BAD: dict[str, tuple[str, bytes, str]] = {
    "empty": ("a.csv", b"", "is empty, expected a header"),
    "empty lines": ("a.jsonl", b"\n\n", "is empty, expected an object for each sample"),
    "empty JSON": ("a.json", b"", "is empty, expected a list"),
    "an empty list": ("a.json", b"[]", "is an empty list"),
    "binary": ("a.csv", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "is not UTF-8 text"),
    "zeros": ("a.csv", b"path,caption\n\0\0\n", "holds bytes that no text has (line 2)"),
    "another encoding": ("a.csv", "path,caption\na.mp4,바다\n".encode("cp949"), "is not UTF-8 text"),
    "unknown columns": (
        "a.csv",
        b"id,score\n1,2\n",
        "has no column that names a sample's file or caption (its header is id, score)",
    ),
    "no header": ("a.csv", b"a.mp4,a street\nb.mp4,a dog\n", "has no column that names a sample's file or caption"),
    "an open quote": ("a.csv", b'path,caption\na.mp4,"' + b"a" * 140000, "is not CSV near line"),
    "a broken line": ("a.jsonl", b'{"video": "a"}\n{"video"\n', "has a line that is not JSON (line 2)"),
    "a line of numbers": ("a.jsonl", b"[1]\n", "holds a list (line 1), expected an object for each sample"),
    "deep": ("a.jsonl", b"[" * 100000, "has a line that is not JSON (line 1)"),
    "a list of numbers": ("a.json", b"[1, 2]", "holds a number (sample 1)"),
    "an open list": ("a.json", b'[{"video": "a.mp4"}, {"video": ', "is not JSON at sample 2"),
    "no comma": ("a.json", b'[{"video": "a.mp4"} {"video": "b.mp4"}]', "is not JSON after sample 1"),
    "a comma too many": ("a.json", b'[{"video": "a.mp4"},]', "is not JSON at sample 2"),
    "no JSON": ("a.json", b"video,prompt\n", "is not JSON: it begins with neither [ nor {"),
    "unknown keys": ("a.json", b'[{"id": 1}]', "has no key that names a sample's file or caption (the first has id)"),
    "Arrow files": ("a.json", b'{"source": [], "data_file": ["a.arrow"]}', "is HunyuanDiT's list of Arrow files"),
    "one object": ("a.json", b'{"name": "x"}', "is one JSON object"),
    "no Parquet": ("a.parquet", b"PAR1 and nothing", "is not Parquet that can be read"),
}


@pytest.mark.parametrize(("name", "content", "said"), BAD.values(), ids=BAD)
def test_a_bad_index_is_one_sentence(name: str, content: bytes, said: str, tmp_path: Path) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ConfigError) as problem:
        statistics(path)
    (finding,) = problem.value.findings
    assert said in finding.message
    assert "\n" not in finding.message


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json", "a.parquet"])
def test_a_gigabyte_of_nothing_is_refused_at_once(name: str, tmp_path: Path) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    path = tmp_path / name
    with path.open("wb") as file:
        file.truncate(2**30)
    with pytest.raises(ConfigError):
        statistics(path)


def test_parquet_without_its_extra_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(
        ConfigError, match=r"is Parquet, which needs pyarrow; pip install 'preflight-train\[data\]' brings it"
    ) as problem:
        statistics(path)
    assert problem.value.findings[0].severity == "note"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    name=st.sampled_from(["a.csv", "a.tsv", "a.jsonl", "a.json"]),
    content=st.one_of(
        st.binary(max_size=200),
        st.text('pathcwid,"\n[]{}:x1.- ', max_size=200).map(str.encode),
        st.text('a,"\n1', max_size=60).map(lambda text: b"path,width\n" + text.encode()),
    ),
)
def test_any_bytes_are_read_or_refused(name: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    said = ""
    try:
        assert statistics(path).whole
    except ConfigError as problem:
        said = str(problem)
    assert "\n" not in said


def test_what_a_config_names_and_is_not_here_is_told(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "val.csv", validation(1000))
    words = (str(CONFIG), "--set", f"data.val_csv={path}")
    page = run(*words)
    assert page.startswith(f"validation · {path} · csv · 19 rows\n")
    assert page.endswith("\ntrain · preprocessed_data/all_train.csv is not here\n")
    document = json.loads(run(*words, "--format", "json"))
    assert document["absent"] == {"train": "preprocessed_data/all_train.csv"}
    assert document["overlap"] is None


COMMAND_LINE = {
    "a size of one side": (["a.csv", "--size", "720"], "is not WIDTHxHEIGHT"),
    "no frames": (["a.csv", "--frames", "0"], "not a number above 0"),
    "nothing there": (["nowhere.csv"], "nowhere.csv does not exist"),
    "another file": (["a.csv", "--validation", "note.txt"], "note.txt is no index"),
    "another picture": (["a.csv", "--plot", "a.gif"], "svg, png"),
    "a config without paths": (["native.yaml"], "names no index"),
    "a config whose data is elsewhere": ([str(CONFIG)], "preprocessed_data/all_train.csv does not exist"),
    "a folder without an index": (["."], "is a folder without metadata.csv"),
}


@pytest.mark.parametrize(("words", "said"), COMMAND_LINE.values(), ids=COMMAND_LINE)
def test_a_wrong_command_line_is_one_sentence(words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_csv(Path("a.csv"), train(5000))
    Path("note.txt").write_text("a note", encoding="utf-8")
    Path("native.yaml").write_text(
        "preflight: 1\nmodel: {name: wan2.1-t2v-1.3b}\ntrain: {method: full}\ndata: {height: 480, width: 832}\n", encoding="utf-8"
    )
    with pytest.raises(ConfigError) as problem:
        run(*words)
    (finding,) = problem.value.findings
    assert said in finding.message
    assert "\n" not in finding.message


@pytest.mark.parametrize("form", ["svg", "png"])
def test_a_picture_is_drawn(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    write_csv(Path("train.csv"), train(100))
    write_csv(Path("val.csv"), validation(100))
    for name in ("one", "two"):
        run("train.csv", "--validation", "val.csv", "--size", "1280x720", "--plot", f"{name}.{form}")
    first, second = (Path(f"{name}.{form}").read_bytes() for name in ("one", "two"))
    assert first == second
    if form == "svg":
        for label in ("resolution (width × height, pixels)", "share of samples (%)", "category", "validation", "1920×1080"):
            assert label in first.decode()


def test_the_command_line_prints_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_csv(tmp_path / "a.csv", train(1000))
    assert main(["data", str(path), "--size", "640x480"]) == 0
    assert capsys.readouterr().out == run(str(path), "--size", "640x480")
    with pytest.raises(SystemExit) as stopped:
        main(["data", str(tmp_path / "b.csv")])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.endswith("b.csv does not exist (see preflight --help)\n")


def test_progress_is_told_as_the_file_is_read(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    found = gather(
        batches(write_csv(tmp_path / "a.csv", train(10))), WANTED, progress=lambda done, total: told.append((done, total))
    )
    assert len(told) == -(-found.rows // ROWS)
    assert told == sorted(told)
    assert {total for _, total in told} == {(tmp_path / "a.csv").stat().st_size} == {told[-1][0]}


def test_an_index_of_captions_alone_is_drawn_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    Path("a.csv").write_text("prompt,category\na street,바다\na street,산\n,산\n", encoding="utf-8")
    page = run("a.csv", "--plot", "a.png")
    assert "1 sample again (row 2 is row 1)" in page
    assert "1 are empty" in page
