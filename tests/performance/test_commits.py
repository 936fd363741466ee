"""Concurrent events are committed together, because a commit is the main cost of the SQLite store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import anyio
import pytest

from bridgekit.ids import RunId, ThreadId
from bridgekit.mapping import RunThreadMappingService
from bridgekit.stores import Stores, sqlite_stores
from bridgekit.stores.sqlite.log import BATCH_EVENTS
from bridgekit.transport.hub import Hub
from tests.factories import emitted
from tests.performance.budgets import NATIVE, ON_TRIO, Edge

HEADER_BYTES: Final = 32
FRAME_HEADER_BYTES: Final = 24

# Independent of the edge, so each backend is tested once.
pytestmark = pytest.mark.parametrize(
    "edge", [NATIVE, ON_TRIO], indirect=True, ids=lambda edge: edge.backend, scope="module"
)


@pytest.fixture
async def stores(edge: Edge, tmp_path: Path) -> AsyncIterator[Stores]:
    async with sqlite_stores(tmp_path / "store.db")() as opened:
        yield opened


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "store.db-wal"


@pytest.mark.parametrize("events", [1, 10, BATCH_EVENTS])
async def test_concurrent_events_of_many_runs_are_one_commit(stores: Stores, log: Path, events: int) -> None:
    hub = Hub(stores.log)
    before = commits(log)
    async with anyio.create_task_group() as tasks:
        for number in range(events):
            tasks.start_soon(publish, hub, number)
    assert commits(log) - before == 1


async def test_events_and_routes_are_one_commit(stores: Stores, log: Path) -> None:
    hub, mapping = Hub(stores.log), RunThreadMappingService(stores.routes)
    before = commits(log)
    async with anyio.create_task_group() as tasks:
        for number in range(10):
            tasks.start_soon(publish, hub, number)
            tasks.start_soon(mapping.register_mapping, RunId(f"run_{number}"), ThreadId(f"thread_{number}"))
    assert commits(log) - before == 1


async def test_agent_that_awaits_each_receipt_causes_one_commit_per_event(stores: Stores, log: Path) -> None:
    hub = Hub(stores.log)
    before = commits(log)
    for _ in range(5):
        assert (await hub.publish(emitted(), ThreadId("thread_1"))).kept
    assert commits(log) - before == 5


async def publish(hub: Hub, number: int) -> None:
    await hub.publish(emitted(), ThreadId(f"thread_{number}"))


def commits(log: Path) -> int:
    """Count the transactions in a write-ahead log: the last frame of each contains the size of the database.

    The format is https://www.sqlite.org/fileformat2.html#the_write_ahead_log. The file is read directly, because the
    store locks the database.
    """
    data = log.read_bytes()
    page_bytes, salts = int.from_bytes(data[8:12]), data[16:24]
    found = 0
    for begin in range(HEADER_BYTES, len(data), FRAME_HEADER_BYTES + page_bytes):
        if data[begin + 8 : begin + 16] != salts:
            break  # from before the log was reset
        found += data[begin + 4 : begin + 8] != bytes(4)
    return found
