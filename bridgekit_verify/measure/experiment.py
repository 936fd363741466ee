"""Put a variant together, serve it, open real sockets, let its agents run, and judge what arrived."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import Final

import anyio
from starlette.applications import Starlette

from bridgekit.chain.link_1_startup import Application, create_app
from bridgekit.errors import DeterministicStartupError, Disconnected, MalformedFrame, unwrap_single_error
from bridgekit.events import AgentEvent, Receipt, RoutedEvent
from bridgekit.serve.in_process import serving
from bridgekit.signals import Gap, Subscribed, decode_any
from bridgekit.transport.client import EventClient, connect
from bridgekit_verify.measure.checker import Verdict, check
from bridgekit_verify.measure.error_origin import link_of_error, raised_by_harness
from bridgekit_verify.measure.history import Arrival, History, Missing, Socket, key_of
from bridgekit_verify.measure.instrumentation import misplaced, noted, noting_agent
from bridgekit_verify.measure.ledger import Row, ledger
from bridgekit_verify.measure.observer import NO_OBSERVER, Witness
from bridgekit_verify.measure.workload import AGENT, Run, RunBarrier, Workload, scripted_agent, seeded, tools
from bridgekit_verify.variants import Variant

__all__ = ["MEASURE_SECONDS", "Measurement", "arrival_of", "measure", "measure_each"]

MEASURE_SECONDS: Final = 120.0
"""A measurement that takes longer is stuck, and ends with a TimeoutError."""

Watch = Callable[[Socket, RoutedEvent], None]


@dataclass(frozen=True)
class Measurement:
    """What one variant made of one workload."""

    variant: Variant
    workload: Workload
    seed: int
    history: History
    verdict: Verdict
    refused: DeterministicStartupError | None = None
    """Set when the application refused to start: then nothing was emitted, and nothing is known of delivery."""

    @property
    def ledger(self) -> list[Row]:
        return ledger(self.history)


async def measure(
    variant: Variant, workload: Workload, *, seed: int = 0, watch: Watch | None = None, witness: Witness = NO_OBSERVER
) -> Measurement:
    """Run the workload through the variant over real sockets on 127.0.0.1, and judge it.

    The same variant, workload and seed give the same counts. LedgerImbalance, or an error of the machinery
    itself, comes through; what the agents' runs raise is part of the result. `watch` is shown each event as a
    socket reads it. What a `witness` reads with its own sockets is not counted.
    """
    history = History(bound_by_registry=workload.outside_core)
    barriers: dict[str, RunBarrier] = {}
    agent = noting_agent(scripted_agent(variant.agent, workload.steps, history, barriers), history)
    config = noted(variant, history).config({AGENT: agent}, hex_source=seeded(seed), tools=tools(), seed=seed)
    app = create_app(config, start=variant.start)
    try:
        with unwrap_single_error(), anyio.fail_after(MEASURE_SECONDS):
            async with serving(app) as url:
                await _carry(app, url, workload, history, barriers, watch, witness)
    except DeterministicStartupError as refused:
        return Measurement(variant, workload, seed, history, check(history), refused)
    return Measurement(variant, workload, seed, history, check(history))


async def _carry(
    app: Starlette,
    url: str,
    workload: Workload,
    history: History,
    barriers: dict[str, RunBarrier],
    watch: Watch | None,
    witness: Witness,
) -> None:
    application: Application = app.state.bridgekit
    application.bridge.observers.append(lambda event, receipt: _note(history, event, receipt))
    history.bridge = id(application.bridge)
    history.misplaced = misplaced(application, history)
    for owned in workload.threads:
        await application.open_thread(owned.thread_id, owned.user_id)
    history.sockets += _sockets(workload)
    for there, groups in workload.sittings():
        async with _seated(app, url, history, watch, witness) if there else nullcontext():
            for group in groups:
                await _run_together(application, workload, history, barriers, group)


@asynccontextmanager
async def _seated(
    app: Starlette, url: str, history: History, watch: Watch | None, witness: Witness
) -> AsyncIterator[None]:
    """Open every socket, and read it until the block is over and all that was sent has been read."""
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(connect(url, user_id=socket.user_id, thread_id=socket.thread_id))
            for socket in history.sockets
        ]
        # The readers stand inside all sockets: on trio each socket brings tasks of its own, and these must nest.
        readers = await stack.enter_async_context(anyio.create_task_group())
        for socket, client in zip(history.sockets, clients, strict=True):
            readers.start_soon(_read, history, socket, client, watch, witness)
        async with witness.attending(url, history.sockets):
            yield
            # Every socket is closed after the last frame that waits for it, so the readers miss none.
            await app.state.bridgekit_connections.drain()


def _sockets(workload: Workload) -> list[Socket]:
    owners = [owned for owned in workload.threads[workload.absent :] for _ in range(workload.subscribers)]
    return [Socket(number, owned.thread_id, owned.user_id) for number, owned in enumerate(owners)]


async def _read(history: History, socket: Socket, client: EventClient, watch: Watch | None, witness: Witness) -> None:
    witness.our_frame(socket, client.confirmation)
    while True:
        try:
            frame = await client.receive_frame()
        except Disconnected as closed:
            witness.our_close(socket, closed.code)
            return
        witness.our_frame(socket, frame)
        event = decode_any(frame)
        if isinstance(event, Gap):
            history.gaps.setdefault(socket.number, []).append(Missing(event.first, event.last, event.epoch))
            continue
        if isinstance(event, Subscribed):
            raise MalformedFrame("a subscription is confirmed once")
        if watch is not None:
            watch(socket, event)
        history.arrivals.append(arrival_of(socket, event, read_at=time.time()))


def arrival_of(socket: Socket, event: RoutedEvent, *, read_at: float, epoch: str | None = None) -> Arrival:
    """What a history says of an event that a socket read at that second since 1970, numbered in that epoch."""
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
        for place, run in enumerate(group):
            # They are under way together, but begin in turn: who comes last is who a shared agent speaks for, and
            # that is not to be decided by the scheduler.
            await barrier.joined(place)
            runs.start_soon(_run, application, workload, history, barrier, run)
    for run in group:
        del barriers[run.request]


async def _run(application: Application, workload: Workload, history: History, barrier: RunBarrier, run: Run) -> None:
    asked = {
        "agent_name": AGENT,
        "thread_id": run.owned.thread_id,
        "user_id": run.owned.user_id,
        "request": run.request,
    }
    history.asked[run.request] = {2: run.owned.thread_id}
    try:
        if workload.outside_core:
            context = await application.supervisor.open_run(**asked)
            await application.supervisor.registry.create_bound(context).execute(context)
            await application.supervisor.close_run(context)
        else:
            await application.supervisor.run(**asked)
    except Exception as error:
        # A run that fails is a result, not a fault of the measurement: its link is charged for what it lost.
        link = None if raised_by_harness(error) else link_of_error(error)
        if link is None:
            raise
        history.failures[run.request] = (link, f"{type(error).__name__}: {error}")
    finally:
        barrier.leave()


def _note(history: History, event: AgentEvent, receipt: Receipt) -> None:
    if (key := key_of(event.type, event.payload)) is not None:
        history.acknowledged[key] = (event.run_id, receipt)
        history.carried[key] = event.thread_id


async def measure_each(
    variants: Iterable[Variant], workloads: Iterable[Workload], *, seed: int = 0
) -> list[Measurement]:
    """Every workload through every variant, one after the other: variants outside, workloads inside."""
    workloads = tuple(workloads)
    return [await measure(variant, workload, seed=seed) for variant in variants for workload in workloads]
