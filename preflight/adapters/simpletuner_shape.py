"""The largest sample that a SimpleTuner run trains on, from its data sets or from the config's own keys."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from preflight.adapters.draft import Draft
from preflight.adapters.simpletuner_data import BACKENDS, Sample, Usual, entries, named, samples, single, smaller
from preflight.adapters.simpletuner_network import family

Spell = Callable[[Mapping[str, Any]], dict[str, Any]]
SHAPE = ("data.width", "data.height", "data.frames")


def settle(run: Draft) -> Usual:
    """Puts data.width, data.height, data.frames and train.batch into `run`. Raises ConfigError for sizes that cannot be."""
    usual = _usual(run)
    found = samples(run.document, usual)
    if found:
        _put(run, max(found, key=lambda sample: sample.extent))
    else:
        _alone(run, usual)
    return usual


def _usual(run: Draft) -> Usual:
    """What holds for a data set that says nothing of it."""
    known = family(run)
    alignment = 64 if "5b" in str(run.get("_flavour")).lower() and known.alignment == 32 else known.alignment
    frames = int(run.get("_clip", 5 * int(run.get("_framerate", known.framerate)))) if known.video else 1
    width, height = (run.get(f"sample.{side}", 1) for side in ("width", "height"))
    return Usual(
        resolution=run.get("_resolution"),
        resolution_type=run.get("_resolution_type"),
        alignment=alignment or run.get("_alignment"),
        frames=known.frames,
        clip=frames,
        aspect=width / height if "sample.width" in run.origins else 1.0,
        batch=run.get("train.batch"),
    )


def _put(run: Draft, largest: Sample) -> None:
    resolution, frames, batch = (f"{largest.key}.{name}" for name in ("resolution", "video.num_frames", "train_batch_size"))
    for path, value, key in (
        ("data.width", largest.width, resolution),
        ("data.height", largest.height, resolution),
        ("data.frames", largest.frames, frames),
    ):
        run.put(path, value)
        if run.document.position(key) is not None:
            run.origins[path] = key
    if largest.batch != run.get("train.batch"):
        run.put("train.batch", largest.batch)
        run.origins["train.batch"] = batch
    if not largest.sized:
        _aspect(run, largest, resolution)


def _aspect(run: Draft, sample: Sample, key: str) -> None:
    shown = f"{sample.width}x{sample.height}"
    whose = "that of validation_resolution" if "sample.width" in run.origins else "a square"
    if sample.kind == "pixel":
        message = f"only the shorter side is given; {shown} is counted, as {whose} would be, and a longer side needs more."
        run.findings.append(run.document.finding("aspect-assumed", "warning", message, key=key))
    else:
        message = f"only the area is given; {shown} is counted, as {whose} would be: another aspect differs by some percent."
        run.findings.append(run.document.finding("aspect-assumed", "note", message, key=key))


def _alone(run: Draft, usual: Usual) -> None:
    """Without the data sets: `resolution`, and for video the frames that are validated."""
    known = family(run)
    key = named(run.document)
    told = run.document.data.get(BACKENDS, run.document.data.get(key))
    clip = "_clip" if "_clip" in run.origins else "sample.frames" if "sample.frames" in run.origins else None
    if known.video and (clip == "sample.frames" or (known.stills and clip is None)):
        usual = replace(usual, clip=run.get("sample.frames") if clip else 1)
    sample = single(run.get("_resolution"), run.get("_resolution_type"), usual)
    source = "the data sets' own file says it, and is not there"
    for path, value, like in (
        ("data.width", sample.width, "_resolution"),
        ("data.height", sample.height, "_resolution"),
        ("data.frames", sample.frames if known.video else 1, clip),
    ):
        if like in run.origins:
            run.put(path, value, like=like)
        else:
            run.assume(path, value, source)
    shown = "x".join(str(run.get(path)) for path in (SHAPE if known.video else SHAPE[:2]))
    if isinstance(told, list):
        message = f"{BACKENDS} has no data set that is trained on; {shown} is counted, as the config's own keys make it."
        run.findings.append(run.document.finding("no-data-set", "warning", message, key=key))
        return
    missing = f"{told} is not there" if isinstance(told, str) else f"{BACKENDS} is not given"
    own = " and --set video.num_frames=N" if known.video else ""
    message = f"{missing}, which says how large samples are; {shown} is counted, as the config's own keys make it."
    fix = f"run preflight where the file is found, or give --set resolution=N{own}"
    run.findings.append(run.document.finding("file-not-read", "warning", message, key=key, fix=fix))


def spell(run: Draft, usual: Usual, rest: Spell, changes: Mapping[str, Any]) -> dict[str, Any]:
    """`changes` by the user's keys: a size by the resolution and the frames of each data set that is larger."""
    wanted = {path: value for path, value in changes.items() if run.settled.get(path) != value}
    if run.origins.get("data.frames") == run.origins.get("sample.frames"):  # clips are taken for as long as what is validated
        wanted.pop("sample.frames", None)
    shape = {path: wanted.pop(path) for path in SHAPE if path in wanted}
    answer = rest(wanted)
    if not shape:
        return answer
    width, height, frames = (int(shape.get(path, run.get(path))) for path in SHAPE)
    if any(True for _ in entries(run.document)):
        return {**answer, **smaller(run.document, usual, (width, height, frames))}
    if "data.frames" in shape and "_clip" in run.origins:
        answer["video.num_frames"] = frames
    if {"data.width", "data.height"} & set(shape):
        edge = smallest_edge(width, height, usual)
        answer.update(rest({"_resolution": edge}))
    return answer


def smallest_edge(width: int, height: int, usual: Usual) -> float:
    """The config's own `resolution` whose samples are no larger than `width` by `height`."""
    edge = math.isqrt(width * height) // usual.alignment * usual.alignment or usual.alignment
    if usual.resolution_type == "pixel":
        return max(usual.alignment, min(width, height) // usual.alignment * usual.alignment)
    return round(edge * edge / 1e6, 4) if usual.resolution_type == "area" else edge
