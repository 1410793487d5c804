"""The whole flow on real configs: verdicts, what they rest on, and offers that hold when they are taken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from preflight.pipeline import inspect
from preflight.report import Report, Result
from preflight.reporters import Style
from preflight.reporters.json import render
from preflight.schema import check

CONFIGS = Path(__file__).parent.parent / "configs"
VERDICTS = {
    "train_v100.yaml": "does-not-fit",  # 46,800 tokens in bfloat16 on a card whose attention is then quadratic
    "train_a100.yaml": "does-not-fit",  # 75,600 tokens on every GPU: sharding divides the weights, not them
    "train_ti2v_5b.yaml": "tight",  # this one trained; T5, VAE and the quadratic scores leave little
    "fno_ocean.yaml": "fits",
    "hunyuandit_waymo.yaml": "fits",
    "hunyuandit_lora.yaml": "fits",
}
REDUCED = ("train_v100.yaml", "train_a100.yaml", "hunyuandit_lora.yaml", "fno_ocean.yaml", "hunyuandit_waymo.yaml")


def _result(name: str, **options: Any) -> Result:
    return inspect(str(CONFIGS / name), **options)


@pytest.mark.parametrize(("name", "verdict"), VERDICTS.items())
def test_every_example_config_has_its_verdict(name: str, verdict: str) -> None:
    assert _result(name).verdict == verdict


def test_every_example_config_has_a_verdict_to_defend() -> None:
    assert {path.name for path in CONFIGS.glob("*.yaml")} == set(VERDICTS)


def test_the_v100_plan_says_why_it_cannot_run() -> None:
    messages = " ".join(finding.message for finding in _result("train_v100.yaml").findings)
    for fact in ("46,800 tokens", "52,428,800 parameters", "320 layers", "The effective batch is 16, not 32", "bfloat16"):
        assert fact in messages


def test_findings_stand_at_the_users_keys_and_lines() -> None:
    text = (CONFIGS / "train_v100.yaml").read_text(encoding="utf-8").splitlines()
    for finding in _result("train_v100.yaml").findings:
        if finding.line is not None and finding.key is not None:
            assert finding.key.split(".")[-1] in text[finding.line - 1]


@pytest.mark.parametrize("name", REDUCED)
@pytest.mark.parametrize("gpu_memory", [6, 12, 20])
def test_an_offer_that_is_taken_fits(name: str, gpu_memory: int, tmp_path: Path) -> None:
    before = _result(name, gpu_memory_gib=gpu_memory)
    data = yaml.safe_load((CONFIGS / name).read_text(encoding="utf-8"))
    for number, offer in enumerate(before.reductions):
        changed = tmp_path / f"{number}.yaml"
        changed.write_text(yaml.safe_dump(_with(data, offer.keys)), encoding="utf-8")
        after = inspect(str(changed), gpu_memory_gib=gpu_memory)
        assert after.verdict in ("fits", "tight"), (offer, [f.message for f in after.findings])
        assert after.memory.peak_bytes == offer.peak_bytes


def _with(data: dict[str, Any], keys: Any) -> dict[str, Any]:
    """`data` with dotted keys set, as a person would who pastes them."""
    changed: dict[str, Any] = json.loads(json.dumps(data))
    for dotted, value in keys.items():
        *path, last = dotted.split(".")
        place = changed
        for part in path:
            place = place.setdefault(part, {})
        place[last] = value
    return changed


def test_the_batch_that_is_offered_is_the_largest_that_fits() -> None:
    for memory in (4.0, 8.0):
        result = _result("fno_ocean.yaml", gpu_memory_gib=memory)
        offer = next(offer for offer in result.reductions if "train.batch" in offer.changes)
        batch = offer.changes["train.batch"]
        one_more = _result("fno_ocean.yaml", gpu_memory_gib=memory, overrides=[f"data.train_batchsize={batch + 1}"])
        assert one_more.verdict != "fits"


@pytest.mark.parametrize("name", VERDICTS)
def test_the_json_report_is_the_contract(name: str) -> None:
    for options in ({}, {"gpu": "rtx4090-24gb"}, {"gpu_memory_gib": 1.0}):
        report = json.loads(render(Report(results=(_result(name, **options),)), Style()))
        assert check(report, "report") == []
        memory = report["results"][0]["memory"]
        assert sum(memory["components"].values()) == memory["peak_bytes"]


def test_without_a_gpu_the_bytes_are_said_and_the_gate_stays_shut(tmp_path: Path) -> None:
    config = tmp_path / "native.yaml"
    config.write_text(NATIVE, encoding="utf-8")
    result = inspect(str(config))
    assert result.verdict == "cannot-judge"
    assert result.memory.peak_bytes is not None
    assert any(finding.id == "no-gpu" and "--gpu" in finding.message for finding in result.findings)
    assert inspect(str(config), fallback_gpu=lambda: "a100-80gb").verdict == "fits"


NATIVE = """\
preflight: 1
model: {name: wan2.1-t2v-1.3b}
train: {method: lora, lora: {rank: 16}, checkpointing: true}
data: {height: 480, width: 832, frames: 17}
precision: {weights: bf16, autocast: bf16}
"""

BAD = {
    "unknown model": ("{name: wan2.1-t2v-1.3b}", "{name: wan2.1-t2v-1.3bb}", "did you mean wan2.1-t2v-1.3b"),
    "unknown target": ("rank: 16", "rank: 16, targets: [to_z]", "matches no linear layer"),
    "zero height": ("height: 480", "height: 0", "data.height is 0"),
    "negative rank": ("rank: 16", "rank: -1", "rank is -1"),
    "a word for a number": ("width: 832", "width: wide", "data.width is 'wide'"),
    "NaN": ("width: 832", "width: .nan", "data.width is nan"),
    "a huge size": ("width: 832", "width: 1000000000", "data.width is 1000000000"),
    "an odd size": ("height: 480", "height: 481", "no multiple of 16"),
    "a misspelt key": ("train: {", "trian: {}\ntrain: {", "did you mean train"),
    "unknown dtype": ("weights: bf16", "weights: bf17", "bf17"),
    "heads that do not divide": ("precision:", "parallel: {gpus: 5, sequence: 5}\nprecision:", "cannot be divided among 5"),
    "rings that do not divide": ("precision:", "parallel: {gpus: 4, sequence: 4, ring: 3}\nprecision:", "into rings of 3"),
    "a ring that is not modelled": ("precision:", "parallel: {gpus: 4, sequence: 4, ring: 2}\nprecision:", "not yunchang"),
    "a ring under checkpoints": (
        "precision:",
        "parallel: {gpus: 4, sequence: 4, ring: 4, sequence_code: diffusers}\nprecision:",
        "torch's checkpoints refuse",
    ),
    "tensor parallelism": ("precision:", "parallel: {gpus: 2, tensor: 2}\nprecision:", "as if nothing were divided"),
    "GPUs that do not divide": ("precision:", "parallel: {gpus: 3, sequence: 2}\nprecision:", "cannot be divided into groups of 2"),
    "unknown optimizer": ("checkpointing: true", "checkpointing: true, optimizer: {name: adamv}", "not modelled yet"),
    "nonsense dimensions": ("{name: wan2.1-t2v-1.3b}", "{name: wan2.1-t2v-1.3b, dims: {num_layers: many}}", "make no network"),
    "negative layers": ("{name: wan2.1-t2v-1.3b}", "{name: wan2.1-t2v-1.3b, dims: {num_layers: -4}}", "make no network"),
}


@pytest.mark.parametrize(("old", "new", "said"), BAD.values(), ids=BAD)
def test_bad_input_is_one_sentence(old: str, new: str, said: str, tmp_path: Path) -> None:
    config = tmp_path / "bad.yaml"
    config.write_text(NATIVE.replace(old, new, 1), encoding="utf-8")
    result = inspect(str(config), gpu="a100-80gb")
    assert not result.passes()
    errors = [finding for finding in result.findings if finding.severity == "error"]
    assert any(said in f"{finding.message} {finding.fix or ''}" for finding in errors), errors
    assert all("\n" not in finding.message for finding in errors)


def test_an_unknown_gpu_or_model_stands_at_its_line(tmp_path: Path) -> None:
    config = tmp_path / "bad.yaml"
    config.write_text(NATIVE + "hardware: {gpu: v100-33gb}\n", encoding="utf-8")
    (finding,) = (f for f in inspect(str(config)).findings if f.severity == "error")
    assert (finding.id, finding.key, finding.line) == ("unknown-gpu", "hardware.gpu", 6)
    config.write_text(NATIVE.replace("wan2.1", "wan9.1"), encoding="utf-8")
    (finding,) = (f for f in inspect(str(config), gpu="a100-80gb").findings if f.severity == "error")
    assert (finding.id, finding.key, finding.line) == ("unknown-model", "model.name", 2)


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 5),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.integers(-1, 3), max_size=3),
)


@given(data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_value_anywhere_makes_it_raise(data: st.DataObject, tmp_path: Path) -> None:
    name = data.draw(st.sampled_from(sorted(VERDICTS)))
    content = yaml.safe_load((CONFIGS / name).read_text(encoding="utf-8"))
    place: Any = content
    while True:
        key = data.draw(st.sampled_from(sorted(place, key=str)))
        if not isinstance(place[key], dict) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = data.draw(SCALARS)
    config = tmp_path / "mutated.yaml"
    config.write_text(yaml.safe_dump(content), encoding="utf-8")
    result = inspect(str(config), gpu="a100-80gb")
    assert result.verdict in ("fits", "tight", "does-not-fit", "cannot-judge")
    assert result.passes() or result.findings
