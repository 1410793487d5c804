"""How fast an estimate is, beside torch's own trace of the same step. Ratios to read, nothing that is asserted.

`pytest tests/benchmarks` with pytest-benchmark installed, and for torch's side the `trace` extra; skipped without them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from preflight import catalog
from preflight.job import Job, job
from preflight.memory.budget import budget
from preflight.memory.model import build
from preflight.spec import Spec

pytest.importorskip("pytest_benchmark", reason="pip install pytest-benchmark measures these")

Benchmark = Callable[..., Any]
LAYERS = 4  # of Wan 1.3B's thirty, so that torch's trace ends within seconds; ours walks three of either number


def _job(name: str, **dims: int) -> Job:
    return job(
        Spec.from_mapping({
            "model": {"name": name, "dims": dims},
            "train": {"method": "lora", "lora": {"rank": 16}, "checkpointing": True},
            "data": {"height": 480, "width": 832, "frames": 49},
            "precision": {"weights": "bf16", "autocast": "bf16"},
        }),
        catalog.gpu("a100-80gb"),
    )  # fmt: skip


@pytest.mark.parametrize("name", ["wan2.2-t2v-a14b", "hunyuanvideo"])
def test_one_estimate(benchmark: Benchmark, name: str) -> None:
    work = _job(name)
    benchmark(lambda: budget(work, build(work)))


def test_ten_thousand_shapes(benchmark: Benchmark) -> None:
    import numpy as np

    work, draw = _job("wan2.2-t2v-a14b"), np.random.default_rng(0)
    shape = replace(
        work.shape,
        batch=draw.integers(1, 5, 10_000),
        height=draw.integers(10, 60, 10_000) * 16,
        width=draw.integers(10, 60, 10_000) * 16,
        frames=draw.integers(0, 20, 10_000) * 4 + 1,
    )
    benchmark(lambda: budget(work, build(work), shape))


def test_the_same_step_estimated(benchmark: Benchmark) -> None:
    work = _job("wan2.1-t2v-1.3b", num_layers=LAYERS)
    benchmark(lambda: budget(work, build(work)))


def test_the_same_step_run_by_torch_without_numbers(benchmark: Benchmark) -> None:
    torch = pytest.importorskip("torch", reason="pip install '.[trace]' lets torch run the step")
    diffusers = pytest.importorskip("diffusers", reason="pip install '.[trace]' lets torch run the step")

    def step() -> None:
        with torch.device("meta"):
            network = diffusers.WanTransformer3DModel(num_attention_heads=12, ffn_dim=8960, num_layers=LAYERS).bfloat16()
            network.enable_gradient_checkpointing()
            latents = torch.empty(1, 16, 13, 60, 104, dtype=torch.bfloat16)
            text = torch.empty(1, 512, 4096, dtype=torch.bfloat16)
            out = network(latents, torch.ones(1, dtype=torch.long), text, return_dict=False)[0]
            out.float().pow(2).mean().backward()

    benchmark.pedantic(step, rounds=3)  # type: ignore[attr-defined]
