"""Predicted against traced and measured: the error of every peak, grouped as a reader would ask for them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from preflight import catalog
from preflight.job import job
from preflight.judge import judge
from preflight.memory.budget import budget
from preflight.memory.model import build
from preflight.spec import Spec
from preflight.units import GIB
from tests import measured, truth_measured, truth_passes, truth_rows

GPU = catalog.gpu("h200-141gb")  # any card with fused attention, as the traces assume
FSDP = Path(__file__).parent / "truth" / "traces_fsdp.jsonl"
PARALLEL = Path(__file__).parent / "truth" / "parallel.jsonl"
VARIANTS = Path(__file__).parent / "truth" / "variants.jsonl"
STEP_COUNTER = 512  # bytes of the trace a trained tensor: AdamW's scalar, which a GPU run keeps on the host

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
    "further": "{networks} further networks",
    "passes": "the passes of {components} VAEs and text encoders",
}
TRAINERS = {"cvf": "cogvideox-factory", "dfb": "diffusers' benchmarks", "ft": "finetrainers", "st": "SimpleTuner"}
COLUMNS = {
    "allocated": "allocated, at most",
    "reserved": "reserved, at most",
    "first": "reserved after one step",
    "resident": "allocated before the first step",
    "forward": "allocated, at most, in a forward pass",
    "text": "allocated, at most, as prompts are encoded",
}

STRATEGIES = {
    "ddp": "`ddp`: torch's own, run on two processes",
    "ulysses": "`sequence`: heads exchanged, 2 to 8 ranks of one sample",
    "streams": "`sequence`: the same of LTX-2.3's two streams, SimpleTuner's code",
    "ring": "`sequence`, `ring`: keys and values in a ring, 2 and 4 ranks",
    "fsdp": "`fsdp`: fully_shard, 1 to 64 ranks",
    "fsdp1": "`fsdp`, `fsdp_version: 1`: FullyShardedDataParallel, 2 to 8 ranks",
    "zero1": "`zero1`: DeepSpeed's own optimizer, 2 and 8 ranks",
    "zero2": "`zero2`: DeepSpeed's own optimizer, 2 to 16 ranks",
    "zero3": "`zero3`: DeepSpeed's engine, run on 2 and 4 processes",
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
    asked = ("sequence", "ring", "sequence_code", "backward_prefetch", "forward_prefetch", "use_orig_params", "wrap")
    parallel |= {name: row[name] for name in asked if name in row}
    zero = {name: row[name] for name in ("reduce_bucket_size", "overlap_comm", "reduce_scatter") if name in row}
    zero |= row.get("zero", {})
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
    found["further"] = [_further_error(row) for row in further()]
    found["passes"] = [truth_passes.peak(row) / (row["peak_gib"] * GIB) - 1 for row in truth_passes.rows()]
    return found


def further() -> list[truth_rows.Row]:
    """The traced steps of networks, or of sizes of them, that the other rows have none of."""
    others = {_network(row) for row in truth_rows.rows()}
    return [row for row in rows_of(VARIANTS) if _network(row) not in others]


def _network(row: truth_rows.Row) -> str:
    model = row["model"]
    return str(model["name"] if isinstance(model, Mapping) else model)


def _further_error(row: truth_rows.Row) -> float:
    work = job(Spec.from_mapping(truth_rows.spec(row)), GPU)
    model = build(work)
    counters = STEP_COUNTER * sum(p.copies for p in model.trainable)
    return float(budget(work, model).allocated / (row["peak_gib"] * GIB - counters) - 1)


def table() -> Iterator[str]:
    """The lines of a Markdown table: cases, median and worst error of the peak, and the bias."""
    networks = len({_network(row) for row in further()})
    components = len({row["component"] for row in truth_passes.rows()})
    names = {name: title.format(networks=networks, components=components) for name, title in NAMES.items()}
    return _table("traced steps of", errors(), names)


def measured_table() -> Iterator[str]:
    """The same for what was published, by trainer and by what was measured, and why some of it is not met."""
    found = measured.errors()
    names = {f"{t} {c}": f"{TRAINERS[t]} | {COLUMNS[c]}" for t, c in found}
    yield from _table("figures published by | measured", {f"{t} {c}": errors for (t, c), errors in found.items()}, names)
    yield ""
    bounds = sum(case.bound or row.get("figure") is None for row, case in measured.CASES.values())
    unreached = truth_measured.UNREACHED.values()
    whole = len(truth_measured.rows())
    yield f"{len(measured.ROWS)} of the {whole} figures there are marked as ones to judge by. {bounds} of these only bound ours, or"
    yield f"ran out of memory, and do so here; {len(unreached)} are not met:"
    yield ""
    yield from (f"- {reason}" for reason in unreached)


def strategies_table() -> Iterator[str]:
    """The same for one rank of each strategy."""
    return _table("one rank of", strategy_errors(), STRATEGIES)


def _table(heading: str, errors: Mapping[str, list[float]], names: Mapping[str, str]) -> Iterator[str]:
    yield f"| {heading} | cases | median | worst | bias |"
    yield "|---" * (heading.count("|") + 1) + "|---:|---:|---:|---:|"
    for name, found in errors.items():
        sizes = sorted(abs(e) for e in found)
        bias = sum(found) / len(found)
        yield f"| {names[name]} | {len(found)} | {median(sizes):.2%} | {sizes[-1]:.2%} | {bias:+.2%} |"
