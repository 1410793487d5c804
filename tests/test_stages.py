"""Pipeline stages and two experts: the arithmetic written out, and laws over random cuts."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preflight import catalog
from preflight.finding import ConfigError
from preflight.job import Job, job
from preflight.memory.budget import Budget, budget
from preflight.memory.host import host
from preflight.memory.model import build
from preflight.memory.pipeline import busiest
from preflight.memory.stages import Stage, balanced, stages, uniform
from preflight.memory.step import walk
from preflight.spec import Spec
from preflight.tape.flat import flat_numel, flattened

GPU = catalog.gpu("a100-80gb")
LORA: dict[str, Any] = {"method": "lora", "lora": {"rank": 16}, "checkpointing": True}
SMALL, LARGE = "wan2.1-t2v-1.3b", "wan2.2-t2v-a14b"


def _job(name: str = SMALL, *, train: dict[str, Any] | None = None, experts: str = "one", **parallel: Any) -> Job:
    spec = {
        "model": {"name": name, "experts": experts},
        "train": train or {"method": "full", "checkpointing": True, "accumulation": 8},
        "data": {"height": 480, "width": 832, "frames": 17},
        "parallel": parallel,
    }
    return job(Spec.from_mapping(spec), GPU)


def _cut(work: Job) -> list[Stage]:
    return list(stages(work, build(work, extend=False).network))


def _budget(work: Job) -> Budget:
    return budget(work, busiest(work))


def test_layers_are_divided_evenly_with_what_stands_around_the_blocks_as_the_first_and_the_last() -> None:
    found = _cut(_job(gpus=4, pipeline=4, partition="uniform"))
    assert [(stage.start, stage.stop) for stage in found] == [(0, 8), (8, 16), (16, 24), (24, 32)]  # 30 blocks and two
    assert [stage.in_flight for stage in found] == [4, 3, 2, 1]
    assert [stage.neighbours for stage in found] == [1, 2, 2, 1]


def test_every_parameter_is_on_one_stage() -> None:
    work = _job(gpus=3, pipeline=3)
    whole = build(work)
    parts = [build(work, stage=stage) for stage in _cut(work)]
    assert sum(part.parameter_count for part in parts) == whole.parameter_count
    assert all(part.trainable_count == part.parameter_count for part in parts)


def test_a_stage_holds_what_the_passes_in_flight_saved() -> None:
    """Checkpointed, a pass leaves one hidden state a block: 7,800 tokens of 1,536 numbers in 16 bits.

    Beside them what is exchanged, the embedded tokens, and the last layer's norm in 32 bits, which is walked through as well.
    """
    hidden = 5 * 30 * 52 * 1536 * 2
    work, fewer = (
        _job(train={"method": "full", "checkpointing": True, "accumulation": n}, gpus=2, pipeline=2, partition="uniform")
        for n in (2, 1)
    )
    first, alone = (build(each, stage=next(iter(_cut(each)))) for each in (work, fewer))
    assert first.stage is not None
    assert first.stage.in_flight == 2
    more = walk(work, first).forward.end - walk(fewer, alone).forward.end
    gradients = first.trainable_bytes  # those of the micro-batch before stay
    assert 15 * hidden < more - gradients < (15 + 2 + 1 + 4) * hidden


def test_the_busiest_stage_needs_less_than_the_whole() -> None:
    whole, half, quarter = (_budget(_job(gpus=n, pipeline=n)) for n in (1, 2, 4))
    assert quarter.resident.total < half.resident.total < whole.resident.total
    assert half.resident.total == pytest.approx(whole.resident.total / 2, rel=0.05)


def test_a_cut_that_cannot_be_is_refused_at_its_key() -> None:
    for more in ({"pipeline": 64, "gpus": 64}, {"pipeline": 2, "gpus": 2, "partition": [5, 9]}):
        with pytest.raises(ConfigError) as refused:
            _cut(_job(**more))
        assert refused.value.findings[0].key in ("parallel.pipeline", "parallel.partition")


@given(st.lists(st.integers(1, 50), min_size=2, max_size=10), st.integers(1, 5))
def test_a_balanced_cut_gives_every_stage_a_layer(weights: list[int], parts: int) -> None:
    parts = min(parts, len(weights))
    for bounds in (balanced(weights, parts), uniform(len(weights), parts)):
        assert (bounds[0], bounds[-1], len(bounds)) == (0, len(weights), parts + 1)
        assert all(a < b for a, b in pairwise(bounds))


def test_both_experts_take_twice_the_weights_and_a_swapped_one_takes_the_hosts() -> None:
    one, both, swapped = (_budget(_job(LARGE, train=LORA, experts=where)) for where in ("one", "both", "swapped"))
    assert both.resident.network == 2 * one.resident.network
    assert swapped.resident.network == one.resident.network
    # each expert has adapters and states of its own, wherever its weights are
    assert both.resident.adapters == swapped.resident.adapters == 2 * one.resident.adapters
    assert both.resident.optimizer == swapped.resident.optimizer == 2 * one.resident.optimizer


def test_the_idle_expert_is_in_the_hosts_memory() -> None:
    parts = {}
    for where in ("one", "both", "swapped"):
        work = _job(LARGE, train=LORA, experts=where)
        model = build(work)
        parts[where] = {part.name: part.nbytes for part in host(work, model, budget(work, model)).phases["step"]}
    assert "the idle expert" not in parts["one"] | parts["both"]
    assert parts["swapped"]["the idle expert"] == _budget(_job(LARGE, train=LORA)).resident.network


def test_one_adapter_for_both_experts_has_its_states_once() -> None:
    shared = {**LORA, "lora": {"rank": 16, "shared": True}}
    one, both = (_budget(_job(LARGE, train=train, experts="both")) for train in (shared, LORA))
    assert (2 * one.resident.adapters, 2 * one.resident.optimizer) == (both.resident.adapters, both.resident.optimizer)


def test_flat_parameters_begin_at_multiples_of_sixteen_bytes() -> None:
    """bfloat16: 8 elements. 3 end at 3, the next begins at 8 and ends at 17, the last at 24 to 29: 32 for 4 ranks."""
    assert flattened([3, 9, 5], "bf16") == ([0, 8, 24], 29)
    assert flat_numel([3, 9, 5], 4, "bf16") == 32
    assert flattened([3, 9, 5], "fp32") == ([0, 4, 16], 21)
    assert flat_numel([3, 9, 5], 1, "fp32") == 21


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=8), st.integers(1, 16), st.sampled_from(["bf16", "fp32"]))
def test_a_flat_parameter_holds_its_parts_and_divides(sizes: list[int], ranks: int, dtype: str) -> None:
    starts, end = flattened(sizes, dtype)
    whole = flat_numel(sizes, ranks, dtype)
    assert all(
        start + size <= after for (start, size), after in zip(zip(starts, sizes, strict=True), [*starts[1:], end], strict=True)
    )
    assert whole % ranks == 0
    assert sum(sizes) <= end <= whole < end + ranks
