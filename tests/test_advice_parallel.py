"""Parallelism and narrow weights as offers: the least degree or stage that is enough; what changes the result comes last."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from preflight import catalog
from preflight.advice.moves import FREE, LOSSY, QUANTIZED, SLOWER, moves
from preflight.advice.search import Search
from preflight.advice.words import loss, words
from preflight.job import Job, job
from preflight.pipeline import inspect
from preflight.spec import Spec

MOVES = {move.name: move for move in moves(accumulates=True)}
FULL: dict[str, Any] = {"method": "full", "checkpointing": True}
LORA: dict[str, Any] = {"method": "lora", "lora": {"rank": 16}, "checkpointing": True, "accumulation": 8}


def _job(gpu: str, train: dict[str, Any] = FULL, name: str = "wan2.1-t2v-1.3b", **more: Any) -> Job:
    data = {"height": 480, "width": 832, "frames": 17}
    return job(Spec.from_mapping({"model": {"name": name}, "train": train, "data": data, **more}), catalog.gpu(gpu))


def _settled(work: Job, *names: str) -> Spec | None:
    return Search(job=work, threshold=0.7).settled([MOVES[name] for name in names])


@pytest.mark.parametrize(
    ("gpu", "parallel"),
    [
        ("a100-40gb", {"gpus": 8, "strategy": "ddp"}),
        ("rtx3090-24gb", {"gpus": 16, "strategy": "zero1"}),
        ("a100-40gb", {"gpus": 4, "strategy": "zero1"}),
    ],
)
def test_the_first_stage_that_is_enough_is_taken(gpu: str, parallel: dict[str, Any]) -> None:
    work = _job(gpu, name="wan2.2-ti2v-5b", parallel=parallel)
    search = Search(job=work, threshold=0.7)
    assert not search.fits(work.spec)
    made = _settled(work, "stage")
    assert made is not None
    values = MOVES["stage"].values(work)
    before = values[: values.index(made.parallel.strategy)]
    assert not any(search.fits(MOVES["stage"].apply(work, value)) for value in before)


def test_stages_are_for_optimizers_that_zero_takes() -> None:
    for optimizer in ({"name": "prodigy"}, {"name": "adamw", "bits": 8}):
        assert (
            MOVES["stage"].values(_job("t4-16gb", {**FULL, "optimizer": optimizer}, parallel={"gpus": 8, "strategy": "ddp"})) == []
        )
    assert MOVES["stage"].values(_job("t4-16gb", parallel={"gpus": 8, "strategy": "zero2"})) == ["zero3"]
    assert MOVES["stage"].values(_job("t4-16gb", parallel={"gpus": 1})) == []


def test_the_fewest_pipeline_stages_are_taken_and_the_batch_is_kept() -> None:
    work = _job("a100-40gb", LORA, "wan2.1-t2v-14b", parallel={"gpus": 4, "strategy": "ddp"})
    smaller = _job("rtx5090-32gb", LORA, "wan2.1-t2v-14b", parallel={"gpus": 4, "strategy": "ddp"})
    assert MOVES["pipeline"].values(work) == [2, 4]
    made = _settled(smaller, "pipeline")
    assert made is not None
    assert made.parallel.pipeline == 2
    assert made.effective_batch == smaller.spec.effective_batch
    assert words(smaller.spec, made).endswith("2 pipeline stages")


def test_blocks_that_are_swapped_and_weights_that_are_divided_stay_in_one_stage() -> None:
    swapped = _job("a100-40gb", LORA, parallel={"gpus": 4, "strategy": "ddp"}, offload={"blocks": 4})
    sharded = _job("a100-40gb", LORA, parallel={"gpus": 4, "strategy": "fsdp"})
    assert MOVES["pipeline"].values(swapped) == MOVES["pipeline"].values(sharded) == []


@pytest.mark.parametrize("name", QUANTIZED)
def test_narrow_weights_cost_some_of_the_result_but_less_than_half_the_pixels(name: str) -> None:
    work = _job("rtx3090-24gb", LORA, "wan2.1-t2v-14b")
    made = MOVES[name].apply(work, True)
    half = MOVES["rank"].apply(work, 8)
    assert MOVES[name].tier == LOSSY
    assert 0 < loss(work.spec, made) < loss(work.spec, half)
    assert words(work.spec, made) == f"frozen weights in {name}"
    assert MOVES[name].values(work.with_spec(made)) == []
    assert MOVES[name].values(_job("rtx3090-24gb")) == []  # nothing is frozen


def test_the_table_goes_from_what_is_free_to_what_changes_the_result() -> None:
    tiers = [move.tier for move in MOVES.values()]
    assert tiers == sorted(tiers)
    assert set(tiers) == {FREE, SLOWER, LOSSY}


def test_an_offer_is_in_the_groups_order_and_fits(tmp_path: Path) -> None:
    """14B parameters of 16 bits are more than the card has; swapped blocks leave the result alone, so they come before fp8."""
    config = tmp_path / "wan.yaml"
    spec = {
        "preflight": 1,
        "model": {"name": "wan2.1-t2v-14b"},
        "train": LORA,
        "data": {"height": 480, "width": 832, "frames": 17},
        "hardware": {"gpu": "rtx4090-24gb"},
    }
    config.write_text(yaml.safe_dump(spec), encoding="utf-8")
    offered = inspect(str(config)).reductions
    quantised = [i for i, each in enumerate(offered) if "precision.quantization" in each.changes]
    swapped = [i for i, each in enumerate(offered) if "offload.blocks" in each.changes]
    assert swapped
    assert quantised
    assert min(swapped) < min(quantised)
