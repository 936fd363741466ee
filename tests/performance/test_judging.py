"""Checking twice as many events takes at most about twice the work, also with many errors."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Final, TypeVar

import pytest

from benchmarks.own_cost_process import sound_history
from bridgekit.invariants.reports import check_stream
from bridgekit_verify.measure.checker import check
from tests.invariants.recordings import STEPS, Frame, frame, numbered
from tests.performance.counting import Calls

EVENTS: Final = 100
MAX_RATIO: Final = 2.1
"""Allowed ratio of work for twice the events."""
ERROR_INTERVAL: Final = 5
"""Errors occur once per this many events: the tool call of each run is lost, repeated or late."""

T = TypeVar("T")


def lost(events: Iterable[T]) -> list[T]:
    return [each for place, each in enumerate(events) if place % ERROR_INTERVAL != 2]


def repeated(events: Iterable[T]) -> list[T]:
    return [copy for place, each in enumerate(events) for copy in [each] * (2 if place % ERROR_INTERVAL == 2 else 1)]


def late(events: Iterable[T]) -> list[T]:
    return [each for _, each in sorted(enumerate(events), key=lambda at: at[0] + 2.5 * (at[0] % ERROR_INTERVAL == 2))]


MUTATIONS: Final[list[Callable[[Iterable[Any]], list[Any]]]] = [list, lost, repeated, late]


def stream(events: int) -> list[Frame]:
    """Return consecutive runs on one thread."""
    runs = range(events // len(STEPS))
    return numbered(frame(kind, payload, run=f"run {number}") for number in runs for kind, payload in STEPS)


def judged(frames: list[Frame]) -> None:
    """Check the invariants, with a signalled gap for each missing `seq`."""
    read = {each["seq"] for each in frames}
    check_stream(frames, signalled=[(seq, seq) for seq in range(1, max(read)) if seq not in read])


@pytest.mark.parametrize("mutate", MUTATIONS)
def test_work_of_checking_a_stream_grows_linearly(mutate: Callable[[Iterable[Frame]], list[Frame]]) -> None:
    some, twice = mutate(stream(EVENTS)), mutate(stream(2 * EVENTS))
    assert work(judged, twice) <= MAX_RATIO * work(judged, some)


def test_work_of_finding_unsignalled_gaps_grows_linearly() -> None:
    some, twice = lost(stream(EVENTS)), lost(stream(2 * EVENTS))
    assert work(check_stream, twice) <= MAX_RATIO * work(check_stream, some)


@pytest.mark.parametrize("mutate", MUTATIONS)
def test_work_of_checking_a_history_grows_linearly(mutate: Callable[[Iterable[Any]], list[Any]]) -> None:
    some, twice = (
        replace(each, arrivals=mutate(each.arrivals)) for each in (sound_history(EVENTS), sound_history(2 * EVENTS))
    )
    assert work(check, twice) <= MAX_RATIO * work(check, some)


def work(judge: Callable[[T], object], what: T) -> int:
    """Return the number of calls and executed lines."""
    with Calls() as seen:
        judge(what)
    return seen.all.total() + seen.lines.total()
