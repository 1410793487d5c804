"""Activation checkpointing without reentry (torch/utils/checkpoint.py: _checkpoint_without_reentrant_generator).

The forward runs with its saved tensors dropped; only the arguments stay. When the backward pass first asks for one of them, the
function runs again up to the last tensor that was saved, and each is handed out once. What a node saved that is gone by then,
because nothing used its result, is made again but not kept.

Where the tape sends inputs away, the first argument (the hidden state) waits in host memory and comes back for the second run: the
`Unsloth_Offloaded_Gradient_Checkpointer` of tdrussell/diffusion-pipe utils/unsloth_utils.py, which leaves the others on the GPU.
torch's save_on_cpu around a checkpoint sends every one of them, for each block anew, and what comes back stays for the second run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import ref

from preflight.tape.away import Away
from preflight.tape.reentrant import reentrant
from preflight.tape.tensor import Tape, Tensor


class _EnoughRecomputed(Exception):  # noqa: N818  # a signal, not an error, as torch's _StopRecomputationError
    """Every saved tensor is there again: the rest of the function need not run."""


class Slot:
    """The place of one node's saved tensors among those of its frame; it lives as long as the node."""

    __slots__ = ("__weakref__", "index")

    def __init__(self, index: int) -> None:
        self.index = index


class Frame:
    """One checkpointed call."""

    __slots__ = ("arguments", "autocast", "function", "recovered", "replaying", "slots", "tape")

    def __init__(self, tape: Tape, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        sent = 0 if not tape.sends_inputs_away else len(arguments) if tape.sends_every_input else 1
        self.tape, self.function = tape, function
        self.arguments = tuple(Away(x) if i < sent and isinstance(x, Tensor) else x for i, x in enumerate(arguments))
        self.autocast = tape.autocast
        self.slots: list[ref[Slot]] = []
        self.recovered: list[tuple[Any, ...] | None] = []
        self.replaying = False

    def drop(self) -> Slot:
        """A node of the forward gives up what it would have saved; the answer is its slot, which the node has to hold."""
        slot = Slot(len(self.slots))
        self.slots.append(ref(slot))
        return slot

    def offer(self, saved: tuple[Any, ...]) -> None:
        """While the function runs again, take what an operator is about to save."""
        if self.replaying and any(x is not None for x in saved):
            wanted = self.slots[len(self.recovered)]() is not None
            self.recovered.append(tuple(x.detach() if isinstance(x, Tensor) else x for x in saved) if wanted else None)
            if len(self.recovered) == len(self.slots):
                raise _EnoughRecomputed

    def recover(self, slot: Slot) -> tuple[Any, ...]:
        """What the node of `slot` saved, handed out once."""
        if not self.recovered:
            self._run_again()
        saved, self.recovered[slot.index] = self.recovered[slot.index], None
        assert saved is not None
        return saved

    def _run_again(self) -> None:
        tape = self.tape
        arguments = tuple(x.detach_like() if isinstance(x, Away) else x for x in self.arguments)
        if not tape.sends_every_input:
            # stays until the backward pass through this call is over, as the local variable of Unsloth's backward does
            self.arguments = arguments
        grad_enabled, frame = tape.grad_enabled, tape.frame
        tape.grad_enabled, tape.frame, self.replaying = True, self, True
        try:
            with tape.autocasting(self.autocast):
                self.function(*(x.detach_like() if isinstance(x, Tensor) else x for x in arguments))
        except _EnoughRecomputed:
            pass
        finally:
            tape.grad_enabled, tape.frame, self.replaying = grad_enabled, frame, False


def checkpoint(function: Callable[..., Any], *arguments: Any) -> Any:
    """`function(*arguments)`, keeping its arguments in place of what it would save; reentrant where the tape says so."""
    tape = next(x for x in arguments if isinstance(x, Tensor)).tape
    if not tape.grad_enabled or tape.frame is not None:
        return function(*arguments)
    if tape.use_reentrant:
        return reentrant(function, *arguments)
    tape.frame = Frame(tape, function, arguments)
    try:
        return function(*arguments)
    finally:
        tape.frame = None
