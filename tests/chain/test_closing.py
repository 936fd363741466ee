"""Graceful shutdown of the supervisor, and configurations with which an application refuses to start."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import anyio
import pytest

from bridgekit.chain.context import RunContext, enclosing_runs
from bridgekit.chain.link_1_startup import Application, create_app, shut_down, start_application
from bridgekit.chain.link_2_supervisor_agent import SupervisorAgent
from bridgekit.chain.link_6_base_agent import BaseAgent
from bridgekit.chain.models_tools_and_owners import MemoryThreadStore
from bridgekit.errors import DeterministicStartupError, InvalidId, ShuttingDown, StoreUnavailable, ThreadNotOwned
from bridgekit.ids import RunId, ThreadId, UserId
from bridgekit.mapping import ActiveRun, MemoryMappingStore, MemoryRunRegistry
from bridgekit.stores import in_memory
from bridgekit.transport.authorization import OwnerAuthorizer
from bridgekit.transport.connections import ConnectionRegistry
from bridgekit.transport.tickets import KEY_BYTES, Tickets
from tests.chain.agents import config, started
from tests.factories import ALICE, BOB, THREAD

TIMEOUT_SECONDS = 60.0
RUN = {"agent_name": "researcher", "thread_id": THREAD, "user_id": ALICE, "request": "birds"}
NEVER = {**RUN, "agent_name": "waiting"}


class CallGate:
    """Blocks a call until the test opens the gate, and reports that the call has reached it."""

    def __init__(self) -> None:
        self.reached = anyio.Event()
        self.opened = anyio.Event()

    async def passed(self) -> None:
        self.reached.set()
        await self.opened.wait()


class SlowThreads(MemoryThreadStore):
    """A thread store whose `claim` waits at the gate."""

    def __init__(self, gate: CallGate) -> None:
        super().__init__()
        self._gate = gate

    async def claim(self, thread_id: ThreadId, user_id: UserId) -> None:
        await self._gate.passed()
        await super().claim(thread_id, user_id)


class SlowRoutes(MemoryMappingStore):
    """A mapping store whose `expire` waits at the gate."""

    def __init__(self, gate: CallGate) -> None:
        super().__init__()
        self._gate = gate

    async def expire(self, run_id: RunId, seconds: float) -> None:
        await self._gate.passed()
        await super().expire(run_id, seconds)


class FailingRoutes(MemoryMappingStore):
    """A mapping store that is unavailable when the run has ended."""

    available = True

    async def expire(self, run_id: RunId, seconds: float) -> None:
        if not self.available:
            raise StoreUnavailable("test", "no answer")


async def test_caller_gets_the_result_of_a_run_whose_end_cannot_be_stored(caplog: pytest.LogCaptureFixture) -> None:
    routes = FailingRoutes()
    application = await start_application(config(), replace(in_memory(), routes=routes))
    routes.available = False
    assert (await application.supervisor.run(**RUN)).context.thread_id == THREAD
    assert "could not be stored" in caplog.text


class BrokenRoutes(FailingRoutes):
    """A mapping store whose error is not that of a store when the run has ended."""

    async def expire(self, run_id: RunId, seconds: float) -> None:
        if not self.available:
            raise OSError("a defect")


async def test_run_whose_end_cannot_be_recorded_raises_the_error_and_has_ended() -> None:
    routes = BrokenRoutes()
    supervisor = (await start_application(config(), replace(in_memory(), routes=routes))).supervisor
    routes.available = False
    with pytest.raises(OSError, match="a defect"):
        await supervisor.run(**RUN)
    assert enclosing_runs.get() == ()
    with anyio.fail_after(TIMEOUT_SECONDS / 2):
        await supervisor.close(seconds=TIMEOUT_SECONDS)


class SlowRuns(MemoryRunRegistry):
    """A registry whose `open` waits at the gate. It records the runs that were closed."""

    def __init__(self, gate: CallGate) -> None:
        self._gate = gate
        self.closed = list[RunId]()

    async def open(self, run: ActiveRun) -> None:
        await self._gate.passed()

    async def close(self, run_id: RunId) -> None:
        self.closed.append(run_id)


@pytest.mark.parametrize("step", ["claim", "open"])
async def test_run_that_is_cancelled_while_it_is_opened_is_closed(step: str) -> None:
    gate, opening = CallGate(), anyio.CancelScope()
    runs = SlowRuns(gate)
    if step == "claim":
        supervisor = (await started(db_session_factory=SlowThreads(gate))).supervisor
    else:
        supervisor = (await start_application(config(), replace(in_memory(), runs=runs))).supervisor

    async def run() -> None:
        with opening:
            await supervisor.open_run(**RUN)

    with anyio.fail_after(TIMEOUT_SECONDS / 2):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            await gate.reached.wait()
            opening.cancel()
        await supervisor.close(seconds=TIMEOUT_SECONDS)
    assert opening.cancelled_caught
    assert len(runs.closed) == (step == "open")


@pytest.mark.parametrize("request_", ["x" * 65_537, "\ud800", None])
async def test_run_is_refused_if_its_request_is_not_valid(request_: Any) -> None:
    supervisor = (await started()).supervisor
    with pytest.raises(InvalidId, match=r"^request: must be"):
        await supervisor.run(**{**RUN, "request": request_})


class Closing:
    """A call of `SupervisorAgent.close` that reports when it has returned."""

    def __init__(self, supervisor: SupervisorAgent) -> None:
        self._supervisor = supervisor
        self.done = False

    async def __call__(self, seconds: float = TIMEOUT_SECONDS) -> None:
        await self._supervisor.close(seconds=seconds)
        self.done = True


async def test_run_is_refused_when_the_supervisor_is_closed() -> None:
    supervisor = (await started()).supervisor
    await supervisor.close(seconds=TIMEOUT_SECONDS)
    with pytest.raises(ShuttingDown, match="accepts no new run; try again in a moment"):
        await supervisor.run(**RUN)


@pytest.mark.parametrize("depth", [1, 3])
async def test_active_run_may_start_sub_agents_while_the_supervisor_closes(depth: int) -> None:
    """A run that has ended may not, although its tasks have its context."""
    begun, closed, ended = anyio.Event(), anyio.Event(), anyio.Event()
    late: list[Exception] = []

    async def run(request: str) -> object:
        return (await supervisor.run(**{**RUN, "request": request})).result

    async def start_late() -> None:
        await ended.wait()
        try:
            await run("0")
        except ShuttingDown as error:
            late.append(error)

    class Nested(BaseAgent):
        async def execute(self, context: RunContext) -> object:
            if context.request == str(depth):
                tasks.start_soon(start_late)
                begun.set()
                await closed.wait()
            remaining = int(context.request)
            return [remaining, await run(str(remaining - 1))] if remaining else 0

    supervisor = (await started(agents={"researcher": Nested})).supervisor
    results: list[object] = []
    with anyio.fail_after(TIMEOUT_SECONDS):
        async with anyio.create_task_group() as tasks:

            async def first() -> None:
                results.append(await run(str(depth)))
                ended.set()

            tasks.start_soon(first)
            await begun.wait()
            tasks.start_soon(partial(supervisor.close, seconds=TIMEOUT_SECONDS))
            await anyio.wait_all_tasks_blocked()
            closed.set()
    assert str(results[0]).count("[") == depth
    assert len(late) == 1


async def test_sub_agent_may_start_when_its_parent_has_ended_but_an_earlier_run_has_not() -> None:
    closing, ended, results = anyio.Event(), anyio.Event(), list[object]()

    async def start_later() -> None:
        await closing.wait()
        results.append((await supervisor.run(**{**RUN, "request": "last"})).result)
        ended.set()

    class Nested(BaseAgent):
        async def execute(self, context: RunContext) -> object:
            if context.request == "first":
                await supervisor.run(**{**RUN, "request": "second"})
                await ended.wait()
            elif context.request == "second":
                tasks.start_soon(start_later)
            return context.request

    supervisor = (await started(agents={"researcher": Nested})).supervisor
    with anyio.fail_after(TIMEOUT_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(supervisor.run, **{**RUN, "request": "first"}))
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(partial(supervisor.close, seconds=TIMEOUT_SECONDS))
            await anyio.wait_all_tasks_blocked()
            closing.set()
    assert results == ["last"]


async def test_close_returns_when_the_last_active_run_ends() -> None:
    supervisor = (await started()).supervisor
    first, second = await supervisor.open_run(**RUN), await supervisor.open_run(**RUN)
    closing = Closing(supervisor)
    with anyio.fail_after(TIMEOUT_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(closing)
            await supervisor.close_run(first)
            await anyio.wait_all_tasks_blocked()
            assert not closing.done
            await supervisor.close_run(second)
    assert closing.done


async def test_close_returns_after_its_timeout_when_a_run_does_not_end() -> None:
    supervisor = (await started()).supervisor
    with anyio.fail_after(TIMEOUT_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(supervisor.run, **NEVER))
            await anyio.wait_all_tasks_blocked()
            await supervisor.close(seconds=0.01)
            tasks.cancel_scope.cancel()


async def test_close_waits_for_a_run_when_it_is_still_being_opened() -> None:
    gate = CallGate()
    supervisor = (await started(db_session_factory=SlowThreads(gate))).supervisor
    closing = Closing(supervisor)
    with anyio.fail_after(TIMEOUT_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(supervisor.run, **RUN))
            await gate.reached.wait()
            tasks.start_soon(closing)
            await anyio.wait_all_tasks_blocked()
            assert not closing.done
            gate.opened.set()
    assert closing.done


async def test_close_does_not_wait_for_a_run_when_it_was_refused() -> None:
    supervisor = (await started()).supervisor
    await supervisor.run(**RUN)
    with pytest.raises(ThreadNotOwned):
        await supervisor.run(**{**RUN, "user_id": BOB})
    with anyio.fail_after(TIMEOUT_SECONDS / 2):
        await supervisor.close(seconds=TIMEOUT_SECONDS)


async def test_close_waits_for_a_run_until_its_route_is_closed() -> None:
    """Otherwise the store would be closed before the route is."""
    gate = CallGate()
    application = await start_application(config(self_checks=()), replace(in_memory(), routes=SlowRoutes(gate)))
    closing = Closing(application.supervisor)
    with anyio.fail_after(TIMEOUT_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(application.supervisor.run, **RUN))
            await gate.reached.wait()
            tasks.start_soon(closing)
            await anyio.wait_all_tasks_blocked()
            assert not closing.done
            gate.opened.set()
    assert closing.done


def edge_of(application: Application) -> ConnectionRegistry:
    return ConnectionRegistry(application.bridge.hub, application.authorizer, application.counters)


async def test_health_reports_shutting_down_when_shutdown_starts() -> None:
    application = await started()
    edge = edge_of(application)
    run = await application.supervisor.open_run(**RUN)
    with anyio.fail_after(TIMEOUT_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(shut_down, application, edge)
            await anyio.wait_all_tasks_blocked()
            assert edge.health == ("shutting down", 503)
            await application.supervisor.close_run(run)


async def test_shutdown_continues_when_a_run_exceeds_its_timeout() -> None:
    application = await started(runs_seconds=0.01)
    await application.supervisor.open_run(**RUN)
    with anyio.fail_after(TIMEOUT_SECONDS / 2):
        await shut_down(application, edge_of(application))


async def test_startup_fails_when_workers_share_a_store_but_no_ticket_key() -> None:
    shared = replace(in_memory(), shared=True)
    with pytest.raises(DeterministicStartupError, match="must also share a ticket key") as refusal:
        await start_application(config(), shared)
    assert refusal.value.link == 10
    key = bytes(range(KEY_BYTES))
    for authorizer in (partial(Tickets, keys=(key,)), OwnerAuthorizer):
        await start_application(config(authorizer=authorizer), replace(in_memory(), shared=True))


@contextmanager
def inherited_by_another() -> Iterator[None]:
    """Open a listening socket that another process serves already."""
    holder = (
        "import sys, bridgekit.transport.listeners_and_worker_lock as o\n"
        "with o.single_worker_lock('memory'): print(flush=True); sys.stdin.read()"
    )
    with socket.create_server(("127.0.0.1", 0)) as here:
        here.set_inheritable(True)
        with subprocess.Popen(
            [sys.executable, "-c", holder], pass_fds=[here.fileno()], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as other:
            assert other.stdout is not None
            other.stdout.readline()
            try:
                yield
            finally:
                other.kill()


async def test_startup_error_has_no_context_when_a_second_worker_opens_a_single_process_store() -> None:
    app = create_app(config())
    with inherited_by_another(), pytest.raises(DeterministicStartupError) as refusal:
        await app.router.lifespan_context(app).__aenter__()
    assert str(refusal.value).startswith(
        "link 1: the memory store serves a single process, and another process serves 127."
    )
    # Otherwise a server would print the error's context above it.
    assert refusal.value.__suppress_context__
