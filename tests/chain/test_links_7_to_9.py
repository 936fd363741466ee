"""Links 7 to 9: the adapter is bound and emits events; the bridge routes them and returns accurate receipts."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from bridgekit.chain.link_7_8_adapter import Emitter, WebSocketBridgeAdapter
from bridgekit.chain.link_9_bridge import AgentWebSocketBridge
from bridgekit.errors import FrameTooLarge, InvalidId, PayloadError, StoreUnavailable, UnknownEventType
from bridgekit.events import AgentEvent, EventType, Outcome, Receipt
from bridgekit.ids import RunId, ThreadId
from bridgekit.mapping import MemoryMappingStore, RunThreadMappingService
from bridgekit.thread_resolvers import Carried, MappingLookup
from bridgekit.transport.hub import Hub
from tests.chain.agents import started, subscribe
from tests.factories import OTHER, RUN, THREAD, emitted

PAYLOADS = {
    EventType.AGENT_STARTED: {"status": "started", "context": {"a": 1}, "message": "hello"},
    EventType.AGENT_THINKING: {"reasoning": "hm", "step_number": 2, "progress_percentage": 50.0},
    EventType.TOOL_EXECUTING: {"tool_call_id": "c1", "tool_name": "look_up", "parameters": {"a": 1}},
    EventType.TOOL_COMPLETED: {
        "tool_call_id": "c1",
        "tool_name": "look_up",
        "result": [1],
        "execution_time_ms": 1.5,
        "status": "error",
    },
    EventType.AGENT_COMPLETED: {"status": "completed", "result": {"a": 1}, "execution_time_ms": 2.5},
    EventType.AGENT_ERROR: {"error_message": "no", "error_context": {"a": 1}},
    EventType.PROGRESS_UPDATE: {"done": 3},
    EventType.TEXT_DELTA: {"message_id": "m1", "delta": "Hel"},
}
"""The payload of each event type, exactly as the wire format defines it."""


async def emit_everything(emitter: Emitter) -> list[Receipt]:
    return [
        await emitter.emit_agent_started("hello", context={"a": 1}),
        await emitter.emit_thinking("hm", step_number=2, progress_percentage=50.0),
        await emitter.emit_tool_executing("look_up", {"a": 1}, tool_call_id="c1"),
        await emitter.emit_tool_completed("look_up", [1], tool_call_id="c1", execution_time_ms=1.5, status="error"),
        await emitter.emit_agent_completed({"a": 1}, execution_time_ms=2.5),
        await emitter.emit_error("no", error_context={"a": 1}),
        await emitter.emit_progress({"done": 3}),
        await emitter.emit_text("Hel", message_id="m1"),
    ]


async def notify_everything(bridge: AgentWebSocketBridge) -> list[Receipt]:
    run = (RUN, "researcher")
    return [
        await bridge.notify_agent_started(*run, context={"a": 1}, message="hello", thread_id=THREAD),
        await bridge.notify_agent_thinking(*run, "hm", step_number=2, progress_percentage=50.0, thread_id=THREAD),
        await bridge.notify_tool_executing(*run, "look_up", tool_call_id="c1", parameters={"a": 1}, thread_id=THREAD),
        await bridge.notify_tool_completed(
            *run,
            "look_up",
            tool_call_id="c1",
            result=[1],
            execution_time_ms=1.5,
            status="error",
            thread_id=THREAD,
        ),
        await bridge.notify_agent_completed(*run, result={"a": 1}, execution_time_ms=2.5, thread_id=THREAD),
        await bridge.notify_agent_error(*run, "no", error_context={"a": 1}, thread_id=THREAD),
        await bridge.notify_progress_update(*run, {"done": 3}, thread_id=THREAD),
        await bridge.notify_text_delta(*run, "Hel", message_id="m1", thread_id=THREAD),
    ]


async def test_adapter_emits_each_type_with_its_payload() -> None:
    application = await started()
    connection, adapter = subscribe(application), WebSocketBridgeAdapter()
    adapter.set_websocket_bridge(application.bridge, RUN, "researcher", thread_id=THREAD)
    assert all(await emit_everything(adapter))
    assert {frame.event.type: frame.event.payload for frame in connection.frames} == PAYLOADS
    assert {(frame.event.run_id, frame.event.agent_name) for frame in connection.frames} == {(RUN, "researcher")}


async def test_bridge_notifies_each_type_with_its_payload() -> None:
    application = await started()
    connection = subscribe(application)
    assert all(await notify_everything(application.bridge))
    assert {frame.event.type: frame.event.payload for frame in connection.frames} == PAYLOADS
    assert application.counters.sent == dict.fromkeys(EventType, 1)


async def test_adapter_logs_and_refuses_an_event_when_it_has_no_bridge(
    caplog: pytest.LogCaptureFixture,
) -> None:
    adapter = WebSocketBridgeAdapter()
    assert not adapter.has_websocket_bridge()
    with caplog.at_level(logging.WARNING, "bridgekit"):
        receipt = await adapter.emit_thinking("hm")
    assert (bool(receipt), receipt.outcome, receipt.link) == (False, Outcome.REFUSED, 7)
    [logged] = [each for each in caplog.records if each.name == "bridgekit.chain.link_7_8_adapter"]
    assert logged.getMessage() == (
        "agent_thinking is lost: the adapter has no bridge or no run id; call set_websocket_bridge first"
    )


async def test_thread_is_looked_up_in_the_mapping_when_the_adapter_has_none() -> None:
    application = await started()
    connection, adapter = subscribe(application, OTHER), WebSocketBridgeAdapter()
    await application.bridge.mapping.register_mapping(RUN, OTHER)
    adapter.set_websocket_bridge(application.bridge, RUN, "researcher")
    assert await adapter.emit_thinking("hm")
    assert len(connection.frames) == 1


async def test_receipt_is_sent_only_when_a_socket_accepted_the_event() -> None:
    application = await started()
    bridge = application.bridge
    unsubscribed = await bridge.notify(emitted())
    connection = subscribe(application)
    sent = await bridge.notify(emitted())
    assert (unsubscribed.outcome, unsubscribed.link, unsubscribed.sockets) == (Outcome.NO_SUBSCRIBER, 10, 0)
    assert (sent.outcome, sent.link, sent.sockets, sent.thread_id, sent.seq) == (
        Outcome.SENT, None, 1, THREAD, 2
    )  # fmt: skip
    assert [frame.event.seq for frame in connection.frames] == [2]
    assert unsubscribed.kept
    assert application.counters.kept == {EventType.AGENT_THINKING: 1}
    assert application.counters.lost == {}
    assert application.counters.sent == {EventType.AGENT_THINKING: 1}


async def test_event_is_counted_as_unroutable_when_it_has_no_route() -> None:
    application = await started()
    receipt = await application.bridge.notify_agent_thinking(RunId("run_unknown"), "researcher", "hm")
    assert (receipt.outcome, receipt.link, receipt.thread_id, receipt.seq) == (
        Outcome.UNROUTABLE, 9, None, None
    )  # fmt: skip
    assert receipt.reason == "the event carries no thread; the run is not in the mapping"
    assert application.counters.lost == {(9, receipt.reason): 1}


@pytest.mark.parametrize(
    ("run_id", "agent_name", "thread_id", "field"),
    [
        ("", "researcher", THREAD, "run_id"),
        (RUN, "a\x00", THREAD, "agent_name"),
        (RUN, "researcher", "", "thread_id"),
    ],
)
async def test_notify_raises_and_sends_nothing_when_an_id_is_invalid(
    run_id: str, agent_name: str, thread_id: str, field: str
) -> None:
    application = await started()
    connection = subscribe(application)
    with pytest.raises(InvalidId) as refused:
        await application.bridge.notify_agent_started(RunId(run_id), agent_name, thread_id=ThreadId(thread_id))
    assert refused.value.field == field
    assert connection.frames == []


@pytest.mark.parametrize("name", ["exploded", "agent_started", EventType("exploded"), None, 7])
async def test_event_of_a_type_that_is_not_defined_is_refused(name: Any) -> None:
    application = await started()
    with pytest.raises(UnknownEventType) as refused:
        await application.bridge.notify(AgentEvent(type=name, run_id=RUN, agent_name="a", payload={}))
    assert refused.value.name == name
    assert set(EventType) <= set(refused.value.known)


async def test_notify_raises_and_later_events_arrive_when_a_caller_makes_a_mistake() -> None:
    application = await started()
    connection, bridge = subscribe(application), application.bridge
    await bridge.notify(emitted())
    with pytest.raises(PayloadError):
        await bridge.notify(emitted(payload={"a": float("inf")}))
    with pytest.raises(FrameTooLarge):
        await bridge.notify(emitted(payload={"a": "x" * 1_100_000}))
    await bridge.notify(emitted())
    assert [frame.event.seq for frame in connection.frames] == [1, 2]
    assert sum(application.counters.sent.values()) == 2
    assert application.counters.lost == {(8, "PayloadError"): 1, (8, "FrameTooLarge"): 1}


class UnavailableRoutes(MemoryMappingStore):
    async def get(self, run_id: RunId) -> ThreadId | None:
        raise StoreUnavailable("test", "no answer")


async def test_event_whose_route_cannot_be_looked_up_is_counted_and_observed() -> None:
    application = await started(mapping=lambda _: RunThreadMappingService(UnavailableRoutes()), self_checks=())
    observed: list[Receipt] = []
    application.bridge.observers.append(lambda event, receipt: observed.append(receipt))
    with pytest.raises(StoreUnavailable):
        await application.bridge.notify(emitted(thread_id=None))
    assert application.counters.lost == {(9, "StoreUnavailable"): 1}
    assert [(receipt.lost, receipt.link) for receipt in observed] == [(True, 9)]


async def test_observer_is_called_with_each_event_and_its_receipt() -> None:
    application = await started()
    observed: list[tuple[AgentEvent, Receipt]] = []
    application.bridge.observers.append(lambda event, receipt: observed.append((event, receipt)))
    event = emitted(thread_id=None)
    receipt = await application.bridge.notify(event)
    assert observed == [(event, receipt)]


@pytest.mark.parametrize(("kind", "thread"), [("carried", THREAD), ("mapped", OTHER)])
async def test_bridge_uses_only_the_resolver_that_it_was_created_with(kind: str, thread: ThreadId) -> None:
    mapping = RunThreadMappingService()
    await mapping.register_mapping(RUN, OTHER)
    resolver = Carried() if kind == "carried" else MappingLookup(mapping)
    receipt = await AgentWebSocketBridge(Hub(), resolver, mapping).notify(emitted(thread_id=THREAD))
    assert receipt.thread_id == thread


@pytest.mark.parametrize("missing", ["bridge", "run_id"])
async def test_adapter_with_only_one_of_bridge_and_run_has_no_bridge_and_refuses_events(missing: str) -> None:
    adapter = WebSocketBridgeAdapter()
    adapter.set_websocket_bridge((await started()).bridge, RUN, "researcher", thread_id=THREAD)
    assert adapter.has_websocket_bridge()
    setattr(adapter, missing, None)
    assert not adapter.has_websocket_bridge()
    receipt = await adapter.emit_thinking("hm")
    assert (receipt.outcome, receipt.link) == (Outcome.REFUSED, 7)
