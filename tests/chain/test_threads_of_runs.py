"""A caller outside the chain cannot publish an event of a known run in another thread."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import anyio
import pytest

from bridgekit.chain.link_1_startup import Application, BridgeConfig, create_app, publisher, start_application
from bridgekit.chain.link_7_8_adapter import WebSocketBridgeAdapter
from bridgekit.chain.link_9_bridge import AgentWebSocketBridge
from bridgekit.errors import InvalidId, StoreUnavailable, UnknownEventType
from bridgekit.events import EventType, Outcome, Receipt
from bridgekit.ids import RunId, new_id
from bridgekit.mapping import RunThreadMappingService
from bridgekit.stores import in_memory, redis_stores
from bridgekit.transport.authorization import OwnerAuthorizer
from bridgekit.transport.log import Retention
from bridgekit_verify.faults.redis_servers import redis_server
from bridgekit_verify.harness.declared_owners import DeclaredOwners
from tests.factories import OTHER, RUN, THREAD, emitted
from tests.timeouts import TIMEOUT_SECONDS


def by_an_adapter(bridge: AgentWebSocketBridge) -> Any:
    adapter = WebSocketBridgeAdapter()
    adapter.set_websocket_bridge(bridge, RUN, "researcher", thread_id=OTHER)
    return adapter.emit_thinking("hm")


WAYS: dict[str, Callable[[AgentWebSocketBridge], Any]] = {
    "event": lambda bridge: bridge.notify(emitted(run_id=RUN, thread_id=OTHER)),
    "event, when room": lambda bridge: bridge.notify_when_room(emitted(run_id=RUN, thread_id=OTHER)),
    "started": lambda bridge: bridge.notify_agent_started(RUN, "a", thread_id=OTHER),
    "thinking": lambda bridge: bridge.notify_agent_thinking(RUN, "a", "hm", thread_id=OTHER),
    "tool": lambda bridge: bridge.notify_tool_executing(RUN, "a", "tool", tool_call_id="1", thread_id=OTHER),
    "completed": lambda bridge: bridge.notify_agent_completed(RUN, "a", thread_id=OTHER),
    "error": lambda bridge: bridge.notify_agent_error(RUN, "a", "no", thread_id=OTHER),
    "progress": lambda bridge: bridge.notify_progress_update(RUN, "a", {}, thread_id=OTHER),
    "text": lambda bridge: bridge.notify_text_delta(RUN, "a", "x", message_id="m", thread_id=OTHER),
    "adapter": by_an_adapter,
}


async def started() -> Application:
    application = await start_application(BridgeConfig(agents={}), in_memory())
    await application.bridge.mapping.register_mapping(RUN, THREAD)
    return application


@pytest.mark.parametrize("closed", [False, True], ids=["live run", "closed run"])
@pytest.mark.parametrize("way", WAYS)
async def test_event_of_a_known_run_reaches_no_other_thread(way: str, closed: bool) -> None:
    application = await started()
    if closed:
        await application.bridge.mapping.cleanup_mapping(RUN)
    receipt: Receipt = await WAYS[way](application.bridge)
    assert (receipt.outcome, receipt.link) == (Outcome.UNROUTABLE, 9)
    assert receipt.reason == "the event carries another thread than its run's"
    assert await application.bridge.hub.retained(OTHER) == ()
    assert application.counters.lost[9, receipt.reason] == 1


async def test_event_of_a_known_run_reaches_its_own_thread() -> None:
    application = await started()
    for receipt in (
        await application.bridge.notify(emitted(run_id=RUN)),
        await application.bridge.notify(emitted(run_id=RUN, thread_id=None)),
    ):
        assert (receipt.thread_id, receipt.kept) == (THREAD, True)


async def test_event_reaches_another_thread_that_the_caller_names() -> None:
    application = await started()
    receipt = await application.bridge.notify_in_thread(OTHER, emitted(run_id=RUN))
    assert (receipt.outcome, receipt.thread_id, receipt.kept) == (Outcome.NO_SUBSCRIBER, OTHER, True)
    [frame] = await application.bridge.hub.retained(OTHER)
    assert (frame.event.thread_id, frame.run_id) == (OTHER, RUN)
    with pytest.raises(InvalidId, match="thread_id: must not be empty"):
        await application.bridge.notify_in_thread("", emitted(run_id=RUN))
    with pytest.raises(UnknownEventType):
        await application.bridge.notify_in_thread(OTHER, emitted(EventType("undefined"), run_id=RUN))


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_event_of_another_workers_run_reaches_no_other_thread(redis_url: str) -> None:
    stores = redis_stores(redis_url, prefix=new_id())
    async with stores() as first, publisher(stores) as bridge:
        await RunThreadMappingService(first.routes).register_mapping(RUN, THREAD)
        for way in WAYS.values():
            receipt = await way(bridge)
            assert (receipt.outcome, receipt.link) == (Outcome.UNROUTABLE, 9)
            assert receipt.reason == "the event carries another thread than its run's"
        assert (await bridge.notify(emitted(run_id=RUN, thread_id=THREAD))).kept
        assert (await bridge.notify(emitted(run_id=RunId("unknown"), thread_id=OTHER))).kept
        assert len(await bridge.hub.retained(OTHER)) == 1


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_publisher_trims_a_log_by_the_retention_of_the_workers(redis_url: str) -> None:
    prefix, event = new_id(), emitted(run_id=RUN, thread_id=THREAD)
    small, large = (redis_stores(redis_url, Retention(events=events), prefix=prefix) for events in (10, 100))
    config = BridgeConfig(agents={}, stores=large, db_session_factory=DeclaredOwners(), authorizer=OwnerAuthorizer)
    app = create_app(config)
    async with publisher(small) as early, app.router.lifespan_context(app):
        bridge = app.state.agent_websocket_bridge
        for _ in range(30):
            assert (await bridge.notify(event)).kept
        async with publisher(small) as late:
            assert (await late.notify(event)).kept
            assert len(await late.hub.retained(THREAD)) == 31
        log: Any = early.hub._log
        with anyio.fail_after(TIMEOUT_SECONDS):
            while log.trims_by.events == 10:  # noqa: ASYNC110 - it follows the workers within a renewal of its lease
                await anyio.sleep(0.01)
        assert (await early.notify(event)).kept
        assert len(await bridge.hub.retained(THREAD)) == 32
    async with publisher(small) as later:
        assert (await later.notify(event)).kept
        assert len(await later.hub.retained(THREAD)) == 33


@pytest.mark.parametrize("ends", ["well", "with an error", "confirmed"])
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_publisher_raises_if_the_store_has_not_confirmed_its_events(ends: str) -> None:
    error = {"well": StoreUnavailable, "with an error": KeyError, "confirmed": None}[ends]
    async with redis_server() as server:
        with pytest.raises(error) if error else nullcontext() as raised:
            async with publisher(redis_stores(server.url)) as bridge:
                await bridge.mapping.register_mapping(RUN, THREAD)
                await server.kill()
                for _ in range(3):
                    receipt = await bridge.notify(emitted(run_id=RUN))
                    assert (receipt.outcome, receipt.lost) == (Outcome.PENDING, False)
                if ends == "with an error":
                    raise KeyError("the block's own")
                if ends == "confirmed":
                    await server.start()
        if ends == "well":
            assert "it did not confirm 3 events of the publisher" in str(raised.value)  # type: ignore[union-attr]


async def test_event_of_an_unknown_run_is_published_in_the_thread_that_it_names() -> None:
    """Another process may execute the run; this one has only the event."""
    application = await start_application(BridgeConfig(agents={}), in_memory())
    receipt = await application.bridge.notify(emitted(run_id=RUN, thread_id=OTHER))
    assert (receipt.thread_id, receipt.kept) == (OTHER, True)
