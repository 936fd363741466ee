"""Timeouts, partitions, resets, limits and unreachable servers: lost and delayed bytes, and errors."""

from __future__ import annotations

import os
import socket

import anyio
import pytest
from anyio.abc import SocketAttribute

from bridgekit_verify.faults.proxy import Proxy
from tests.verify.faults.peers import (
    TIMEOUT_SECONDS,
    Server,
    assert_echo,
    connect_to,
    is_silent,
    read,
    read_to_end,
    read_until_reset,
    refused,
    reset_on_close,
    stream_bytes,
    through,
    write_stream,
)

LOOPBACK = "127.0.0.1"


async def test_timeout_drops_both_directions_without_an_error() -> None:
    async with through() as (server, via, client):
        with via.timeout():
            await client.send(b" lost")
            await server.streams[0].send(b"lost too")
            assert await is_silent(client)
            assert server.read == b"hello"
            # Neither the end of a stream nor a reset passes.
            await client.send_eof()
            await is_silent(client)
            assert not server.ended.is_set()


async def test_timeout_hides_a_client_reset_from_the_server() -> None:
    async with through() as (server, via, client):
        stuck = via.timeout()
        await reset_on_close(client).aclose()
        with anyio.move_on_after(0.05):
            await server.ended.wait()
        assert not server.ended.is_set()
        stuck.stop()
        await ended(server)


async def test_timeout_cuts_open_connections_when_it_stops() -> None:
    async with through() as (server, via, client):
        with via.timeout():
            async with await connect_to(via) as late:
                await late.send(b"lost")
                await client.send(b"lost")
                assert await is_silent(client)
            # The bytes are still in the sockets when the toxic stops, because no task runs between write and stop.
            for stream in (server.streams[0], client):
                os.write(stream.extra(SocketAttribute.raw_socket).fileno(), b"after the hole")
        assert await read_to_end(client) == b""
        await ended(server)
        assert server.read == b"hello"
        async with await connect_to(via) as next_one:
            await assert_echo(next_one, b"well again")


async def ended(server: Server) -> None:
    with anyio.fail_after(TIMEOUT_SECONDS):
        await server.ended.wait()


async def test_partition_blocks_bytes_and_delivers_them_when_it_heals() -> None:
    async with through() as (server, via, client):
        with via.partition():
            await client.send(b" wait")
            await server.streams[0].send(b"first")
            assert await is_silent(client)
            assert server.read == b"hello"
        assert sorted(await read(client, 10)) == sorted(b"first wait")
        assert server.read == b"hello wait"


async def test_partition_also_blocks_delayed_bytes() -> None:
    async with through() as (_, via, client):
        with via.latency(0.01):
            await client.send(b"late")
            with via.partition():
                assert await is_silent(client)
            assert await read(client, 4) == b"late"


async def test_partition_blocks_the_end_of_a_stream() -> None:
    async with through() as (server, via, client):
        with via.partition():
            await client.send_eof()
            assert await is_silent(client)
            assert not server.ended.is_set()
        assert await read_to_end(client) == b""


async def test_new_connections_hang_until_the_partition_heals() -> None:
    async with through() as (server, via, _):
        with via.partition():
            late = await connect_to(via)
            await late.send(b"let me in")
            assert await is_silent(late)
            assert len(server.streams) == 1
        async with late:
            assert await read(late, 9) == b"let me in"


async def test_bytes_flow_only_when_both_partitions_have_healed() -> None:
    async with through() as (_, via, client):
        first, second = via.partition(), via.partition()
        await client.send(b"!")
        first.stop()
        first.stop()
        assert await is_silent(client)
        second.stop()
        assert await read(client, 1) == b"!"


async def test_reset_peer_resets_both_ends() -> None:
    async with through() as (server, via, client):
        with via.reset_peer():
            assert await read_until_reset(client) == b""
            await ended(server)
        assert server.broken


async def test_reset_peer_resets_new_connections_before_they_reach_the_server() -> None:
    async with through() as (server, via, _):
        with via.reset_peer():
            async with await connect_to(via) as late:
                assert await read_until_reset(late) == b""
        async with await connect_to(via) as next_one:
            await assert_echo(next_one, b"well again")
        assert len(server.streams) == 2


async def test_reset_peer_after_some_bytes_delivers_these_bytes() -> None:
    async with through(write_stream) as (server, via, client):
        await read(client, 1_000)
        with via.reset_peer(after_bytes=50_000):
            got = await read_until_reset(client)
            # Some of the other bytes were already in flight.
            assert got == stream_bytes(0, 2_000_000)[1_000 : 1_000 + len(got)]
            assert len(got) >= 50_000
            await ended(server)
        assert server.broken


async def test_limit_data_closes_open_and_new_connections_after_the_limit() -> None:
    async with through() as (server, via, client):
        with via.limit_data(7):
            async with await connect_to(via) as late:
                for one in (client, late):
                    await one.send(b"not all of this")
                    assert await read_to_end(one) == b"not all"
            await ended(server)
        assert not server.broken
        async with await connect_to(via) as next_one:
            await assert_echo(next_one, b"all of this again")


async def test_limit_data_counts_bytes_over_several_writes() -> None:
    async with through() as (_, via, client):
        with via.limit_data(7):
            await assert_echo(client, b"abcd")
            await client.send(b"efgh")
            assert await read_to_end(client) == b"efg"


async def test_limit_keeps_its_count_while_other_toxics_start_and_stop() -> None:
    async with through() as (_, via, client):
        with via.limit_data(7):
            with via.latency(0.001):
                await assert_echo(client, b"abcd")
            await client.send(b"efgh")
            assert await read_to_end(client) == b"efg"


async def test_stopped_limit_has_no_effect_and_a_new_one_starts_at_zero() -> None:
    async with through() as (_, via, client):
        for _ in range(3):
            with via.limit_data(7):
                await assert_echo(client, b"abcd")
        await assert_echo(client, b"all of it")


async def test_down_closes_open_connections_and_refuses_new_ones() -> None:
    async with through() as (server, via, client):
        with via.down():
            await refused(via)
            assert await read_to_end(client) == b""
            await ended(server)
            assert not server.broken
        await well(via)


async def well(via: Proxy) -> None:
    async with await connect_to(via) as client:
        await assert_echo(client, b"well again")


async def test_up_ends_only_down_toxics() -> None:
    async with through() as (_, via, client):
        with via.partition():
            via.up()
            await client.send(b"!")
            assert await is_silent(client)


async def test_up_ends_every_down_and_keeps_the_port() -> None:
    async with through() as (_, via, _):
        port = via.port
        for _ in range(3):
            first, second = via.down(), via.down()
            first.stop()
            await refused(via)
            via.up()
            second.stop()
            assert via.port == port
            await well(via)


@pytest.mark.parametrize("shares", [0, 1])
async def test_port_stays_reserved_while_it_is_down(shares: int) -> None:
    async with through() as (_, via, _):
        with via.down(), socket.socket() as thief:
            thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, shares)
            with pytest.raises(OSError, match="in use"):
                thief.bind((LOOPBACK, via.port))


async def test_connection_that_hangs_in_a_partition_is_refused_when_the_proxy_goes_down() -> None:
    async with through() as (_, via, _):
        with via.partition(), via.down():
            await refused(via)
        await well(via)
