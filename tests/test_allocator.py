"""The caching allocator in miniature: its rounding, its splitting and merging, and what it costs a step."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preflight import catalog
from preflight.job import Job, job
from preflight.memory.allocator import LARGE_SEGMENT, SMALL_SEGMENT, Allocator, Block, OutOfMemory
from preflight.memory.budget import Budget, budget
from preflight.memory.model import build
from preflight.memory.step import walk
from preflight.spec import Spec
from preflight.tape.meter import ROUND
from preflight.tape.trace import STREAM
from preflight.units import MIB


def _reserved(*sizes: int) -> int:
    allocator = Allocator()
    for size in sizes:
        allocator.allocate(size)
    return allocator.reserved


def test_small_requests_share_a_segment_of_two_mib() -> None:
    assert _reserved(1) == SMALL_SEGMENT
    assert _reserved(*[512] * 4096) == SMALL_SEGMENT
    assert _reserved(*[512] * 4097) == 2 * SMALL_SEGMENT


def test_middling_requests_share_a_segment_of_twenty() -> None:
    assert _reserved(MIB + 1) == LARGE_SEGMENT
    assert _reserved(9 * MIB, 9 * MIB) == LARGE_SEGMENT
    assert _reserved(9 * MIB, 9 * MIB, 9 * MIB) == 2 * LARGE_SEGMENT


def test_large_requests_have_segments_of_their_own() -> None:
    assert _reserved(10 * MIB) == 10 * MIB
    assert _reserved(11 * MIB) == 12 * MIB


def test_a_large_block_is_split_only_where_more_than_a_mib_is_left() -> None:
    for first, second, total in ((63, 1.5, 64 + 20), (60, 3, 64)):
        allocator = Allocator()
        allocator.release(allocator.allocate(64 * MIB))
        allocator.allocate(int(first * MIB))
        allocator.allocate(int(second * MIB))
        assert allocator.reserved == total * MIB


def test_the_smallest_block_that_holds_a_request_is_taken() -> None:
    allocator = Allocator()
    blocks = [allocator.allocate(size * MIB) for size in (40, 20, 30)]
    for block in blocks:
        allocator.release(block)
    assert allocator.allocate(20 * MIB)[0] == blocks[1][0]
    assert allocator.allocate(20 * MIB)[0] == blocks[2][0]


@given(st.lists(st.integers(1, 64 * MIB), min_size=1, max_size=40), st.booleans(), st.randoms())
def test_blocks_never_overlap_and_segments_become_whole_again(sizes: list[int], expandable: bool, random: Random) -> None:
    allocator = Allocator(expandable=expandable)
    live: list[Block] = []
    for size in sizes:
        if live and random.random() < 0.3:
            allocator.release(live.pop(random.randrange(len(live))))
        live.append(allocator.allocate(size))
        before = 0
        for start, end, _ in sorted(live):
            assert before <= start < end
            before = end
        assert sum(end - start for start, end, _ in live) * ROUND <= allocator.reserved
    taken = allocator.reserved
    for block in live:
        allocator.release(block)
    largest = max((end - start for start, end, small in live if not small), default=0)
    if largest:  # its segment, or a larger one, is free as a whole
        allocator.allocate(largest * ROUND)
    assert allocator.reserved == taken


@given(st.lists(st.integers(1, 64 * MIB), min_size=1, max_size=30))
def test_a_card_that_is_full_takes_free_segments_back(sizes: list[int]) -> None:
    roomy = Allocator()
    for size in sizes:
        roomy.release(roomy.allocate(size))
    tight = Allocator(limit=-(-max(*sizes, 10 * MIB) // LARGE_SEGMENT) * LARGE_SEGMENT)
    for size in sizes:
        tight.release(tight.allocate(size))
    assert tight.reserved <= roomy.reserved


def test_a_card_without_room_for_what_lies_there_runs_out() -> None:
    allocator = Allocator(limit=64 * MIB)
    allocator.allocate(40 * MIB)
    with pytest.raises(OutOfMemory):
        allocator.allocate(40 * MIB)


def test_segments_that_grow_leave_no_gaps() -> None:
    allocator = Allocator(expandable=True)
    for size in (40, 60, 80):
        allocator.release(allocator.allocate(size * MIB))
    assert allocator.reserved == 80 * MIB


def test_what_one_stream_gives_back_is_not_given_to_another() -> None:
    allocator = Allocator()
    blocks: list[Block] = []
    allocator.serve([40 * MIB, ~0, 40 * MIB, ~1], blocks)
    assert allocator.reserved == 40 * MIB
    allocator.serve([1 << STREAM | 40 * MIB, 1 << STREAM | 512], blocks)
    assert allocator.reserved == 80 * MIB + SMALL_SEGMENT


def _work(*, checkpointing: bool, batch: int = 1, **parts: object) -> tuple[Job, Budget]:
    data = {
        "model": {"name": "wan2.1-t2v-1.3b"},
        "train": {"method": "lora", "lora": {"rank": 16}, "batch": batch, "checkpointing": checkpointing},
        "data": {"height": 256, "width": 256, "frames": 9},
        **parts,
    }
    work = job(Spec.from_mapping(data), catalog.gpu("a100-80gb"))
    return work, budget(work, build(work))


def test_a_step_reserves_at_least_what_it_allocates() -> None:
    for checkpointing in (True, False):
        for batch in (1, 2):
            _, need = _work(checkpointing=checkpointing, batch=batch)
            assert need.allocated <= need.reserved <= 1.3 * need.allocated


def test_weights_that_move_are_not_laid_out() -> None:
    assert _work(checkpointing=True, offload={"blocks": 4})[1].layout is None


@pytest.mark.parametrize(("strategy", "version", "told"), [("fsdp", 2, True), ("fsdp", 1, False), ("zero2", 2, False)])
def test_of_the_divided_ones_fsdp2_alone_is_laid_out(strategy: str, version: int, *, told: bool) -> None:
    parallel = {"gpus": 8, "strategy": strategy, "fsdp_version": version}
    _, need = _work(checkpointing=True, parallel=parallel)
    assert (need.layout is not None) == told
    assert need.allocated < need.reserved <= 1.5 * need.allocated


def test_what_fsdp2_gathers_lies_beside_the_step_s_own_memory() -> None:
    """Gathered weights take room that activations are not given, whatever the segments."""
    gathering = {"gpus": 8, "strategy": "fsdp", "compute": "bf16", "reduce": "fp32"}
    _, need = _work(checkpointing=True, parallel=gathering, hardware={"expandable_segments": True})
    _, whole = _work(checkpointing=True, hardware={"expandable_segments": True})
    assert need.reserved / need.allocated > whole.reserved / whole.allocated


def test_segments_that_grow_are_read_from_the_spec() -> None:
    fixed, grown = (_work(checkpointing=True, hardware={"expandable_segments": grows})[1] for grows in (False, True))
    assert fixed.allocated == grown.allocated <= grown.reserved < fixed.reserved


NETWORKS: list[tuple[str, dict[str, object]]] = [
    ("wan2.1-t2v-1.3b", {}),
    ("hunyuandit-v1.2-g2", {}),
    ("flux.1-dev", {"num_layers": 7, "num_single_layers": 9}),
    ("cogvideox-2b", {"num_layers": 8}),
    ("hunyuanvideo", {"num_layers": 6, "num_single_layers": 7}),
    ("sd3-medium", {}),
]


@pytest.mark.parametrize("strategy", ["none", "fsdp"])
@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("policy", [True, False, {"every": 2}, {"every": 2, "stride": 4}, {"fraction": 0.5}], ids=str)
@pytest.mark.parametrize(("name", "dims"), NETWORKS, ids=lambda value: value if isinstance(value, str) else "")
def test_three_blocks_written_out_are_the_walk_of_all(
    name: str, dims: dict[str, object], policy: object, accumulation: int, strategy: str
) -> None:
    """Every request of the same size, the same ones alive at every peak."""
    work = job(
        Spec.from_mapping({
            "model": {"name": name, "dims": dims},
            "train": {"method": "full", "checkpointing": policy, "accumulation": accumulation},
            "data": {"height": 256, "width": 256, "frames": 9 if "flux" not in name else 1},
            "precision": {"weights": "fp32", "autocast": "bf16"},
            "parallel": {"strategy": strategy, "gpus": 1 if strategy == "none" else 4},
        }),
        None,
    )  # fmt: skip
    heights = []
    for extend in (True, False):
        recorder = walk(work, build(work, extend=extend)).recorder
        assert recorder is not None
        moves = [move for part in recorder.trace("forward", "backward") for move in part]
        heights.append(_heights(moves))
    assert heights[0] == heights[1]


def _heights(moves: list[int]) -> tuple[int, int, int]:
    """Requests, the highest sum of what was there at once, and what is left; nothing is given back twice."""
    requests: list[int | None] = []
    live = peak = 0
    for move in moves:
        if move >= 0:
            move &= (1 << STREAM) - 1  # noqa: PLW2901
            requests.append(move)
            live += move
            peak = max(peak, live)
        else:
            size = requests[~move]
            assert size is not None
            live, requests[~move] = live - size, None
    return len(requests), peak, live
