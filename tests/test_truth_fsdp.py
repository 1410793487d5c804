"""Every traced step of one FSDP2 rank, predicted: weights exact, each part of the step within what the report promises.

`tests/truth/traces_fsdp.jsonl`: each block a unit, then the root; no autocast; `param_dtype` as gathered, gradients then reduced in
`reduce_dtype`, float32 unless said; the batch is each rank's.
"""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median

import pytest

from preflight import catalog
from preflight.job import Job, job
from preflight.judge import judge
from preflight.memory.budget import residents
from preflight.memory.model import build, family
from preflight.memory.optimizer import optimizer
from preflight.memory.overhead import TOLERANCE
from preflight.memory.sharding import rank
from preflight.memory.step import walk
from preflight.schema import check
from preflight.spec import Spec
from preflight.units import GIB
from tests import accuracy, truth_rows

MEDIAN = 0.001
WORST = 0.005
DIGITS = 0.00005 * GIB  # the traces are printed to four digits
GPU = catalog.gpu("h200-141gb")  # any card with fused attention, as the traces assume

_LINES = (Path(__file__).parent / "truth" / "traces_fsdp.jsonl").read_text(encoding="utf-8").splitlines()


ROWS = [row for row in map(json.loads, _LINES) if family(catalog.network(accuracy.fsdp_spec(row)["model"]["name"]).family)]
EACH = pytest.mark.parametrize("row", ROWS, ids=lambda row: row["id"])


def _job(row: truth_rows.Row) -> Job:
    return job(Spec.from_mapping(accuracy.fsdp_spec(row)), GPU)


def _parts(row: truth_rows.Row) -> dict[str, int]:
    """Predicted bytes by the trace's own names."""
    work = _job(row)
    model = build(work)
    share = rank(work, model)
    states = optimizer(work, share)
    held = residents(work, model, states).total
    step = walk(work, model)
    return {
        "weights_gib": share.trained + share.frozen,
        "after_forward_gib": held + step.forward.end,
        "forward_peak_gib": held + step.forward.peak,
        "backward_peak_gib": held + step.backward.peak,
        "after_backward_gib": held + step.left,
        "optimizer_peak_gib": held + step.left + states.update,
    }


@EACH
def test_the_spec_of_a_row_is_legal(row: truth_rows.Row) -> None:
    assert check(accuracy.fsdp_spec(row), "spec") == []


@EACH
def test_parameter_counts_are_exact(row: truth_rows.Row) -> None:
    model = build(_job(row))
    assert model.parameter_count == row["parameters"]
    assert model.trainable_count == row["trainable_parameters"]


@EACH
def test_each_part_of_the_step(row: truth_rows.Row) -> None:
    for name, predicted in _parts(row).items():
        measured = row[name] * GIB
        allowed = 0 if name == "weights_gib" else WORST * measured
        assert abs(predicted - measured) <= allowed + DIGITS, f"{name}: {predicted / GIB:.4f} against {row[name]}"


@EACH
def test_the_reported_step_is_the_traced_peak(row: truth_rows.Row) -> None:
    assert abs(_error(row)) <= min(WORST, TOLERANCE)


def test_the_median_error_of_the_peak() -> None:
    assert median(abs(_error(row)) for row in ROWS) <= MEDIAN


def _error(row: truth_rows.Row) -> float:
    phases = judge(Spec.from_mapping(accuracy.fsdp_spec(row)), GPU, 0.7).memory.phases
    step = next(phase for phase in phases if phase.name == "step")
    assert step.allocated_bytes is not None
    return float(step.allocated_bytes / (row["peak_gib"] * GIB) - 1)
