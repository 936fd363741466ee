"""Link 9: what the bridge does with values, types and errors that are the application's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import anyio.to_thread
import pytest

from bridgekit.chain.link_1_startup import create_app
from bridgekit.chain.link_9_bridge import AgentWebSocketBridge
from bridgekit.errors import FrameTooLarge, InvalidId, PayloadError, UnknownEventType, WrongEventLoop
from bridgekit.events import AgentEvent, Answer, EventType, Outcome, Receipt
from bridgekit.ids import RunId, ThreadId
from bridgekit.transport.hub import Hub
from tests.chain.agents import config, started, subscribe
from tests.factories import THREAD

RUN = RunId("run_1")


def event(kind: EventType = EventType.PROGRESS_UPDATE, **payload: object) -> AgentEvent:
    return AgentEvent(type=kind, run_id=RUN, agent_name="researcher", payload=payload, thread_id=THREAD)


async def test_payload_hook_converts_the_values_of_an_event_that_names_its_thread() -> None:
    application = await started(payload_hook=lambda value: f"converted {value}")
    connection = subscribe(application)
    assert await application.bridge.notify(event(value=1j))
    assert [frame.event.payload for frame in connection.frames] == [{"value": "converted 1j"}]


@pytest.mark.parametrize("by_run_id", [True, False])
async def test_error_of_the_payload_hook_is_raised_and_counted(by_run_id: bool) -> None:
    def fail(value: object) -> object:
        raise ValueError("unknown value")

    application = await started(payload_hook=fail)
    await application.bridge.mapping.register_mapping(RUN, THREAD)
    emitted = event(value=1j)
    emitted.thread_id = None if by_run_id else THREAD
    with pytest.raises(PayloadError, match="payload_hook failed: ValueError: unknown value") as raised:
        await application.bridge.notify(emitted)
    assert isinstance(raised.value.__cause__, ValueError)
    assert application.counters.lost == {(8, "PayloadError"): 1}


async def test_event_of_an_unknown_type_is_refused_with_the_known_types() -> None:
    application = await started()
    with pytest.raises(UnknownEventType, match=r"no event type is called .*undefined.*; known: .*agent_started"):
        application.bridge.notify(event(EventType("undefined")))


async def test_tool_call_is_successful_by_default() -> None:
    application = await started()
    connection = subscribe(application)
    await application.bridge.notify_tool_completed(RUN, "researcher", "look_up", tool_call_id="1", thread_id=THREAD)
    assert [frame.event.payload["status"] for frame in connection.frames] == ["success"]


async def test_text_of_an_error_is_the_configured_one() -> None:
    application = await started(error_text=lambda error: f"sorry: {error}")
    assert application.bridge.error_text(ValueError("why")) == "sorry: why"


@pytest.mark.parametrize("method", ["notify", "notify_when_room"])
async def test_event_of_another_thread_of_the_process_is_counted(method: str) -> None:
    app = create_app(config())
    async with app.router.lifespan_context(app):
        bridge = app.state.agent_websocket_bridge
        with pytest.raises(WrongEventLoop):
            await anyio.to_thread.run_sync(getattr(bridge, method), event())
        assert bridge.counters.lost == {(8, "WrongEventLoop"): 1}
        assert (await getattr(bridge, method)(event())).kept


class Interrupting(Mapping[str, object]):
    """Is interrupted when it is read."""

    def __iter__(self) -> Any:
        raise KeyboardInterrupt

    __len__ = __getitem__ = __iter__  # type: ignore[assignment]


ARGUMENTS: dict[str, dict[str, object]] = {
    "notify_agent_thinking": {"reasoning": "hm"},
    "notify_tool_executing": {"tool_name": "t", "tool_call_id": "1"},
    "notify_tool_completed": {"tool_name": "t", "tool_call_id": "1"},
    "notify_agent_error": {"error_message": "no"},
    "notify_progress_update": {"progress": {}},
    "notify_text_delta": {"delta": "x", "message_id": "m"},
}


def notify_with(name: str, field: str, bridge: AgentWebSocketBridge) -> Any:
    """Call the method with one id that is not valid."""
    given = {"run_id": RUN, "agent_name": "a", "thread_id": THREAD, **ARGUMENTS.get(name, {})}
    return getattr(bridge, name)(**given | {field: ""})


class Failing:
    """A resolver whose database fails."""

    def resolve(self, event: AgentEvent) -> ThreadId:
        raise OSError("no database")


REFUSALS: dict[str, tuple[Callable[[AgentWebSocketBridge], Any], type[BaseException]]] = {
    "unknown type": (lambda bridge: bridge.notify(event(EventType("undefined"))), UnknownEventType),
    "unknown type, when room": (
        lambda bridge: bridge.notify_when_room(event(EventType("undefined"))),
        UnknownEventType,
    ),
    "unknown type, in thread": (
        lambda bridge: bridge.notify_in_thread(THREAD, event(EventType("undefined"))),
        UnknownEventType,
    ),
    "type that is plain text": (lambda bridge: bridge.notify(event("agent_started")), UnknownEventType),  # type: ignore[arg-type]
    "value": (lambda bridge: bridge.notify(event(value=object())), PayloadError),
    "value, when room": (lambda bridge: bridge.notify_when_room(event(value=object())), PayloadError),
    "value, in thread": (lambda bridge: bridge.notify_in_thread(THREAD, event(value=object())), PayloadError),
    "value that interrupts": (lambda bridge: bridge.notify(event(value=Interrupting())), KeyboardInterrupt),
    "large value": (lambda bridge: bridge.notify(event(value="x" * 2_000_000)), FrameTooLarge),
    "large value, in thread": (
        lambda bridge: bridge.notify_in_thread(THREAD, event(value="x" * 2_000_000)),
        FrameTooLarge,
    ),
    "thread": (lambda bridge: bridge.notify_in_thread("", event()), InvalidId),
    "thread of another type": (lambda bridge: bridge.notify_in_thread(None, event()), InvalidId),  # type: ignore[arg-type]
    "progress that is no object": (
        lambda bridge: bridge.notify_progress_update(RUN, "a", "half", thread_id=THREAD),  # type: ignore[arg-type]
        PayloadError,
    ),
    **{
        f"{field} of {name}": (partial(notify_with, name, field), InvalidId)
        for name in sorted(vars(AgentWebSocketBridge))
        if name.startswith("notify_") and name not in ("notify_in_thread", "notify_when_room")
        for field in ("run_id", "agent_name", "thread_id")
    },
}


@pytest.mark.parametrize("name", REFUSALS)
async def test_every_refusal_is_counted_once_with_its_reason_and_observed(name: str) -> None:
    observed: list[Receipt] = []
    application = await started(observers=(lambda event, receipt: observed.append(receipt),))
    emit, error = REFUSALS[name]
    with pytest.raises(error):
        await emit(application.bridge)
    assert application.counters.lost == {(8, error.__name__): 1}
    assert [(receipt.outcome, receipt.reason) for receipt in observed] == [(Outcome.REFUSED, error.__name__)]


@pytest.mark.parametrize("method", ["notify", "notify_when_room"])
async def test_error_of_a_resolver_is_counted(method: str) -> None:
    application = await started(resolver=lambda mapping: Failing(), self_checks=())
    with pytest.raises(OSError, match="no database"):
        await getattr(application.bridge, method)(event())
    assert application.counters.lost == {(9, "OSError"): 1}


@pytest.mark.parametrize("method", ["notify", "notify_when_room"])
@pytest.mark.parametrize("thread", [THREAD, None])
async def test_error_of_a_hub_is_counted(method: str, thread: ThreadId | None) -> None:
    class Broken(Hub):
        def publish(self, event: AgentEvent, thread_id: ThreadId) -> Answer:
            raise OSError("no network")

    application = await started(hub=Broken, self_checks=())
    await application.bridge.mapping.register_mapping(RUN, THREAD)
    emitted = event()
    emitted.thread_id = thread
    with pytest.raises(OSError, match="no network"):
        await getattr(application.bridge, method)(emitted)
    assert application.counters.lost == {(10, "OSError"): 1}
