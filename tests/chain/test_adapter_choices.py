"""Links 6 to 8: defaults of agent and adapter, and events whose thread must be looked up."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from bridgekit.chain.link_7_8_adapter import WebSocketBridgeAdapter
from bridgekit.chain.models_tools_and_owners import PythonTools, ScriptedModel
from bridgekit.events import Outcome, Receipt
from bridgekit.ids import RunId
from tests.chain.agents import Researcher, started, subscribe
from tests.factories import THREAD

RUN = RunId("run_1")
Emit = Callable[[WebSocketBridgeAdapter], Awaitable[Receipt]]


@pytest.mark.parametrize(
    "emit",
    [
        lambda adapter: adapter.emit_agent_started(),
        lambda adapter: adapter.emit_thinking("hm"),
        lambda adapter: adapter.emit_tool_executing("look_up", tool_call_id="1"),
        lambda adapter: adapter.emit_tool_completed("look_up", tool_call_id="1"),
        lambda adapter: adapter.emit_agent_completed(),
        lambda adapter: adapter.emit_error("no"),
        lambda adapter: adapter.emit_progress({}),
        lambda adapter: adapter.emit_text("a", message_id="1"),
    ],
)
async def test_emitting_returns_the_receipt_also_if_the_thread_is_looked_up(emit: Emit) -> None:
    bridge = (await started()).bridge
    await bridge.mapping.register_mapping(RUN, THREAD)
    for thread_id in (None, THREAD):
        adapter = WebSocketBridgeAdapter()
        adapter.set_websocket_bridge(bridge, RUN, "researcher", thread_id=thread_id)
        receipt = await emit(adapter)
        assert (type(receipt), receipt.thread_id) == (Receipt, THREAD)


async def test_tool_call_is_successful_by_default() -> None:
    application = await started()
    connection, adapter = subscribe(application), WebSocketBridgeAdapter()
    adapter.set_websocket_bridge(application.bridge, RUN, "researcher", thread_id=THREAD)
    await adapter.emit_tool_completed("look_up", tool_call_id="1")
    assert [frame.event.payload["status"] for frame in connection.frames] == ["success"]


async def test_new_adapter_belongs_to_no_run_and_says_so() -> None:
    adapter = WebSocketBridgeAdapter()
    assert (adapter.agent_name, adapter.guarded, adapter.has_websocket_bridge()) == ("", False, False)
    refused = Receipt(outcome=Outcome.REFUSED, link=7, reason="the adapter holds no bridge")
    assert await adapter.emit_progress({}) == refused
    assert adapter.error_text(ValueError("why")) == "ValueError: why"


async def test_adapter_that_is_bound_again_is_no_longer_guarded() -> None:
    bridge, adapter = (await started()).bridge, WebSocketBridgeAdapter()
    adapter.set_websocket_bridge(bridge, RUN, "researcher", thread_id=THREAD)
    adapter.begin_run()
    outcomes = [(await adapter.emit_error("no")).outcome for _ in range(2)]
    adapter.set_websocket_bridge(bridge, RUN, "researcher", thread_id=THREAD)
    outcomes.append((await adapter.emit_error("no")).outcome)
    assert outcomes == [Outcome.NO_SUBSCRIBER, Outcome.REFUSED, Outcome.NO_SUBSCRIBER]


def test_agent_holds_its_collaborators() -> None:
    model, tools = ScriptedModel(), PythonTools({})
    agent = Researcher("researcher", model, tools, WebSocketBridgeAdapter())
    assert (agent.llm_manager, agent.tool_dispatcher) == (model, tools)
