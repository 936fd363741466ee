"""On the native edge, the events of one event-loop iteration are sent to a socket in one write."""

from __future__ import annotations

import json
from collections import Counter

import anyio.lowlevel
import pytest

from bridgekit.transport.outbox import WRITE_BYTES
from tests.performance.budgets import NATIVE, Edge
from tests.performance.counting import Calls
from tests.performance.fixture import ServedFixture, emit_events
from tests.performance.task_switches import switches, wait_settled


@pytest.mark.slow
@pytest.mark.parametrize("sockets", [1, 10])
@pytest.mark.parametrize("events", [1, 5, 20])
async def test_burst_stays_within_the_write_budget_of_the_edge(
    stage: ServedFixture, edge: Edge, events: int, sockets: int
) -> None:
    writes = await writes_of_bursts(stage, events, sockets)
    assert max(writes[1].values()) <= edge.writes + edge.writes_per_event * events


@pytest.mark.parametrize("edge", [NATIVE], indirect=True, ids=["native"], scope="module")
async def test_first_event_of_the_first_burst_is_written_immediately_and_the_rest_in_one_write(
    stage: ServedFixture,
) -> None:
    """The first event could be a single one. After a burst, the writer expects another burst."""
    first, second = await writes_of_bursts(stage, 20, 10)
    assert sorted(first.values()) == [1] * 9 + [2]
    assert sorted(second.values()) == [1] * 10


async def writes_of_bursts(stage: ServedFixture, events: int, sockets: int) -> list[Counter[int]]:
    """Return the system calls by socket for each of two bursts."""
    thread = stage.fresh()
    readers = await stage.readers(sockets, thread)
    agent, writes = stage.agent(thread), list[Counter[int]]()
    for _ in range(2):
        with switches(), Calls() as seen:
            await emit_events(agent, events)
            await wait_settled()
        writes.append(seen.writes)
        assert len(seen.writes) == sockets
        for reader in readers:
            assert len(reader.read(events)) == events
    return writes


@pytest.mark.parametrize("edge", [NATIVE], indirect=True, ids=["native"], scope="module")
async def test_long_burst_is_split_at_the_write_limit(stage: ServedFixture, edge: Edge) -> None:
    thread, events = stage.fresh(), 500
    (reader,) = await stage.readers(1, thread)
    with switches(), Calls() as seen:
        await emit_events(stage.agent(thread), events)
        await wait_settled()
    read = reader.read(events)
    size = sum(len(json.dumps(frame, separators=(",", ":"))) for frame in read)
    assert size > 3 * WRITE_BYTES
    assert seen.writes.total() <= size // WRITE_BYTES + 2


async def test_single_event_does_not_wait_for_a_batch(stage: ServedFixture, edge: Edge) -> None:
    thread, events = stage.fresh(), 5
    (reader,) = await stage.readers(1, thread)
    read = 0

    async def next_iterations() -> None:
        nonlocal read
        for _ in range(edge.iterations):
            await anyio.lowlevel.checkpoint()
        reader.read(1)
        read += 1

    with switches():
        await emit_events(stage.agent(thread), events, next_iterations)
    assert read == events
