"""The record of one measurement, which the checker judges afterwards.

Every event of a workload carries its own identity in its payload: the request of its run, its type and its step. The
content of a frame therefore identifies its event, even if a link changed the ids.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from bridgekit.events import EventType, Receipt
from bridgekit.ids import RunId, ThreadId, UserId

__all__ = [
    "Arrival",
    "BridgeBinding",
    "Emission",
    "EventKey",
    "Expectation",
    "ExpectedEvents",
    "Handover",
    "History",
    "SignalledGap",
    "Socket",
    "key_of",
]


class EventKey(NamedTuple):
    """Request, type and step identify an expected event within a workload."""

    request: str
    type: EventType
    step: int
    """The agent's step, counted from 1, or 0 for events that occur once per run."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """An event that must reach a user in a thread."""

    key: EventKey
    thread_id: ThreadId
    user_id: UserId


class ExpectedEvents(NamedTuple):
    """How many events must arrive, computed without the events that arrived."""

    at_sockets: int
    """Expected arrivals at entitled sockets. An event with two entitled sockets counts twice."""
    without_socket: int
    """Events that no socket is entitled to, because their user has no socket."""


@dataclass(frozen=True, slots=True)
class Socket:
    """A client's socket and the one thread that it is entitled to."""

    number: int
    thread_id: ThreadId
    user_id: UserId


@dataclass(frozen=True, slots=True)
class Arrival:
    """A frame that a socket read."""

    socket: Socket
    key: EventKey | None
    """The event in the frame, or None if the content of the frame identifies no event."""
    run_id: RunId
    seq: int
    emitted_at: float
    read_at: float
    """`emitted_at` and `read_at` are in seconds since 1970."""
    epoch: str | None = None
    """The epoch of `seq`, or None if the thread had only one epoch."""


class SignalledGap(NamedTuple):
    """A range of a thread's `seq` values that, according to the server, the client will not receive."""

    first: int
    last: int | None
    """The last `seq` of the range, or None if the range extends to the unknown last `seq` of its epoch."""
    epoch: str | None = None
    """The epoch of the range, or None if the thread had only one epoch."""

    def covers(self, receipt: Receipt) -> bool:
        """Return whether the range includes the event with this receipt."""
        if receipt.seq is None or self.epoch not in (None, receipt.epoch):
            return False
        return self.first <= receipt.seq and (self.last is None or receipt.seq <= self.last)


@dataclass(frozen=True, slots=True)
class Handover:
    """Whether an agent and its adapter held a bridge and a run when the run started: evidence for links 5 to 7."""

    run_id: RunId
    """The run that the agent was started for."""
    given: bool
    """Whether the agent was given a bridge."""
    passed_on: bool
    """Whether the agent's adapter holds a bridge, a run id or an agent name."""
    holds: bool
    """Whether the agent's adapter holds both a bridge and a run id."""


@dataclass(frozen=True, slots=True)
class BridgeBinding:
    """The bridge, run and thread that an agent or adapter was bound to."""

    bridge: int
    """The identity (`id`) of the bridge, valid during the measurement."""
    run_id: RunId
    thread_id: ThreadId | None


@dataclass(frozen=True, slots=True)
class Emission:
    """The bindings of agent and adapter when the agent emits an event: evidence for links 3 and 5 to 7.

    A binding is None if the agent or the adapter is not bound.
    """

    agent_given: BridgeBinding | None
    """The binding that the agent was given."""
    adapter_given: BridgeBinding | None
    """The binding that the agent passed to its adapter."""
    adapter_held: BridgeBinding | None
    """The binding that the adapter holds."""


@dataclass(slots=True)
class History:
    """Everything that one measurement observed, in order."""

    sockets: list[Socket] = field(default_factory=list)
    expected: list[Expectation] = field(default_factory=list)
    acknowledged: dict[EventKey, tuple[RunId, Receipt]] = field(default_factory=dict)
    """For each event, the run id that it carried and the receipt that the bridge returned."""
    arrivals: list[Arrival] = field(default_factory=list)
    handovers: dict[str, Handover] = field(default_factory=dict)
    """By request."""
    failures: dict[str, tuple[int, str]] = field(default_factory=dict)
    """The link and the error of each run that raised an error, by request."""
    gaps: dict[int, list[SignalledGap]] = field(default_factory=dict)
    """Gaps that the server signalled, by socket number."""
    wrong_bridge: tuple[int, str] | None = None
    """The first of links 1 to 5 that holds or passes on a bridge other than the application's bridge, or None."""
    bound_by_registry: bool = False
    """Whether agents got their bridge from the registry (link 3) and not from the core (link 5)."""
    bridge: int | None = None
    """The identity of the application's bridge. Only `measure` sets the fields from here to `thread_on_event`."""
    bridge_given: dict[int, int] = field(default_factory=dict)
    """The identity of the bridge that each of links 2 to 5 was given."""
    received_by: dict[str, dict[int, ThreadId]] = field(default_factory=dict)
    """For each request, the links that received its run, each with the thread that the link received."""
    emissions: dict[EventKey, Emission] = field(default_factory=dict)
    """For each event, the bindings when the agent emitted it, in the order of emission."""
    emitted: set[EventKey] = field(default_factory=set)
    """The events that agents asked their adapters to emit."""
    thread_on_event: dict[EventKey, ThreadId | None] = field(default_factory=dict)
    """The thread that each event carried when the bridge returned the receipt of the event."""

    all_types: bool = True
    """Whether the history includes events of every type. Otherwise, a missing `seq` does not indicate a loss."""

    def of(self, types: Collection[EventType]) -> History:
        """Return the history with only the events of the given types."""
        return replace(
            self,
            expected=[expectation for expectation in self.expected if expectation.key.type in types],
            acknowledged={key: known for key, known in self.acknowledged.items() if key.type in types},
            arrivals=[arrival for arrival in self.arrivals if arrival.key is not None and arrival.key.type in types],
            all_types=False,
        )


def key_of(event_type: EventType, payload: Mapping[str, object]) -> EventKey | None:
    """Return the event that a payload identifies by its content, or None if the payload identifies no event."""
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
