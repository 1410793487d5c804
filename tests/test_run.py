"""The run as a whole: its steps, what it writes, and how often; laws, and the arithmetic that is written out here by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preflight import adapters, catalog, document, listing
from preflight.checkpoints import checkpoint, images, most
from preflight.checks.case import Case
from preflight.files import Place, free_bytes, place
from preflight.judge import judge
from preflight.schedule import course
from preflight.spec import Data, Model, Parallel, Save, Schedule, Spec, Train

CONFIGS = Path(__file__).parent.parent / "configs"
SIZE = st.integers(1, 10**6)
MAYBE = st.none() | SIZE


def case(name: str) -> Case:
    config = document.read(str(CONFIGS / name))
    spec = Spec.from_mapping(adapters.detect(config).read(config).spec)
    assert spec.hardware.gpu is not None
    return judge(spec, catalog.gpu(spec.hardware.gpu), 0.7).case


def run(**schedule: Any) -> Spec:
    return Spec(
        model=Model(name="x"), train=Train(method="full"), data=Data(height=8, width=8), schedule=Schedule(**schedule), save=Save()
    )


def test_sharing_a_sample_doubles_the_steps() -> None:
    spec = case("train_v100.yaml").job.spec
    assert spec.effective_batch == 1 * 16 * (2 // 2)
    assert course(spec).epoch == 170_180 // 16 == 10_636
    apart = replace(spec, parallel=replace(spec.parallel, sequence=1))
    assert course(apart).epoch == 170_180 // 32 == 5_318
    assert course(spec).steps == 3 * 10_636


def test_epochs_and_step_limit_agree_where_they_were_meant_to() -> None:
    spec = case("hunyuandit_waymo.yaml").job.spec
    found = course(spec)
    assert (found.epoch, found.total, found.epochs) == (50_000 // (12 * 8), 200 * 520, 200)
    assert found.exact


def test_a_lora_checkpoint_is_its_adapters() -> None:
    found = case("train_v100.yaml")
    one = checkpoint(found.job, found.model)
    parameters = 40 * 8 * (5120 * 16 + 16 * 5120)
    assert one.weights == parameters * 4 == 200 * 2**20  # and not 487 MB
    assert one.optimizer > 2 * parameters  # two states of a byte each, and one float32 for each 256 of them
    assert one.optimizer - 2 * parameters - 2 * 4 * parameters // 256 < 2**20


def test_a_hundred_checkpoints_on_eight_gpus_are_80_mb_of_images() -> None:
    job = case("hunyuandit_waymo.yaml").job
    sample = job.spec.sample
    assert sample is not None
    spec = replace(job.spec, sample=replace(sample, every=1000, every_epochs=None, final=False), schedule=Schedule(steps=100_000))
    written = images(job.with_spec(spec), course(spec))
    assert written is not None
    assert (written.number, written.each, written.nbytes) == (800, 100_000, 80_000_000)


def test_checkpoints_of_steps_epochs_and_the_end_are_counted() -> None:
    spec = case("hunyuandit_waymo.yaml").job.spec
    by_steps, by_epochs, latest, last = 104_000 // 5_000, 200 // 10, 1, 1
    assert most(spec, course(spec)) == by_steps + by_epochs + latest + last


@given(samples=SIZE, batch=SIZE, accumulation=st.integers(1, 64), gpus=st.integers(1, 64), epochs=st.integers(1, 100))
def test_whole_steps_never_read_more_than_there_is(samples: int, batch: int, accumulation: int, gpus: int, epochs: int) -> None:
    spec = run(samples=samples, epochs=epochs)
    spec = replace(spec, train=replace(spec.train, batch=batch, accumulation=accumulation), parallel=Parallel(gpus=gpus))
    found = course(spec)
    assert found.epoch is not None
    assert found.epoch * spec.effective_batch <= samples < (found.epoch + 1) * spec.effective_batch
    assert found.steps == found.epoch * epochs


@given(samples=MAYBE, epochs=MAYBE, steps=MAYBE, every=SIZE)
def test_a_limit_is_never_passed(samples: int | None, epochs: int | None, steps: int | None, every: int) -> None:
    found = course(run(samples=samples, epochs=epochs, steps=steps))
    if steps is not None:
        assert found.total is not None
        assert found.total <= steps
    times = found.times(every)
    assert (times is None) == (found.total is None)
    assert times is None or (found.total is not None and times * every <= found.total)


@given(samples=MAYBE, epochs=MAYBE, steps=MAYBE, every=SIZE, more=SIZE)
def test_a_longer_interval_never_comes_more_often(
    samples: int | None, epochs: int | None, steps: int | None, every: int, more: int
) -> None:
    found = course(run(samples=samples, epochs=epochs, steps=steps))
    assert (found.times(every + more) or 0) <= (found.times(every) or 0)


@given(keep=st.none() | st.integers(1, 50), steps=SIZE, every=SIZE)
def test_keeping_fewer_never_takes_more_disk(keep: int | None, steps: int, every: int) -> None:
    spec = replace(run(steps=steps), save=Save(every=every, keep=keep))
    all_of_them = replace(spec, save=Save(every=every))
    kept, written = most(spec, course(spec)), most(all_of_them, course(all_of_them))
    assert kept is not None
    assert written is not None
    assert 1 <= kept <= written


@given(accumulation=st.integers(1, 64), steps=SIZE)
def test_passes_are_counted_as_the_steps_they_make(accumulation: int, steps: int) -> None:
    by_passes = run(steps=steps * accumulation, unit="pass")
    by_passes = replace(by_passes, train=replace(by_passes.train, accumulation=accumulation))
    assert course(by_passes).steps == steps


def test_places_are_seen(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    assert place(str(tmp_path)) is Place.FOLDER
    assert place(str(tmp_path / "file")) is Place.FILE
    assert place(str(tmp_path / "none")) is Place.MISSING
    assert place(str(tmp_path / "none" / "below"), writing=True) is Place.MISSING
    assert free_bytes(str(tmp_path / "new")) == free_bytes(str(tmp_path))
    assert free_bytes(str(tmp_path / "none" / "below")) is None


@given(st.text(max_size=80))
def test_any_name_is_some_place(name: str) -> None:
    assert place(name) in Place
    assert place(name, writing=True) in Place
    free = free_bytes(name)
    assert free is None or free >= 0


@pytest.mark.parametrize("what", listing.LISTS)
def test_a_list_says_the_same_in_every_form(what: str) -> None:
    data = json.loads(listing.render(what, form="json"))
    assert data["schema"] == "preflight.list/1"
    names = [row["id"] for row in data[what]]
    assert names
    short, long = listing.render(what), listing.render(what, verbose=True)
    assert [line.split()[0] for line in short.splitlines()] == ["id", *names]
    assert [line for line in long.splitlines() if line and not line.startswith(" ")] == names
