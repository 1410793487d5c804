"""What a node's memory holds: the arithmetic written out, and laws over random runs."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preflight import catalog
from preflight.job import job
from preflight.judge import judge
from preflight.memory.budget import Budget, budget
from preflight.memory.host import Host, host
from preflight.memory.model import build
from preflight.memory.rules import held
from preflight.report import Report, Result
from preflight.reporters import Style
from preflight.reporters.text import render
from preflight.spec import Spec
from tests.test_laws_memory import specs
from tests.test_sharding import P

GPU = catalog.gpu("a100-80gb")
BLOCKS, HIDDEN = 30, 1536  # Wan 2.1 1.3B
TOKENS = 5 * 30 * 52  # 17 frames of 480 x 832 in latents of 4 x 8 x 8 and patches of 1 x 2 x 2


def _spec(strategy: str = "none", gpus: int = 1, **more: Any) -> Spec:
    return Spec.from_mapping({
        "model": {"name": "wan2.1-t2v-1.3b"},
        "train": {"method": "full", "checkpointing": True, **more.pop("train", {})},
        "data": {"height": 480, "width": 832, "frames": 17, **more.pop("data", {})},
        "parallel": {"gpus": gpus, "strategy": strategy, **more.pop("parallel", {})},
        **more,
    })  # fmt: skip


def _made(spec: Spec) -> tuple[Host, Budget]:
    work = job(spec, GPU)
    model = build(work)
    need = budget(work, model)
    return host(work, model, need), need


def _parts(spec: Spec, phase: str = "step") -> dict[str, int]:
    return {part.name: part.nbytes for part in _made(spec)[0].phases[phase]}


@pytest.mark.parametrize("gpus", [1, 2, 8])
def test_deepspeeds_own_estimates_of_host_memory(gpus: int) -> None:
    """max(4 x GPUs, 16) bytes an element in stage 2, and 18 with the weights in stage 3, before its factor of 1.5 for buffers."""
    for strategy, away, element in (("zero2", {}, 16), ("zero3", {}, 16), ("zero3", {"parameters": True}, 18)):
        found, _ = _made(_spec(strategy, gpus, offload={"optimizer": True, **away}))
        assert found.total("load") == 4 * P * gpus
        assert found.total("step") == pytest.approx(element * P, rel=1e-4)
        assert found.total(found.worst) == pytest.approx(max(4 * gpus, element) * P, rel=1e-4)


def test_zero_init_loads_a_layer_at_a_time() -> None:
    largest = 6 * HIDDEN * HIDDEN  # condition_embedder.time_proj, by 1536 x 9216
    found, _ = _made(_spec("zero3", 8, parallel={"loading": "sharded"}))
    assert found.total("load") == 8 * 4 * largest


def test_the_first_rank_alone_may_load() -> None:
    assert _parts(_spec("fsdp", 8, parallel={"loading": "first"}), "load") == {"weights as they load": 2 * P}
    assert sum(_parts(_spec("fsdp", 8), "load").values()) == 8 * 2 * P
    assert sum(_parts(_spec("fsdp", 8, parallel={"nodes": 2}), "load").values()) == 4 * 2 * P


def test_shards_on_the_host_are_there_with_their_gradients_and_states() -> None:
    parts = _parts(_spec("fsdp", 8, offload={"parameters": True}))
    for name, element in (("weights", 2), ("gradients", 2), ("optimizer states", 4)):
        assert parts[name] == pytest.approx(element * P, rel=0.01)


def test_an_offloaded_optimizer_keeps_a_copy_of_weights_and_gradients() -> None:
    parts = _parts(_spec(offload={"optimizer": True}))
    assert parts["optimizer states"] == pytest.approx(4 * P, rel=0.001)
    assert parts["master weights"] == parts["gradients"] == pytest.approx(2 * P, rel=0.001)


def test_checkpoints_on_the_host_are_one_hidden_state_a_block() -> None:
    parts = _parts(_spec(offload={"activations": True}))
    assert parts == {"checkpoints": BLOCKS * TOKENS * HIDDEN * 2}


def test_checkpoints_on_the_host_leave_one_on_the_gpu() -> None:
    lora = {"method": "lora", "lora": {"rank": 16}}
    (_, kept), (_, away) = (_made(_spec(train=lora, offload={"activations": on})) for on in (False, True))
    assert kept.activations - away.activations == (BLOCKS - 1) * TOKENS * HIDDEN * 2


def test_workers_hold_decoded_batches() -> None:
    data = {"latents": "online", "workers": 4, "prefetch": 2}
    assert _parts(_spec("ddp", 2, data=data))["data loading"] == 2 * 4 * 2 * 17 * 480 * 832 * 3 * 4


def test_swapped_blocks_wait_on_the_host() -> None:
    spec = _spec(train={"method": "lora", "lora": {"rank": 16}}, offload={"blocks": 20})
    assert _parts(spec)["swapped blocks"] == 20 * build(job(spec, GPU)).block_bytes


def test_a_checkpoint_is_gathered_from_shards_only() -> None:
    assert _parts(_spec("fsdp", 8, save={"every": 100, "optimizer": False}), "save") == {"the checkpoint": 2 * P}
    assert _parts(_spec("ddp", 8, save={"every": 100, "optimizer": False}), "save") == {}


def test_the_report_has_the_worst_phase_of_a_node() -> None:
    spec = _spec("fsdp", 8, hardware={"host_memory_gib": 16})
    verdict = judge(spec, GPU, 0.7)
    shown = verdict.memory.host
    assert shown is not None
    assert (shown.peak_bytes, shown.peak_phase, shown.capacity_bytes) == (8 * 2 * P, "load", 16 * 2**30)
    assert sum(shown.parts.values()) == shown.peak_bytes
    assert [f.severity for f in verdict.findings if f.id == "host-memory"] == ["warning"]
    assert verdict.verdict == "fits"  # the GPU's verdict is another matter


@settings(max_examples=40, deadline=None)
@given(specs(), st.sampled_from(["optimizer", "activations"]))
def test_what_leaves_the_gpu_comes_to_the_host(spec: Spec, what: str) -> None:
    stays, leaves = (
        _made(Spec.from_mapping({**spec.to_mapping(), "offload": {**spec.to_mapping()["offload"], what: on}}))
        for on in (False, True)
    )
    assert leaves[1].allocated <= stays[1].allocated
    assert leaves[0].total("step") >= stays[0].total("step")


@pytest.mark.parametrize("strategy", ["none", "dp", "ddp", "fsdp", "zero1", "zero2", "zero3"])
def test_every_strategy_says_what_a_gpu_holds_and_why(strategy: str) -> None:
    spec = _spec(strategy, 1 if strategy == "none" else 8)
    work = job(spec, GPU)
    model = build(work)
    need = budget(work, model)
    lines = {name: nbytes for name, nbytes, _ in held(work, model, need)}
    assert lines["network"] == need.resident.network
    assert lines["optimizer"] == need.resident.optimizer
    stays = ("network", "adapters", "optimizer", "buckets", "ema")
    assert sum(lines.get(name, 0) for name in stays) == need.resident.total
    assert all(rule and "{" not in rule for _, _, rule in held(work, model, need))


def test_the_report_explains_itself_line_by_line() -> None:
    spec = _spec("zero2", 8, offload={"optimizer": True}, parallel={"zero": {"reduce_bucket_size": 1_000_000_000}})
    result = Result(config="run.yaml", spec=spec, verdict="fits", memory=judge(spec, GPU, 0.7).memory)
    told = render(Report(results=(result,)), Style(verbose=True)).splitlines()
    (first, *_) = (number for number, line in enumerate(told) if line.startswith("  one GPU"))
    assert told[first].startswith("  one GPU     network 2.64 GiB: whole on each GPU, what trains in one flat buffer")
    assert any("gradients" in line and "1,000,000,000 elements" in line for line in told[first:])
    assert any("optimizer 0: adamw's states and the float32 weights it updates" in line for line in told[first:])
    line, *others = (line for line in told if " a node (" in line)
    # 4 bytes an element for each of 8 processes, against 16 for all of them together
    assert line.startswith("  host        42.29 GiB a node (load): 8 copies of the weights as they load 42.29 GiB")
    assert [line.split("(")[1].split(")")[0] for line in others] == ["step"]
    assert others[0].startswith("              ")
    assert "master weights 5.29 GiB" in others[0]
    assert "page-locked" in others[0]
    assert not any(line.startswith("  one GPU") for line in render(Report(results=(result,))).splitlines())
