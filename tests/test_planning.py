"""The formula planner: the documented example to the digit, the laws of the formulas, and what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from preflight import catalog
from preflight.cli import main
from preflight.planning import chinchilla, cost, fit, hardware
from preflight.planning.numbers import counted, duration, money, scientific
from preflight.planning.plan import Assumptions, Plan
from preflight.planning.video import PRESETS, Clip
from preflight.units import GIB

EXAMPLE = ["plan", "-t", "40", "-n", "8", "-r", "720p", "-f", "50", "--fps", "10", "--mfu", "0.4", "--gpu-type", "H100", "-s", "10"]
HD = Clip(width=1280, height=720, frames=50, fps=10)
PLAN = Plan(wall_hours=40, gpus=8, card=hardware.gpu("H100"), mfu=0.4, price=2.0, steps=10, clip=HD, assumptions=Assumptions())


def _run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    status = main(list(words))
    return status, capsys.readouterr().out


def _json(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    status, out = _run(capsys, *words, "--json")
    return status, json.loads(out)


@pytest.mark.parametrize(
    "line",
    [
        "[Input]",
        "  Wall time:           40 hours (1.7 days)",
        "  n_gpu:               8",
        "  Diffusion steps:     10",
        "[Hardware]",
        "  GPU:                 8x NVIDIA H100 80 GB SXM",
        "  MFU:                 40%",
        "  GPU-hours:           320",
        "[Chinchilla Optimal]",
        "  N_opt:               616.3M (hidden_dim=1,462)",
        "  D_opt:               12.3B patches = 20 * N",
        "  Training data:       396 hours of video",
        "[Memory per GPU]",
        "  Model+Optimizer:     1.1 GiB (FSDP)",
        "  Activations:         45.2 GiB (batch=16)",
        "  Total:               46.3 GiB",
        "[Results]",
        "  Batch size:          16",
        "  Cost:                $640",
    ],
)
def test_the_documented_example(capsys: pytest.CaptureFixture[str], line: str) -> None:
    status, out = _run(capsys, *EXAMPLE)
    assert status == 0
    assert any(shown.startswith(line) for shown in out.splitlines()), out


def test_the_example_by_hand() -> None:
    assert PLAN.flop == 320 * 989e12 * 0.4 * 3600
    assert pytest.approx((PLAN.flop / 120 / 10) ** 0.5) == PLAN.parameters
    assert PLAN.clip.patches == 45 * 80 * 12
    assert pytest.approx(16 * PLAN.parameters / 8) == PLAN.states_bytes
    assert PLAN.activation_bytes(16) == 16 * 43_200 * 1462 * 24 * 2
    assert PLAN.cost == 640


def test_the_example_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    status, found = _json(capsys, *EXAMPLE)
    assert status == 0
    assert found["schema"] == "preflight.plan/1"
    assert found["results"] == {"batch": 16, "largest_batch": PLAN.largest_batch, "cost_usd": 640.0}
    assert found["chinchilla"]["hidden_dim"] == 1462
    assert found["memory_per_gpu"]["states_bytes"] / GIB == pytest.approx(1.148, abs=1e-3)
    assert all(row["source"] and row["option"] for row in found["assumptions"])


def test_the_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    _, found = _json(capsys, "plan", "-t", "40", "-n", "8", "-r", "720p", "-f", "50")
    assert (found["input"]["fps"], found["input"]["steps"], found["hardware"]["mfu"]) == (24.0, 10, 0.3)
    assert (found["hardware"]["gpu"], found["results"]["cost_usd"]) == ("h100-80gb", 640.0)


@pytest.mark.parametrize(("preset", "size"), PRESETS.items())
def test_presets(capsys: pytest.CaptureFixture[str], preset: str, size: tuple[int, int]) -> None:
    words = ("plan", "-t", "40", "-n", "8", "-f", "8", "-r")
    by_name, by_size = _json(capsys, *words, preset), _json(capsys, *words, f"{size[0]}x{size[1]}")
    assert by_name == by_size
    assert (by_name[1]["input"]["width"], by_name[1]["input"]["height"]) == size


@pytest.mark.parametrize("card", [gpu.id for gpu in catalog.gpus()])
def test_every_gpu_of_the_catalog(capsys: pytest.CaptureFixture[str], card: str) -> None:
    status, found = _json(capsys, "plan", "-t", "1", "-n", "1", "-r", "480p", "-f", "4", "--gpu-type", card)
    assert status == 0
    assert found["hardware"]["tflops"] == catalog.gpu(card).tflops


@pytest.mark.parametrize(("name", "meant"), [("A100", "a100-80gb"), ("H100", "h100-80gb"), ("h100", "h100-80gb")])
def test_the_short_names(name: str, meant: str) -> None:
    assert hardware.gpu(name).id == meant


def test_every_assumption_is_shown_and_can_be_changed(capsys: pytest.CaptureFixture[str]) -> None:
    _, told = _run(capsys, *EXAMPLE, "-v")
    _, before = _json(capsys, *EXAMPLE)
    for row in before["assumptions"]:
        assert row["option"] in told
        if row["option"] in ("--gpu-type", "--gpu-price"):
            continue
        changed = "0.5" if row["option"] == "--threshold" else "7"
        _, after = _json(capsys, *EXAMPLE, row["option"], changed)
        assert {**after, "assumptions": 0} != {**before, "assumptions": 0}, row


def test_what_does_not_fit_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("plan", "-t", "4000", "-n", "8", "-r", "4k", "-f", "500", "--gpu-type", "v100-32gb")
    status, out = _run(capsys, *words)
    assert status == 1
    assert "none: not even one sample fits" in out
    assert "The largest that fits:" in out
    _, found = _json(capsys, *words)
    assert (found["fits"], found["results"]["batch"]) == (False, 0)
    for clip in found["largest"]:
        again = (f"{clip['width']}x{clip['height']}", "-f", str(clip["frames"]))
        assert _json(capsys, *words[:5], "-r", *again, *words[9:])[0] == 0


def test_a_model_that_leaves_no_room_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    status, out = _run(capsys, "plan", "-t", "1e6", "-n", "1", "-r", "480p", "-f", "8", "-s", "1")
    assert status == 1
    assert "No clip fits" in out


BAD = {
    "-t": ["0", "-1", "nan", "inf", "1e300", "two"],
    "-n": ["0", "-8", "1.5", "nan", "99999999999"],
    "-r": ["0x0", "720", "-1x5", "1e9x2", "8x8", "nan"],
    "-f": ["0", "-5", "2.5", "nan"],
    "--fps": ["0", "-24", "nan", "inf"],
    "-s": ["0", "-10", "nan"],
    "--mfu": ["0", "1.01", "-0.4", "nan"],
    "--gpu-price": ["0", "-2", "nan", "inf", "1e99"],
    "--gpu-type": ["H1000", "V100", ""],
    "--layers": ["0", "-1", "nan"],
    "--patch": ["0", "nan"],
    "--threshold": ["0", "2", "nan"],
    "--tokens-per-parameter": ["0", "nan", "inf"],
    "--bytes-per-parameter": ["0", "-16", "nan"],
    "--samples": ["5"],
}


@pytest.mark.parametrize(("flag", "value"), [(flag, value) for flag, values in BAD.items() for value in values])
def test_bad_values_are_one_sentence(capsys: pytest.CaptureFixture[str], flag: str, value: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([*EXAMPLE, f"{flag}={value}" if flag.startswith("--") else f"{flag}{value}"])
    assert stopped.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert said.err.startswith("preflight: ")


@pytest.mark.parametrize("missing", ["-t", "-n", "-r", "-f"])
def test_what_is_missing_is_named(capsys: pytest.CaptureFixture[str], missing: str) -> None:
    words = {"-t": "40", "-n": "8", "-r": "720p", "-f": "50"}
    with pytest.raises(SystemExit) as stopped:
        main(["plan", *(word for flag, value in words.items() if flag != missing for word in (flag, value))])
    assert stopped.value.code == 2
    assert f"{missing}/--" in capsys.readouterr().err


def test_the_help_needs_no_document(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["plan", "--help"])
    out = capsys.readouterr().out
    assert stopped.value.code == 0
    assert all(word in out for word in ("examples:", "--mfu", "share of the GPU's peak", "WIDTHxHEIGHT"))


HOURS = st.floats(1e-2, 1e6)
COUNTS = st.integers(1, 4096)
CLIPS = st.builds(
    Clip, width=st.integers(16, 4096), height=st.integers(16, 4096), frames=st.integers(1, 500), fps=st.floats(1, 120)
)
PLANS = st.builds(
    Plan,
    wall_hours=HOURS,
    gpus=COUNTS,
    card=st.sampled_from(catalog.gpus()),
    mfu=st.floats(0.01, 1),
    price=st.floats(0.01, 100),
    steps=st.integers(1, 1000),
    clip=CLIPS,
    assumptions=st.just(Assumptions()),
)


@given(flop=st.floats(1e12, 1e28), times=st.floats(1, 1e6), steps=st.integers(1, 1000))
def test_the_optimum_rises_with_the_square_root_of_compute(flop: float, times: float, steps: int) -> None:
    small, large = (chinchilla.optimal_parameters(c, steps) for c in (flop, flop * times))
    assert large == pytest.approx(small * times**0.5)
    assert 6 * small * chinchilla.optimal_patches(small) * steps == pytest.approx(flop)


@given(plan=PLANS)
def test_doubling_the_price_doubles_the_cost_and_nothing_else(plan: Plan) -> None:
    dear = replace(plan, price=2 * plan.price)
    assert dear.cost == pytest.approx(2 * plan.cost)
    assert (dear.parameters, dear.batch, dear.states_bytes, dear.video_hours, dear.fits) == (
        plan.parameters,
        plan.batch,
        plan.states_bytes,
        plan.video_hours,
        plan.fits,
    )


@given(plan=PLANS, more=st.integers(1, 4096))
def test_more_gpus_never_raise_the_states_on_each(plan: Plan, more: int) -> None:
    assert replace(plan, gpus=plan.gpus + more).states_bytes <= plan.states_bytes * (1 + 1e-12)


@given(plan=PLANS)
def test_the_batch_that_is_named_fits_and_one_more_than_the_largest_does_not(plan: Plan) -> None:
    assert plan.batch.samples <= plan.largest_batch
    assert (plan.batch.samples > 0) == plan.fits
    assume(plan.fits)
    total = plan.states_bytes + plan.activation_bytes(plan.largest_batch)
    assert total <= plan.limits.usable
    assert plan.activation_bytes(plan.largest_batch) <= plan.limits.activations
    one_more = plan.activation_bytes(plan.largest_batch + 1)
    assert one_more > plan.limits.activations or one_more + plan.states_bytes > plan.limits.usable


@given(plan=PLANS)
def test_the_clips_that_are_named_fit(plan: Plan) -> None:
    for clip in plan.largest_clips:
        assert replace(plan, clip=clip).fits
        assert clip.width <= plan.clip.width
        assert clip.height <= plan.clip.height
        assert clip.frames <= plan.clip.frames


@given(largest=st.integers(1, 10_000), gpus=COUNTS)
def test_the_batch_is_rounded_as_documented(largest: int, gpus: int) -> None:
    eights = largest // 8 * 8
    documented = eights // gpus * gpus
    assert fit.rounded_batch(largest, gpus).samples == (documented or eights or largest)


@given(hours=HOURS, tflops=st.floats(1, 1e4), mfu=st.floats(0.01, 1), gpus=COUNTS)
def test_time_and_operations_are_inverse(hours: float, tflops: float, mfu: float, gpus: int) -> None:
    flop = chinchilla.budget_flop(cost.gpu_hours(hours, gpus), tflops, mfu)
    assert cost.hours_for(flop, tflops, mfu, gpus) == pytest.approx(hours)


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (counted(616.26e6), "616.3M"),
        (counted(12.33e9), "12.3B"),
        (counted(999), "999"),
        (scientific(7.08e17), "708e15"),
        (scientific(1.08e25), "1.08e25"),
        (scientific(999.9e15), "1e18"),
        (scientific(12), "12"),
        (duration(40), "40.0 h (1.7 days)"),
        (duration(0.5), "30.0 min"),
        (duration(0.001), "3.6 s"),
        (money(640), "$640"),
        (money(1.25), "$1.25"),
    ],
)
def test_numbers_as_a_person_reads_them(shown: str, expected: str) -> None:
    assert shown == expected
