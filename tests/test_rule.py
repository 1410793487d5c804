"""The 70 % rule by hand: the formula exactly, and suggestions that pass."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preflight.rule import (
    Rule,
    Shape,
    accumulation,
    bytes_of,
    largest_batch,
    largest_sides,
    layer_bytes,
    render,
    total_bytes,
)
from preflight.units import GIB

DOCUMENTED = Shape(batch=16, height=256, width=256, hidden_dim=512, num_layers=10)

sizes = st.integers(1, 4096)
shapes = st.builds(Shape, batch=sizes, height=sizes, width=sizes, hidden_dim=sizes, num_layers=st.integers(1, 64), seq_len=sizes)
rules = st.builds(
    Rule,
    shape=shapes,
    capacity_bytes=st.integers(1, 512 * GIB).map(Fraction),
    threshold=st.floats(0.01, 1, allow_nan=False),
)


def on(shape: Shape, gib: float, threshold: float = 0.7) -> Rule:
    return Rule(shape=shape, capacity_bytes=bytes_of(gib), threshold=threshold)


def test_the_formula_multiplies_what_the_guide_multiplies() -> None:
    assert layer_bytes(DOCUMENTED) == 16 * 1 * 256 * 256 * 512 * 4 == 2 * GIB
    assert total_bytes(DOCUMENTED) == 20 * GIB
    assert not on(DOCUMENTED, 24).passes
    assert on(replace(DOCUMENTED, batch=8, height=128, width=128, hidden_dim=256), 24).passes


def test_the_documented_example_suggests_a_batch_and_sides_that_pass() -> None:
    rule = on(DOCUMENTED, 24)
    assert largest_batch(rule) == 13
    assert largest_sides(rule) == (234, 234)  # 256 * sqrt(16.8 / 20) = 234.6


def test_exactly_the_limit_does_not_pass() -> None:
    shape = Shape(batch=7, height=1024, width=1024, hidden_dim=256, num_layers=1)  # 7 GiB of 10: exactly 70 %
    assert total_bytes(shape) == on(shape, 10).limit_bytes
    assert not on(shape, 10).passes
    assert largest_batch(on(shape, 10)) == 6
    assert largest_sides(on(shape, 10)) == (1023, 1023)


@given(rule=rules)
def test_the_suggested_batch_passes_and_is_the_largest_that_does(rule: Rule) -> None:
    batch = largest_batch(rule)
    if batch is None:
        assert not replace(rule, shape=replace(rule.shape, batch=1)).passes
        return
    assert replace(rule, shape=replace(rule.shape, batch=batch)).passes
    assert not replace(rule, shape=replace(rule.shape, batch=batch + 1)).passes


@given(rule=rules)
def test_the_suggested_sides_pass_and_both_larger_by_one_do_not(rule: Rule) -> None:
    sides = largest_sides(rule)
    if sides is None:
        return
    height, width = sides
    assert replace(rule, shape=replace(rule.shape, height=height, width=width)).passes
    assert not replace(rule, shape=replace(rule.shape, height=height + 2, width=width + 2)).passes


@given(rule=rules)
def test_a_suggestion_for_what_does_not_pass_is_smaller_than_what_was_asked(rule: Rule) -> None:
    if rule.passes:
        return
    batch, sides = largest_batch(rule), largest_sides(rule)
    assert batch is None or batch < rule.shape.batch
    assert sides is None or (sides[0] <= rule.shape.height and sides[1] <= rule.shape.width)
    assert render(rule).startswith("does not fit: ")


@given(rule=rules, name=st.sampled_from(["batch", "height", "width", "hidden_dim", "num_layers", "seq_len"]))
def test_more_of_anything_never_needs_less(rule: Rule, name: str) -> None:
    more = replace(rule.shape, **{name: getattr(rule.shape, name) + 1})
    assert total_bytes(more) > total_bytes(rule.shape)
    assert rule.passes or not replace(rule, shape=more).passes


@given(batch=sizes, largest=sizes)
def test_accumulated_parts_are_equal_and_small_enough(batch: int, largest: int) -> None:
    steps = accumulation(batch, largest)
    assert batch % steps == 0
    assert batch // steps <= largest


def preflight_rule(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "preflight", "rule", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, encoding="utf-8")


def words(*extra: str, **changes: str) -> list[str]:
    given = {"batch": "16", "height": "256", "width": "256", "hidden-dim": "512", "num-layers": "10"} | changes
    flags = [word for name, value in given.items() for word in (f"--{name}", value)]
    return flags + list(extra or ("--gpu-memory", "24"))


def test_what_does_not_pass_exits_with_1_and_says_what_would() -> None:
    done = preflight_rule(*words())
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.splitlines() == [
        "does not fit: activations 20.00 GiB, must stay below 16.80 GiB (70 % of 24.00 GiB)",
        "  one layer  2.00 GiB = 16 × 1 × 256 × 256 × 512 × 4 bytes",
        "  10 layers  20.00 GiB",
        "what passes:",
        "  batch 16 → 13 (8 accumulated over 2 steps is an effective 16)",
        "  height × width 256 × 256 → 234 × 234",
    ]


def test_what_passes_exits_with_0_with_underscores_too() -> None:
    flags = ["--batch", "8", "--height", "128", "--width", "128", "--hidden_dim", "256", "--num_layers", "10"]
    done = preflight_rule(*flags, "--gpu_memory", "24")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("fits: activations 1.25 GiB, must stay below 16.80 GiB")


def test_a_gpu_by_name_brings_the_memory_torch_reports() -> None:
    done = preflight_rule(*words("--gpu", "v100-32gb"))
    assert done.returncode == 0, done.stderr
    assert "(70 % of 31." in done.stdout  # not the 32 on the box


def test_a_batch_of_1_that_does_not_pass_is_said() -> None:
    rule = on(replace(DOCUMENTED, height=4096, width=4096), 1)
    assert largest_batch(rule) is None
    assert "even a batch of 1 does not pass" in render(rule)


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "nan", "inf", "x", "", "9" * 30, "9" * 5000])
@pytest.mark.parametrize("flag", ["batch", "hidden-dim"])
def test_a_size_that_is_none_is_a_wrong_command_line(flag: str, value: str) -> None:
    done = preflight_rule(*words(**{flag: value}))
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert f"--{flag}" in done.stderr


@pytest.mark.parametrize(
    "extra",
    [
        ["--gpu-memory", "0"],
        ["--gpu-memory", "nan"],
        ["--gpu-memory", "-24"],
        ["--gpu-memory", "1e99"],
        ["--gpu", "v100-33gb"],
        ["--gpu-memory", "24", "--gpu", "v100-32gb"],
        ["--gpu-memory", "24", "--threshold", "0"],
        ["--gpu-memory", "24", "--threshold", "1.1"],
        ["--gpu-memory", "24", "--sequence", "3"],
        ["--seq-len", "2"],
    ],
)
def test_a_wrong_flag_is_one_sentence_and_2(extra: list[str]) -> None:
    done = preflight_rule(*words(*extra))
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
