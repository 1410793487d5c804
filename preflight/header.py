"""The one line by which a person recognises the run."""

from __future__ import annotations

from preflight.checks.case import Case


def header(adapter: str, case: Case) -> str:
    """Family, model, method, shape, batch and GPUs."""
    spec = case.job.spec
    train, data, parallel = spec.train, spec.data, spec.parallel
    lora = train.lora
    method = "full" if lora is None else f"LoRA r{lora.rank}" if lora.factor is None else "LoKr"
    frames = f"{data.frames}×" if data.frames > 1 else ""
    batch = f"batch {train.batch}" + (f"×{train.accumulation}" if train.accumulation > 1 else "")
    how = [str(parallel.strategy)] if parallel.strategy != "none" else []
    how += [f"sequence {parallel.sequence}"] if parallel.sequence > 1 else []
    gpu = case.job.gpu.id if case.job.gpu is not None else "GPU"
    gpus = f"{parallel.gpus} × {gpu}" + (f" ({', '.join(how)})" if how else "")
    return " · ".join((adapter, spec.model.name, method, f"{frames}{data.height}×{data.width}", batch, gpus))
