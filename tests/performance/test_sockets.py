"""The work to connect, resume and close a socket does not depend on other sockets and threads, on a real server."""

from __future__ import annotations

from collections import Counter
from typing import Final

import pytest

from bridgekit.cursors_and_gaps import Cursor
from bridgekit.ids import ThreadId
from tests.performance.budgets import Edge
from tests.performance.counting import Calls
from tests.performance.fixture import ServedFixture, emit_events, serve_fixture
from tests.performance.task_switches import switches

SOCKETS: Final = 100
THREADS: Final = 2_000
EVENTS: Final = 20

THREAD = ThreadId("thread_1")


async def calls_of_visit(stage: ServedFixture, after: Cursor | None) -> tuple[Counter[str], Counter[str]]:
    """Return the calls and lines for a socket that connects, gets the missed events, and closes."""
    with switches(), Calls() as seen:
        (reader,) = await stage.readers(1, THREAD, after)
        if after is not None:
            assert [frame["seq"] for frame in reader.read(EVENTS)] == [*range(1, EVENTS + 1)]
        await reader.close()
    assert stage.application.bridge.hub.connections(THREAD) == ()
    return seen.ours, seen.lines


@pytest.mark.slow
async def test_work_of_a_socket_is_independent_of_other_sockets_and_threads(edge: Edge) -> None:
    async with serve_fixture(edge) as stage:
        (first,) = await stage.readers(1, THREAD)
        await emit_events(stage.agent(THREAD), EVENTS)
        await first.close()
        visits = (None, Cursor(first.confirmation["epoch"], 0))
        for after in visits:
            await calls_of_visit(stage, after)  # until every cache is filled
        alone = [await calls_of_visit(stage, after) for after in visits]
        for number in range(THREADS):
            await emit_events(stage.agent(f"other_{number}"), 1)
        for number in range(SOCKETS):
            await stage.readers(1, f"other_{number}")
        assert [await calls_of_visit(stage, after) for after in visits] == alone
