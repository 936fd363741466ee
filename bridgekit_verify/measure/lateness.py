"""Events that came too late, counted in events and not on a clock: how many later ones of the run were read before.

`seq` cannot tell. The hub numbers what it is given in the order in which it is given it, so an event that a link
held back before the hub is numbered late, read late, and not reordered at all in the sense of RFC 4737. What a run's
user waits for has an order of its own, the one in which it is expected; this is held against that.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from bridgekit_verify.measure.attribution import EMITTED_BY_CORE, Attribution
from bridgekit_verify.measure.history import Arrival, History, EventKey, Socket

__all__ = ["DelayedEvent", "attribute_delays", "delayed_events"]


@dataclass(frozen=True, slots=True)
class DelayedEvent:
    """An event that a socket read after a later one of its run."""

    key: EventKey
    socket: Socket
    events: int
    """How many later events of the run were read before it."""
    attribution: Attribution


def delayed_events(history: History) -> list[DelayedEvent]:
    """Every late event at a socket entitled to it, first copies only, in the order of reading."""
    places = {expectation.key: place for place, expectation in enumerate(history.expected)}
    answered = {key: place for place, key in enumerate(history.acknowledged)}
    return [late for read in _first_copies(history).values() for late in _late(read, places, answered)]


def attribute_delays(history: History) -> dict[Attribution, int]:
    """How many events each link held back."""
    return dict(Counter(late.attribution for late in delayed_events(history)))


def _first_copies(history: History) -> dict[tuple[int, str], list[Arrival]]:
    """By socket and request, what was read of the run and may be."""
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


def _late(read: Sequence[Arrival], places: Mapping[EventKey, int], answered: Mapping[EventKey, int]) -> Iterator[DelayedEvent]:
    for number, arrival in enumerate(read):
        if (key := arrival.key) is None:
            continue
        overtakers = [other for other in read[:number] if other.key is not None and places[other.key] > places[key]]
        if overtakers:
            yield DelayedEvent(key, arrival.socket, len(overtakers), _charge(arrival, overtakers[0], answered))


def _charge(late: Arrival, earlier: Arrival, answered: Mapping[EventKey, int]) -> Attribution:
    """Who held it back: the last link at which the two were still in order is the one before."""
    if late.key is None or earlier.key is None or late.seq < earlier.seq:
        return Attribution(10, "numbered in order, and read late")
    if answered.get(late.key, len(answered)) < answered.get(earlier.key, -1):
        return Attribution(9, "asked for in order, and sent late")
    if late.key.type in EMITTED_BY_CORE:
        return Attribution(5, "the core said it late")
    return Attribution(8, "said in order, and emitted late")
