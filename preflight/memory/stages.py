"""Pipeline stages: which part of the network each has, and how many micro-batches it has begun and not finished.

DeepSpeed's, which diffusion-pipe trains with. What runs before the repeated blocks is the first layer, what runs after them the
last (diffusion-pipe models/wan/wan.py: to_layers: InitialLayer, one layer a block, FinalLayer).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from preflight.finding import ConfigError, Finding
from preflight.job import Job
from preflight.networks.network import Network
from preflight.tape.module import Blocks, Module
from preflight.tape.tensor import Parameter

TAKES_STAGES = ("none", "ddp", "zero1")  # runtime/pipe/engine.py: "ZeRO-2 and ZeRO-3 are incompatible with pipeline parallelism"


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """Layers from `start` to before `stop` of `layers`, the first and the last of which are no blocks; `parameters` is of all.

    `in_flight` micro-batches have gone forward and wait for their gradients at the stage's fullest moment.
    """

    number: int
    of: int
    start: int
    stop: int
    layers: int
    in_flight: int
    parameters: int

    @property
    def neighbours(self) -> int:
        """Stages that it exchanges activations with."""
        return (self.number > 0) + (self.number < self.of - 1)


def stages(job: Job, network: Network) -> Iterator[Stage]:
    """The stages of the job's whole `network`, every block of which was made.

    Raises ConfigError where the network cannot be cut as the spec says. runtime/pipe/schedule.py, TrainSchedule.num_pipe_buffers:
    stage s of S has begun S - s micro-batches, or all there are.
    """
    parallel = job.spec.parallel
    counts = list(_layer_parameters(job, network))
    bounds = _bounds(job, counts)
    for number in range(parallel.pipeline):
        yield Stage(
            number=number,
            of=parallel.pipeline,
            start=bounds[number],
            stop=bounds[number + 1],
            layers=len(counts),
            in_flight=min(parallel.pipeline - number, job.spec.train.accumulation),
            parameters=sum(counts),
        )


def cut(network: Network, stage: Stage) -> None:
    """Leave the blocks of `stage` in the network."""
    first = 1
    for blocks in _blocks(network):
        start, stop = (min(max(bound - first, 0), blocks.count) for bound in (stage.start, stage.stop))
        blocks.keep(start, stop)
        first += blocks.count


def elsewhere(network: Network, stage: Stage) -> frozenset[Parameter]:
    """Parameters and buffers around the blocks that are on another stage."""
    before, after = _around(network)
    absent = set() if stage.start == 0 else before
    return frozenset(absent if stage.stop == stage.layers else absent | after)


def balanced(weights: Sequence[int], parts: int) -> list[int]:
    """runtime/utils.py: partition_balanced. Bounds that make the largest and the smallest part differ least."""
    n, far = len(weights), float("inf")
    sums = [0, *accumulate(weights)]
    # the best split of the first i weights into j parts: cost, largest part, smallest part, and where the last one begins
    best: dict[tuple[int, int], tuple[float, float, float, int]] = {(0, 0): (0, 0, far, 0)}
    for i in range(1, n + 1):
        for j in range(1, min(i, parts) + 1):
            for k in range(i):
                if (k, j - 1) not in best:
                    continue
                _, largest, smallest, _ = best[k, j - 1]
                size = sums[i] - sums[k]
                largest, smallest = max(largest, size), min(smallest, size)
                if (i, j) not in best or best[i, j][0] >= largest - smallest:
                    best[i, j] = (largest - smallest, largest, smallest, k)
    bounds = [n]
    for j in reversed(range(1, parts + 1)):
        bounds.append(best[bounds[-1], j][3])
    return bounds[::-1]


def uniform(items: int, parts: int) -> list[int]:
    """runtime/utils.py: partition_uniform. The first parts get one item more where they do not divide."""
    size, rest = divmod(items, parts)
    return [i * size + min(i, rest) for i in range(parts + 1)]


def _bounds(job: Job, counts: Sequence[int]) -> list[int]:
    parallel, layers = job.spec.parallel, len(counts)
    if parallel.pipeline > layers:
        message = f"{layers} layers cannot be divided into {parallel.pipeline} pipeline stages."
        raise _refusal(message, "parallel.pipeline")
    if parallel.partition == "uniform":
        return uniform(layers, parallel.pipeline)
    if parallel.partition == "parameters":
        return balanced(counts, parallel.pipeline)
    bounds = [0, *parallel.partition, layers]
    if len(bounds) != parallel.pipeline + 1 or any(a >= b for a, b in pairwise(bounds)):
        message = (
            f"partition {list(parallel.partition)} does not cut {layers} layers into {parallel.pipeline} pipeline stages; "
            f"expected {parallel.pipeline - 1} rising numbers between 1 and {layers - 1}."
        )
        raise _refusal(message, "parallel.partition")
    return bounds


def _layer_parameters(job: Job, network: Network) -> Iterator[int]:
    """Parameters of each layer, trained and frozen (diffusion-pipe train.py: _count_all_layer_params)."""
    lists = _blocks(network)
    if not lists or any(blocks.mirrored for blocks in lists) or not network.in_order:
        raise _refusal(f"Cannot judge: pipeline stages of {job.network.name} are not modelled.", "parallel.pipeline")
    before, after = _around(network)
    yield sum(p.numel * p.copies for p in before)
    for blocks in lists:
        for _, block, _ in blocks.children():
            yield sum(p.numel for _, p in block.parameters())
    yield sum(p.numel * p.copies for p in after)


def _blocks(network: Network) -> list[Blocks]:
    return [value for value in vars(network).values() if isinstance(value, Blocks)]


def _around(network: Network) -> tuple[set[Parameter], set[Parameter]]:
    """Parameters and buffers before and after the blocks, in the order in which the network names its parts."""
    before: set[Parameter] = set()
    after: set[Parameter] = set()
    now = before
    for name, value in vars(network).items():
        if isinstance(value, Blocks):
            now = after
        elif isinstance(value, Parameter):
            now.add(value)
        elif isinstance(value, Module | list | tuple) and not name.startswith("_"):
            parts = value if isinstance(value, list | tuple) else (value,)
            now.update(p for part in parts if isinstance(part, Module) for _, p in part.tensors())
    return before, after


def _refusal(message: str, key: str) -> ConfigError:
    id_ = "not-modelled" if message.startswith("Cannot") else "degrees"
    return ConfigError(Finding(id=id_, severity="error", message=message, key=key))
