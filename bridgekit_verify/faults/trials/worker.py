"""A worker of the fault experiments: a real server in a process of its own, whose agents say what they are told to.

It is set up by the first line of its standard input, and asked to let agents run by each later one. What it attempts
and what the bridge answered stands on its standard output, line by line, before anything else happens: so that all of
it is known of a worker that was killed.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Final

import anyio
import msgspec
from anyio.abc import TaskGroup, TaskStatus
from starlette.applications import Starlette

from bridgekit.chain.collaborators import MemoryThreads, PythonTools
from bridgekit.chain.context import RunContext
from bridgekit.chain.link_1_startup import Application, Parts, create_app, shut_down
from bridgekit.chain.link_6_agent import BaseAgent
from bridgekit.chain.link_9_bridge import AgentWebSocketBridge
from bridgekit.events import AgentEvent, Receipt
from bridgekit.ids import RunId, ThreadId, UserId
from bridgekit.serve.in_process import serving
from bridgekit.stores import stores_from
from bridgekit.transport.log import Keep
from bridgekit.transport.outbox import OutboxLimits
from bridgekit.transport.tickets import Tickets
from bridgekit_verify.measure.history import Key, key_of
from bridgekit_verify.measure.told import told
from bridgekit_verify.measure.workload import AGENT

__all__ = ["Answered", "Attempted", "Ended", "Order", "Ready", "Said", "Setup"]


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker is made of."""

    store: str
    """Such as "memory:" or "sqlite:///somewhere"."""
    keep_events: int
    outbox_bytes: int
    port: int
    key: bytes
    """Signs tickets."""
    owned: list[tuple[ThreadId, UserId]]
    """The threads that there are. A thread store of a real application outlives its workers; this one is told anew."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """One run to carry: `steps` steps of three events, one each `pace_seconds`."""

    request: str
    thread_id: ThreadId
    user_id: UserId
    steps: int
    pace_seconds: float
    padding_bytes: int = 0
    """How much the result of each step's tool weighs besides."""


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The worker serves."""


class Attempted(msgspec.Struct, frozen=True, tag=True):
    """An agent is about to ask the bridge for an event."""

    key: Key
    thread_id: ThreadId
    at: float
    """In seconds since the epoch."""


class Answered(msgspec.Struct, frozen=True, tag=True):
    """What the bridge answered."""

    key: Key
    run_id: RunId
    receipt: Receipt
    at: float


class Ended(msgspec.Struct, frozen=True, tag=True):
    """A run is over."""

    request: str
    error: str = ""


Said = Ready | Attempted | Answered | Ended

_OUT: Final = 1
SEND_BUFFER_BYTES: Final = 16_384
"""Small, so that a reader who stops is felt within the window of a fault."""


def _say(said: Said) -> None:
    # One write, past all buffers: what was said stays said when the process is killed.
    os.write(_OUT, msgspec.json.encode(said) + b"\n")


class TellingBridge(AgentWebSocketBridge):
    """Says what it is asked for, and what it answers."""

    async def notify(self, event: AgentEvent) -> Receipt:
        key = key_of(event.type, event.payload)
        if key is None:
            return await super().notify(event)
        _say(Attempted(key, event.thread_id or ThreadId(""), time.time()))
        receipt = await super().notify(event)
        _say(Answered(key, event.run_id, receipt, time.time()))
        return receipt


def paced_agent(orders: dict[str, Order]) -> type[BaseAgent]:
    """An agent that thinks and looks something up once a step, at the pace that its order asks for."""

    class PacedAgent(BaseAgent):
        async def execute(self, context: RunContext) -> object:
            order = orders[context.request]
            begins = anyio.current_time()
            for step in range(1, order.steps + 1):
                await anyio.sleep_until(begins + step * order.pace_seconds)
                await self.emit_thinking(f"{order.request}: step {step}", step_number=step)
                await self.use_tool("look_up", request=order.request, step=step)
            return {"request": order.request}

    return PacedAgent


def _tools(orders: dict[str, Order]) -> PythonTools:
    async def look_up(request: str, step: int) -> dict[str, object]:
        return {"request": request, "step": step, "found": "x" * orders[request].padding_bytes}

    return PythonTools({"look_up": look_up})


async def _run(application: Application, orders: dict[str, Order], order: Order) -> None:
    orders[order.request] = order
    error = ""
    try:
        await application.supervisor.run(
            agent_name=AGENT, thread_id=order.thread_id, user_id=order.user_id, request=order.request
        )
    except Exception as failure:  # noqa: BLE001 - whatever ends a run is told
        error = f"{type(failure).__name__}: {failure}"
    _say(Ended(order.request, error))


async def _carry(
    application: Application, orders: dict[str, Order], lines: AsyncIterator[bytes], runs: TaskGroup
) -> None:
    async for line in lines:
        runs.start_soon(_run, application, orders, msgspec.json.decode(line, type=Order))


async def _until_told_to_stop(app: Starlette, everything: anyio.CancelScope, *, task_status: TaskStatus[None]) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM) as signals:
        task_status.started()
        await anext(signals)
        await shut_down(app.state.bridgekit, app.state.bridgekit_edge)
        everything.cancel()


async def main() -> None:
    """Serve until told to stop, or until there is nothing more to read."""
    lines = told()
    setup = msgspec.json.decode(await anext(lines), type=Setup)
    orders: dict[str, Order] = {}
    threads = MemoryThreads()
    for thread_id, user_id in setup.owned:
        await threads.claim(thread_id, user_id)
    app = create_app(
        Parts(
            agents={AGENT: paced_agent(orders)},
            db_session_factory=threads,
            tool_dispatcher=_tools(orders),
            bridge=TellingBridge,
            stores=stores_from(setup.store, keep=Keep(events=setup.keep_events)),
            admission=partial(Tickets, keys=(setup.key,)),
            outbox=OutboxLimits(size_bytes=setup.outbox_bytes),
        )
    )
    async with serving(app, port=setup.port, send_buffer_bytes=SEND_BUFFER_BYTES), anyio.create_task_group() as tasks:
        await tasks.start(_until_told_to_stop, app, tasks.cancel_scope)
        _say(Ready())
        await _carry(app.state.bridgekit, orders, lines, tasks)


if __name__ == "__main__":
    anyio.run(main)
