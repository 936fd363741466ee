"""The in-memory mapping store is bounded: it evicts closed runs and never live ones."""

from __future__ import annotations

import tracemalloc

import pytest

from bridgekit.errors import MappingFull
from bridgekit.ids import RunId, ThreadId
from bridgekit.mapping import MemoryMappingStore, RunThreadMappingService
from tests.factories import OTHER, THREAD

LIVE_BYTES = 300
"""The memory bound of a live run's route, with ids of usual length."""


def run(number: int) -> RunId:
    return RunId(f"run_{number:012x}")


async def registered(limit: int) -> RunThreadMappingService:
    mapping = RunThreadMappingService(MemoryMappingStore(routes=limit))
    for number in range(limit):
        await mapping.register_mapping(run(number), THREAD)
    return mapping


async def test_run_that_was_closed_first_is_evicted_first_when_the_store_is_full() -> None:
    mapping = await registered(3)
    for number in (2, 0):
        await mapping.cleanup_mapping(run(number))
    await mapping.register_mapping(run(3), THREAD)
    assert [await mapping.get_thread_id(run(number)) for number in range(4)] == [THREAD, THREAD, None, THREAD]
    await mapping.register_mapping(run(4), THREAD)
    assert [await mapping.get_thread_id(run(number)) for number in (0, 1, 4)] == [None, THREAD, THREAD]


async def test_new_run_is_refused_when_all_stored_runs_are_live() -> None:
    mapping = await registered(3)
    with pytest.raises(MappingFull) as refused:
        await mapping.register_mapping(run(3), OTHER)
    assert refused.value.limit == 3
    assert [await mapping.get_thread_id(run(number)) for number in range(4)] == [THREAD, THREAD, THREAD, None]
    await mapping.register_mapping(run(0), THREAD)
    await mapping.cleanup_mapping(run(1))
    await mapping.register_mapping(run(3), OTHER)
    assert await mapping.get_thread_id(run(3)) == OTHER


async def test_run_is_not_evicted_when_it_was_registered_again_in_its_grace_period() -> None:
    mapping = await registered(2)
    await mapping.cleanup_mapping(run(0))
    await mapping.register_mapping(run(0), THREAD)
    with pytest.raises(MappingFull):
        await mapping.register_mapping(run(2), THREAD)


async def test_store_does_not_grow_when_one_run_is_closed_and_registered_repeatedly() -> None:
    store = MemoryMappingStore(routes=10)
    mapping = RunThreadMappingService(store)
    for _ in range(1_000):
        await mapping.register_mapping(run(0), THREAD)
        await mapping.cleanup_mapping(run(0))
    assert (len(store), len(store._due)) == (1, 1)


async def test_memory_of_a_live_route_is_bounded() -> None:
    store = MemoryMappingStore()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(5_000):
            await store.add(run(number), ThreadId(f"thread_{number:016x}"))
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (after - before) / 5_000 < LIVE_BYTES
