"""The proxy without a fault: bytes, ends and breaks pass as if it were not there, and nothing of it stays."""

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
    SOON,
    broken_after,
    dial,
    drink,
    echo,
    open_files,
    pour,
    poured,
    read,
    refused,
    resetting,
    rest,
    said,
    serving,
    settled,
    through,
)


async def test_bytes_pass_unchanged_in_both_directions_until_the_end_of_each_stream() -> None:
    data = os.urandom(3_000_000)
    async with through() as (server, _, client), anyio.create_task_group() as tasks:

        async def send() -> None:
            await client.send(data)
            await client.send_eof()

        tasks.start_soon(send)
        # The client's end passes first; the server, which still has a lot to say, is heard out.
        assert await rest(client) == data
        assert server.read == b"hello" + data


@pytest.mark.slow
async def test_many_connections_are_independent() -> None:
    async with serving(echo) as server, proxy("127.0.0.1", server.port) as between, anyio.create_task_group() as tasks:

        async def talk(number: int) -> None:
            async with await dial(between) as client:
                for word in range(20):
                    await said(client, b"%d says %d" % (number, word))

        for number in range(30):
            tasks.start_soon(talk, number)


async def test_connection_is_removed_when_both_streams_end() -> None:
    async with through() as (server, between, client):
        assert between.open_connections == 1
        await client.aclose()
        await server.ended.wait()
        with anyio.fail_after(SOON):
            while between.open_connections:
                await anyio.lowlevel.checkpoint()
        assert not server.broken


@pytest.mark.parametrize("reader", [math.inf, 0.0])
async def test_client_is_reset_when_the_server_is_unreachable(reader: float) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        async with proxy("127.0.0.1", nobody.getsockname()[1]) as between:
            with between.slow_reader(reader):
                async with await dial(between) as client:
                    assert await broken_after(client) == b""


async def test_reset_of_the_client_reaches_the_server_as_a_reset() -> None:
    async with through() as (server, _, client):
        await resetting(client).aclose()
        with anyio.fail_after(SOON):
            await server.ended.wait()
        assert server.broken


async def test_reset_of_the_server_reaches_the_client_as_a_reset() -> None:
    async with through() as (server, _, client):
        await resetting(server.streams[0]).aclose()
        assert await broken_after(client) == b""


async def test_proxy_does_not_hide_a_client_that_stops_reading() -> None:
    async with through(pour) as (server, _, client):
        assert await settled(server) < 2_000_000
        assert await read(client, 3_000_000) == poured(0, 3_000_000)


async def test_open_connections_end_with_the_block_without_leaks() -> None:
    async with serving(drink) as server:
        before = open_files()
        async with proxy("127.0.0.1", server.port) as between:
            clients = [await dial(between) for _ in range(3)]
        for client in clients:
            assert await rest(client) == b""
            await client.aclose()
        await refused(between)
        await anyio.wait_all_tasks_blocked()
        assert open_files() == before


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORK_FAULTS)
async def test_block_ends_while_a_fault_is_active_and_bytes_are_blocked(name: str) -> None:
    async with serving(pour) as server:
        before = open_files()
        with anyio.fail_after(SOON):
            async with proxy("127.0.0.1", server.port) as between:
                early = await dial(between)
                await read(early, 1_000)
                running = between.start(NETWORK_FAULTS[name].toxic(seed=1))
                late = [] if name == "down" else [await dial(between)]
                await anyio.wait_all_tasks_blocked()
        running.stop()
        for client in [early, *late]:
            await client.aclose()
        await anyio.wait_all_tasks_blocked()
        assert open_files() == before


async def test_error_of_the_block_is_raised_unwrapped() -> None:
    async with serving(echo) as server:
        with pytest.raises(KeyError, match="mine"):
            async with proxy("127.0.0.1", server.port) as between, await dial(between):
                raise KeyError("mine")


def test_sockets_of_the_proxy_have_no_delay_and_small_buffers() -> None:
    with socket.socket() as end:
        prepare(end, 10_000)
        assert not end.getblocking()
        assert end.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        # Linux doubles what is asked for.
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            assert 10_000 <= end.getsockopt(socket.SOL_SOCKET, option) <= 20_000
