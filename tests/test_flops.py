"""Operations counted on the tape: against torch's own counter on the real networks, and the laws of counting."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preflight import catalog
from preflight.job import Job, job
from preflight.memory.model import build, family
from preflight.memory.step import walk
from preflight.planning.step_flops import step_flops
from preflight.spec import Spec
from preflight.tape.attention import attention
from preflight.tape.backward import backward
from preflight.tape.flops import Flops
from preflight.tape.linear import conv, conv_transpose, linear, matmul
from preflight.tape.loss import mse_loss
from preflight.tape.meter import Meter
from preflight.tape.tensor import Parameter, Tape, Tensor
from tests import truth_rows

TOLERANCE = 0.02
GPU = catalog.gpu("h200-141gb")
TRUTH = {row["id"]: row for row in map(json.loads, (Path(__file__).parent / "truth" / "flops.jsonl").read_text().splitlines())}
ROWS = [
    row for row in truth_rows.rows() if row["id"] in TRUTH and family(catalog.network(truth_rows.spec(row)["model"]["name"]).family)
]


def _job(row: truth_rows.Row, **train: Any) -> Job:
    spec = Spec.from_mapping(truth_rows.spec(row))
    return job(replace(spec, train=replace(spec.train, **train)), GPU)


def _count(work: Job, *, extend: bool = True) -> Flops:
    counter = Flops()
    walk(work, build(work, extend=extend), flops=counter)
    return counter


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["id"])
def test_a_step_counts_what_torch_counts(row: truth_rows.Row) -> None:
    found, truth = _count(_job(row)), TRUTH[row["id"]]
    assert found.forward == pytest.approx(truth["forward"], rel=TOLERANCE)
    assert found.backward + found.recomputed == pytest.approx(truth["backward"], rel=TOLERANCE)


def test_most_rows_are_exact() -> None:
    exact = [row for row in ROWS if _count(_job(row)).total == TRUTH[row["id"]]["forward"] + TRUTH[row["id"]]["backward"]]
    assert len(exact) > 0.9 * len(ROWS)


@pytest.mark.parametrize("row", ROWS[::7], ids=lambda row: row["id"])
def test_a_block_that_stands_for_others_counts_for_them(row: truth_rows.Row) -> None:
    assert _count(_job(row)).total == _count(_job(row), extend=False).total


@pytest.mark.parametrize("row", ROWS[::7], ids=lambda row: row["id"])
def test_checkpoints_only_add_what_they_run_again(row: truth_rows.Row) -> None:
    without, all_ = _count(_job(row, checkpointing=False)), _count(_job(row, checkpointing=True))
    assert (without.forward, without.backward, without.recomputed) == (all_.forward, all_.backward, 0)
    assert 0 <= all_.recomputed <= all_.forward


@pytest.mark.parametrize("row", ROWS[::9], ids=lambda row: row["id"])
def test_accumulation_repeats_the_step(row: truth_rows.Row) -> None:
    one, four = _job(row), _job(row, accumulation=4)
    assert step_flops(four, build(four)).total == 4 * step_flops(one, build(one)).total


def test_encoders_count_where_they_run_in_every_step() -> None:
    row = next(row for row in ROWS if row["model"] == "wan2.1-t2v-1.3b")
    cached = _job(row)
    online = replace(cached, spec=replace(cached.spec, data=replace(cached.spec.data, latents="online", text="online")))
    found = step_flops(online, build(online))
    assert step_flops(cached, build(cached)).encoders == 0
    assert found.encoders > 0
    assert found.uncounted == ()


def test_one_walk_counts_many_shapes() -> None:
    row = next(row for row in ROWS if row["id"] == "net-000")
    work, counter = _job(row), Flops()
    batches = np.array([1, 2, 5])
    walk(work, build(work), replace(work.shape, batch=batches), flops=counter)
    for batch, total in zip(batches, np.broadcast_to(counter.total, batches.shape), strict=True):
        one = Flops()
        walk(work, build(work), replace(work.shape, batch=int(batch)), flops=one)
        assert total == pytest.approx(float(one.total), rel=1e-12)


def _tape() -> tuple[Tape, Flops]:
    tape, counter = Tape(Meter()), Flops()
    tape.flops = counter
    tape.meter.part("forward")
    return tape, counter


def _weight(tape: Tape, *shape: int, trains: bool = True) -> Parameter:
    made = Parameter(shape)
    made.tape, made.requires_grad = tape, trains
    return made


def _finish(out: Tensor) -> None:
    backward(mse_loss(out, out.tape.empty(out.shape, "fp32")))


SIZES = st.integers(1, 9)


@given(batch=SIZES, tokens=SIZES, inputs=SIZES, outputs=SIZES, trains=st.booleans())
def test_a_linear_layer_by_hand(batch: int, tokens: int, inputs: int, outputs: int, trains: bool) -> None:
    tape, counter = _tape()
    x = _weight(tape, batch, tokens, inputs)
    _finish(linear(x, _weight(tape, outputs, inputs, trains=trains)))
    product = 2 * batch * tokens * inputs * outputs
    assert (counter.forward, counter.backward) == (product, product * (2 if trains else 1))


@given(n=SIZES, k=SIZES, m=SIZES, heads=SIZES)
def test_a_batched_product_by_hand(n: int, k: int, m: int, heads: int) -> None:
    tape, counter = _tape()
    _finish(matmul(_weight(tape, heads, n, k), _weight(tape, heads, k, m)))
    assert (counter.forward, counter.backward) == (2 * heads * n * k * m, 4 * heads * n * k * m)


@given(batch=SIZES, inputs=SIZES, outputs=SIZES, size=st.integers(3, 9), stride=st.integers(1, 3))
def test_convolutions_by_hand(batch: int, inputs: int, outputs: int, size: int, stride: int) -> None:
    tape, counter = _tape()
    out = conv(_weight(tape, batch, inputs, size, size), _weight(tape, outputs, inputs, 3, 3), stride=stride, padding=1)
    one = 2 * batch * inputs * outputs * 9 * out.shape[2] * out.shape[3]
    assert counter.forward == one
    _finish(out)
    assert counter.backward == 2 * one
    tape, counter = _tape()
    _finish(conv_transpose(_weight(tape, batch, inputs, size, size), _weight(tape, inputs, outputs, 2, 2), stride=2))
    one = 2 * batch * inputs * outputs * 4 * size * size
    assert (counter.forward, counter.backward) == (one, 2 * one)


@given(batch=SIZES, heads=SIZES, queries=SIZES, keys=SIZES, width=SIZES)
def test_attention_by_hand(batch: int, heads: int, queries: int, keys: int, width: int) -> None:
    pair = 2 * batch * heads * queries * keys * width
    for kernel, back in (("flash", 5), ("efficient", 5), ("math", 4)):
        tape, counter = _tape()
        tape.attention = kernel  # type: ignore[assignment]  # one of the three
        q = _weight(tape, batch, heads, queries, width)
        _finish(attention(q, _weight(tape, batch, heads, keys, width), _weight(tape, batch, heads, keys, width)))
        assert (counter.forward, counter.backward) == (2 * pair, back * pair), kernel


@settings(deadline=None)
@given(batch=st.integers(1, 8))
def test_operations_grow_with_the_batch(batch: int) -> None:
    row = next(row for row in ROWS if row["id"] == "net-054")
    assert _count(_job(row, batch=batch + 1)).total > _count(_job(row, batch=batch)).total


def test_without_a_counter_nothing_is_counted() -> None:
    tape = Tape(Meter())
    tape.meter.part("forward")
    _finish(linear(_weight(tape, 2, 3), _weight(tape, 4, 3)))
    assert tape.flops is None
