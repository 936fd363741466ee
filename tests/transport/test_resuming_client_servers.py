"""The resuming client against real servers that restart, and with callers that read slowly. On both backends."""

from __future__ import annotations

import anyio
import pytest
from anyio.lowlevel import checkpoint

from bridgekit.cursors_and_gaps import Gap
from bridgekit.errors import SubscriptionRefused
from bridgekit.transport.client import on_trio
from bridgekit.transport.log import Retention
from bridgekit.transport.resuming_client import Backoff, ResumingClient
from tests.transport.edges import anyio_backend  # noqa: F401  # a fixture
from tests.transport.server_fixtures import restartable_server
from tests.transport.watched_hub import wait_for_connections


async def read(client: ResumingClient, count: int) -> list[str]:
    items = [await anext(client) for _ in range(count)]
    return [f"{item.first}-{item.last} {item.reason}" if isinstance(item, Gap) else str(item.seq) for item in items]


async def test_server_restart_loses_no_event() -> None:
    async with restartable_server() as server:
        async with server.subscribe() as client:
            for seq in (1, 4, 7):
                await server.publish(2)
                assert await read(client, 2) == [str(seq), str(seq + 1)]
                # Hypercorn would wait for connected clients, and then abort their connections.
                await server.stop(drain=seq < 7 or on_trio())
                # Events emitted while the server is down are still logged.
                [receipt] = await server.publish()
                assert not receipt
                assert receipt.kept
                await server.start()
                assert await read(client, 1) == [str(seq + 2)]
            assert client.subscriptions == 4
            assert client.duplicates == 0
        assert len(set(server.tickets)) == len(server.tickets) >= 4


async def test_events_over_the_retention_during_a_restart_are_one_gap() -> None:
    async with restartable_server(Retention(events=3)) as server, server.subscribe() as client:
        await server.publish()
        assert await read(client, 1) == ["1"]
        await server.stop()
        await server.publish(4)
        await server.start()
        assert await read(client, 1) == ["2-5 expired"]
        await server.publish()
        assert await read(client, 1) == ["6"]


async def test_repeated_drains_during_publishing_lose_no_event() -> None:
    async with restartable_server() as server, server.subscribe() as client, anyio.create_task_group() as tasks:

        async def emit() -> None:
            for number in range(300):
                await server.publish()
                await checkpoint()
                if number % 50 == 49:
                    await server.app.state.bridgekit_connections.drain()

        tasks.start_soon(emit)
        assert await read(client, 300) == [str(seq) for seq in range(1, 301)]


async def test_slow_caller_is_disconnected_and_still_gets_every_event(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The client reads only so far ahead. The server disconnects it as slow, and it resumes to get the rest."""
    monkeypatch.setattr("bridgekit.transport.client.QUEUE_FRAMES", 4)
    monkeypatch.setattr("bridgekit.transport.resuming_client.READ_AHEAD", 2)
    async with restartable_server(outbox_events=8) as server, server.subscribe() as client:
        receipts = await server.publish()
        while receipts[-1].sockets:
            assert len(receipts) < 900, "everything was read ahead"
            receipts += await server.publish(size=8_192)
            await checkpoint()
        count = len(receipts)
        assert await read(client, count) == [str(seq) for seq in range(1, count + 1)]
        assert client.subscriptions > 1


async def test_another_client_resumes_from_the_cursor_without_loss_or_duplicates() -> None:
    async with restartable_server() as server:
        async with server.subscribe() as first:
            await server.publish(5)
            assert await read(first, 2) == ["1", "2"]
            cursor = first.cursor
        await server.publish(2)
        async with server.subscribe(after=cursor) as second:
            await server.publish()
            assert await read(second, 6) == ["3", "4", "5", "6", "7", "8"]


async def test_iteration_raises_when_the_user_loses_the_thread() -> None:
    async with restartable_server() as server, server.subscribe() as client:
        await server.publish()
        server.threads._owners.clear()
        await server.app.state.bridgekit_connections.drain()
        assert await read(client, 1) == ["1"]
        with pytest.raises(SubscriptionRefused, match="no such thread of this user"):
            await anext(client)


async def test_end_of_the_block_closes_the_socket_and_ends_iteration() -> None:
    async with restartable_server() as server, anyio.create_task_group() as tasks:
        read_out = list[int]()

        async def read_on(client: ResumingClient) -> None:
            read_out.extend([item.seq async for item in client if not isinstance(item, Gap)])

        async with server.subscribe() as client:
            tasks.start_soon(read_on, client)
            await server.publish(3)
            while client.cursor is None or client.cursor.seq < 3:
                await checkpoint()
        await wait_for_connections(server.application.bridge.hub)
        assert [item async for item in client] == []
    assert read_out == [1, 2, 3]


async def test_block_can_end_while_the_client_waits_for_a_server() -> None:
    statuses = list[bool]()
    async with restartable_server() as server:
        slow_backoff = Backoff(first_seconds=1_000, longest_seconds=1_000)
        async with server.subscribe(backoff=slow_backoff, random=lambda: 1.0, on_status=statuses.append):
            await server.app.state.bridgekit_connections.drain()
            while statuses == [True]:
                await checkpoint()
            for _ in range(50):
                await checkpoint()
            assert statuses == [True, False]


async def test_block_can_end_with_unread_items() -> None:
    async with restartable_server() as server:
        async with server.subscribe():
            await server.publish(900)
            await anyio.wait_all_tasks_blocked()
        await wait_for_connections(server.application.bridge.hub)


async def test_error_in_the_block_is_raised_unchanged() -> None:
    async with restartable_server() as server:
        with pytest.raises(ZeroDivisionError):
            async with server.subscribe():
                raise ZeroDivisionError


class Unreachable(Exception):
    """Like the error of an HTTP client that cannot connect."""


async def test_ticket_is_requested_again_after_a_retryable_error() -> None:
    async with restartable_server() as server:
        asked = list[int]()

        async def ticket() -> str:
            asked.append(len(asked))
            if len(asked) in (1, 2, 4):
                raise Unreachable
            return await server.ticket()

        async with server.subscribe(ticket=ticket, retryable=(Unreachable,)) as client:
            await server.app.state.bridgekit_connections.drain()
            while client.subscriptions < 2:
                await checkpoint()
            await server.publish()
            assert await read(client, 1) == ["1"]
        assert len(asked) == 5


async def test_other_error_of_the_ticket_source_is_raised_by_iteration() -> None:
    async with restartable_server() as server:

        async def ticket() -> str:
            if server.tickets:
                raise Unreachable
            return await server.ticket()

        async with server.subscribe(ticket=ticket) as client:
            await server.publish()
            await server.app.state.bridgekit_connections.drain()
            assert await read(client, 1) == ["1"]
            with pytest.raises(Unreachable):
                await anext(client)
        with pytest.raises(Unreachable):
            async with server.subscribe(ticket=ticket):
                raise AssertionError("was entered")
