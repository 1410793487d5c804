"""FastVideo's Wan against traces of its own blocks (commit 2f3d407), under FakeTensorMode.

The blocks' code ran as it stands in fastvideo/models/dits, four of them in a model and under autocast, all weights in bfloat16 and
trained, one sample of 45 frames at 480 x 832. Kernels that fake tensors cannot run (FlexAttention, the sparse ones) gave tensors of
their results' sizes and kept what their autograd functions save. Figures: parameters, and GiB of the peak of the second forward
pass, of what is live after it, and of the peak of the backward pass.
"""

from __future__ import annotations

from typing import Any

import pytest

from preflight import catalog
from preflight.job import job
from preflight.memory.budget import budget
from preflight.memory.model import build
from preflight.memory.step import walk
from preflight.spec import Spec
from preflight.units import GIB

WHOLE: dict[str, Any] = {}
VSA, SLA = {"sparse": "vsa"}, {"sparse": "sla"}
CAUSAL, FORCED = {"causal": True}, {"causal": True, "teacher_forcing": True}
TRACES = [
    (WHOLE, False, 211_538_496, 10.7025, 10.4437, 10.7028),
    (WHOLE, True, 211_538_496, 2.3622, 1.6928, 4.1862),
    (VSA, False, 220_981_824, 11.3774, 11.0651, 11.3242),
    (VSA, True, 220_981_824, 2.4685, 1.7456, 4.4479),
    (SLA, False, 211_604_544, 12.4235, 12.1647, 12.4238),
    (SLA, True, 211_604_544, 2.3626, 1.6932, 4.6169),
    (CAUSAL, False, 211_538_496, 11.1455, 10.8866, 11.1458),
    (CAUSAL, True, 211_538_496, 2.4252, 1.7021, 4.3042),
    (FORCED, False, 211_538_496, 21.1412, 20.2705, 20.7515),
    (FORCED, True, 211_538_496, 3.7358, 1.9368, 7.2077),
]


@pytest.mark.parametrize(("dims", "checkpointing", "parameters", "forward", "after", "backward"), TRACES)
def test_walk_is_the_trace(
    dims: dict[str, Any], checkpointing: bool, parameters: int, forward: float, after: float, backward: float
) -> None:
    work = job(Spec.from_mapping({
        "model": {"name": "wan2.1-t2v-1.3b", "code": "fastvideo", "dims": {**dims, "num_layers": 4}},
        "train": {"method": "full", "checkpointing": checkpointing},
        "data": {"height": 480, "width": 832, "frames": 45},
        "precision": {"weights": "bf16", "autocast": "bf16", "attention": "bf16"},
    }), catalog.gpu("h100-80gb"))  # fmt: skip
    model = build(work)
    step, resident = walk(work, model), budget(work, model).resident.total
    assert model.parameter_count == parameters
    found = [(resident + size) / GIB for size in (step.forward.peak, step.forward.end, step.backward.peak)]
    assert found == pytest.approx([forward, after, backward], rel=2e-4)


def test_a_mask_of_all_pairs_of_tokens_comes_before_the_first_pass() -> None:
    """create_block_mask without compile: 12 frames of 1,560 tokens, clean and noisy, filled up to whole tiles of 128."""
    spec = {"model": {"name": "wan2.1-t2v-1.3b", "code": "fastvideo", "dims": FORCED}, "train": {"method": "full"}}
    work = job(Spec.from_mapping({**spec, "data": {"height": 480, "width": 832, "frames": 45}}), catalog.gpu("h100-80gb"))
    assert build(work).network.first_pass(work.shape) == 7 * 37_504**2
