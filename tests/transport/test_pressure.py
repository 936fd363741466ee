"""Backpressure: coalesced events give a gap, other events are delivered, and other sockets are not affected."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import anyio
import pytest
from anyio.lowlevel import checkpoint
from starlette.applications import Starlette

from bridgekit.chain.context import RunContext
from bridgekit.chain.link_1_startup import Application, BridgeConfig, create_app
from bridgekit.chain.link_6_base_agent import BaseAgent
from bridgekit.chain.link_7_8_adapter import WebSocketBridgeAdapter
from bridgekit.events import EventType, Receipt, RoutedEvent
from bridgekit.ids import ThreadId
from bridgekit.transport import outbox
from bridgekit.transport.authorization import OwnerAuthorizer
from bridgekit.transport.client import connect
from bridgekit.transport.hub import NO_ROOM
from bridgekit.transport.outbox import OutboxLimits
from tests.factories import ALICE, OTHER, RUN, THREAD, emitted
from tests.transport.edges import anyio_backend, serving  # noqa: F401  # a fixture
from tests.transport.fake_browser import Site
from tests.transport.raw_client import BUFFER_BYTES, raw_peer
from tests.transport.watched_hub import WatchedHub, wait_for_connections

TIMEOUT_SECONDS = 60.0
TOOL, THOUGHT, PROGRESS = EventType.TOOL_EXECUTING, EventType.AGENT_THINKING, EventType.PROGRESS_UPDATE
WAITING = 32
"""Size of an outbox in these tests, in frames."""
PAYLOAD = {"parameters": "x" * 4_096}
SHORT_SECONDS = 0.1


async def test_coalesced_thoughts_are_sent_as_gaps_and_other_events_are_delivered(site: Site) -> None:
    site.edge.scheduler.limits = OutboxLimits(events=4)
    async with site.visited((ALICE, THREAD)) as [browser]:
        browser.stop_reading()
        await site.publish()
        await anyio.wait_all_tasks_blocked()
        for _ in range(2):
            assert [(await site.publish(type=each))[0].sockets for each in (TOOL, THOUGHT, PROGRESS)] == [1, 1, 1]
        assert [receipt.sockets for receipt in await site.publish(3, type=THOUGHT)] == [1, 1, 1]
        assert (site.counters.coalesced, site.counters.gaps) == (5, {})
        browser.resume_reading()
        await anyio.wait_all_tasks_blocked()
        assert site.counters.gaps == {"coalesced": 3}
    assert browser.gaps == [(3, 4, "coalesced"), (6, 6, "coalesced"), (8, 9, "coalesced")]
    assert [frame.get("seq", "gap") for frame in browser.frames] == [1, 2, "gap", 5, "gap", 7, "gap", 10]
    assert browser.close is None
    assert (site.counters.coalesced, site.counters.gaps) == (5, {"coalesced": 3})
    assert site.counters.unwritten == {}


async def test_slow_socket_is_closed_and_resumes_without_loss(
    site: Site,
) -> None:
    site.edge.scheduler.limits = OutboxLimits(events=4)
    async with site.visited((ALICE, THREAD)) as [slow]:
        [first] = await site.publish(type=TOOL)
        await anyio.wait_all_tasks_blocked()
        slow.stop_reading()
        await site.publish(type=TOOL)
        await anyio.wait_all_tasks_blocked()
        assert [each.sockets for each in await site.publish(5, type=TOOL)] == [1, 1, 1, 1, 0]
        await anyio.wait_all_tasks_blocked()
        assert (slow.seqs, slow.close) == ([1], (4008, "too slow: connect again"))
    again = site.resuming(first)
    async with site.open(again):
        await site.publish(type=TOOL)
    assert (again.seqs, again.gaps) == ([2, 3, 4, 5, 6, 7, 8], [])


async def test_socket_is_closed_at_the_byte_limit(site: Site) -> None:
    site.edge.scheduler.limits = OutboxLimits(size_bytes=10_000)
    async with site.visited((ALICE, THREAD)) as [slow]:
        slow.stop_reading()
        for _ in range(8):
            await site.hub.publish(emitted(TOOL, payload=PAYLOAD), THREAD)
        await anyio.wait_all_tasks_blocked()
        assert slow.close == (4008, "too slow: connect again")


@asynccontextmanager
async def crowded() -> AsyncIterator[tuple[Application, str]]:
    """A real server with small outboxes and small socket buffers."""
    app = create_app(
        BridgeConfig(agents={}, authorizer=OwnerAuthorizer, outbox=OutboxLimits(events=WAITING), hub=WatchedHub)
    )
    with anyio.fail_after(TIMEOUT_SECONDS):
        async with serving(app, send_buffer_bytes=BUFFER_BYTES) as url:
            application: Application = app.state.bridgekit
            await application.open_thread(THREAD, ALICE)
            await application.open_thread(OTHER, ALICE)
            yield application, url


async def test_other_sockets_get_every_event_while_one_stops_reading() -> None:
    read = {THREAD: list[RoutedEvent](), OTHER: list[RoutedEvent]()}
    async with (
        crowded() as (application, url),
        raw_peer(url),
        connect(url, user_id=ALICE, thread_id=THREAD) as neighbour,
        connect(url, user_id=ALICE, thread_id=OTHER) as stranger,
    ):
        taken = list[int]()
        while not taken or taken[-1] == 2:
            for thread, client in ((THREAD, neighbour), (OTHER, stranger)):
                event = emitted(TOOL, thread_id=thread, payload=PAYLOAD)
                receipt = await application.bridge.notify(event)
                taken += [receipt.sockets] if thread == THREAD else []
                # While one client reads nothing, all others have each event before the next is emitted.
                read[thread].append(await client.receive())
        # It was disconnected when its outbox was full, which takes at least this many frames.
        assert len(taken) > WAITING
        for _ in range(10):
            assert (await application.bridge.notify(emitted(TOOL))).sockets == 1
            read[THREAD].append(await neighbour.receive())
    assert [event.seq for event in read[THREAD]] == list(range(1, len(taken) + 11))
    assert [event.seq for event in read[OTHER]] == list(range(1, len(taken) + 1))
    assert neighbour.gaps == stranger.gaps == []


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_disconnected_slow_socket_is_detached_at_once() -> None:
    """On asyncio. Hypercorn keeps writing until the system breaks the connection: see test_keepalive."""
    async with crowded() as (application, url), raw_peer(url) as slow:
        while (await application.bridge.notify(emitted(TOOL, payload=PAYLOAD))).sockets:
            await checkpoint()
        await wait_for_connections(application.bridge.hub)
        assert application.counters.unwritten["too slow"] >= WAITING
        # The client reads again: first what was written before, in order, and then the close frame.
        await slow.read_until(b"\x0f\xa8too slow: connect again")
    numbers = [int(number) for number in re.findall(rb'"seq":(\d+)', slow.read)]
    assert numbers == list(range(len(numbers)))


async def test_drain_waits_for_a_slow_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    """All waiting frames are written before the close frame. The time limit of a close handshake starts after that."""
    for edge in ("asgi", "native"):
        monkeypatch.setattr(f"bridgekit.transport.{edge}.CLOSE_TIMEOUT_SECONDS", SHORT_SECONDS)
    app = create_app(BridgeConfig(agents={}, authorizer=OwnerAuthorizer, hub=WatchedHub))
    with anyio.fail_after(TIMEOUT_SECONDS):
        async with serving(app, send_buffer_bytes=BUFFER_BYTES) as url, anyio.create_task_group() as tasks:
            application: Application = app.state.bridgekit
            await application.open_thread(THREAD, ALICE)
            async with raw_peer(url) as slow:
                for _ in range(12):
                    await application.bridge.notify(emitted(TOOL, payload=PAYLOAD))
                tasks.start_soon(partial(app.state.bridgekit_connections.drain, seconds=TIMEOUT_SECONDS))
                # The socket is still open after the time limit, unless the server has already accepted all frames.
                with anyio.move_on_after(3 * SHORT_SECONDS):
                    await wait_for_connections(application.bridge.hub)
                await slow.read_until(b"\x0f\xa0")  # 4000
                assert slow.read.count(b'"seq":') == 12 + 1
                await slow.send_close()


BURST = 1_250
"""Events that an agent emits without awaiting anything else: more than twice the size of an outbox."""
SMALL = OutboxLimits(events=512)


@pytest.mark.parametrize("event_type", [TOOL, THOUGHT, EventType.TEXT_DELTA], ids=str)
async def test_reading_client_gets_every_event_of_a_burst_of_any_length(event_type: EventType) -> None:
    """Nothing is lost or coalesced. The test fails at the first receipt that is not SENT, and at the first gap."""
    app = create_app(BridgeConfig(agents={}, authorizer=OwnerAuthorizer, outbox=SMALL))
    read = list[RoutedEvent]()
    with anyio.fail_after(TIMEOUT_SECONDS):
        async with serving(app) as url:
            application: Application = app.state.bridgekit
            await application.open_thread(THREAD, ALICE)
            agent = WebSocketBridgeAdapter()
            agent.set_websocket_bridge(application.bridge, RUN, "researcher", thread_id=THREAD)

            async def emitting() -> None:
                for number in range(BURST):
                    receipt = await agent.emit(event_type, {"number": number})
                    assert receipt, receipt.reason

            async with connect(url, user_id=ALICE, thread_id=THREAD) as client, anyio.create_task_group() as tasks:
                tasks.start_soon(emitting)
                while len(read) < BURST:
                    read.append(await client.receive())
                    assert client.gaps == []
            assert application.counters.lost == {}
            assert application.counters.unwritten == {}
    assert [event.payload["number"] for event in read] == list(range(BURST))
    assert [event.seq for event in read] == list(range(1, BURST + 1))


AGENTS = 1_000
"""Agents that emit in the same iteration of the event loop: about twice what an outbox holds."""


@pytest.mark.parametrize("thread_id", [THREAD, None], ids=["known thread", "mapped run"])
async def test_reading_client_gets_every_event_of_a_thousand_agents_that_emit_at_once(
    thread_id: ThreadId | None,
) -> None:
    """The event is one that may not be coalesced. The test fails at the first receipt that is not SENT."""
    app = create_app(BridgeConfig(agents={}, authorizer=OwnerAuthorizer, outbox=SMALL))
    with anyio.fail_after(TIMEOUT_SECONDS):
        async with serving(app) as url:
            application: Application = app.state.bridgekit
            await application.open_thread(THREAD, ALICE)
            await application.bridge.mapping.register_mapping(RUN, THREAD)

            async def emit_once(number: int) -> None:
                agent = WebSocketBridgeAdapter()
                agent.set_websocket_bridge(application.bridge, RUN, "researcher", thread_id=thread_id)
                receipt = await agent.emit(TOOL, {"number": number})
                assert receipt, receipt.reason

            async with connect(url, user_id=ALICE, thread_id=THREAD) as client, anyio.create_task_group() as tasks:
                for number in range(AGENTS):
                    tasks.start_soon(emit_once, number)
                read = [await client.receive() for _ in range(AGENTS)]
            assert application.counters.lost == {}
    assert {event.payload["number"] for event in read} == set(range(AGENTS))
    assert [event.seq for event in read] == list(range(1, AGENTS + 1))


class Quick(BaseAgent):
    async def execute(self, context: RunContext) -> object:
        return None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("limits", "runs"),
    [(SMALL, AGENTS), (OutboxLimits(events=1), 20), (OutboxLimits(size_bytes=1), 20)],
    ids=["thousands", "an event", "a byte"],
)
async def test_reading_client_gets_start_and_end_of_runs_that_start_at_once(limits: OutboxLimits, runs: int) -> None:
    app = create_app(BridgeConfig(agents={"quick": Quick}, authorizer=OwnerAuthorizer, outbox=limits))
    with anyio.fail_after(TIMEOUT_SECONDS):
        async with serving(app) as url:
            application: Application = app.state.bridgekit
            await application.open_thread(THREAD, ALICE)
            run = partial(application.supervisor.run, agent_name="quick", thread_id=THREAD, user_id=ALICE, request="")
            async with connect(url, user_id=ALICE, thread_id=THREAD) as client, anyio.create_task_group() as tasks:
                for _ in range(runs):
                    tasks.start_soon(run)
                read = [await client.receive() for _ in range(2 * runs)]
                assert client.gaps == []
            assert application.counters.lost == {}
    assert Counter(event.type for event in read) == {EventType.AGENT_STARTED: runs, EventType.AGENT_COMPLETED: runs}


SLOW_READ_BYTES = 512
"""What a slow client reads in an iteration of the event loop: an eighth of an event."""
AGENTS_OF_SLOW_CLIENT = 128
"""Agents whose events fill the outbox and all buffers before it, and more."""


async def test_agents_that_emit_at_once_wait_for_a_client_that_reads_slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Emitting one event in each iteration of the event loop is not enough: agents must wait until there is room.

    With so small a receive buffer, TCP may probe a closed window later than the ticks that make a client slow.
    """
    monkeypatch.setattr(outbox, "SLOW_AFTER_TICKS", 500)
    async with crowded() as (application, url), raw_peer(url) as slow, anyio.create_task_group() as tasks:

        async def emit_once() -> None:
            agent = WebSocketBridgeAdapter()
            agent.set_websocket_bridge(application.bridge, RUN, "researcher", thread_id=THREAD)
            receipt = await agent.emit(TOOL, PAYLOAD)
            assert receipt, receipt.reason

        for _ in range(AGENTS_OF_SLOW_CLIENT):
            tasks.start_soon(emit_once)
        await slow.read_slowly(1 + AGENTS_OF_SLOW_CLIENT, SLOW_READ_BYTES)
        assert application.counters.lost == {}


UNAWAITED = 2_500
"""Large events, which fill an outbox and all buffers before it."""


async def test_unawaited_burst_is_refused_when_there_is_no_room_and_never_lost_after_being_retained() -> None:
    app = create_app(BridgeConfig(agents={}, authorizer=OwnerAuthorizer, outbox=SMALL))
    with anyio.fail_after(TIMEOUT_SECONDS):
        async with serving(app) as url:
            application: Application = app.state.bridgekit
            await application.open_thread(THREAD, ALICE)
            async with connect(url, user_id=ALICE, thread_id=THREAD) as client:
                answers = [application.bridge.notify(emitted(TOOL, payload=PAYLOAD)) for _ in range(UNAWAITED)]
                receipts = [answer for answer in answers if isinstance(answer, Receipt)]
                taken = [receipt for receipt in receipts if receipt]
                read = [await client.receive() for _ in taken]
                assert client.gaps == []
            assert len(receipts) == UNAWAITED
            assert {receipt.reason for receipt in receipts if not receipt} == {NO_ROOM}
            assert not any(receipt.kept for receipt in receipts if not receipt)
            assert application.counters.lost == {(10, NO_ROOM): UNAWAITED - len(taken)}
    assert [event.seq for event in read] == [receipt.seq for receipt in taken] == list(range(1, len(taken) + 1))


async def test_agent_can_be_cancelled_during_a_burst() -> None:
    app = create_app(BridgeConfig(agents={}, authorizer=OwnerAuthorizer))
    emitted_before = 0
    with anyio.fail_after(TIMEOUT_SECONDS):
        async with serving(app) as url, connect_to(app, url), anyio.create_task_group() as tasks:
            agent = WebSocketBridgeAdapter()
            agent.set_websocket_bridge(app.state.bridgekit.bridge, RUN, "researcher", thread_id=THREAD)

            async def emitting() -> None:
                nonlocal emitted_before
                while True:
                    await agent.emit_tool_executing("look_up", PAYLOAD, tool_call_id="1")
                    emitted_before += 1

            tasks.start_soon(emitting)
            while not emitted_before:
                await checkpoint()
            tasks.cancel_scope.cancel()


@asynccontextmanager
async def connect_to(app: Starlette, url: str) -> AsyncIterator[None]:
    """Open a socket of Alice's that is not read."""
    await app.state.bridgekit.open_thread(THREAD, ALICE)
    async with connect(url, user_id=ALICE, thread_id=THREAD):
        yield
