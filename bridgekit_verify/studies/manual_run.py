"""Serve a variant with a real socket for each thread, for experiments that control when each event is emitted."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import anyio
from starlette.applications import Starlette

from bridgekit.chain.context import RunContext
from bridgekit.chain.link_1_startup import Application, create_app
from bridgekit.errors import unwrap_single_error
from bridgekit.events import AgentEvent, EventType, Receipt
from bridgekit.ids import RunId, ThreadId, UserId
from bridgekit.serve.in_process import serving
from bridgekit.transport.client import EventClient, connect
from bridgekit_verify.measure.history import Arrival, EventKey, Expectation, History, SignalledGap, Socket, key_of
from bridgekit_verify.measure.workload import AGENT, OwnedThread, seeded, tools
from bridgekit_verify.probes.scenario_agents import thinking
from bridgekit_verify.variants import Variant

__all__ = ["Clock", "HandNotification", "ManualRun", "manual_run", "notify_by_hand"]

RUN_TIMEOUT_SECONDS: Final = 60.0
"""Timeout of an experiment, which then raises TimeoutError."""


@dataclass
class Clock:
    """A clock that changes only when it is set."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class ManualRun:
    """A running application and its clients. `history` records what is emitted and read, for a later verdict."""

    app: Starlette
    url: str
    history: History = field(default_factory=History)

    @property
    def application(self) -> Application:
        application: Application = self.app.state.bridgekit
        return application

    async def open_run(self, owned: OwnedThread, request: str) -> RunContext:
        """Let the supervisor accept a request and register the route of the new run."""
        return await self.application.supervisor.open_run(
            agent_name=AGENT, thread_id=owned.thread_id, user_id=owned.user_id, request=request
        )

    async def close_run(self, run: RunContext) -> None:
        await self.application.supervisor.close_run(run)

    async def notify(self, run: RunContext, step: int) -> Receipt:
        """Emit one event of a run with only the run id, as a caller outside the run does."""
        self._expect(run, step)
        thought = f"{run.request}: step {step}"
        return await self.application.bridge.notify_agent_thinking(run.run_id, AGENT, thought, step_number=step)

    async def emit(self, run: RunContext, step: int) -> Receipt:
        """Emit one event of a run with an agent that the registry binds, so that the event carries the thread."""
        self._expect(run, step)
        agent = self.application.supervisor.registry.create_bound(run)
        return await agent.emit_thinking(f"{run.request}: step {step}", step_number=step)

    def _expect(self, run: RunContext, step: int) -> None:
        key = EventKey(run.request, EventType.AGENT_THINKING, step)
        self.history.expected.append(Expectation(key, run.thread_id, run.user_id))


@asynccontextmanager
async def manual_run(variant: Variant, threads: Sequence[OwnedThread], *, seed: int = 0) -> AsyncIterator[ManualRun]:
    """Serve a variant with one socket per thread while the block runs. After the block, `history` is complete.

    Enter and leave the context manager in the same task.
    """
    agents = {AGENT: thinking(variant.agent)}
    app = create_app(variant.config(agents, hex_source=seeded(seed), tools=tools(), seed=seed))
    with unwrap_single_error(), anyio.fail_after(RUN_TIMEOUT_SECONDS):
        async with serving(app) as url, AsyncExitStack() as stack:
            served = ManualRun(app, url)
            served.application.bridge.observers.append(
                lambda event, receipt: _record_receipt(served.history, event, receipt)
            )
            clients = [await _client(stack, served, number, owned) for number, owned in enumerate(threads)]
            yield served
            await app.state.bridgekit_connections.drain()
            for socket, client in clients:
                await _read(served.history, socket, client)


async def _client(
    stack: AsyncExitStack, served: ManualRun, number: int, owned: OwnedThread
) -> tuple[Socket, EventClient]:
    await served.application.open_thread(owned.thread_id, owned.user_id)
    socket = Socket(number, owned.thread_id, owned.user_id)
    served.history.sockets.append(socket)
    opened = connect(served.url, user_id=owned.user_id, thread_id=owned.thread_id)
    return socket, await stack.enter_async_context(opened)


def _record_receipt(history: History, event: AgentEvent, receipt: Receipt) -> None:
    if (key := key_of(event.type, event.payload)) is not None:
        history.acknowledged[key] = (event.run_id, receipt)


async def _read(history: History, socket: Socket, client: EventClient) -> None:
    """Read the remaining frames of a socket, after the server has written all of them and closed the socket."""
    async for event in client:
        emitted_at = event.timestamp.timestamp()
        # The time of reading is not recorded, because all frames are read after the experiment.
        history.arrivals.append(
            Arrival(socket, key_of(event.type, event.payload), event.run_id, event.seq, emitted_at, emitted_at)
        )
    history.gaps[socket.number] = [SignalledGap(gap.first, gap.last, gap.epoch) for gap in client.gaps]


HAND_RUN_ID: Final = RunId("run_thread_123_abc")
HAND_THREADS: Final = (
    OwnedThread(ThreadId("thread_123"), UserId("alice")),
    OwnedThread(ThreadId("thread_124"), UserId("bob")),
)


@dataclass(frozen=True)
class HandNotification:
    """One call of `notify_agent_started("run_thread_123_abc", "TestAgent")`: the audit's third verification step."""

    chain: str
    receipt: Receipt
    read_by_owner: int
    """How many frames of the event the socket of thread_123's owner read."""
    read_by_others: int
    """How many frames of the event another user's socket read."""

    @property
    def resolves(self) -> bool:
        """Whether the bridge resolved the run id to thread_123."""
        return self.receipt.thread_id == HAND_THREADS[0].thread_id

    @property
    def arrives(self) -> bool:
        """Whether the thread's owner, and no other user, read the event exactly once."""
        return (self.read_by_owner, self.read_by_others) == (1, 0)

    @property
    def outcome(self) -> str:
        """The result, as the end of a sentence that starts with the name of the chain."""
        thread = self.receipt.thread_id or "no thread"
        return (
            f"resolves to {thread}, is reported as {self.receipt.outcome}, and the owner's socket reads"
            f" {self.read_by_owner} of 1 event"
        )


async def notify_by_hand(variant: Variant, *, seed: int = 0) -> HandNotification:
    """Notify for `run_thread_123_abc` while thread_123's owner and another user each have an open socket."""
    async with manual_run(variant, HAND_THREADS, seed=seed) as live:
        receipt = await live.application.bridge.notify_agent_started(HAND_RUN_ID, "TestAgent")
    owner, other = (
        sum(arrival.socket.number == number for arrival in live.history.arrivals) for number in range(len(HAND_THREADS))
    )
    return HandNotification(variant.name, receipt, owner, other)
