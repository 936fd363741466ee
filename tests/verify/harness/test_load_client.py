"""Many sockets in one process: timestamps, missing events, pauses and closed connections."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio
import pytest
from anyio.abc import SocketAttribute, SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream

from bridgekit_verify.harness.child_side import Done, Ready
from bridgekit_verify.harness.load_client import Clear, StopReading
from bridgekit_verify.harness.processes import ChildProcess, ProcessExited, start_module
from tests.verify.faults.peers import TIMEOUT_SECONDS
from tests.verify.harness import line_client
from tests.verify.harness.line_client import Count, Lines, Open, Pause, Read, Resume

pytestmark = pytest.mark.slow


@dataclass
class LineServer:
    """Accepts connections and confirms each subscription, unless it is silent."""

    silent: bool = False
    port: int = 0
    connections: list[SocketStream] = field(default_factory=list)

    async def accept(self, stream: SocketStream) -> None:
        async with stream:
            assert await BufferedByteReceiveStream(stream).receive_until(b"\n", 100) == b"hello"
            self.connections.append(stream)
            if not self.silent:
                await stream.send(b"welcome\n")
            await anyio.sleep_forever()


@asynccontextmanager
async def serving_lines(*, silent: bool = False) -> AsyncIterator[LineServer]:
    server = LineServer(silent)
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as tasks:
        server.port = listener.extra(SocketAttribute.local_port)
        tasks.start_soon(listener.serve, server.accept)
        yield server
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def loaded(sockets: int) -> AsyncIterator[tuple[LineServer, ChildProcess]]:
    async with serving_lines() as server, client_of(server) as client:
        await client.request(Open(sockets), Done)
        await anyio.wait_all_tasks_blocked()  # the server has sent all confirmations
        yield server, client


@asynccontextmanager
async def client_of(
    server: LineServer, *, open_timeout_seconds: float = TIMEOUT_SECONDS
) -> AsyncIterator[ChildProcess]:
    arguments = (line_client.__name__, str(server.port), str(open_timeout_seconds))
    async with start_module(*arguments, name="the client") as client:
        await client.receive(Ready)
        yield client


async def test_events_are_read_in_order_with_timestamps() -> None:
    async with loaded(2) as (server, client):
        await client.send(Read(3))
        sent_ns = time.monotonic_ns()
        await server.connections[0].send(b"a\nb")
        await server.connections[1].send(b"c\n")
        await server.connections[0].send(b"\n")
        read = await client.request(StopReading(), Lines)
    assert read.complete
    assert sorted(read.events) == [[b"a", b"b"], [b"c"]]
    assert all(sent_ns < each < time.monotonic_ns() for times in read.read_ns for each in times)
    assert all(times == sorted(times) for times in read.read_ns)


async def test_missing_event_makes_the_read_incomplete_and_cleared_events_are_not_counted() -> None:
    async with loaded(1) as (server, client):
        await server.connections[0].send(b"before\n")
        await client.request(Clear(), Done)
        await client.send(Read(2))
        await server.connections[0].send(b"a\n")
        read = await client.request(StopReading(), Lines)
    assert not read.complete
    assert read.events[0][-1] == b"a"


async def test_client_replies_to_pings_between_loads() -> None:
    async with loaded(1) as (server, _):
        await server.connections[0].send(b"?\n")
        assert await server.connections[0].receive() == b"!\n"


async def test_paused_socket_is_not_read_and_its_close_is_detected_on_resume() -> None:
    async with loaded(2) as (server, client):
        await client.request(Pause(), Done)
        await client.send(Read(1))
        for connection in server.connections:
            await connection.send(b"a\n")
        read = await client.request(StopReading(), Lines)
        assert (read.complete, read.events) == (True, [[b"a"]])
        for connection in server.connections:
            await connection.aclose()
        assert await client.request(Resume(), Count) == Count(1)


async def test_missing_confirmation_raises_not_subscribed() -> None:
    async with serving_lines(silent=True) as server, client_of(server, open_timeout_seconds=0.1) as client:
        with pytest.raises(ProcessExited, match="sockets without a subscription: 1"):
            await client.request(Open(1), Done)
