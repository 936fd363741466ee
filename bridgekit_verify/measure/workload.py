"""What the chain is asked to carry: users, threads, runs, and agents whose every event can be told from all others."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Final

import anyio
from anyio.lowlevel import checkpoint

from bridgekit.chain.collaborators import PythonTools
from bridgekit.chain.context import RunContext
from bridgekit.chain.link_6_agent import BaseAgent
from bridgekit.chain.link_9_bridge import AgentWebSocketBridge
from bridgekit.events import EventType
from bridgekit.ids import HexSource, RunId, ThreadId
from bridgekit_verify.measure.families import FAMILIES, OwnedThread, thread_ids
from bridgekit_verify.measure.history import Expectation, Handover, History, EventKey

__all__ = [
    "AGENT",
    "ALWAYS_ONLINE",
    "FAMILIES",
    "OfflinePattern",
    "OwnedThread",
    "Run",
    "RunBarrier",
    "Workload",
    "thread_ids",
    "scripted_agent",
    "seeded",
    "tools",
]

AGENT: Final = "researcher"
"""The name of the agent that every workload runs."""


def seeded(seed: int) -> HexSource:
    """HexSource digits that depend on the seed alone."""
    source = random.Random(seed)
    return lambda digits: f"{source.getrandbits(4 * digits):0{digits}x}"


@dataclass(frozen=True, slots=True)
class Run:
    """One run that is going to be asked for."""

    request: str
    owned: OwnedThread


@dataclass(frozen=True, slots=True)
class OfflinePattern:
    """Every user's socket is closed for the last `groups` of every `of` groups of runs. Counted, so without a clock."""

    groups: int
    of: int

    def is_offline(self, index: int) -> bool:
        """Whether nobody is there for the group at that place, counted from 0."""
        return index % self.of >= self.of - self.groups


ALWAYS_ONLINE: Final = OfflinePattern(0, of=1)


@dataclass(frozen=True, kw_only=True)
class Workload:
    """How much of what. A run of `steps` steps is 2 + 3 * `steps` events: five for one step, the critical ones."""

    threads: tuple[OwnedThread, ...]
    runs_per_thread: int = 1
    steps: int = 1
    at_once: int = 1
    """How many runs are under way together; they go step by step, so that what they share shows."""
    subscribers: int = 1
    """Sockets a thread has."""
    users_without_socket: int = 0
    """How many threads, from the first, have a user who is not there: runs, but no socket."""
    outside_core: bool = False
    """Let the registry bind the agents, without engine and core: two events fewer a run."""
    offline: OfflinePattern = ALWAYS_ONLINE
    """When the users who have a socket do without it, and connect again afterwards."""

    def groups(self) -> Iterator[tuple[Run, ...]]:
        """The runs in the order in which they are asked for, as many together as run at once."""
        runs = [
            Run(f"question {number * len(self.threads) + place + 1}", owned)
            for number in range(self.runs_per_thread)
            for place, owned in enumerate(self.threads)
        ]
        for first in range(0, len(runs), self.at_once):
            yield tuple(runs[first : first + self.at_once])

    def online_periods(self) -> Iterator[tuple[bool, list[tuple[Run, ...]]]]:
        """The groups of runs from one coming or going to the next: whether the users are there, and the groups."""
        for offline, indexed in groupby(enumerate(self.groups()), key=lambda each: self.offline.is_offline(each[0])):
            yield not offline, [group for _, group in indexed]

    def expectations(self, run: Run) -> list[Expectation]:
        """The events that the run's user waits for, in order."""
        steps = [
            EventKey(run.request, event_type, step)
            for step in range(1, self.steps + 1)
            for event_type in (EventType.AGENT_THINKING, EventType.TOOL_EXECUTING, EventType.TOOL_COMPLETED)
        ]
        if not self.outside_core:
            steps = [
                EventKey(run.request, EventType.AGENT_STARTED, 0),
                *steps,
                EventKey(run.request, EventType.AGENT_COMPLETED, 0),
            ]
        return [Expectation(key, run.owned.thread_id, run.owned.user_id) for key in steps]


class RunBarrier:
    """Lets a group of runs take each step together, so that a measurement does not hang on the scheduler's mood."""

    def __init__(self, parties: int) -> None:
        self._parties = parties
        self._waiting = 0
        self._gate = anyio.Event()
        self._arrived = 0
        self._arrival = anyio.Event()

    async def arrived(self, count: int) -> None:
        """Wait until that many parties have come to their first step, or left."""
        while self._arrived < count:
            await self._arrival.wait()

    async def step(self) -> None:
        """Wait until every party has come this far, or left."""
        self._waiting += 1
        self._record_arrival()
        gate = self._gate
        self._open_if_complete()
        try:
            await gate.wait()
        except BaseException:
            # A party that is cancelled while it waits has not come this far: the others go on without it by `leave`.
            if not gate.is_set():
                self._waiting -= 1
            raise

    def leave(self) -> None:
        """The others need not wait for this party any more."""
        self._parties -= 1
        self._record_arrival()
        self._open_if_complete()

    def _record_arrival(self) -> None:
        self._arrived += 1
        self._arrival.set()
        self._arrival = anyio.Event()

    def _open_if_complete(self) -> None:
        if self._waiting >= self._parties:
            self._waiting = 0
            self._gate.set()
            self._gate = anyio.Event()


def tools() -> PythonTools:
    """The one tool that the workload's agents use."""

    async def look_up(request: str, step: int) -> dict[str, object]:
        await checkpoint()
        return {"request": request, "step": step, "found": 3}

    return PythonTools({"look_up": look_up})


def scripted_agent(
    base: type[BaseAgent], steps: int, history: History, barriers: dict[str, RunBarrier]
) -> type[BaseAgent]:
    """An agent class that thinks and looks something up, `steps` times, and notes what it was handed.

    `barriers` holds each request's group while it is under way.
    """

    class ScriptedAgent(base):  # type: ignore[valid-type,misc]  # the base is the variant's choice of link 6
        given = False

        def set_websocket_bridge(
            self, bridge: AgentWebSocketBridge, run_id: RunId, *, thread_id: ThreadId | None = None
        ) -> None:
            self.given = True
            super().set_websocket_bridge(bridge, run_id, thread_id=thread_id)

        async def execute(self, context: RunContext) -> object:
            request, barrier = context.request, barriers[context.request]
            adapter = self._websocket_adapter
            history.handovers[request] = Handover(
                run_id=context.run_id,
                given=self.given,
                passed_on=bool(adapter.bridge or adapter.run_id or adapter.agent_name),
                holds=self.has_websocket_bridge(),
            )
            for step in range(1, steps + 1):
                await barrier.step()
                thought = await self.llm_manager.ask(f"{request}, step {step}")
                await self.emit_thinking(f"{request}: {thought}", step_number=step)
                await barrier.step()
                await self.use_tool("look_up", request=request, step=step)
            await barrier.step()
            return {"request": request, "answer": f"{steps} sources agree"}

    return ScriptedAgent
