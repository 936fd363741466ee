"""The workload of a benchmark: runs of five events. No two events have the same contents."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

__all__ = [
    "AGENT",
    "BURST",
    "EVENTS",
    "KINDS",
    "RUN",
    "YIELDING",
    "AgentRun",
    "EnvelopeFactory",
    "EventBody",
    "Wave",
    "thread_id",
]

AGENT: Final = "researcher"
EVENTS: Final = 5
"""Number of events of a run: the five critical events of the audit."""

YIELDING: Final = "yielding"
RUN: Final = "run"
BURST: Final = "burst"
KINDS: Final[Mapping[str, int]] = {YIELDING: 1, RUN: EVENTS, BURST: 0}
"""Kinds of agents, each with the number of events after which it yields to the event loop, or 0 for never."""

_FILLER: Final = "the sources agree in all that matters here"


@dataclass(frozen=True, slots=True)
class EventBody:
    """The type and payload of an event, without the envelope."""

    type: str
    payload: dict[str, object]


@dataclass(frozen=True, slots=True)
class AgentRun:
    """One run of a thread, identified by its number."""

    thread: int
    number: int
    padding: str = ""

    @property
    def thread_id(self) -> str:
        return thread_id(self.thread)

    @property
    def run_id(self) -> str:
        """The run id. The id is as long as a run id of the audited backend."""
        return f"run_{self.thread:06x}{self.number:06x}"

    @property
    def request(self) -> str:
        """The user's request, which is unique to this run."""
        return f"question {self.number} of {self.thread}"

    def bodies(self) -> tuple[EventBody, ...]:
        """Return the events of the run in order. No two events of a workload have the same contents."""
        mark, text = f"{self.thread}/{self.number}", f"{_FILLER}{self.padding}"
        return (
            EventBody("agent_started", {"status": "started", "context": {"request": self.request}, "message": None}),
            EventBody(
                "agent_thinking", {"reasoning": f"{mark}: {text}", "step_number": 1, "progress_percentage": None}
            ),
            EventBody(
                "tool_executing",
                {"tool_call_id": f"{mark}/search", "tool_name": "search", "parameters": {"query": text, "limit": 20}},
            ),
            EventBody(
                "tool_completed",
                {
                    "tool_call_id": f"{mark}/search",
                    "tool_name": "search",
                    "result": text,
                    "execution_time_ms": 12.5,
                    "status": "success",
                },
            ),
            EventBody(
                "agent_completed", {"status": "completed", "result": f"{mark}: {text}", "execution_time_ms": 14.25}
            ),
        )


@dataclass(frozen=True, slots=True)
class Wave:
    """Several runs in each of several threads. Run numbers continue from one wave of a session to the next."""

    threads: int
    runs: int
    first: int = 0
    padding_bytes: int = 0
    """Number of bytes added to the texts, for measurements with larger events."""

    @property
    def events(self) -> int:
        return self.threads * self.runs * EVENTS

    def of(self, thread: int) -> list[AgentRun]:
        """Return the runs of one thread, in order."""
        padding = "x" * self.padding_bytes
        return [AgentRun(thread, number, padding) for number in range(self.first, self.first + self.runs)]

    def in_turn(self) -> Iterator[tuple[AgentRun, EventBody]]:
        """Yield every event of the wave for a single emitter. The threads take turns event by event."""
        for position in range(self.runs):
            runs = [self.of(thread)[position] for thread in range(self.threads)]
            for bodies in zip(*(run.bodies() for run in runs), strict=True):
                yield from zip(runs, bodies, strict=True)

    def next(self, runs: int) -> Wave:
        """Return the next wave, with `runs` runs in each thread."""
        return Wave(self.threads, runs, self.first + self.runs, self.padding_bytes)


def thread_id(number: int) -> str:
    """Return a thread id that every stack accepts as the name of a room, group or channel."""
    return f"thread_{number:05}"


class EnvelopeFactory:
    """Creates envelopes for hand-written stacks: bridgekit's fields, each computed as cheaply as possible."""

    def __init__(self) -> None:
        self._seq: Counter[str] = Counter()

    def envelope(self, thread: str, run_id: str, body: EventBody, moment: object) -> dict[str, object]:
        """Return the fields of an event. `moment` is the timestamp in a form that the stack's encoder accepts."""
        self._seq[thread] = seq = self._seq[thread] + 1
        return {
            "type": body.type,
            "thread_id": thread,
            "run_id": run_id,
            "agent_name": AGENT,
            "seq": seq,
            "event_id": os.urandom(16).hex(),
            "timestamp": moment,
            "payload": body.payload,
        }
