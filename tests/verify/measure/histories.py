"""Literal histories: three threads of two users, one socket each, and every event delivered."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from bridgekit.events import EventType, Outcome, Receipt
from bridgekit.ids import RunId, ThreadId, UserId
from bridgekit_verify.measure.checker import Verdict
from bridgekit_verify.measure.history import Arrival, EventKey, Expectation, Handover, History, Socket

ALICES, ALICES_OTHER, BOBS = (
    Socket(0, ThreadId("a1"), UserId("alice")),
    Socket(1, ThreadId("a2"), UserId("alice")),
    Socket(2, ThreadId("b1"), UserId("bob")),
)
SOCKETS = [ALICES, ALICES_OTHER, BOBS]
EVENTS_PER_THREAD = 5


def key(socket: Socket, seq: int) -> EventKey:
    """Return the thread's event with that number."""
    return EventKey(f"question of {socket.thread_id}", EventType.AGENT_THINKING, seq)


def arrival(at: Socket, of: EventKey | None, seq: int) -> Arrival:
    return Arrival(socket=at, key=of, run_id=RunId("run"), seq=seq, emitted_at=10.0, read_at=10.25)


def sent(thread_id: str, seq: int) -> tuple[RunId, Receipt]:
    receipt = Receipt(outcome=Outcome.SENT, sockets=1, thread_id=ThreadId(thread_id), seq=seq)
    return RunId(f"run of {thread_id}"), receipt


def clean() -> History:
    """Return a history where every event was sent and read, thread by thread and in order."""
    history = History(sockets=list(SOCKETS))
    for socket in SOCKETS:
        run_id = RunId(f"run of {socket.thread_id}")
        request = key(socket, 1).request
        history.handovers[request] = Handover(run_id=run_id, given=True, passed_on=True, holds=True)
        for seq in range(1, EVENTS_PER_THREAD + 1):
            history.expected.append(Expectation(key(socket, seq), socket.thread_id, socket.user_id))
            history.acknowledged[key(socket, seq)] = sent(socket.thread_id, seq)
            history.arrivals.append(arrival(socket, key(socket, seq), seq))
    return history


def differences(before: Verdict, after: Verdict) -> dict[str, Any]:
    """Return the changed fields of the second verdict: numbers as differences, dicts as they are."""
    changed: dict[str, Any] = {}
    for field in fields(Verdict):
        old, new = getattr(before, field.name), getattr(after, field.name)
        if old != new:
            changed[field.name] = new - old if isinstance(new, int) else new
    return changed


def moved(history: History, seq: int, to: Socket) -> None:
    """Let another socket read Alice's frame with that number."""
    index = history.arrivals.index(arrival(ALICES, key(ALICES, seq), seq))
    history.arrivals[index] = replace(history.arrivals[index], socket=to)
