"""What is said in one turn of the loop goes to a socket in one write, where the edge writes itself."""

from __future__ import annotations

import anyio.lowlevel
import pytest

from tests.guards.budgets import NATIVE, Edge
from tests.guards.counting import Calls
from tests.guards.stage import Stage, speak
from tests.guards.turns import settled, switches


@pytest.mark.parametrize("sockets", [1, 10])
@pytest.mark.parametrize("events", [1, 5, 20])
async def test_burst_is_written_as_seldom_as_the_edge_can(stage: Stage, edge: Edge, events: int, sockets: int) -> None:
    thread = stage.fresh()
    readers = await stage.readers(sockets, thread)
    with switches(), Calls() as seen:
        await speak(stage.agent(thread), events)
        await settled()
    assert len(seen.writes) == sockets
    assert max(seen.writes.values()) <= edge.writes + edge.writes_an_event * events
    for reader in readers:
        assert len(reader.read(events)) == events


@pytest.mark.parametrize("edge", [NATIVE], indirect=True, ids=["native"], scope="module")
async def test_long_burst_is_cut_where_one_write_would_be_too_long(stage: Stage, edge: Edge) -> None:
    thread, events = stage.fresh(), WRITE_FRAMES + 1
    (reader,) = await stage.readers(1, thread)
    with switches(), Calls() as seen:
        await speak(stage.agent(thread), events)
        await settled()
    assert seen.writes.total() == 2
    assert len(reader.read(events)) == events


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
