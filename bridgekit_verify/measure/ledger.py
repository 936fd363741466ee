"""Build the ledger: one row per event and entitled socket, with the outcome and the link that lost the event."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import NamedTuple

from bridgekit.events import Outcome
from bridgekit_verify.measure.attribution import (
    EMITTED_BY_CORE,
    Attribution,
    misrouted_upstream,
    missing_handover,
    undelivered_emission,
)
from bridgekit_verify.measure.history import Arrival, EventKey, Expectation, Handover, History, Socket

__all__ = ["Attribution", "Row", "attribute_loss", "attribute_misroute", "ledger"]


class Row(NamedTuple):
    """One event and one socket that is entitled to it."""

    expectation: Expectation
    socket: Socket
    copies: int
    """How often the socket read the event: 0 if the event is lost."""
    latency_seconds: float | None
    """Time from emission to the first read, both measured with the same clock, or None if the event is lost."""
    signalled: bool
    """Whether the event is lost and the server sent the client a gap that covers the event."""
    attribution: Attribution | None
    """The link that lost the event, or None if the event is not lost."""


def ledger(history: History) -> list[Row]:
    """Return a row for every expected event and every socket entitled to it, in the order of `history.expected`."""
    first: dict[tuple[EventKey, int], Arrival] = {}
    repeated = Counter[tuple[EventKey, int]]()
    for arrival in history.arrivals:
        if arrival.key is not None:
            place = arrival.key, arrival.socket.number
            if place in first:
                repeated[place] += 1
            else:
                first[place] = arrival
    entitled: dict[tuple[str, str], list[Socket]] = defaultdict(list)
    for socket in history.sockets:
        entitled[socket.thread_id, socket.user_id].append(socket)
    rows = list[Row]()
    for expectation in history.expected:
        for socket in entitled[expectation.thread_id, expectation.user_id]:
            place = expectation.key, socket.number
            read = first.get(place)
            if read is None:
                signalled = _signalled(history, expectation.key, socket)
                rows.append(Row(expectation, socket, 0, None, signalled, attribute_loss(history, expectation)))
            else:
                latency_seconds = read.read_at - read.emitted_at
                rows.append(Row(expectation, socket, 1 + repeated.get(place, 0), latency_seconds, False, None))
    return rows


def _signalled(history: History, key: EventKey, socket: Socket) -> bool:
    _, receipt = history.acknowledged.get(key, (None, None))
    return receipt is not None and any(gap.covers(receipt) for gap in history.gaps.get(socket.number, ()))


def attribute_loss(history: History, expectation: Expectation) -> Attribution:
    """Return the first link that, according to the history, did not pass on a lost event correctly."""
    if (known := history.acknowledged.get(expectation.key)) is None:
        return _before_the_bridge(history, expectation.key)
    receipt = known[1]
    if receipt.outcome is not Outcome.SENT:
        stopped = Attribution(receipt.link or 9, receipt.reason)
    elif receipt.seq is None:
        # The hub numbers every event that it receives, so an event without a `seq` did not reach the hub.
        stopped = Attribution(9, "reported as sent, but never passed to the hub")
    else:
        stopped = Attribution(10, "reported as sent, but read by no socket")
    return _by_route(history, expectation, otherwise=stopped)


def attribute_misroute(history: History, expectation: Expectation) -> Attribution:
    """Return the first link that sent an event to another thread."""
    return _by_route(history, expectation, otherwise=Attribution(10, "delivered to a socket of another thread"))


def _by_route(history: History, expectation: Expectation, *, otherwise: Attribution) -> Attribution:
    if (misrouted := misrouted_upstream(history, expectation)) is not None:
        return misrouted
    known = history.acknowledged.get(expectation.key)
    if known is not None and known[1].thread_id not in (None, expectation.thread_id):
        return Attribution(9, "sent to another thread")
    return otherwise


def _before_the_bridge(history: History, key: EventKey) -> Attribution:
    if history.wrong_bridge is not None:
        return Attribution(*history.wrong_bridge)
    if key.request in history.failures:
        return Attribution(*history.failures[key.request])
    if (missing := missing_handover(history, key.request)) is not None:
        return missing
    handover = history.handovers.get(key.request)
    if key.type in EMITTED_BY_CORE or handover is None:
        return Attribution(5, "the core did not emit the event")
    emission = history.emissions.get(key)
    return _unreported_emission(history, handover) if emission is None else undelivered_emission(history, key, emission)


def _unreported_emission(history: History, handover: Handover) -> Attribution:
    """Return the first link that had not passed on bridge and run when the run started, or else link 8."""
    if not handover.given:
        return Attribution(3 if history.bound_by_registry else 5, "the agent received no bridge")
    if not handover.passed_on:
        return Attribution(6, "the agent did not bind its adapter")
    if not handover.holds:
        return Attribution(7, "the adapter does not hold both a bridge and a run")
    return Attribution(8, "the adapter did not pass the event to the bridge")
