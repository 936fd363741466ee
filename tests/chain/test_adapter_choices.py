"""Links 6 to 8: defaults of agent and adapter, and events whose thread must be looked up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import anyio
import pytest

from bridgekit.chain.context import RunContext
from bridgekit.chain.link_1_startup import Application
from bridgekit.chain.link_6_base_agent import BaseAgent
from bridgekit.chain.link_7_8_adapter import WebSocketBridgeAdapter
from bridgekit.chain.models_tools_and_owners import PythonTools, ScriptedModel
from bridgekit.counters import NO_BRIDGE, RUN_ENDED
from bridgekit.errors import StoreUnavailable
from bridgekit.events import END_EVENTS, AgentEvent, Answer, EventType, Outcome, Receipt
from bridgekit.ids import RunId, ThreadId
from bridgekit.transport.hub import Hub
from tests.chain.agents import HubThatStoresLater, Researcher, retained_types, started, subscribe, subscribe_crowded
from tests.factories import ALICE, THREAD

RUN, OTHER_RUN = RunId("run_1"), RunId("run_2")
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
    refused = Receipt(outcome=Outcome.REFUSED, link=7, reason="the adapter holds no bridge or no run id")
    assert await adapter.emit_progress({}) == refused
    assert adapter.error_text(ValueError("why")) == "ValueError: why"


class EmittingEarly(Researcher):
    """Emits an event in its constructor."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.emit(EventType.AGENT_THINKING, {})


class NotPassingOn(Researcher):
    """Overrides the method that passes the bridge to the adapter."""

    def set_websocket_bridge(self, *given: object, **options: object) -> None: ...


UNBOUND: dict[str, tuple[Callable[[Application], Awaitable[object]], int]] = {
    "adapter created by hand": (lambda application: WebSocketBridgeAdapter().emit_thinking("hm"), 1),
    "agent of no run": (lambda application: application.supervisor.registry.create("late").emit_thinking("hm"), 1),
    "constructor": (lambda application: run_agent(application, "early"), 1),
    "bridge that is not passed on": (lambda application: run_agent(application, "late"), 3),
}


async def run_agent(application: Application, name: str) -> object:
    return await application.supervisor.run(agent_name=name, thread_id=THREAD, user_id=ALICE, request="")


@pytest.mark.parametrize("name", UNBOUND)
async def test_event_without_a_bridge_is_counted_and_observed(name: str) -> None:
    lost: list[tuple[RunId, Receipt]] = []
    application = await started(
        agents={"early": EmittingEarly, "late": NotPassingOn},
        observers=(lambda event, receipt: lost.append((event.run_id, receipt)) if receipt.lost else None,),
    )
    emit, count = UNBOUND[name]
    await emit(application)
    assert application.counters.lost == {(7, NO_BRIDGE): count}
    assert len(lost) == count
    assert {(bool(run_id), receipt.outcome, receipt.link) for run_id, receipt in lost} == {
        (name in ("constructor", "bridge that is not passed on"), Outcome.REFUSED, 7)
    }


@pytest.mark.parametrize(("run_id", "outcome"), [(RUN, Outcome.REFUSED), (OTHER_RUN, Outcome.NO_SUBSCRIBER)])
async def test_adapter_that_is_bound_again_is_guarded_only_for_the_same_run(run_id: RunId, outcome: Outcome) -> None:
    bridge, adapter = (await started()).bridge, WebSocketBridgeAdapter()
    adapter.set_websocket_bridge(bridge, RUN, "researcher", thread_id=THREAD)
    adapter.begin_run()
    assert (await adapter.emit_error("no")).outcome is Outcome.NO_SUBSCRIBER
    adapter.set_websocket_bridge(bridge, run_id, "researcher", thread_id=THREAD)
    outcomes = [(await adapter.emit_error("no")).outcome for _ in range(2)]
    assert outcomes == [outcome] * 2


class BindingItself(BaseAgent):
    """Calls `set_websocket_bridge` as the audited agents do."""

    async def execute(self, context: RunContext) -> object:
        bridge = self._websocket_adapter.bridge
        assert bridge is not None
        self.set_websocket_bridge(bridge, context.run_id, thread_id=context.thread_id)
        await self.emit_agent_completed("mine")
        return "the core's"


class WithoutAdapter(BaseAgent):
    async def execute(self, context: RunContext) -> object:
        del self._websocket_adapter
        return "the core's"


class WithoutAdapterAndFailing(WithoutAdapter):
    async def execute(self, context: RunContext) -> object:
        await super().execute(context)
        raise ValueError("failed")


@pytest.mark.parametrize(
    ("agent", "shown"),
    [(BindingItself, "mine"), (WithoutAdapter, "the core's"), (WithoutAdapterAndFailing, "ValueError: failed")],
)
async def test_agent_that_changes_its_adapter_has_one_end_event(agent: type[BaseAgent], shown: str) -> None:
    application = await started(agents={"agent": agent})
    connection = subscribe(application)
    with suppress(ValueError):
        await application.supervisor.run(agent_name="agent", thread_id=THREAD, user_id=ALICE, request="")
    payloads = [frame.event.payload for frame in connection.frames if frame.type in END_EVENTS]
    assert [payload.get("error_message", payload.get("result")) for payload in payloads] == [shown]


def test_agent_holds_its_collaborators() -> None:
    model, tools = ScriptedModel(), PythonTools({})
    agent = Researcher("researcher", model, tools, WebSocketBridgeAdapter())
    assert (agent.llm_manager, agent.tool_dispatcher) == (model, tools)


async def test_agent_waits_while_an_outbox_of_its_thread_is_crowded() -> None:
    application = await started()
    box, adapter = subscribe_crowded(application), WebSocketBridgeAdapter()
    adapter.set_websocket_bridge(application.bridge, RUN, "researcher", thread_id=THREAD)
    receipts = list[Receipt]()

    async def emit() -> None:
        receipts.append(await adapter.emit_progress({}))

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(emit)
            await anyio.wait_all_tasks_blocked()
            assert await retained_types(application) == ["agent_thinking"]
            box.next_frames()
    assert [(receipt.outcome, receipt.seq) for receipt in receipts] == [(Outcome.SENT, 2)]


async def guarded() -> tuple[WebSocketBridgeAdapter, HubThatStoresLater]:
    """Return the adapter of a run of the core, whose log answers later, and the log's hub."""
    application, adapter = await started(hub=HubThatStoresLater), WebSocketBridgeAdapter()
    hub = application.bridge.hub
    assert isinstance(hub, HubThatStoresLater)
    adapter.set_websocket_bridge(application.bridge, RUN, "researcher", thread_id=THREAD)
    adapter.begin_run()
    return adapter, hub


async def test_second_end_event_is_refused_while_the_first_is_stored() -> None:
    adapter, _ = await guarded()
    first = adapter.emit(EventType.AGENT_COMPLETED, {})
    assert (await adapter.emit_error("no")).outcome is Outcome.REFUSED
    assert (await first).kept
    assert (await adapter.emit_error("no")).outcome is Outcome.REFUSED


async def test_end_event_that_the_store_refuses_later_is_not_the_last() -> None:
    adapter, hub = await guarded()
    hub.receipt = Receipt(outcome=Outcome.REFUSED, thread_id=THREAD, link=10)
    assert await adapter.emit_error("no") == hub.receipt
    hub.receipt, hub.error = None, StoreUnavailable("test", "no answer")
    with pytest.raises(StoreUnavailable):
        await adapter.emit_error("no")
    hub.error = None
    assert (await adapter.emit_error("no")).kept


async def test_end_event_that_is_refused_at_once_is_not_the_last() -> None:
    class Refusing(Hub):
        """Refuses each event of THREAD while it is full."""

        full = True

        def publish(self, event: AgentEvent, thread_id: ThreadId) -> Answer:
            if self.full and thread_id == THREAD:
                return Receipt(outcome=Outcome.REFUSED, thread_id=thread_id, link=10)
            return super().publish(event, thread_id)

    application, adapter = await started(hub=Refusing), WebSocketBridgeAdapter()
    hub = application.bridge.hub
    assert isinstance(hub, Refusing)
    adapter.set_websocket_bridge(application.bridge, RUN, "researcher", thread_id=THREAD)
    adapter.begin_run()
    assert (await adapter.emit_agent_completed()).outcome is Outcome.REFUSED
    hub.full = False
    assert (await adapter.emit_error("no")).kept
    assert not adapter.end_run(RUN)


async def test_end_event_whose_store_raises_a_cancellation_of_its_own_is_not_the_last() -> None:
    adapter, hub = await guarded()
    hub.error = asyncio.CancelledError()
    with pytest.raises(asyncio.CancelledError):
        await adapter.emit_error("no")
    hub.error = None
    assert (await adapter.emit_error("no")).kept


async def test_end_event_is_refused_when_the_run_has_been_ended() -> None:
    adapter, _ = await guarded()
    assert [adapter.end_run(RUN), adapter.end_run(RUN)] == [True, False]
    receipt = await adapter.emit_agent_completed()
    assert (receipt.outcome, receipt.link, receipt.reason) == (Outcome.REFUSED, 8, RUN_ENDED)


@pytest.mark.parametrize("by", ["adapter", "bridge"])
async def test_objects_that_are_not_given_are_empty_in_the_payload(by: str) -> None:
    application, adapter = await started(), WebSocketBridgeAdapter()
    bridge, connection = application.bridge, subscribe(application)
    adapter.set_websocket_bridge(bridge, RUN, "researcher", thread_id=THREAD)
    if by == "adapter":
        await adapter.emit_agent_started()
        await adapter.emit_tool_executing("look_up", tool_call_id="1")
        await adapter.emit_error("no")
    else:
        await bridge.notify_agent_started(RUN, "researcher", thread_id=THREAD)
        await bridge.notify_tool_executing(RUN, "researcher", "look_up", tool_call_id="1", thread_id=THREAD)
        await bridge.notify_agent_error(RUN, "researcher", "no", thread_id=THREAD)
    started_, executing, error = [frame.event.payload for frame in connection.frames]
    assert (started_["context"], executing["parameters"], error["error_context"]) == ({}, {}, {})
