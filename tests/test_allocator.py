"""The caching allocator in miniature: its rounding, its splitting and merging, and what it costs a step."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from preflight import catalog
from preflight.job import Job, job
from preflight.memory.allocator import LARGE_SEGMENT, SMALL_SEGMENT, Allocator, Block
from preflight.memory.budget import Budget, budget
from preflight.memory.model import build
from preflight.memory.reserve import reserved
from preflight.spec import Spec
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
    assert allocator.allocate(20 * MIB).address == blocks[1].address
    assert allocator.allocate(20 * MIB).address == blocks[2].address


@given(st.lists(st.integers(1, 64 * MIB), min_size=1, max_size=40), st.randoms())
def test_blocks_never_overlap_and_segments_become_whole_again(sizes: list[int], random: Random) -> None:
    allocator = Allocator()
    live: list[Block] = []
    for size in sizes:
        if live and random.random() < 0.3:
            allocator.release(live.pop(random.randrange(len(live))))
        live.append(allocator.allocate(size))
        ends = 0
        for block in sorted(live, key=lambda block: block.address):
            assert block.address >= ends
            ends = block.address + block.size
        assert ends <= allocator.reserved
    taken = allocator.reserved
    for block in live:
        allocator.release(block)
    largest = max((block for block in live if not block.small), key=lambda block: block.size, default=None)
    if largest is not None:  # its segment, or a larger one, is free as a whole
        allocator.allocate(largest.size)
    assert allocator.reserved == taken


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
            work, need = _work(checkpointing=checkpointing, batch=batch)
            found = reserved(work, need.resident)
            assert found is not None
            assert need.allocated <= found <= 1.3 * need.allocated


def test_weights_that_move_are_not_laid_out() -> None:
    work, need = _work(checkpointing=True, offload={"blocks": 4})
    assert reserved(work, need.resident) is None
