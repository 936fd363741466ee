"""The proxy without a fault passes bytes, stream ends and resets unchanged, and releases its resources."""

from __future__ import annotations

import math
import os
import socket

import anyio
import anyio.lowlevel
import pytest

from bridgekit_verify.faults.connection import prepare
from bridgekit_verify.faults.proxy import proxy
from bridgekit_verify.faults.toxics import NETWORK_FAULTS
from tests.verify.faults.peers import (
    TIMEOUT_SECONDS,
    assert_echo,
    connect_to,
    echo,
    open_files,
    read,
    read_only,
    read_to_end,
    read_until_reset,
    refused,
    reset_on_close,
    serving,
    stream_bytes,
    through,
    write_stream,
    written_when_blocked,
)


async def test_bytes_pass_unchanged_in_both_directions_until_the_end_of_each_stream() -> None:
    data = os.urandom(3_000_000)
    async with through() as (server, _, client), anyio.create_task_group() as tasks:

        async def send() -> None:
            await client.send(data)
            await client.send_eof()

        tasks.start_soon(send)
        # The end of the client's stream passes first; the server can still send the rest.
        assert await read_to_end(client) == data
        assert server.read == b"hello" + data


@pytest.mark.slow
async def test_many_connections_are_independent() -> None:
    async with serving(echo) as server, proxy("127.0.0.1", server.port) as via, anyio.create_task_group() as tasks:

        async def talk(number: int) -> None:
            async with await connect_to(via) as client:
                for word in range(20):
                    await assert_echo(client, b"%d says %d" % (number, word))

        for number in range(30):
            tasks.start_soon(talk, number)


async def test_connection_is_removed_when_both_streams_end() -> None:
    async with through() as (server, via, client):
        assert via.open_connections == 1
        await client.aclose()
        await server.ended.wait()
        with anyio.fail_after(TIMEOUT_SECONDS):
            while via.open_connections:
                await anyio.lowlevel.checkpoint()
        assert not server.broken


@pytest.mark.parametrize("reader", [math.inf, 0.0])
async def test_client_is_reset_when_the_server_is_unreachable(reader: float) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        async with proxy("127.0.0.1", unused.getsockname()[1]) as via:
            with via.slow_reader(reader):
                async with await connect_to(via) as client:
                    assert await read_until_reset(client) == b""


async def test_reset_of_the_client_reaches_the_server_as_a_reset() -> None:
    async with through() as (server, _, client):
        await reset_on_close(client).aclose()
        with anyio.fail_after(TIMEOUT_SECONDS):
            await server.ended.wait()
        assert server.broken


async def test_reset_of_the_server_reaches_the_client_as_a_reset() -> None:
    async with through() as (server, _, client):
        await reset_on_close(server.streams[0]).aclose()
        assert await read_until_reset(client) == b""


async def test_proxy_does_not_hide_a_client_that_stops_reading() -> None:
    async with through(write_stream) as (server, _, client):
        assert await written_when_blocked(server) < 2_000_000
        assert await read(client, 3_000_000) == stream_bytes(0, 3_000_000)


async def test_open_connections_end_with_the_block_without_leaks() -> None:
    async with serving(read_only) as server:
        before = open_files()
        async with proxy("127.0.0.1", server.port) as via:
            clients = [await connect_to(via) for _ in range(3)]
        for client in clients:
            assert await read_to_end(client) == b""
            await client.aclose()
        await refused(via)
        await anyio.wait_all_tasks_blocked()
        assert open_files() == before


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORK_FAULTS)
async def test_block_ends_while_a_fault_is_active_and_bytes_are_blocked(name: str) -> None:
    async with serving(write_stream) as server:
        before = open_files()
        with anyio.fail_after(TIMEOUT_SECONDS):
            async with proxy("127.0.0.1", server.port) as via:
                early = await connect_to(via)
                await read(early, 1_000)
                running = via.start(NETWORK_FAULTS[name].toxic(seed=1))
                late = [] if name == "down" else [await connect_to(via)]
                await anyio.wait_all_tasks_blocked()
        running.stop()
        for client in [early, *late]:
            await client.aclose()
        await anyio.wait_all_tasks_blocked()
        assert open_files() == before


async def test_error_of_the_block_is_raised_unwrapped() -> None:
    async with serving(echo) as server:
        with pytest.raises(KeyError, match="mine"):
            async with proxy("127.0.0.1", server.port) as via, await connect_to(via):
                raise KeyError("mine")


def test_sockets_of_the_proxy_have_no_delay_and_small_buffers() -> None:
    with socket.socket() as end:
        prepare(end, 10_000)
        assert not end.getblocking()
        assert end.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        # Linux doubles the requested size.
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            assert 10_000 <= end.getsockopt(socket.SOL_SOCKET, option) <= 20_000
