"""Measure the delay of an event as the number of later events of its run that were read before it.

The hub numbers events in the order in which it receives them, so `seq` cannot show a delay before the hub. By the
definition of RFC 4737, an event that was delayed before the hub is not reordered. Therefore, this module compares the
order of reading with the order in which the run's user expects the events.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from bridgekit_verify.measure.attribution import EMITTED_BY_CORE, Attribution
from bridgekit_verify.measure.history import Arrival, EventKey, History, Socket

__all__ = ["DelayedEvent", "attribute_delays", "delayed_events"]


@dataclass(frozen=True, slots=True)
class DelayedEvent:
    """An event that a socket read after a later event of the same run."""

    key: EventKey
    socket: Socket
    events: int
    """How many later events of the run the socket read before this event."""
    attribution: Attribution


def delayed_events(history: History) -> list[DelayedEvent]:
    """Return the delayed events at entitled sockets, by socket and run. Only first copies count."""
    positions = {expectation.key: position for position, expectation in enumerate(history.expected)}
    answered = {key: position for position, key in enumerate(history.acknowledged)}
    return [event for read in _first_copies(history).values() for event in _delayed(read, positions, answered)]


def attribute_delays(history: History) -> dict[Attribution, int]:
    """Return how many events each link delayed."""
    return dict(Counter(late.attribution for late in delayed_events(history)))


def _first_copies(history: History) -> dict[tuple[int, str], list[Arrival]]:
    """Return the first copy of each event that an entitled socket read, by socket and request."""
    owners = {expectation.key: (expectation.thread_id, expectation.user_id) for expectation in history.expected}
    seen: set[tuple[int, EventKey]] = set()
    read: dict[tuple[int, str], list[Arrival]] = defaultdict(list)
    for arrival in history.arrivals:
        socket, key = arrival.socket, arrival.key
        if key is None or owners.get(key) != (socket.thread_id, socket.user_id) or (socket.number, key) in seen:
            continue
        seen.add((socket.number, key))
        read[socket.number, key.request].append(arrival)
    return read


def _delayed(
    read: Sequence[Arrival], positions: Mapping[EventKey, int], answered: Mapping[EventKey, int]
) -> Iterator[DelayedEvent]:
    for number, arrival in enumerate(read):
        if (key := arrival.key) is None:
            continue
        overtakers = [
            other for other in read[:number] if other.key is not None and positions[other.key] > positions[key]
        ]
        if overtakers:
            yield DelayedEvent(key, arrival.socket, len(overtakers), _attribute(arrival, overtakers[0], answered))


def _attribute(late: Arrival, earlier: Arrival, answered: Mapping[EventKey, int]) -> Attribution:
    """Return the first link that passed on the two events in the wrong order: `earlier` before `late`."""
    if late.key is None or earlier.key is None or late.seq < earlier.seq:
        return Attribution(10, "numbered in order, but read late")
    if answered.get(late.key, len(answered)) < answered.get(earlier.key, -1):
        return Attribution(9, "emitted in order, but sent late")
    if late.key.type in EMITTED_BY_CORE:
        return Attribution(5, "the core emitted the event late")
    return Attribution(8, "requested in order, but emitted late")
