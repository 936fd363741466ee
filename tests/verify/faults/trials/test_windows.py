"""Loss as a function of offline time: the closed form, and the study with real workers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bridgekit_verify.faults.trials.deployment import AT_MOST_ONCE, RESUME
from bridgekit_verify.faults.trials.trial import TrialPlan
from bridgekit_verify.faults.trials.windows import predicted_loss, study_windows

PLAN = TrialPlan(pace_seconds=0.05)
SMALL = replace(RESUME, keep_events=30)


@pytest.mark.parametrize(("offline", "share"), [(0.0, 0.0), (0.5, 0.25), (2.0, 1.0)])
def test_at_most_once_loses_events_of_the_offline_time(offline: float, share: float) -> None:
    assert predicted_loss(AT_MOST_ONCE, PLAN, offline, 2.0) == pytest.approx(share)


@pytest.mark.parametrize(("offline", "share"), [(0.0, 0.0), (0.5, 0.0), (0.51, 0.255), (1.0, 0.5)])
def test_log_loses_nothing_until_it_overflows_and_then_everything_missed(offline: float, share: float) -> None:
    """Three events every 50 ms: thirty are emitted in half a second."""
    assert predicted_loss(SMALL, PLAN, offline, 2.0) == pytest.approx(share)


@pytest.mark.slow
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_overflowed_log_signals_the_loss_and_a_sufficient_log_loses_nothing() -> None:
    study = await study_windows([0.0, 0.6], users=1, keep_events=12, plan=TrialPlan(steps=16, pace_seconds=0.04))
    verdicts = [window.trial.verdict for window in study.windows]
    assert [verdict.lost_silent > 0 for verdict in verdicts] == [False, True, False, False]
    assert [verdict.lost_signalled > 0 for verdict in verdicts] == [False, False, False, True]
    assert study.windows[1].offline_seconds >= 0.6
