"""Predicted against traced: the error of every traced step's peak, grouped as a reader would ask for them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from preflight import catalog
from preflight.judge import judge
from preflight.spec import Spec
from preflight.units import GIB
from tests import truth_rows

GPU = catalog.gpu("h200-141gb")  # any card with fused attention, as the traces assume
FSDP = Path(__file__).parent / "truth" / "traces_fsdp.jsonl"

NAMES = {
    "wan": "Wan 2.1, 2.2",
    "hunyuandit": "HunyuanDiT",
    "hunyuanvideo": "HunyuanVideo",
    "cogvideox": "CogVideoX",
    "ltx": "LTX-Video",
    "flux": "FLUX.1",
    "sd3": "SD3",
    "unet": "diffusers UNet2D",
    "fno": "neuraloperator FNO",
    "diffsr": "DiffSR (10 networks)",
    "fsdp": "FSDP2, one rank",
}


def fsdp_spec(row: truth_rows.Row) -> dict[str, Any]:
    """The canonical spec of a traced FSDP2 rank."""
    parallel: dict[str, Any] = {"gpus": row["gpus"], "strategy": "fsdp", "reshard": row.get("reshard_after_forward", True)}
    if "param_dtype" in row:
        parallel |= {"compute": row["param_dtype"], "reduce": row.get("reduce_dtype", "fp32")}
    return {**truth_rows.spec(row), "parallel": parallel}


def error(spec: Mapping[str, Any], row: truth_rows.Row) -> float:
    """How far the report's `phases[step].allocated_bytes` is from the traced peak, as a part of it."""
    phases = judge(Spec.from_mapping(spec), GPU, 0.7).memory.phases
    step = next(phase for phase in phases if phase.name == "step")
    assert step.allocated_bytes is not None
    return float(step.allocated_bytes / (row["peak_gib"] * GIB) - 1)


def errors() -> dict[str, list[float]]:
    """Errors of every traced step, family by family, and those of sharded ones apart."""
    found: dict[str, list[float]] = {name: [] for name in NAMES}
    for row in truth_rows.rows():
        found[truth_rows.family(row)].append(error(truth_rows.spec(row), row))
    for line in FSDP.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        found["fsdp"].append(error(fsdp_spec(row), row))
    return found


def table() -> Iterator[str]:
    """The lines of a Markdown table: cases, median and worst error of the peak, and the bias."""
    yield "| traced steps of | cases | median | worst | bias |"
    yield "|---|---:|---:|---:|---:|"
    for name, found in errors().items():
        sizes = sorted(abs(e) for e in found)
        bias = sum(found) / len(found)
        yield f"| {NAMES[name]} | {len(found)} | {median(sizes):.2%} | {sizes[-1]:.2%} | {bias:+.2%} |"
