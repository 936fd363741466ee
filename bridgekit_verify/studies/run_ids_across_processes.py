"""Measure whether a second real process can route the events of runs that this process registered."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

import pandas as pd

from bridgekit.chain.context import RunContext
from bridgekit.transport.client import EventClient, connect
from bridgekit_verify.harness.processes import START_TIMEOUT_SECONDS, ChildProcess, start_module
from bridgekit_verify.measure.history import key_of
from bridgekit_verify.measure.statistics import Rate
from bridgekit_verify.measure.workload import OwnedThread, thread_ids
from bridgekit_verify.studies import second_worker
from bridgekit_verify.studies.manual_run import ManualRun, manual_run
from bridgekit_verify.studies.second_worker import (
    SERVED,
    ProcessAnswer,
    ProcessRequest,
    ServedUrls,
    event_key,
    handle_request,
)

__all__ = ["ProcessDelivery", "measure_processes", "process_table", "second_process"]


class ProcessHandle(Protocol):
    """A process that handles requests."""

    def url(self, variant: str) -> str: ...

    async def request(self, message: ProcessRequest) -> ProcessAnswer: ...


@dataclass(frozen=True)
class LocalProcess:
    """A chain that this process serves."""

    served: ManualRun

    def url(self, variant: str) -> str:
        return self.served.url

    async def request(self, message: ProcessRequest) -> ProcessAnswer:
        return await handle_request(self.served.app, message)


@dataclass(frozen=True)
class SecondProcess:
    """A second process, which serves two chains."""

    process: ChildProcess
    urls: Mapping[str, str]
    """The URL of each chain, by variant."""

    def url(self, variant: str) -> str:
        return self.urls[variant]

    async def request(self, message: ProcessRequest) -> ProcessAnswer:
        """Send a request and return its answer. Raises ProcessExited or ProcessTimeout if the process fails."""
        return await self.process.request(message, ProcessAnswer)


@asynccontextmanager
async def second_process() -> AsyncIterator[SecondProcess]:
    """Run `second_worker` while the block runs, and then kill the process."""
    async with start_module(second_worker.__name__, name="the second process") as process:
        ready = await process.receive(ServedUrls, within=START_TIMEOUT_SECONDS, wanted="serve")
        yield SecondProcess(process, ready.urls)


@dataclass(frozen=True)
class ProcessDelivery:
    """How many of the events that one process emitted were delivered."""

    variant: str
    process: str
    address: str
    """What the events carry: "run id" or "run id and thread"."""
    found: Rate
    """The rate of events for which the emitting process found the right thread."""
    arrived: Rate
    """The rate of events that the user's socket at the emitting process read."""
    why_not: str


async def measure_processes(*, users: int = 5, runs: int = 20, seed: int = 0) -> list[ProcessDelivery]:
    """Register runs in this process, and emit an event of each run in three processes.

    The processes are this process, a second process, and the second process after a restart. Fix 3 and the sound chain,
    with a mapping in memory, are measured. Every user has a socket at the process that emits, so only the route can be
    missing.
    """
    threads = thread_ids("thread_123", users, seed=seed)
    deliveries = []
    opened: dict[str, list[RunContext]] = {}
    for name, row in SERVED.items():
        async with manual_run(row, (), seed=seed) as first:
            opened[name] = [
                await first.open_run(threads[number % users], f"question {number + 1}") for number in range(runs)
            ]
            deliveries.append(await _emit_each(LocalProcess(first), name, "the registering process", opened[name]))
    async with second_process() as second:
        deliveries += await _both(second, "a second process", opened)
        for name, contexts in opened.items():
            for run in contexts:
                await second.request(_message(name, run, "register", carried=True))
            deliveries.append(await _emit_each(second, name, "a second process that registers the run", contexts))
    async with second_process() as restarted:
        deliveries += await _both(restarted, "the restarted second process", opened)
    return sorted(deliveries, key=lambda row: list(SERVED).index(row.variant))


async def _both(handle: ProcessHandle, process: str, opened: dict[str, list[RunContext]]) -> list[ProcessDelivery]:
    return [
        await _emit_each(handle, name, process, contexts, carried=carried)
        for name, contexts in opened.items()
        for carried in (False, True)
    ]


async def _emit_each(
    handle: ProcessHandle, variant: str, process: str, runs: Sequence[RunContext], *, carried: bool = False
) -> ProcessDelivery:
    owners = dict.fromkeys(OwnedThread(run.thread_id, run.user_id) for run in runs)
    async with AsyncExitStack() as stack:
        clients = {}
        for owned in owners:
            await handle.request(
                ProcessRequest(variant=variant, do="open thread", thread_id=owned.thread_id, user_id=owned.user_id)
            )
            opened = connect(handle.url(variant), user_id=owned.user_id, thread_id=owned.thread_id)
            clients[owned] = await stack.enter_async_context(opened)
        answers = [await handle.request(_message(variant, run, "notify", carried=carried)) for run in runs]
        await handle.request(ProcessRequest(variant=variant, do="drain"))
        read = {(owned, key) for owned, client in clients.items() for key in await _keys(client)}
    found = sum(answer.thread_id == run.thread_id for answer, run in zip(answers, runs, strict=True))
    arrived = sum((OwnedThread(run.thread_id, run.user_id), event_key(run.request)) in read for run in runs)
    return ProcessDelivery(
        variant,
        process,
        "run id and thread" if carried else "run id",
        Rate(found, len(runs)),
        Rate(arrived, len(runs)),
        "; ".join(dict.fromkeys(f"link {answer.link}: {answer.reason}" for answer in answers if answer.link)),
    )


async def _keys(client: EventClient) -> list[object]:
    return [key_of(event.type, event.payload) async for event in client]


def _message(variant: str, run: RunContext, do: second_worker.Action, *, carried: bool) -> ProcessRequest:
    thread = run.thread_id if carried else None
    return ProcessRequest(variant=variant, do=do, run_id=run.run_id, thread_id=thread, request=run.request)


def process_table(deliveries: Sequence[ProcessDelivery]) -> pd.DataFrame:
    """Return one row per chain, process, and content of the event: the run id alone, or also the thread.

    Columns: chain, process, the event carries, found its thread, reached its user, of, why not.
    """
    return pd.DataFrame(
        {
            "chain": row.variant,
            "process": row.process,
            "the event carries": row.address,
            "found its thread": row.found.k,
            "reached its user": row.arrived.k,
            "of": row.arrived.n,
            "why not": row.why_not,
        }
        for row in deliveries
    )
