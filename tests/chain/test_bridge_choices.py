"""Link 9: what the bridge does with values, types and errors that are the application's own."""

from __future__ import annotations

import anyio.to_thread
import pytest

from bridgekit.chain.link_1_startup import create_app
from bridgekit.errors import PayloadError, UnknownEventType, WrongEventLoop
from bridgekit.events import AgentEvent, EventType
from bridgekit.ids import RunId
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
    with pytest.raises(UnknownEventType, match=r"no event type is called .*citation.*; known: .*agent_started"):
        application.bridge.notify(event(EventType("citation")))


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
