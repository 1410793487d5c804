"""The passes of text encoders and VAEs against traces of the real ones (tests/truth/trace_components.py made the rows)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preflight import catalog
from preflight.networks.components import component_module, modelled
from preflight.tape.meter import ArrayMeter, Meter
from tests.truth_passes import added, load, peak, rows, weights

TOLERANCE = 0.0001  # of the peak: a row is rounded to 1 KiB, and small tensors such as token masks are not followed
GIB = 2**30
ROWS = rows()
FRAMES = {"sd-vae": 1, "flux-vae": 1, "sd3-vae": 1}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['id']}-{row['component']}-{row['pass']}")
def test_peak_of_a_pass_is_that_of_the_real_module(row: dict[str, Any]) -> None:
    assert weights(load(row["component"], row["dtype"])) / GIB == pytest.approx(row["weights_gib"], abs=1e-6)
    assert peak(row) / GIB == pytest.approx(row["peak_gib"], rel=TOLERANCE)


@pytest.mark.parametrize("component", modelled())
def test_parameters_are_the_catalogs(component: str) -> None:
    module = load(component, "bf16")
    assert sum(p.numel * p.copies for _, p in module.parameters()) == catalog.component(component).parameters


def test_every_modelled_component_has_a_row() -> None:
    assert {row["component"] for row in ROWS} == set(modelled())


def test_what_is_not_modelled_is_none() -> None:
    assert component_module("ltx2-connectors") is None


@pytest.mark.parametrize("component", ["wan2.1-vae", "wan2.2-vae", "sd-vae"])
@pytest.mark.parametrize("name", ["encode", "decode"])
def test_arrays_of_sizes_answer_as_the_sizes_one_by_one(component: str, name: str) -> None:
    module = load(component, "bf16")
    sizes = [(2, 256, 384), (3, 480, 832), (4, 704, 1280)]
    frames = FRAMES.get(component, 17)
    batch, height, width = (np.array(column, dtype=np.int64) for column in zip(*sizes, strict=True))
    case = {"batch": batch, "height": height, "width": width, "frames": frames, "dtype": "bf16"}
    single = [added(module, name, {**case, "batch": b, "height": h, "width": w}, Meter()) for b, h, w in sizes]
    assert added(module, name, case, ArrayMeter()).tolist() == single


def test_arrays_of_prompts_answer_as_the_prompts_one_by_one() -> None:
    module = load("t5-xxl", "bf16")
    prompts = [(1, 77), (4, 226), (8, 512)]
    batch, tokens = (np.array(column, dtype=np.int64) for column in zip(*prompts, strict=True))
    single = [added(module, "encode", {"batch": b, "tokens": n, "dtype": "bf16"}, Meter()) for b, n in prompts]
    assert added(module, "encode", {"batch": batch, "tokens": tokens, "dtype": "bf16"}, ArrayMeter()).tolist() == single


@settings(max_examples=25, deadline=None)
@given(
    chunks=st.integers(1, 40),
    name=st.sampled_from(["encode", "decode"]),
    component=st.sampled_from(["wan2.1-vae", "cogvideox-vae"]),
)
def test_a_longer_video_never_takes_less(chunks: int, name: str, component: str) -> None:
    module = load(component, "bf16")
    case = {"batch": 1, "height": 256, "width": 256, "dtype": "bf16"}
    frames = 8 * chunks + 1
    shorter, longer = (added(module, name, {**case, "frames": n}, Meter()) for n in (frames, frames + 8))
    assert longer >= shorter
