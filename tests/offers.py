"""Every offer of a result, tried as its reader would: written into a copy, or given with --set, and judged again."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from preflight import catalog
from preflight.advice.moves import Move, moves
from preflight.advice.words import changed
from preflight.cli import main
from preflight.job import job
from preflight.judge import judge_job
from preflight.report import Reduction, Result
from preflight.spec import Spec

#: Moves of several steps, and the canonical keys that each alone decides; what follows from them is recomputed.
STEPPED: Mapping[str, tuple[str, ...]] = {
    "batch": ("train.batch",),
    "swapped": ("offload.blocks",),
    "rank": ("train.lora.rank",),
    "frames": ("data.frames",),
    "size": ("data.height", "data.width"),
}
FOLLOWING: Mapping[str, tuple[str, ...]] = {
    "batch": ("train.accumulation", "sample.batch"),
    "rank": ("train.lora.alpha",),
    "frames": ("sample.frames",),
    "size": ("sample.height", "sample.width"),
}
MEMORY = ("memory", "activations")


def quietly(*words: str) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of `preflight` with these words."""
    out, said = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(said):
        status = main(words)
    return status, out.getvalue(), said.getvalue()


def tree(path: Path, top: Path, beside: tuple[str, ...], folder: Path) -> Path:
    """A writable copy under `folder` of the file's own folder below `top`, and of those `beside` it that configs name files in."""
    for name in {path.parent.relative_to(top).as_posix(), *beside}:
        for file in (top / name).rglob("*"):
            if file.is_file():
                copy = folder / file.relative_to(top)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, copy)  # without its mode: the originals may be read-only
    return folder / path.relative_to(top)


def judged(name: str, memory: str, *words: str) -> tuple[int, list[int | None]]:
    """The exit status, and the peak of each run."""
    status, out, _ = quietly(name, "--gpu-memory", memory, "--format", "json", *words)
    return status, [(run["memory"] or {}).get("peak_bytes") for run in json.loads(out)["results"]]


def settings(offer: Reduction) -> Iterator[str]:
    for key, value in offer.keys.items():
        yield from ("--set", f"{key}={json.dumps(list(value) if isinstance(value, tuple) else value)}")


def broken(path: Path, result: Result, number: int, memory: str) -> Iterator[str]:
    """What is wrong with the offer of that number, once it is in the file at `path`; nothing where it does what it says.

    A launch script, and what stands in another file than the config, is shown and not edited: that is given with --set.
    """
    offer = result.reductions[number - 1]
    name = result.config if path.suffix == ".sh" else str(path)
    others = any(finding.severity == "error" and finding.id not in MEMORY for finding in result.findings)
    if path.suffix == ".sh":
        status, peaks = judged(name, memory, *settings(offer))
    else:
        status, _, said = quietly(name, "--gpu-memory", memory, "--fix", "--choose", str(number))
        if "so it is not edited" in said:
            status, peaks = judged(name, memory, *settings(offer))
        elif f"now has {offer.summary}" not in said or (status and not others):
            yield f"--fix exits {status}, and does not make it {offer.summary}: {said}"
            return
        else:
            status, peaks = judged(name, memory)
    if status and not others:
        yield f"exits {status} with {offer.summary}"
    if offer.peak_bytes not in peaks:
        yield f"takes {peaks} and not {offer.peak_bytes} with {offer.summary}"


def larger(result: Result, offer: Reduction, memory: float) -> Iterator[str]:
    """The next larger steps of an offer that would fit as well, each of them one too many."""
    assert result.spec is not None
    after = changed(result.spec, offer.changes)
    for move in moves(accumulates="train.accumulation" in offer.changes):
        keys = STEPPED.get(move.name, ())
        if not all(key in offer.changes for key in keys) or not keys:
            continue
        was = result.spec.to_mapping()
        undone = {key: _at(was, key) for key in (*keys, *FOLLOWING.get(move.name, ())) if key in offer.changes}
        step = _before(move, changed(after, undone), [offer.changes[key] for key in keys], keys, memory)
        if step is not None and judge_job(job(step, catalog.custom_gpu(memory)), 0.7).verdict == "fits":
            yield f"{move.name}: {[_at(step.to_mapping(), key) for key in keys]} would fit; {offer.summary}"


def _before(move: Move, base: Spec, offered: list[Any], keys: tuple[str, ...], memory: float) -> Spec | None:
    """The run one step before the offered one; None where the offered one is no step of the move."""
    work = job(base, catalog.custom_gpu(memory))
    before = base
    for value in move.values(work):
        made = move.apply(work, value)
        if [_at(made.to_mapping(), key) for key in keys] == offered:
            return before
        before = made
    return None


def _at(data: Any, key: str) -> Any:
    for part in key.split("."):
        data = data.get(part) if isinstance(data, Mapping) else None
    return data
