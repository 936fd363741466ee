"""A worker is killed in the middle of a run: another `bridgekit serve` ends the run for its user."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from bridgekit.chain.lost_runs import WORKER_LOST
from bridgekit.cursors_and_gaps import Gap, GapReason
from bridgekit.events import EventType, RoutedEvent
from bridgekit.ids import new_id
from bridgekit.stores.redis.active_runs import LEASE_SECONDS, RENEWALS
from bridgekit.transport.resuming_client import ResumingClient
from tests import served_application
from tests.serve import workers
from tests.server_processes import Server, reserve_port, started
from tests.timeouts import TIMEOUT_SECONDS

SERVE = ("bridgekit", "serve")
STATED_SECONDS = 20.0
"""The time that the documentation states. The servers of these tests have a fifth of the lease."""

pytestmark = [pytest.mark.slow, pytest.mark.parametrize("anyio_backend", ["asyncio"])]


@asynccontextmanager
async def serving(store: str, port: int) -> AsyncIterator[Server]:
    command = ("bridgekit", "serve", "tests.served_application:app", "--port", str(port))
    async with started(*command, env={served_application.STORE: store, served_application.SHORT_LIMITS: "5"}) as server:
        await server.read_until("is served at")
        yield server


@asynccontextmanager
async def run_in_progress(server: Server, client: ResumingClient) -> AsyncIterator[None]:
    """Start a run that waits, and return when the client has its first two events."""

    async def post() -> None:
        with pytest.raises(httpx.HTTPError):  # the worker is killed
            await server.post("/runs/wait")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(post)
        read: list[Any] = [await anext(client) for _ in range(2)]
        assert [event.type for event in read] == [EventType.AGENT_STARTED, EventType.AGENT_THINKING]
        yield


def locations(tmp_path: Path, request: pytest.FixtureRequest, store: str) -> str:
    if store == "sqlite":
        return f"sqlite:///{tmp_path / 'store.db'}"
    return f"{request.getfixturevalue('redis_url')}?prefix=test-{new_id()}" if store == "redis" else "memory:"


async def kill(server: Server, *, draining: bool) -> None:
    """Kill a server, at once or while it waits for its runs to end."""
    if draining:
        server.signal(signal.SIGTERM)
        while await server.health() == (200, "ok"):  # noqa: ASYNC110 - the process reports it only there
            await anyio.sleep(0.01)
    server.signal_all(signal.SIGKILL)


@pytest.mark.short_form(2)
@pytest.mark.parametrize("draining", [False, True], ids=["", "draining"])
@pytest.mark.parametrize("store", ["sqlite", "redis"])
async def test_next_process_ends_the_run_of_a_killed_one(
    tmp_path: Path, request: pytest.FixtureRequest, store: str, draining: bool
) -> None:
    location = locations(tmp_path, request, store)
    with reserve_port() as port, anyio.fail_after(TIMEOUT_SECONDS):
        async with serving(location, port) as first, first.followed() as client:
            async with run_in_progress(first, client):
                await kill(first, draining=draining)
            async with serving(location, port) as second:
                ended = await anext(client)
                await check_only_end(second, client, ended)


@pytest.mark.parametrize("draining", [False, True], ids=["", "draining"])
@pytest.mark.parametrize("store", ["redis"])
async def test_live_worker_ends_the_run_of_a_killed_one(
    tmp_path: Path, request: pytest.FixtureRequest, store: str, draining: bool
) -> None:
    assert LEASE_SECONDS + LEASE_SECONDS / RENEWALS < STATED_SECONDS
    location = locations(tmp_path, request, store)
    with reserve_port() as one, reserve_port() as two, anyio.fail_after(TIMEOUT_SECONDS):
        async with serving(location, one) as first, serving(location, two) as second, second.followed() as client:
            async with run_in_progress(first, client):
                await kill(first, draining=draining)
            ended = await anext(client)
            await check_only_end(second, client, ended)


async def check_only_end(server: Server, client: ResumingClient, ended: Any) -> None:
    assert isinstance(ended, RoutedEvent)
    assert ended.type is EventType.AGENT_ERROR
    assert ended.payload["error_context"] == {"reason": WORKER_LOST}
    assert str(ended.payload["error_message"]).startswith("WorkerLost: the worker that executed the run was lost")
    assert (await server.post("/runs/once")).status_code == 200
    later: list[Any] = [await anext(client) for _ in range(4)]
    assert {event.run_id for event in later} != {ended.run_id}
    assert [event.seq for event in later] == [ended.seq + number for number in (1, 2, 3, 4)]


async def test_memory_store_tells_the_client_by_a_new_epoch(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    location = locations(tmp_path, request, "memory")
    with reserve_port() as port, anyio.fail_after(TIMEOUT_SECONDS):
        async with serving(location, port) as first, first.followed() as client:
            async with run_in_progress(first, client):
                first.signal_all(signal.SIGKILL)
            async with serving(location, port):
                gap = await anext(client)
                assert isinstance(gap, Gap)
                assert (gap.last, gap.reason) == (None, GapReason.RESTARTED)


@asynccontextmanager
async def two_workers(outage: Path) -> AsyncIterator[Server]:
    command = (*SERVE, "tests.serve.workers:app", "--port", "0", "--workers", "2")
    async with started(*command, env={workers.OUTAGE: str(outage)}) as server:
        await server.read_until("is served at")
        yield server


async def test_worker_that_does_not_start_after_its_death_is_started_again(tmp_path: Path) -> None:
    outage = tmp_path / "outage"
    async with two_workers(outage) as server:
        outage.touch()
        killed = await server.worker()
        os.kill(killed, signal.SIGKILL)
        await server.read_until("bridgekit: link 1: the test store is unavailable: an outage", times=2)
        remaining = await server.worker()
        assert remaining != killed
        outage.unlink()
        with anyio.fail_after(TIMEOUT_SECONDS):
            while await server.worker() == remaining:  # noqa: ASYNC110 - the server does not report it
                await anyio.sleep(0.01)
        server.signal(signal.SIGTERM)
        assert await server.end() == 0


async def test_workers_of_a_killed_parent_end_and_free_the_port(tmp_path: Path) -> None:
    async with two_workers(tmp_path / "no outage") as server:
        server.signal(signal.SIGKILL)
        with anyio.fail_after(TIMEOUT_SECONDS):
            while True:
                try:
                    await server.worker()
                except httpx.ConnectError:
                    break
                except httpx.TransportError:  # the worker was about to end
                    continue
        with anyio.fail_after(TIMEOUT_SECONDS):
            async for _ in server.process.lines():  # the output ends when no worker has it open any more
                pass
        command = (*SERVE, "tests.serve.workers:app", "--port", str(server.port), "--workers", "2")
        async with started(*command) as another:
            await another.read_until("is served at")
