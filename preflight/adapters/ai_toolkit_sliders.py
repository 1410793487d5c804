"""What a step of ai-toolkit's sliders does beside that of any adapter.

extensions_built_in/concept_slider/ConceptSliderTrainer.py and image_reference_slider_trainer/ImageReferenceSliderTrainerProcess.py
of github.com/ostris/ai-toolkit, commit 27a03a9.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from preflight.adapters.ai_toolkit_memory import PROCESS
from preflight.adapters.draft import Draft
from preflight.finding import ConfigError

CONCEPT, REFERENCE = "concept_slider", "image_reference_slider_trainer"


def kind(run: Draft) -> str | None:
    """The type of the process, where it trains a slider."""
    found = run.document.data["config"]["process"][0].get("type")
    return found if found in (CONCEPT, REFERENCE) else None


def slider(run: Draft) -> None:
    """Settle how many rows of the network's batch a sample makes. Raises ConfigError for a slider without a network block."""
    found = kind(run)
    if found is None:
        return
    process = run.document.data["config"]["process"][0]
    if not isinstance(process.get("network"), Mapping):
        message = f"ai-toolkit refuses {PROCESS} here: {found} sets how strong its adapters are, and there is no network block."
        raise ConfigError(run.document.finding("trainer-refuses", "error", message, key=f"{PROCESS}.type"), *run.findings)
    if found == CONCEPT:
        _concept(run)
    else:
        _pairs(run)


def _concept(run: Draft) -> None:
    """get_guided_loss: positive, target and negative prompt, and the anchor, are asked at once; then there are two passes back.

    The gradients of the first wait through the second.
    """
    anchored = "_anchor" in run.settled
    at = "_anchor" if anchored else None
    run.put("train.rows", 2 if anchored else 1, like=at)
    run.put("train.ahead", 4 if anchored else 3, like=at)
    run.put("train.passes", 2)


def _pairs(run: Draft) -> None:
    """hook_train_loop: both images of each pair in one batch, encoded in every step, as their prompt is."""
    run.put("train.rows", 2)
    size = run.get("_pair_size")
    for path in ("data.width", "data.height", "data.latents", "data.text"):
        run.assumed.pop(path, None)
    for side in ("data.width", "data.height"):
        run.put(side, size, like="_pair_size")
    run.put("train.batch", run.get("_batch"), like="_batch")
    run.put("data.latents", "online")
    run.put("data.text", "online")
    run.put(f"data.pixels_kept.{run.get('precision.weights')}", 6)  # imgs, both images of a pair side by side
    message = f"the images of each pair are {size} pixels high, and as wide as the files are; squares are counted."
    run.note("note", "aspect-assumed", message, at="_pair_size")


def inverse(run: Draft, changes: dict[str, Any]) -> dict[str, Any]:
    """Changes of the pairs' size in the terms of the table: one key for both sides, which are counted alike."""
    sides = ("data.width", "data.height")
    if kind(run) != REFERENCE or not any(side in changes for side in sides):
        return changes
    rest = {path: value for path, value in changes.items() if path not in sides}
    found = {changes.get(side, run.get(side)) for side in sides}
    return {**rest, "_pair_size": found.pop()} if len(found) == 1 else rest
