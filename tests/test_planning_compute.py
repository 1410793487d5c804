"""Training against inference: the published estimate to three digits, the laws, the options and the chart."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preflight.cli import main
from preflight.planning import inference
from preflight.planning.compute import Assumptions, Compute

FOUND = Compute(taken=Assumptions())


def digits(number: float, count: int = 3) -> str:
    return f"{number:.{count}g}"


@pytest.mark.parametrize(
    ("found", "published"),
    [
        (FOUND.frames, 180),
        (FOUND.training_flop[0], 1.08e25),
        (FOUND.training_flop[1], 2.7e25),
        (FOUND.gpu_months[0], 4211),
        (FOUND.gpu_months[1], 10528),
        (FOUND.image_flop, 131e12),
        (FOUND.clip_step_flop, 2.83e15),
        (FOUND.minute_flop, 708e15),
        (FOUND.crossover_minutes[0], 15.3e6),
        (FOUND.crossover_minutes[1], 38.1e6),
        (FOUND.crossover_images, 7.63e6),
        (FOUND.peak_gpus, 720e3),
        (FOUND.outputs["Llama 2 70B"][1], 140e12),
        (FOUND.outputs["GPT-4"][1], 880e12),
    ],
)
def test_the_published_estimate_to_three_digits(found: float, published: float) -> None:
    assert digits(found) == digits(published)


def test_the_published_estimate_in_words() -> None:
    assert digits(FOUND.reference_gpu_months, 1) == "0.4"  # "0.4 H100 for a month, or one for 12 days"
    assert round(FOUND.reference_gpu_months * 30) == 12
    assert digits(FOUND.training_flop[0], 2) == "1.1e+25"
    assert round(FOUND.minutes_per_gpu_hour) == 5
    assert round(FOUND.gpu_months[0]) == 4211
    assert round(FOUND.gpu_months[1]) == 10528
    assert FOUND.generated_minutes == pytest.approx(17e6 * 0.5 + 43e6 * 0.15)
    assert FOUND.crossover_days["TikTok"][0] == pytest.approx(15.3 / 17, rel=5e-3)


def _json(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert main(["compute", "--json", *words]) == 0
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return answer


def test_the_text_shows_the_figures(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compute"]) == 0
    out = capsys.readouterr().out
    for figure in ("1.08e25 to 2.7e25", "4,211 to 10,528", "708e15", "15.3 to 38.1 million", "7.63 million", "720,000"):
        assert figure in out


CHANGED = {
    "--reference-flop": "2e21",
    "--model-scale": "20",
    "--data-scale": "5",
    "--video-share": "0.4",
    "--training-utilisation": "0.4",
    "--month-days": "31",
    "--seconds": "30",
    "--fps": "30",
    "--compression": "4",
    "--step-flop": "1e12",
    "--sampling-steps": "50",
    "--digits": "15",
    "--gpu": "a100-80gb",
    "--tflops": "500",
    "--platform": "Shorts=1e6:0.1",
    "--images-a-day": "1e6",
    "--candidates": "4",
    "--utilisation": "0.3",
    "--peak-factor": "3",
    "--tokens": "2000",
    "--language-model": "Mistral=7e9",
}


@pytest.mark.parametrize(("flag", "value"), CHANGED.items())
def test_every_factor_is_an_option(capsys: pytest.CaptureFixture[str], flag: str, value: str) -> None:
    assert _json(capsys, flag, value) != _json(capsys)


def test_every_factor_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compute", "-v"]) == 0
    told = capsys.readouterr().out
    assert all(flag in told for flag in CHANGED)


BAD = {
    **{flag: ["0", "-1", "nan", "inf", "x"] for flag in ("--reference-flop", "--model-scale", "--seconds", "--tflops")},
    **{flag: ["0", "1.5", "nan"] for flag in ("--video-share", "--utilisation", "--training-utilisation")},
    **{flag: ["0", "-1", "2.5", "nan"] for flag in ("--sampling-steps", "--tokens", "--digits")},
    "--candidates": ["0", "nan"],
    "--data-scale": ["0", "10,4", "1,2,3", "nan,2"],
    "--platform": ["TikTok", "TikTok=0", "TikTok=1e6:2", "=5", "TikTok=nan"],
    "--language-model": ["7e9", "M=0", "M=nan"],
    "--gpu": ["H1000"],
    "--plot": ["gif", "chart.pdf", "/nonexistent/chart.svg"],
}


@pytest.mark.parametrize(("flag", "value"), [(flag, value) for flag, values in BAD.items() for value in values])
def test_bad_values_are_one_sentence(capsys: pytest.CaptureFixture[str], flag: str, value: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["compute", f"{flag}={value}"])
    assert stopped.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1


FACTORS = st.floats(0.1, 1e3)


@given(factor=FACTORS)
def test_training_is_linear_in_each_multiplier(factor: float) -> None:
    for name in ("reference_flop", "model_scale"):
        changed = Compute(taken=replace(FOUND.taken, **{name: getattr(FOUND.taken, name) * factor}))
        assert changed.training_flop == pytest.approx([flop * factor for flop in FOUND.training_flop])


@given(factor=FACTORS)
def test_faster_gpus_are_needed_for_a_shorter_time_and_move_no_crossover(factor: float) -> None:
    fast = Compute(taken=replace(FOUND.taken, tflops=FOUND.taken.tflops * factor))
    assert fast.gpu_months == pytest.approx([months / factor for months in FOUND.gpu_months])
    assert fast.minutes_per_gpu_hour == pytest.approx(FOUND.minutes_per_gpu_hour * factor)
    assert fast.peak_gpus == pytest.approx(FOUND.peak_gpus / factor)
    assert fast.crossover_minutes == FOUND.crossover_minutes


@given(scale=FACTORS)
def test_the_crossover_does_not_depend_on_the_size_of_the_model(scale: float) -> None:
    every_digit = replace(FOUND.taken, digits=15)
    small, large = (Compute(taken=replace(every_digit, model_scale=n)) for n in (1.0, scale))
    assert large.crossover_minutes == pytest.approx(small.crossover_minutes)


@given(training=st.floats(1e15, 1e28), unit=st.floats(1e9, 1e20))
def test_at_the_crossover_both_have_taken_the_same(training: float, unit: float) -> None:
    assert inference.crossover(training, unit) * unit == pytest.approx(training)


@given(low=st.floats(1, 10), more=st.floats(0, 100))
def test_more_data_moves_the_crossover_later(low: float, more: float) -> None:
    bounds = Compute(taken=replace(FOUND.taken, data_scale=(low, low + more))).crossover_minutes
    assert bounds[0] <= bounds[1]


@pytest.mark.parametrize("kind", ["svg", "png"])
def test_the_chart_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    pytest.importorskip("matplotlib", reason="charts need the plot extra")
    monkeypatch.chdir(tmp_path)
    assert main(["compute", "--plot", kind]) == 0
    first = (tmp_path / f"preflight-compute.{kind}").read_bytes()
    assert main(["compute", "--plot", str(tmp_path / f"again.{kind}")]) == 0
    assert (tmp_path / f"again.{kind}").read_bytes() == first
    if kind == "svg":
        assert b"15.3 million minutes" in first
        assert b"38.1 million minutes" in first


def test_a_chart_of_one_bound(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="charts need the plot extra")
    assert main(["compute", "--data-scale", "5", "--plot", str(tmp_path / "one.svg")]) == 0
    assert "high" not in (tmp_path / "one.svg").read_text()
