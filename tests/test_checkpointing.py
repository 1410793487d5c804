"""Forms of activation checkpointing: patterns of blocks, and the reentrant kind."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preflight.finding import ConfigError
from preflight.job import job
from preflight.judge import judge
from preflight.memory.model import build
from preflight.memory.step import Step, walk
from preflight.spec import Spec


def _spec(train: dict[str, Any], **parts: Any) -> Spec:
    data = {
        "model": {"name": "wan2.1-t2v-1.3b", "dims": {"num_layers": parts.pop("layers", 12)}},
        "train": {"method": "full", **train},
        "data": {"height": 256, "width": 256, "frames": 9},
        "precision": {"weights": "fp32", "autocast": "bf16"},
        **parts,
    }
    return Spec.from_mapping(data)


def _walked(spec: Spec, *, extend: bool = True) -> Step:
    work = job(spec, None)
    return walk(work, build(work, extend=extend))


@settings(max_examples=20, deadline=None)
@given(layers=st.integers(1, 24), every=st.integers(1, 4), gap=st.integers(0, 4), reentrant=st.booleans())
def test_a_pattern_extended_is_the_pattern_walked(layers: int, every: int, gap: int, *, reentrant: bool) -> None:
    train = {"checkpointing": {"every": every, "stride": every + gap}, "use_reentrant": reentrant}
    short, whole = (_walked(_spec(train, layers=layers), extend=extend) for extend in (True, False))
    assert (short.forward.peak, short.backward.peak, short.left) == (whole.forward.peak, whole.backward.peak, whole.left)


def test_wider_gaps_keep_more() -> None:
    ends = [_walked(_spec({"checkpointing": {"every": 2, "stride": stride}})).forward.end for stride in (2, 3, 4, 6)]
    assert ends == sorted(ends)


def test_both_kinds_keep_the_same_between_the_passes() -> None:
    ends = {_walked(_spec({"checkpointing": True, "use_reentrant": way})).forward.end for way in (True, False)}
    assert len(ends) == 1


def test_units_that_overlap_are_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        judge(_spec({"checkpointing": {"every": 3, "stride": 2}}), None, 0.7)
    assert caught.value.findings[0].message == "This checkpointing cannot be: units of 3 blocks every 2 overlap."


def test_reentrant_checkpoints_under_fsdp_are_not_judged() -> None:
    with pytest.raises(ConfigError) as caught:
        judge(_spec({"checkpointing": True, "use_reentrant": True}, parallel={"gpus": 2, "strategy": "fsdp"}), None, 0.7)
    assert caught.value.findings[0].key == "train.use_reentrant"


def test_code_that_no_network_is_written_in_is_refused() -> None:
    spec = Spec.from_mapping(
        {"model": {"name": "flux.1-dev", "code": "musubi"}, "train": {"method": "full"}, "data": {"height": 512, "width": 512}}
    )
    with pytest.raises(ConfigError) as caught:
        job(spec, None)
    assert caught.value.findings[0].key == "model.code"
