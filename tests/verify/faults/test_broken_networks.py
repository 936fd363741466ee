"""Timeouts, partitions, resets, limits and servers that are down: what is lost, what waits, and who is told."""

from __future__ import annotations

import os
import socket

import anyio
import pytest
from anyio.abc import SocketAttribute

from bridgekit_verify.faults.proxy import Proxy
from tests.verify.faults.peers import (
    SOON,
    Server,
    broken_after,
    dial,
    pour,
    poured,
    read,
    refused,
    resetting,
    rest,
    said,
    silent,
    through,
)

LOOPBACK = "127.0.0.1"


async def test_timeout_drops_both_directions_without_an_error() -> None:
    async with through() as (server, between, client):
        with between.timeout():
            await client.send(b" lost")
            await server.streams[0].send(b"lost too")
            assert await silent(client)
            assert server.read == b"hello"
            # Neither the end of a stream nor a break is told.
            await client.send_eof()
            await silent(client)
            assert not server.ended.is_set()


async def test_timeout_hides_a_client_reset_from_the_server() -> None:
    async with through() as (server, between, client):
        stuck = between.timeout()
        await resetting(client).aclose()
        with anyio.move_on_after(0.05):
            await server.ended.wait()
        assert not server.ended.is_set()
        stuck.stop()
        await ended(server)


async def test_timeout_cuts_open_connections_when_it_stops() -> None:
    async with through() as (server, between, client):
        with between.timeout():
            async with await dial(between) as late:
                await late.send(b"lost")
                await client.send(b"lost")
                assert await silent(client)
            # In the sockets when it stops: nobody runs between the writing and the stop.
            for stream in (server.streams[0], client):
                os.write(stream.extra(SocketAttribute.raw_socket).fileno(), b"after the hole")
        assert await rest(client) == b""
        await ended(server)
        assert server.read == b"hello"
        async with await dial(between) as next_one:
            await said(next_one, b"well again")


async def ended(server: Server) -> None:
    with anyio.fail_after(SOON):
        await server.ended.wait()


async def test_partition_blocks_bytes_and_delivers_them_when_it_heals() -> None:
    async with through() as (server, between, client):
        with between.partition():
            await client.send(b" wait")
            await server.streams[0].send(b"first")
            assert await silent(client)
            assert server.read == b"hello"
        assert sorted(await read(client, 10)) == sorted(b"first wait")
        assert server.read == b"hello wait"


async def test_partition_also_blocks_delayed_bytes() -> None:
    async with through() as (_, between, client):
        with between.latency(0.01):
            await client.send(b"late")
            with between.partition():
                assert await silent(client)
            assert await read(client, 4) == b"late"


async def test_partition_blocks_the_end_of_a_stream() -> None:
    async with through() as (server, between, client):
        with between.partition():
            await client.send_eof()
            assert await silent(client)
            assert not server.ended.is_set()
        assert await rest(client) == b""


async def test_new_connections_hang_until_the_partition_heals() -> None:
    async with through() as (server, between, _):
        with between.partition():
            late = await dial(between)
            await late.send(b"let me in")
            assert await silent(late)
            assert len(server.streams) == 1
        async with late:
            assert await read(late, 9) == b"let me in"


async def test_bytes_flow_only_when_both_partitions_have_healed() -> None:
    async with through() as (_, between, client):
        first, second = between.partition(), between.partition()
        await client.send(b"!")
        first.stop()
        first.stop()
        assert await silent(client)
        second.stop()
        assert await read(client, 1) == b"!"


async def test_reset_peer_resets_both_ends() -> None:
    async with through() as (server, between, client):
        with between.reset_peer():
            assert await broken_after(client) == b""
            await ended(server)
        assert server.broken


async def test_reset_peer_resets_new_connections_before_they_reach_the_server() -> None:
    async with through() as (server, between, _):
        with between.reset_peer():
            async with await dial(between) as late:
                assert await broken_after(late) == b""
        async with await dial(between) as next_one:
            await said(next_one, b"well again")
        assert len(server.streams) == 2


async def test_reset_peer_after_some_bytes_delivers_these_bytes() -> None:
    async with through(pour) as (server, between, client):
        await read(client, 1_000)
        with between.reset_peer(after_bytes=50_000):
            got = await broken_after(client)
            # Of the others some were under way already.
            assert got == poured(0, 2_000_000)[1_000 : 1_000 + len(got)]
            assert len(got) >= 50_000
            await ended(server)
        assert server.broken


async def test_limit_data_closes_open_and_new_connections_after_the_limit() -> None:
    async with through() as (server, between, client):
        with between.limit_data(7):
            async with await dial(between) as late:
                for one in (client, late):
                    await one.send(b"not all of this")
                    assert await rest(one) == b"not all"
            await ended(server)
        assert not server.broken
        async with await dial(between) as next_one:
            await said(next_one, b"all of this again")


async def test_limit_data_counts_bytes_over_several_writes() -> None:
    async with through() as (_, between, client):
        with between.limit_data(7):
            await said(client, b"abcd")
            await client.send(b"efgh")
            assert await rest(client) == b"efg"


async def test_limit_keeps_its_count_while_other_toxics_start_and_stop() -> None:
    async with through() as (_, between, client):
        with between.limit_data(7):
            with between.latency(0.001):
                await said(client, b"abcd")
            await client.send(b"efgh")
            assert await rest(client) == b"efg"


async def test_stopped_limit_has_no_effect_and_a_new_one_starts_at_zero() -> None:
    async with through() as (_, between, client):
        for _ in range(3):
            with between.limit_data(7):
                await said(client, b"abcd")
        await said(client, b"all of it")


async def test_down_closes_open_connections_and_refuses_new_ones() -> None:
    async with through() as (server, between, client):
        with between.down():
            await refused(between)
            assert await rest(client) == b""
            await ended(server)
            assert not server.broken
        await well(between)


async def well(between: Proxy) -> None:
    async with await dial(between) as client:
        await said(client, b"well again")


async def test_up_ends_only_down_toxics() -> None:
    async with through() as (_, between, client):
        with between.partition():
            between.up()
            await client.send(b"!")
            assert await silent(client)


async def test_up_ends_every_down_and_keeps_the_port() -> None:
    async with through() as (_, between, _):
        port = between.port
        for _ in range(3):
            first, second = between.down(), between.down()
            first.stop()
            await refused(between)
            between.up()
            second.stop()
            assert between.port == port
            await well(between)


@pytest.mark.parametrize("shares", [0, 1])
async def test_port_stays_reserved_while_it_is_down(shares: int) -> None:
    async with through() as (_, between, _):
        with between.down(), socket.socket() as thief:
            thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, shares)
            with pytest.raises(OSError, match="in use"):
                thief.bind((LOOPBACK, between.port))


async def test_connection_that_hangs_in_a_partition_is_refused_when_the_proxy_goes_down() -> None:
    async with through() as (_, between, _):
        with between.partition(), between.down():
            await refused(between)
        await well(between)
