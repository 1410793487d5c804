"""Rows that a trainer makes of each sample: those that train, those that are only looked at, and passes whose gradients add up."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from preflight import catalog
from preflight.job import Job, job
from preflight.memory.model import build
from preflight.memory.step import infer, walk
from preflight.planning.step_flops import step_flops
from preflight.spec import Spec

GPU = catalog.gpu("a100-80gb")


def _job(**train: Any) -> Job:
    lora = {"rank": 8, "targets": ["to_q", "to_k", "to_v", "to_out.0"]}
    spec = {
        "preflight": 1,
        "model": {"name": "sd1.5"},
        "train": {"method": "lora", "lora": lora, "checkpointing": True, **train},
        "data": {"height": 256, "width": 256},
    }
    return job(Spec.from_mapping(spec), GPU)


@settings(max_examples=5, deadline=None)
@given(rows=st.integers(1, 4), batch=st.integers(1, 3))
def test_rows_of_a_sample_are_a_larger_batch(rows: int, batch: int) -> None:
    several, plain = _job(rows=rows, batch=batch), _job(batch=rows * batch)
    assert walk(several, build(several)).backward == walk(plain, build(plain)).backward


def test_rows_that_are_looked_at_pass_before_and_leave_nothing() -> None:
    plain, looking = _job(rows=2), _job(rows=2, ahead=4)
    before, after = walk(plain, build(plain)), walk(looking, build(looking))
    assert after.backward == before.backward
    assert after.forward.end == before.forward.end
    assert after.forward.peak >= before.forward.peak


def test_many_rows_that_are_looked_at_are_the_peak_of_the_network_without_adapters() -> None:
    looking = _job(ahead=64)
    model = build(looking)
    peak = walk(looking, model).forward.peak
    whole = job(replace(looking.spec, train=replace(looking.spec.train, method="full", lora=None, ahead=0)), GPU)
    assert peak == infer(whole, build(whole), replace(whole.shape, batch=64))
    assert peak <= infer(looking, model, replace(looking.shape, batch=64))


def test_a_walk_gives_the_adapters_back() -> None:
    looking = _job(ahead=2)
    model = build(looking)
    names = [name for name, _ in model.network.parameters()]
    walk(looking, model)
    assert [name for name, _ in model.network.parameters()] == names


def test_a_second_pass_finds_the_first_ones_gradients() -> None:
    once, twice = _job(), _job(passes=2)
    one, two = walk(once, build(once)), walk(twice, build(twice))
    assert two.forward.end == one.forward.end + one.left
    assert two.left == one.left


def test_operations_count_each_row_once_and_each_pass() -> None:
    plain, slider = _job(), _job(rows=2, ahead=4, passes=2)
    once, all_ = step_flops(plain, build(plain)), step_flops(slider, build(slider))
    assert all_.backward == 4 * once.backward
    assert 7.9 * once.forward < all_.forward <= 8 * once.forward
