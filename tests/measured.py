"""Published figures, predicted: ours of the kind that each one is, and how far it is from it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from preflight import catalog
from preflight.job import Job, job
from preflight.judge import judge_job
from preflight.memory import overhead
from preflight.memory.budget import budget
from preflight.memory.model import Model, build
from preflight.memory.step import infer
from preflight.networks.component import TextEncoder
from preflight.networks.components import component_module
from preflight.spec import Spec
from preflight.tape.meter import Meter
from preflight.tape.tensor import Tape
from preflight.units import GIB
from tests import truth_measured
from tests.truth_measured import Case, Row

ROWS = truth_measured.judged()
CASES: Mapping[str, tuple[Row, Case]] = {row["id"]: (row, case) for row in ROWS if (case := truth_measured.case(row)) is not None}
MET = [id_ for id_, (row, case) in CASES.items() if not case.bound and row.get("figure") is not None]


def work(case: Case) -> Job:
    return job(Spec.from_mapping(case.spec), catalog.gpu(case.gpu))


def reserved(case: Case) -> int:
    """The report's own figure."""
    memory = judge_job(work(case), 1.0).memory
    found = next(phase.reserved_bytes for phase in memory.phases if phase.name == "step")
    assert found is not None
    return found


def first(case: Case) -> int:
    """After one step."""
    run = work(case)
    layout = budget(run, build(run)).layout
    assert layout is not None
    return layout.after(1)


@cache
def predicted(id_: str) -> int:
    """Bytes, of the kind that the published figure is."""
    _, case = CASES[id_]
    if case.column in _LAID_OUT:
        return _LAID_OUT[case.column](case)
    run = work(case)
    if case.column == "text":
        return _encoding(run)
    model = build(run)
    if case.column == "forward":
        return _forward(run, model)
    need = budget(run, model)
    if case.column == "resident":
        return int(need.resident.total)
    return int(need.allocated) + overhead.CUBLAS_HANDLES * overhead.cublas_workspace(run.gpu)


def error(id_: str) -> float:
    """How far ours is from the published figure, as a part of it."""
    return float(predicted(id_) / (CASES[id_][0]["figure"] * GIB) - 1)


def errors() -> dict[tuple[str, str], list[float]]:
    """Those of the figures that are to be met, by trainer and by what was measured."""
    found: dict[tuple[str, str], list[float]] = {}
    for id_ in MET:
        found.setdefault((id_.split("-")[0], CASES[id_][1].column), []).append(error(id_))
    return dict(sorted(found.items()))


def _forward(run: Job, model: Model) -> int:
    return model.frozen_bytes + model.trainable_bytes + int(infer(run, model, run.shape))


def _encoding(run: Job) -> int:
    """The first text encoder, alone on the card, at its one prompt."""
    component, dtype = run.encoders[0]
    encoder = component_module(component.id)
    assert isinstance(encoder, TextEncoder)
    tape = Tape(Meter())
    tape.grad_enabled = False
    encoder.load(dtype)
    encoder.bind(tape)
    tape.meter.part("encode")
    encoder.encode(tape, 1, run.text_tokens, dtype)
    tape.meter.part("end")
    weights = sum(tensor.nbytes * tensor.copies for _, tensor in encoder.tensors())
    return int(tape.meter.parts["encode"].peak) + weights


_LAID_OUT = {"first": first, "reserved": reserved}
