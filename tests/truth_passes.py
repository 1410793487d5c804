"""Rows of `tests/truth/components.jsonl`: traced passes of VAEs and text encoders, and ours of the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from preflight.networks.component import Component, TextEncoder, Vae
from preflight.networks.components import component_module
from preflight.networks.network import Shape
from preflight.tape.meter import Meter, Size
from preflight.tape.tensor import Tape

COMPONENTS = Path(__file__).parent / "truth" / "components.jsonl"


def rows() -> list[dict[str, Any]]:
    """Every traced pass."""
    return [json.loads(line) for line in COMPONENTS.read_text(encoding="utf-8").splitlines()]


def load(component: str, dtype: str) -> Component:
    module = component_module(component)
    assert module is not None
    module.load(dtype)
    return module


def weights(module: Component) -> int:
    return sum(tensor.nbytes * tensor.copies for _, tensor in module.tensors())


def added(module: Component, name: str, case: Mapping[str, Any], meter: Meter) -> Size:
    """Bytes that the pass adds to the weights at its peak."""
    tape = Tape(meter)
    module.bind(tape)
    meter.part(name)
    if isinstance(module, TextEncoder):
        out = module.encode(tape, case["batch"], case["tokens"], case["dtype"])
    else:
        assert isinstance(module, Vae)
        shape = Shape(**{key: case[key] for key in ("batch", "height", "width", "frames")})
        out = getattr(module, name)(tape, shape, case["dtype"])
    meter.part("end")
    del out
    assert not np.any(meter.live), "the pass left something behind"
    return meter.parts[name].peak


def peak(row: Mapping[str, Any]) -> int:
    """Bytes of the weights and of the pass, at its peak."""
    module = load(row["component"], row["dtype"])
    if isinstance(module, Vae):
        module.use_tiling, module.use_slicing = row.get("use_tiling", False), row.get("use_slicing", False)
    return weights(module) + int(added(module, row["pass"], row, Meter()))
