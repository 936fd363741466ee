"""Routes in a SQLite file: cases that the contract suite does not cover."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from bridgekit.errors import MappingFull, StoreUnavailable
from bridgekit.ids import RunId
from bridgekit.mapping import ActiveRun, RunThreadMappingService
from bridgekit.stores import sqlite_stores
from bridgekit.stores.sqlite.file import STALE_ROUTE_SECONDS, Synchronous
from bridgekit.stores.sqlite.group_commit import open_database
from bridgekit.stores.sqlite.mapping_and_runs import SqliteMappingStore
from tests.factories import OTHER, RUN, THREAD
from tests.stores.sqlite.files import Clock, query, run_script

FULL = """
CREATE TRIGGER full BEFORE INSERT ON routes WHEN NEW.thread_id = 'thread_456'
BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


async def test_run_has_no_route_when_the_file_rejects_it(path: Path) -> None:
    async with sqlite_stores(path)():
        pass
    run_script(path, FULL)
    async with sqlite_stores(path)() as stores:
        mapping = RunThreadMappingService(stores.routes)
        with pytest.raises(StoreUnavailable, match="full"):
            await mapping.register_mapping(RUN, OTHER)
        assert await mapping.get_thread_id(RUN) is None
        await mapping.register_mapping(RUN, THREAD)
        await mapping.register_mapping(RUN, THREAD)
        assert await mapping.get_thread_id(RUN) == THREAD


async def test_registration_waits_for_a_pending_write_of_the_same_run(path: Path) -> None:
    async with sqlite_stores(path)():
        pass
    run_script(path, FULL)
    problems: list[str] = []
    async with sqlite_stores(path)() as stores:
        mapping = RunThreadMappingService(stores.routes)

        async def claim() -> None:
            try:
                await mapping.register_mapping(RUN, OTHER)
            except StoreUnavailable as refused:
                problems.append(refused.problem)

        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(claim)
        assert problems == ["database or disk is full"] * 3
        assert await mapping.get_thread_id(RUN) is None


async def test_grace_period_is_kept_when_it_cannot_be_written(path: Path) -> None:
    async with sqlite_stores(path)() as stores:
        await RunThreadMappingService(stores.routes).register_mapping(RUN, OTHER)
    run_script(path, FULL)
    async with sqlite_stores(path)() as stores:
        mapping = RunThreadMappingService(stores.routes, grace_seconds=0)
        await mapping.cleanup_mapping(RUN)
        assert await mapping.get_thread_id(RUN) is None


async def test_run_closed_after_a_restart_has_the_usual_grace_period(path: Path) -> None:
    clock = Clock()
    async with open_database(path, Synchronous.OFF, clock) as database:
        await RunThreadMappingService(await SqliteMappingStore(database).load()).register_mapping(RUN, THREAD)
    async with open_database(path, Synchronous.OFF, clock) as database:
        mapping = RunThreadMappingService(await SqliteMappingStore(database).load(), grace_seconds=10)
        clock.now += STALE_ROUTE_SECONDS - 1
        assert await mapping.get_thread_id(RUN) == THREAD
        await mapping.cleanup_mapping(RUN)
        clock.now += 9
        assert await mapping.get_thread_id(RUN) == THREAD
        await mapping.cleanup_mapping(RUN)
        clock.now += 1
        assert await mapping.get_thread_id(RUN) is None


async def test_expired_routes_are_deleted_from_the_file(path: Path) -> None:
    clock = Clock()
    async with open_database(path, Synchronous.OFF, clock) as database:
        mapping = RunThreadMappingService(await SqliteMappingStore(database).load(), grace_seconds=10)
        async with anyio.create_task_group() as tasks:
            for number in range(50):
                tasks.start_soon(mapping.register_mapping, RunId(f"run_{number}"), THREAD)
        async with anyio.create_task_group() as tasks:
            for number in range(1, 50):
                tasks.start_soon(mapping.cleanup_mapping, RunId(f"run_{number}"))
        clock.now += 11
        await mapping.register_mapping(RunId("run_50"), THREAD)
    assert query(path, "SELECT run_id FROM routes ORDER BY run_id") == [("run_0",), ("run_50",)]


async def test_limit_includes_routes_loaded_from_the_file(path: Path) -> None:
    async with sqlite_stores(path, routes=2)() as stores:
        mapping = RunThreadMappingService(stores.routes)
        for number in range(2):
            await mapping.register_mapping(RunId(f"run_{number}"), THREAD)
        with pytest.raises(MappingFull):
            await mapping.register_mapping(RunId("run_9"), THREAD)
    async with sqlite_stores(path, routes=2)() as stores:
        mapping = RunThreadMappingService(stores.routes)
        for number in range(2):
            await mapping.register_mapping(RunId(f"run_{number}"), THREAD)
        with pytest.raises(MappingFull):
            await mapping.register_mapping(RunId("run_9"), THREAD)


async def test_closed_store_raises_store_unavailable(path: Path) -> None:
    async with sqlite_stores(path)() as stores:
        pass
    with pytest.raises(StoreUnavailable, match="closed"):
        await stores.routes.add(RUN, THREAD)
    with pytest.raises(StoreUnavailable, match="closed"):
        await stores.runs.open(ActiveRun(RUN, THREAD, "researcher"))
