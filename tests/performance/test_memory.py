"""An event leaves no memory behind, except in the bounded log for clients that resume."""

from __future__ import annotations

import gc
import sys
import tracemalloc
from collections.abc import Iterator
from typing import Final, NamedTuple

import pytest

from bridgekit.transport.log import Retention
from tests.performance.budgets import (
    BLOCKS_PER_RETAINED_EVENT,
    BYTES_PER_RETAINED_EVENT,
    NATIVE,
    OBJECTS_PER_RETAINED_EVENT,
    Edge,
)
from tests.performance.fixture import Reader, ServedFixture, emit_events, serve_fixture
from tests.performance.task_switches import switches, wait_settled

THREAD: Final = "thread_1"
BURST: Final = 100
FRAME_BYTES: Final = 290
MANY: Final = 200
TIMES: Final = 3
WARM_UP: Final = 1_000
"""Events until integers and caches have reached their final size."""
COUNTER_BLOCKS: Final = 8
"""Allowed blocks for counters of the backend, whose integers may still grow. A leak of one block per event is MANY."""
ENTRY_BYTES: Final = 5
"""Smaller than the 8 bytes of a list entry, because lists grow in steps of an eighth."""

ON_ONE_EDGE: Final = pytest.mark.parametrize("edge", [NATIVE], indirect=True, ids=["native"], scope="module")
"""Retention is independent of the edge."""


class Memory(NamedTuple):
    """Memory statistics of the interpreter."""

    blocks: int
    objects: int
    """Objects that the garbage collector tracks."""
    size_bytes: int

    def grown(self, before: Memory) -> Memory:
        return Memory(*(now - then for now, then in zip(self, before, strict=True)))

    @classmethod
    def now(cls) -> Memory:
        gc.collect()
        return cls(sys.getallocatedblocks(), len(gc.get_objects()), tracemalloc.get_traced_memory()[0])


@pytest.fixture(autouse=True)
def freeze_existing_objects() -> Iterator[None]:
    """Exclude existing objects from garbage collection, which makes the collections fast."""
    gc.collect()
    gc.freeze()
    yield
    tracemalloc.stop()


async def emit_and_read(stage: ServedFixture, reader: Reader, events: int) -> None:
    for _ in range(events // BURST):
        await emit_events(stage.agent(THREAD), BURST)
        await wait_settled()
        reader.read(BURST)


async def growth_after(stage: ServedFixture, reader: Reader, events: int) -> Memory:
    """Return the growth of memory after this number of events was read."""
    # No timer fires, because it would allocate memory.
    with switches():
        before = Memory.now()
        before = Memory.now()  # repeated: both readings then include the allocation of a reading
        await emit_and_read(stage, reader, events)
        return Memory.now().grown(before)


async def median_growth_after(stage: ServedFixture, reader: Reader, events: int) -> Memory:
    """Return the median of several measurements; other threads of the test runner may disturb one of them."""
    times = [await growth_after(stage, reader, events) for _ in range(TIMES)]
    return Memory(*(sorted(each)[TIMES // 2] for each in zip(*times, strict=True)))


@pytest.mark.slow
async def test_event_that_is_not_retained_leaves_no_memory(edge: Edge) -> None:
    await assert_no_growth(edge, Retention(events=0))


@ON_ONE_EDGE
async def test_event_leaves_no_memory_if_the_log_is_full(edge: Edge) -> None:
    await assert_no_growth(edge, Retention(events=MANY))


@pytest.mark.slow
@ON_ONE_EDGE
async def test_event_leaves_no_memory_if_the_log_is_full_by_bytes(edge: Edge) -> None:
    await assert_no_growth(edge, Retention(size_bytes=MANY * FRAME_BYTES))


async def assert_no_growth(edge: Edge, keep: Retention) -> None:
    async with serve_fixture(edge, keep) as stage:
        (reader,) = await stage.readers(1, THREAD)
        await emit_and_read(stage, reader, WARM_UP)
        tracemalloc.start()
        await emit_and_read(stage, reader, 2 * MANY)  # until every retained event was allocated under tracemalloc
        for events in (MANY, 2 * MANY):
            grown = await median_growth_after(stage, reader, events)
            assert grown.blocks <= COUNTER_BLOCKS
            assert grown.objects <= 0
            assert grown.size_bytes < ENTRY_BYTES * events, "must be less than one list entry for each event"


@ON_ONE_EDGE
async def test_retained_event_stays_within_its_memory_budget(edge: Edge) -> None:
    async with serve_fixture(edge, Retention(events=WARM_UP + 10 * MANY)) as stage:
        (reader,) = await stage.readers(1, THREAD)
        await emit_and_read(stage, reader, WARM_UP)
        tracemalloc.start()
        await emit_and_read(stage, reader, BURST)
        grown = await median_growth_after(stage, reader, MANY)
    assert grown.blocks <= BLOCKS_PER_RETAINED_EVENT * MANY
    assert grown.objects <= OBJECTS_PER_RETAINED_EVENT * MANY
    assert grown.size_bytes <= BYTES_PER_RETAINED_EVENT * MANY
