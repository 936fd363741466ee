"""One fault in one deployment: its counts and the prediction."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from bridgekit.errors import UnknownName
from bridgekit_verify.faults.trials.deployment import (
    AT_MOST_ONCE,
    DELIVERY_MODES,
    REDIS,
    RESUME,
    SQLITE,
    DeliveryMode,
    deployed,
)
from bridgekit_verify.faults.trials.fault_catalogue import FAULTS, FaultTarget, faults_named
from bridgekit_verify.faults.trials.trial import Trial, TrialPlan, run_trial
from bridgekit_verify.measure.thread_id_families import thread_ids
from tests.verify.faults.trials.trials import SOCKET, trial

on_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"])
"""Workers run on asyncio, so the tests run on one backend only."""

QUICK = TrialPlan(steps=10, pace_seconds=0.03, start_seconds=0.1, duration_seconds=0.15, after_steps=1)


def offline_trial(
    delivery: DeliveryMode = AT_MOST_ONCE, *, fault: str = "down", starts: Sequence[int] = (0, 4)
) -> Trial:
    """Return a trial with one event per second; the user reads event 2 at second 2.5 and is offline from 2.7 to 4.7."""
    found = trial(delivery, fault=fault, events=6, lost=[3, 4], online=[(0.0, 2.7), (4.7, 100.0)])
    found.readers[0].starts += starts
    found.readers[0].arrivals += [each for each in found.history.arrivals if each.socket == SOCKET]
    return found


@pytest.mark.parametrize("fault", ["down", "timeout", "reset_peer"])
def test_events_that_users_missed_are_predicted_to_be_lost(fault: str) -> None:
    assert offline_trial(fault=fault).predicted_delivered == 4
    assert offline_trial(fault=fault, starts=[0, 5]).predicted_delivered == 3


def test_user_who_stays_connected_is_predicted_to_miss_nothing() -> None:
    found = trial(AT_MOST_ONCE, fault="latency", events=6)
    assert (found.missed, found.predicted_delivered) == ([], 6)


@pytest.mark.parametrize(
    ("delivery", "fault"), [(RESUME, "down"), (AT_MOST_ONCE, "kill"), (AT_MOST_ONCE, "slow_reader")]
)
def test_delivery_is_not_predicted_where_a_user_does_not_just_miss_events(delivery: DeliveryMode, fault: str) -> None:
    assert offline_trial(delivery, fault=fault).predicted_delivered is None


def test_lost_events_have_the_time_of_their_attempt() -> None:
    assert trial(AT_MOST_ONCE, lost=[2, 4]).lost_moments == [2.0, 4.0]


def test_broker_and_agent_faults_apply_only_to_separate_agents() -> None:
    for fault in FAULTS.values():
        separate_agents = fault.target in (FaultTarget.AGENTS, FaultTarget.BROKER)
        assert [fault.applies_to(row) for row in (AT_MOST_ONCE, RESUME, SQLITE, REDIS)] == [
            *[not separate_agents] * 3,
            True,
        ]


def test_chosen_faults_include_the_baseline_and_no_name_means_all() -> None:
    assert [fault.name for fault in faults_named(["kill", "down"])] == ["none", "down", "kill"]
    assert faults_named([]) == list(FAULTS.values())
    with pytest.raises(UnknownName, match="no fault is called 'typo'; known: 'none', 'latency'"):
        faults_named(["typo"])


def test_names_of_faults_and_modes_are_unique() -> None:
    assert list(FAULTS) == [fault.name for fault in FAULTS.values()]
    assert list(DELIVERY_MODES) == [row.name for row in DELIVERY_MODES.values()]


@pytest.mark.slow
@on_asyncio
@pytest.mark.parametrize(("delivery", "loses"), [(AT_MOST_ONCE, True), (RESUME, False)])
async def test_disconnected_users_lose_events_unless_they_resume(delivery: DeliveryMode, loses: bool) -> None:
    owned = thread_ids("starts with another id", 3)
    async with deployed(delivery, owned) as deployment:
        found = await run_trial(FAULTS["down"], deployment, owned, plan=QUICK)
    assert found.quiesced
    # At least this many: on a busy machine there is another run before or after the fault.
    assert found.verdict.expected == len(found.attempted_at) >= 3 * (2 + 3 * QUICK.steps + 2 + 3 * QUICK.after_steps)
    assert (found.verdict.lost_silent > 0) is loses
    assert found.predicted_delivered == (found.verdict.delivered if loses else None)
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
