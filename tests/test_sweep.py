"""A sweep says of each point what a check of it alone would say."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from preflight import catalog
from preflight.cli import main
from preflight.finding import ConfigError
from preflight.judge import judge
from preflight.pipeline import inspect
from preflight.spec import Spec
from preflight.sweeping.axes import MOST_POINTS, axis, check
from preflight.sweeping.grid import EXACT, Sweep, sweep
from preflight.sweeping.plane import FITS, TIGHT, VERDICTS

CONFIGS = Path(__file__).parent.parent / "configs"
FNO = str(CONFIGS / "fno_ocean.yaml")
WAN = str(CONFIGS / "train_ti2v_5b.yaml")


def points(capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, Any]]:
    assert main(["sweep", *words, "--format", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "preflight.sweep/1"
    found: list[dict[str, Any]] = document["points"]
    return found


def test_every_point_is_what_a_check_of_it_alone_says(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--vary", "batch=1,2", "--vary", "frames=17,33", "--vary", "resolution=480p,1280x704", "--vary", "rank=16,64")
    found = points(capsys, WAN, *words, "--gpu", "v100-32gb,a100-40gb")
    assert len(found) == 32
    for point in found[::3]:
        width, height = point["resolution"].split("x")
        spoken = {"batch_size": "batch", "num_frames": "frames", "lora_rank": "rank"}
        overrides = [f"{key}={point[name]}" for key, name in spoken.items()] + [f"width={width}", f"height={height}"]
        alone = inspect(WAN, overrides=overrides, gpu=point["gpu"])
        assert (point["peak_bytes"], point["verdict"]) == (alone.memory.peak_bytes, alone.verdict)
        assert point["activation_bytes"] == alone.memory.activation_bytes
        assert point["usable_bytes"] == alone.memory.usable_bytes


def test_a_size_that_the_network_does_not_take_cannot_be_judged(capsys: pytest.CaptureFixture[str]) -> None:
    found = points(capsys, WAN, "--vary", "resolution=1280x704,1281x704")
    assert [point["verdict"] == "cannot-judge" for point in found] == [False, True]
    assert found[1]["peak_bytes"] is None
    assert main(["sweep", WAN, "--vary", "resolution=1280x704,1281x704"]) == 0
    assert "cannot be judged: height and width must be multiples of" in capsys.readouterr().out


@given(most=st.integers(1 + EXACT // 3, 400), memory=st.floats(1.0, 24.0))
@settings(max_examples=15, deadline=None)
def test_the_frontier_is_where_it_stops_fitting(most: int, memory: float) -> None:
    spec = Spec.from_mapping(inspect(FNO).spec.to_mapping())  # type: ignore[union-attr]  # the example is valid
    axes = [axis(f"batch=1..{most}"), axis("resolution=64x64,128x128,256x256")]
    found = sweep(spec, [catalog.custom_gpu(memory)], axes, 0.7, lambda *_: None)
    for n in (1, 2):
        assert (np.diff(found.activations, axis=n)[found.exact[:, 1:] if n == 1 else found.exact[:, :, 1:]] >= 0).all()
    edge, fits = found.frontier(), found.verdict <= TIGHT
    assert not (edge & ~fits).any()
    assert edge.any() == (fits.any() and not fits.all())
    for at in np.argwhere(fits & ~edge):
        beyond = [tuple(at + np.eye(3, dtype=int)[n]) for n in (1, 2) if at[n] + 1 < found.peak.shape[n]]
        assert all(fits[place] for place in beyond)


SMALL: dict[str, dict[str, Any]] = {
    "wan2.1-t2v-1.3b": {"num_layers": 2},
    "diffusers-unet2d": {
        "sample_size": 64,
        "block_out_channels": [32, 64],
        "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
        "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
    },
    "diffsr-edsr": {"sample_factor": 4},
    "neuralop-fno": {"n_modes": [16, 16], "in_channels": 3, "out_channels": 3, "hidden_channels": 64},
}


@given(
    name=st.sampled_from(list(SMALL)),
    memory=st.floats(1.5, 48.0),
    checkpointing=st.booleans(),
    accumulation=st.sampled_from([1, 4]),
    expandable=st.booleans(),
    step=st.integers(1, 5),
    data=st.data(),
)
@settings(max_examples=12, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])  # shrinking takes minutes
def test_every_verdict_of_a_large_sweep_is_that_of_a_check(
    name: str, memory: float, checkpointing: bool, accumulation: int, expandable: bool, step: int, data: st.DataObject
) -> None:
    spec = Spec.from_mapping({
        "model": {"name": name, "dims": SMALL[name]},
        "train": {"method": "full", "checkpointing": checkpointing and "wan" in name, "accumulation": accumulation},
        "data": {"height": 64, "width": 64, "frames": 1},
        "hardware": {"expandable_segments": expandable},
    })  # fmt: skip
    gpu = catalog.custom_gpu(memory)
    axes = [axis(f"batch=1..{80 * step}:{step}"), axis("resolution=64x64,128x128,256x128,512x256")]
    found = sweep(spec, [gpu], axes, 0.9, lambda *_: None)
    assert found.peak.size > EXACT
    near = np.argsort(np.abs(found.peak - found.usable).reshape(-1), kind="stable")[:60]
    anywhere = st.integers(0, found.peak.size - 1)
    for number in {*data.draw(st.lists(anywhere, max_size=6)), *(int(near[n]) for n in data.draw(st.lists(st.integers(0, 59))))}:
        _, batch, size = (int(index) for index in np.unravel_index(number, found.peak.shape))
        width, height = axes[1].values[size]
        alone = replace(spec.data, height=height, width=width)
        check = judge(replace(spec, data=alone, train=replace(spec.train, batch=axes[0].values[batch])), gpu, 0.9)
        place = (0, batch, size)
        assert VERDICTS[found.verdict[place]] == check.verdict
        assert found.activations[place] == check.memory.activation_bytes
        if found.exact[place]:
            assert found.peak[place] == check.memory.peak_bytes


def test_the_order_in_which_values_are_given_changes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    one = points(capsys, FNO, "--vary", "batch=1,64,512")
    other = points(capsys, FNO, "--vary", "batch=512,1,64,64")
    assert one == other


def test_csv_has_a_line_a_point(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", FNO, "--vary", "batch=1..100", "--gpu", "rtx4090-24gb,t4-16gb", "--format", "csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(rows) == 200
    numbers = ["peak_bytes", "activation_bytes", "usable_bytes"]
    assert list(rows[0]) == ["gpu", "batch", *numbers, "verdict", "frontier", "exact"]
    assert {row["verdict"] for row in rows} <= {"fits", "tight", "does-not-fit", "cannot-judge"}


def test_a_person_sees_the_frontier_of_many_points(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", FNO, "--vary", "batch=1..2000"]) == 0
    page = capsys.readouterr().out
    assert page.count("< frontier") == 1
    assert "2,000 points" in page
    assert len(page.splitlines()) < 40


BAD = {
    "no values": (["--vary", "batch"], "is not NAME=VALUES"),
    "nothing": ([], "nothing is varied"),
    "a misspelt name": (["--vary", "bacth=1"], "did you mean batch?"),
    "not a number": (["--vary", "batch=x"], "expected whole numbers"),
    "zero": (["--vary", "batch=0"], "expected whole numbers"),
    "a range backwards": (["--vary", "batch=9..1"], "is no range"),
    "a step of zero": (["--vary", "batch=1..9:0"], "is no range"),
    "a size of one side": (["--vary", "resolution=1024"], "expected WIDTHxHEIGHT"),
    "twice": (["--vary", "batch=1", "--vary", "batch=2"], "given twice"),
    "sides and resolution": (["--vary", "height=64", "--vary", "resolution=64x64"], "give either"),
    "too many": (["--vary", "batch=1..3000", "--vary", "height=1..3000"], "more than the 2,000,000"),
    "an unknown GPU": (["--vary", "batch=1", "--gpu", "a100-41gb"], "not in the catalog"),
    "a rank without LoRA": (["--vary", "rank=1,2"], "trains no LoRA"),
    "a picture of one axis": (["--vary", "batch=1,2", "--plot", "svg"], "a heat map has two axes"),
    "a picture of another kind": (["--vary", "batch=1,2", "--plot", "a.gif"], "svg, png"),
    "no share": (["--vary", "batch=1", "--threshold", "2"], "not a share"),
}


@pytest.mark.parametrize(("words", "said"), BAD.values(), ids=BAD)
def test_a_wrong_command_line_is_one_sentence(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["sweep", FNO, *words])
    assert exit_.value.code == 2
    message = capsys.readouterr().err
    assert said in message
    assert message.count("\n") == 1


@pytest.mark.parametrize("form", ["svg", "png"])
def test_a_heat_map_is_drawn(form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    words = ["--vary", "batch=64..512:64", "--vary", "resolution=64x64,128x128,256x256", "--gpu", "t4-16gb,rtx4090-24gb"]
    pictures = [tmp_path / f"{name}.{form}" for name in ("one", "two")]
    for picture in pictures:
        assert main(["sweep", FNO, *words, "--plot", str(picture)]) == 0
    capsys.readouterr()
    first, second = (picture.read_bytes() for picture in pictures)
    assert first == second
    if form == "svg":
        text = first.decode()
        for label in ("batch (samples per GPU)", "resolution (width × height, pixels)", "peak (GiB per GPU)", "t4-16gb", "usable"):
            assert label in text


def test_a_hundred_thousand_points_need_little_time_and_memory() -> None:
    import time
    import tracemalloc

    spec = inspect(str(CONFIGS / "train_a100.yaml"), gpu_memory_gib=10_000).spec
    assert isinstance(spec, Spec)
    axes = [axis("batch=1..100"), axis("frames=17..81:8"), axis("height=240..720:16"), axis("width=416..832:128")]
    check(axes, 1)
    began = time.process_time()
    found: Sweep = sweep(spec, [catalog.gpu("a100-80gb")], axes, 0.7, lambda *_: None)
    seconds = time.process_time() - began
    tracemalloc.start()
    sweep(spec, [catalog.custom_gpu(1.0)], axes, 0.7, lambda *_: None)  # nothing has to be laid out there
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.peak.size == 100 * 9 * 31 * 4
    assert (found.verdict == FITS).any()
    assert seconds < 60  # of which those near the limit take most, as many as of a million
    assert peak < 200 * 2**20


@given(st.lists(st.integers(1, 10**4), min_size=1, max_size=30))
def test_values_come_out_ascending_and_once(values: list[int]) -> None:
    assert axis(f"batch={','.join(map(str, values))}").values == tuple(sorted(set(values)))


def test_the_limit_counts_gpus() -> None:
    axes = [axis(f"batch=1..{MOST_POINTS // 2}")]
    check(axes, 2)
    with pytest.raises(ConfigError, match="points"):
        check(axes, 3)
