"""What each strategy leaves on a rank: the arithmetic written out, and laws over random runs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preflight import catalog
from preflight.job import Job, job
from preflight.memory.budget import Budget, budget
from preflight.memory.model import Model, build
from preflight.memory.optimizer import optimizer
from preflight.memory.phases import phases
from preflight.memory.rank import Rank
from preflight.memory.sharding import STRATEGIES, during_step, rank
from preflight.memory.step import Step, walk
from preflight.memory.zero import DEFAULTS, Settings
from preflight.memory.zero import during_step as reduced
from preflight.spec import Spec
from preflight.tape.backward import backward
from preflight.tape.meter import Meter, Segment, rounded
from preflight.tape.reducing import Moment, filled
from preflight.tape.tensor import Tape
from tests.test_laws_memory import specs

GPU = catalog.gpu("a100-80gb")
P = 1_418_996_800  # parameters of Wan 2.1 1.3B, as traced
ZERO = ("zero1", "zero2", "zero3")


def _spec(strategy: str, gpus: int, weights: str = "bf16", **more: Any) -> Spec:
    return Spec.from_mapping({
        "model": {"name": "wan2.1-t2v-1.3b"},
        "train": {"method": "full", "checkpointing": True, **more.pop("train", {})},
        "data": {"height": 480, "width": 832, "frames": 17},
        "precision": {"weights": weights, **more.pop("precision", {})},
        "parallel": {"gpus": gpus, "strategy": strategy, **more.pop("parallel", {})},
        **more,
    })  # fmt: skip


def _made(spec: Spec) -> tuple[Job, Model, Rank]:
    work = job(spec, GPU)
    model = build(work)
    return work, model, rank(work, model)


def _budget(spec: Spec) -> Budget:
    work = job(spec, GPU)
    return budget(work, build(work))


def _states(spec: Spec) -> int:
    """Weights, gradients as the step leaves them, masters and optimizer states; communication buffers apart."""
    work, model, share = _made(spec)
    states = optimizer(work, share)
    gradients = share.buffers - _bucket(work) if spec.parallel.strategy == "zero3" else walk(work, model).left
    return int(share.trained + share.frozen + states.states + states.master + gradients)


def _bucket(work: Job) -> int:
    return DEFAULTS.reduce_bucket_size * {"fp32": 4}.get(work.spec.precision.weights, 2)


def test_stages_one_and_two_by_hand() -> None:
    for strategy in ("zero1", "zero2"):
        work, _, share = _made(_spec(strategy, 8))
        part = P // 8  # divides by 8 x 2, so nothing is padded
        assert P % 16 == 0
        assert share.trained == rounded(2 * P)
        assert [p.numel for p in share.trainable] == [part]
        states = optimizer(work, share)
        assert (states.states, states.master) == (rounded(4 * part) * 2, rounded(4 * part))
        assert states.update == rounded(2 * part) + rounded(4 * part)  # flattened in bfloat16, cast to float32
        assert share.buffers == share.gathered == 0


def test_stage_three_by_hand() -> None:
    work, model, share = _made(_spec("zero3", 8))
    part = sum(-(-p.numel // 8) * p.copies for p in model.parameters)  # each parameter is padded for itself
    assert share.trained == rounded(2 * part)
    assert share.buffers == 2 * 500_000_000 + rounded(2 * part)
    states = optimizer(work, share)
    assert (states.states, states.master) == (rounded(4 * part) * 2, rounded(4 * part))
    small = sum(p.nbytes * p.copies for p in model.parameters if p.numel <= 100_000)
    assert share.frozen == small + model.buffer_bytes
    # 5e7 elements further are fetched at every module until 1e9 are there; the last of them are copied from one buffer
    expected = 2 * (1_000_000_000 + 50_000_000)
    assert share.gathered == pytest.approx(expected, rel=0.001)


@pytest.mark.parametrize("gpus", [2, 8, 64])
def test_deepspeeds_own_estimates_of_model_states(gpus: int) -> None:
    """Stage 2 is 2 P + 18 P / N bytes: 18 is gradients in 16 and 32 bits, float32 weights, two states (stage_1_and_2.py).

    Stage 3 is given as 18 P / N (stage3.py), which leaves out the 2 of the 16-bit weights or of the gradients.
    """
    for strategy, estimate in (("zero2", 2 * P + 18 * P / gpus), ("zero3", 18 * P / gpus + 2 * P / gpus)):
        work, _, share = _made(_spec(strategy, gpus))
        states = optimizer(work, share)
        part = sum(p.numel for p in share.trainable)
        assert share.trained + states.states + states.master + (2 + 4) * part == pytest.approx(estimate, rel=1e-4)


def test_a_stage_two_step_has_its_bucket_and_one_copy_of_it_beside_the_activations() -> None:
    """P is more than a bucket, so buckets are reduced during the backward pass."""
    plain, reducing = (_step(_spec(strategy, 8)) for strategy in ("none", "zero2"))
    part = P // 8
    largest = 1536 * 6 * 1536  # condition_embedder.time_proj
    assert reducing.left == rounded(2 * (part + largest))
    assert reducing.backward.peak > 2 * 500_000_000 + reducing.left
    assert reducing.forward.peak == plain.forward.peak
    work, model, _ = _made(_spec("zero2", 8))
    doubled = _gradients(work, model, Settings(overlap_comm=True)) - _gradients(work, model, Settings())
    assert doubled == 2 * 500_000_000


def _gradients(work: Job, model: Model, settings: Settings) -> int:
    """Bytes that reducing holds as the backward pass begins."""
    meter = Meter()
    tape = Tape(meter)
    tape.parallel = reduced(work, model, tape, settings)
    tape.parallel.begin()
    return int(meter.live)


def test_a_bucket_is_reduced_when_a_gradient_has_no_room_in_it() -> None:
    """8 and 4 blocks of 3 + 2 elements, of which 12 go into a bucket; each block leaves 7 bytes less."""
    last, middle, first = Segment(), Segment(8), Segment()
    moments = [
        Moment(segment, live, n) for segment, at in ((last, 107), (middle, 100), (first, 44)) for live, n in ((at, 3), (at - 1, 2))
    ]
    every = [(100 + 7 - 7 * block - second, n) for block in range(10) for second, n in ((0, 3), (1, 2))]
    held, expected = 0, []
    for live, elements in every:
        if held + elements > 12:
            expected.append((held, live))
            held = 0
        held += elements
    assert list(filled(moments, 12)) == [*expected, (held, every[-1][0])]
    assert list(filled(moments[:2], 1)) == [(3, 107), (2, 106), (0, 106)]  # each by itself


def test_stage_one_keeps_all_gradients_until_the_backward_pass_is_over() -> None:
    one, two = _step(_spec("zero1", 8)), _step(_spec("zero2", 8))
    assert one.left == two.left
    assert one.backward.gradients_at_peak > two.backward.gradients_at_peak


def _step(spec: Spec) -> Step:
    work = job(spec, GPU)
    return walk(work, build(work))


@pytest.mark.parametrize(("strategy", "moved"), [("zero1", 12), ("zero2", 12), ("zero3", 14)])
def test_an_offloaded_optimizer_takes_masters_states_and_gradients_along(strategy: str, moved: int) -> None:
    here, there = _spec(strategy, 8), _spec(strategy, 8, offload={"optimizer": True})
    saved = _budget(here).resident.total - _budget(there).resident.total
    temporary = 0 if strategy == "zero3" else 2 * 1536 * 6 * 1536  # the largest parameter's gradient on its way
    assert saved == pytest.approx(moved * P / 8 - temporary, rel=0.001)
    assert _step(there).left == 0


def test_distributed_data_parallel_has_its_gradients_twice() -> None:
    found, alone = _budget(_spec("ddp", 8)), _budget(_spec("none", 1))
    assert found.resident.buckets == rounded(2 * P)
    assert found.allocated - alone.allocated == found.resident.buckets
    assert _budget(_spec("ddp", 1)).resident.buckets == 0


def test_the_first_gpu_of_data_parallel_sums_into_new_gradients() -> None:
    one, four = _step(_spec("dp", 1)), _step(_spec("dp", 4))
    assert (one.left, one.forward.peak) == (_step(_spec("none", 1)).left, _step(_spec("none", 1)).forward.peak)
    assert four.left == one.left
    assert four.backward.peak >= 2 * four.left  # the replica's own and the sum
    # outputs, targets and float32 casts of 3 more replicas: 16 channels x 5 x 60 x 104 elements of 2, 4 and 4 bytes
    assert four.forward.end - one.forward.end == pytest.approx(16 * 5 * 60 * 104 * ((3 + 1) * 2 - 2 + 3 * 8), rel=0.3)


def test_fully_sharded_by_hand() -> None:
    """Rows are divided: 8960 rows between 7 GPUs are 1280 each, 1536 are 220, the last rank's fewer."""
    work, model, share = _made(_spec("fsdp", 7))
    names = dict(model.network.parameters())
    shards = {id(p): s for p, s in zip(model.parameters, share.trainable, strict=True)}
    up = names["blocks.0.ffn.net.0.proj.weight"]
    assert shards[id(up)].shape == (1280, 1536)
    down = names["blocks.0.ffn.net.2.weight"]
    assert shards[id(down)].shape == (220, 8960)
    states = optimizer(work, share)
    assert states.states == 2 * share.trained


def test_what_fully_sharded_gathers() -> None:
    """Freed or not after the forward pass: the blocks and the root stay whole, a rank's all-gather buffer comes and goes."""
    freed, kept = (_step(_spec("fsdp", 4, parallel={"reshard": reshard})) for reshard in (True, False))
    assert kept.forward.end - freed.forward.end == pytest.approx(2 * P, rel=0.001)
    half, full = (_step(_spec("fsdp", 4, "fp32", parallel={"compute": dtype, "reshard": False})) for dtype in ("bf16", None))
    assert full.forward.end > half.forward.end + 2 * P * 0.99


def test_fully_sharded_in_host_memory_keeps_nothing_between_steps() -> None:
    found = _budget(_spec("fsdp", 4, offload={"parameters": True}))
    assert found.resident.total == 2 * 1024 * 128 * 4  # the rotary tables are no parameters
    assert _step(_spec("fsdp", 4, offload={"parameters": True})).left == 0


@pytest.mark.parametrize("strategy", ["zero1", "zero2", "zero3", "fsdp", "ddp", "none"])
def test_states_do_not_grow_with_the_gpus(strategy: str) -> None:
    sizes = [
        _states(_spec(strategy, gpus, precision={} if strategy == "fsdp" else {"master": "fp32"})) for gpus in (1, 2, 4, 8, 64)
    ]
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("gpus", [2, 3, 8, 64])
def test_each_stage_keeps_no_more_than_the_one_before(gpus: int) -> None:
    sizes = [_states(_spec(strategy, gpus, precision={"master": "fp32"})) for strategy in ("zero3", "zero2", "zero1", "ddp")]
    assert sizes == sorted(sizes)


@pytest.mark.parametrize("strategy", [*ZERO, "fsdp", "ddp", "dp"])
def test_alone_every_strategy_has_what_none_has(strategy: str) -> None:
    precision = {} if strategy in ("fsdp", "ddp", "dp") else {"master": "fp32"}
    alone, shared = (_states(_spec(name, 1, precision=precision)) for name in ("none", strategy))
    assert shared == pytest.approx(alone, rel=1e-4)  # flat buffers are rounded once, tensors each


PARALLEL = st.one_of(
    st.builds(
        lambda gpus, reshard, wrap, types: {"gpus": gpus, "strategy": "fsdp", "reshard": reshard, "wrap": wrap, **types},
        st.sampled_from([1, 2, 3, 8]),
        st.booleans(),
        st.sampled_from(["blocks", "whole"]),
        st.sampled_from([{}, {"compute": "bf16"}, {"compute": "bf16", "reduce": "fp32"}, {"reduce": "fp32"}]),
    ),
    st.builds(lambda gpus, name: {"gpus": gpus, "strategy": name}, st.sampled_from([1, 2, 8]), st.sampled_from(sorted(STRATEGIES))),
)


@st.composite
def shared(draw: st.DrawFn) -> Spec:
    spec: Spec = draw(specs())
    data = {**spec.to_mapping(), "parallel": draw(PARALLEL)}
    data["offload"] = {"parameters": draw(st.booleans()) and data["parallel"]["strategy"] == "fsdp"}
    return Spec.from_mapping(data)


@given(shared())
@settings(max_examples=60, deadline=None)
def test_three_blocks_extended_are_all_blocks_walked(spec: Spec) -> None:
    work = job(spec, GPU)
    extended, walked = (walk(work, build(work, extend=extend)) for extend in (True, False))
    for mine, theirs in ((extended.forward, walked.forward), (extended.backward, walked.backward)):
        assert (mine.peak, mine.gradients_at_peak, mine.end) == (theirs.peak, theirs.gradients_at_peak, theirs.end)
    assert extended.left == walked.left


@given(shared())
@settings(max_examples=60, deadline=None)
def test_nothing_of_a_step_stays_behind(spec: Spec) -> None:
    work = job(spec, GPU)
    model = build(work)
    dtypes = [p.dtype for p in model.parameters]
    tape = Tape(Meter())
    tape.parallel = during_step(work, model, tape)
    model.network.bind(tape)
    with tape.parallel.computing():
        with tape.autocasting(spec.precision.autocast):
            loss = model.network.loss(tape, work.shape, spec.precision.autocast or spec.precision.weights)
        backward(loss)
    del loss
    assert tape.meter.live == tape.meter.gradients
    tape.parallel.drop_gradients(model.trainable)
    assert (tape.meter.live, tape.meter.gradients) == (0, 0)
    assert [p.dtype for p in model.parameters] == dtypes


@given(shared(), st.lists(st.tuples(st.integers(1, 3), st.integers(1, 4)), min_size=1, max_size=3))
@settings(max_examples=30, deadline=None)
def test_arrays_equal_scalars(spec: Spec, shapes: list[tuple[int, int]]) -> None:
    work = job(spec, GPU)
    model = build(work)
    batch, height = (np.array(column, dtype=np.int64) for column in zip(*shapes, strict=True))
    together = budget(work, model, replace(work.shape, batch=batch, height=height * 64))
    alone = [budget(work, model, replace(work.shape, batch=b, height=h * 64)) for b, h in shapes]
    assert np.broadcast_to(together.allocated, batch.shape).tolist() == [each.allocated for each in alone]


def _phase(name: str, spec: Spec) -> int:
    """Bytes of weights that a phase has beside those that stay."""
    work, model, _ = _made(spec)
    (found,) = (phase.peak for phase in phases(work, model, budget(work, model)) if phase.name == name)
    assert found is not None
    return int(found.weights)


def test_weights_arrive_whole_where_nobody_divides_them_before() -> None:
    _, model, share = _made(_spec("zero3", 8))
    assert _phase("load", _spec("zero3", 8)) == model.trainable_bytes + model.buffer_bytes - share.trained - share.frozen
    largest = 2 * 6 * 1536 * 1536  # condition_embedder.time_proj
    assert _phase("load", _spec("zero3", 8, parallel={"loading": "sharded"})) == largest
    assert _phase("load", _spec("fsdp", 8)) == model.block_bytes
    for strategy in ("none", "ddp", "zero1", "zero2"):
        assert _phase("load", _spec(strategy, 8)) == 0  # they stay whole


def test_weights_are_gathered_to_be_saved() -> None:
    saved: dict[str, Any] = {"save": {"every": 100}}
    _, model, _ = _made(_spec("fsdp", 8))
    assert _phase("save", _spec("fsdp", 8, **saved)) == model.block_bytes
    assert _phase("save", _spec("zero3", 8, **saved)) == 2 * 6 * 1536 * 1536
    assert _phase("save", _spec("zero2", 8, **saved)) == 0


def test_settings_of_the_config_take_the_place_of_deepspeeds_own() -> None:
    told = {"reduce_bucket_size": 200_000_000, "overlap_comm": False, "param_persistence_threshold": 9_000_000_000}
    _, model, whole = _made(_spec("zero3", 8, parallel={"zero": told}))
    _, _, usual = _made(_spec("zero3", 8))
    assert usual.buffers - whole.buffers == 2 * (500_000_000 - 200_000_000)
    assert whole.frozen == model.trainable_bytes + model.buffer_bytes  # nothing is above the threshold, so nothing is given up
    assert whole.gathered == 0
    small, large = (_step(_spec("zero2", 8, parallel={"zero": {"reduce_bucket_size": n}})) for n in (10**8, 4 * 10**8))
    assert 2 * 3 * 10**8 <= large.backward.peak - small.backward.peak <= 2 * 2 * 3 * 10**8  # the bucket, and its copy for a moment


def test_a_hybrid_shard_is_that_of_its_group() -> None:
    group, hybrid, full = (
        _budget(_spec("fsdp", gpus, parallel={"shard": shard})) for gpus, shard in ((4, None), (16, 4), (16, None))
    )
    assert hybrid.resident == group.resident
    assert hybrid.allocated == group.allocated
    assert full.resident.network < hybrid.resident.network


@pytest.mark.parametrize("sequence", [2, 4])
def test_a_sequence_group_divides_tokens_but_not_weights(sequence: int) -> None:
    lora = {"method": "lora", "lora": {"rank": 16}}
    alone, shared = (_budget(_spec("ddp", 4, train=lora, parallel={"sequence": n})) for n in (1, sequence))
    assert (shared.resident.network, shared.resident.adapters) == (alone.resident.network, alone.resident.adapters)
    assert alone.activations / sequence <= shared.activations < alone.activations
    assert shared.activations == pytest.approx(alone.activations / sequence, rel=0.1)
