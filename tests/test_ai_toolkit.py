"""ai-toolkit: what is spelled reads back, and the parts of the memory model that its runs need."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from preflight import catalog, document, pipeline
from preflight.adapters import ai_toolkit
from preflight.adapters.ai_toolkit_models import ARCHS, bucket
from preflight.adapters.block_layers import layers
from preflight.adapters.reading import Reading
from preflight.job import job
from preflight.memory import encoders
from preflight.memory.budget import budget
from preflight.memory.model import build
from preflight.memory.phases import phases
from preflight.spec import Spec
from preflight.tape.kronecker import factorization

CONFIGS = Path(__file__).parent / "adapters" / "configs" / "ai-toolkit"
READ = ("wan22_two_experts.yaml", "flux_lokr.json", "what_is_left_out.yaml", "qwen_offloaded.yaml", "lumina_full.yaml")


def read(data: dict[str, Any]) -> Reading:
    return ai_toolkit.read(document.read("-", text=yaml.safe_dump(data, sort_keys=False)))


def put(data: dict[str, Any], key: str, value: Any) -> None:
    """Sets what a dotted key with indices names, "config.process[0].train.batch_size"."""
    *groups, last = key.replace("]", "").replace("[", ".").split(".")
    place: Any = data
    for group in groups:
        place = place[int(group)] if isinstance(place, list) else place.setdefault(group, {})
    place[last] = value


@pytest.mark.parametrize("name", READ)
@settings(max_examples=10, deadline=None)
@given(
    side=st.integers(4, 24).map(lambda n: 64 * n),
    batch=st.integers(1, 16),
    accumulation=st.integers(1, 8),
    checkpointing=st.booleans(),
)
def test_what_is_spelled_reads_back(name: str, side: int, batch: int, accumulation: int, checkpointing: bool) -> None:
    data = document.read(str(CONFIGS / name)).data
    changes = {
        "data.width": side,
        "data.height": side,
        "train.batch": batch,
        "train.accumulation": accumulation,
        "train.checkpointing": checkpointing,
    }
    if name == "what_is_left_out.yaml":  # two kinds of accumulation at once are refused
        del changes["train.accumulation"]
    changed = copy.deepcopy(dict(data))
    for key, value in read(data).spell(changes).items():
        put(changed, key, value)
    spec = read(changed).spec
    assert {path: spec[path.split(".")[0]][path.split(".")[1]] for path in changes} == changes


@given(st.integers(64, 4096), st.sampled_from(sorted({arch.step for arch in ARCHS.values()})))
def test_a_bucket_holds_no_more_than_its_resolution(resolution: int, step: int) -> None:
    width, height = bucket(resolution, step)
    assert width % step == height % step == 0
    assert width * height <= resolution**2
    assert bucket(resolution // step * step, step) == (resolution // step * step,) * 2


def spec(**groups: dict[str, Any]) -> Spec:
    data: dict[str, Any] = {
        "model": {"name": "flux.1-dev"},
        "train": {"method": "lora", "lora": {"rank": 4, "targets": ["to_q"]}, "checkpointing": True},
        "data": {"height": 512, "width": 512},
        "precision": {"weights": "bf16"},
    }
    for group, values in groups.items():
        data[group] = {**data.get(group, {}), **values}
    return Spec.from_mapping(data)


@pytest.mark.parametrize(
    ("dimension", "factor", "parts"), [(127, -1, (1, 127)), (128, -1, (8, 16)), (360, 4, (4, 90)), (250, 16, (10, 25))]
)
def test_a_dimension_is_split_as_the_trainer_splits_it(dimension: int, factor: int, parts: tuple[int, int]) -> None:
    """The examples of LyCORIS lokr.py: factorization, smaller part first."""
    assert factorization(dimension, factor) == parts


def test_a_kronecker_adapter_trains_its_two_factors() -> None:
    work = job(spec(train={"lora": {"rank": 65_536, "factor": 8, "targets": ["attn.to_q"]}}), None)
    each = 8 * 8 + (3072 // 8) ** 2
    assert build(work).trainable_count == (19 + 38) * each
    low = job(spec(train={"lora": {"rank": 16, "factor": 8, "targets": ["attn.to_q"]}}), None)
    assert build(low).trainable_count == (19 + 38) * (8 * 8 + 2 * 16 * 3072 // 8)


#: Peaks of a steady step in GiB: diffusers 0.42.1's networks with the forward passes of toolkit/network_mixins.py and
#: toolkit/models/lokr.py (ostris/ai-toolkit, 27a03a9) in the linear layers of their blocks, under torch 2.13's FakeTensorMode.
TRACED = (
    ("flux.1-dev", True, 16, None, 26.5508),
    ("wan2.1-t2v-1.3b", True, 16, None, 7.0203),
    ("flux.1-dev", True, 16, 8, 25.3613),
    ("wan2.1-t2v-1.3b", True, 16, 8, 6.3468),
    ("flux.1-dev", True, 65536, 8, 27.3066),
    ("wan2.1-t2v-1.3b", True, 65536, 8, 6.5362),
    ("flux.1-dev", True, 65536, -1, 25.2871),
    ("wan2.1-t2v-1.3b", True, 65536, -1, 6.0451),
    ("flux.1-dev", False, 16, None, 86.2751),
    ("wan2.1-t2v-1.3b", False, 16, None, 63.9501),
    ("flux.1-dev", False, 16, 8, 79.4066),
    ("wan2.1-t2v-1.3b", False, 16, 8, 59.1246),
    ("flux.1-dev", False, 65536, 8, 81.1786),
    ("wan2.1-t2v-1.3b", False, 65536, 8, 58.5608),
    ("flux.1-dev", False, 65536, -1, 77.717),
    ("wan2.1-t2v-1.3b", False, 65536, -1, 55.7414),
)
SHAPES = {
    "flux.1-dev": {"batch": 2, "height": 768, "width": 768, "frames": 1},
    "wan2.1-t2v-1.3b": {"batch": 1, "height": 480, "width": 832, "frames": 33},
}


@pytest.mark.parametrize(("name", "checkpointing", "rank", "factor", "peak"), TRACED)
def test_a_step_needs_what_a_trace_of_the_trainers_adapters_does(
    name: str, checkpointing: bool, rank: int, factor: int | None, peak: float
) -> None:
    shape = SHAPES[name]
    lora = {"rank": rank, "factor": factor, "code": "ai-toolkit", "targets": layers(name)}
    train = {"lora": lora, "batch": shape["batch"], "checkpointing": checkpointing, "optimizer": {"name": "adamw", "bits": 32}}
    size = {axis: shape[axis] for axis in ("height", "width", "frames")}
    work = job(spec(model={"name": name}, train=train, data=size), None)
    allocated = budget(work, build(work)).allocated / 2**30
    # split as evenly as it goes, its parts are multiplied in an order of their own
    assert allocated == pytest.approx(peak, rel=0.02 if factor == -1 else 0.0005)


@pytest.mark.parametrize(
    ("place", "peak"),
    [
        ("none", lambda network, _wide, _narrow: network),
        ("alone", lambda network, wide, _narrow: max(wide, network)),
        ("apart", lambda network, wide, narrow: max(wide, narrow + network)),
        ("beside", lambda network, wide, _narrow: wide + network),
    ],
)
def test_text_encoders_load_where_the_trainer_has_the_network(place: str, peak: Callable[[int, int, int], int]) -> None:
    precision = {"quantization": "fp8-quanto", "text_encoder_quantization": "fp8-quanto", "text_encoder_quantized_on": "gpu"}
    work = job(spec(model={"name": "wan2.1-t2v-14b"}, data={"text_loading": place}, precision=precision), None)
    model = build(work)
    need = budget(work, model)
    load = next(phase for phase in phases(work, model, need) if phase.name == "load").peak
    assert load is not None
    (umt5,) = (component for component, _ in work.encoders)
    narrow = encoders.encoder_bytes(work, umt5, "bf16")
    expected = peak(need.resident.network, umt5.parameters * 2, narrow)
    assert load.allocated == max(expected, need.resident.network + need.resident.adapters)


def test_a_text_encoder_keeps_its_embedding_wide() -> None:
    work = job(spec(precision={"weights": "bf16", "text_encoder_quantization": "fp8-quanto"}), None)
    t5 = catalog.component("t5-xxl")
    embedding = 32_128 * 4096
    wide = t5.parameters * 2
    narrow = encoders.encoder_bytes(work, t5, "bf16")
    assert wide / 2 < narrow < wide / 2 + embedding * 1.01


def test_text_encoders_on_the_host_leave_what_is_not_linear() -> None:
    work = job(spec(offload={"text_layers": True}), None)
    t5 = catalog.component("t5-xxl")
    assert 32_128 * 4096 * 2 <= encoders.encoder_bytes(work, t5, "bf16") < 32_128 * 4096 * 2.02


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
def test_so_much_of_the_layers_is_away(share: float) -> None:
    whole, less = (build(job(spec(offload={"layers": part}), None)).frozen_bytes for part in (0.0, share))
    blocks = whole - build(job(spec(offload={"layers": True}), None)).frozen_bytes
    assert whole - less == pytest.approx(share * blocks, rel=1e-4)


def test_a_network_quantised_on_the_gpu_stands_there_whole_first() -> None:
    found = {}
    for place in ("host", "gpu"):
        work = job(spec(precision={"weights": "bf16", "quantization": "fp8-quanto", "quantized_on": place}), None)
        model = build(work)
        found[place] = next(phase for phase in phases(work, model, budget(work, model)) if phase.name == "load")
    host, gpu = (found[place].peak for place in ("host", "gpu"))
    assert host is not None
    assert gpu is not None
    parameters = catalog.network("flux.1-dev").parameters
    assert parameters is not None
    assert gpu.allocated == pytest.approx(parameters * 2, rel=0.001)
    assert host.allocated < gpu.allocated * 0.52


def test_low_vram_is_offered_where_only_the_load_does_not_fit() -> None:
    small = ("config.process[0].datasets[0].resolution=512",)
    result = pipeline.inspect(str(CONFIGS / "flux_24gb.yaml"), overrides=small, gpu="rtx3090-24gb", gpu_memory_gib=22.5)
    assert result.verdict == "does-not-fit"
    assert result.reductions[0].keys == {"config.process[0].model.low_vram": True}
