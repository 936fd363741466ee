"""Several workers on one port with a shared store: real servers of both kinds."""

from __future__ import annotations

import os
import secrets
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import anyio
import httpx
import pytest

from bridgekit.events import EventType, RoutedEvent
from tests.served_application import FOR_LONG, KEYLESS, RUNS_TIMEOUT_SECONDS, STORE
from tests.server_processes import APP, PROCESS_TIMEOUT_SECONDS, Server, reserve_port, started

pytestmark = pytest.mark.slow

UVICORN = ("uvicorn", APP, "--workers", "2", "--port")
SERVE = ("bridgekit", "serve", APP, "--workers", "2", "--port")
RUN = [EventType.AGENT_STARTED, EventType.AGENT_THINKING, EventType.AGENT_THINKING, EventType.AGENT_COMPLETED]


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """The client's backend."""
    return "asyncio"


@pytest.fixture
def env(redis_url: str) -> dict[str, str]:
    return {STORE: f"{redis_url}/0?prefix={secrets.token_hex(8)}"}


@contextmanager
def paused(process: int) -> Iterator[None]:
    """Suspend a process for the length of a block."""
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)


async def up(server: Server, command: tuple[str, ...]) -> None:
    if command is SERVE:
        await server.read_until("is served at")
    else:
        await server.read_until("startup complete", times=2)


@pytest.mark.parametrize("command", [UVICORN, SERVE], ids=["uvicorn", "bridgekit serve"])
async def test_events_of_agents_in_every_worker_reach_the_socket(command: tuple[str, ...], env: dict[str, str]) -> None:
    async with started(*command, "0", env=env) as server:
        await up(server, command)
        async with server.subscribed() as client:
            first = (await server.post("/runs/now")).json()["pid"]
            # The system chooses the worker that accepts a connection, and may always choose the same one. So one worker
            # is stopped, and the other must accept.
            with paused(first):
                second = (await server.post("/runs/now")).json()["pid"]
            with anyio.fail_after(PROCESS_TIMEOUT_SECONDS):
                seqs = [(await client.receive()).seq for _ in range(2 * len(RUN))]
        assert len({first, second, server.process.pid}) == 3
        assert seqs == list(range(1, 2 * len(RUN) + 1))
        server.signal(signal.SIGTERM)
        assert await server.end() == 0


async def test_run_of_stopped_workers_completes_and_its_client_receives_the_rest_from_the_next_server(
    env: dict[str, str],
) -> None:
    answers: list[int] = []

    async def run() -> None:
        answers.append((await old.post("/runs/wait_for_shutdown")).status_code)

    with reserve_port() as port:
        async with started(*UVICORN, str(port), env=env) as old:
            await up(old, UVICORN)
            async with old.followed() as client:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(run)
                    with anyio.fail_after(PROCESS_TIMEOUT_SECONDS):
                        received = [await anext(client) for _ in range(2)]
                    # Like Ctrl-C: the terminal signals the workers, and then their parent does too. A worker with the
                    # socket and without the run closes it immediately.
                    old.signal_all(signal.SIGINT)
                    assert await old.end() == 0
                async with started("uvicorn", APP, "--port", str(port), env=env):
                    with anyio.fail_after(PROCESS_TIMEOUT_SECONDS):
                        received += [await anext(client) for _ in range(2)]
    assert answers == [200]
    assert [item.type for item in received if isinstance(item, RoutedEvent)] == RUN


async def test_second_signal_to_the_parent_ends_its_workers_at_once(env: dict[str, str]) -> None:
    async def run() -> None:
        with suppress(httpx.HTTPError):
            await server.post("/runs/wait")

    async with started(*SERVE, "0", env={**env, RUNS_TIMEOUT_SECONDS: FOR_LONG}) as server:
        await up(server, SERVE)
        async with server.subscribed() as client, anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            await client.receive()
            server.signal(signal.SIGTERM)
            assert await server.end_at_once(signal.SIGTERM) == 128 + signal.SIGTERM


async def test_worker_with_a_shared_store_does_not_start_without_a_shared_key(env: dict[str, str]) -> None:
    """This applies to a single worker too: the next one may run on another machine."""
    async with started("uvicorn", APP, "--port", "0", env={**env, KEYLESS: "yes"}) as server:
        assert await server.end() == 3
    assert "link 10: workers that share the redis store must also share a ticket key" in "\n".join(server.output)
