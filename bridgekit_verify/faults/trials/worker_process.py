"""A worker process of the fault experiments: a real server whose agents emit the requested events.

The first message on standard input is a WorkerSetup, and each later message is a RunRequest. The worker reports each
attempt and each receipt before it continues, so the reports of a killed worker are complete.
"""

from __future__ import annotations

import signal
import time
from functools import partial
from typing import Final

import anyio
import msgspec
from anyio.abc import TaskStatus
from starlette.applications import Starlette

from bridgekit.chain.context import RunContext
from bridgekit.chain.link_1_startup import Application, BridgeConfig, create_app, shut_down
from bridgekit.chain.link_6_base_agent import BaseAgent
from bridgekit.chain.link_9_bridge import AgentWebSocketBridge
from bridgekit.chain.models_tools_and_owners import PythonTools
from bridgekit.events import AgentEvent, Receipt
from bridgekit.ids import RunId, ThreadId, UserId
from bridgekit.serve.in_process import serving
from bridgekit.stores import stores_from
from bridgekit.transport.log import Retention
from bridgekit.transport.outbox import OutboxLimits
from bridgekit.transport.tickets import Tickets
from bridgekit_verify.harness.child_side import Ready, read_stdin_lines, send
from bridgekit_verify.harness.declared_owners import DeclaredOwners
from bridgekit_verify.measure.history import EventKey, key_of
from bridgekit_verify.measure.workload import AGENT

__all__ = ["Acknowledged", "Attempted", "Ended", "RunReport", "RunRequest", "WorkerSetup"]


class WorkerSetup(msgspec.Struct, frozen=True, kw_only=True):
    """Configuration of a worker."""

    store: str
    """Store URL, such as "memory:" or "sqlite:///logs.sqlite"."""
    keep_events: int
    outbox_bytes: int
    port: int
    key: bytes
    """Key that signs tickets."""
    owned: list[tuple[ThreadId, UserId]]
    """The threads and their owners, which the setup contains because the worker does not store them."""


class RunRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Request to start a run of `steps` steps with three events each, one step every `pace_seconds` seconds."""

    request: str
    thread_id: ThreadId
    user_id: UserId
    steps: int
    pace_seconds: float
    padding_bytes: int = 0
    """Bytes added to the tool result of each step."""


class Attempted(msgspec.Struct, frozen=True, tag=True):
    """Report that an agent is about to pass an event to the bridge."""

    key: EventKey
    thread_id: ThreadId
    at: float
    """Time of the attempt, in seconds since the Unix epoch."""


class Acknowledged(msgspec.Struct, frozen=True, tag=True):
    """Report of the receipt that the bridge returned."""

    key: EventKey
    run_id: RunId
    receipt: Receipt
    at: float


class Ended(msgspec.Struct, frozen=True, tag=True):
    """Report that a run has ended. `error` is empty if the run succeeded."""

    request: str
    error: str = ""


RunReport = Attempted | Acknowledged | Ended

SEND_BUFFER_BYTES: Final = 16_384
"""Send buffer of a socket: small, so that a client that stops reading causes backpressure during a fault."""


class ReportingBridge(AgentWebSocketBridge):
    """Reports each attempted event and its receipt to the parent process."""

    async def notify(self, event: AgentEvent) -> Receipt:
        key = key_of(event.type, event.payload)
        if key is None:
            return await super().notify(event)
        send(Attempted(key, event.thread_id or ThreadId(""), time.time()))
        receipt = await super().notify(event)
        send(Acknowledged(key, event.run_id, receipt, time.time()))
        return receipt


def paced_agent(requests: dict[str, RunRequest]) -> type[BaseAgent]:
    """Return an agent class that emits one thought and uses one tool in each step, at the pace that the request
    states."""

    class SteadyAgent(BaseAgent):
        async def execute(self, context: RunContext) -> object:
            run = requests[context.request]
            start = anyio.current_time()
            for step in range(1, run.steps + 1):
                await anyio.sleep_until(start + step * run.pace_seconds)
                await self.emit_thinking(f"{run.request}: step {step}", step_number=step)
                await self.use_tool("look_up", request=run.request, step=step)
            return {"request": run.request}

    return SteadyAgent


def _tools(requests: dict[str, RunRequest]) -> PythonTools:
    async def look_up(request: str, step: int) -> dict[str, object]:
        return {"request": request, "step": step, "found": "x" * requests[request].padding_bytes}

    return PythonTools({"look_up": look_up})


async def _run(application: Application, run: RunRequest) -> None:
    error = ""
    try:
        await application.supervisor.run(
            agent_name=AGENT, thread_id=run.thread_id, user_id=run.user_id, request=run.request
        )
    except Exception as failure:  # noqa: BLE001 - every error that ends a run is reported
        error = f"{type(failure).__name__}: {failure}"
    send(Ended(run.request, error))


async def _stop_on_signal(app: Starlette, everything: anyio.CancelScope, *, task_status: TaskStatus[None]) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM) as signals:
        task_status.started()
        await anext(signals)
        await shut_down(app.state.bridgekit, app.state.bridgekit_connections)
        everything.cancel()


async def main() -> None:
    """Serve until SIGTERM or until standard input closes."""
    lines = read_stdin_lines()
    setup = msgspec.json.decode(await anext(lines), type=WorkerSetup)
    requests: dict[str, RunRequest] = {}
    threads = DeclaredOwners()
    for thread_id, user_id in setup.owned:
        await threads.claim(thread_id, user_id)
    app = create_app(
        BridgeConfig(
            agents={AGENT: paced_agent(requests)},
            db_session_factory=threads,
            tool_dispatcher=_tools(requests),
            bridge=ReportingBridge,
            stores=stores_from(setup.store, retention=Retention(events=setup.keep_events)),
            authorizer=partial(Tickets, keys=(setup.key,)),
            outbox=OutboxLimits(size_bytes=setup.outbox_bytes),
        )
    )
    async with serving(app, port=setup.port, send_buffer_bytes=SEND_BUFFER_BYTES), anyio.create_task_group() as tasks:
        await tasks.start(_stop_on_signal, app, tasks.cancel_scope)
        send(Ready(setup.port))
        async for line in lines:
            run = msgspec.json.decode(line, type=RunRequest)
            requests[run.request] = run
            tasks.start_soon(_run, app.state.bridgekit, run)


if __name__ == "__main__":
    anyio.run(main)
