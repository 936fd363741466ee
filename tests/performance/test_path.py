"""The length of an event's path: calls of bridgekit's functions from the agent to the socket."""

from __future__ import annotations

from collections import Counter

import anyio.lowlevel
import pytest

from tests.performance.budgets import ASGI, NATIVE, OWN_MODULES, Edge
from tests.performance.counting import Calls
from tests.performance.fixture import ServedFixture
from tests.performance.task_switches import switches, wait_settled

RUNS = 20
EVENTS = 5 * RUNS

EACH_EDGE = pytest.mark.parametrize("edge", [NATIVE, ASGI], indirect=True, ids=lambda edge: edge.name, scope="module")


async def own_calls(stage: ServedFixture, *, alone: bool) -> Counter[str]:
    """Return the calls while agents emit one event of each critical type, run by run, until their socket gets them."""
    thread = stage.fresh()
    (reader,) = await stage.readers(1, thread)
    agents = [stage.agent(thread, f"run_{number}") for number in range(RUNS + 1)]

    async def between() -> None:
        if alone:
            for _ in range(4):
                await anyio.lowlevel.checkpoint()

    async def run(number: int) -> None:
        agent = agents[number]
        await agent.emit_agent_started("now", context={"request": "why?"})
        await between()
        await agent.emit_thinking("hm", step_number=1, progress_percentage=12.5)
        await between()
        await agent.emit_tool_executing("look_up", {"topic": "it"}, tool_call_id="call 1")
        await between()
        await agent.emit_tool_completed("look_up", {"found": 1}, tool_call_id="call 1", execution_time_ms=1.5)
        await between()
        await agent.emit_agent_completed({"answer": 42}, execution_time_ms=2.5)
        await between()

    with switches():
        await run(RUNS)
        await wait_settled()
        reader.read(5)
        with Calls() as seen:
            for number in range(RUNS):
                await run(number)
            await wait_settled()
    assert len(reader.read(EVENTS)) == EVENTS
    return +seen.own


@EACH_EDGE
@pytest.mark.parametrize("alone", [False, True], ids=["in a burst", "alone"])
async def test_path_of_an_event_stays_within_its_budget(stage: ServedFixture, edge: Edge, alone: bool) -> None:
    own = await own_calls(stage, alone=alone)
    budget = edge.own_calls_single if alone else edge.own_calls
    assert budget is not None
    assert own.total() / EVENTS <= budget, own
    assert len({name.partition(":")[0] for name in own}) <= OWN_MODULES, sorted(own)
