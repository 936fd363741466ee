"""The checker: a million events judged in one go."""

from __future__ import annotations

import tracemalloc

import pytest

from benchmarks.micro.finished import Timer
from bridgekit.events import EventType, Outcome, Receipt
from bridgekit.ids import RunId, ThreadId, UserId
from bridgekit_verify.measure.checker import Verdict, check
from bridgekit_verify.measure.history import Arrival, Expectation, History, Key, Socket

THREADS = 100
EVENTS = [10_000, 1_000_000]


def history(events: int) -> History:
    """All sent, all arrived, in order."""
    sockets = [Socket(number, ThreadId(f"thread_{number}"), UserId(f"user_{number}")) for number in range(THREADS)]
    made = History(sockets=sockets)
    for place in range(events):
        socket, seq = sockets[place % THREADS], place // THREADS + 1
        key, run = Key(f"question {place}", EventType.TOOL_EXECUTING, 1), RunId(f"run_{place}")
        receipt = Receipt(outcome=Outcome.SENT, sockets=1, kept=True, thread_id=socket.thread_id, seq=seq, epoch="e")
        made.expected.append(Expectation(key, socket.thread_id, socket.user_id))
        made.acknowledged[key] = run, receipt
        made.arrivals.append(Arrival(socket, key, run, seq, place / 1e3, place / 1e3 + 1e-4))
    return made


@pytest.mark.parametrize("events", EVENTS)
def test_check(benchmark: Timer, events: int) -> None:
    judged = history(events)
    tracemalloc.start()
    small = check(history(EVENTS[0]))
    benchmark.extra_info["peak bytes an event"] = tracemalloc.get_traced_memory()[1] // small.expected
    tracemalloc.stop()
    verdict = benchmark.pedantic(check, args=(judged,), rounds=1)
    assert isinstance(verdict, Verdict)
    assert verdict.delivered == verdict.expected == events
