"""A WebSocket connection through the proxy: the effect of each fault that both ends observe."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import anyio
import pytest
import trio
import websockets.asyncio.client
import websockets.asyncio.server
import websockets.trio.client
import websockets.trio.server
from websockets.exceptions import ConnectionClosedError

from bridgekit.transport.client import on_trio
from bridgekit_verify.faults.proxy import Proxy, proxy
from bridgekit_verify.faults.toxics import NETWORK_FAULTS, AddedLatency, Bandwidth, Slicer, SlowReader, Toxic
from tests.verify.faults.peers import TIMEOUT_SECONDS

Handler = Callable[[Any], Awaitable[None]]  # asyncio and trio sockets have no common base class
HOST: Final = "127.0.0.1"


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[int]:
    if on_trio():
        [listener] = await trio.open_tcp_listeners(0, host=HOST)
        async with anyio.create_task_group() as tasks:
            await tasks.start(on_listener, handler, listener)
            yield listener.socket.getsockname()[1]
            tasks.cancel_scope.cancel()
    else:
        async with websockets.asyncio.server.serve(handler, HOST, 0) as server:
            [listening] = server.sockets
            yield listening.getsockname()[1]


async def on_listener(handler: Handler, listener: trio.SocketListener, *, task_status: Any) -> None:
    await websockets.trio.server.serve(handler, listeners=[listener], task_status=task_status)


@asynccontextmanager
async def opened(via: Proxy, **choices: Any) -> AsyncIterator[Any]:
    connect = websockets.trio.client.connect if on_trio() else websockets.asyncio.client.connect
    async with connect(via.url(), proxy=None, compression=None, **choices) as client:
        yield client


@asynccontextmanager
async def through(handler: Handler) -> AsyncIterator[tuple[Proxy, Any]]:
    with anyio.fail_after(2 * TIMEOUT_SECONDS):
        async with serving(handler) as port, proxy(HOST, port) as via, opened(via) as client:
            yield via, client


async def echo(server: Any) -> None:
    async for message in server:
        await server.send(message)


async def count(server: Any) -> None:
    """Send ten numbers in frames of 20 bytes on request, and stay connected."""
    await server.recv()
    for number in range(10):
        await server.send(f"{number:018}")
    await server.wait_closed()


async def all_read(client: Any) -> list[int]:
    got: list[int] = []
    with pytest.raises(ConnectionClosedError) as closed:
        await read_into(got, client)
    assert closed.value.rcvd is None, "a cut connection cannot deliver a close frame"
    return got


async def read_into(got: list[int], client: Any) -> None:
    while True:
        got.append(int(await client.recv()))


async def test_messages_of_any_size_and_the_close_frame_pass() -> None:
    async with through(echo) as (_, client):
        for message in ("", "word", "x" * 70_000, b"\0" * 900_000):
            await client.send(message)
            assert await client.recv() == message
        close = client.aclose if on_trio() else client.close
        await close(4_001, "enough")
        assert (client.close_code, client.close_reason) == (4_001, "enough")


@pytest.mark.parametrize(
    "toxic",
    [AddedLatency(0.005, 0.005), Bandwidth(10_000), SlowReader(10_000), Slicer(7, 5), Slicer(9, seconds=0.001)],
    ids=lambda toxic: type(toxic).__name__,
)
async def test_slow_network_loses_no_message_and_keeps_their_order(toxic: Toxic) -> None:
    async with through(count) as (via, client):
        with via.start(toxic):
            await client.send("go")
            assert [int(await client.recv()) for _ in range(10)] == list(range(10))


async def test_partition_that_heals_loses_no_message() -> None:
    async with through(count) as (via, client):
        with via.partition():
            await client.send("go")
            with anyio.move_on_after(0.05) as waiting:
                await client.recv()
            assert waiting.cancelled_caught
        assert [int(await client.recv()) for _ in range(10)] == list(range(10))


async def test_complete_messages_before_a_cut_frame_are_received() -> None:
    async with through(count) as (via, client):
        with via.limit_data(47):
            await client.send("go")
            assert await all_read(client) == [0, 1]


@pytest.mark.parametrize("name", ["reset_peer", "down", "timeout"])
async def test_cut_connection_ends_without_a_close_frame_and_a_new_one_works(name: str) -> None:
    async with through(count) as (via, client):
        with via.start(NETWORK_FAULTS[name].toxic()):
            await client.send("go") if name == "timeout" else None
            await anyio.wait_all_tasks_blocked()
        assert await all_read(client) == []
        async with opened(via) as next_one:
            await next_one.send("go")
            assert int(await next_one.recv()) == 0


@pytest.mark.parametrize("name", ["timeout", "partition"])
async def test_opening_handshake_hangs(name: str) -> None:
    async with through(echo) as (via, _):
        with via.start(NETWORK_FAULTS[name].toxic()), pytest.raises(TimeoutError):
            async with opened(via, open_timeout=0.05):
                pass


async def test_slow_reader_causes_backpressure_at_the_sender() -> None:
    sent = 0

    async def flood(server: Any) -> None:
        nonlocal sent
        await server.recv()
        for _ in range(200):
            await server.send(bytes(100_000))
            sent += 1

    async with through(flood) as (via, client):
        with via.slow_reader():
            await client.send("go")
            with anyio.move_on_after(0.2):
                await client.recv()
            # The server's kernel buffers a few of the 20 megabytes, and the rest waits in the server.
            assert sent < 150
        for _ in range(200):
            assert len(await client.recv()) == 100_000
