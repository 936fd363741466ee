"""What an event leaves in memory: nothing, or what is kept for who resumes, and that is bounded."""

from __future__ import annotations

import gc
import sys
import tracemalloc
from collections.abc import Iterator
from typing import Final, NamedTuple

import pytest

from bridgekit.transport.log import Retention
from tests.performance.budgets import BLOCKS_KEPT, BYTES_KEPT, NATIVE, OBJECTS_KEPT, Edge
from tests.performance.fixture import Reader, Stage, speak, staged
from tests.performance.task_switches import settled, switches

THREAD: Final = "thread_1"
BURST: Final = 100
EVENT_BYTES: Final = 290
MANY: Final = 200
TIMES: Final = 3
WARM_UP: Final = 1_000
"""Until small numbers have grown to their size, and every cache is filled."""
NUMBERS: Final = 8
"""Blocks of a backend's own counters, which may still grow by a digit. One that is left of each event is MANY."""
ENTRY_BYTES: Final = 5
"""An entry has 8. Lists grow by eighths, so that less of it may show."""

ON_ONE_EDGE: Final = pytest.mark.parametrize("edge", [NATIVE], indirect=True, ids=["native"], scope="module")
"""What is kept is the broker's business, whatever the edge."""


class Memory(NamedTuple):
    """What the interpreter has."""

    blocks: int
    objects: int
    """That the garbage collector watches."""
    size_bytes: int

    def grown(self, before: Memory) -> Memory:
        return Memory(*(now - then for now, then in zip(self, before, strict=True)))

    @classmethod
    def now(cls) -> Memory:
        gc.collect()
        return cls(sys.getallocatedblocks(), len(gc.get_objects()), tracemalloc.get_traced_memory()[0])


@pytest.fixture(autouse=True)
def untouched() -> Iterator[None]:
    """What was there before is not looked at, which saves looking through it."""
    gc.collect()
    gc.freeze()
    yield
    tracemalloc.stop()
    gc.unfreeze()


async def say(stage: Stage, reader: Reader, events: int) -> None:
    for _ in range(events // BURST):
        await speak(stage.agent(THREAD), BURST)
        await settled()
        reader.read(BURST)


async def left_of(stage: Stage, reader: Reader, events: int) -> Memory:
    """What is left of so many events, when they were read."""
    # No timer comes between: it would leave something of its own.
    with switches():
        before = Memory.now()
        before = Memory.now()  # the first one is in the second as the second is in the last
        await say(stage, reader, events)
        return Memory.now().grown(before)


async def mostly_left_of(stage: Stage, reader: Reader, events: int) -> Memory:
    """The median of several times. Other threads of the process, of the test runner's, may leave something in one."""
    times = [await left_of(stage, reader, events) for _ in range(TIMES)]
    return Memory(*(sorted(each)[TIMES // 2] for each in zip(*times, strict=True)))


async def test_nothing_is_left_of_an_event_that_is_not_kept(edge: Edge) -> None:
    await check_that_nothing_is_left(edge, Retention(events=0))


@ON_ONE_EDGE
async def test_nothing_is_left_of_an_event_where_the_history_is_full(edge: Edge) -> None:
    await check_that_nothing_is_left(edge, Retention(events=MANY))


@ON_ONE_EDGE
async def test_nothing_is_left_of_an_event_where_the_history_is_full_by_its_bytes(edge: Edge) -> None:
    await check_that_nothing_is_left(edge, Retention(size_bytes=MANY * EVENT_BYTES))


async def check_that_nothing_is_left(edge: Edge, keep: Retention) -> None:
    async with staged(edge, keep) as stage:
        (reader,) = await stage.readers(1, THREAD)
        await say(stage, reader, WARM_UP)
        tracemalloc.start()
        await say(stage, reader, 2 * MANY)  # until nothing is kept of which it does not know
        for events in (MANY, 2 * MANY):
            grown = await mostly_left_of(stage, reader, events)
            assert grown.blocks <= NUMBERS
            assert grown.objects <= 0
            assert grown.size_bytes < ENTRY_BYTES * events, "less than an entry in a list for each event"


@ON_ONE_EDGE
async def test_event_that_is_kept_costs_its_frame_and_little_more(edge: Edge) -> None:
    async with staged(edge, Retention(events=WARM_UP + 10 * MANY)) as stage:
        (reader,) = await stage.readers(1, THREAD)
        await say(stage, reader, WARM_UP)
        tracemalloc.start()
        await say(stage, reader, BURST)
        grown = await mostly_left_of(stage, reader, MANY)
    assert grown.blocks <= BLOCKS_KEPT * MANY
    assert grown.objects <= OBJECTS_KEPT * MANY
    assert grown.size_bytes <= BYTES_KEPT * MANY
