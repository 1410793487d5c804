"""The order in which a walk asks for memory and gives it back, written out for every block where only some were walked.

A walk takes three blocks in place of many (module.py: Blocks): the first, one that stands for the others, the last. What was made
in the one and dropped in the next is matched by its place in the order, so that each of the others finds what its neighbour left.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from preflight.tape.meter import Meter, Segment

Moves = list[int]
"""Bytes asked for, or ~n where the n-th request of the list is given back; with the stream's number above them, where it is another
stream's request.
"""
STREAM = 50  # bits that hold the bytes


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of the walk that is done `copies` times over: numbers of storages made, and ~number of those dropped."""

    part: str
    copies: int
    events: array[int]


class Recorder(Meter):
    """Counts as every meter does, and notes each storage's size and when it came and went."""

    __slots__ = ("events", "sizes", "spans")  # sizes as Moves has them

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.events: list[int] = []
        self.spans: list[Span] = []
        super().__init__()

    def allocate(self, nbytes: Any) -> int:
        Meter.allocate(self, nbytes)
        number = len(self.sizes)
        self.sizes.append(nbytes)
        self.events.append(number)
        return number

    def aside(self, block: int, stream: int) -> None:
        self.sizes[block] |= stream << STREAM

    def release(self, block: int) -> None:
        self.events.append(~block)

    def workspace(self, nbytes: Any) -> None:
        super().workspace(nbytes)
        number = len(self.sizes)
        self.sizes.append(nbytes)
        self.events += (number, ~number)

    def begin(self, segment: Segment) -> None:
        if self.events:
            self.spans.append(Span(next(reversed(self.parts), ""), self.segment.copies, array("q", self.events)))
            self.events = []
        super().begin(segment)

    def trace(self, *parts: str) -> tuple[Moves, ...]:
        """What happened in each of `parts`, every copy of a span written out; what was made before them is left out.

        Storages that are still there at their end are never given back: the gradients.
        """
        spans = [span for span in self.spans if span.part in parts]
        writer = _Writer(self.sizes, spans)
        found: dict[str, Moves] = {part: [] for part in parts}
        for number, span in enumerate(spans):
            found[span.part] += writer.written(number)
        return tuple(found.values())


class _Writer:
    """Writes spans out one after another; every storage of a repeated span has one request for each copy."""

    def __init__(self, sizes: list[int], spans: list[Span]) -> None:
        self.sizes, self.spans = sizes, spans
        self.born = {event: k for k, span in enumerate(spans) for event in span.events if event >= 0}
        self.requests: dict[int, list[int]] = {number: [] for number in self.born}
        self.count = 0
        self.single: set[tuple[int, int]] = set()  # storages of a repeated span, and where only the last copy's is dropped
        self.paired = self._pairs()

    def written(self, k: int) -> Moves:
        span, out, count = self.spans[k], Moves(), self.count
        born, requests, sizes = self.born, self.requests, self.sizes
        for copy in range(span.copies):
            for event in span.events:
                if event >= 0:
                    out.append(sizes[event])
                    requests[event].append(count)
                    count += 1
                elif (birth := born.get(~event)) == k:
                    out.append(~requests[~event].pop())
                elif birth is not None:
                    out += self._dropped(~event, k, copy)
        self.count = count
        return out

    def _dropped(self, number: int, k: int, copy: int) -> Iterator[int]:
        """What is given back where `number`, made in another span, is dropped in the `copy`-th time of span k."""
        requests, birth, last = self.requests[number], self.born[number], self.spans[k].copies - 1
        if (twin := self.paired.get((number, k))) is not None:
            # this one's own neighbour left it at one end of the stretch; the others find what the blocks beside them left
            fifo, own, each = twin
            if copy == own:
                yield ~requests.pop()
            elif self.requests[each]:
                yield ~self.requests[each].pop(0 if fifo else -1)
        elif (number, k) in self.single or (last and self.spans[birth].copies == last + 1):
            yield ~requests.pop()
        elif copy == last:
            yield from (~request for request in requests)
            requests.clear()

    def _pairs(self) -> dict[tuple[int, int], tuple[bool, int, int]]:
        """For what is dropped in a repeated span: which of the copies drops it, and what the others drop in its place.

        A storage made beside one repeated span and dropped in another has a twin, made in the one and dropped beside the other.
        """
        dropped: dict[tuple[int, int], list[int]] = {}
        for k, span in enumerate(self.spans):
            for event in span.events:
                if event < 0 and ~event in self.born:
                    dropped.setdefault((self.born[~event], k), []).append(~event)
        repeated = [k for k, span in enumerate(self.spans) if span.copies > 1]
        found: dict[tuple[int, int], tuple[bool, int, int]] = {}
        for k in repeated:
            last = self.spans[k].copies - 1
            for origin in repeated:
                if self.spans[origin].copies != last + 1:
                    continue
                # (made, dropped) of what the end of the stretch drops, and of what takes its place in all other copies
                if origin == k:
                    ends = [(k - 1, k + 1, True, 0)]
                else:
                    ends = [(origin - 1, k - 1, False, last), (origin + 1, k + 1, False, 0)]
                for beside, after, fifo, own in ends:
                    for number, twin in self._twins(dropped.get((beside, k), []), dropped.get((origin, after), [])):
                        found[number, k] = (fifo, own, twin)
                        if after == k - 1:
                            self.single.add((twin, after))
        return found

    def _twins(self, here: list[int], there: list[int]) -> Iterator[tuple[int, int]]:
        """Storages of the same size, in the order in which they are dropped."""
        left = list(there)
        for number in here:
            twin = next((other for other in left if self.sizes[other] == self.sizes[number]), None)
            if twin is not None:
                left.remove(twin)
                yield number, twin
