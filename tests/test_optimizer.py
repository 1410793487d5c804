"""Optimizer states and update temporaries, against what the optimizers' own code does (counted on the real ones)."""

from __future__ import annotations

import pytest

from preflight import spec
from preflight.finding import ConfigError
from preflight.job import Job, job
from preflight.memory.budget import residents
from preflight.memory.model import Model, build
from preflight.memory.optimizer import BLOCK_8BIT, MIN_8BIT, MIN_PAGED, Optimizer, optimizer, rule


def _run(name: str, *, weights: str = "bf16", bits: int = 32, **options: object) -> tuple[Job, Model, Optimizer]:
    work = job(
        spec.Spec.from_mapping(
            {
                "preflight": 1,
                "model": {"name": "wan2.1-t2v-1.3b"},
                "train": {"method": "full", "optimizer": {"name": name, "bits": bits, **options}},
                "data": {"height": 256, "width": 256, "frames": 5},
                "precision": {"weights": weights},
            }
        ),
        None,
    )
    model = build(work)
    return work, model, optimizer(work, model)


def _states(name: str, **options: object) -> float:
    """State bytes per byte of weights."""
    _, model, found = _run(name, **options)  # type: ignore[arg-type]  # the options are the spec's
    return found.states / model.trainable_bytes


def _largest(model: Model) -> int:
    return max(p.numel for p in model.trainable)


@pytest.mark.parametrize(
    ("name", "low", "wide"),
    [
        ("adamw", 2, 2),
        ("sgd", 1, 1),
        ("lion", 1, 1),
        ("prodigy", 4, 4),
        ("adamw_bf16", 3, 3),
        ("optimi-adamw", 3, 2),
        ("optimi-lion", 2, 1),
        ("AdamW32bit", 4, 2),
        ("rmsprop", 1, 1),
    ],
)
def test_states_per_weight(name: str, low: float, wide: float) -> None:
    assert _states(name) == pytest.approx(low, rel=1e-3)
    assert _states(name, weights="fp32") == pytest.approx(wide, rel=1e-3)


@pytest.mark.parametrize(("name", "most"), [("adafactor", 0.02), ("torch-adafactor", 0.01)])
def test_factored_states_are_a_row_and_a_column(name: str, most: float) -> None:
    assert 0 < _states(name) < most


def test_came_keeps_a_float32_moment_beside_its_factors() -> None:
    assert 2 < _states("came") < 2.05


def test_plain_sgd_keeps_nothing() -> None:
    assert _states("sgd", momentum=False) == 0
    assert _states("torch-sgd", momentum=False) == 0


@pytest.mark.parametrize(
    ("name", "copies"), [("adamw", 1), ("adam", 1), ("adagrad", 2), ("torch-adafactor", 1), ("adamw_torch_fused", 0), ("sgd", 0)]
)
def test_multi_tensor_updates_copy_all_parameters(name: str, copies: int) -> None:
    _, model, found = _run(name)
    assert found.update == copies * model.trainable_bytes


@pytest.mark.parametrize(
    ("name", "low", "wide"), [("prodigy", 4, 8), ("lion", 4, 8), ("adafactor", 20, 12), ("came", 24, 20), ("adamw_bf16", 10, 10)]
)
def test_single_updates_hold_bytes_of_the_largest_parameter(name: str, low: int, wide: int) -> None:
    for weights, each in (("bf16", low), ("fp32", wide)):
        _, model, found = _run(name, weights=weights)
        assert found.update == pytest.approx(each * _largest(model), abs=512)


def test_fused_is_an_option_as_well() -> None:
    assert _run("adamw", fused=True)[2].update == 0


def test_eight_bit_states_are_codes_and_a_constant_a_block() -> None:
    _, model, found = _run("adamw", bits=8)
    expected = 0
    for p in model.trainable:
        each = p.numel * 4 if p.numel < MIN_8BIT else p.numel + -(-p.numel // BLOCK_8BIT) * 4
        expected += 2 * each * p.copies
    assert found.states == pytest.approx(expected, rel=1e-3)
    assert found.update == 0


@pytest.mark.parametrize(
    "name", ["adamw8bit", "AdamW8bit", "adamw_8bit", "adamw_bnb_8bit", "bitsandbytes.optim.AdamW8bit", "bnb-adamw8bit", "Adam8bit"]
)
def test_one_optimizer_has_many_names(name: str) -> None:
    assert _run(name)[2] == _run("adamw", bits=8)[2]


@pytest.mark.parametrize("name", ["paged_adamw_8bit", "PagedAdamW8bit"])
def test_paged_states_leave_the_card(name: str) -> None:
    _, model, paged = _run(name)
    large = sum(p.numel * p.copies for p in model.trainable if p.numel >= MIN_PAGED)
    assert _run("adamw8bit")[2].states - paged.states == pytest.approx(2 * large, rel=1e-3)


def test_eight_bit_kahan_adds_a_shift_of_the_parameters_dtype() -> None:
    _, model, found = _run("AdamW8bitKahan")
    assert found.states == _run("adamw8bit")[2].states + model.trainable_bytes


@pytest.mark.parametrize(("name", "bits"), [("sofia", 32), ("came", 8), ("prodigy", 8)])
def test_what_is_not_known_is_refused(name: str, bits: int) -> None:
    with pytest.raises(ConfigError) as caught:
        _run(name, bits=bits)
    assert caught.value.findings[0].id == "unknown-optimizer"


def test_a_slip_gets_a_suggestion() -> None:
    with pytest.raises(ConfigError) as caught:
        rule(spec.Optimizer(name="adamww"))
    assert caught.value.findings[0].fix == "did you mean adamw?"


@pytest.mark.parametrize(("ema", "dtype", "ratio"), [(False, "fp32", 0), (True, None, 1), (True, "bf16", 1), (True, "fp32", 2)])
def test_the_moving_average_may_have_its_own_dtype(*, ema: bool, dtype: str | None, ratio: int) -> None:
    data = {
        "model": {"name": "wan2.1-t2v-1.3b"},
        "train": {"method": "full", "ema": ema, "ema_dtype": dtype},
        "data": {"height": 256, "width": 256},
    }
    work = job(spec.Spec.from_mapping(data), None)
    model = build(work)
    held = residents(work, model, optimizer(work, model))
    assert held.ema == pytest.approx(ratio * model.trainable_bytes, rel=1e-3)
