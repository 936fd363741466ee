"""The load: when each run begins, and when each of its events is due. Pure; both processes compute it for themselves.

The load is open: runs begin when their time has come, whatever became of those before, and an event is late from the
moment it was due and not from the one at which a busy process emitted it. A load that waits for the server asks
less of it just when it is slow, and leaves out what would have been late ("coordinated omission", G. Tene, "How not to
measure latency", 2013).
"""

from __future__ import annotations

import random
from functools import cached_property
from typing import Final

import msgspec

from bridgekit.events import EventType
from bridgekit.ids import ThreadId, UserId
from bridgekit_verify.measure.families import OwnedThread
from bridgekit_verify.measure.history import EventKey, Expectation

__all__ = ["EVENTS_A_STEP", "LoadPlan", "LoadWave", "owner"]

EVENTS_A_STEP: Final = 3
"""A thought, a tool that begins, and a tool that ends."""
_PLACES: Final = {EventType.AGENT_THINKING: 1, EventType.TOOL_EXECUTING: 2, EventType.TOOL_COMPLETED: 3}


def owner(number: int) -> OwnedThread:
    """The thread of that number, and whose it is."""
    return OwnedThread(ThreadId(f"thread_{number:08x}"), UserId(f"user-{number}"))


class LoadPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What a run is, and how long a load lasts."""

    steps: int = 1
    """A run of n steps is 2 + 3 n events."""
    pause_seconds: float = 0.1
    """Between any two events of a run: an agent waits for its model and its tools. 0: all at once, in one burst."""
    seconds: float = 1.5
    """How long runs go on beginning."""
    seed: int = 0

    @property
    def events(self) -> int:
        """Of one run."""
        return 2 + EVENTS_A_STEP * self.steps

    @property
    def run_seconds(self) -> float:
        """How long a run takes that nothing holds up."""
        return (self.events - 1) * self.pause_seconds


class LoadWave(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """Runs that begin at random, independently of each other, so many a second (a Poisson process of known count)."""

    name: str
    plan: LoadPlan
    first: int
    threads: int
    """Threads number `first` to `first + threads - 1` take the runs in turn."""
    runs_per_second: float
    begins_at: float
    """In seconds since the epoch."""

    @cached_property
    def begins(self) -> list[float]:
        """When each run begins, in seconds after the wave does."""
        source = random.Random(f"{self.plan.seed}:{self.name}")
        # Of a Poisson process whose count is known the moments are evenly distributed: so the load is the stated one.
        count = round(self.runs_per_second * self.plan.seconds)
        return sorted(source.uniform(0, self.plan.seconds) for _ in range(count))

    @property
    def ends_at(self) -> float:
        """When the last event is due at the latest."""
        return self.begins_at + self.plan.seconds + self.plan.run_seconds

    @property
    def events(self) -> int:
        return len(self.begins) * self.plan.events

    def request(self, run: int) -> str:
        """The request of that run: what names it in every one of its events."""
        return f"{self.name} {run}"

    def run_of(self, request: str) -> int:
        return int(request.rpartition(" ")[2])

    def thread_of(self, run: int) -> int:
        """The number of the thread that takes that run."""
        return self.first + run % self.threads

    def owner_of(self, run: int) -> OwnedThread:
        return owner(self.thread_of(run))

    def due(self, key: EventKey) -> float:
        """When that event is due, in seconds since the epoch."""
        if key.type is EventType.AGENT_STARTED:
            place = 0
        elif key.type in _PLACES:
            place = EVENTS_A_STEP * (key.step - 1) + _PLACES[key.type]
        else:
            place = self.plan.events - 1
        return self.begins_at + self.begins[self.run_of(key.request)] + place * self.plan.pause_seconds

    def keys(self, run: int) -> list[EventKey]:
        """The events of a run, in order."""
        request = self.request(run)
        steps = [EventKey(request, kind, step) for step in range(1, self.plan.steps + 1) for kind in _PLACES]
        return [EventKey(request, EventType.AGENT_STARTED, 0), *steps, EventKey(request, EventType.AGENT_COMPLETED, 0)]

    def expectations(self) -> list[Expectation]:
        """Every event of the wave."""
        owners = [self.owner_of(run) for run in range(min(self.threads, len(self.begins)))]
        return [
            Expectation(key, owned.thread_id, owned.user_id)
            for run in range(len(self.begins))
            for owned in (owners[run % self.threads],)
            for key in self.keys(run)
        ]
