"""What is offered holds: written into the file and checked again it fits, in the fewest and least steps, always the same."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from preflight import catalog
from preflight.advice import candidates
from preflight.advice.elsewhere import fewest_gpus, smallest_gpu
from preflight.advice.moves import LOSSY, moves
from preflight.advice.search import Search
from preflight.advice.words import changes
from preflight.cli import main
from preflight.editing.mend import mended
from preflight.job import Job, job
from preflight.judge import judge, judge_job
from preflight.pipeline import inspect
from preflight.report import Result
from preflight.spec import Spec

ROOT = Path(__file__).parent.parent
CONFIGS = ROOT / "configs"
CORPUS = ROOT.parent / "shared" / "corpus"
FOLDERS = ("diffsr/seed_ocean_agent", "diffsr/diffsr_upstream", "diffsr/diffsr_forks", "hunyuandit/forks")
FILES = [path for folder in FOLDERS for path in sorted((CORPUS / folder).glob("*.y*ml"))]

NATIVE: dict[str, Any] = {
    "preflight": 1,
    "model": {"name": "wan2.1-t2v-1.3b"},
    "train": {"method": "lora", "lora": {"rank": 32, "targets": ["to_q", "to_v"]}, "batch": 4, "accumulation": 3},
    "data": {"height": 480, "width": 832, "frames": 33, "latents": "online", "text": "online"},
    "precision": {"weights": "bf16", "autocast": "bf16"},
    "parallel": {"gpus": 2, "strategy": "ddp"},
}


def quietly(*words: str) -> tuple[int, str]:
    out = io.StringIO()
    with redirect_stdout(out), redirect_stderr(io.StringIO()):
        status = main(words)
    return status, out.getvalue()


def fixed(config: Path, folder: Path, result: Result, memory: str) -> None:
    """Every offer of `result`, written into a copy of `config`, passes from the command line, and is written once.

    The best is written from there as well; the others, for which it would search anew, by what `--fix` calls with what is known.
    """
    flags = ("--gpu-memory", memory)
    for number in range(1, len(result.reductions) + 1):
        copy = folder / f"{number}{config.suffix}"
        copy.write_bytes(config.read_bytes())
        if number == 1:
            status, said = quietly(str(copy), *flags, "--fix")
            assert status == 0, (result.reductions[0], said)
        else:
            judge = partial(_judged, str(copy), float(memory))
            mended(replace(result, config=str(copy)), number, judge).write()
        once = copy.read_bytes()
        status, said = quietly(str(copy), *flags, "--fix", "--format", "json")
        assert status == 0, (result.reductions[number - 1], said)
        assert copy.read_bytes() == once
        (again,) = json.loads(said)["results"]
        assert again["memory"]["peak_bytes"] == result.reductions[number - 1].peak_bytes


def _judged(path: str, memory: float, text: str) -> Result:
    return inspect(path, text=text, gpu_memory_gib=memory)


MODELS = ("wan2.1-t2v-1.3b", "wan2.2-ti2v-5b", "hunyuandit-v1.2-g2", "ltx-video-2b", "sd3-medium")


@st.composite
def natives(draw: st.DrawFn) -> dict[str, Any]:
    lora = {"method": "lora", "lora": {"rank": draw(st.sampled_from([8, 32, 128]))}}
    name = draw(st.sampled_from(MODELS))
    network = catalog.network(name)
    step = network.pixel_multiple or 16
    frames = 1 + (network.frame_step or 0) * draw(st.integers(0, 8))
    gpus = draw(st.sampled_from([1, 2, 4]))
    latents = draw(st.sampled_from(["cached", "online", "offloaded"]))
    return {
        "preflight": 1,
        "model": {"name": name},
        "train": {
            **(lora if draw(st.booleans()) else {"method": "full"}),
            "batch": draw(st.integers(1, 6)),
            "accumulation": draw(st.integers(1, 4)),
            "checkpointing": draw(st.booleans()),
            "optimizer": {"name": draw(st.sampled_from(["adamw", "adafactor", "sgd"]))},
        },
        "data": {
            "height": step * draw(st.integers(8, 32)),
            "width": step * draw(st.integers(8, 32)),
            "frames": frames,
            "latents": latents,
            "text": draw(st.sampled_from(["cached", "online"])),
        },
        "precision": {"weights": "bf16", "autocast": draw(st.sampled_from(["bf16", None]))},
        "parallel": {"gpus": gpus, "strategy": draw(st.sampled_from(["ddp", "fsdp", "zero2"])) if gpus > 1 else "none"},
    }


@given(spec=natives(), memory=st.sampled_from(["8", "12", "16", "24"]))
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_offer_on_any_spec_passes_once_written(
    spec: dict[str, Any], memory: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("native")
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(spec, sort_keys=False), encoding="utf-8")
    result = inspect(str(config), gpu_memory_gib=float(memory))
    if result.verdict == "does-not-fit":
        assert result.reductions or any(finding.id == "no-reduction" for finding in result.findings)
        assert inspect(str(config), gpu_memory_gib=float(memory)).reductions == result.reductions
        fixed(config, folder, result, memory)


@pytest.mark.skipif(not FILES, reason=f"{CORPUS} is not on this machine")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem[-40:])
def test_a_config_of_the_corpus_that_does_not_fit_gets_an_offer_that_passes_or_a_reason(path: Path, tmp_path: Path) -> None:
    for memory in ("8", "16", "24"):
        result = inspect(str(path), gpu_memory_gib=float(memory))
        if result.verdict == "does-not-fit":
            assert result.reductions or any(finding.id == "no-reduction" for finding in result.findings)
            if not any(finding.severity == "error" and finding.id not in ("memory", "activations") for finding in result.findings):
                fixed(path, tmp_path, result, memory)


@pytest.mark.parametrize("memory", ["8", "16", "24"])
@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_an_example_that_does_not_fit_gets_an_offer_that_passes_or_a_reason(path: Path, memory: str, tmp_path: Path) -> None:
    result = inspect(str(path), gpu_memory_gib=float(memory))
    if result.verdict == "does-not-fit":
        assert result.reductions or any(finding.id == "no-reduction" for finding in result.findings)
        fixed(path, tmp_path, result, memory)


def work(memory: float, **changed: dict[str, Any]) -> Job:
    data = {**NATIVE, **{name: {**NATIVE.get(name, {}), **values} for name, values in changed.items()}}
    return job(Spec.from_mapping(data), catalog.custom_gpu(memory))


@pytest.mark.parametrize("memory", [19.0, 20.0, 22.0])
def test_no_earlier_step_of_a_move_fits(memory: float) -> None:
    search = Search(job=work(memory, data={"latents": "cached", "text": "cached"}), threshold=0.7)
    settled = 0
    for move in moves(accumulates=True):
        spec = search.settled((move,))
        if spec is None:
            continue
        settled += 1
        steps = [move.apply(search.job, value) for value in move.values(search.job)]
        assert not any(search.fits(step) for step in steps[: steps.index(spec)][-3:])
        assert search.fits(spec)
    assert settled


def test_a_smaller_batch_keeps_the_effective_batch_where_the_trainer_accumulates() -> None:
    here = work(12.0)
    batch = next(move for move in moves(accumulates=True) if move.name == "batch")
    for value in batch.values(here):
        after = batch.apply(here, value)
        assert after.effective_batch == here.spec.effective_batch
        assert after.train.batch < here.spec.train.batch


def test_gpus_that_share_a_sample_keep_the_effective_batch() -> None:
    here = work(12.0, parallel={"gpus": 4, "strategy": "fsdp"})
    split = next(move for move in moves(accumulates=True) if move.name == "split")
    found = [split.apply(here, value) for value in split.values(here)]
    assert [spec.parallel.sequence for spec in found] == [2, 4]
    assert {spec.effective_batch for spec in found} == {here.spec.effective_batch}


@pytest.mark.parametrize("name", ["wan2.1-t2v-14b", "ltx-video-2b", "hunyuandit-v1.2-g2", "sd3-medium", "cogvideox-2b"])
@given(height=st.integers(4, 60), width=st.integers(4, 60), frames=st.integers(0, 12))
@settings(max_examples=25, deadline=None)
def test_every_shape_that_is_looked_at_is_legal_and_in_order(name: str, height: int, width: int, frames: int) -> None:
    network = catalog.network(name)
    step = network.pixel_multiple or 16
    count = 1 + frames * (network.frame_step or 0)
    data = {"height": height * step, "width": width * step, "frames": count}
    here = job(Spec.from_mapping({**NATIVE, "model": {"name": name}, "data": data}), None)
    for sizes, smaller in ((candidates.sizes(here), True), (candidates.larger_sizes(here), False)):
        assert all(h % step == 0 and w % step == 0 for h, w in sizes)
        areas = [h * w for h, w in sizes]
        assert areas == sorted(areas, reverse=smaller)
        assert all((area < data["height"] * data["width"]) is smaller for area in areas)
    for counts in (candidates.frames(here), candidates.larger_frames(here)):
        assert all((n - network.frame_offset) % (network.frame_step or 1) == 0 and n >= 1 for n in counts)
        assert count not in counts


def test_from_a_size_of_the_authors_the_next_are_theirs() -> None:
    here = work(12.0, data={"height": 720, "width": 1280}, model={"name": "wan2.1-t2v-14b"})
    assert candidates.sizes(here)[0] == (480, 832)
    lower = work(12.0, data={"height": 480, "width": 832}, model={"name": "wan2.1-t2v-14b"})
    assert candidates.larger_sizes(lower) == [(720, 1280)]


def test_changes_that_are_made_without_a_loss_come_first() -> None:
    for name in ("train_v100.yaml", "train_a100.yaml", "train_ti2v_5b.yaml"):
        result = inspect(str(CONFIGS / name), gpu_memory_gib=20)
        lossy = [bool({"data.frames", "data.height", "train.lora.rank"} & set(offer.changes)) for offer in result.reductions]
        assert lossy == sorted(lossy)


def test_the_plan_for_two_v100_is_mended_as_an_engineer_would() -> None:
    offers = inspect(str(CONFIGS / "train_v100.yaml")).reductions
    assert offers
    assert all(offer.changes.get("precision.autocast") == "fp16" for offer in offers[:2]), "fused attention before all else"
    assert "data.frames" not in offers[0].changes


def test_gaps_between_blocks_are_named_where_only_they_are_too_much() -> None:
    path = str(CONFIGS / "train_ti2v_5b.yaml")
    memory = inspect(path, gpu="a100-80gb").memory
    allocated = max(phase.allocated_bytes or 0 for phase in memory.phases)
    found = [inspect(path, gpu_memory_gib=size) for size in range(20, 40)]
    for result in (result for result in found if result.verdict == "does-not-fit"):
        named = any(finding.id == "fragmentation" for finding in result.findings)
        assert named is (allocated <= (result.memory.usable_bytes or 0))


def test_offers_are_few() -> None:
    for path in CONFIGS.glob("*.yaml"):
        assert len(inspect(str(path), gpu_memory_gib=6).reductions) <= 6


def test_what_nothing_helps_is_told_where_it_would_fit() -> None:
    result = inspect(str(CONFIGS / "hunyuandit_lora.yaml"), gpu_memory_gib=4)
    assert result.reductions == ()
    (finding,) = (finding for finding in result.findings if finding.id == "no-reduction")
    assert "alone take" in finding.message
    assert "as it stands it fits on NVIDIA" in (finding.fix or "")


def test_the_smallest_gpu_is_the_smallest_that_holds_it() -> None:
    here = work(6.0, train={"batch": 2})
    card = smallest_gpu(here, 0.7)
    assert card is not None
    assert judge(here.spec, card, 0.7).verdict == "fits"
    for other in catalog.gpus():
        if other.memory_bytes < card.memory_bytes:
            assert judge(here.spec, other, 0.7).verdict != "fits"


def test_one_gpu_fewer_would_not_do() -> None:
    here = work(
        14.0,
        model={"name": "wan2.1-t2v-14b"},
        data={"frames": 1, "latents": "cached", "text": "cached"},
        train={"batch": 1, "checkpointing": True},
    )
    count = fewest_gpus(here, 0.7)
    assert count is not None
    assert count > 2
    for gpus, verdict in ((count, True), (count - 1, False)):
        parallel = replace(here.spec.parallel, gpus=gpus, strategy="fsdp")
        assert (judge_job(here.with_spec(replace(here.spec, parallel=parallel)), 0.7).verdict == "fits") is verdict


@pytest.mark.parametrize(("name", "flags"), [("fno_ocean.yaml", {}), ("train_ti2v_5b.yaml", {"gpu": "a100-40gb"})])
def test_what_there_is_room_for_fits_and_one_step_more_does_not(name: str, flags: dict[str, Any], tmp_path: Path) -> None:
    path = CONFIGS / name
    result = inspect(str(path), grow=True, **flags)
    assert result.verdict == "fits"
    assert result.reductions
    assert inspect(str(path), **flags).reductions == ()
    batch = next(offer for offer in result.reductions if "train.batch" in offer.changes)
    (key, most), *_ = batch.keys.items()
    for size, fits in ((most, True), (most + 1, False)):
        assert (inspect(str(path), overrides=[f"{key}={size}"], **flags).verdict == "fits") is fits
    copy = tmp_path / name
    copy.write_bytes(path.read_bytes())
    words = [f"--gpu={flags['gpu']}"] if flags else []
    for number in range(1, len(result.reductions) + 1):
        assert quietly(str(copy), *words, "--grow", "--diff", "--choose", str(number))[0] == 0


def test_changes_are_the_leaves_that_differ() -> None:
    spec = Spec.from_mapping(NATIVE)
    other = replace(spec, train=replace(spec.train, checkpointing={"fraction": 0.5}, batch=2))
    assert changes(spec, other) == {"train.checkpointing": {"fraction": 0.5}, "train.batch": 2}
    assert changes(spec, spec) == {}


def test_no_move_without_a_loss_touches_what_is_learnt() -> None:
    here = work(12.0)
    for move in moves(accumulates=True):
        for value in move.values(here) if move.tier < LOSSY else ():
            after = move.apply(here, value)
            shape = (after.data.height, after.data.width, after.data.frames, after.train.lora)
            assert shape == (here.spec.data.height, here.spec.data.width, here.spec.data.frames, here.spec.train.lora)
