"""One fault in one deployment: its counts and the closed form."""

from __future__ import annotations

import pytest

from bridgekit_verify.faults.trials.deployment import (
    AT_MOST_ONCE,
    DELIVERY_MODES,
    REDIS,
    RESUME,
    SQLITE,
    DeliveryMode,
    deployed,
)
from bridgekit_verify.faults.trials.fault_catalogue import FAULTS, FaultTarget
from bridgekit_verify.faults.trials.trial import TrialPlan, run_trial
from bridgekit_verify.measure.families import thread_ids
from tests.verify.faults.trials.trials import trial

on_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"])
"""Workers run on asyncio, so the tests run on one backend only."""

QUICK = TrialPlan(steps=10, pace_seconds=0.03, start_seconds=0.1, duration_seconds=0.15, after_steps=1)


def test_closed_form_is_the_share_of_time_with_a_subscribed_socket() -> None:
    """Events are emitted from second 1 to second 5, and the socket is offline from 2 to 3."""
    found = trial(AT_MOST_ONCE, events=5, online=[(0, 2), (3, 9)])
    assert found.emission_window == (1.0, 5.0)
    assert found.closed_form == pytest.approx(1 - 1 / 4)


@pytest.mark.parametrize(
    ("online", "share"),
    [([(0, 9)], 1.0), ([(3, 9)], 0.5), ([(0, 2)], 0.25), ([], 0.0), ([(0, 2), (2, 9)], 1.0), ([(6, 9)], 0.0)],
)
def test_closed_form_counts_only_time_between_first_and_last_event(
    online: list[tuple[float, float]], share: float
) -> None:
    assert trial(AT_MOST_ONCE, events=5, online=online).closed_form == pytest.approx(share)


def test_closed_form_counts_a_timeout_as_offline() -> None:
    found = trial(AT_MOST_ONCE, fault="timeout", events=5, online=[(0, 3), (3, 9)], window=(2, 3))
    assert found.closed_form == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("delivery", "fault"), [(RESUME, "down"), (AT_MOST_ONCE, "kill"), (AT_MOST_ONCE, "slow_reader")]
)
def test_closed_form_is_none_if_no_prediction_exists(delivery: DeliveryMode, fault: str) -> None:
    assert trial(delivery, fault=fault).closed_form is None


def test_lost_events_have_the_time_of_their_attempt() -> None:
    assert trial(AT_MOST_ONCE, lost=[2, 4]).lost_moments == [2.0, 4.0]


def test_broker_and_agent_faults_apply_only_to_separate_agents() -> None:
    for fault in FAULTS.values():
        separate_agents = fault.target in (FaultTarget.AGENTS, FaultTarget.BROKER)
        assert [fault.applies_to(row) for row in (AT_MOST_ONCE, RESUME, SQLITE, REDIS)] == [
            *[not separate_agents] * 3,
            True,
        ]


def test_names_of_faults_and_modes_are_unique() -> None:
    assert list(FAULTS) == [fault.name for fault in FAULTS.values()]
    assert list(DELIVERY_MODES) == [row.name for row in DELIVERY_MODES.values()]


@pytest.mark.slow
@on_asyncio
@pytest.mark.parametrize(("delivery", "loses"), [(AT_MOST_ONCE, True), (RESUME, False)])
async def test_disconnected_users_lose_events_unless_they_resume(delivery: DeliveryMode, loses: bool) -> None:
    owned = thread_ids("prefixes of one another", 3)
    async with deployed(delivery, owned) as deployment:
        found = await run_trial(FAULTS["down"], deployment, owned, plan=QUICK)
    assert found.quiesced
    # At least this many: on a busy machine there is another run before or after the fault.
    assert found.verdict.expected == len(found.attempted_at) >= 3 * (2 + 3 * QUICK.steps + 2 + 3 * QUICK.after_steps)
    assert (found.verdict.lost_silent > 0) is loses
    assert found.verdict.lost_signalled == found.verdict.misrouted == found.verdict.extra_copies == 0
    assert found.verdict.reordered == found.verdict.unexpected == found.unanswered == 0


@pytest.mark.slow
@on_asyncio
async def test_unacknowledged_events_of_a_killed_worker_are_expected_only_if_they_arrived() -> None:
    owned = thread_ids("chat_<n>", 2)
    async with deployed(RESUME, owned) as deployment:
        found = await run_trial(FAULTS["kill"], deployment, owned, plan=QUICK)
    assert found.quiesced
    cut_short = sum(":during" in key.request for key in found.attempted_at) % (2 * (2 + 3 * QUICK.steps))
    assert cut_short > 0
    assert 0 < found.verdict.expected <= len(found.attempted_at)
    assert found.verdict.lost_silent == found.verdict.unexpected == 0
