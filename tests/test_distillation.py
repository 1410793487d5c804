"""Networks beside the one that trains, and adapters that are not divided: what each adds, and what may not change."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preflight import catalog
from preflight.checkpoints import checkpoint
from preflight.finding import ConfigError
from preflight.job import Job, job
from preflight.judge import judge
from preflight.memory.budget import Budget, budget
from preflight.memory.model import build
from preflight.memory.optimizer import optimizer
from preflight.memory.sharding import rank
from preflight.report import Memory
from preflight.spec import Distillation, Spec

GPU = catalog.gpu("h100-80gb")
SMALL = {"num_attention_heads": 2, "ffn_dim": 512, "num_layers": 4}
NAME = "wan2.1-t2v-1.3b"


@st.composite
def specs(draw: st.DrawFn) -> Spec:
    parallel: dict[str, Any] = draw(
        st.sampled_from([{}, {"gpus": 4, "strategy": "fsdp", "compute": "bf16", "reduce": "fp32"}, {"gpus": 2, "strategy": "ddp"}])
    )
    return Spec.from_mapping({
        "model": {"name": NAME, "dims": SMALL},
        "train": {
            "method": "full",
            "batch": draw(st.integers(1, 3)),
            "accumulation": draw(st.integers(1, 2)),
            "checkpointing": draw(st.booleans()),
            "zero_grad": draw(st.sampled_from(["after-step", "before-backward"])),
        },
        "data": {"height": draw(st.integers(1, 6)) * 64, "width": 256, "frames": draw(st.integers(0, 6)) * 4 + 1},
        "precision": {"weights": "fp32", "autocast": "bf16"},
        "parallel": parallel,
    })  # fmt: skip


def _with(spec: Spec, **roles: Any) -> Job:
    distillation = Distillation(**roles) if roles else None
    return job(replace(spec, train=replace(spec.train, distillation=distillation)), GPU)


def _budget(work: Job) -> Budget:
    return budget(work, build(work))


@given(spec=specs())
@settings(max_examples=25, deadline=None)
def test_a_teacher_adds_its_weights_and_nothing_else_between_steps(spec: Spec) -> None:
    alone, taught = _budget(_with(spec)), _budget(_with(spec, teacher=NAME))
    work = _with(spec)
    share = rank(work, build(work))
    assert taught.resident.teacher == share.trained + share.frozen
    assert taught.resident.total == alone.resident.total + taught.resident.teacher + _buckets(alone, taught)
    assert taught.allocated >= alone.allocated + taught.resident.teacher


def _buckets(alone: Budget, other: Budget) -> int:
    """A frozen network has none, so they stay what they were."""
    return other.resident.buckets - alone.resident.buckets


@given(spec=specs())
@settings(max_examples=25, deadline=None)
def test_a_critic_adds_its_weights_and_its_states(spec: Spec) -> None:
    alone, judged = _budget(_with(spec)), _budget(_with(spec, critic=NAME))
    work = _with(spec)
    share = rank(work, build(work))
    states = optimizer(work, share)
    assert judged.resident.critic == share.trained + share.frozen
    assert judged.resident.optimizer == 2 * alone.resident.optimizer == 2 * (states.states + states.master)
    assert judged.allocated >= alone.allocated + judged.resident.critic + states.states


@given(spec=specs())
@settings(max_examples=15, deadline=None)
def test_a_step_with_others_beside_it_returns_to_what_stands(spec: Spec) -> None:
    """At its end there are gradients of both, in a step of each alone those of one."""
    judged = _budget(_with(spec, teacher=NAME, critic=NAME))
    single = _budget(_with(spec))
    if spec.train.zero_grad == "before-backward":
        assert judged.kept_gradients == 2 * single.kept_gradients
    else:
        assert judged.kept_gradients == single.kept_gradients == 0


def _memory(**roles: Any) -> Memory:
    spec = Spec.from_mapping({
        "model": {"name": NAME},
        "train": {"method": "full", "checkpointing": True, "distillation": roles or None},
        "data": {"height": 448, "width": 832, "frames": 77},
        "precision": {"weights": "fp32", "autocast": "bf16", "attention": "bf16"},
        "parallel": {"gpus": 8, "strategy": "fsdp", "compute": "bf16", "reduce": "fp32"},
    })  # fmt: skip
    return judge(spec, GPU, 0.7).memory


def test_a_teacher_that_writes_its_answers_down_is_gone_before_the_step() -> None:
    phases = {phase.name: phase.allocated_bytes for phase in _memory(teacher="wan2.1-t2v-14b", cached=True).phases}
    alone = {phase.name: phase.allocated_bytes for phase in _memory().phases}
    assert phases["step"] == alone["step"]
    assert (phases["distil"] or 0) > (phases["load"] or 0) > (alone["load"] or 0)


def test_the_parts_sum_to_the_peak_and_the_critic_is_saved() -> None:
    memory = _memory(teacher="wan2.1-t2v-14b", critic=NAME)
    assert sum(size or 0 for size in memory.components.values()) == memory.peak_bytes
    assert {"teacher", "critic"} <= {line.name for line in memory.held}
    spec = Spec.from_mapping({
        "model": {"name": NAME, "dims": SMALL},
        "train": {"method": "full", "distillation": {"critic": NAME}},
        "data": {"height": 64, "width": 64},
        "save": {"every": 1},
    })  # fmt: skip
    judged, alone = job(spec, GPU), job(replace(spec, train=replace(spec.train, distillation=None)), GPU)
    assert checkpoint(judged, build(judged)).total == 2 * checkpoint(alone, build(alone)).total


@pytest.mark.parametrize(
    ("changes", "key"),
    [({"teacher": "wan2.1-t2v-15b"}, "train.distillation.teacher"), ({"critic": "nothing"}, "train.distillation.critic")],
)
def test_a_network_that_is_not_in_the_catalog_is_named_by_its_role(changes: dict[str, str], key: str) -> None:
    with pytest.raises(ConfigError) as refused:
        _memory(**changes)
    assert [finding.key for finding in refused.value.findings] == [key]


@given(rank_=st.integers(1, 64), gpus=st.sampled_from([2, 4, 8]), accumulation=st.integers(1, 2))
@settings(max_examples=15, deadline=None)
def test_adapters_that_are_not_divided_are_as_large_on_every_gpu_as_on_one(rank_: int, gpus: int, accumulation: int) -> None:
    def held(*, gpus: int, sharded: bool) -> Budget:
        return _budget(job(Spec.from_mapping({
            "model": {"name": NAME, "dims": SMALL},
            "train": {"method": "lora", "lora": {"rank": rank_, "sharded": sharded}, "accumulation": accumulation},
            "data": {"height": 128, "width": 128, "frames": 5},
            "precision": {"weights": "fp32", "autocast": "bf16"},
            "parallel": {"gpus": gpus, "strategy": "fsdp", "compute": "bf16", "reduce": "fp32"},
        }), GPU))  # fmt: skip

    whole, divided, alone = held(gpus=gpus, sharded=False), held(gpus=gpus, sharded=True), held(gpus=1, sharded=False)
    assert whole.resident.adapters == alone.resident.adapters
    assert whole.resident.optimizer == alone.resident.optimizer
    assert whole.resident.network == divided.resident.network
    assert divided.resident.adapters <= whole.resident.adapters
