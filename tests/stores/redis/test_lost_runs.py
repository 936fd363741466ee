"""A worker that is cut off from Redis for longer than its lease: another one ends its runs."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import pytest

from bridgekit.chain.context import RunContext
from bridgekit.chain.link_1_startup import Application, BridgeConfig, create_app
from bridgekit.chain.link_6_base_agent import BaseAgent
from bridgekit.errors import StoreUnavailable
from bridgekit.events import END_EVENTS, Receipt
from bridgekit.ids import RunId
from bridgekit.mapping import ActiveRun
from bridgekit.serve.in_process import serving
from bridgekit.stores import Stores, redis_stores
from bridgekit.stores.redis.active_runs import RENEWALS
from bridgekit.transport.authorization import OwnerAuthorizer
from bridgekit_verify.faults.proxy import Proxy, proxy
from bridgekit_verify.faults.redis_servers import RedisServer, redis_server
from bridgekit_verify.faults.toxics import Partition
from bridgekit_verify.harness.declared_owners import DeclaredOwners
from tests.factories import ALICE, RUN, THREAD
from tests.timeouts import TIMEOUT_SECONDS

pytestmark = pytest.mark.slow

LEASE_SECONDS = 0.6
POLL_SECONDS = 0.01


class Waiting(BaseAgent):
    """Emits when the test says so, and then ends."""

    go: anyio.Event
    receipts: list[Receipt]

    async def execute(self, context: RunContext) -> object:
        await self.go.wait()
        self.receipts.append(await self.emit_thinking("late"))
        return "late"


@pytest.fixture(autouse=True)
def lease(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridgekit.stores.redis.active_runs.LEASE_SECONDS", LEASE_SECONDS)
    monkeypatch.setattr(Waiting, "go", anyio.Event(), raising=False)
    monkeypatch.setattr(Waiting, "receipts", [], raising=False)


@asynccontextmanager
async def worker(url: str) -> AsyncIterator[Application]:
    config = BridgeConfig(
        agents={"waiting": Waiting},
        db_session_factory=DeclaredOwners(),
        authorizer=OwnerAuthorizer,
        stores=redis_stores(url),
        runs_seconds=0,
        drain_seconds=0,
    )
    app = create_app(config)
    async with serving(app):
        yield app.state.bridgekit


async def events_of(application: Application) -> list[Any]:
    """Return what the thread's log retains, or nothing while the store does not answer."""
    with suppress(StoreUnavailable):
        return [(frame.type, frame.event.payload) for frame in await application.bridge.hub.retained(THREAD)]
    return []


async def until_ended(application: Application) -> None:
    with anyio.fail_after(TIMEOUT_SECONDS):
        while not any(kind in END_EVENTS for kind, _ in await events_of(application)):  # noqa: ASYNC110
            await anyio.sleep(POLL_SECONDS)


@asynccontextmanager
async def cut_off_during_a_run(server: RedisServer) -> AsyncIterator[tuple[Proxy, Application, Application]]:
    """A worker with a run, cut off until another worker has ended it."""
    async with (
        proxy("127.0.0.1", server.port) as through,
        worker(through.url("redis")) as cut_off,
        worker(server.url) as other,
        anyio.create_task_group() as tasks,
    ):

        async def run() -> None:
            # While the store is away, closing the run's route raises this error.
            with suppress(StoreUnavailable):
                await cut_off.supervisor.run(agent_name="waiting", thread_id=THREAD, user_id=ALICE, request="")

        tasks.start_soon(run)
        with anyio.fail_after(TIMEOUT_SECONDS):
            while not await events_of(other):  # noqa: ASYNC110
                await anyio.sleep(POLL_SECONDS)
        yield through, cut_off, other


async def until_cut_off_is_noticed(stores: Stores) -> None:
    """What was sent just before may be in the network, and the server may execute it later."""
    with anyio.fail_after(TIMEOUT_SECONDS):
        while stores.log.healthy:  # noqa: ASYNC110
            await anyio.sleep(POLL_SECONDS)


async def settled(application: Application) -> None:
    """Wait until the worker has sent what it would send."""
    log: Any = application.stores.log
    with anyio.fail_after(TIMEOUT_SECONDS):
        while len(log._backlog) or not log.healthy:  # noqa: ASYNC110
            await anyio.sleep(POLL_SECONDS)


@pytest.mark.parametrize("ends", ["while cut off", "after it is connected again"])
async def test_run_that_another_worker_ended_may_be_followed_by_late_events_of_the_cut_off_one(ends: str) -> None:
    """What the worker emitted while it was cut off waits there, and its end event too. Clients ignore both."""
    async with redis_server() as server, cut_off_during_a_run(server) as (through, cut_off, other):
        with through.start(Partition()):
            if ends == "while cut off":
                await until_cut_off_is_noticed(cut_off.stores)
                Waiting.go.set()
            await until_ended(other)
        await settled(cut_off)
        Waiting.go.set()
        with anyio.fail_after(TIMEOUT_SECONDS):
            while not Waiting.receipts or cut_off.supervisor._active_runs:  # noqa: ASYNC110
                await anyio.sleep(POLL_SECONDS)
        await settled(cut_off)
        kinds = [(str(kind), payload.get("error_context")) for kind, payload in await events_of(other)]
        assert kinds[:2] == [("agent_started", None), ("agent_error", {"reason": "worker lost"})]
        late = [("agent_thinking", None), ("agent_completed", None)]
        assert kinds[2:] in ([late] if ends == "while cut off" else [late[:1]]), "no second end event once connected"


async def test_run_that_was_taken_over_has_no_second_end_although_the_expired_lease_was_renewed_since() -> None:
    async with redis_server() as server, cut_off_during_a_run(server) as (through, cut_off, other):
        with through.start(Partition()):
            await until_ended(other)
        registry: Any = cut_off.bridge.runs
        await settled(cut_off)
        with anyio.fail_after(TIMEOUT_SECONDS):
            while time.monotonic() - registry._renewed_at > LEASE_SECONDS / 6:  # noqa: ASYNC110
                await anyio.sleep(POLL_SECONDS)
        Waiting.go.set()
        with anyio.fail_after(TIMEOUT_SECONDS):
            while not Waiting.receipts or cut_off.supervisor._active_runs:  # noqa: ASYNC110
                await anyio.sleep(POLL_SECONDS)
        await settled(cut_off)
        kinds = [str(kind) for kind, _ in await events_of(other)]
    assert kinds == ["agent_started", "agent_error", "agent_thinking"]


async def test_run_that_ended_during_an_outage_does_not_count_as_lost() -> None:
    """The first reply after the outage lists the run, because the store has not closed it yet."""
    lost: list[ActiveRun] = []

    async def collect() -> None:
        while True:
            lost.extend(await stores.runs.take_lost())

    async with (
        redis_server() as server,
        proxy("127.0.0.1", server.port) as through,
        redis_stores(through.url("redis"))() as stores,
        anyio.create_task_group() as tasks,
    ):
        registry: Any = stores.runs
        await registry.open(ActiveRun(RUN, THREAD, "waiting"))
        tasks.start_soon(collect)
        with through.start(Partition()):
            await until_cut_off_is_noticed(stores)
            await registry.close(RUN)
        with anyio.fail_after(TIMEOUT_SECONDS):
            while registry._unclosed:  # noqa: ASYNC110
                await anyio.sleep(POLL_SECONDS)
        await anyio.wait_all_tasks_blocked()
        assert lost == []
        tasks.cancel_scope.cancel()


async def test_run_id_that_is_used_again_after_an_outage_stays_open() -> None:
    async with (
        redis_server() as server,
        proxy("127.0.0.1", server.port) as through,
        redis_stores(through.url("redis"))() as stores,
    ):
        registry: Any = stores.runs
        with through.start(Partition()):
            await until_cut_off_is_noticed(stores)
            await registry.close(RUN)
        with anyio.fail_after(TIMEOUT_SECONDS):
            while not stores.log.healthy:  # noqa: ASYNC110
                await anyio.sleep(POLL_SECONDS)
        await registry.open(ActiveRun(RUN, THREAD, "waiting"))
        await registry._renew_once(time.monotonic())
        assert await registry._topology.call(registry._runs.slot, "HGET", registry._runs.name, RUN) is not None


async def test_run_ends_with_its_result_when_the_store_lost_its_data() -> None:
    async with redis_server() as server, cut_off_during_a_run(server) as (_, _, other):
        await server.ask("FLUSHALL")
        await anyio.sleep(2 * LEASE_SECONDS)  # the time itself is tested
        Waiting.go.set()
        await until_ended(other)
        assert [str(kind) for kind, _ in await events_of(other)] == ["agent_thinking", "agent_completed"]


async def test_step_of_the_servers_clock_ends_no_run() -> None:
    """The leases of all workers are suddenly older by the server's clock."""
    async with redis_server() as server, cut_off_during_a_run(server) as (_, live, other):
        registry: Any = other.bridge.runs
        owner: Any = live.bridge.runs
        workers = registry._workers.name.decode()
        with anyio.fail_after(TIMEOUT_SECONDS):
            while time.monotonic() - registry._answering_since < 2 * LEASE_SECONDS:  # noqa: ASYNC110
                await anyio.sleep(POLL_SECONDS)
        for step_ms in (20_000, 86_400_000) * 4:
            for each in (owner, registry):
                await server.ask("HINCRBY", workers, each._worker, f"-{step_ms}")
            await anyio.sleep(1.5 * LEASE_SECONDS / RENEWALS)  # the time itself is tested
        Waiting.go.set()
        await until_ended(other)
        assert [str(kind) for kind, _ in await events_of(other)] == [
            "agent_started", "agent_thinking", "agent_completed"
        ]  # fmt: skip


async def test_runs_that_another_release_stored_are_logged_and_stop_no_worker(caplog: pytest.LogCaptureFixture) -> None:
    async with redis_server() as server, redis_stores(server.url)() as stores:
        names = stores.log._topology.names  # type: ignore[attr-defined]
        runs, workers = (each.name.decode() for each in names.runs()[:2])
        dead = "0" * 32
        await server.ask("HSET", workers, dead, "1")
        for number, rest in enumerate(("other", "[1]", '["t"]', '{"a":1}', "[null,null]", '["t","a","more"]', "")):
            await server.ask("HSET", runs, f"run_{number}", dead + rest)
        await server.ask("HSET", runs, "run_of_this_release", f'{dead}["{THREAD}","agent"]')
        with anyio.fail_after(TIMEOUT_SECONDS):
            assert await stores.runs.take_lost() == [ActiveRun(RunId("run_of_this_release"), THREAD, "agent")]
        await stores.runs._renew_once(time.monotonic())  # type: ignore[attr-defined]  # the worker goes on
        assert caplog.text.count("cannot be ended") == 7
