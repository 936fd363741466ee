"""To judge twice as many events takes twice the work, also where much is wrong with them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Final, TypeVar

import pytest

from benchmarks.in_process import sound_history
from bridgekit.invariants.reports import check_stream
from bridgekit_verify.measure.checker import check
from tests.performance.counting import Calls
from tests.verify.measure.recordings import STEPS, Frame, frame, numbered

EVENTS: Final = 100
AT_MOST: Final = 2.1
"""Times the work for twice the events."""
MISTAKES: Final = 5
"""One event in so many is lost, or repeated, or read too late: of each run, that a tool was called."""

T = TypeVar("T")


def lost(events: Iterable[T]) -> list[T]:
    return [each for place, each in enumerate(events) if place % MISTAKES != 2]


def repeated(events: Iterable[T]) -> list[T]:
    return [copy for place, each in enumerate(events) for copy in [each] * (2 if place % MISTAKES == 2 else 1)]


def late(events: Iterable[T]) -> list[T]:
    return [each for _, each in sorted(enumerate(events), key=lambda at: at[0] + 2.5 * (at[0] % MISTAKES == 2))]


SPOILT: Final[list[Callable[[Iterable[Any]], list[Any]]]] = [list, lost, repeated, late]


def stream(events: int) -> list[Frame]:
    """Runs on one thread, one after the other."""
    runs = range(events // len(STEPS))
    return numbered(frame(kind, payload, run=f"run {number}") for number in runs for kind, payload in STEPS)


def judged(frames: list[Frame]) -> None:
    """By the invariants, with a signalled gap for each number that is missing."""
    read = {each["seq"] for each in frames}
    check_stream(frames, signalled=[(seq, seq) for seq in range(1, max(read)) if seq not in read])


@pytest.mark.parametrize("spoilt", SPOILT)
def test_stream_is_judged_with_work_that_grows_as_it_does(spoilt: Callable[[Iterable[Frame]], list[Frame]]) -> None:
    some, twice = spoilt(stream(EVENTS)), spoilt(stream(2 * EVENTS))
    assert work(judged, twice) <= AT_MOST * work(judged, some)


def test_holes_that_nobody_was_told_of_are_found_with_work_that_grows_as_the_stream_does() -> None:
    some, twice = lost(stream(EVENTS)), lost(stream(2 * EVENTS))
    assert work(check_stream, twice) <= AT_MOST * work(check_stream, some)


@pytest.mark.parametrize("spoilt", SPOILT)
def test_history_is_judged_with_work_that_grows_as_it_does(spoilt: Callable[[Iterable[Any]], list[Any]]) -> None:
    some, twice = (
        replace(each, arrivals=spoilt(each.arrivals)) for each in (sound_history(EVENTS), sound_history(2 * EVENTS))
    )
    assert work(check, twice) <= AT_MOST * work(check, some)


def work(judge: Callable[[T], object], what: T) -> int:
    """Calls, and lines."""
    with Calls() as seen:
        judge(what)
    return seen.all.total() + seen.lines.total()
