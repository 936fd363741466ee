"""The client with one socket: what it receives, and how it closes. On both backends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
from anyio.abc import SocketAttribute, SocketStream
from websockets.exceptions import InvalidHandshake

from bridgekit.chain.link_1_startup import Application, BridgeConfig, create_app
from bridgekit.cursors_and_gaps import Cursor, Gap, GapReason, encode_signal
from bridgekit.errors import Disconnected, MalformedFrame
from bridgekit.events import EventType
from bridgekit.serve.in_process import serving
from bridgekit.transport.client import EventClient, connect
from tests.factories import ALICE, THREAD, emitted, frame
from tests.transport.raw_client import EPOCH, Answer, raw_server, sending, subscribed
from tests.transport.watched_hub import WatchedHub, wait_for_connections
from tests.verify.faults.peers import reset_on_close

TIMEOUT_SECONDS = 60.0
ONE, TWO = frame(1).data, frame(2).data
GAP = Gap(thread_id=THREAD, epoch=EPOCH, first=2, last=8, reason=GapReason.COALESCED)


@asynccontextmanager
async def client_of(*answers: Answer) -> AsyncIterator[EventClient]:
    with anyio.fail_after(TIMEOUT_SECONDS):
        async with raw_server(*answers) as server, connect(server.url, user_id=ALICE, thread_id=THREAD) as client:
            yield client


@asynccontextmanager
async def served() -> AsyncIterator[tuple[Application, str]]:
    app = create_app(BridgeConfig(agents={}, hub=WatchedHub))
    with anyio.fail_after(TIMEOUT_SECONDS):
        async with serving(app) as url:
            application: Application = app.state.bridgekit
            await application.open_thread(THREAD, ALICE)
            yield application, url


async def test_events_are_received_in_order_and_gaps_are_collected() -> None:
    async with client_of(subscribed(ONE, encode_signal(GAP), frame(9).data)) as client:
        assert client.subscribed.cursor == Cursor(EPOCH, 0)
        assert [(await client.receive()).seq for _ in range(2)] == [1, 9]
        assert client.gaps == [GAP]


async def test_receive_any_returns_gaps() -> None:
    async with client_of(subscribed(encode_signal(GAP), frame(9).data)) as client:
        assert await client.receive_any() == GAP
        assert client.gaps == []


async def test_second_confirmation_is_refused() -> None:
    async with client_of(subscribed(subscribed_frame())) as client:
        with pytest.raises(MalformedFrame, match="confirmed the subscription twice"):
            await client.receive()


def subscribed_frame() -> bytes:
    return b'{"type":"subscribed","thread_id":"thread_123","epoch":"0123456789abcdef","seq":0}'


@pytest.mark.parametrize("code", [1000, 4000])
async def test_normal_close_ends_iteration(code: int) -> None:
    async with client_of(subscribed(ONE, TWO, close=code)) as client:
        assert [event.seq async for event in client] == [1, 2]


@pytest.mark.parametrize("code", [1001, 1011, 1012, 4001, 4008, 4009])
async def test_iteration_raises_after_the_received_events_when_the_connection_breaks(code: int) -> None:
    async with client_of(subscribed(ONE, close=code)) as client:
        events = aiter(client)
        assert (await anext(events)).seq == 1
        with pytest.raises(Disconnected) as cut:
            await anext(events)
    assert cut.value.code == code


async def test_first_frame_that_confirms_nothing_is_rejected() -> None:
    with pytest.raises(MalformedFrame, match="does not confirm"):
        async with client_of(sending(ONE)):
            raise AssertionError("was let in")


async def test_ticket_of_a_served_application_opens_one_socket_and_resumes() -> None:
    async with served() as (application, url):
        async with connect(url, thread_id=THREAD, ticket=application.ticket(THREAD, ALICE)) as client:
            cursor = client.subscribed.cursor
        for _ in range(3):
            await application.bridge.notify(emitted())
        ticket = application.ticket(THREAD, ALICE)
        async with connect(url, thread_id=THREAD, ticket=ticket, after=cursor) as client:
            assert [(await client.receive()).seq for _ in range(3)] == [1, 2, 3]


async def test_server_that_closes_during_the_handshake_raises_a_connection_error() -> None:
    """A server that is stopping does this. When the client notices varies, so the test repeats."""
    with anyio.fail_after(TIMEOUT_SECONDS):
        async with (
            await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(listener.serve, reject)
            url = f"ws://127.0.0.1:{listener.extra(SocketAttribute.local_port)}"
            for _ in range(50):
                with pytest.raises((OSError, InvalidHandshake)):
                    await enter(url)
            tasks.cancel_scope.cancel()


async def reject(stream: SocketStream) -> None:
    await reset_on_close(stream).aclose()


async def enter(url: str) -> None:
    async with connect(url, user_id=ALICE, thread_id=THREAD):
        raise AssertionError("was let in")


async def test_server_gets_a_close_frame_when_the_block_is_cancelled() -> None:
    async with served() as (application, url):
        with anyio.CancelScope() as scope:
            async with connect(url, thread_id=THREAD, ticket=application.ticket(THREAD, ALICE)) as client:
                scope.cancel()
                await client.receive()
        await wait_for_connections(application.bridge.hub)
        assert scope.cancelled_caught


async def test_block_ends_at_once_with_unread_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """More frames wait than are read ahead. They must be discarded, or the server's close frame is never reached."""
    monkeypatch.setattr("bridgekit.transport.client.CLOSE_TIMEOUT_SECONDS", 2 * TIMEOUT_SECONDS)
    async with (
        served() as (application, url),
        connect(url, thread_id=THREAD, ticket=application.ticket(THREAD, ALICE)),
    ):
        for _ in range(1_000):
            await application.bridge.notify(emitted(EventType.AGENT_THINKING))
        await anyio.wait_all_tasks_blocked()
