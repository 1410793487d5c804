"""`preflight plan CONFIG`: operations, time and cost of a real run, the same elsewhere, and the laws between them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from preflight import catalog
from preflight.cli import main
from preflight.job import Job, job
from preflight.judge import judge_job
from preflight.memory.model import build
from preflight.planning.run import Prices, RunPlan, length, plan
from preflight.planning.schedule import on_gpus, steps_for, steps_in_epochs
from preflight.planning.step_flops import step_flops
from preflight.spec import Spec

H100 = catalog.gpu("h100-80gb")
WAN: dict[str, Any] = {
    "preflight": 1,
    "model": {"name": "wan2.1-t2v-1.3b"},
    "train": {"method": "lora", "lora": {"rank": 32}, "batch": 1, "accumulation": 2, "checkpointing": True},
    "data": {"height": 480, "width": 832, "frames": 49},
    "precision": {"weights": "bf16", "autocast": "bf16"},
    "parallel": {"gpus": 4, "strategy": "fsdp"},
    "hardware": {"gpu": "h100-80gb"},
}


def _job(**changes: Any) -> Job:
    return job(Spec.from_mapping({**WAN, **changes}), H100)


def _plan(work: Job, **options: Any) -> RunPlan:
    given_ = {
        "utilisations": (0.3, 0.4, 0.5),
        "prices": Prices(by_gpu={}),
        "cards": (H100,),
        "counts": (1, 2, 4, 8),
        "threshold": 0.7,
    }
    return plan(work, judge_job(work, 0.7), **{**given_, **options})


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(WAN))
    return str(path)


def _json(capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> dict[str, Any]:
    assert main(["plan", *words, "--json"]) == status
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return answer


def test_a_run_by_hand() -> None:
    work = _job()
    made = _plan(work, steps=500)
    flop = step_flops(work, build(work)).total * 4 * 500
    assert made.step_flop * made.length.steps == flop
    assert made.here.hours == pytest.approx(flop / (4 * 989e12 * 0.4) / 3600)
    assert made.here.cost == pytest.approx((made.here.hours or 0) * 4 * 2.0)
    assert made.here.peak_bytes == judge_job(work, 0.7).memory.peak_bytes


def test_the_text(capsys: pytest.CaptureFixture[str], config: str) -> None:
    assert main(["plan", config, "--training-steps", "2000", "-v"]) == 0
    out = capsys.readouterr().out
    for section in ("[Run]", "[Memory per GPU]", "[Results]", "[Elsewhere]", "[Memory elsewhere]", "[Assumptions]"):
        assert section in out
    assert "2,000 (given)" in out
    assert all(share in out for share in ("30%", "40%", "50%"))
    assert all(name in out for name in ("h200-141gb", "v100-32gb", "rtx4090-24gb"))


def test_a_config_that_does_not_fit_is_planned_and_fails(capsys: pytest.CaptureFixture[str], config: str) -> None:
    found = _json(capsys, config, "--set", "train.checkpointing=false", "--gpu-type", "rtx4090-24gb", status=1)
    assert found["verdict"] == "does-not-fit"
    assert any(place["verdict"] == "fits" for place in found["elsewhere"])
    assert all(place["cost_usd"] is None or place["cost_usd"] > 0 for place in found["elsewhere"])


def test_a_config_that_cannot_be_read_is_reported_as_always(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["plan", str(tmp_path / "missing.yaml")]) == 1
    assert "does not exist" in capsys.readouterr().out
    assert _json(capsys, str(tmp_path / "missing.yaml"), status=1)["schema"] == "preflight.report/1"


def test_the_places_are_all_there(capsys: pytest.CaptureFixture[str], config: str) -> None:
    found = _json(capsys, config, "--compare", "A100,l40s-48gb", "--counts", "2,3,8")
    assert {(p["gpu"], p["gpus"]) for p in found["elsewhere"]} == {
        (gpu, n) for gpu in ("h100-80gb", "a100-80gb", "l40s-48gb") for n in (2, 3, 8)
    }
    everything = _json(capsys, config, "--compare", "all", "--counts", "4")
    assert len(everything["elsewhere"]) == len(catalog.gpus())


def test_gpus_that_do_not_divide_into_replicas_are_said() -> None:
    work = _job(parallel={"gpus": 4, "strategy": "fsdp", "sequence": 2})
    verdicts = {place.gpus: place.verdict for place in _plan(work, counts=(1, 2, 3, 4)).elsewhere}
    assert (verdicts[1], verdicts[3]) == ("indivisible", "indivisible")
    assert "indivisible" not in (verdicts[2], verdicts[4])


def test_another_number_of_gpus(capsys: pytest.CaptureFixture[str], config: str) -> None:
    found = _json(capsys, config, "-n", "2", "--samples", "4000")
    assert (found["here"]["gpus"], found["run"]["effective_batch"]) == (2, 8)
    with pytest.raises(SystemExit) as stopped:
        main(["plan", config, "-n", "3", "--set", "parallel.sequence=2"])
    assert stopped.value.code == 2


def test_hours_buy_steps(capsys: pytest.CaptureFixture[str], config: str) -> None:
    found = _json(capsys, config, "-t", "10", "--mfu", "0.4")
    assert found["mfu"][0]["wall_hours"] == pytest.approx(10, rel=0.01)
    assert found["mfu"][0]["wall_hours"] <= 10


def test_prices_of_one_kind_of_gpu(capsys: pytest.CaptureFixture[str], config: str) -> None:
    words = (config, "--compare", "a100-80gb", "--gpu-price", "3", "--gpu-price", "A100=1")
    prices = {place["gpu"]: place["price_usd"] for place in _json(capsys, *words)["elsewhere"]}
    assert prices == {"h100-80gb": 3.0, "a100-80gb": 1.0}


def test_how_long_the_run_is() -> None:
    spec = Spec.from_mapping(WAN)  # 8 samples a step
    assert length(spec).steps == 1000
    assert "--training-steps" in length(spec).source
    assert length(spec, steps=7).steps == 7
    assert length(spec, samples=100, epochs=2).steps == 24  # whole batches
    assert length(spec, affordable=3).steps == 3
    assert length(Spec.from_mapping({**WAN, "schedule": {"steps": 40}})).steps == 40
    assert length(Spec.from_mapping({**WAN, "schedule": {"steps": 40, "unit": "pass"}})).steps == 20
    assert length(Spec.from_mapping({**WAN, "schedule": {"samples": 80, "epochs": 3}})).steps == 30


@pytest.mark.parametrize(
    "words",
    [
        ["-r", "720p"],
        ["--fps", "10"],
        ["-s", "10"],
        ["--training-steps", "0"],
        ["--samples", "nan"],
        ["--epochs", "-1"],
        ["--counts", "0,1"],
        ["--counts", "x"],
        ["--compare", "H1000"],
        ["--gpu-price", "H1000=2"],
        ["--gpu-price", "a100-80gb=0"],
        ["--mfu", "0.3,2"],
        ["-n", "0"],
        ["--plot", "gif"],
        ["--plot", "/nonexistent/folder/x.svg"],
    ],
)
def test_bad_values_are_one_sentence(capsys: pytest.CaptureFixture[str], config: str, words: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["plan", config, *words])
    assert stopped.value.code == 2
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)


@settings(deadline=None, max_examples=20)
@given(price=st.floats(0.1, 50), mfu=st.floats(0.05, 0.9))
def test_doubling_the_price_doubles_the_cost_and_nothing_else(price: float, mfu: float) -> None:
    work = _job()
    cheap, dear = (_plan(work, utilisations=(mfu,), prices=Prices(default=p, by_gpu={}), counts=(4, 8)) for p in (price, 2 * price))
    assert dear.here.cost == pytest.approx(2 * (cheap.here.cost or 0))
    for one, two in zip(cheap.elsewhere, dear.elsewhere, strict=True):
        assert two.cost == pytest.approx(2 * (one.cost or 0))
        assert (two.hours, two.peak_bytes, two.verdict, two.flop) == (one.hours, one.peak_bytes, one.verdict, one.flop)
        assert dear.affordable_steps(two) == cheap.affordable_steps(one)


@pytest.mark.parametrize("strategy", ["fsdp", "zero1", "zero2", "zero3"])
def test_more_gpus_never_raise_the_states_on_each(strategy: str) -> None:
    held = []
    for gpus in (2, 4, 8, 16):
        parallel = {"gpus": gpus, "strategy": strategy}
        work = _job(train={"method": "full", "batch": 1, "checkpointing": True}, parallel=parallel)
        resident = judge_job(work, 0.7).case.budget.resident
        held.append(resident.network + resident.optimizer + resident.adapters)
    assert held == sorted(held, reverse=True)


@settings(deadline=None, max_examples=20)
@given(count=st.integers(0, 4))
def test_twice_the_gpus_take_half_the_time_for_the_same_money(count: int) -> None:
    made = _plan(_job(train={**WAN["train"], "accumulation": 64}), samples=64 * 32 * 100, counts=(2**count, 2 ** (count + 1)))
    few, many = made.elsewhere
    assert many.hours == pytest.approx((few.hours or 0) / 2)
    assert many.cost == pytest.approx(few.cost or 0)


@given(gpus=st.integers(1, 64), batch=st.integers(1, 8), accumulation=st.integers(1, 16))
def test_the_effective_batch_never_shrinks_with_the_place(gpus: int, batch: int, accumulation: int) -> None:
    spec = Spec.from_mapping({**WAN, "train": {**WAN["train"], "batch": batch, "accumulation": accumulation}})
    moved = on_gpus(spec, gpus)
    assert moved is not None
    assert spec.effective_batch <= moved.effective_batch < spec.effective_batch + batch * gpus


@given(samples=st.integers(1, 10**9), batch=st.integers(1, 4096))
def test_enough_steps_and_not_one_too_many(samples: int, batch: int) -> None:
    steps = steps_for(samples, batch)
    assert (steps - 1) * batch < samples <= steps * batch


@given(samples=st.integers(1, 10**9), epochs=st.integers(1, 100), batch=st.integers(1, 4096))
def test_epochs_are_of_whole_batches(samples: int, epochs: int, batch: int) -> None:
    assert steps_in_epochs(samples, epochs, batch) == max(1, samples // batch) * epochs


def test_the_documented_data_set() -> None:
    assert steps_in_epochs(170_180, 1, 32) == 5318


@pytest.mark.parametrize("kind", ["svg", "png"])
def test_the_chart_is_drawn(tmp_path: Path, config: str, kind: str) -> None:
    pytest.importorskip("matplotlib", reason="charts need the plot extra")
    path = tmp_path / f"plan.{kind}"
    assert main(["plan", config, "--training-steps", "2000", "--plot", str(path)]) == 0
    written = path.read_bytes()
    assert written.startswith(b"\x89PNG" if kind == "png" else b"<?xml")
    assert kind == "png" or b"wall hours" in written


def test_a_chart_marks_where_it_stops_fitting(tmp_path: Path, config: str) -> None:
    pytest.importorskip("matplotlib", reason="charts need the plot extra")
    path = tmp_path / "plan.svg"
    words = [
        "--set",
        "train.method=full",
        "--set",
        "train.lora=null",
        "--set",
        "precision.weights=fp32",
        "--gpu-type",
        "rtx4090-24gb",
    ]
    main(["plan", config, *words, "--plot", str(path)])
    assert "does not fit" in path.read_text(encoding="utf-8")
