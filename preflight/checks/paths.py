"""Are the files and folders that the config names there?

What: weights, data and checkpoint to resume from exist and can be read; the output is a folder, or can become one, that can be
written. Where none of the inputs is here, this is not the machine that trains, and only that is said.
Why: a missing file stops the run at its start, after the queue; an output that cannot be written stops it at the first checkpoint.
Fix: the path, relative to the folder that the training starts in.
"""

from __future__ import annotations

from preflight.checks.case import Answers, Case, Found
from preflight.files import Place, place

INPUTS = {
    "model": "the weights",
    "train": "the training data",
    "validation": "the validation data",
    "resume": "the checkpoint to resume from",
}


def check(case: Case) -> Answers:
    paths = case.job.spec.paths
    named = {name: path for name in INPUTS if (path := getattr(paths, name)) is not None}
    seen = {name: place(path) for name, path in named.items()}
    here = any(found is not Place.MISSING for found in seen.values())
    if named and not here:
        first = next(iter(named))
        message = f"Nothing that the config reads is on this machine, such as {named[first]}, so none of it was looked at."
        yield Found("note", message if len(named) > 1 else f"{named[first]} is not on this machine.", f"paths.{first}")
    for name, found in seen.items():
        if here and found is Place.MISSING:
            yield Found("warning", f"{named[name]} ({INPUTS[name]}) does not exist.", f"paths.{name}")
        elif found is Place.LOCKED:
            yield Found("warning", f"{named[name]} ({INPUTS[name]}) cannot be read by this user.", f"paths.{name}")
    if paths.output is not None:
        yield from _output(paths.output)


def _output(path: str) -> Answers:
    found = place(path, writing=True)
    if found is Place.FILE:
        yield Found("error", f"{path} is a file, and the run writes a folder of this name.", "paths.output")
    elif found is Place.LOCKED:
        yield Found("warning", f"{path} cannot be written by this user.", "paths.output")
