"""The load of a measurement: users, threads, runs, and agents whose events are all identifiable."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Final

import anyio
from anyio.lowlevel import checkpoint

from bridgekit.chain.context import RunContext
from bridgekit.chain.link_6_base_agent import BaseAgent
from bridgekit.chain.models_tools_and_owners import PythonTools
from bridgekit.events import EventType
from bridgekit.ids import HexSource
from bridgekit_verify.errors import InvalidParameter
from bridgekit_verify.measure.history import BridgeBinding, EventKey, Expectation, ExpectedEvents, Handover, History
from bridgekit_verify.measure.thread_id_families import FAMILIES, OwnedThread, own_threads, thread_ids

__all__ = [
    "AGENT",
    "ALWAYS_ONLINE",
    "FAMILIES",
    "OfflinePattern",
    "OwnedThread",
    "Run",
    "RunBarrier",
    "Workload",
    "own_threads",
    "scripted_agent",
    "seeded",
    "thread_ids",
    "tools",
]

AGENT: Final = "researcher"
"""The name of the agent that every workload runs."""


def seeded(seed: int) -> HexSource:
    """Return a source of hexadecimal digits that depends only on the seed."""
    source = random.Random(seed)
    return lambda digits: f"{source.getrandbits(4 * digits):0{digits}x}"


@dataclass(frozen=True, slots=True)
class Run:
    """One run that the workload requests."""

    request: str
    owned: OwnedThread


@dataclass(frozen=True, slots=True)
class OfflinePattern:
    """All users' sockets are closed during the last `groups` of every `of` groups of runs."""

    groups: int
    of: int

    def is_offline(self, index: int) -> bool:
        """Return whether the users are offline during the group of runs with this index, counted from 0."""
        return index % self.of >= self.of - self.groups


ALWAYS_ONLINE: Final = OfflinePattern(0, of=1)


@dataclass(frozen=True, kw_only=True)
class Workload:
    """The size of a load. Raises InvalidParameter if a value is not allowed.

    A run of `steps` steps has 2 + 3 * `steps` events. A run of one step has the five critical events.
    """

    threads: tuple[OwnedThread, ...]
    runs_per_thread: int = 1
    steps: int = 1
    at_once: int = 1
    """How many runs are active at once. The runs take each step together, so that shared state has an effect."""
    subscribers: int = 1
    """Sockets per thread."""
    users_without_socket: int = 0
    """The users of the first `users_without_socket` threads have runs, but no socket."""
    outside_core: bool = False
    """Whether the registry binds the agents, without engine and core, so that each run has two events fewer."""
    offline: OfflinePattern = ALWAYS_ONLINE
    """The groups of runs during which the users with sockets are offline."""

    def __post_init__(self) -> None:
        for name, start in (
            ("runs_per_thread", 0), ("steps", 0), ("at_once", 1), ("subscribers", 0), ("users_without_socket", 0)
        ):  # fmt: skip
            value = getattr(self, name)
            if type(value) is not int or value < start:
                raise InvalidParameter(name, value, f"a whole number of at least {start}")
        ids = Counter(owned.thread_id for owned in self.threads)
        if len(ids) < len(self.threads):
            [(repeated, _)] = ids.most_common(1)
            raise InvalidParameter("threads", repeated, "threads with different ids, so that each has one owner")

    @property
    def events_per_run(self) -> int:
        """How many events a run has: three for each step, and the core's first and last event unless `outside_core`."""
        return 3 * self.steps + (0 if self.outside_core else 2)

    @property
    def expected_events(self) -> ExpectedEvents:
        """How many events must arrive, computed from the parameters alone.

        The number is independent of the recorded events and of the ledger, so the checker can compare it with them. The
        sockets of offline users count as well, because events must arrive after the users reconnect.
        """
        without_socket = min(self.users_without_socket, len(self.threads)) if self.subscribers else len(self.threads)
        events_per_thread = self.runs_per_thread * self.events_per_run
        return ExpectedEvents(
            at_sockets=(len(self.threads) - without_socket) * events_per_thread * self.subscribers,
            without_socket=without_socket * events_per_thread,
        )

    def groups(self) -> Iterator[tuple[Run, ...]]:
        """Yield groups of runs that are active at once, in the order of their requests."""
        runs = [
            Run(f"question {number * len(self.threads) + index + 1}", owned)
            for number in range(self.runs_per_thread)
            for index, owned in enumerate(self.threads)
        ]
        for first in range(0, len(runs), self.at_once):
            yield tuple(runs[first : first + self.at_once])

    def online_periods(self) -> Iterator[tuple[bool, list[tuple[Run, ...]]]]:
        """Yield each online or offline period: whether the users are online, and the groups of runs in the period."""
        for offline, indexed in groupby(enumerate(self.groups()), key=lambda each: self.offline.is_offline(each[0])):
            yield not offline, [group for _, group in indexed]

    def misroutes_of_shared_agent(self) -> int:
        """Return how many events of agents reach another user if the runs of a group share one agent object.

        The agent emits for the run that bound it last, so in each group only the events of that run reach their owner.
        For n runs of n users in groups of c runs, the misrouted share is (n - ⌈n / c⌉) / n. The share equals
        (c - 1) / c only if c divides n. `users_without_socket` must be 0, because a user without a socket reads no
        events.
        """
        per_run = 3 * self.steps
        return sum(per_run for group in self.groups() for run in group if run.owned.user_id != group[-1].owned.user_id)

    def expectations(self, run: Run) -> list[Expectation]:
        """Return the events that must reach the run's user, in order."""
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
    """Synchronizes the steps of a group of runs, so that a measurement does not depend on the scheduler.

    Unlike `asyncio.Barrier`, the class runs on both async backends, and a party may leave early.
    """

    def __init__(self, parties: int) -> None:
        self._parties = parties
        self._waiting = 0
        self._gate = anyio.Event()
        self._arrived = 0
        self._arrival = anyio.Event()

    async def arrived(self, count: int) -> None:
        """Wait until `count` parties have reached their first step or have left."""
        while self._arrived < count:
            await self._arrival.wait()

    async def step(self) -> None:
        """Wait until every party has reached this step or has left."""
        self._waiting += 1
        self._record_arrival()
        gate = self._gate
        self._open_if_complete()
        try:
            await gate.wait()
        except BaseException:
            # A party that is cancelled while it waits must not count for this step. A later `leave` lets the other
            # parties continue.
            if not gate.is_set():
                self._waiting -= 1
            raise

    def leave(self) -> None:
        """Withdraw one party, so that the other parties no longer wait for it."""
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
    """Return a dispatcher with the only tool that the workload's agents use."""

    async def look_up(request: str, step: int) -> dict[str, object]:
        await checkpoint()
        return {"request": request, "step": step, "found": 3}

    return PythonTools({"look_up": look_up})


def scripted_agent(
    base: type[BaseAgent], steps: int, history: History, barriers: dict[str, RunBarrier]
) -> type[BaseAgent]:
    """Return a class of agents that think and call a tool `steps` times, and record their handover in `history`.

    `barriers` maps each active request to the barrier of its group.
    """

    class ScriptedAgent(base):  # type: ignore[valid-type,misc]  # the base class is the variant's link 6
        binding: BridgeBinding | None = None
        """The instrumentation sets this field when the agent receives a bridge."""

        async def execute(self, context: RunContext) -> object:
            request, barrier = context.request, barriers[context.request]
            adapter = self._websocket_adapter
            history.handovers[request] = Handover(
                run_id=context.run_id,
                given=self.binding is not None,
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
            return {"request": request, "answer": f"sources found: {steps}"}

    return ScriptedAgent
