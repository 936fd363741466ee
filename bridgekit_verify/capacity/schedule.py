"""Compute when each run starts and when each of its events is due.

The server process and the client process each compute the schedule. The module does no I/O.

The load is open-loop: each run starts at its scheduled time, even if earlier runs have not ended. Lateness counts from
the due time of an event, not from its emission by a busy process. A load that waits for the server would send fewer
events while the server is slow, and would omit late events ("coordinated omission", Gil Tene, "How not to measure
latency", 2013).
"""

from __future__ import annotations

import random
from functools import cached_property
from typing import Final

import msgspec

from bridgekit.events import EventType
from bridgekit.ids import ThreadId, UserId
from bridgekit_verify.measure.history import EventKey, Expectation
from bridgekit_verify.measure.thread_id_families import OwnedThread

__all__ = ["EVENTS_A_STEP", "LoadPlan", "LoadWave", "owner"]

EVENTS_A_STEP: Final = 3
"""The number of events of a step: a thought, and the start and the end of a tool call."""
_POSITIONS: Final = {EventType.AGENT_THINKING: 1, EventType.TOOL_EXECUTING: 2, EventType.TOOL_COMPLETED: 3}


def owner(number: int) -> OwnedThread:
    """Return the thread with this number and its owner."""
    return OwnedThread(ThreadId(f"thread_{number:08x}"), UserId(f"user-{number}"))


class LoadPlan(msgspec.Struct, frozen=True, kw_only=True):
    """The events and pauses of a run, and the duration of the load."""

    steps: int = 1
    """A run of n steps has 2 + 3 n events."""
    pause_seconds: float = 0.1
    """Pause between two events of a run, as if a model or tool worked. With 0, a run emits its events in one burst."""
    seconds: float = 1.5
    """Time in which new runs start."""
    seed: int = 0

    @property
    def events(self) -> int:
        """Number of events of one run."""
        return 2 + EVENTS_A_STEP * self.steps

    @property
    def run_seconds(self) -> float:
        """Duration of a run without delays."""
        return (self.events - 1) * self.pause_seconds


class LoadWave(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """Runs that start at random, independent times (a Poisson process conditioned on its number of runs)."""

    name: str
    plan: LoadPlan
    first: int
    threads: int
    """The threads with numbers `first` to `first + threads - 1` get the runs in turn."""
    runs_per_second: float
    starts_at: float
    """Start of the wave, in seconds since the Unix epoch."""

    @cached_property
    def starts(self) -> list[float]:
        """The start time of each run, in seconds after the start of the wave."""
        source = random.Random(f"{self.plan.seed}:{self.name}")
        # Given their number, the arrivals of a Poisson process are uniformly distributed. A fixed number of arrivals
        # makes the load exact.
        count = round(self.runs_per_second * self.plan.seconds)
        return sorted(source.uniform(0, self.plan.seconds) for _ in range(count))

    @property
    def ends_at(self) -> float:
        """Upper bound of the due time of the last event."""
        return self.starts_at + self.plan.seconds + self.plan.run_seconds

    @property
    def events(self) -> int:
        return len(self.starts) * self.plan.events

    def request(self, run: int) -> str:
        """Return the request of this run, which identifies the run in each of its events."""
        return f"{self.name} {run}"

    def run_of(self, request: str) -> int:
        return int(request.rpartition(" ")[2])

    def thread_of(self, run: int) -> int:
        """Return the number of the thread that gets this run."""
        return self.first + run % self.threads

    def owner_of(self, run: int) -> OwnedThread:
        return owner(self.thread_of(run))

    def due(self, key: EventKey) -> float:
        """Return when the event is due, in seconds since the Unix epoch."""
        if key.type is EventType.AGENT_STARTED:
            position = 0
        elif key.type in _POSITIONS:
            position = EVENTS_A_STEP * (key.step - 1) + _POSITIONS[key.type]
        else:
            position = self.plan.events - 1
        return self.starts_at + self.starts[self.run_of(key.request)] + position * self.plan.pause_seconds

    def keys(self, run: int) -> list[EventKey]:
        """Return the keys of a run's events, in order."""
        request = self.request(run)
        steps = [EventKey(request, kind, step) for step in range(1, self.plan.steps + 1) for kind in _POSITIONS]
        return [EventKey(request, EventType.AGENT_STARTED, 0), *steps, EventKey(request, EventType.AGENT_COMPLETED, 0)]

    def expectations(self) -> list[Expectation]:
        """Return an expectation for every event of the wave."""
        owners = [self.owner_of(run) for run in range(min(self.threads, len(self.starts)))]
        return [
            Expectation(key, owned.thread_id, owned.user_id)
            for run in range(len(self.starts))
            for owned in (owners[run % self.threads],)
            for key in self.keys(run)
        ]
