"""The verdict on what sockets read of a wave: lateness from the due time, losses and misrouted events."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bridgekit.ids import RunId
from bridgekit_verify.capacity.client_process import judge_step
from bridgekit_verify.capacity.schedule import LoadPlan, LoadWave, owner
from bridgekit_verify.errors import LedgerImbalance
from bridgekit_verify.measure.history import Arrival, ExpectedEvents, History, SignalledGap, Socket

WAVE = LoadWave(name="wave 1", plan=LoadPlan(seconds=1.0), first=0, threads=2, runs_per_second=20, starts_at=1_000.0)
SOCKETS = [Socket(number, owner(number).thread_id, owner(number).user_id) for number in range(2)]


def read(*, late: float = 0.01, growing: float = 0.0) -> History:
    """Return a history with events `late` seconds late, plus `growing` for each second of the wave."""
    history = History(sockets=list(SOCKETS), expected=WAVE.expectations())
    numbers = dict.fromkeys(range(2), 0)
    for expected in sorted(history.expected, key=lambda each: WAVE.due(each.key)):
        due = WAVE.due(expected.key)
        socket = next(each for each in SOCKETS if each.thread_id == expected.thread_id)
        numbers[socket.number] += 1
        moment = due + late + growing * (due - WAVE.starts_at)
        history.arrivals.append(
            Arrival(socket, expected.key, RunId("run_1"), numbers[socket.number], due + late / 2, moment, "e")
        )
    return history


def test_lateness_counts_from_the_due_time_not_the_emission() -> None:
    judged = judge_step(WAVE, read(late=0.5), within_seconds=1.0)
    assert judged.late_p50 == pytest.approx(0.5)
    assert judged.emitted_p50 == pytest.approx(0.25)
    assert judged.within == judged.delivered == judged.expected == WAVE.events == 100


def test_late_event_is_delivered_but_not_on_time() -> None:
    history = read()
    history.arrivals[-1] = replace(history.arrivals[-1], read_at=history.arrivals[-1].read_at + 2)
    judged = judge_step(WAVE, history, within_seconds=1.0)
    assert (judged.delivered, judged.within, judged.lost) == (100, 99, 0)
    assert judged.late_max == pytest.approx(2.01)


def test_lost_event_is_not_on_time_and_signalled_events_are_counted() -> None:
    history = read()
    history.arrivals.pop()
    history.gaps[0] = [SignalledGap(7, 9, "e")]
    judged = judge_step(WAVE, history, within_seconds=1.0)
    assert (judged.delivered, judged.within, judged.lost, judged.signalled) == (99, 99, 1, 3)


def test_forgotten_event_contradicts_the_schedule() -> None:
    history = read()
    scheduled = ExpectedEvents(at_sockets=WAVE.events, without_socket=0)
    assert judge_step(WAVE, history, within_seconds=1.0, expected=scheduled).expected == 100
    forgotten = history.expected.pop()
    history.arrivals = [arrival for arrival in history.arrivals if arrival.key != forgotten.key]
    with pytest.raises(LedgerImbalance, match=r"expected = delivered \+ dropped, but 100 is not 99"):
        judge_step(WAVE, history, within_seconds=1.0, expected=scheduled)


def test_duplicated_misrouted_and_reordered_events_are_counted_separately() -> None:
    copied, strayed, swapped = read(), read(), read()
    copied.arrivals.append(copied.arrivals[0])
    assert judge_step(WAVE, copied, within_seconds=1.0).extra_copies == 1
    other = SOCKETS[1 - strayed.arrivals[0].socket.number]
    strayed.arrivals[0] = replace(strayed.arrivals[0], socket=other)
    found = judge_step(WAVE, strayed, within_seconds=1.0)
    assert (found.misrouted, found.lost) == (1, 1)
    numbers = [position for position, each in enumerate(swapped.arrivals) if each.socket.number == 0][:2]
    first, second = (swapped.arrivals[position] for position in numbers)
    swapped.arrivals[numbers[0]], swapped.arrivals[numbers[1]] = second, first
    assert judge_step(WAVE, swapped, within_seconds=1.0).reordered == 1


def test_frame_of_another_wave_is_unexpected() -> None:
    history = read()
    history.arrivals.append(replace(history.arrivals[0], key=None))
    assert judge_step(WAVE, history, within_seconds=1.0).unexpected == 1


def test_drift_shows_a_process_that_falls_behind_but_not_a_single_pause() -> None:
    behind = judge_step(WAVE, read(growing=0.5), within_seconds=1.0)
    assert (behind.late_last - behind.late_first) / behind.apart_seconds == pytest.approx(0.5, rel=0.3)
    stood = read()
    for position in range(-15, 0):
        stood.arrivals[position] = replace(stood.arrivals[position], read_at=stood.arrivals[position].read_at + 0.3)
    assert judge_step(WAVE, stood, within_seconds=1.0).late_last == pytest.approx(0.01)


def test_report_without_arrivals_has_zero_lateness() -> None:
    judged = judge_step(WAVE, History(sockets=list(SOCKETS), expected=WAVE.expectations()), within_seconds=1.0)
    assert (judged.delivered, judged.within, judged.lost, judged.late_max) == (0, 0, 100, 0.0)
