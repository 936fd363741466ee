"""A client that stays, against real servers that go and come back, and for users who take their time. Both backends."""

from __future__ import annotations

import anyio
import pytest
from anyio.lowlevel import checkpoint

from bridgekit.errors import SubscriptionRefused
from bridgekit.signals import Gap
from bridgekit.transport.client import on_trio
from bridgekit.transport.log import Retention
from bridgekit.transport.resuming_client import Backoff, ResumingClient
from tests.transport.edges import anyio_backend  # noqa: F401  # a fixture
from tests.transport.server_fixtures import machine


async def read(follower: ResumingClient, count: int) -> list[str]:
    items = [await anext(follower) for _ in range(count)]
    return [f"{item.first}-{item.last} {item.reason}" if isinstance(item, Gap) else str(item.seq) for item in items]


async def test_server_that_is_stopped_and_started_again_costs_nothing() -> None:
    async with machine() as server:
        async with server.subscribe() as follower:
            for seq in (1, 4, 7):
                await server.publish(2)
                assert await read(follower, 2) == [str(seq), str(seq + 1)]
                # Hypercorn would wait for who is connected, and then cut them off.
                await server.stop(goodbye=seq < 7 or on_trio())
                # What is emitted while the server is away is in the log all the same.
                [receipt] = await server.publish()
                assert not receipt
                assert receipt.kept
                await server.start()
                assert await read(follower, 1) == [str(seq + 2)]
            assert follower.subscriptions == 4
            assert follower.duplicates == 0
        assert len(set(server.tickets)) == len(server.tickets) >= 4


async def test_more_than_is_kept_while_the_server_is_away_is_one_gap_and_then_it_goes_on() -> None:
    async with machine(Retention(events=3)) as server, server.subscribe() as follower:
        await server.publish()
        assert await read(follower, 1) == ["1"]
        await server.stop()
        await server.publish(4)
        await server.start()
        assert await read(follower, 1) == ["2-5 expired"]
        await server.publish()
        assert await read(follower, 1) == ["6"]


async def test_sockets_that_are_drained_again_and_again_while_events_come_cost_nothing() -> None:
    async with machine() as server, server.subscribe() as follower, anyio.create_task_group() as tasks:

        async def emit() -> None:
            for number in range(300):
                await server.publish()
                await checkpoint()
                if number % 50 == 49:
                    await server.app.state.bridgekit_connections.drain()

        tasks.start_soon(emit)
        assert await read(follower, 300) == [str(seq) for seq in range(1, 301)]


async def test_user_who_reads_slowly_is_seen_as_a_slow_socket_and_still_reads_everything(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The client reads only so far ahead. The server gives the socket up, and the client comes back for the rest."""
    monkeypatch.setattr("bridgekit.transport.client.QUEUE_FRAMES", 4)
    monkeypatch.setattr("bridgekit.transport.resuming_client.READ_AHEAD", 2)
    async with machine(outbox_events=8) as server, server.subscribe() as follower:
        receipts = await server.publish()
        while receipts[-1].sockets:
            assert len(receipts) < 900, "everything was read ahead"
            receipts += await server.publish(size=8_192)
            await checkpoint()
        count = len(receipts)
        assert await read(follower, count) == [str(seq) for seq in range(1, count + 1)]
        assert follower.subscriptions > 1


async def test_another_process_goes_on_from_the_cursor_without_loss_or_repetition() -> None:
    async with machine() as server:
        async with server.subscribe() as first:
            await server.publish(5)
            assert await read(first, 2) == ["1", "2"]
            cursor = first.cursor
        await server.publish(2)
        async with server.subscribe(after=cursor) as second:
            await server.publish()
            assert await read(second, 6) == ["3", "4", "5", "6", "7", "8"]


async def test_user_who_loses_the_thread_is_told_so_where_he_reads() -> None:
    async with machine() as server, server.subscribe() as follower:
        await server.publish()
        server.threads._owners.clear()
        await server.app.state.bridgekit_connections.drain()
        assert await read(follower, 1) == ["1"]
        with pytest.raises(SubscriptionRefused, match="no such thread of this user"):
            await anext(follower)


async def test_end_of_the_block_ends_the_socket_and_whoever_still_reads() -> None:
    async with machine() as server, anyio.create_task_group() as tasks:
        read_out = list[int]()

        async def read_on(follower: ResumingClient) -> None:
            read_out.extend([item.seq async for item in follower if not isinstance(item, Gap)])

        async with server.subscribe() as follower:
            tasks.start_soon(read_on, follower)
            await server.publish(3)
            while follower.cursor is None or follower.cursor.seq < 3:
                await checkpoint()
        while len(server.application.bridge.hub):
            await checkpoint()
        assert [item async for item in follower] == []
    assert read_out == [1, 2, 3]


async def test_block_ends_while_its_client_waits_for_a_server() -> None:
    away = list[bool]()
    async with machine() as server:
        slowly = Backoff(first_seconds=1_000, longest_seconds=1_000)
        async with server.subscribe(backoff=slowly, random=lambda: 1.0, on_status=away.append):
            await server.app.state.bridgekit_connections.drain()
            while away == [True]:
                await checkpoint()
            for _ in range(50):
                await checkpoint()
            assert away == [True, False]


async def test_block_ends_while_nobody_has_read_what_came() -> None:
    async with machine() as server:
        async with server.subscribe():
            await server.publish(900)
            await anyio.wait_all_tasks_blocked()
        while len(server.application.bridge.hub):
            await checkpoint()


async def test_error_of_the_block_comes_out_as_itself() -> None:
    async with machine() as server:
        with pytest.raises(ZeroDivisionError):
            async with server.subscribe():
                raise ZeroDivisionError


class Unreachable(Exception):
    """As an HTTP client says that it did not get through."""


async def test_ticket_that_cannot_be_had_is_asked_for_again_where_that_may_pass() -> None:
    async with machine() as server:
        asked = list[int]()

        async def ticket() -> str:
            asked.append(len(asked))
            if len(asked) in (1, 2, 4):
                raise Unreachable
            return await server.ticket()

        async with server.subscribe(ticket=ticket, retryable=(Unreachable,)) as follower:
            await server.app.state.bridgekit_connections.drain()
            while follower.subscriptions < 2:
                await checkpoint()
            await server.publish()
            assert await read(follower, 1) == ["1"]
        assert len(asked) == 5


async def test_what_the_ticket_source_raises_else_is_raised_where_the_follower_is_read() -> None:
    async with machine() as server:

        async def ticket() -> str:
            if server.tickets:
                raise Unreachable
            return await server.ticket()

        async with server.subscribe(ticket=ticket) as follower:
            await server.publish()
            await server.app.state.bridgekit_connections.drain()
            assert await read(follower, 1) == ["1"]
            with pytest.raises(Unreachable):
                await anext(follower)
        with pytest.raises(Unreachable):
            async with server.subscribe(ticket=ticket):
                raise AssertionError("was entered")
