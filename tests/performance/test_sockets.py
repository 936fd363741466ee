"""A socket comes, resumes and leaves by the same steps whatever else there is, counted on a real server."""

from __future__ import annotations

from collections import Counter
from typing import Final

from bridgekit.ids import ThreadId
from bridgekit.signals import Cursor
from tests.performance.budgets import Edge
from tests.performance.counting import Calls
from tests.performance.fixture import Stage, speak, staged
from tests.performance.task_switches import switches

SOCKETS: Final = 100
THREADS: Final = 2_000
EVENTS: Final = 20

THREAD = ThreadId("thread_1")


async def visiting(stage: Stage, after: Cursor | None) -> tuple[Counter[str], Counter[str]]:
    """What bridgekit does for a socket that comes, is told what it missed, and leaves."""
    with switches(), Calls() as seen:
        (reader,) = await stage.readers(1, THREAD, after)
        if after is not None:
            assert [frame["seq"] for frame in reader.read(EVENTS)] == [*range(1, EVENTS + 1)]
        await reader.leave()
    assert stage.application.bridge.hub.connections(THREAD) == ()
    return seen.ours, seen.lines


async def test_socket_comes_resumes_and_leaves_by_the_same_steps_among_many_as_alone(edge: Edge) -> None:
    async with staged(edge) as stage:
        (first,) = await stage.readers(1, THREAD)
        await speak(stage.agent(THREAD), EVENTS)
        await first.leave()
        visits = (None, Cursor(first.hello["epoch"], 0))
        for after in visits:
            await visiting(stage, after)  # until every cache is filled
        alone = [await visiting(stage, after) for after in visits]
        for number in range(THREADS):
            await speak(stage.agent(f"other_{number}"), 1)
        for number in range(SOCKETS):
            await stage.readers(1, f"other_{number}")
        assert [await visiting(stage, after) for after in visits] == alone
