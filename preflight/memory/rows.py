"""What a trainer makes of each sample before the network sees it: more rows of its batch, and rows that it only looks at.

A slider's target is what the frozen network answers to several prompts at once, the adapters switched off, before the pass that
trains (ostris/ai-toolkit extensions_built_in/concept_slider/ConceptSliderTrainer.py: get_guided_loss).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from preflight.memory.model import Model
from preflight.networks.network import Shape
from preflight.spec import Dtype, Train
from preflight.tape.module import Linear
from preflight.tape.tensor import Tape


def trained(train: Train, shape: Shape) -> Shape:
    """The batch that passes with gradient."""
    return replace(shape, batch=shape.batch * train.rows) if train.rows > 1 else shape


def look_ahead(train: Train, model: Model, tape: Tape, shape: Shape, dtype: Dtype) -> None:
    """Run the network without gradient and without adapters on the rows that are only looked at, if there are any."""
    if train.ahead:
        with tape.no_grad(), _plain(model):
            model.network.loss(tape, replace(shape, batch=shape.batch * train.ahead), dtype)


@contextmanager
def _plain(model: Model) -> Iterator[None]:
    """The network as if it had no adapters."""
    adapted = [module for _, module, _ in model.network.modules() if isinstance(module, Linear) and module.adapted]
    held = [(module, module.lora_A, module.lora_B, module.lokr_w1) for module in adapted]
    for module in adapted:
        module.lora_A = module.lora_B = module.lokr_w1 = None
    try:
        yield
    finally:
        for module, *parts in held:
            module.lora_A, module.lora_B, module.lokr_w1 = parts
