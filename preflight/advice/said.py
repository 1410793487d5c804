"""A change in the user's own keys, and what the trainer makes of the config with them: at times more than was asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from preflight.advice.moves import Move
from preflight.advice.words import changed, changes
from preflight.job import Job
from preflight.spec import Spec

# What is learnt, and from how much at once: changed by no key that was meant for something else.
DEAR = ("data.frames", "data.height", "data.width", "train.batch", "train.lora.rank")


@dataclass(frozen=True, kw_only=True, slots=True)
class Restated:
    """Changes in the user's own `keys`, and the `spec` that the trainer's adapter reads from the config with them."""

    keys: Mapping[str, Any]
    spec: Spec


Restate = Callable[[Mapping[str, Any]], Restated | None]


def said(before: Spec, after: Spec, chosen: Sequence[Move], restate: Restate) -> Restated | None:
    """`after` in the user's keys, when they say all that the moves need, and nothing of what is dear that they do not."""
    wanted = changes(before, after)
    brought = {path for move in chosen for path in move.brings} - {path for move in chosen for path in move.needs}
    restated = restate({path: value for path, value in wanted.items() if path not in brought})
    if restated is None:
        return None
    now = changes(before, restated.spec)
    needed = {path for move in chosen for path in move.needs} & wanted.keys()
    if any(now.get(path) != wanted[path] for path in needed):
        return None
    return restated if all(path in wanted for path in (*DEAR, "parallel.strategy") if path in now) else None


def as_read(job: Job, move: Move, restate: Restate) -> Move | None:
    """The move with what the trainer's key for it changes besides; None where it has no step, or the trainer no key.

    One key may do several things (a `low_vram` also sends the text encoder away).
    """
    values = move.values(job)
    if not values:
        return None
    for value in (values[-1], values[0]):
        after = move.apply(job, value)
        restated = said(job.spec, after, (move,), restate)
        if restated is not None:
            break
    else:
        return None
    brings = {path: value for path, value in changes(after, restated.spec).items() if path not in DEAR}
    if len(values) > 1 or not brings:
        return move

    def apply(job: Job, value: Any) -> Spec:
        return changed(move.apply(job, value), brings)

    return replace(move, apply=apply, brings=brings)
