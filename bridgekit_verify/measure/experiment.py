"""Run a workload through a variant over real sockets, and check which events arrived."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import Final

import anyio
from starlette.applications import Starlette

from bridgekit.chain.link_1_startup import Application, create_app
from bridgekit.counters import NO_BRIDGE
from bridgekit.cursors_and_gaps import Gap, Subscribed, decode_any
from bridgekit.errors import DeterministicStartupError, Disconnected, MalformedFrame, unwrap_single_error
from bridgekit.events import AgentEvent, Receipt, RoutedEvent
from bridgekit.serve.in_process import serving
from bridgekit.transport.client import EventClient, connect
from bridgekit_verify.measure.calls import LinkCall
from bridgekit_verify.measure.checker import Verdict, check
from bridgekit_verify.measure.error_origin import link_of_error, raised_by_harness
from bridgekit_verify.measure.history import Arrival, History, SignalledGap, Socket, key_of
from bridgekit_verify.measure.instrumentation import (
    instrument,
    instrumented_agent,
    recording,
    recording_calls,
    wrong_bridge,
)
from bridgekit_verify.measure.ledger import Row, ledger
from bridgekit_verify.measure.second_observer import NO_OBSERVER, SocketObserver
from bridgekit_verify.measure.workload import AGENT, Run, RunBarrier, Workload, scripted_agent, seeded, tools
from bridgekit_verify.variants import Variant

__all__ = ["MEASURE_TIMEOUT_SECONDS", "Measurement", "arrival_of", "measure", "measure_each"]

MEASURE_TIMEOUT_SECONDS: Final = 120.0
"""Timeout of a measurement, which then raises TimeoutError."""

OnEvent = Callable[[Socket, RoutedEvent], None]


@dataclass(frozen=True)
class Measurement:
    """The history and the verdict of one workload on one variant."""

    variant: Variant
    workload: Workload
    seed: int
    history: History
    verdict: Verdict
    refused: DeterministicStartupError | None = None
    """The error if the application refused to start, so that no event was emitted and delivery is unknown."""

    @property
    def ledger(self) -> list[Row]:
        return ledger(self.history)


async def measure(
    variant: Variant,
    workload: Workload,
    *,
    seed: int = 0,
    on_event: OnEvent | None = None,
    observer: SocketObserver = NO_OBSERVER,
    calls: list[LinkCall] | None = None,
) -> Measurement:
    """Run the workload through the variant over real sockets on 127.0.0.1, and return its history and verdict.

    The same variant, workload and seed give the same counts. LedgerImbalance and errors of the harness propagate.
    Errors that the agents' runs raise are part of the result. `measure` calls `on_event` with each event that a socket
    reads. Frames that an `observer` reads with its own sockets are not counted. `calls` receives every call between the
    links from startup to the hub, for a trace.
    """
    history = History(bound_by_registry=workload.outside_core)
    barriers: dict[str, RunBarrier] = {}
    listen = recording(history) if calls is None else recording_calls(calls, history)
    row = instrument(variant, listen, to_the_hub=calls is not None)
    agent = instrumented_agent(scripted_agent(variant.agent, workload.steps, history, barriers), listen)
    config = row.config({AGENT: agent}, hex_source=seeded(seed), tools=tools(), seed=seed)
    app = create_app(config, start=row.start)
    try:
        with unwrap_single_error(), anyio.fail_after(MEASURE_TIMEOUT_SECONDS):
            async with serving(app) as url:
                await _run_workload(app, url, workload, history, barriers, on_event, observer)
    except DeterministicStartupError as refused:
        return Measurement(variant, workload, seed, history, check(history), refused)
    return Measurement(variant, workload, seed, history, check(history, workload.expected_events))


async def _run_workload(
    app: Starlette,
    url: str,
    workload: Workload,
    history: History,
    barriers: dict[str, RunBarrier],
    on_event: OnEvent | None,
    observer: SocketObserver,
) -> None:
    application: Application = app.state.bridgekit
    application.bridge.observers.append(lambda event, receipt: _record_receipt(history, event, receipt))
    history.bridge = id(application.bridge)
    history.wrong_bridge = wrong_bridge(application, history)
    for owned in workload.threads:
        await application.open_thread(owned.thread_id, owned.user_id)
    history.sockets += _sockets(workload)
    for online, groups in workload.online_periods():
        async with _connected_clients(app, url, history, on_event, observer) if online else nullcontext():
            for group in groups:
                await _run_together(application, workload, history, barriers, group)


@asynccontextmanager
async def _connected_clients(
    app: Starlette, url: str, history: History, on_event: OnEvent | None, observer: SocketObserver
) -> AsyncIterator[None]:
    """Open every socket, and read until the `with` block has ended and all sent frames are read."""
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(connect(url, user_id=socket.user_id, thread_id=socket.thread_id))
            for socket in history.sockets
        ]
        # Start the readers after all sockets are open: on trio, each socket has a task group, and task groups must
        # nest.
        readers = await stack.enter_async_context(anyio.create_task_group())
        for socket, client in zip(history.sockets, clients, strict=True):
            readers.start_soon(_read, history, socket, client, on_event, observer)
        async with observer.watch(url, history.sockets):
            yield
            # The server closes each socket after its last pending frame, so the readers receive every frame.
            await app.state.bridgekit_connections.drain()


def _sockets(workload: Workload) -> list[Socket]:
    owners = [owned for owned in workload.threads[workload.users_without_socket :] for _ in range(workload.subscribers)]
    return [Socket(number, owned.thread_id, owned.user_id) for number, owned in enumerate(owners)]


async def _read(
    history: History, socket: Socket, client: EventClient, on_event: OnEvent | None, observer: SocketObserver
) -> None:
    observer.on_frame(socket, client.confirmation)
    while True:
        try:
            frame = await client.receive_frame()
        except Disconnected as closed:
            observer.on_close(socket, closed.code)
            return
        observer.on_frame(socket, frame)
        event = decode_any(frame)
        if isinstance(event, Gap):
            history.gaps.setdefault(socket.number, []).append(SignalledGap(event.first, event.last, event.epoch))
            continue
        if isinstance(event, Subscribed):
            raise MalformedFrame("the server confirmed a subscription twice: it must confirm each subscription once")
        if on_event is not None:
            on_event(socket, event)
        history.arrivals.append(arrival_of(socket, event, read_at=time.time()))


def arrival_of(socket: Socket, event: RoutedEvent, *, read_at: float, epoch: str | None = None) -> Arrival:
    """Build the history's record of an event that a socket read.

    `read_at` is in seconds since 1970.
    """
    return Arrival(
        socket=socket,
        key=key_of(event.type, event.payload),
        run_id=event.run_id,
        seq=event.seq,
        emitted_at=event.timestamp.timestamp(),
        read_at=read_at,
        epoch=epoch,
    )


async def _run_together(
    application: Application,
    workload: Workload,
    history: History,
    barriers: dict[str, RunBarrier],
    group: tuple[Run, ...],
) -> None:
    barrier = RunBarrier(len(group))
    for run in group:
        history.expected += workload.expectations(run)
        barriers[run.request] = barrier
    async with anyio.create_task_group() as runs:
        for index, run in enumerate(group):
            # Start overlapping runs in a fixed order. A shared agent emits for the run that started last, so the
            # result would otherwise depend on the scheduler.
            await barrier.arrived(index)
            runs.start_soon(_run, application, workload, history, barrier, run)
    for run in group:
        del barriers[run.request]


async def _run(application: Application, workload: Workload, history: History, barrier: RunBarrier, run: Run) -> None:
    request = {
        "agent_name": AGENT,
        "thread_id": run.owned.thread_id,
        "user_id": run.owned.user_id,
        "request": run.request,
    }
    history.received_by[run.request] = {2: run.owned.thread_id}
    try:
        if workload.outside_core:
            context = await application.supervisor.open_run(**request)
            await application.supervisor.registry.create_bound(context).execute(context)
            await application.supervisor.close_run(context)
        else:
            await application.supervisor.run(**request)
    except Exception as error:
        # A failed run does not end the measurement. The run's losses are attributed to the link that raised the error.
        link = None if raised_by_harness(error) else link_of_error(error)
        if link is None:
            raise
        history.failures[run.request] = (link, f"{type(error).__name__}: {error}")
    finally:
        barrier.leave()


def _record_receipt(history: History, event: AgentEvent, receipt: Receipt) -> None:
    # The adapter refuses an event itself if it has no bridge.
    if receipt.reason != NO_BRIDGE and (key := key_of(event.type, event.payload)) is not None:
        history.acknowledged[key] = (event.run_id, receipt)
        history.thread_on_event[key] = event.thread_id


async def measure_each(
    variants: Iterable[Variant], workloads: Iterable[Workload], *, seed: int = 0
) -> list[Measurement]:
    """Measure every workload on the first variant, then every workload on the next variant, and so on."""
    workloads = tuple(workloads)
    return [await measure(variant, workload, seed=seed) for variant in variants for workload in workloads]
