"""Latency, bandwidth limits, slow readers and sliced bytes: all bytes arrive in order, but late."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from random import Random

import anyio
import anyio.lowlevel
from anyio.abc import SocketStream

from bridgekit_verify.faults.toxics import BOTH_DIRECTIONS, AddedLatency, Direction
from tests.verify.faults.peers import (
    TIMEOUT_SECONDS,
    assert_echo,
    connect_to,
    is_silent,
    read,
    read_only,
    read_to_end,
    read_until_idle,
    stream_bytes,
    through,
    write_stream,
    written_when_blocked,
)

FOR_EVER = 1_000.0


async def took(client: SocketStream, data: bytes) -> float:
    began = anyio.current_time()
    await assert_echo(client, data)
    return anyio.current_time() - began


async def test_latency_delays_an_open_connection_in_both_directions() -> None:
    async with through() as (_, via, client):
        with via.latency(0.04):
            assert await took(client, b"there and back") >= 0.08


async def test_concurrent_latencies_add_up() -> None:
    async with through() as (_, via, client):
        with via.latency(0.03), via.latency(0.03):
            assert await took(client, b"twice") >= 0.12


async def test_latency_ends_with_its_block() -> None:
    async with through() as (_, via, client):
        with via.latency(FOR_EVER):
            pass
        await assert_echo(client, b"now")


async def test_latency_delays_bytes_concurrently() -> None:
    async with through() as (_, via, client):
        with via.slicer(1), via.latency(0.25):
            # Sequentially, they would take ten seconds.
            assert await took(client, b"twenty bytes exactly") < 7.5


async def test_latency_with_jitter_and_after_its_end_keeps_the_order() -> None:
    data = stream_bytes(0, 3_000)
    async with through() as (_, via, client):
        with via.slicer(100), via.latency(0.02, 0.02, seed=3):
            await client.send(data[:1_500])
            assert await read(client, 500) == data[:500]
        # Bytes in flight are still delayed and are not overtaken.
        await client.send(data[1_500:])
        assert await read(client, 2_500) == data[500:]


async def test_end_of_a_stream_is_delayed_like_a_byte() -> None:
    async with through() as (_, via, client):
        with via.latency(0.04):
            began = anyio.current_time()
            await client.send(b"and goodbye")
            await client.send_eof()
            assert await read_to_end(client) == b"and goodbye"
            assert anyio.current_time() - began >= 0.08


async def test_delayed_bytes_are_bounded_with_backpressure() -> None:
    async with through(write_stream) as (server, via, client):
        with via.latency(FOR_EVER):
            got = await read_until_idle(client)
            assert len(got) < await written_when_blocked(server) < 2_000_000


async def test_latency_passes_more_bytes_than_its_buffer_holds() -> None:
    data = os.urandom(500_000)
    async with through(read_only) as (server, via, client):
        with via.latency(0.005):
            await client.send(data)
            await client.send_eof()
            with anyio.fail_after(TIMEOUT_SECONDS):
                await server.ended.wait()
        assert server.read == data


async def test_bandwidth_limits_bytes_from_the_server() -> None:
    async with through() as (_, via, client):
        with via.bandwidth(100_000):
            # Minus two ticks: one that passes immediately and one of unused budget.
            assert await took(client, os.urandom(12_000)) >= 0.07


async def test_bandwidth_does_not_limit_the_other_direction() -> None:
    async with through(read_only) as (server, via, client):
        with via.bandwidth(1):
            await client.send(bytes(1_000_000))
            await client.send_eof()
            with anyio.fail_after(TIMEOUT_SECONDS):
                await server.ended.wait()
            assert len(server.read) == 1_000_000


async def test_bandwidth_limits_the_given_direction() -> None:
    for ways in ((Direction.TO_SERVER,), BOTH_DIRECTIONS):
        async with through() as (_, via, client):
            with via.bandwidth(0, ways):
                await client.send(b"!")
                assert await is_silent(client)


async def test_bandwidth_causes_backpressure_at_the_sender() -> None:
    async with through(write_stream) as (server, via, client):
        with via.bandwidth(10_000):
            await read(client, 1_000)
            assert await written_when_blocked(server) < 2_000_000


async def test_lowest_bandwidth_applies_until_it_stops() -> None:
    async with through() as (_, via, client):
        with via.bandwidth(1_000_000):
            with via.bandwidth(0):
                await client.send(b"!")
                assert await is_silent(client)
            assert await read(client, 1) == b"!"


async def test_very_low_bandwidth_ends_immediately_when_it_is_stopped() -> None:
    async with through() as (_, via, client):
        slow = via.bandwidth(0.001)
        await client.send(b"abc")
        assert await read(client, 1) == b"a"
        slow.stop()
        assert await read(client, 2) == b"bc"


async def test_slow_reader_blocks_the_server_and_keeps_the_connection() -> None:
    async with through(write_stream) as (server, via, client):
        await read(client, 10_000)
        with via.slow_reader():
            got = await read_until_idle(client)
            assert await written_when_blocked(server) < 2_000_000
            assert await is_silent(client)
        assert await read(client, 3_000_000) == stream_bytes(0, 4_000_000)[10_000 + len(got) :][:3_000_000]


async def test_slow_reader_reads_at_its_rate() -> None:
    async with through() as (_, via, client):
        with via.slow_reader(100_000):
            assert await took(client, os.urandom(12_000)) >= 0.07


async def test_bytes_from_a_slow_reader_still_reach_the_server() -> None:
    async with through() as (server, via, client):
        with via.slow_reader():
            await client.send(b" and more")
            with anyio.fail_after(TIMEOUT_SECONDS):
                while server.read != b"hello and more":
                    await anyio.lowlevel.checkpoint()
            assert await is_silent(client)


async def test_slicer_sends_pieces_separately_and_in_order() -> None:
    data = os.urandom(400)
    async with through() as (_, via, client):
        with via.slicer(20, 15, 0.002, seed=5):
            began = anyio.current_time()
            await client.send(data)
            pieces = [await client.receive()]
            while len(b"".join(pieces)) < len(data):
                pieces.append(await client.receive())
        assert b"".join(pieces) == data
        # At least 12 pieces in each direction; the kernel may have joined some of them.
        assert anyio.current_time() - began >= 0.02
        assert len(pieces) > 3


async def test_slicer_ends_with_its_block() -> None:
    async with through() as (_, via, client):
        with via.slicer(1, seconds=FOR_EVER):
            pass
        await assert_echo(client, b"in one piece")


async def test_new_connections_are_affected_by_active_toxics() -> None:
    async with through() as (_, via, _):
        with via.latency(0.04):
            async with await connect_to(via) as late:
                assert await took(late, b"me too") >= 0.08


@dataclass(frozen=True)
class Drawing(AddedLatency):
    """Records its random numbers and delays nothing."""

    drawn: list[float] = field(default_factory=list)

    def delay(self, chance: Random) -> float:
        self.drawn.append(chance.random())
        return 0.0


async def drawn(seed: int, ways: tuple[Direction, ...], connections: int = 1) -> list[list[float]]:
    """Return the random numbers of three consecutive writes, for each connection."""
    got = []
    async with through() as (_, via, client):
        for number in range(connections):
            toxic = Drawing(0.0, seed=seed, directions=ways)
            stream = client if number == 0 else await connect_to(via)
            with via.start(toxic):
                for word in (b"one", b"two", b"three"):
                    await assert_echo(stream, word)
            got.append(toxic.drawn)
            await stream.aclose()
    return got


async def test_random_numbers_depend_on_seed_connection_and_direction() -> None:
    first, second = await drawn(1, (Direction.TO_CLIENT,), connections=2)
    [other_way], [other_seed] = await drawn(1, (Direction.TO_SERVER,)), await drawn(2, (Direction.TO_CLIENT,))
    assert len({*first, *second, *other_way, *other_seed}) == 12
    assert [first, second] == await drawn(1, (Direction.TO_CLIENT,), connections=2)
