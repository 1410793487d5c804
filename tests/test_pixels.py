"""The pixels of a batch that stay on the GPU through the step that encodes them: the arithmetic written out, and laws."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preflight import catalog
from preflight.job import job
from preflight.memory.budget import Budget, budget
from preflight.memory.model import build
from preflight.memory.phases import phases
from preflight.memory.rules import held
from preflight.spec import Dtype, Placement, Spec
from preflight.tape.dtypes import BYTES
from preflight.tape.meter import rounded
from tests.test_laws_memory import GPU, specs

KEPT = st.dictionaries(st.sampled_from(["fp32", "bf16", "fp16"]), st.integers(1, 12))
WAN = Spec.from_mapping({
    "model": {"name": "wan2.1-t2v-1.3b"},
    "train": {"method": "lora", "checkpointing": True, "batch": 2, "lora": {"rank": 16}},
    "data": {"height": 480, "width": 832, "frames": 81, "latents": "online"},
    "precision": {"weights": "bf16"},
})  # fmt: skip


def _with(spec: Spec, kept: dict[Dtype, int], latents: Placement = "online") -> Spec:
    return replace(spec, data=replace(spec.data, latents=latents, pixels_kept=MappingProxyType(kept)))


def _budget(spec: Spec) -> Budget:
    work = job(spec, GPU)
    return budget(work, build(work))


def test_two_copies_of_two_clips_by_hand() -> None:
    bare, full = _budget(WAN), _budget(_with(WAN, {"fp32": 3, "bf16": 3}))
    pixels = 2 * 3 * 81 * 480 * 832 * (4 + 2)
    assert full.pixels == full.allocated - bare.allocated == full.activations - bare.activations == pixels
    assert full.resident == bare.resident


def test_the_encoder_reads_one_of_the_copies() -> None:
    def encode(kept: dict[Dtype, int]) -> int:
        work = job(_with(replace(WAN, precision=replace(WAN.precision, vae="bf16")), kept), GPU)
        model = build(work)
        found = next(phase.peak for phase in phases(work, model, budget(work, model)) if phase.name == "encode")
        assert found is not None
        return int(found.allocated)

    frames = 2 * 81 * 480 * 832
    assert encode({"bf16": 3}) == encode({})
    assert encode({"fp32": 3, "bf16": 7}) - encode({}) == frames * (3 * 4 + 4 * 2)


def test_the_line_says_which_copies() -> None:
    work = job(_with(WAN, {"fp32": 3, "bf16": 3}), GPU)
    model = build(work)
    need = budget(work, model)
    lines = {line.name: line for line in held(work, model, need)}
    assert lines["pixels"].nbytes == need.pixels
    assert "3 channels in fp32 and 3 channels in bf16" in lines["pixels"].rule
    assert lines["activations"].nbytes + lines["pixels"].nbytes == need.activations


@given(specs(), KEPT)
@settings(max_examples=40, deadline=None)
def test_what_is_kept_is_there_at_every_moment_of_the_step(spec: Spec, kept: dict[Dtype, int]) -> None:
    shape, bare, full = job(spec, GPU).shape, _budget(_with(spec, {})), _budget(_with(spec, kept))
    samples = shape.batch * shape.frames * shape.height * shape.width
    assert full.pixels == sum(rounded(samples * channels * BYTES[dtype]) for dtype, channels in kept.items())
    assert full.allocated == bare.allocated + full.pixels
    assert full.kept_gradients == bare.kept_gradients


@given(specs(), KEPT)
@settings(max_examples=20, deadline=None)
def test_cached_latents_leave_no_pixels(spec: Spec, kept: dict[Dtype, int]) -> None:
    assert _budget(_with(spec, kept, "cached")).allocated == _budget(_with(spec, {}, "cached")).allocated


def test_arrays_equal_scalars() -> None:
    spec = _with(WAN, {"fp32": 3, "bf16": 3})
    work = job(spec, GPU)
    model, heights = build(work), [480, 720]
    together = budget(work, model, replace(work.shape, height=np.array(heights)))
    alone = [budget(work, model, replace(work.shape, height=height)) for height in heights]
    assert together.allocated.tolist() == [each.allocated for each in alone]
    assert together.pixels.tolist() == [each.pixels for each in alone]


@pytest.mark.parametrize("network", ["wan2.1-t2v-1.3b", "wan2.2-ti2v-5b"])
def test_networks_of_videos_have_them(network: str) -> None:
    spec = _with(replace(WAN, model=replace(WAN.model, name=network)), {"fp32": 3})
    assert catalog.network(network).id == network
    assert _budget(spec).pixels > 0
