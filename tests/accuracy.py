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
PARALLEL = Path(__file__).parent / "truth" / "parallel.jsonl"

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


STRATEGIES = {
    "ddp": "`ddp`: torch's own, run on two processes",
    "ulysses": "`sequence`: Ulysses, 2 to 8 ranks of one sample",
    "fsdp": "`fsdp`: fully_shard, 1 to 64 ranks",
    "fsdp1": "`fsdp`, `fsdp_version: 1`: FullyShardedDataParallel, 2 to 8 ranks",
    "zero1": "`zero1`: DeepSpeed's own optimizer, 2 and 8 ranks",
    "zero2": "`zero2`: DeepSpeed's own optimizer, 2 to 16 ranks",
}


def rows_of(path: Path) -> list[truth_rows.Row]:
    """The rows of a file of figures, one a line."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def parallel_spec(row: truth_rows.Row) -> dict[str, Any]:
    """The canonical spec of a row of `parallel.jsonl`."""
    strategy = row["strategy"]
    parallel: dict[str, Any] = {"gpus": row["gpus"], "strategy": strategy}
    if strategy == "fsdp1":
        parallel = {**fsdp_spec(row)["parallel"], "fsdp_version": 1}
    asked = ("sequence", "ring", "sequence_code", "backward_prefetch", "forward_prefetch", "use_orig_params")
    parallel |= {name: row[name] for name in asked if name in row}
    zero = {name: row[name] for name in ("reduce_bucket_size", "overlap_comm", "reduce_scatter") if name in row}
    spec = {**truth_rows.spec(row), "parallel": {**parallel, "zero": zero} if zero else parallel}
    if "dims" in row:
        spec["model"] = {**spec["model"], "dims": row["dims"]}
    return spec


def strategy_errors() -> dict[str, list[float]]:
    """Errors of the traced ranks, by the first part of their ids."""
    found: dict[str, list[float]] = {name: [] for name in STRATEGIES}
    found["fsdp"] = [error(fsdp_spec(row), row) for row in rows_of(FSDP)]
    for row in rows_of(PARALLEL):
        found[row["id"].split("-")[0]].append(error(parallel_spec(row), row))
    return found


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
    found["fsdp"] = [error(fsdp_spec(row), row) for row in rows_of(FSDP)]
    return found


def table() -> Iterator[str]:
    """The lines of a Markdown table: cases, median and worst error of the peak, and the bias."""
    return _table("traced steps of", errors(), NAMES)


def strategies_table() -> Iterator[str]:
    """The same for one rank of each strategy."""
    return _table("one rank of", strategy_errors(), STRATEGIES)


def _table(heading: str, errors: Mapping[str, list[float]], names: Mapping[str, str]) -> Iterator[str]:
    yield f"| {heading} | cases | median | worst | bias |"
    yield "|---|---:|---:|---:|---:|"
    for name, found in errors.items():
        sizes = sorted(abs(e) for e in found)
        bias = sum(found) / len(found)
        yield f"| {names[name]} | {len(found)} | {median(sizes):.2%} | {sizes[-1]:.2%} | {bias:+.2%} |"
