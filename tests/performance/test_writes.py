"""What is said in one turn of the loop goes to a socket in one write, where the edge writes itself."""

from __future__ import annotations

import json
from collections import Counter

import anyio.lowlevel
import pytest

from bridgekit.transport.outbox import WRITE_BYTES
from tests.performance.budgets import NATIVE, Edge
from tests.performance.counting import Calls
from tests.performance.fixture import Stage, speak
from tests.performance.task_switches import settled, switches


@pytest.mark.parametrize("sockets", [1, 10])
@pytest.mark.parametrize("events", [1, 5, 20])
async def test_burst_is_written_as_seldom_as_the_edge_can(stage: Stage, edge: Edge, events: int, sockets: int) -> None:
    writes = await writes_of_bursts(stage, events, sockets)
    assert max(writes[1].values()) <= edge.writes + edge.writes_an_event * events


@pytest.mark.parametrize("edge", [NATIVE], indirect=True, ids=["native"], scope="module")
async def test_first_event_of_the_first_burst_is_written_when_it_is_put_and_the_rest_in_one_write(stage: Stage) -> None:
    """It could be a lone event. After a burst, the next one is taken for a burst too."""
    first, second = await writes_of_bursts(stage, 20, 10)
    assert sorted(first.values()) == [1] * 9 + [2]
    assert sorted(second.values()) == [1] * 10


async def writes_of_bursts(stage: Stage, events: int, sockets: int) -> list[Counter[int]]:
    """System calls by socket, for each of two bursts."""
    thread = stage.fresh()
    readers = await stage.readers(sockets, thread)
    agent, writes = stage.agent(thread), list[Counter[int]]()
    for _ in range(2):
        with switches(), Calls() as seen:
            await speak(agent, events)
            await settled()
        writes.append(seen.writes)
        assert len(seen.writes) == sockets
        for reader in readers:
            assert len(reader.read(events)) == events
    return writes


@pytest.mark.parametrize("edge", [NATIVE], indirect=True, ids=["native"], scope="module")
async def test_long_burst_is_cut_where_one_write_would_be_too_long(stage: Stage, edge: Edge) -> None:
    thread, events = stage.fresh(), 500
    (reader,) = await stage.readers(1, thread)
    with switches(), Calls() as seen:
        await speak(stage.agent(thread), events)
        await settled()
    read = reader.read(events)
    size = sum(len(json.dumps(frame, separators=(",", ":"))) for frame in read)
    assert size > 3 * WRITE_BYTES
    assert seen.writes.total() <= size // WRITE_BYTES + 2


async def test_lone_event_does_not_wait_for_company(stage: Stage, edge: Edge) -> None:
    thread, events = stage.fresh(), 5
    (reader,) = await stage.readers(1, thread)
    read = 0

    async def next_turns() -> None:
        nonlocal read
        for _ in range(edge.turns):
            await anyio.lowlevel.checkpoint()
        reader.read(1)
        read += 1

    with switches():
        await speak(stage.agent(thread), events, next_turns)
    assert read == events
