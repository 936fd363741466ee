"""What sockets read of a wave, judged: lateness from the moment an event was due, and losses and strays by name."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bridgekit.ids import RunId
from bridgekit_verify.capacity.client_process import judge_step
from bridgekit_verify.capacity.schedule import LoadPlan, LoadWave, owner
from bridgekit_verify.measure.history import Arrival, History, SignalledGap, Socket

WAVE = LoadWave(name="wave 1", plan=LoadPlan(seconds=1.0), first=0, threads=2, runs_per_second=20, begins_at=1_000.0)
SOCKETS = [Socket(number, owner(number).thread_id, owner(number).user_id) for number in range(2)]


def read(*, late: float = 0.01, growing: float = 0.0) -> History:
    """Every event so long after it was due, and `growing` longer with each second of the wave."""
    history = History(sockets=list(SOCKETS), expected=WAVE.expectations())
    numbers = dict.fromkeys(range(2), 0)
    for expected in sorted(history.expected, key=lambda each: WAVE.due(each.key)):
        due = WAVE.due(expected.key)
        socket = next(each for each in SOCKETS if each.thread_id == expected.thread_id)
        numbers[socket.number] += 1
        moment = due + late + growing * (due - WAVE.begins_at)
        history.arrivals.append(
            Arrival(socket, expected.key, RunId("run_1"), numbers[socket.number], due + late / 2, moment, "e")
        )
    return history


def test_lateness_is_from_the_moment_an_event_was_due_and_not_from_when_it_was_said() -> None:
    judged = judge_step(WAVE, read(late=0.5), within_seconds=1.0)
    assert judged.late_p50 == pytest.approx(0.5)
    assert judged.emitted_p50 == pytest.approx(0.25)
    assert judged.within == judged.delivered == judged.expected == WAVE.events == 100


def test_event_that_comes_too_late_is_delivered_and_not_in_time() -> None:
    history = read()
    history.arrivals[-1] = replace(history.arrivals[-1], read_at=history.arrivals[-1].read_at + 2)
    judged = judge_step(WAVE, history, within_seconds=1.0)
    assert (judged.delivered, judged.within, judged.lost) == (100, 99, 0)
    assert judged.late_max == pytest.approx(2.01)


def test_lost_event_is_lost_and_not_in_time_and_the_signalled_are_counted() -> None:
    history = read()
    history.arrivals.pop()
    history.gaps[0] = [SignalledGap(7, 9, "e")]
    judged = judge_step(WAVE, history, within_seconds=1.0)
    assert (judged.delivered, judged.within, judged.lost, judged.signalled) == (99, 99, 1, 3)


def test_copy_stray_and_swap_are_each_counted_as_what_they_are() -> None:
    copied, strayed, swapped = read(), read(), read()
    copied.arrivals.append(copied.arrivals[0])
    assert judge_step(WAVE, copied, within_seconds=1.0).extra_copies == 1
    other = SOCKETS[1 - strayed.arrivals[0].socket.number]
    strayed.arrivals[0] = replace(strayed.arrivals[0], socket=other)
    found = judge_step(WAVE, strayed, within_seconds=1.0)
    assert (found.misrouted, found.lost) == (1, 1)
    numbers = [place for place, each in enumerate(swapped.arrivals) if each.socket.number == 0][:2]
    first, second = (swapped.arrivals[place] for place in numbers)
    swapped.arrivals[numbers[0]], swapped.arrivals[numbers[1]] = second, first
    assert judge_step(WAVE, swapped, within_seconds=1.0).reordered == 1


def test_frame_of_another_wave_was_not_expected() -> None:
    history = read()
    history.arrivals.append(replace(history.arrivals[0], key=None))
    assert judge_step(WAVE, history, within_seconds=1.0).unexpected == 1


def test_process_that_falls_behind_shows_in_the_quick_ones_and_one_that_stood_still_for_a_moment_does_not() -> None:
    behind = judge_step(WAVE, read(growing=0.5), within_seconds=1.0)
    assert (behind.late_last - behind.late_first) / behind.apart_seconds == pytest.approx(0.5, rel=0.3)
    stood = read()
    for place in range(-15, 0):
        stood.arrivals[place] = replace(stood.arrivals[place], read_at=stood.arrivals[place].read_at + 0.3)
    assert judge_step(WAVE, stood, within_seconds=1.0).late_last == pytest.approx(0.01)


def test_of_nothing_nothing_is_said() -> None:
    judged = judge_step(WAVE, History(sockets=list(SOCKETS), expected=WAVE.expectations()), within_seconds=1.0)
    assert (judged.delivered, judged.within, judged.lost, judged.late_max) == (0, 0, 100, 0.0)
