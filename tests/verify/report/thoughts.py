"""Measurements of a chosen result, without a server: what Alice's run emitted, and who read it."""

from __future__ import annotations

from dataclasses import replace

from bridgekit.events import EventType
from bridgekit.ids import RunId, ThreadId, UserId
from bridgekit_verify.measure.checker import check
from bridgekit_verify.measure.experiment import Measurement
from bridgekit_verify.measure.history import Arrival, EventKey, Expectation, History, Socket
from bridgekit_verify.measure.workload import Workload, thread_ids
from bridgekit_verify.variants import Variant

ALICE, BOB = Socket(0, ThreadId("thread_1"), UserId("alice")), Socket(1, ThreadId("thread_2"), UserId("bob"))


def thoughts(delivered: int, misrouted: int, lost: int) -> History:
    """Return Alice's thoughts: so many that she read, that Bob read, and that nobody read."""
    history = History(sockets=[ALICE, BOB])
    readers = [ALICE] * delivered + [BOB] * misrouted + [None] * lost
    for number, socket in enumerate(readers, start=1):
        key = EventKey(f"question {number}", EventType.AGENT_THINKING, 1)
        history.expected.append(Expectation(key, ALICE.thread_id, ALICE.user_id))
        if socket is not None:
            history.arrivals.append(Arrival(socket, key, RunId("run_1"), number, 0.0, 1.0))
    return history


def measured(variant: Variant, history: History, *, false_success: int = 0, at_once: int = 1) -> Measurement:
    verdict = replace(check(history), false_success=false_success, acknowledged=len(history.expected))
    return Measurement(variant, Workload(threads=thread_ids("thread_123", 2), at_once=at_once), 0, history, verdict)
