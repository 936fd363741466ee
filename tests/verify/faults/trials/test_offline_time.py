"""Loss as a function of offline time: the closed form, and the study with real workers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO

import pytest

from bridgekit.ids import RunId
from bridgekit_verify.faults.trials.deployment import AT_MOST_ONCE, RESUME
from bridgekit_verify.faults.trials.offline_time import Window, WindowStudy, predicted_loss, study_windows
from bridgekit_verify.faults.trials.recorder import Reader
from bridgekit_verify.faults.trials.trial import TrialPlan, missed_events
from bridgekit_verify.measure.history import Arrival
from bridgekit_verify.report.fault_claims import windows_claim
from tests.verify.faults.trials.trials import SOCKET, key, no_ticket, trial

SMALL = replace(RESUME, keep_events=30)


@pytest.mark.parametrize("missed", [0, 3, 31])
def test_at_most_once_loses_what_was_missed(missed: int) -> None:
    assert predicted_loss(AT_MOST_ONCE, missed) == missed


@pytest.mark.parametrize(("missed", "lost"), [(0, 0), (30, 0), (31, 31), (60, 60)])
def test_log_loses_nothing_until_it_overflows_and_then_everything_missed(missed: int, lost: int) -> None:
    assert predicted_loss(SMALL, missed) == lost


def reader_of(*read: int, starts: Sequence[int] = ()) -> Reader:
    """Return a reader with two subscriptions, offline from second 5 to 8, that read these numbers in their seconds."""
    reader = Reader(SOCKET, "ws://nowhere", no_ticket, online=[(0.0, 5.0), (8.0, 20.0)], starts=list(starts))
    reader.arrivals += [Arrival(SOCKET, key(seq), RunId("run_1"), seq, seq, seq) for seq in read]
    return reader


def test_step_in_flight_when_the_connection_broke_is_missed() -> None:
    """Event 5 was emitted before the client noticed the break, and never read."""
    assert missed_events(reader_of(1, 2, 3, 4, 8, 9, starts=[0, 7]), range(1, 10)) == [3]
    assert missed_events(reader_of(1, 2, 3, 4, 5, 8, 9, starts=[0, 7]), range(1, 10)) == [2]


def test_missed_events_of_a_client_that_resumes_are_those_emitted_before_it_subscribed() -> None:
    assert missed_events(reader_of(1, 2, 3, 4, 9), range(1, 10)) == [4]


def test_client_that_read_nothing_missed_everything_after_its_first_start() -> None:
    assert missed_events(reader_of(starts=[2, 7]), range(1, 10)) == [5]


def window_of(*, lost: Sequence[int], starts: Sequence[int]) -> Window:
    """Return a window of six events, one per second; the user is offline from 2.7 to 4.7."""
    found = trial(AT_MOST_ONCE, events=6, lost=lost, online=[(0.0, 2.7), (4.7, 100.0)])
    found.readers[0].starts += starts
    found.readers[0].arrivals += [each for each in found.history.arrivals if each.socket == SOCKET]
    return Window(found)


def test_count_without_a_log_must_be_the_predicted_one() -> None:
    """Event 2 is read at second 2.5, and the server confirms that the second subscription starts after event 4."""
    right, wrong = window_of(lost=[3, 4], starts=[0, 4]), window_of(lost=[3], starts=[0, 4])
    assert (right.predicted.k, right.lost.k, right.tolerance, right.agrees) == (2, 2, 0, True)
    assert (wrong.predicted.k, wrong.lost.k, wrong.agrees) == (2, 1, False)
    assert windows_claim(WindowStudy([right])).verdict == "holds"
    assert windows_claim(WindowStudy([right, wrong])).verdict == "does not hold"


def test_no_window_is_unknown_and_can_be_drawn() -> None:
    empty = WindowStudy([])
    assert windows_claim(empty).verdict == "unknown"
    empty.figure().savefig(BytesIO(), format="png")
    assert empty.alt_text() == "no offline time was measured"


@pytest.mark.slow
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_overflowed_log_signals_the_loss_and_a_sufficient_log_loses_nothing() -> None:
    study = await study_windows([0.0, 0.6], users=1, keep_events=12, plan=TrialPlan(steps=16, pace_seconds=0.04))
    verdicts = [window.trial.verdict for window in study.windows]
    assert [verdict.lost_silent > 0 for verdict in verdicts] == [False, True, False, False]
    assert [verdict.lost_signalled > 0 for verdict in verdicts] == [False, False, False, True]
    assert study.windows[1].offline_seconds >= 0.6
    for window in study.windows:
        assert window.agrees, (window.trial.delivery.name, window.lost, window.predicted, window.tolerance)
