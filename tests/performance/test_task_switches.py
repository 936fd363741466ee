"""Emitting switches no task, and a burst causes as many task switches as one event."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import anyio.lowlevel
import pytest

from benchmarks.micro.run_without_event_loop import finished
from benchmarks.own_cost_process import attach_subscriber, start_bridgekit
from bridgekit.chain.link_7_8_adapter import WebSocketBridgeAdapter
from bridgekit.chain.link_9_bridge import AgentWebSocketBridge
from bridgekit.events import Receipt
from bridgekit.ids import RunId, ThreadId
from bridgekit.transport.writer import BATCH_MIN_EVENTS
from tests.performance.budgets import STEPS_PER_EXTRA_BATCH, Edge
from tests.performance.fixture import ServedFixture, emit_events
from tests.performance.task_switches import Switches, switches, wait_settled

RUN = RunId("run_1")
THREAD = ThreadId("thread_1")

Emitted = Coroutine[Any, Any, Receipt]
EMIT: dict[str, Callable[[WebSocketBridgeAdapter], Emitted]] = {
    "started": lambda agent: agent.emit_agent_started("now", context={"request": "why?"}),
    "thinking": lambda agent: agent.emit_thinking("hm", step_number=1),
    "executing": lambda agent: agent.emit_tool_executing("look_up", {"topic": "it"}, tool_call_id="call 1"),
    "executed": lambda agent: agent.emit_tool_completed("look_up", {"found": 1}, tool_call_id="call 1"),
    "completed": lambda agent: agent.emit_agent_completed({"answer": 42}),
    "error": lambda agent: agent.emit_error("no"),
    "progress": lambda agent: agent.emit_progress({"done": 0.5}),
}
NOTIFY: dict[str, Callable[[AgentWebSocketBridge], Emitted]] = {
    "carried": lambda bridge: bridge.notify_agent_thinking(RUN, "researcher", "hm", thread_id=THREAD),
    "mapped": lambda bridge: bridge.notify_agent_thinking(RUN, "researcher", "hm"),
}


@pytest.mark.parametrize("sockets", [0, 1, 100])
@pytest.mark.parametrize("event", EMIT)
def test_emission_does_not_yield(event: str, sockets: int) -> None:
    stack = asyncio.run(start_bridgekit())
    attached = [attach_subscriber(stack, THREAD) for _ in range(sockets)]
    agent = WebSocketBridgeAdapter()
    agent.set_websocket_bridge(stack.application.bridge, RUN, "researcher", thread_id=THREAD)
    assert finished(EMIT[event](agent)).sockets == sockets
    assert [len(socket) for socket in attached] == [1] * sockets


@pytest.mark.parametrize("route", NOTIFY)
def test_notification_does_not_yield_with_or_without_a_thread_id(route: str) -> None:
    stack = asyncio.run(start_bridgekit())
    bridge = stack.application.bridge
    finished(bridge.mapping.register_mapping(RUN, THREAD))
    attach_subscriber(stack, THREAD)
    assert finished(NOTIFY[route](bridge)).sockets == 1


@pytest.mark.parametrize("sockets", [1, 10])
@pytest.mark.parametrize("events", [1, 5, 20])
async def test_burst_causes_as_many_switches_as_one_event(
    stage: ServedFixture, edge: Edge, events: int, sockets: int
) -> None:
    counted = await switches_of(stage, events, sockets)
    steps = edge.steps + (STEPS_PER_EXTRA_BATCH if events * sockets >= BATCH_MIN_EVENTS else 0)
    assert counted.steps <= steps + sockets * (edge.steps_per_socket + edge.steps_per_event * events)
    assert counted.callbacks == 0


@pytest.mark.parametrize("sockets", [1, 10])
async def test_agent_that_yields_between_events_causes_switches_for_each_event(
    stage: ServedFixture, edge: Edge, sockets: int
) -> None:
    events = 10
    counted = await switches_of(stage, events, sockets, between=anyio.lowlevel.checkpoint)
    assert counted.steps <= events * (edge.steps + sockets * (edge.steps_per_socket + edge.steps_per_event))
    assert counted.callbacks == 0


async def switches_of(stage: ServedFixture, events: int, sockets: int, **pace: Any) -> Switches:
    thread = stage.fresh()
    readers = await stage.readers(sockets, thread)
    with switches() as counted:
        assert await emit_events(stage.agent(thread), events, **pace) == events
        await wait_settled()
    for reader in readers:
        assert [frame["seq"] for frame in reader.read(events)] == [*range(1, events + 1)]
    return counted
