"""Traced steps of the families whose arguments are the user's own: every modelled value of an argument at least once.

`tests/truth/variants.jsonl` holds them in the form of `traces.jsonl`, small, and printed to six digits.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from preflight import catalog
from preflight.job import Job, job
from preflight.memory.budget import residents
from preflight.memory.model import build
from preflight.memory.optimizer import optimizer
from preflight.memory.step import walk
from preflight.spec import Spec
from preflight.units import GIB
from tests import truth_rows

ROWS = [json.loads(line) for line in (Path(__file__).parent / "truth" / "variants.jsonl").read_text(encoding="utf-8").splitlines()]
GPU = catalog.gpu("h200-141gb")  # any card with fused attention, as the traces assume
TOLERANCE = 0.001
# A layer norm without autocast keeps its rows in float32 on a GPU, but in the input's bfloat16 where the trace was made.
LOW_PRECISION_ROWS = 0.005
STEP_COUNTER = 512  # bytes of the trace a trained tensor: AdamW's scalar, which a GPU run keeps on the host


def _job(row: truth_rows.Row) -> Job:
    return job(Spec.from_mapping(truth_rows.spec(row)), GPU)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["id"])
def test_a_variant_is_exact(row: truth_rows.Row) -> None:
    work = _job(row)
    model = build(work)
    assert (model.parameter_count, model.trainable_count) == (row["parameters"], row["trainable_parameters"])
    states = optimizer(work, model)
    held = residents(work, model, states).total
    step = walk(work, model)
    low = str(row["model"]).startswith("cogvideox") and row["autocast"] is None
    tolerance = LOW_PRECISION_ROWS if low else TOLERANCE
    counters = STEP_COUNTER * sum(p.copies for p in model.parameters if p.requires_grad)
    for name, predicted in (
        ("forward_peak_gib", held + step.forward.peak),
        ("backward_peak_gib", held + step.backward.peak),
        ("optimizer_peak_gib", held + step.left + states.update),
    ):
        traced = row[name] * GIB
        assert abs(predicted - traced) <= tolerance * traced + counters, f"{name}: {predicted / GIB:.6f} against {row[name]}"
