"""Every traced step of a real network, predicted: parameters exact, each part of the step within what the report promises."""

from __future__ import annotations

from statistics import median

import pytest

from preflight import catalog
from preflight.job import Job, job
from preflight.memory.budget import residents
from preflight.memory.model import Model, build, family
from preflight.memory.optimizer import optimizer
from preflight.memory.overhead import TOLERANCE
from preflight.memory.step import walk
from preflight.schema import check
from preflight.spec import Spec
from preflight.units import GIB
from tests import accuracy, truth_rows

MEDIAN = 0.01
WEIGHTS = 0.001
DIGITS = 0.00005 * GIB  # the traces are printed to four digits

GPU = catalog.gpu("h200-141gb")  # any card with fused attention, as the traces assume
ROWS = [row for row in truth_rows.rows() if family(catalog.network(truth_rows.spec(row)["model"]["name"]).family)]


def _job(row: truth_rows.Row) -> Job:
    return job(Spec.from_mapping(truth_rows.spec(row)), GPU)


def _parts(row: truth_rows.Row) -> dict[str, int]:
    """Predicted bytes by the trace's own names."""
    work = _job(row)
    model = build(work)
    states = optimizer(work, model)
    held = residents(work, model, states).total
    step = walk(work, model)
    return {
        "weights_gib": model.frozen_bytes + model.trainable_bytes,
        "forward_peak_gib": held + step.forward.peak,
        "backward_peak_gib": held + step.backward.peak,
        "optimizer_peak_gib": held + step.left + states.update,
    }


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["id"])
def test_the_spec_of_a_row_is_legal(row: truth_rows.Row) -> None:
    assert check(truth_rows.spec(row), "spec") == []


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["id"])
def test_parameter_counts_are_exact(row: truth_rows.Row) -> None:
    model: Model = build(_job(row))
    assert model.parameter_count == row["parameters"]
    assert model.trainable_count == row["trainable_parameters"]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["id"])
def test_each_part_of_the_step(row: truth_rows.Row) -> None:
    for name, predicted in _parts(row).items():
        measured = row[name] * GIB
        allowed = (WEIGHTS if name == "weights_gib" else TOLERANCE) * measured + DIGITS
        assert abs(predicted - measured) <= allowed, f"{name}: {predicted / GIB:.4f} against {row[name]}"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["id"])
def test_the_reported_step_is_the_traced_peak(row: truth_rows.Row) -> None:
    assert abs(accuracy.error(truth_rows.spec(row), row)) <= TOLERANCE


def test_the_median_error_of_the_peak() -> None:
    assert median(abs(accuracy.error(truth_rows.spec(row), row)) for row in ROWS) <= MEDIAN
