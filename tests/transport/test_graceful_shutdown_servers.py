"""Real servers, stopped by real signals while a run is under way and a client is subscribed."""

from __future__ import annotations

import signal
from contextlib import suppress
from pathlib import Path

import anyio
import httpx
import pytest

from bridgekit.cursors_and_gaps import Gap, GapReason
from bridgekit.errors import Disconnected
from bridgekit.events import EventType
from bridgekit.transport.authorization import CLOSE_DRAINED
from bridgekit.transport.client import EventClient
from tests.served_application import FOR_LONG, RUNS_TIMEOUT_SECONDS, STORE
from tests.server_processes import APP, PROCESS_TIMEOUT_SECONDS, Server, reserve_port, started

pytestmark = pytest.mark.slow

UVICORN = ("uvicorn", APP, "--port")
SERVE = ("bridgekit", "serve", APP, "--edge", "native", "--log-level", "info", "--port")
HYPERCORN = ("hypercorn", APP, "--bind", "127.0.0.1:0")
UP = "unning on http"
FIRST_EVENTS = [EventType.AGENT_STARTED, EventType.AGENT_THINKING]
LAST_EVENTS = [EventType.AGENT_THINKING, EventType.AGENT_COMPLETED]


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """The client's backend; each test names its server."""
    return "asyncio"


async def types(client: EventClient, count: int) -> list[EventType]:
    with anyio.fail_after(PROCESS_TIMEOUT_SECONDS):
        return [(await client.receive()).type for _ in range(count)]


async def close_code(client: EventClient) -> int:
    with anyio.fail_after(PROCESS_TIMEOUT_SECONDS), pytest.raises(Disconnected) as gone:
        await client.receive()
    return gone.value.code


async def shutting_down(server: Server) -> None:
    with anyio.fail_after(PROCESS_TIMEOUT_SECONDS):
        while True:
            if await server.health() == (503, "shutting down"):
                return
            await anyio.sleep(0.01)


@pytest.mark.parametrize(
    ("command", "number", "exit_code"),
    [(UVICORN, signal.SIGTERM, -signal.SIGTERM), (UVICORN, signal.SIGINT, 0), (SERVE, signal.SIGTERM, 0)],
    ids=["uvicorn, SIGTERM", "uvicorn, SIGINT", "bridgekit serve, native"],
)
async def test_server_is_drained_before_it_stops(
    command: tuple[str, ...], number: signal.Signals, exit_code: int
) -> None:
    answers: list[httpx.Response] = []

    async def run() -> None:
        answers.append(await server.post("/runs/wait"))

    async with started(*command, "0") as server:
        await server.read_until(UP if command is UVICORN else "is served at")
        async with server.subscribed() as client, anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            assert await types(client, 2) == FIRST_EVENTS
            server.signal(number)
            await shutting_down(server)
            refused = await server.post("/runs/now")
            assert (refused.status_code, "accepts no new run" in refused.text) == (503, True)
            with pytest.raises(Disconnected) as disconnected:
                async with server.subscribed():
                    pass
            assert disconnected.value.code == CLOSE_DRAINED
            await server.post("/go")
            assert await types(client, 2) == LAST_EVENTS
            assert await close_code(client) == CLOSE_DRAINED
        # uvicorn raises SIGTERM again when it has stopped.
        assert await server.end() == exit_code
        assert [answer.status_code for answer in answers] == [200]
        assert "Application shutdown complete" in "\n".join(server.output)


@pytest.mark.parametrize(
    "choices",
    [("--workers", "0"), ("--workers", "1"), ("--workers", "1", "--worker-class", "trio")],
    ids=["in one process", "in a worker", "in a worker on trio"],
)
async def test_hypercorn_is_drained_within_its_graceful_timeout(choices: tuple[str, ...]) -> None:
    async with started(*HYPERCORN, *choices) as server:
        await server.read_until(UP)
        async with server.subscribed() as client, anyio.create_task_group() as tasks:
            tasks.start_soon(server.post, "/runs/wait_for_shutdown")
            assert await types(client, 2) == FIRST_EVENTS
            server.signal(signal.SIGTERM)
            assert await types(client, 2) == LAST_EVENTS
            assert await close_code(client) == CLOSE_DRAINED
        assert await server.end() == 0


async def test_run_that_exceeds_its_time_does_not_delay_the_stop() -> None:
    async with started(*UVICORN, "0", "--timeout-graceful-shutdown", "1", env={RUNS_TIMEOUT_SECONDS: "0.1"}) as server:
        await server.read_until(UP)
        async with server.subscribed() as client, anyio.create_task_group() as tasks:
            tasks.start_soon(server.post, "/runs/wait")
            assert await types(client, 2) == FIRST_EVENTS
            server.signal(signal.SIGTERM)
            assert await close_code(client) == CLOSE_DRAINED
            assert await server.end() == -signal.SIGTERM


async def test_second_signal_ends_the_server_at_once() -> None:
    async def run() -> None:
        with suppress(httpx.RemoteProtocolError):
            assert (await server.post("/runs/wait")).status_code == 500

    async with started(*UVICORN, "0", env={RUNS_TIMEOUT_SECONDS: FOR_LONG}) as server:
        await server.read_until(UP)
        async with server.subscribed() as client, anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            assert await types(client, 2) == FIRST_EVENTS
            server.signal(signal.SIGINT)
            await server.end_at_once(signal.SIGINT)


@pytest.mark.parametrize("store", ["memory", "sqlite"])
async def test_client_of_a_rolling_restart_resumes_or_receives_a_gap(store: str, tmp_path: Path) -> None:
    url = "memory:" if store == "memory" else f"sqlite:///{tmp_path / 'events.db'}"
    with reserve_port() as port:
        async with started(*UVICORN, str(port), env={STORE: url}) as old:
            await old.read_until(UP)
            async with old.followed() as client:
                await old.post("/runs/now")
                with anyio.fail_after(PROCESS_TIMEOUT_SECONDS):
                    before = [await anext(client) for _ in range(4)]
                old.signal(signal.SIGTERM)
                await old.end()
                async with started(*UVICORN, str(port), env={STORE: url}) as new:
                    await new.read_until(UP)
                    await new.post("/runs/now")
                    with anyio.fail_after(PROCESS_TIMEOUT_SECONDS):
                        after = [await anext(client) for _ in range(5 if store == "memory" else 4)]
    assert [item.seq for item in before if not isinstance(item, Gap)] == [1, 2, 3, 4]
    gaps = [item for item in after if isinstance(item, Gap)]
    events = [item.seq for item in after if not isinstance(item, Gap)]
    if store == "memory":
        assert [(gap.first, gap.last, gap.reason) for gap in gaps] == [(5, None, GapReason.RESTARTED)]
        assert events == [1, 2, 3, 4]
    else:
        assert (gaps, events) == ([], [5, 6, 7, 8])
