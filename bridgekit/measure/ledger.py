"""One row for each event and each socket entitled to it: what became of it, and which link a loss is charged to."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Final

from bridgekit.events import EventType, Outcome
from bridgekit.measure.history import Arrival, Expectation, History, Key, Socket

__all__ = ["Charge", "Row", "charge", "charge_of_misroute", "ledger"]

SAID_BY_CORE: Final = frozenset({EventType.AGENT_STARTED, EventType.AGENT_COMPLETED, EventType.AGENT_ERROR})
"""What the core tells the bridge itself; the rest goes through the agent and its adapter."""


@dataclass(frozen=True, slots=True)
class Charge:
    """Where an event stopped, or was sent astray."""

    link: int
    reason: str


@dataclass(frozen=True, slots=True)
class Row:
    """One event and one socket that is entitled to it."""

    expectation: Expectation
    socket: Socket
    copies: int
    """How often the socket read it; 0 is a loss."""
    latency_seconds: float | None
    """From emission to the first read, on one clock."""
    signalled: bool
    """Lost, but the client was told of the gap."""
    charge: Charge | None
    """Only for a loss."""


def ledger(history: History) -> list[Row]:
    """Every expected event beside every socket of its thread, in the order of expectation."""
    read: dict[tuple[Key, int], list[Arrival]] = defaultdict(list)
    for arrival in history.arrivals:
        if arrival.key is not None:
            read[arrival.key, arrival.socket.number].append(arrival)
    entitled: dict[tuple[str, str], list[Socket]] = defaultdict(list)
    for socket in history.sockets:
        entitled[socket.thread_id, socket.user_id].append(socket)
    return [
        _row(history, expectation, socket, read[expectation.key, socket.number])
        for expectation in history.expected
        for socket in entitled[expectation.thread_id, expectation.user_id]
    ]


def _row(history: History, expectation: Expectation, socket: Socket, copies: list[Arrival]) -> Row:
    return Row(
        expectation,
        socket,
        copies=len(copies),
        latency_seconds=copies[0].read_at - copies[0].emitted_at if copies else None,
        signalled=not copies and _signalled(history, expectation.key, socket),
        charge=None if copies else charge(history, expectation),
    )


def _signalled(history: History, key: Key, socket: Socket) -> bool:
    _, receipt = history.acknowledged.get(key, (None, None))
    if receipt is None or receipt.seq is None:
        return False
    return any(first <= receipt.seq <= last for first, last in history.gaps.get(socket.number, ()))


def charge(history: History, expectation: Expectation) -> Charge:
    """The first link that a lost event did not pass as it should have, by the evidence of the history."""
    if (known := history.acknowledged.get(expectation.key)) is None:
        return _before_the_bridge(history, expectation.key)
    receipt = known[1]
    if receipt.outcome is Outcome.SENT:
        stopped = Charge(10, "called sent, and no socket read it")
    else:
        stopped = Charge(receipt.link or 9, receipt.reason)
    return _sent(history, expectation, otherwise=stopped)


def charge_of_misroute(history: History, expectation: Expectation) -> Charge:
    """The first link that sent an event astray."""
    return _sent(history, expectation, otherwise=Charge(10, "given to a socket of another thread"))


def _sent(history: History, expectation: Expectation, *, otherwise: Charge) -> Charge:
    if _spoke_for_another(history, expectation.key):
        return Charge(5, "the agent spoke for another run")
    known = history.acknowledged.get(expectation.key)
    if known is not None and known[1].thread_id not in (None, expectation.thread_id):
        return Charge(9, "sent to another thread")
    return otherwise


def _spoke_for_another(history: History, key: Key) -> bool:
    known, handover = history.acknowledged.get(key), history.handovers.get(key.request)
    return known is not None and handover is not None and known[0] != handover.run_id


def _before_the_bridge(history: History, key: Key) -> Charge:
    if history.misplaced is not None:
        return Charge(*history.misplaced)
    if key.request in history.failures:
        return Charge(*history.failures[key.request])
    handover = history.handovers.get(key.request)
    if key.type in SAID_BY_CORE or handover is None:
        return Charge(5, "the core did not say it")
    if not handover.given:
        return Charge(3 if history.bound_by_registry else 5, "the agent was given no bridge")
    if not handover.passed_on:
        return Charge(6, "the agent did not tell its adapter")
    if not handover.holds:
        return Charge(7, "the adapter does not hold bridge and run")
    return Charge(8, "the adapter did not reach the bridge")
