"""Traced steps of a generator and a discriminator trained in turn: `tests/truth/adversarial.jsonl`.

The trace is the original's whole optimize_parameters, with an optimizer each. Its peak lies where the generator's backward pass
begins, which the walk counts in the part before the discriminator's last backward pass.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from preflight import catalog
from preflight.job import job
from preflight.memory.budget import budget
from preflight.memory.model import build
from preflight.spec import Spec
from preflight.units import GIB
from tests import truth_rows

ROWS = [json.loads(line) for line in (Path(__file__).parent / "truth" / "adversarial.jsonl").read_text("utf-8").splitlines()]
TOLERANCE = 0.002


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["id"])
def test_the_peak_of_a_step_of_both_networks_is_the_traces(row: truth_rows.Row) -> None:
    work = job(Spec.from_mapping(truth_rows.spec(row)), catalog.gpu("h200-141gb"))
    model = build(work)
    assert (model.parameter_count, model.trainable_count) == (row["parameters"], row["trainable_parameters"])
    need = budget(work, model)
    assert need.resident.network == pytest.approx(row["weights_gib"] * GIB, rel=1e-5)
    assert need.allocated == pytest.approx(row["peak_gib"] * GIB, rel=TOLERANCE)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["id"])
def test_walking_twice_counts_the_same(row: truth_rows.Row) -> None:
    work = job(Spec.from_mapping(truth_rows.spec(row)), catalog.gpu("h200-141gb"))
    model = build(work)
    assert budget(work, model).step == budget(work, model).step
