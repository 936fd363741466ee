"""What happened in a run of the chain, written down as it happened, before anybody judges it.

Every event that a workload makes the chain emit carries its own name in its payload: the request of its run, its
type and its step. So a frame says by its content which event it is, whatever became of the ids around it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from bridgekit.events import EventType, Receipt
from bridgekit.ids import RunId, ThreadId, UserId

__all__ = ["Arrival", "BridgeBinding", "Emission", "Expectation", "Handover", "History", "EventKey", "SignalledGap", "Socket", "key_of"]


class EventKey(NamedTuple):
    """One expected event. Two events of one workload never share it."""

    request: str
    type: EventType
    step: int
    """Counts the agent's steps from 1; 0 for what is said once a run."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """An event that a user waits for."""

    key: EventKey
    thread_id: ThreadId
    user_id: UserId


@dataclass(frozen=True, slots=True)
class Socket:
    """A client's socket and the one thread it is entitled to."""

    number: int
    thread_id: ThreadId
    user_id: UserId


@dataclass(frozen=True, slots=True)
class Arrival:
    """A frame that a socket read."""

    socket: Socket
    key: EventKey | None
    """None when the frame does not say which event it is."""
    run_id: RunId
    seq: int
    emitted_at: float
    read_at: float
    """Both in seconds since the epoch."""
    epoch: str | None = None
    """Which numbering `seq` belongs to; None where there was only one."""


class SignalledGap(NamedTuple):
    """Numbers of a thread that a socket was told it will not get."""

    first: int
    last: int | None
    """None: to the end of that numbering, wherever it is."""
    epoch: str | None = None
    """Which numbering; None where there was only one."""

    def covers(self, receipt: Receipt) -> bool:
        """Whether the event that was answered so is among them."""
        if receipt.seq is None or self.epoch not in (None, receipt.epoch):
            return False
        return self.first <= receipt.seq and (self.last is None or receipt.seq <= self.last)


@dataclass(frozen=True, slots=True)
class Handover:
    """What one run's agent held when it began: evidence for links 5 to 7."""

    run_id: RunId
    """The run it was started for."""
    given: bool
    """Whether anybody gave it a bridge."""
    passed_on: bool
    """Whether its adapter holds anything at all."""
    holds: bool
    """Whether its adapter holds bridge and run."""


@dataclass(frozen=True, slots=True)
class BridgeBinding:
    """What somebody was given to speak with, or holds."""

    bridge: int
    """Which bridge: its identity while the measurement runs."""
    run_id: RunId
    thread_id: ThreadId | None


@dataclass(frozen=True, slots=True)
class Emission:
    """Who had what at the moment when an agent said an event: evidence for links 3 and 5 to 7. None: nothing."""

    agent_given: BridgeBinding | None
    """What the agent was given."""
    adapter_given: BridgeBinding | None
    """What the agent told its adapter."""
    adapter_held: BridgeBinding | None
    """What the adapter holds."""


@dataclass(slots=True)
class History:
    """Everything that was observed, in order."""

    sockets: list[Socket] = field(default_factory=list)
    expected: list[Expectation] = field(default_factory=list)
    acknowledged: dict[EventKey, tuple[RunId, Receipt]] = field(default_factory=dict)
    """What the bridge answered, and the run id that the event came with."""
    arrivals: list[Arrival] = field(default_factory=list)
    handovers: dict[str, Handover] = field(default_factory=dict)
    """By request."""
    failures: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Runs that raised: by request, the link and what was raised."""
    gaps: dict[int, list[SignalledGap]] = field(default_factory=dict)
    """Gaps that a socket was told of, by socket number."""
    wrong_bridge: tuple[int, str] | None = None
    """The first of links 1 to 5 that holds or hands on another bridge than the application's, if one does."""
    bound_by_registry: bool = False
    """Whether agents got their bridge from the registry (link 3) and not from the core (link 5)."""
    bridge: int | None = None
    """The application's bridge, by its identity. From here on: empty or None where nobody took notes."""
    bridge_given: dict[int, int] = field(default_factory=dict)
    """Which bridge each of the links 2 to 5 was given."""
    received_by: dict[str, dict[int, ThreadId]] = field(default_factory=dict)
    """By request: the links from 2 on that were asked to carry the run, and for which thread."""
    emissions: dict[EventKey, Emission] = field(default_factory=dict)
    """What agents said, in the order in which they said it."""
    emitted: set[EventKey] = field(default_factory=set)
    """What their adapters were asked to emit."""
    thread_on_event: dict[EventKey, ThreadId | None] = field(default_factory=dict)
    """Which thread each event named when the bridge answered it."""

    def of(self, types: Collection[EventType]) -> History:
        """The part of the history that is about events of some types, with everything else left as it is."""
        return replace(
            self,
            expected=[expectation for expectation in self.expected if expectation.key.type in types],
            acknowledged={key: known for key, known in self.acknowledged.items() if key.type in types},
            arrivals=[arrival for arrival in self.arrivals if arrival.key is not None and arrival.key.type in types],
        )


def key_of(event_type: EventType, payload: Mapping[str, object]) -> EventKey | None:
    """Which event a payload belongs to, by its content, or None."""
    match payload:
        case {"context": {"request": str(request)}} if event_type is EventType.AGENT_STARTED:
            return EventKey(request, event_type, 0)
        case {"result": {"request": str(request)}} if event_type is EventType.AGENT_COMPLETED:
            return EventKey(request, event_type, 0)
        case {"error_context": {"request": str(request)}} if event_type is EventType.AGENT_ERROR:
            return EventKey(request, event_type, 0)
        case {"reasoning": str(reasoning), "step_number": int(step)} if event_type is EventType.AGENT_THINKING:
            return EventKey(reasoning.partition(": ")[0], event_type, step)
        case {"parameters": {"request": str(request), "step": int(step)}} if event_type is EventType.TOOL_EXECUTING:
            return EventKey(request, event_type, step)
        case {"result": {"request": str(request), "step": int(step)}} if event_type is EventType.TOOL_COMPLETED:
            return EventKey(request, event_type, step)
        case _:
            return None
