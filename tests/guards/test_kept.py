"""What an event leaves in memory: nothing, or what is kept for who resumes, and that is bounded."""

from __future__ import annotations

import gc
import sys
import tracemalloc
from collections.abc import Iterator
from typing import Final, NamedTuple

import pytest

from bridgekit.transport.broker import Keep
from tests.guards.budgets import BLOCKS_KEPT, BYTES_KEPT, OBJECTS_KEPT, Edge
from tests.guards.stage import Reader, Stage, speak, staged
from tests.guards.turns import settled, switches

KEPT_EVENTS: Final = 100
BURST: Final = 100
MANY: Final = 400
WARM_UP: Final = 3 * MANY
"""Until small numbers have grown to their size, and every cache is filled."""
NUMBERS: Final = 8
"""Blocks of a backend's own counters, which may still grow by a digit. One that is left of each event is MANY."""


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
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


async def grown_by(stage: Stage, reader: Reader, thread: str, events: int) -> Memory:
    """What is left of so many events, when they were read."""
    agent = stage.agent(thread)
    # No timer comes between: it would leave something of its own.
    with switches():
        before = Memory.now()
        before = Memory.now()  # the first one is in the second as the second is in the last
        for _ in range(events // BURST):
            await speak(agent, BURST)
            await settled()
            reader.read(BURST)
        return Memory.now().grown(before)


@pytest.mark.parametrize("kept", [0, KEPT_EVENTS], ids=["without history", "with a full history"])
async def test_nothing_is_left_of_an_event_that_is_not_kept(edge: Edge, kept: int) -> None:
    async with staged(edge, Keep(events=kept)) as stage:
        (reader,) = await stage.readers(1, "thread_1")
        await grown_by(stage, reader, "thread_1", WARM_UP)
        for events in (MANY, 2 * MANY):
            grown = await grown_by(stage, reader, "thread_1", events)
            assert grown.blocks <= NUMBERS
            assert grown.objects <= 0
            assert grown.size_bytes < events, "less than a byte an event"


async def test_event_that_is_kept_costs_its_frame_and_little_more(edge: Edge) -> None:
    async with staged(edge, Keep(events=10 * MANY)) as stage:
        (reader,) = await stage.readers(1, "thread_1")
        await grown_by(stage, reader, "thread_1", WARM_UP)
        grown = await grown_by(stage, reader, "thread_1", MANY)
    assert grown.blocks <= BLOCKS_KEPT * MANY
    assert grown.objects <= OBJECTS_KEPT * MANY
    assert grown.size_bytes <= BYTES_KEPT * MANY
