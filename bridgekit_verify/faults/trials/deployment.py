"""The compared delivery modes, and their deployments: worker processes, a database file, a broker."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import anyio
import pandas as pd
from anyio.abc import TaskGroup

from bridgekit.errors import unwrap_single_error
from bridgekit.transport.log import DEFAULT_RETENTION
from bridgekit_verify.faults.proxy import Proxy, proxy
from bridgekit_verify.faults.redis_servers import Persistence, RedisServer, redis_server, reserved_port
from bridgekit_verify.faults.trials import worker_process
from bridgekit_verify.faults.trials.worker_process import (
    Acknowledged,
    Attempted,
    Ended,
    RunReport,
    RunRequest,
    WorkerSetup,
)
from bridgekit_verify.harness.child_side import Ready
from bridgekit_verify.harness.processes import START_TIMEOUT_SECONDS, ChildProcess, start_module
from bridgekit_verify.measure.thread_id_families import OwnedThread

__all__ = [
    "AT_MOST_ONCE",
    "DELIVERY_MODES",
    "REDIS",
    "RESUME",
    "SQLITE",
    "DeliveryMode",
    "Deployment",
    "WorkerProcess",
    "delivery_mode_table",
    "deployed",
    "start_worker",
]

KEY_BYTES: Final = 32
STOP_TIMEOUT_SECONDS: Final = 20.0
PROCESS_ENDED: Final = "the worker's process ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryMode:
    """A delivery mode: what the server retains, and whether a client resumes when it reconnects."""

    name: str
    summary: str
    store: str
    """"memory", "sqlite" or "redis"."""
    resumes: bool = True
    """Whether clients send their cursor. Clients without a cursor miss the events that were sent while they were
    offline."""
    keep_events: int = DEFAULT_RETENTION.events
    outbox_bytes: int = 262_144
    """Limit on a socket's outbox: small, so that large events overflow the outbox during a slow-reader fault."""

    @property
    def separate_agents(self) -> bool:
        """Whether agents and sockets are in two separate workers."""
        return self.store == "redis"


AT_MOST_ONCE: Final = DeliveryMode(
    name="at most once",
    summary="one worker without a log; clients reconnect without a cursor",
    store="memory",
    resumes=False,
    keep_events=0,
)
RESUME: Final = DeliveryMode(name="resume", summary="one worker; logs in its memory", store="memory")
SQLITE: Final = DeliveryMode(name="SQLite", summary="one worker; logs in a file", store="sqlite")
REDIS: Final = DeliveryMode(name="Redis", summary="agents and sockets in two workers; logs in a broker", store="redis")

DELIVERY_MODES: Final = {row.name: row for row in (AT_MOST_ONCE, RESUME, SQLITE, REDIS)}
"""The delivery modes by name, weakest guarantee first. All delivery modes except the first prevent silent loss."""


def delivery_mode_table() -> pd.DataFrame:
    """Return one row for each delivery mode: its parts, whether clients resume, and the events retained per thread."""
    return pd.DataFrame(
        {
            "delivery": row.name,
            "set-up": row.summary,
            "clients resume": row.resumes,
            "events retained per thread": row.keep_events,
        }
        for row in DELIVERY_MODES.values()
    )


class WorkerProcess:
    """A worker at a fixed port. Each restart starts a new process.

    The reports of a run go to the observer of the run's experiment. A run's request starts with the experiment's name
    and a colon. When the process ends, its unfinished runs are reported as ended.
    """

    def __init__(self, process: ChildProcess, setup: WorkerSetup, tasks: TaskGroup) -> None:
        self._process = process
        self._setup = setup
        self._tasks = tasks
        self._running: set[str] = set()
        """The requests whose runs have not ended in the current process."""
        self.observers: dict[str, Callable[[RunReport], None]] = {}

    @property
    def port(self) -> int:
        return self._setup.port

    async def set_up(self) -> None:
        """Send the setup and wait until the worker serves. Raises ProcessExited or ProcessTimeout."""
        await self._process.send(self._setup)
        await self._process.receive(Ready, within=START_TIMEOUT_SECONDS, wanted="serve")
        self._tasks.start_soon(self._read_reports)

    async def start_run(self, request: RunRequest) -> None:
        """Start an agent's run. Raises ProcessExited if the worker has ended."""
        self._running.add(request.request)
        await self._process.send(request)

    async def kill(self) -> None:
        await self._process.kill()

    async def pause(self) -> None:
        await self._process.pause()

    def resume(self) -> None:
        self._process.resume()

    async def stop(self) -> int:
        """Shut the worker down gracefully (SIGTERM) and return its exit code. Raises ProcessTimeout."""
        return await self._process.terminate(within=STOP_TIMEOUT_SECONDS)

    async def restart(self) -> None:
        """Start a new process at the same port."""
        await self._process.restart()
        await self.set_up()

    async def _read_reports(self) -> None:
        async for report in self._process.messages(RunReport):
            self._forward(report)
        for request in list(self._running):
            self._forward(Ended(request, PROCESS_ENDED))

    def _forward(self, report: Attempted | Acknowledged | Ended) -> None:
        request = report.request if isinstance(report, Ended) else report.key.request
        if isinstance(report, Ended):
            self._running.discard(request)
        if (observer := self.observers.get(request.partition(":")[0])) is not None:
            observer(report)


@asynccontextmanager
async def start_worker(setup: WorkerSetup) -> AsyncIterator[WorkerProcess]:
    """Run a worker until the `with` block ends, and then kill its process. Raises ProcessExited or ProcessTimeout."""
    with unwrap_single_error():
        async with (
            start_module(worker_process.__name__, name=f"the worker with the store {setup.store!r}") as process,
            anyio.create_task_group() as tasks,
        ):
            started = WorkerProcess(process, setup, tasks)
            await started.set_up()
            yield started
            await process.close()
            tasks.cancel_scope.cancel()


@dataclass(frozen=True)
class Deployment:
    """The running processes of one delivery mode."""

    delivery: DeliveryMode
    sockets: WorkerProcess
    """The worker that clients connect to."""
    agents: WorkerProcess
    """The worker that runs the agents: the same as `sockets`, unless the agents have a separate worker."""
    key: bytes
    broker: RedisServer | None = None
    to_broker: Proxy | None = None
    """The proxy between workers and broker, if the experiment injects faults there."""


@asynccontextmanager
async def deployed(
    delivery: DeliveryMode, owned: Sequence[OwnedThread], *, cut_broker: bool = False
) -> AsyncIterator[Deployment]:
    """Run the processes of a delivery mode until the `with` block ends. The workers serve the threads in `owned`."""
    key = secrets.token_bytes(KEY_BYTES)
    async with AsyncExitStack() as stack:
        broker, between, url = None, None, f"{delivery.store}:"
        if delivery.store == "sqlite":
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bridgekit-", ignore_cleanup_errors=True))
            url = f"sqlite:///{Path(folder) / 'logs.sqlite'}"
        elif delivery.store == "redis":
            broker = await stack.enter_async_context(redis_server(Persistence.EVERYSEC))
            url = broker.url
            if cut_broker:
                between = await stack.enter_async_context(proxy("127.0.0.1", broker.port))
                url = between.url("redis")
        workers = []
        for _ in range(1 + delivery.separate_agents):
            setup = WorkerSetup(
                store=url,
                keep_events=delivery.keep_events,
                outbox_bytes=delivery.outbox_bytes,
                port=stack.enter_context(reserved_port()),
                key=key,
                owned=[(each.thread_id, each.user_id) for each in owned],
            )
            workers.append(await stack.enter_async_context(start_worker(setup)))
        yield Deployment(delivery, workers[0], workers[-1], key, broker, between)
