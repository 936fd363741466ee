"""What an operator sees of `bridgekit serve`: warnings, the metrics of all workers, and a port for them alone."""

from __future__ import annotations

import json
import signal
from contextlib import AsyncExitStack

import anyio
import httpx
import pytest

from tests.server_processes import APP, PROCESS_TIMEOUT_SECONDS, Server, started
from tests.transport.test_metrics import samples

SERVE = ("bridgekit", "serve")
WORKERS = 2
SOCKETS = 16

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """The client's backend."""
    return "asyncio"


async def get(port: int, path: str) -> httpx.Response:
    """Return the answer on a new connection, which any worker may accept."""
    async with httpx.AsyncClient(trust_env=False, timeout=PROCESS_TIMEOUT_SECONDS) as client:
        return await client.get(f"http://127.0.0.1:{port}{path}")


async def subscriptions(server: Server) -> dict[str, float]:
    """Return the number of new subscriptions by worker."""
    found = samples((await get(server.port, "/metrics")).text)
    new = ("bridgekit_subscriptions_total", "new")
    return {worker: value for (*labels, worker), value in found.items() if tuple(labels) == new}


async def test_every_worker_answers_with_the_counters_of_all_workers() -> None:
    async with started(*SERVE, "tests.serve.workers:app", "--port", "0", "--workers", str(WORKERS)) as server:
        await server.read_until("is served at ws://")
        async with AsyncExitStack() as sockets:
            for _ in range(SOCKETS):
                await sockets.enter_async_context(server.subscribed())
            with anyio.fail_after(PROCESS_TIMEOUT_SECONDS):
                found = dict[str, float]()
                while len(found) < WORKERS or sum(found.values()) < SOCKETS:
                    await anyio.sleep(0.05)
                    found = await subscriptions(server)
            answered: set[str] = set()
            with anyio.fail_after(PROCESS_TIMEOUT_SECONDS):
                while len(answered) < WORKERS:
                    answered.add(str((await get(server.port, "/healthz")).json()["worker"]))
                    assert await subscriptions(server) == found
        assert answered == {worker.partition("-")[0] for worker in found}
        server.signal(signal.SIGTERM)
        assert await server.end() == 0
        assert len(server.output) == 1


@pytest.mark.parametrize("edge", ["native", "asgi"])
async def test_metrics_and_health_are_only_on_their_own_port(edge: str) -> None:
    words = ("--port", "0", "--monitoring-port", "0", "--edge", edge, "--json")
    async with started(*SERVE, APP, *words) as server:
        served = json.loads(await server.read_until("address"))
        assert served["monitoring_port"] not in (None, served["port"])
        for path in ("/metrics", "/healthz", "//metrics", "/metrics?x=1", "/%6detrics"):
            assert (await get(served["port"], path)).status_code == 404
        for path in ("/metrics", "/healthz"):
            assert (await get(served["monitoring_port"], path)).status_code == 200
        async with server.subscribed():
            metrics = samples((await get(served["monitoring_port"], "/metrics")).text)
        assert metrics["bridgekit_connections", str(served["pid"])] == 1


async def test_address_of_metrics_and_health_is_printed() -> None:
    async with started(*SERVE, APP, "--port", "0", "--monitoring-port", "0") as server:
        line = await server.read_until("is served at ws://")
        port = int(line.rpartition(":")[2])
        assert line == f"{APP} is served at {server.url}, /metrics and /healthz at http://127.0.0.1:{port}"
        assert (await get(port, "/healthz")).status_code == 200


async def test_warnings_and_errors_of_bridgekit_are_printed() -> None:
    async with started(*SERVE, "tests.serve.stubborn:app", "--port", "0") as server:
        await server.read_until("is served at ws://")
        assert (await server.post("/runs/nonexistent")).status_code == 500
        await server.read_until("^ERROR:  bridgekit.chain.link_5_execution_core: run .* of agent stubborn failed")
        await server.read_until("UnknownName: no tool is called 'nonexistent'")


@pytest.mark.parametrize("module", ["logging_app", "dict_logging_app"])
async def test_logging_that_the_application_configures_is_used_once(module: str) -> None:
    async with started(*SERVE, f"tests.serve.{module}:app", "--port", "0") as server:
        await server.read_until("is served at ws://")
        assert (await server.post("/runs/nonexistent")).status_code == 500
        server.signal(signal.SIGTERM)
        assert await server.end() == 0
    assert [line for line in server.output if "of agent stubborn failed" in line] == [
        line for line in server.output if line.startswith("mine: run ")
    ]
    assert sum(line.startswith("mine: run ") for line in server.output) == 1


async def test_sighup_replaces_every_worker_and_keeps_the_counters() -> None:
    async with started(*SERVE, "tests.serve.workers:app", "--port", "0", "--workers", str(WORKERS)) as server:
        await server.read_until("is served at ws://")
        async with server.subscribed():
            pass
        with anyio.fail_after(PROCESS_TIMEOUT_SECONDS):
            before = dict[str, float]()
            while len(before) < WORKERS or not sum(before.values()):
                before = await subscriptions(server)
        server.signal(signal.SIGHUP)
        with anyio.fail_after(PROCESS_TIMEOUT_SECONDS):
            after = before
            while len(after) < 2 * WORKERS:
                after = await subscriptions(server)
        assert sum(after.values()) == 1
        server.signal(signal.SIGTERM)
        assert await server.end() == 0
