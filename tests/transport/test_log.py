"""Logs in memory: they never wait, and retain no more than the policy allows."""

from __future__ import annotations

import math
import re
import tracemalloc
from collections.abc import Coroutine
from typing import Any

import pytest

from bridgekit.errors import InvalidId
from bridgekit.events import Frame
from bridgekit.ids import ThreadId
from bridgekit.transport.hub import Hub
from bridgekit.transport.log import MemoryEventLog, Retention
from tests.contract.stores import Worker, event_with_number
from tests.factories import OTHER, THREAD
from tests.stores.sqlite.files import Clock

IDLE_BYTES = 500
"""Memory of a thread for which only epoch and `seq` are kept."""


def done(operation: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that never waits, without an event loop."""
    try:
        operation.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("the log waited")


def bound_log(*choices: Any) -> MemoryEventLog:
    """Return a log that delivers to a hub without sockets."""
    log = MemoryEventLog(*choices)
    Hub(log)
    return log


def held(log: MemoryEventLog) -> dict[ThreadId, list[Frame]]:
    """Return the retained frames."""
    return {
        thread_id: [] if each.retained is None else list(each.retained.frames)
        for thread_id, each in log._with_frames.items()
    }


def test_no_operation_waits() -> None:
    log = bound_log()
    done(log.join(THREAD))
    receipt = log.publish(event_with_number(THREAD))
    assert receipt.seq == 1
    assert done(log.replay(THREAD, None)).cursor.seq == 1


def test_publishing_to_any_thread_frees_expired_frames() -> None:
    clock = Clock()
    log = bound_log(Retention(seconds=10), clock)
    for number in range(20):
        log.publish(event_with_number(ThreadId(f"thread_{number}")))
    assert len(held(log)) == 20
    clock.now += 11
    for number in range(20):
        log.publish(event_with_number(OTHER, number))
    assert list(held(log)) == [OTHER]
    assert len(log) == 21


def test_publishing_to_a_thread_frees_its_expired_frames() -> None:
    clock = Clock()
    log = bound_log(Retention(seconds=10), clock)
    for number in range(30):
        log.publish(event_with_number(THREAD, number))
        clock.now += 1
    assert [frame.seq for frame in held(log)[THREAD]] == list(range(20, 31))


def test_frames_of_an_evicted_thread_are_freed() -> None:
    log = bound_log(Retention(threads=1))
    log.publish(event_with_number(THREAD))
    log.publish(event_with_number(OTHER))
    assert (list(held(log)), len(log)) == ([OTHER], 1)


def test_idle_thread_costs_little() -> None:
    clock = Clock()
    log = bound_log(Retention(seconds=1), clock)
    events = [event_with_number(ThreadId(f"thread_{number}")) for number in range(2_000)]
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for event in events:
            log.publish(event)
            clock.now += 2
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (after - before) / len(events) < IDLE_BYTES


def test_threads_with_sockets_are_kept_over_the_limit_and_evicted_when_their_sockets_leave() -> None:
    worker = Worker(log := MemoryEventLog(Retention(threads=3)))
    threads = [ThreadId(f"thread_{number}") for number in range(6)]
    for thread in threads:
        done(worker.join(thread))
    assert len(log) == 6
    for thread in threads:
        worker.leave(thread)
    log.publish(event_with_number(OTHER))
    assert len(log) == 3


@pytest.mark.parametrize("name", ["events", "size_bytes", "seconds", "threads"])
@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, -1, "5", None, True, 1e308, 10**400])
def test_retention_that_no_store_can_keep_is_refused(name: str, value: Any) -> None:
    with pytest.raises(InvalidId, match=rf"^Retention.{name}: must be .*, not {re.escape(repr(value))}$"):
        Retention(**{name: value})


def test_retention_of_zero_and_of_fractions_of_seconds_is_accepted() -> None:
    assert Retention(events=0, size_bytes=0, seconds=0, threads=0) != Retention(seconds=0.5)
